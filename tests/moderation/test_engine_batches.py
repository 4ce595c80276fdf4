"""Many prompts in one packed forward: each scores as if it were alone."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.caller import Caller
from moderation.checkpoints import Classifier
from moderation.engine import Ask, LocalEngine, in_batches
from moderation.errors import CallerLeft, EngineTimeout
from moderation.growing import GrowingContent
from moderation.prompts import JudgePrompt
from tests.moderation.asking import ask, computed_rows
from tests.moderation.checkpoints_on_disk import SLIDING_WINDOW
from tests.moderation.test_engine import TOLERANCE, prompts, random_pixels
from tests.moderation.test_engine_layouts import compositional, exhaustive, tokens


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
@exhaustive
@given(data=st.data())
def test_a_prompt_scores_the_same_in_any_company_and_order(
    tiny: dict[str, Classifier], name: str, data: st.DataObject
) -> None:
    """Both layouts in one row, policies shared or not, one content grown among them."""
    engine = tiny[name].engine
    drawn = data.draw(st.lists(st.one_of(prompts, compositional), min_size=2, max_size=6))
    shared = data.draw(tokens(2 * SLIDING_WINDOW))
    company = [
        JudgePrompt(prompt.prefix, (*prompt.leaves, shared), prompt.query) for prompt in drawn
    ]
    alone = [ask(engine, prompt) for prompt in company]
    growing = GrowingContent()
    first = company[0]
    half = JudgePrompt(first.prefix[: len(first.prefix) // 2 + 1], first.leaves, first.query)
    ask(engine, half, growing=growing)
    asks = [Ask(first, growing=growing), *map(Ask, company[1:])]
    order = data.draw(st.permutations(range(len(asks))))
    together = engine.p_yes([asks[place] for place in order])
    for place, scores in zip(order, together, strict=True):
        assert scores == pytest.approx(alone[place], abs=TOLERANCE)


@pytest.mark.parametrize("name", ["gemma3_with_images", "shieldgemma2"])
def test_images_and_texts_score_the_same_in_one_row(tiny: dict[str, Classifier], name: str) -> None:
    classifier = tiny[name]
    image = classifier.builder.image_prompt(["No violence.", "No insults."])
    text = JudgePrompt((2, 30, 31, 32), ((40, 41), (42,)))
    asks = [Ask(image, random_pixels(0)), Ask(text), Ask(image, random_pixels(1))]
    alone = [ask(classifier.engine, each.prompt, pixels=each.pixels) for each in asks]
    together = classifier.engine.p_yes(asks)
    for scores, expected in zip(together, alone, strict=True):
        assert scores == pytest.approx(expected, abs=TOLERANCE)
    assert alone[0] != pytest.approx(alone[2], abs=TOLERANCE)


def test_asks_are_packed_up_to_a_number_of_tokens(tiny: dict[str, Classifier]) -> None:
    model = tiny["gemma3"].model
    engine = LocalEngine(model, yes_id=21, no_id=22, max_prompt_tokens=1024, max_batch_tokens=10)
    prompt = JudgePrompt((30, 31, 32), ((40,),))
    longer = JudgePrompt(tuple(range(30, 45)), ((40,),))
    with computed_rows(model) as rows:
        engine.p_yes([Ask(each) for each in (prompt, prompt, prompt, longer, prompt)])
    assert rows == [8, 4, 16, 4]


def test_what_an_engine_keeps_takes_no_room_in_a_batch(tiny: dict[str, Classifier]) -> None:
    model = tiny["gemma3"].model
    engine = LocalEngine(model, yes_id=21, no_id=22, max_prompt_tokens=1024, max_batch_tokens=10)
    growing = GrowingContent()
    content, policies, query = tuple(range(30, 50)), (tuple(range(50, 70)), (40,)), (35,)
    ask(engine, JudgePrompt(content[:19], policies, query), growing=growing)
    other = JudgePrompt(content[:5], policies, query)
    with computed_rows(model) as rows:
        engine.p_yes([Ask(JudgePrompt(content, policies, query), growing=growing), Ask(other)])
    assert rows == [1 + 2 + 5 + 2]


@given(
    sizes=st.lists(st.integers(1, 12), max_size=12),
    most=st.integers(2, 20),
)
def test_no_ask_is_lost_between_batches(sizes: list[int], most: int) -> None:
    asks = [Ask(JudgePrompt(tuple(range(size)), ((1,),))) for size in sizes]
    batches = list(in_batches(asks, most))
    assert [ask for batch in batches for ask in batch] == asks
    for batch in batches:
        assert len(batch) == 1 or sum(ask.num_new_tokens for ask in batch) <= most


def test_nobody_computes_for_a_caller_who_left(tiny: dict[str, Classifier]) -> None:
    model = tiny["gemma3"].model
    engine = LocalEngine(model, yes_id=21, no_id=22, max_prompt_tokens=64, max_batch_tokens=4)
    asks = [Ask(JudgePrompt((30, 31, 32), ((40,),)))] * 3
    answers = iter([False, True])
    with computed_rows(model) as rows, pytest.raises(CallerLeft):
        engine.p_yes(asks, Caller(has_left=lambda: next(answers)))
    assert rows == [4]
    with pytest.raises(EngineTimeout):
        engine.p_yes(asks, Caller(deadline=time.monotonic() - 1))
