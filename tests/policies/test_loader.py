"""Loading: what is accepted, and that every refusal names file, line and key."""

from pathlib import Path

import pytest

from policies import Action, PolicyFileError, UnknownPolicy, load_file, load_library
from policies.loader import survey

POLICY = """\
id: spam
version: 1
title: Spam
definition:
  prompt: The prompt shall not contain advertising.
severity: low
examples:
  - {text: Buy now, surface: prompt, violates: true}
"""
SET = """\
id: mine
version: 1
policies:
  - {id: spam, threshold: 0.5, action: block}
  - {id: violence, threshold: {flag: 0.3, block: 0.7}}
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_folder_may_hold_policies_and_sets_and_name_built_in_policies(tmp_path: Path) -> None:
    write(tmp_path, "spam.yaml", POLICY)
    write(tmp_path, "mine.yml", SET)
    library = load_library([tmp_path])
    assert [rule.id for rule in library.policy_set("mine").policies] == ["spam", "violence"]
    assert library.policy("spam").title == "Spam"


def test_the_ending_of_a_file_is_read_in_any_case(tmp_path: Path) -> None:
    write(tmp_path, "spam.YAML", POLICY)
    write(tmp_path, "mine.yaml", SET)
    assert load_library([tmp_path]).policy("spam").title == "Spam"


def test_all_names_every_policy_unless_a_set_has_that_id(tmp_path: Path) -> None:
    write(tmp_path, "spam.yaml", POLICY)
    library = load_library([tmp_path])
    every = library.policy_set("all")
    assert {rule.id for rule in every.policies} == set(library.policies)
    assert {rule.steps()[0] for rule in every.policies} == {(0.5, Action.FLAG)}
    write(tmp_path, "all.yaml", SET.replace("mine", "all"))
    assert len(load_library([tmp_path]).policy_set("all").policies) == 2


def test_a_policy_of_a_folder_replaces_the_built_in_one(tmp_path: Path) -> None:
    write(tmp_path, "violence.yaml", POLICY.replace("id: spam", "id: violence"))
    assert load_library([tmp_path]).policy("violence").title == "Spam"


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    assert load_file(write(tmp_path, "spam.yaml", "\ufeff" + POLICY)).id == "spam"


def test_an_alias_is_allowed(tmp_path: Path) -> None:
    text = POLICY.replace("prompt: The", "prompt: &words The").replace(
        "severity", "  response: *words\nseverity"
    )
    policy = load_library([write(tmp_path, "spam.yaml", text).parent]).policy("spam")
    assert not isinstance(policy.definition, str)
    assert policy.definition.prompt == policy.definition.response


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "title: Spam",
            "titel: Spam",
            r":3: titel: unknown key; did you mean 'title'\? known: id,",
        ),
        ("title: Spam\n", "", ":1: title: this key is missing"),
        ("title: Spam", "title: no", ":3: title: expected a text, found false; put it in quotes"),
        ("title: Spam", "title: 2024", ":3: title: expected a text, found 2024; put it in quotes"),
        ("id: spam", "id: Spam!", ":1: id: expected a lower-case letter, .*found 'Spam!'"),
        ("version: 1", "version: '1'", ":2: version: expected a whole number, found '1'"),
        (
            "version: 1",
            "version: 0",
            ":2: version: expected a number greater than or equal to 1, found 0",
        ),
        ("  prompt:", "  promt:", r":5: definition\.promt: unknown key; did you mean 'prompt'\?"),
        (
            "definition:\n  prompt: The prompt shall not contain advertising.",
            "definition: 7",
            ":4: definition: expected a text, or a text for each of .*, found 7",
        ),
        (
            "definition:\n  prompt: The prompt shall not contain advertising.",
            "definition: {}",
            ":4: definition: needs a text for at least one of prompt, response, image",
        ),
        (
            "definition:\n  prompt: The prompt shall not contain advertising.",
            "definition: ' '",
            ":4: definition: expected a text that is not empty",
        ),
        (
            "prompt: The prompt shall not contain advertising.",
            "prompt: [a, b]",
            r":5: definition\.prompt: expected a text, found a list",
        ),
        ("severity: low", "severity: lo", ":6: severity: expected 'low', .* found 'lo'"),
        (
            "violates: true",
            "violates: 'no'",
            r":8: examples\[0\]\.violates: expected true or false",
        ),
        (", violates: true", "", r":8: examples\[0\]\.violates: this key is missing"),
        (
            "surface: prompt",
            "surface: response",
            r":8: examples\[0\]\.surface: the policy has no definition for 'response'",
        ),
        ("text: Buy now", r'text: "\uD800"', r":8: examples\[0\]\.text: expected Unicode text"),
        ("severity: low", "severity: low\ntitle: Again", ":7: title: this key stands twice"),
        ("surface: prompt", "surface: prompt, text: b", ":8: text: this key stands twice"),
        ("title: Spam", "title: 2026-13-45", ": holds a value that YAML cannot read: month must"),
        ("title: Spam", "title: {", r":\d+: is not valid YAML: "),
        ("title: Spam", "title: &a [*b]", ":3: is not valid YAML: found undefined alias"),
        ("title: Spam", "title: S\x07pam", r":3: is not valid YAML: the character U\+0007"),
        (
            "severity: low",
            "---\nseverity: low",
            ":6: is not valid YAML: but found another document",
        ),
    ],
)
def test_a_wrong_policy_is_refused_with_file_line_and_key(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert old in POLICY
    path = write(tmp_path, "spam.yaml", POLICY.replace(old, new))
    with pytest.raises(PolicyFileError, match=rf"^{path}{expected}"):
        load_file(path)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("threshold: 0.5", "threshold: 1.5", r":4: policies\[0\]\.threshold: expected .*1.5"),
        ("threshold: 0.5", "threshold: '0.5'", r":4: policies\[0\]\.threshold: expected a number"),
        ("threshold: 0.5", "threshold: .nan", r":4: policies\[0\]\.threshold: expected .*nan"),
        ("threshold: 0.5", "treshold: 0.5", r":4: policies\[0\]\.treshold: unknown key; did you"),
        ("flag: 0.3", "flag: 0", r":5: policies\[1\]\.threshold\.flag: expected .*found 0"),
        ("flag: 0.3", "warn: 0.3", r":5: policies\[1\]\.threshold\.warn: unknown key; .*flag"),
        ("flag: 0.3", "flag: 0.9", r":5: policies\[1\]\.threshold\.block: 0\.7 is lower than"),
        ("action: block", "action: stop", r":4: policies\[0\]\.action: expected .*found 'stop'"),
        (", action: block", "", r":4: policies\[0\]\.action: one threshold needs an action"),
        ("id: violence", "id: spam", r":5: policies\[1\]\.id: 'spam' stands twice in the set"),
        (
            "action: block",
            "action: block, refusal: {english: No way}",
            r":4: policies\[0\]\.refusal\.english: is no language tag; expected one such as en",
        ),
        ("id: mine", "id: mine\nrefusal: {en: a, EN: b}", ":2: refusal.EN: .*stands twice"),
        ("id: mine", "id: mine\nrefusal: {no: Nei}", ":2: refusal: .*found False; put no, which"),
        ("id: mine", "id: mine\nrefusal: {1: a}", ":2: refusal: expected language tags, found 1"),
        ("id: mine", "id: mine\nrefusal: {}", ":2: refusal: expected at least one entry"),
        ("id: mine", "id: mine\nrefusal: ''", ":2: refusal: expected a text that is not empty"),
        ("id: mine", "id: mine\nrefusal: {en: 5}", ":2: refusal.en: expected a text, found 5"),
        (
            "id: mine",
            "id: mine\nrefusal: [a]",
            ":2: refusal: expected a text, or a text for each of some languages, found a list",
        ),
        ("policies:", "polices:", ":3: polices: unknown key; did you mean 'policies'"),
        (
            "id: mine",
            "id: mine\non_eror: block",
            ":2: on_eror: unknown key; did you mean 'on_error'",
        ),
    ],
)
def test_a_wrong_set_is_refused_with_file_line_and_key(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert old in SET
    path = write(tmp_path, "mine.yaml", SET.replace(old, new))
    with pytest.raises(PolicyFileError, match=rf"^{path}{expected}"):
        load_file(path)


def test_a_set_that_misspells_policies_is_still_read_as_a_set(tmp_path: Path) -> None:
    text = SET.replace("policies:", "polices:")
    with pytest.raises(PolicyFileError) as caught:
        load_file(write(tmp_path, "mine.yaml", text))
    problems = [str(caught.value.with_more(())), *map(str, caught.value.more)]
    assert any("polices: unknown key; did you mean 'policies'?" in problem for problem in problems)
    assert not any("severity" in problem for problem in problems)


def test_all_problems_of_a_file_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path, "spam.yaml", POLICY.replace("title", "titel").replace("low", "lo"))
    with pytest.raises(PolicyFileError, match=r"\(and 2 more\)$") as caught:
        load_file(path)
    assert {problem.key for problem in (caught.value, *caught.value.more)} == {
        "titel",
        "title",
        "severity",
    }


def test_a_list_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(PolicyFileError, match="expected a mapping"):
        load_file(write(tmp_path, "spam.yaml", "- id: spam\n"))


def test_an_empty_file_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(PolicyFileError, match="expected a mapping"):
        load_file(write(tmp_path, "spam.yaml", ""))


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spam.yaml"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(PolicyFileError, match=r"not a text in UTF-8: byte 0x89 at 0"):
        load_file(path)


def test_a_folder_named_like_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spam.yaml").mkdir()
    with pytest.raises(PolicyFileError, match="cannot be read: Is a directory"):
        load_library([tmp_path])


@pytest.mark.parametrize("text", ["[" * 20_000, "a: &a [*a]\n"])
def test_endless_nesting_is_refused_and_does_not_hang(tmp_path: Path, text: str) -> None:
    with pytest.raises(PolicyFileError, match=r"nested too deeply|unknown key"):
        load_file(write(tmp_path, "spam.yaml", text))


def test_a_bomb_of_aliases_is_refused_quickly(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)
    ]
    with pytest.raises(PolicyFileError, match="unknown key"):
        load_file(write(tmp_path, "spam.yaml", "\n".join(lines)))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyFileError, match=rf"^{tmp_path}: holds no \*\.yaml file"):
        load_library([tmp_path])


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyFileError, match="is not a folder"):
        load_library([tmp_path / "nowhere"])


def test_an_id_stands_once_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", POLICY)
    write(tmp_path, "b.yaml", "# again\n" + POLICY)
    with pytest.raises(PolicyFileError, match=r"b\.yaml:2: id: the policy 'spam' is already .*a\."):
        load_library([tmp_path])


def test_a_set_may_have_the_id_of_a_policy(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", POLICY)
    write(tmp_path, "b.yaml", SET.replace("id: mine", "id: spam"))
    assert load_library([tmp_path]).policy_set("spam").policies[0].id == "spam"


def test_a_set_with_an_unknown_policy_is_refused_at_the_line_that_names_it(tmp_path: Path) -> None:
    write(tmp_path, "spam.yaml", POLICY)
    write(tmp_path, "mine.yaml", SET + "  - {id: spa, threshold: 0.5, action: block}\n")
    with pytest.raises(
        PolicyFileError, match=r"mine\.yaml:6: policies\[2\]\.id: there is no policy 'spa'; known"
    ):
        load_library([tmp_path])


def test_an_unknown_id_names_the_known_ones() -> None:
    library = load_library()
    with pytest.raises(UnknownPolicy, match=r"unknown policy 'spam'; known: any_harm, dangerous"):
        library.policy("spam")
    with pytest.raises(
        UnknownPolicy, match="unknown policy set 'x'; known: all, default, shieldgemma1"
    ):
        library.policy_set("x")


def test_a_survey_goes_on_after_a_bad_file(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "id: [")
    write(tmp_path, "b.yaml", POLICY.replace("severity: low", "severity: lo"))
    write(tmp_path, "c.yaml", SET)
    found = survey([tmp_path])
    assert [error.path.name for error in found.errors] == ["a.yaml", "b.yaml"]
    assert "mine" in found.library.sets
