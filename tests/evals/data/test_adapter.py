"""Adapters are read strictly; the shipped ones fit the catalogue and rows of their formats."""

from pathlib import Path
from typing import Any

import pytest

from evals.data.adapter import Adapter, load_adapter, read_adapter, shipped_adapters
from evals.data.errors import AdapterError, UnknownAdapter
from policies import load_library
from tests.evals.data.files import adapter, read, write_table

HARMS = ("dangerous_content", "harassment", "hate_speech", "sexually_explicit", "violence")
SAFE = dict.fromkeys((*HARMS, "self_harm", "any_harm"), False)
WILD = {
    "prompt": "p",
    "adversarial": True,
    "response": "r",
    "prompt_harm_label": "harmful",
    "response_harm_label": "unharmful",
    "response_refusal_label": "refusal",
    "subcategory": "cyberattack",
}
AEGIS = {
    "id": "1",
    "prompt": "p",
    "response": "",
    "prompt_label": "unsafe",
    "response_label": None,
    "violated_categories": "Violence, Threat, Needs Caution",
}
BEAVER = {
    "prompt": "p",
    "response": "r",
    "is_safe": False,
    "category": dict.fromkeys(
        (
            "hate_speech,offensive_language",
            "self_harm",
            "sexually_explicit,adult_content",
            "violence,aiding_and_abetting,incitement",
            "terrorism,organized_crime",
        ),
        False,
    )
    | {"drug_abuse,weapons,banned_substance": True},
}
MODERATION = {"prompt": "x", "S": 0, "H": 0, "V": 0, "HR": 0, "SH": 0, "S3": 0, "H2": 0, "V2": 0}
LABELLED: list[tuple[str, str, dict[str, Any], dict[str, bool]]] = [
    (
        "openai_moderation",
        "a.jsonl.gz",
        MODERATION | {"H": 1, "H2": 1},
        {"any_harm": True, "hate_speech": True}
        | dict.fromkeys(("sexually_explicit", "violence", "harassment", "self_harm"), False),
    ),
    (
        "openai_moderation",
        "a.jsonl.gz",
        MODERATION,
        {policy: False for policy in SAFE if policy != "dangerous_content"},
    ),
    (
        "toxic_chat",
        "a.csv",
        {"conv_id": "c", "user_input": "x", "human_annotation": True}
        | {"toxicity": 0, "jailbreaking": 1},
        {"any_harm": False, "prompt_injection": True},
    ),
    ("xstest", "a.csv", {"id": 1, "prompt": "x", "type": "definitions"}, SAFE),
    ("xstest", "a.csv", {"id": 1, "prompt": "x", "type": "contrast_discr"}, {"any_harm": True}),
    (
        "hatecheck",
        "a.csv",
        {"case_id": 1, "test_case": "x", "label_gold": "non-hateful"}
        | {"functionality": "f", "target_ident": "t"},
        {"hate_speech": False},
    ),
    (
        "multilingual_hatecheck",
        "hatecheck_cases_final_german.csv",
        {"mhc_case_id": "german-1", "test_case": "x", "label_gold": "hateful"}
        | {"functionality": "f", "target_ident": "t"},
        {"hate_speech": True, "any_harm": True},
    ),
    (
        "beavertails",
        "a.jsonl.gz",
        BEAVER,
        {"any_harm": True, "dangerous_content": True}
        | dict.fromkeys(("hate_speech", "self_harm", "sexually_explicit", "violence"), False),
    ),
    (
        "harmbench_classifier",
        "a.json",
        {"behavior": "b", "generation": "g", "human_consensus": 1},
        {"any_harm": True},
    ),
    (
        "wildguardtest_prompts",
        "a.parquet",
        WILD,
        {"any_harm": True, "dangerous_content": True},
    ),
    ("wildguardtest_responses", "a.parquet", WILD, SAFE),
    ("aegis2_prompts", "a.json", AEGIS, {"any_harm": True, "violence": True}),
    ("aegis2_prompts", "a.json", AEGIS | {"response_label": "unsafe"}, {"any_harm": True}),
    ("aegis2_responses", "a.json", AEGIS | {"response": "r", "response_label": "safe"}, SAFE),
    (
        "unsafebench",
        "a.parquet",
        {"image": {"bytes": b"i", "path": None}, "safety_label": "Unsafe", "category": "Sexual"}
        | {"source": "s"},
        {"any_harm": True, "sexually_explicit": True},
    ),
    (
        "unsafebench",
        "a.parquet",
        {"image": {"bytes": b"i", "path": None}, "safety_label": "Safe", "category": "Sexual"}
        | {"source": "s"},
        SAFE,
    ),
    (
        "llavaguard",
        "a.arrow",
        {"image": b"i", "rating": "Unsafe", "category": "O2: Violence, Harm, or Cruelty"},
        {"any_harm": True, "violence": True},
    ),
    (
        "vlguard",
        "a.json",
        {"id": "1", "image": "i.png", "safe": False, "harmful_category": "risky behavior"}
        | {"harmful_subcategory": "violence"},
        {"any_harm": True, "violence": True},
    ),
]


