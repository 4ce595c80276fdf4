"""A moderator that each worker of a Ray cluster opens for itself, as the subject of a run.

The driver reads the data and alone writes the journal. Workers get the batches of a run in one
process, so that their scores are the same to the last digit on processors of one kind. Ray Data
starts dead workers again without end; how often a batch may kill its worker, and how often a worker
may die of its own model, is counted here.
"""

import logging
import os
import pickle
import platform
import sys
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from pydantic import BaseModel, JsonValue
from ray.exceptions import RayError

from evals.errors import RunError
from evals.in_process import InProcess, batches_left
from evals.journal import Entry, differences
from evals.records import RecordError
from evals.run import Keep, Workload
from evals.tasks import Task, Tasks
from moderation.errors import ModerationError
from moderation.moderator import Moderator
from policies import PolicySet

TRIES = 3
"""Of a batch whose worker dies, before it is left out; and of loading, before the run ends."""
MAX_LEFT_OUT = 8
"""Batches; one more ends the run, as that many are no fault of single records."""

Open = Callable[[], Moderator]
"""Opens the moderator in a worker. Pickled: what it needs must be importable on every node."""


class ClusterError(RunError):
    """The cluster cannot do the run, or a batch killed its workers."""

    code = "cluster_error"


class Stated(BaseModel):
    """What a worker says of its moderator."""

    words: dict[str, str]
    manifest: dict[str, JsonValue]
    about: dict[str, JsonValue]
    calibration: str | None
    gaps: list[str]
    """See `Moderator.calibration_gaps`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnRay:
    """A cluster one of whose workers has said what it opens."""

    open: Open
    workers: int
    stated: Stated

    def words(self, _policy_set: PolicySet) -> dict[str, str]:
        """As the worker stated them."""
        return self.stated.words

    def manifest(self, _workload: Workload) -> dict[str, JsonValue]:
        """That of a run in one process: either goes on with a run of the other."""
        return self.stated.manifest

    def about(self) -> dict[str, JsonValue]:
        """As the worker stated it."""
        return self.stated.about

    def score(self, workload: Workload, done: Container[str], keep: Keep) -> None:
        """Keeps each batch as it comes.

        Raises:
            ClusterError: a worker cannot score, or is not like the others; or a batch killed its
                workers, when all others are done.
        """
        left_out: list[str] = []
        try:
            for answer in self._answers(workload, list(batches_left(workload, done))):
                if answer.failure is not None:
                    raise ClusterError(
                        f"{answer.failure}; what is done is kept, run the same command again"
                    )
                keep([entry for entry in answer.entries if entry.id not in done])
                left_out += [each for each in answer.left_out if each not in done]
                if len(left_out) > MAX_LEFT_OUT * workload.plan.batch:
                    break
        except RayError as exc:
            raise ClusterError(
                f"Ray gave up: {_first_line(exc)}; what is done is kept, run the same command again"
            ) from exc
        if left_out:
            raise ClusterError(
                f"{TRIES} workers died of each batch with these records, which have no scores:"
                f" {', '.join(left_out)}; what else is done is kept. Look for one that is too large"
                " for a worker's memory, take it out of the data, or run the same command again"
            )

    def _answers(self, workload: Workload, batches: Sequence[Sequence[Task]]) -> Iterator["Answer"]:
        if not batches:
            return
        tries = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Tries).remote()
        answers = ray.data.from_items(
            [{"tasks": pickle.dumps(batch)} for batch in batches],
            # a block is what is lost with a worker
            override_num_blocks=len(batches),
        ).map_batches(
            _Worker,
            fn_constructor_args=(self.open, _without_tasks(workload), self.stated, tries),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=self.workers),
            **_resources(workload),
        )
        for block in answers.iter_batches(batch_size=None, prefetch_batches=0):
            for line in block["answer"]:
                yield Answer.model_validate_json(line)


@contextmanager
def on_ray(
    open_moderator: Open, workload: Workload, *, address: str | None, workers: int
) -> Iterator[OnRay]:
    """Joins a cluster for the time of a run, and asks a worker what it opens.

    Args:
        open_moderator: what is measured.
        workload: what is scored.
        address: of a node of the cluster, or "auto" on one of its nodes; None starts a cluster on
            this machine.
        workers: processes with a moderator each.

    Raises:
        ClusterError: there is no such cluster, it has no room, or the worker opens nothing.
    """
    with redirect_stdout(sys.stderr), _joined(address, workload, workers):  # Ray prints of the dead
        ask = ray.remote(max_retries=TRIES - 1, **_resources(workload))(_ask_a_worker)
        try:
            found = ray.get(ask.remote(open_moderator, _without_tasks(workload)))
        except RayError as exc:
            raise ClusterError(f"no worker opens the model: {_first_line(exc)}") from exc
        if isinstance(found, str):
            raise ClusterError(found)
        yield OnRay(open=open_moderator, workers=workers, stated=found)


class Answer(BaseModel):
    """What a worker says of a batch; JSON between processes, as in the journal."""

    entries: list[Entry] = []
    left_out: list[str] = []
    """Ids of a batch that has killed too many workers."""
    failure: str | None = None
    """Why the run cannot go on."""


class _Tries:
    """Counts how often each batch, or each worker's loading, was begun: a worker that dies cannot
    say so."""

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}

    def begin(self, what: str) -> int:
        self._begun[what] = self._begun.get(what, 0) + 1
        return self._begun[what]

    def end(self, what: str) -> None:
        self._begun.pop(what, None)  # a counter that was started again knows of nothing


class _Worker:
    """Scores a batch a call. What goes wrong is an answer, as Ray would only try it again."""

    def __init__(
        self, open_moderator: Open, workload: Workload, stated: Stated, tries: Any
    ) -> None:
        self._tries = tries
        self._policy_set = workload.plan.policy_set
        # a worker that is started again keeps its name
        loading = f"loading by {ray.get_runtime_context().get_actor_id()}"
        if ray.get(tries.begin.remote(loading)) > TRIES:
            self._subject: InProcess | str = (
                f"{_here()} died {TRIES} times while it loaded the model; make sure that each node"
                " has memory for all of its workers, or take fewer --workers"
            )
            return
        self._subject = _opened(open_moderator, workload)
        if isinstance(self._subject, InProcess):
            here, wanted = (
                each.model_dump() for each in (_stated(self._subject, workload), stated)
            )
            if here == wanted:
                self._subject.read_policies(workload)
            else:
                self._subject = (
                    f"{_here()} has {'; '.join(differences(here, wanted))}; install the same on"
                    " every node"
                )
        ray.get(tries.end.remote(loading))

    def __call__(self, block: dict[str, Any]) -> dict[str, Any]:
        answer = self._answer(pickle.loads(block["tasks"][0])).model_dump_json()
        return {"answer": np.array([answer], dtype=object)}

    def _answer(self, batch: Sequence[Task]) -> Answer:
        if isinstance(self._subject, str):
            return Answer(failure=self._subject)
        ids = [task.record.id for task in batch]
        if ray.get(self._tries.begin.remote(ids[0])) > TRIES:
            return Answer(left_out=ids)
        try:
            return Answer(entries=self._subject.entries(batch, self._policy_set))
        except (ModerationError, RecordError) as exc:
            return Answer(failure=f"{_here()}: {exc}")


@contextmanager
def _joined(address: str | None, workload: Workload, workers: int) -> Iterator[None]:
    # no other switch has these; what Ray's processes log are notes to its developers
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    own: dict[str, Any] = {}
    if address is None:
        own = {"num_cpus": workers * workload.plan.threads, "include_dashboard": False}
    try:
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, RuntimeError, ValueError) as exc:
        raise ClusterError(
            f"no Ray cluster at {address or 'this machine'}: {_first_line(exc)}; start one with"
            " 'ray start', and this command on one of its nodes"
        ) from exc
    try:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its errors are told here
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        _check_room(_resources(workload))
        yield
    finally:
        ray.shutdown()


def _check_room(needed: dict[str, int]) -> None:
    """Ray would wait forever for a node that is large enough."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(names[key], 0) >= n for key, n in needed.items()) for node in nodes):
        asked = " and ".join(f"{n} {names[key]}" for key, n in needed.items())
        raise ClusterError(f"no node of the cluster has {asked} for a worker; see --threads")


