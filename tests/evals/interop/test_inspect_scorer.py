"""What of a sample of inspect_ai is judged, and what becomes of its verdict.

Samples have the shape of inspect's; `tests/peers/test_evaluators.py` has real ones.
"""

from types import SimpleNamespace
from typing import Any

import pytest

from evals.interop.inspect_scorer import VIOLATED, NotJudged, judged_content, values, whole_verdict
from moderation.content import Content, TextPart
from moderation.errors import ContentEmpty
from policies import Surface, load_library
from tests.evals.saying import saying_moderator


def message(content: Any, role: str = "assistant", **more: Any) -> Any:
    text = content if isinstance(content, str) else ""
    return SimpleNamespace(role=role, content=content, text=text, **more)


def part(type_: str, **more: Any) -> Any:
    return SimpleNamespace(type=type_, **more)


def sample(*answers: Any, asked: Any = "Why?") -> Any:
    choices = [SimpleNamespace(message=answer) for answer in answers]
    return SimpleNamespace(input=asked, output=SimpleNamespace(choices=choices))


def texts(content: Content) -> list[str]:
    return [each.text for each in content.parts if isinstance(each, TextPart)]


def test_every_choice_and_its_reasoning_is_judged_as_an_answer() -> None:
    thinks = part("reasoning", reasoning="hm", summary=None, redacted=False)
    hides = part("reasoning", reasoning="c2VjcmV0", summary="in short", redacted=True)
    answer = message([thinks, hides, part("text", text="yes"), part("text", text="")])
    content = judged_content(sample(answer, message("no")), Surface.RESPONSE)
    assert texts(content) == ["hm", "in short", "yes", "no"]
    assert (content.surface, content.context) == (Surface.RESPONSE, "Why?")


def test_of_the_input_all_that_the_user_says_is_judged() -> None:
    asked = [message("be kind", "system"), message("one", "user"), message("well")]
    asked.append(message([part("text", text="two")], "user"))
    assert texts(judged_content(sample(asked=asked), Surface.PROMPT)) == ["one", "two"]
    assert texts(judged_content(sample(asked="one"), Surface.PROMPT)) == ["one"]
    answered = judged_content(sample(message("x"), asked=asked[:3]), Surface.RESPONSE)
    assert answered.context == "one"
    assert judged_content(sample(message("x"), asked=asked[:1]), Surface.RESPONSE).context is None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (message([part("image", image="x.png")]), "a part of type 'image'"),
        (message("ok", tool_calls=[part("function")]), "calls tools"),
    ],
)
def test_a_sample_with_more_than_text_is_not_judged_in_part(answer: Any, why: str) -> None:
    with pytest.raises(NotJudged, match=why):
        judged_content(sample(message("fine"), answer), Surface.RESPONSE)


def test_values_are_scores_by_policy_and_whether_one_is_violated() -> None:
    library = load_library()
    moderator = saying_moderator(library)
    policy_set = library.policy_set("shieldgemma1")
    high, low = (moderator.judge(Content.prompt(f"says {p}"), policy_set) for p in (0.9, 0.1))
    ids = [rule.id for rule in policy_set.policies]
    assert values(high) == {VIOLATED: 1.0, **dict.fromkeys(ids, 0.9)}
    assert values(low) == {VIOLATED: 0.0, **dict.fromkeys(ids, 0.1)}


def test_no_verdict_is_no_value() -> None:
    with pytest.raises(NotJudged, match="content_empty"):
        whole_verdict(ContentEmpty("nothing to judge"))
