"""Trains the embedded adapter: LoRA on the Gemma 3 270M base, loss at the answer position.

On a GPU where there is one, else on the CPU; there the result does not depend on how often the run
was stopped and started again. Writes into `--out`: `adapter/` (peft format), `state.pt` (optimizer,
step), `log.jsonl` (one line a step) and, with `--dev`, `curve.jsonl` (what was measured on it).

    python -m moderation.training.train --data train.jsonl.gz --out runs/v1 --steps 1000
"""

import argparse
import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModelForCausalLM

from moderation.checkpoints import preferred_dtype
from moderation.embedded.base import REVISION, ensure_base
from moderation.prompts import JudgePrompt, PromptBuilder
from moderation.templates import TEMPLATES
from moderation.tokenizer import SafeTokenizer
from moderation.training.batch import (
    MAX_CONTENT_TOKENS,
    in_rows,
    make_batches,
    render_record,
)
from moderation.training.data import Example, Sampler, stage_sampler
from moderation.training.layers import answer_margins, read_policies
from moderation.training.measure import cases_to_measure, measure
from policies import load_library

Row = list[tuple[JudgePrompt, Example]]
"""What one forward computes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="JSONL records, gzip or plain")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "wardgate")
    parser.add_argument("--base", type=Path, help="another base: a checkpoint directory")
    parser.add_argument("--template", default="compositional", choices=("compact", "compositional"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--save-every", type=int, default=25, help="steps between checkpoints")
    parser.add_argument("--stop-after", type=int, help="steps after which to stop, to go on later")
    parser.add_argument("--init", type=Path, help="folder of an adapter to begin with")
    parser.add_argument("--batch", type=int, default=24, help="contents a step")
    parser.add_argument(
        "--questions", type=int, help="most questions of a content; all that are drawn if not given"
    )
    parser.add_argument("--rank", type=int, default=16, help="LoRA rank")
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--without", action="append", default=[], metavar="POLICY", help="never ask this policy"
    )
    parser.add_argument("--dev", type=Path, help="JSONL records to measure on")
    parser.add_argument("--measure-every", type=int, default=250, help="steps between measurements")
    parser.add_argument(
        "--row-tokens",
        type=int,
        default=4000,
        help="content tokens of one forward: about 1.5 GiB of memory a thousand",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare the data")
    args = parser.parse_args(arguments)
    train(args, args.base or ensure_base(args.cache))


def train(args: argparse.Namespace, base: Path) -> None:
    """Trains an adapter of `base`, or goes on from the last checkpoint in `args.out`."""
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = SafeTokenizer((base / "tokenizer.json").read_text(encoding="utf-8"))
    builder = PromptBuilder(TEMPLATES[args.template], tokenizer)
    library = load_library()
    sampler = stage_sampler(args.data, library, seed=args.seed, without=args.without)
    dtype = preferred_dtype(device.type)
    adapted = adapted_model(base, args.rank, args.seed, dtype=dtype).to(device)
    model: Any = adapted.get_base_model()
    trained = [p for p in adapted.parameters() if p.requires_grad]
    # Small updates would round away in bfloat16, so the optimizer keeps float32 copies.
    masters = [parameter.detach().float().clone() for parameter in trained]
    optimizer = torch.optim.AdamW(masters, lr=args.lr, weight_decay=0.0)
    if args.init is not None:
        _begin_with(args.init, adapted, masters)
    first_step = _resume(args.out, masters, optimizer, device)
    _copy(masters, trained)
    direction = answer_direction(model, tokenizer)
    args.out.mkdir(parents=True, exist_ok=True)
    recipe = {k: v for k, v in vars(args).items() if not isinstance(v, Path)}
    recipe["begins_with"] = args.init.name if args.init else None
    (args.out / "arguments.json").write_text(json.dumps(recipe, indent=1) + "\n")
    last_step = min(args.steps, args.stop_after or args.steps)
    steps = range(first_step, last_step)
    rows = _Rows(sampler, builder, steps, args.batch, args.row_tokens, args.questions)
    ahead = 4 if args.workers else None
    loaded: Iterable[list[Row]] = DataLoader(
        rows, batch_size=None, num_workers=args.workers, prefetch_factor=ahead
    )
    prepared_rows = iter(loaded)  # the workers begin
    dev = cases_to_measure(args.dev, builder, library) if args.dev else []
    lines: list[dict[str, Any]] = []  # reading a loss would wait for the GPU
    started = time.monotonic()
    for step, prepared in enumerate(prepared_rows, start=first_step):
        for group in optimizer.param_groups:
            group["lr"] = args.lr * _schedule(step, args.steps)
        loss, num_answers = _backward(model, direction, prepared, device)
        for master, parameter in zip(masters, trained, strict=True):
            assert parameter.grad is not None
            master.grad = parameter.grad.float()
            parameter.grad = None
        nn.utils.clip_grad_norm_(masters, 1.0)
        optimizer.step()
        _copy(masters, trained)
        seconds = round(time.monotonic() - started, 2)
        lines.append({"step": step, "loss": loss, "answers": num_answers, "seconds": seconds})
        started = time.monotonic()
        is_last = step == last_step - 1
        if dev and (is_last or step % args.measure_every == args.measure_every - 1):
            numbers = measure(model, direction, dev)
            _write_lines(args.out / "curve.jsonl", [{"step": step, **numbers}])
        if is_last or step % args.save_every == args.save_every - 1:
            losses = [{**line, "loss": round(float(line["loss"]), 4)} for line in lines]
            _write_lines(args.out / "log.jsonl", losses)
            lines.clear()
            _save(args.out, adapted, masters, optimizer, step + 1)


class _Rows(Dataset[list[Row]]):
    """The rows of each step, rendered; a worker prepares them while others are computed."""

    def __init__(
        self,
        sampler: Sampler,
        builder: PromptBuilder,
        steps: range,
        batch: int,
        row_tokens: int,
        most_questions: int | None,
    ) -> None:
        self._sampler = sampler
        self._builder = builder
        self._steps = steps
        self._batch = batch
        self._row_tokens = row_tokens
        self._most_questions = most_questions

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> list[Row]:
        step = self._steps[index]
        drawn = (self._sampler.draw(step, place) for place in range(self._batch))
        examples = (
            replace(example, questions=example.questions[: self._most_questions])
            for example in drawn
        )
        kept = [
            (prompt, example)
            for example in examples
            if len((prompt := render(self._builder, example)).prefix) <= MAX_CONTENT_TOKENS
        ]
        return list(in_rows(kept, self._row_tokens))


def adapted_model(base: Path, rank: int, seed: int, *, dtype: torch.dtype) -> PeftModel:
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
    model: Any, direction: Tensor, rows: Sequence[Row], device: torch.device
) -> tuple[Tensor, int]:
    """Adds the gradients of the mean loss over the questions; returns that loss and their number.

    Args:
        model: that is trained.
        direction: see `answer_margins`.
        rows: of the step.
        device: of the model.
    """
    questions = [question for row in rows for _, example in row for question in example.questions]
    total_weight = sum(question.weight for question in questions)
    total = torch.zeros((), device=device)
    roots, batches = make_batches([[prompt for prompt, _ in row] for row in rows])
    policies = read_policies(model, roots.to(device))
    apart = policies.apart()
    for row, batch in zip(rows, batches, strict=True):
        asked = [question for _, example in row for question in example.questions]
        labels = torch.tensor([float(q.violates) for q in asked], device=device)
        weights = torch.tensor([q.weight / total_weight for q in asked], device=device)
        margins = answer_margins(model, batch.to(device), apart, direction)
        loss = nn.functional.binary_cross_entropy_with_logits(
            margins, labels, weights, reduction="sum"
        )
        torch.autograd.backward(loss)
        total += loss.detach()
    policies.backward(apart)
    return total, len(questions)


def answer_direction(model: Any, tokenizer: SafeTokenizer) -> Tensor:
    """``(D,)`` float32, the output head's row of Yes minus that of No."""
    head: Tensor = model.get_output_embeddings().weight
    yes, no = (head[tokenizer.token_id(word)].detach().float() for word in ("Yes", "No"))
    return yes - no