def _resources(workload: Workload) -> dict[str, int]:
    """What Ray sets aside for a worker."""
    on_gpu = torch.device(workload.plan.device).type == "cuda"
    return {"num_cpus": workload.plan.threads, **({"num_gpus": 1} if on_gpu else {})}


def _ask_a_worker(open_moderator: Open, workload: Workload) -> Stated | str:
    subject = _opened(open_moderator, workload)
    return subject if isinstance(subject, str) else _stated(subject, workload)


def _opened(open_moderator: Open, workload: Workload) -> InProcess | str:
    """The subject of a worker, or why there is none."""
    torch.set_num_threads(workload.plan.threads)
    try:
        return InProcess(open_moderator())
    except ModerationError as exc:
        return f"{_here()}: {exc}"


def _stated(subject: InProcess, workload: Workload) -> Stated:
    policy_set = workload.plan.policy_set
    return Stated(
        words=subject.words(policy_set),
        manifest=subject.manifest(workload),
        about=subject.about(),
        calibration=subject.moderator.text.info.calibration,
        gaps=subject.moderator.calibration_gaps(policy_set),
    )


def _without_tasks(workload: Workload) -> Workload:
    return replace(workload, tasks=Tasks())


def _here() -> str:
    return f"the worker on {platform.node()}"


def _first_line(exc: Exception) -> str:
    return f"{type(exc).__name__}: {str(exc).partition(chr(10))[0]}"
