"""What was considered for the engine and is not in it: eight-bit products, and torch.compile.

Eight bits: the embedded classifier scores the examples of the catalogue's policies with the
products of its layers rounded as an eight-bit engine would (a scale for each row of the weights and
each token; *smoothed* moves outlying channels of the activations into the weights, as SmoothQuant
does), beside its own scores in float32, and in bfloat16. Printed: how far scores move, the rate of
torch's eight-bit product beside the float32 one, and processor seconds of W3 in the compositional
layout with such products in place of the float32 ones, all but those of down_proj.

torch.compile: processor seconds of W3 in the compositional layout with the feed-forward part of
each layer compiled, and the seconds that compiling takes at first. It needs a C++ compiler.

    python -m benchmarks.engine.variants [--out FILE.json]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.engine.timing import timed
from benchmarks.engine.workloads import make_workload
from benchmarks.environments import default_cache
from moderation.checkpoints import Classifier
from moderation.embedded.base import EmbeddedBase
from moderation.embedded.models import load_embedded
from moderation.engine import Ask, LocalEngine
from policies import Surface, load_library

Round = Callable[[Tensor], Tensor]
SMOOTHING = 0.5
"""Share of a channel's range that is moved from the activations into the weights."""
LEAST = 1e-6


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path, help="also write the result as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    base = EmbeddedBase(args.cache)
    classifier = load_embedded(base, dtype=torch.float32)
    asks = example_asks(classifier)
    expected = scores(classifier, asks)
    result: dict[str, Any] = {
        "texts": len(asks),
        "scores": len(expected),
        "moved": {
            "bfloat16": moved(scores(load_embedded(base, dtype=torch.bfloat16), asks), expected)
        },
        "gflop_per_cpu_s": product_rates(),
    }
    channels = channel_maxima(classifier, asks)
    variants: dict[str, dict[str, Any]] = {
        "weights only": {"round_input": None},
        "eight bits": {},
        "eight bits, smoothed": {"channels": channels},
        "eight bits, smoothed, not down_proj": {"channels": channels, "but": "down_proj"},
    }
    for name, variant in variants.items():
        with rounded(classifier, **variant):
            result["moved"][name] = moved(scores(classifier, asks), expected)
    result["compiled_w3"] = compiled_seconds(classifier)
    result["eight_bit_w3"] = eight_bit_seconds(load_embedded(base, dtype=torch.float32), channels)
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def example_asks(classifier: Classifier) -> list[Ask]:
    """The catalogue's examples of prompts, each under the policies of the default set."""
    library = load_library()
    policies = [library.policy(rule.id) for rule in library.policy_set("default").policies]
    definitions = [text for each in policies if (text := each.definition_for(Surface.PROMPT))]
    builder = classifier.builder
    texts = [
        example.text
        for policy in policies
        for example in policy.examples
        if example.surface is Surface.PROMPT
    ]
    return [
        Ask(builder.text_prompt(Surface.PROMPT, builder.content_tokens(text).ids, definitions))
        for text in texts
    ]


def scores(classifier: Classifier, asks: Sequence[Ask]) -> Tensor:
    """``(all leaves,)``, by an engine that keeps nothing from before."""
    tokenizer = classifier.builder.tokenizer
    engine = LocalEngine(
        classifier.model,
        yes_id=tokenizer.token_id("Yes"),
        no_id=tokenizer.token_id("No"),
        max_prompt_tokens=classifier.engine.max_prompt_tokens,
    )
    return torch.tensor([p_yes for each in engine.p_yes(asks) for p_yes in each])


def moved(found: Tensor, expected: Tensor) -> dict[str, float]:
    """How far scores are from those in float32."""
    gaps = (found - expected).abs()
    logits = [torch.logit(each.double(), eps=LEAST) for each in (found, expected)]
    return {
        "mean_dp": float(gaps.mean()),
        "max_dp": float(gaps.max()),
        "rms_logit": float((logits[0] - logits[1]).square().mean().sqrt()),
        "share_on_the_other_side_of_half": float(
            ((found > 0.5) != (expected > 0.5)).float().mean()
        ),
    }


def linear_layers(classifier: Classifier) -> dict[str, nn.Linear]:
    """Those of the decoder's layers, by name."""
    return {
        name: module
        for name, module in classifier.model.named_modules()
        if isinstance(module, nn.Linear) and ".layers." in name
    }


def eight_bits(values: Tensor) -> Tensor:
    """Rounded to 255 steps a row."""
    step = values.abs().amax(-1, keepdim=True).clamp_min(LEAST) / 127
    return (values / step).round() * step


def channel_maxima(classifier: Classifier, asks: Sequence[Ask]) -> dict[str, Tensor]:
    """The greatest input of every channel of every linear layer."""
    found: dict[str, Tensor] = {}

    def see(_: nn.Module, inputs: tuple[Tensor, ...], *, name: str) -> None:
        most = inputs[0].abs().amax(0)
        found[name] = torch.maximum(found[name], most) if name in found else most

    handles = [
        module.register_forward_pre_hook(partial(see, name=name))
        for name, module in linear_layers(classifier).items()
    ]
    scores(classifier, asks)
    for handle in handles:
        handle.remove()
    return found