@pytest.mark.parametrize(
    ("name", "file", "row", "labels"),
    LABELLED,
    ids=[f"{case[0]}-{len(case[3])}" for case in LABELLED],
)
def test_a_shipped_adapter_labels_a_row_of_its_format(
    tmp_path: Path, name: str, file: str, row: dict[str, Any], labels: dict[str, bool]
) -> None:
    (tmp_path / "i.png").write_bytes(b"image")
    [record] = read(write_table(tmp_path / file, [row]), load_adapter(name))
    assert record.labels == labels
    assert record.source == name
    assert record.lang == {"german": "de"}.get(file[-10:-4], None if record.image else "en")


def test_every_shipped_adapter_has_a_row_above() -> None:
    assert {case[0] for case in LABELLED} == {*shipped_adapters()}


@pytest.mark.parametrize("name", shipped_adapters())
def test_shipped_adapters_name_policies_of_the_catalogue_and_say_where_they_come_from(
    name: str,
) -> None:
    shipped = load_adapter(name)
    assert shipped.id == name
    named = {policy for rule in shipped.labels for each in rule.values.values() for policy in each}
    assert named <= load_library().policies.keys()
    assert "not checked against" in " ".join(shipped.source.split())
    assert shipped.licence


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"colums": {}}, r"adapter\.yml:\d+: colums: unknown key"),
        ({"columns": {"text": "a", "image": "b"}, "surface": "image"}, "expected no column 'text'"),
        ({"columns": {"image": "b"}}, "a prompt needs a column 'text'"),
        ({"columns": {"text": "a", "prompt": "b"}}, "the surface is no response"),
        ({"labels": []}, r"adapter\.yml:\d+: labels: .*at least 1"),
        (
            {"labels": [{"column": "a", "values": {"1": {"violence": "maybe"}}}]},
            r"violence: .*bool",
        ),
        ({"labels": [{"column": "a", "values": {"A": {}, "a": {}}}]}, "differ in case or spaces"),
        ({"surface": "video"}, "surface: Input should be 'prompt', 'response' or 'image'"),
        ({"id": "My set"}, "id: String should match pattern"),
    ],
)
def test_a_wrong_adapter_is_refused_with_line_and_key(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(AdapterError, match=problem):
        adapter(tmp_path, **changes)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("id: [", r"a\.yml:\d+: is not valid YAML"),
        ("id: a\nid: b", r"a\.yml:2: id: this key stands twice"),
        ("[]", r"a\.yml:1: expected a mapping"),
        ("id: &a [*a]", r"a\.yml"),
    ],
)
def test_what_is_no_adapter_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "a.yml").write_text(text)
    with pytest.raises(AdapterError, match=problem):
        read_adapter(tmp_path / "a.yml")


def test_an_unknown_name_is_told_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownAdapter, match=r"'toxicchat' is neither .*, toxic_chat,"):
        load_adapter("toxicchat")


def test_an_adapter_is_the_same_after_it_was_written_into_a_run(tmp_path: Path) -> None:
    for name in shipped_adapters():
        shipped = load_adapter(name)
        assert Adapter.model_validate_json(shipped.model_dump_json()) == shipped
