"""Many callers of one real engine: everyone gets the scores they would get alone."""

import copy
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from moderation.caller import PATIENT, Caller
from moderation.checkpoints import Classifier
from moderation.engine import Ask, Engine, LocalEngine
from moderation.errors import CallerLeft, EngineOverloaded, Unscorable
from moderation.prompts import JudgePrompt
from moderation.scheduled_engine import ScheduledEngine
from tests.moderation.asking import ask
from tests.moderation.test_engine import TOLERANCE


class Noting:
    """An engine that notes how many asks came together, and waits for a sign before it begins."""

    is_concurrent = False

    def __init__(self, engine: Engine) -> None:
        self.max_prompt_tokens = engine.max_prompt_tokens
        self.go = threading.Event()
        self.together: list[int] = []
        self._engine = engine

    def p_yes(self, asks: Sequence[Ask], caller: Caller = PATIENT) -> list[list[float]]:
        self.go.wait(10)
        self.together.append(len(asks))
        return self._engine.p_yes(asks, caller)


def scheduled(engine: Engine, *, max_batch_tokens: int = 512) -> ScheduledEngine:
    return ScheduledEngine(engine, max_batch_tokens=max_batch_tokens, max_retry_after_s=60.0)


def wait_for_depth(engine: ScheduledEngine, depth: int) -> None:
    end = time.monotonic() + 5
    while engine.scheduler.depth != depth:
        assert time.monotonic() < end, f"{engine.scheduler.depth} instead of {depth}"
        time.sleep(0.002)


def random_prompts(number: int) -> list[JudgePrompt]:
    rng = random.Random(1)

    def tokens(most: int) -> tuple[int, ...]:
        return tuple(rng.randrange(20, 800) for _ in range(rng.randint(1, most)))

    return [
        JudgePrompt(
            tokens(60), tuple(tokens(20) for _ in range(rng.randint(1, 4))), rng.choice(((), (35,)))
        )
        for _ in range(number)
    ]


def test_callers_that_come_at_once_are_packed_and_score_as_if_alone(
    tiny: dict[str, Classifier],
) -> None:
    local = tiny["gemma3"].engine
    prompts = random_prompts(40)
    alone = [ask(local, prompt) for prompt in prompts]
    noting = Noting(local)
    engine = scheduled(noting)
    with ThreadPoolExecutor(40) as pool:
        found = [pool.submit(ask, engine, prompt) for prompt in prompts]
        wait_for_depth(engine, 40)
        noting.go.set()
        for future, expected in zip(found, alone, strict=True):
            assert future.result(20) == pytest.approx(expected, abs=TOLERANCE)
    engine.scheduler.close()
    assert sum(noting.together) == 40
    assert len(noting.together) < 20


def test_an_ask_without_a_number_fails_its_own_caller_only(tiny: dict[str, Classifier]) -> None:
    model: Any = copy.deepcopy(tiny["gemma3"].model)
    with torch.no_grad():
        model.get_input_embeddings().weight[40] = torch.nan
    noting = Noting(LocalEngine(model, yes_id=21, no_id=22, max_prompt_tokens=64))
    engine = scheduled(noting)
    good, bad = JudgePrompt((2, 30), ((31,),)), JudgePrompt((2, 40), ((31,),))
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(ask, engine, prompt) for prompt in (good, bad, good)]
        wait_for_depth(engine, 3)
        noting.go.set()
        assert 0 <= found[0].result(5)[0] <= 1
        with pytest.raises(Unscorable):
            found[1].result(5)
        assert found[2].result(5) == pytest.approx(found[0].result(5), abs=TOLERANCE)
    engine.scheduler.close()


def test_one_failed_window_ends_the_rest_of_its_content(tiny: dict[str, Classifier]) -> None:
    model: Any = copy.deepcopy(tiny["gemma3"].model)
    with torch.no_grad():
        model.get_input_embeddings().weight[40] = torch.nan
    noting = Noting(LocalEngine(model, yes_id=21, no_id=22, max_prompt_tokens=64))
    engine = scheduled(noting, max_batch_tokens=1)
    noting.go.set()
    bad, good = JudgePrompt((2, 40), ((31,),)), JudgePrompt((2, 30), ((31,),))
    with pytest.raises(Unscorable):
        engine.p_yes([Ask(bad), *[Ask(good)] * 500])
    wait_for_depth(engine, 0)
    engine.scheduler.close()
    assert len(noting.together) < 500


def test_a_caller_who_leaves_is_answered_so(tiny: dict[str, Classifier]) -> None:
    noting = Noting(tiny["gemma3"].engine)
    engine = scheduled(noting, max_batch_tokens=1)
    left = threading.Event()
    prompt = JudgePrompt((2, 30), ((31,),))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, engine, prompt)
        wait_for_depth(engine, 1)
        second = pool.submit(engine.p_yes, [Ask(prompt)], Caller(has_left=left.is_set))
        wait_for_depth(engine, 2)
        left.set()
        engine.scheduler.prune()
        with pytest.raises(CallerLeft):
            second.result(5)
        noting.go.set()
        assert 0 <= first.result(5)[0] <= 1
    engine.scheduler.close()


def test_a_caller_that_cannot_be_served_in_time_is_refused(tiny: dict[str, Classifier]) -> None:
    noting = Noting(tiny["gemma3"].engine)
    engine = scheduled(noting, max_batch_tokens=1)
    prompt = JudgePrompt((2, 30), ((31,),))
    noting.go.set()
    ask(engine, prompt)
    noting.go.clear()
    engine.scheduler._seconds_per_cost.append(1000.0)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ask, engine, prompt) for _ in range(2)]
        wait_for_depth(engine, 2)
        with pytest.raises(EngineOverloaded, match="past the deadline"):
            engine.p_yes([Ask(prompt)], Caller(deadline=time.monotonic() + 5))
        noting.go.set()
        for future in waiting:
            future.result(5)
    engine.scheduler.close()