@contextmanager
def rounded(
    classifier: Classifier,
    *,
    round_input: Round | None = eight_bits,
    channels: dict[str, Tensor] | None = None,
    but: str | None = None,
) -> Iterator[None]:
    """The classifier with rounded products in all linear layers `but` some; smoothed where the
    maxima of their channels are given."""
    undo: list[Callable[[], object]] = []
    for name, module in linear_layers(classifier).items():
        if but is not None and but in name:
            continue
        weight = module.weight.data
        smooth = torch.ones(weight.shape[1])
        if channels is not None:
            smooth = smoothing(weight, channels[name])
        module.weight.data = eight_bits(weight * smooth)
        undo.append(partial(setattr, module.weight, "data", weight))
        if round_input is not None or channels is not None:

            def before(_: nn.Module, inputs: tuple[Tensor, ...], smooth: Tensor = smooth) -> Tensor:
                smoothed = inputs[0] / smooth
                return smoothed if round_input is None else round_input(smoothed)

            undo.append(module.register_forward_pre_hook(before).remove)
    try:
        yield
    finally:
        for each in undo:
            each()


def smoothing(weight: Tensor, channels: Tensor) -> Tensor:
    """What each input channel is divided by, and its weights multiplied with."""
    widest = weight.abs().amax(0).clamp_min(LEAST)
    return channels.clamp_min(LEAST) ** SMOOTHING / widest ** (1 - SMOOTHING)


class EightBitLinear(nn.Module):
    """A linear layer with torch's eight-bit product, smoothed."""

    def __init__(self, linear: nn.Linear, channels: Tensor) -> None:
        super().__init__()
        smooth = smoothing(linear.weight.data, channels)
        weight = linear.weight.data * smooth
        self._steps = weight.abs().amax(1) / 127
        self._weight = (weight / self._steps[:, None]).round().to(torch.int8).T.contiguous()
        self._shrink = 1 / smooth

    def forward(self, inputs: Tensor) -> Tensor:
        """``(T, K)`` to ``(T, N)``."""
        smoothed = inputs * self._shrink
        steps = smoothed.abs().amax(-1, keepdim=True).clamp_min(LEAST) / 127
        rounded_inputs = (smoothed / steps).round_().to(torch.int8)
        return torch._int_mm(rounded_inputs, self._weight).float().mul_(self._steps).mul_(steps)


def product_rates() -> dict[str, dict[str, float]]:
    """GFLOP a processor second of one product of the model, by tokens, in float32 and in int8."""
    found = {}
    for tokens in (26, 160, 900):
        left, right = torch.randn(tokens, 640), torch.randn(640, 2048)
        left8, right8 = ((each * 40).clamp(-127, 127).to(torch.int8) for each in (left, right))
        products = {
            "float32": partial(torch.matmul, left, right),
            "int8": partial(torch._int_mm, left8, right8),
        }
        found[str(tokens)] = {
            name: 2 * tokens * 640 * 2048 / seconds_of(product, rounds=20) / 1e9
            for name, product in products.items()
        }
    return found


def compiled_seconds(classifier: Classifier) -> dict[str, float]:
    """Processor seconds of W3 as it is and compiled, and wall seconds of the first forward."""
    [prompt] = make_workload(classifier.builder.tokenizer, "W3").compositional
    ask = partial(classifier.engine.p_yes, [Ask(prompt)])
    as_it_is = seconds_of(ask, rounds=9)
    model: Any = classifier.model
    for layer in model.model.layers:
        layer.mlp.compile(dynamic=True)
    started = time.perf_counter()
    ask()
    first_s = time.perf_counter() - started
    return {"as_it_is": as_it_is, "compiled": seconds_of(ask, rounds=9), "compiling_wall": first_s}


def eight_bit_seconds(classifier: Classifier, channels: dict[str, Tensor]) -> dict[str, float]:
    """Processor seconds of W3 as it is and with eight-bit products; the classifier stays so."""
    [prompt] = make_workload(classifier.builder.tokenizer, "W3").compositional
    ask = partial(classifier.engine.p_yes, [Ask(prompt)])
    as_it_is = seconds_of(ask, rounds=9)
    for name, module in linear_layers(classifier).items():
        if "down_proj" not in name:
            classifier.model.set_submodule(name, EightBitLinear(module, channels[name]))
    return {"as_it_is": as_it_is, "eight_bits": seconds_of(ask, rounds=9)}


def seconds_of(work: Callable[[], object], *, rounds: int) -> float:
    """Processor seconds, the median after one round to warm up."""
    work()
    return statistics.median(timed(work) for _ in range(rounds))


if __name__ == "__main__":
    main()
