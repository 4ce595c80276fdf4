"""The callable for GuardBench: one probability a conversation, or none for the whole batch."""

import pytest

from evals.interop.guardbench import ConversationNotScored, Moderate, moderate_by
from moderation.errors import EngineStopped
from policies import Action, PolicyRule, PolicySet, load_library
from policies.schema import Surface
from tests.evals.saying import saying_moderator

LIBRARY = load_library()
MODERATOR = saying_moderator(LIBRARY)


def moderate(*rules: PolicyRule) -> Moderate:
    rules = rules or (PolicyRule(id="violence", threshold=0.9, action=Action.BLOCK),)
    return moderate_by(MODERATOR, PolicySet(id="mine", version=1, policies=rules))


def said(*turns: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]


def test_the_last_message_is_judged_and_order_is_kept() -> None:
    conversations = [
        said("says 0.9"),
        said("says 0.9", "says 0.2"),
        said("says 0.9", "says 0.8", "says 0.3"),
        said("says 0.1", "says 0.4"),
    ]
    assert moderate()(conversations=conversations) == [0.9, 0.2, 0.3, 0.4]


def test_a_response_is_judged_as_the_answer_to_its_prompt() -> None:
    # what says a score here is the prompt, which only the judge of a response reads
    assert moderate()([said("says 0.1", "No.", "says 0.8", "Well.")]) == [0.8]


def test_policies_in_shadow_do_not_count() -> None:
    enforced = PolicyRule(id="violence", threshold=0.5, action=Action.BLOCK)
    shadow = PolicyRule(id="harassment", threshold=0.5, action=Action.BLOCK, mode="shadow")
    assert moderate(shadow, enforced)([said("says 0.6")]) == [0.6]
    with pytest.raises(ConversationNotScored, match="no enforced policy of the set has words"):
        moderate(shadow)([said("says 0.6")])


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        (said("says nothing"), "conversation 1 of the batch could not be scored: unscorable"),
        (said(" "), "conversation 1 .* could not be scored: content_empty"),
        ([], "conversation 1 of the batch has no message"),
        ([{"role": "system", "content": "x"}], "ends with the role 'system'; expected user or"),
    ],
)
def test_what_cannot_be_scored_has_no_probability(
    conversation: list[dict[str, str]], message: str
) -> None:
    with pytest.raises(ConversationNotScored, match=message):
        moderate()([said("says 0.9"), conversation])


def test_a_policy_without_words_for_a_response_gives_no_probability() -> None:
    assert LIBRARY.policy("prompt_injection").definition_for(Surface.RESPONSE) is None
    injection = PolicyRule(id="prompt_injection", threshold=0.5, action=Action.BLOCK)
    with pytest.raises(ConversationNotScored, match="could not be scored"):
        moderate(injection)([said("says 0.1", "says 0.2")])


def test_an_engine_that_stopped_is_nobodys_score() -> None:
    with pytest.raises(EngineStopped, match="the worker died"):
        moderate()([said("says stop")])