def render(builder: PromptBuilder, example: Example) -> JudgePrompt:
    """The judge prompt of a training example."""
    definitions = [question.definition for question in example.questions]
    return render_record(builder, example.record, definitions)


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


def _write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


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
    saved = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights = {name: weight.bfloat16().cpu().contiguous() for name, weight in saved.items()}
    (out / "adapter").mkdir(exist_ok=True)
    save_file(weights, out / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    model.peft_config["default"].save_pretrained(str(out / "adapter"))


@torch.no_grad()
def _begin_with(adapter: Path, model: PeftModel, masters: list[Tensor]) -> None:
    """Takes over the weights of an adapter of the same rank; the optimizer starts anew."""
    saved = load_file(adapter / "adapter_model.safetensors")
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for name, master in zip(names, masters, strict=True):
        master.copy_(saved[name.replace(".default.", ".")])


def _resume(
    out: Path, masters: list[Tensor], optimizer: torch.optim.Optimizer, device: torch.device
) -> int:
    """Restores the last checkpoint, if there is one; returns the step to go on with."""
    if not (out / "state.pt").exists():
        return 0
    state = torch.load(out / "state.pt", weights_only=True, map_location=device)
    for master, saved in zip(masters, state["masters"], strict=True):
        master.copy_(saved)
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


if __name__ == "__main__":
    main()
