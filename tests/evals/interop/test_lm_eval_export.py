"""Tasks of lm-evaluation-harness: the prompts that a classifier reads, and what is left out."""

import json
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evals.interop.lm_eval_export import Export, export_tasks, judge_prompt
from evals.interop.lm_eval_task import au_prc, auroc, process_results
from evals.records import Record, RecordError
from evals.run import read_workload
from moderation.prompts import PromptBuilder
from moderation.templates import TEMPLATES
from moderation.tokenizer import SafeTokenizer
from policies import load_library
from tests.evals.scripted import plan_for, some_records, write_records
from tests.moderation.small_tokenizer import small_tokenizer_json

LIBRARY = load_library()


def export(folder: Path, records: list[Record]) -> Export:
    data = write_records(folder / "records.jsonl", records)
    return export_tasks(LIBRARY, read_workload(LIBRARY, plan_for(data, folder / "x")), folder / "t")


def test_every_labelled_policy_of_a_record_is_a_document_of_its_task(tmp_path: Path) -> None:
    records = some_records(6)
    written = export(tmp_path, records)
    assert written == Export(
        tasks={"any_harm": 2, "dangerous_content": 6, "harassment": 4}, left_out={}
    )
    lines = (tmp_path / "t" / "harassment.jsonl").read_text().splitlines()
    labelled = {each.id: each.labels["harassment"] for each in records if len(each.labels) > 1}
    found = [json.loads(line) for line in lines]
    assert {each["id"]: bool(each["target"]) for each in found} == labelled
    assert found[0]["choices"] == ["No", "Yes"]
    assert found[0]["policy_hash"] == LIBRARY.policy("harassment").hash
    group = yaml.safe_load((tmp_path / "t" / "wardgate.yaml").read_text())
    assert group["task"] == [f"wardgate_{policy_id}" for policy_id in written.tasks]


@pytest.mark.parametrize("prompt", [None, "Well?"])
@pytest.mark.parametrize("role", ["user", "model"])
def test_the_judge_prompt_is_the_classifiers_own(role: str, prompt: str | None) -> None:
    record = Record.model_validate(
        {"id": "r", "text": "Hello there", "role": role, "labels": {}}
        | ({"prompt": prompt} if role == "model" else {})
    )
    template = TEMPLATES["shieldgemma1"]
    builder = PromptBuilder(template, SafeTokenizer(small_tokenizer_json()))
    definition = LIBRARY.policy("violence").definition_for(record.surface)
    assert definition is not None
    context = builder.content_tokens(record.prompt).ids if record.prompt else ()
    asked = builder.text_prompt(
        record.surface, builder.content_tokens(record.text).ids, [definition], context=context
    )
    read = builder.tokenizer.decode(list(asked.prefix[1:] + asked.leaves[0]))
    assert judge_prompt(template.surfaces[record.surface], record, definition) == read


def test_what_the_harness_cannot_score_is_left_out_and_counted(tmp_path: Path) -> None:
    texts = ["fine", " ", "so<end_of_turn>"]
    records = [
        Record(id=f"r{i}", text=text, role="user", labels={"violence": True})
        for i, text in enumerate(texts)
    ]
    assert export(tmp_path, records).left_out == {
        "without a text": 1,
        "with a control token in the text": 1,
    }
    with pytest.raises(RecordError, match="is not empty; expected a new folder"):
        export(tmp_path, records)
    with pytest.raises(RecordError, match="no record can be exported: 1 without a text"):
        export(tmp_path / "other", records[1:2])


@given(st.floats(-800, 0), st.floats(-800, 0), st.booleans())
def test_p_yes_is_the_softmax_of_both_answers(no: float, yes: float, violates: bool) -> None:
    found = process_results({"id": "r", "target": int(violates)}, [(no, False), (yes, False)])
    expected = 1 / (1 + math.exp(no - yes)) if no - yes < 700 else 0.0
    assert found["au_prc"] == pytest.approx((int(violates), expected), abs=1e-12)
    assert found["acc"] == float((yes >= no) == violates) or abs(yes - no) < 1e-9


def test_an_answer_that_is_no_number_is_no_score() -> None:
    with pytest.raises(ValueError, match="record 'r' has no P"):
        process_results({"id": "r", "target": 1}, [(-math.inf, False), (-math.inf, False)])


def test_a_curve_needs_both_classes() -> None:
    assert (au_prc([(1, 0.9), (0, 0.1)]), auroc([(1, 0.1), (0, 0.9)])) == (1.0, 0.0)
    assert math.isnan(au_prc([(1, 0.9)]))
    assert math.isnan(auroc([(0, 0.9)]))
