"""Trains the embedded adapter: LoRA on the Gemma 3 270M base, loss at the answer position.

Runs on one process or on several (`torchrun --nproc-per-node N`), each with a share of every
batch and gradients averaged; the result does not depend on how often the run was stopped and
started again. Writes into `--out`: `adapter/` (peft format), `state.pt` (optimizer, step) and
`log.jsonl` (one line a step).

    python -m moderation.training.train --data train.jsonl.gz --out runs/v1 --steps 1000
"""

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from moderation.embedded.base import REVISION, ensure_base
from moderation.gemma import GemmaLayers
from moderation.layouts import answer_segments
from moderation.prompts import JudgePrompt, PromptBuilder
from moderation.segments import Segment
from moderation.templates import TEMPLATES
from moderation.tokenizer import SafeTokenizer
from moderation.training.data import Example, stage_sampler
from policies import Surface, load_library

MAX_CONTENT_TOKENS = 600
"""Longer records are passed over: cutting one could cut away what its label is about."""


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="JSONL records, gzip or plain")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "wardgate")
    parser.add_argument("--template", default="compositional", choices=("compact", "compositional"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--init", type=Path, help="folder of an adapter to begin with")
    parser.add_argument("--batch", type=int, default=16, help="contents a step, all processes")
    parser.add_argument("--rank", type=int, default=16, help="LoRA rank")
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--row-tokens",
        type=int,
        default=4000,
        help="content tokens of one forward: about 1 GiB of memory a thousand",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads a process")
    train(parser.parse_args())


def train(args: argparse.Namespace) -> None:
    """Trains or goes on from the last checkpoint in `args.out`."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    place = int(os.environ.get("RANK", "0"))
    torch.set_num_threads(args.threads)
    if world > 1:
        dist.init_process_group("gloo")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = ensure_base(args.cache)
    tokenizer = SafeTokenizer((base / "tokenizer.json").read_text(encoding="utf-8"))
    builder = PromptBuilder(TEMPLATES[args.template], tokenizer)
    library = load_library()
    sampler = stage_sampler(args.data, library, seed=args.seed)
    model = adapted_model(base, args.rank, args.seed).to(device)
    trained = [p for p in model.parameters() if p.requires_grad]
    # The adapter computes in bfloat16 (float32 costs 1.3 to 1.8 times the time on a CPU), but
    # small updates would round away there, so the optimizer keeps float32 copies.
    masters = [parameter.detach().float().clone() for parameter in trained]
    optimizer = torch.optim.AdamW(masters, lr=args.lr, weight_decay=0.0)
    if args.init is not None:
        _begin_with(args.init, model, masters)
    first_step = _resume(args.out, masters, optimizer)
    _copy(masters, trained)
    layers = GemmaLayers(model.get_base_model())
    direction = answer_direction(model, tokenizer)
    args.out.mkdir(parents=True, exist_ok=True)
    if place == 0:
        recipe = {k: v for k, v in vars(args).items() if not isinstance(v, Path)}
        recipe["begins_with"] = args.init.name if args.init else None
        (args.out / "arguments.json").write_text(json.dumps(recipe, indent=1) + "\n")
    for step in range(first_step, args.steps):
        started = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = args.lr * _schedule(step, args.steps)
        examples = [sampler.draw(step, i) for i in range(place, args.batch, world)]
        loss, num_answers = _backward(layers, direction, builder, examples, args.row_tokens)
        for master, parameter in zip(masters, trained, strict=True):
            assert parameter.grad is not None
            master.grad = parameter.grad.float()
            parameter.grad = None
            if world > 1:
                dist.all_reduce(master.grad)
                master.grad /= world
        nn.utils.clip_grad_norm_(masters, 1.0)
        optimizer.step()
        _copy(masters, trained)
        if place == 0:
            line = {
                "step": step,
                "loss": round(loss, 4),
                "answers": num_answers,
                "seconds": round(time.monotonic() - started, 2),
            }
            with (args.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            if step % 25 == 24 or step == args.steps - 1:
                _save(args.out, model, masters, optimizer, step + 1)


def adapted_model(
    base: Path, rank: int, seed: int, *, dtype: torch.dtype = torch.bfloat16
) -> PeftModel:
    """The base with an adapter that changes nothing yet, on every linear layer."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        bias="none",
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
    adapted.peft_config["default"].base_model_name_or_path = REVISION  # not this machine's path
    return adapted


def _backward(
    layers: GemmaLayers,
    direction: Tensor,
    builder: PromptBuilder,
    examples: Sequence[Example],
    row_tokens: int,
) -> tuple[float, int]:
    """Adds the gradients of the mean loss over the questions; returns that loss and their number.

    Args:
        layers: of the model that is trained.
        direction: see `answer_margins`.
        builder: renders the examples.
        examples: of this process's share of the batch.
        row_tokens: content tokens of one forward, which bound the memory.
    """
    kept = [
        (prompt, example)
        for example in examples
        if len((prompt := render(builder, example)).prefix) <= MAX_CONTENT_TOKENS
    ]
    questions = [question for _, example in kept for question in example.questions]
    total_weight = sum(question.weight for question in questions)
    total = 0.0
    for row in _rows(kept, row_tokens):
        asked = [question for _, example in row for question in example.questions]
        labels = torch.tensor([q.violates for q in asked], dtype=torch.float32)
        weights = torch.tensor([q.weight / total_weight for q in asked])
        margins = answer_margins(layers, [prompt for prompt, _ in row], direction)
        loss = nn.functional.binary_cross_entropy_with_logits(
            margins, labels.to(margins.device), weights.to(margins.device), reduction="sum"
        )
        torch.autograd.backward(loss)
        total += loss.item()
    return total, len(questions)


def _rows(
    prompts: Sequence[tuple[JudgePrompt, Example]], row_tokens: int
) -> Iterator[list[tuple[JudgePrompt, Example]]]:
    row: list[tuple[JudgePrompt, Example]] = []
    for prompt, example in prompts:
        tokens = sum(len(other.prefix) for other, _ in row) + len(prompt.prefix)
        if row and tokens > row_tokens:
            yield row
            row = []
        row.append((prompt, example))
    if row:
        yield row


def answer_margins(
    layers: GemmaLayers, prompts: Sequence[JudgePrompt], direction: Tensor
) -> Tensor:
    """Logit of Yes minus logit of No for every leaf, ``(Q,)`` float32: P(Yes) is its sigmoid.

    The segments and the walk are the engine's; policies that several prompts ask are computed once.

    Args:
        layers: of the model that is trained.
        prompts: of one packed row.
        direction: ``(D,)`` float32, the output head's row of Yes minus that of No.
    """
    policies: dict[tuple[int, ...], Segment] = {}
    leaves: list[Segment] = []
    for prompt in prompts:
        asked = [policies.setdefault(ids, Segment(ids)) for ids in prompt.leaves if prompt.query]
        leaves += answer_segments(prompt, Segment(prompt.prefix), asked)
    margins: Tensor = layers.answers(leaves).float() @ direction
    return margins


def answer_direction(model: nn.Module, tokenizer: SafeTokenizer) -> Tensor:
    """``(D,)`` float32, the output head's row of Yes minus that of No."""
    head: Tensor = cast(Any, model).get_output_embeddings().weight
    yes, no = (head[tokenizer.token_id(word)].detach().float() for word in ("Yes", "No"))
    return yes - no


def render(builder: PromptBuilder, example: Example) -> JudgePrompt:
    """The judge prompt of a training example."""
    record = example.record
    context = builder.content_tokens(record.prompt).ids if record.prompt else ()
    return builder.text_prompt(
        record.surface,
        builder.content_tokens(record.text).ids,
        [question.definition for question in example.questions],
        context=context if record.surface is Surface.RESPONSE else (),
    )


def _schedule(step: int, steps: int, warm_up: int = 20) -> float:
    """Linear warm-up, then a cosine down to 5%."""
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def _copy(masters: list[Tensor], trained: list[nn.Parameter]) -> None:
    for master, parameter in zip(masters, trained, strict=True):
        parameter.copy_(master)


def _save(
    out: Path,
    model: PeftModel,
    masters: list[Tensor],
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    state = {"step": step, "masters": masters, "optimizer": optimizer.state_dict()}
    torch.save(state, out / "state.part")
    os.replace(out / "state.part", out / "state.pt")  # a kill leaves the last whole state
    model.save_pretrained(str(out / "adapter"), save_embedding_layers=False)


@torch.no_grad()
def _begin_with(adapter: Path, model: PeftModel, masters: list[Tensor]) -> None:
    """Takes over the weights of an adapter of the same rank; the optimizer starts anew."""
    saved = load_file(adapter / "adapter_model.safetensors")
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for name, master in zip(names, masters, strict=True):
        master.copy_(saved[name.replace(".default.", ".")])


def _resume(out: Path, masters: list[Tensor], optimizer: torch.optim.Optimizer) -> int:
    """Restores the last checkpoint, if there is one; returns the step to go on with."""
    if not (out / "state.pt").exists():
        return 0
    state = torch.load(out / "state.pt", weights_only=True)
    for master, saved in zip(masters, state["masters"], strict=True):
        master.copy_(saved)
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


if __name__ == "__main__":
    main()
