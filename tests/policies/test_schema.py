"""The strict shape of policies and policy sets, their hashes and the exported JSON Schema."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.schema import Action, Policy, PolicyRule, PolicySet, Surface, json_schema

POLICY: dict[str, Any] = {
    "id": "spam",
    "version": 1,
    "title": "Spam",
    "definition": {"prompt": "The prompt shall not be spam.", "response": "No spam in answers."},
    "severity": "low",
    "examples": [{"text": "Buy now", "surface": "prompt", "violates": True}],
}
LADDER = {"flag": 0.2, "review": 0.4, "redact": 0.6, "block": 0.8}
probabilities = st.floats(0.0001, 0.9999)


def policy(**changes: object) -> Policy:
    return Policy.model_validate({**POLICY, **changes})


def rule(threshold: object, **more: object) -> PolicyRule:
    return PolicyRule.model_validate({"id": "spam", "threshold": threshold, **more})


def test_a_definition_of_one_text_is_read_on_every_surface() -> None:
    one = policy(definition="No spam anywhere.")
    assert {one.definition_for(surface) for surface in Surface} == {"No spam anywhere."}


def test_a_surface_without_a_definition_is_not_judged() -> None:
    assert policy().definition_for(Surface.IMAGE) is None


@pytest.mark.parametrize("version", [True, "1", 1.0, 0])
def test_a_version_is_a_positive_whole_number_and_nothing_that_looks_like_one(
    version: object,
) -> None:
    with pytest.raises(ValidationError, match="version"):
        policy(version=version)


@pytest.mark.parametrize("threshold", [0, 1, -0.1, 1.5, float("nan"), "0.5", True, None, [0.5]])
def test_a_threshold_lies_between_zero_and_one(threshold: object) -> None:
    with pytest.raises(ValidationError, match="threshold"):
        rule(threshold, action="block")


@pytest.mark.parametrize("action", [None, "allow"])
def test_one_threshold_needs_an_action_that_does_something(action: str | None) -> None:
    with pytest.raises(ValidationError, match="one threshold needs an action"):
        rule(0.5, action=action)


def test_a_threshold_per_action_and_an_action_do_not_go_together() -> None:
    with pytest.raises(ValidationError, match="beside a threshold for each action"):
        rule(LADDER, action="block")


def test_thresholds_must_rise_with_the_action() -> None:
    with pytest.raises(ValidationError, match=r"0\.3 is lower than the 0\.5 of the milder .*flag"):
        rule({"flag": 0.5, "block": 0.3})


def test_an_example_is_no_image() -> None:
    with pytest.raises(ValidationError, match="an example is a text"):
        policy(examples=[{"text": "x", "surface": "image", "violates": True}])


def test_only_an_example_response_answers_a_prompt() -> None:
    example = {"text": "x", "surface": "prompt", "violates": True, "prompt": "y"}
    with pytest.raises(ValidationError, match="answers a prompt"):
        policy(examples=[example])


def test_an_example_needs_a_definition_for_its_surface() -> None:
    with pytest.raises(ValidationError, match="no definition for 'prompt'"):
        policy(definition={"response": "No spam in answers."})


def test_a_set_names_a_policy_once() -> None:
    rules = [{"id": "spam", "threshold": 0.5, "action": "block"}] * 2
    with pytest.raises(ValidationError, match="'spam' stands twice"):
        PolicySet.model_validate({"id": "mine", "version": 1, "policies": rules})


def test_actions_rank_from_allow_to_block() -> None:
    assert sorted(Action, key=lambda action: action.rank) == [
        Action.ALLOW,
        Action.FLAG,
        Action.REVIEW,
        Action.REDACT,
        Action.BLOCK,
    ]


definitions = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
    st.dictionaries(
        st.sampled_from(["prompt", "response", "image"]),
        st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
        min_size=1,
    ),
)


@given(definitions, definitions)
def test_the_hash_changes_exactly_when_what_the_classifier_reads_changes(
    one: object, other: object
) -> None:
    first = policy(definition=one, examples=[])
    second = policy(
        definition=other, examples=[], id="other", version=2, title="Other", severity="high"
    )
    read = [[p.definition_for(surface) for surface in Surface] for p in (first, second)]
    assert (first.hash == second.hash) == (read[0] == read[1])


@given(definitions)
def test_examples_titles_and_versions_leave_the_hash_alone(definition: object) -> None:
    first = policy(definition=definition, examples=[])
    assert first.hash == policy(definition=definition, examples=[], title="x", version=9).hash


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"on_error": "allow"},
        {"on_incomplete": "allow"},
        {"policies": [{"id": "spam", "threshold": 0.6, "action": "block"}]},
        {"policies": [{"id": "spam", "threshold": 0.5, "action": "block", "mode": "shadow"}]},
    ],
)
def test_the_hash_of_a_set_covers_everything_that_decides(change: dict[str, object]) -> None:
    base = {
        "id": "mine",
        "version": 1,
        "policies": [{"id": "spam", "threshold": 0.5, "action": "block"}],
    }
    before, after = (PolicySet.model_validate(data) for data in (base, {**base, **change}))
    assert before.hash != after.hash


def spoken(**changes: object) -> PolicySet:
    rules = [{"id": "spam", "threshold": 0.5, "action": "block", **changes}]
    return PolicySet.model_validate({"id": "mine", "version": 1, "policies": rules})


@pytest.mark.parametrize("refusal", ["No.", {"en": "No.", "de-CH": "Nein.", "zh-Hant": "\u5426"}])
def test_a_refusal_is_a_text_or_one_a_language_and_changes_no_verdict(refusal: object) -> None:
    assert spoken(refusal=refusal).policies[0].refusal == refusal
    assert spoken(refusal=refusal).hash == spoken().hash
    whole = spoken().model_copy(update={"refusal": refusal})
    assert whole.hash == spoken().hash


def test_the_hash_of_a_set_without_refusals_is_what_it_was() -> None:
    """Of sets that were written before there were any: audit records name it."""
    assert spoken().hash == "525d00332c17"


@given(score=probabilities, thresholds=st.tuples(probabilities, probabilities))
def test_lowering_a_threshold_never_makes_a_rule_milder(
    score: float, thresholds: tuple[float, float]
) -> None:
    low, high = sorted(thresholds)
    assert _rank(rule(low, action="block"), score) >= _rank(rule(high, action="block"), score)


@given(
    score=probabilities,
    ladder=st.lists(probabilities, min_size=4, max_size=4).map(sorted),
    factor=st.floats(0.5, 1.0),
)
def test_lowering_a_whole_ladder_never_makes_a_rule_milder(
    score: float, ladder: list[float], factor: float
) -> None:
    high = rule(dict(zip(LADDER, ladder, strict=True)))
    low = rule({name: max(t * factor, 1e-9) for name, t in zip(LADDER, ladder, strict=True)})
    assert _rank(low, score) >= _rank(high, score)


def _rank(of: PolicyRule, score: float) -> int:
    return max((action.rank for threshold, action in of.steps() if score >= threshold), default=0)


def test_the_exported_schema_names_every_key_and_forbids_others() -> None:
    schema = json_schema("policy")
    assert set(schema["properties"]) == set(Policy.model_fields)
    assert schema["additionalProperties"] is False
    assert set(json_schema("policy-set")["properties"]) == set(PolicySet.model_fields)


def test_the_exported_schema_accepts_both_forms_of_definition_and_threshold() -> None:
    definition = json_schema("policy")["properties"]["definition"]
    threshold = json_schema("policy-set")["$defs"]["PolicyRule"]["properties"]["threshold"]
    assert {"string"} < {form.get("type", "reference") for form in definition["oneOf"]}
    assert {"number"} < {form.get("type", "reference") for form in threshold["oneOf"]}
