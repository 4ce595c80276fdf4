"""Labelled records as tasks of lm-evaluation-harness, one a policy, to score causal models on them.

The judge prompt is ShieldGemma's, as text, with `No` and `Yes` as choices: a checkpoint's P(Yes) is
that of this project with the template `shieldgemma1` and texts as they are. The harness tells no
text from a control token and scores no image, so such records are left out, and counted.
"""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import yaml

from evals.journal import write_whole
from evals.records import Record, RecordError
from evals.run import Workload
from moderation.templates import TEMPLATES, SurfaceTemplate
from policies import PolicyLibrary

GROUP = "wardgate"
"""The group of all tasks, whose names begin with it."""
TASK_CODE = Path(__file__).with_name("lm_eval_task.py")
CONTROL_TOKENS = ("<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<pad>")
"""Of Gemma."""
_TEMPLATE = TEMPLATES["shieldgemma1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What was written."""

    tasks: dict[str, int]
    """Records by policy id."""
    left_out: dict[str, int]
    """Records by the reason why they are in no task."""


def export_tasks(library: PolicyLibrary, workload: Workload, out: Path) -> Export:
    """Writes a folder for `lm_eval run --include_path`.

    Raises:
        RecordError: nothing can be exported, or the folder is not empty.
        RunError: a file cannot be written.
    """
    if out.exists() and any(out.iterdir()):
        raise RecordError(f"{out} is not empty; expected a new folder, so that no old task stays")
    lines: defaultdict[str, list[str]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for task in workload.tasks:
        if (why := _left_out(task.record)) is not None:
            left_out[why] += 1
            continue
        for rule in task.rules:
            document = _document(library, task.record, rule.id)
            lines[rule.id].append(json.dumps(document, ensure_ascii=False) + "\n")
    if not lines:
        reasons = ", ".join(f"{count} {why}" for why, count in left_out.items())
        raise RecordError(f"{workload.plan.data}: no record can be exported: {reasons}")
    out.mkdir(parents=True, exist_ok=True)
    for policy_id, found in lines.items():
        write_whole(out / f"{policy_id}.jsonl", "".join(found).encode())
        write_whole(out / f"{policy_id}.yaml", _task(library, policy_id).encode())
    write_whole(out / "utils.py", TASK_CODE.read_bytes())
    write_whole(out / f"{GROUP}.yaml", _group(sorted(lines)).encode())
    return Export(
        tasks={id_: len(found) for id_, found in sorted(lines.items())}, left_out=left_out
    )


def _left_out(record: Record) -> str | None:
    if record.image is not None:
        return "with an image"
    if not record.text.strip():
        return "without a text"
    read = record.text + (record.prompt or "")
    if any(token in read for token in CONTROL_TOKENS):
        return "with a control token in the text"
    try:
        read.encode()
    except UnicodeEncodeError:
        return "with text that has no UTF-8 form"
    return None


def _document(library: PolicyLibrary, record: Record, policy_id: str) -> dict[str, object]:
    policy = library.policy(policy_id)
    definition = policy.definition_for(record.surface)
    assert definition is not None, "a task has only rules with words for its surface"
    return {
        "id": record.id,
        "policy": policy_id,
        "policy_hash": policy.hash,
        "surface": record.surface.value,
        "judge_prompt": judge_prompt(_TEMPLATE.surfaces[record.surface], record, definition),
        "choices": ["No", "Yes"],
        "target": int(record.labels[policy_id]),
    }


def judge_prompt(template: SurfaceTemplate, record: Record, definition: str) -> str:
    """What the classifier reads before it answers, as text."""
    lead = _TEMPLATE.slot_lead
    asked = lead + record.prompt if record.prompt else ""
    before = template.before_context + asked if template.before_context else ""
    return (
        f"{before}{template.before_content}{lead}{record.text}"
        f"{template.before_policy}{lead}{definition}{template.after_policy}"
    )


def _task(library: PolicyLibrary, policy_id: str) -> str:
    metrics = "".join(
        f"  - {{metric: {name}, aggregation: {how}, higher_is_better: true}}\n"
        for name, how in (
            ("acc", "mean"),
            ("au_prc", "!function utils.au_prc"),
            ("auroc", "!function utils.auroc"),
        )
    )
    return (
        f"task: {GROUP}_{policy_id}\n"
        "custom_dataset: !function utils.load\n"
        f"dataset_kwargs: {{file: {policy_id}.jsonl}}\n"
        "test_split: test\n"
        "output_type: multiple_choice\n"
        "doc_to_text: judge_prompt\n"
        "doc_to_choice: choices\n"
        "doc_to_target: target\n"
        'target_delimiter: ""\n'
        "process_results: !function utils.process_results\n"
        f"metric_list:\n{metrics}"
        f"metadata: {{version: {library.policy(policy_id).version}}}\n"
    )


def _group(ids: list[str]) -> str:
    return yaml.safe_dump(
        {
            "group": GROUP,
            "task": [f"{GROUP}_{id_}" for id_ in ids],
            "aggregate_metric_list": [
                {"metric": name, "aggregation": "mean", "weight_by_size": False}
                for name in ("acc", "au_prc", "auroc")
            ],
        },
        sort_keys=False,
    )
