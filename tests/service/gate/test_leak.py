"""Nothing leaves the gate that should not: a short run of `benchmarks.gate.leak`, and its observer
seen to notice what it is there for."""

import json

import pytest

from benchmarks.gate.leak import problems, run
from benchmarks.gate.observer import Stream, Task, measure
from benchmarks.gate.scripts import SPAN, Script, joined, make_script


@pytest.mark.parametrize(("mode", "window", "streams"), [("hold", None, 50), ("window", 20, 40)])
def test_random_streams_leak_nothing_and_arrive_whole(
    mode: str, window: int | None, streams: int
) -> None:
    row = run(mode, window, seed=1, streams=streams)
    assert problems(row) == []
    assert row["violating"] > streams / 4
    assert row["comments"] > 0


SCRIPTS = [make_script(0, index) for index in range(200)]


def test_scripts_are_the_same_in_every_process_and_of_every_kind() -> None:
    assert make_script(0, 7) == SCRIPTS[7]
    assert {each.kind for script in SCRIPTS for each in script.said if each.span} == {
        *("content", "reasoning", "refusal", "tool", "arguments", "tokens"),
        *("unknown", "key", "beside"),
    }
    for said in (said for script in SCRIPTS for said in script.said):
        assert len(said.units) == len(said.text)
        assert (SPAN.search(said.text) is not None) == (said.span is not None)
        if said.span is not None:
            assert SPAN.fullmatch(said.text[slice(*said.span)])
        if said.kind == "arguments":
            assert json.loads("".join(said.units), strict=False) == json.loads(
                said.text.replace("\n", "\\n").replace("\t", "\\t")
            )


def replayed(script: Script, index: int) -> Stream:
    """What a reader sees where nothing stands before the upstream."""
    raw = b"".join(step for step in script.steps if isinstance(step, bytes)).decode()
    events = raw.replace("\r\n", "\n").split("\n\n")
    data = ["\n".join(x[6:] for x in e.split("\n") if x.startswith("data: ")) for e in events]
    return Stream(index, status=200, events=[(1.0, each) for each in data if each])


def test_the_observer_sees_what_leaks_without_a_gate() -> None:
    task = Task(url="", seed=0, streams=200, at_once=1)
    seen = measure(task, [replayed(script, index) for index, script in enumerate(SCRIPTS)], {})
    violating = [script for script in SCRIPTS if script.violates]
    spans = [each.span for script in violating for each in script.said if each.span]
    assert seen.violating == len(violating)
    assert seen.leaked_chars == sum(end - start for start, end in spans)
    assert len(seen.streams_that_leaked) == len(seen.not_cut_off) == len(violating)
    assert seen.not_whole == []
    assert seen.most_unchecked_chars == max(
        sum(len(each.text.rstrip()) for each in script.said) for script in SCRIPTS
    )


def test_the_observer_sees_what_is_missing_or_altered() -> None:
    index = next(i for i, script in enumerate(SCRIPTS) if not script.violates)
    task = Task(url="", seed=0, streams=1, at_once=1)
    stream = replayed(SCRIPTS[index], index)
    assert measure(task, [stream], {}).not_whole == []
    del stream.events[1]
    assert measure(task, [stream], {}).not_whole == [index]


def test_the_observer_knows_what_the_classifier_had_passed_by_then() -> None:
    index = next(i for i, script in enumerate(SCRIPTS) if not script.violates)
    task = Task(url="", seed=0, streams=1, at_once=1)
    stream, texts = replayed(SCRIPTS[index], index), [s.text for s in SCRIPTS[index].said]
    before, after = [(0.5, text) for text in texts], [(1.5, text) for text in texts]
    assert measure(task, [stream], {index: before}).most_unchecked_chars == 0
    whole = sum(map(len, texts))
    assert measure(task, [stream], {index: after}).most_unchecked_chars == whole
    cut = [(0.5, text[:-1]) for text in texts]
    assert measure(task, [stream], {index: cut}).most_unchecked_chars == len(texts)


def test_half_a_character_is_none() -> None:
    assert joined("a\ud83d") == "a"
    assert joined("a\ud83d\ude00") == "a😀"
