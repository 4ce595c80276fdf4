"""A guard model of others as the subject of a run, by its own prompt and its own answers.

A policy's score is the probability of the answers that speak of it. Which do, a file of categories
says; a guard that reads policies is asked about each policy in the policy's words.
"""

import time
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version

from pydantic import JsonValue

from evals.answers import Stated
from evals.categories import Categories
from evals.errors import RunError
from evals.guards.formats import FORMATS, VIOLATES, GuardFormat
from evals.guards.model import Guard, Question, Reply
from evals.in_process import batches_left
from evals.journal import Entry
from evals.run import Keep, Workload
from evals.tasks import Task
from moderation.errors import ModelRefused, ModerationError
from policies import PolicyError, PolicyLibrary, PolicySet


class GuardError(RunError):
    """A guard cannot be measured on this data."""

    code = "guard_error"


def guard_format(name: str, given: Categories | None) -> tuple[GuardFormat, Categories | None]:
    """A format by its name, and which of its answers speak of which policies.

    Args:
        name: one of `FORMATS`.
        given: by the user; else the format's own.

    Raises:
        ModelRefused: there is no such format.
        PolicyError: the categories are not the format's, or it reads policies and has none.
    """
    if name not in FORMATS:
        raise ModelRefused(f"unknown format of guards {name!r}; known: {', '.join(FORMATS)}")
    form = FORMATS[name]
    categories = given or form.categories()
    if categories is None:
        return form, None
    if form.criteria is not None:
        raise PolicyError(f"{name} reads the policies themselves; leave --categories out")
    known = dict.fromkeys(each for choice in form.answer.values() for each in choice.names())
    for policy, names in categories.policies.items():
        if unknown := [each for each in names if each not in known]:
            raise PolicyError(
                f"{policy}: {name} has no category {unknown[0]!r}; known: {', '.join(known)}"
            )
    return form, categories


def guard_subject(
    load: Callable[[], Guard],
    library: PolicyLibrary,
    categories: Categories | None,
    workload: Workload,
) -> "GuardSubject":
    """Loads a guard for data that it can read.

    Args:
        load: called only if the data is for guards, as weights have gigabytes.
        library: the policies.
        categories: see `guard_format`.
        workload: what is scored.

    Raises:
        GuardError: the data has images, which no guard would see.
        ModelError: see `load_guard`.
    """
    if workload.images_sha256 is not None:
        raise GuardError(
            f"{workload.plan.data} has images; expected texts alone, which guards read"
        )
    return GuardSubject(load(), library, categories)


@dataclass(frozen=True, slots=True)
class GuardSubject:
    """A guard model of this process; see `guard_subject`."""

    guard: Guard
    library: PolicyLibrary
    categories: Categories | None
    """None for a guard that reads policies."""

    def words(self, policy_set: PolicySet) -> dict[str, str]:
        """The hashes of the policies that it reads, or the answers that stand for them."""
        return {rule.id: self._words(rule.id) for rule in policy_set.policies}

    def manifest(self, workload: Workload) -> dict[str, JsonValue]:
        """The model, its prompt, and all that moves the last digits of scores."""
        plan = workload.plan
        return {
            "model": asdict(self.guard.info),
            "guard": {
                "format": self.guard.form.name,
                "max_tokens": self.guard.max_tokens,
                "categories": self.categories.model_dump(mode="json") if self.categories else None,
            },
            "threads": plan.threads,
            "device": plan.device,
            "batch": plan.batch,
            "versions": {name: version(name) for name in ("wardgate", "torch", "transformers")},
        }

    def about(self) -> dict[str, JsonValue]:
        """The model in words."""
        info = self.guard.info
        return {
            "model": f"{info.name} ({info.revision}, {info.template}, {info.dtype})",
            "calibrated": False,
            "guard": info.template,
        }

    def score(self, workload: Workload, done: Container[str], keep: Keep) -> None:
        """A batch at a time. Raises `EngineError`: a forward failed."""
        for batch in batches_left(workload, done):
            entries = self._entries(batch, rows=workload.plan.batch)
            keep([entry for entry in entries if entry.id not in done])

    def _entries(self, tasks: Sequence[Task], *, rows: int) -> list[Entry]:
        asked = [(task, self._questions(task)) for task in tasks]
        cpu, wall = time.process_time(), time.monotonic()
        replies = iter(self.guard.ask([each for _, some in asked for each in some], rows=rows))
        cpu_s = round((time.process_time() - cpu) / len(tasks), 6)
        wall_s = round((time.monotonic() - wall) / len(tasks), 6)
        return [
            self._entry(task, [next(replies) for _ in questions], cpu_s=cpu_s, wall_s=wall_s)
            for task, questions in asked
        ]

    def _questions(self, task: Task) -> list[Question]:
        content = task.record.content
        if self.categories is not None:
            return [Question(content)]
        return [
            Question(content, self.library.policy(rule.id).definition_for(content.surface))
            for rule in task.rules
        ]

    def _entry(
        self,
        task: Task,
        replies: Sequence[Reply | ModerationError],
        *,
        cpu_s: float,
        wall_s: float,
    ) -> Entry:
        said = []
        for reply in replies:
            if isinstance(reply, ModerationError):
                return Entry.not_scored(
                    task.record.id, f"{reply.code}: {reply}", cpu_s=cpu_s, wall_s=wall_s
                )
            said.append(reply)
        if self.categories is not None:
            said *= len(task.rules)  # one answer speaks of all policies
        scores = {}
        for rule, reply in zip(task.rules, said, strict=True):
            score = reply.probability(self._names(rule.id))
            scores[rule.id] = Stated(
                raw=score, calibrated=score, is_calibrated=False, words=self._words(rule.id)
            ).outcome(rule)
        return Entry(
            id=task.record.id,
            scores=scores,
            coverage="scored",
            tokens=said[0].tokens,
            windows=1,
            error=None,
            cpu_s=cpu_s,
            wall_s=wall_s,
        )

    def _names(self, policy_id: str) -> tuple[str, ...]:
        return (VIOLATES,) if self.categories is None else self.categories.policies[policy_id]

    def _words(self, policy_id: str) -> str:
        if self.categories is None:
            return self.library.policy(policy_id).hash
        return f"probability of {', '.join(self._names(policy_id))}"
