"""What a run is measured by while it trains: how well it judges records that it does not see."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from moderation.prompts import JudgePrompt, PromptBuilder
from moderation.training.batch import (
    MAX_CONTENT_TOKENS,
    in_rows,
    make_batches,
    render_record,
)
from moderation.training.layers import answer_margins, read_policies
from moderation.training.records import POLICY_WEIGHTS, Record, read_records
from policies import PolicyLibrary

Case = tuple[JudgePrompt, dict[str, bool]]
"""A prompt that asks every known label of a record, and the labels."""

ROW_TOKENS = 16_000
"""Content tokens of one forward."""


def cases_to_measure(path: Path, builder: PromptBuilder, library: PolicyLibrary) -> list[Case]:
    """The records of a JSONL file, whatever their licence: nothing is learned from them.

    Each is asked the policies of which its labels know, in the catalogue's words. Those of over
    1,000 tokens are left out.
    """
    records = read_records(path, licences=None)
    rendered = (_render(builder, library, record) for record in records)
    kept = [case for case in rendered if case and len(case[0].prefix) <= MAX_CONTENT_TOKENS]
    return sorted(kept, key=lambda case: len(case[0].prefix))


@torch.no_grad()
def measure(model: Any, direction: Tensor, cases: Sequence[Case]) -> dict[str, dict[str, float]]:
    """AU-PRC and AUROC a policy.

    Args:
        model: see `answer_margins`.
        direction: see `answer_margins`.
        cases: with labels.
    """
    answers: dict[str, list[bool]] = defaultdict(list)
    scores: dict[str, list[float]] = defaultdict(list)
    rows = list(in_rows(cases, ROW_TOKENS))
    roots, batches = make_batches([[prompt for prompt, _ in row] for row in rows])
    policies = read_policies(model, roots.to(direction.device))
    for row, batch in zip(rows, batches, strict=True):
        on_device = batch.to(direction.device)
        margins = iter(answer_margins(model, on_device, policies, direction).tolist())
        for _, labels in row:
            for policy_id, violates in labels.items():
                answers[policy_id].append(violates)
                scores[policy_id].append(next(margins))
    return {
        policy_id: {
            "au_prc": round(float(average_precision_score(found, scores[policy_id])), 4),
            "auroc": round(float(roc_auc_score(found, scores[policy_id])), 4),
        }
        for policy_id, found in answers.items()
        if len(set(found)) == 2
    }


def _render(builder: PromptBuilder, library: PolicyLibrary, record: Record) -> Case | None:
    asked = {
        policy_id: definition
        for policy_id in record.labels
        if policy_id in POLICY_WEIGHTS
        and (definition := library.policy(policy_id).definition_for(record.surface))
    }
    if not asked:
        return None
    prompt = render_record(builder, record, list(asked.values()))
    return prompt, {policy_id: record.labels[policy_id] for policy_id in asked}
