"""Opens what `wardgate eval run` measures, one function for each kind of subject.

Each is given a workload, so that nothing is loaded or asked for data that cannot be scored, and
`report`, which is told what is being opened.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import typer

from evals.in_process import InProcess
from evals.run import Subject, Workload
from policies import PolicyLibrary
from wardgate.environment import remote_api_key
from wardgate.eval_errors import needs_extra
from wardgate.loading import (
    ModelChoice,
    open_guard,
    open_measured,
    open_moderator,
    warn_of_raw_scores,
)

if TYPE_CHECKING:
    from evals.categories import Categories
    from evals.guards.formats import GuardFormat
    from evals.service_run import Address

Report = Callable[[str], None]
OpenSubject = Callable[[Workload, Report], AbstractContextManager[Subject]]
"""One of the functions here, with what the options say."""


@contextmanager
def model_here(
    library: PolicyLibrary, model: ModelChoice, workload: Workload, report: Report
) -> Iterator[Subject]:
    """A model of this process. Raises `ModelError`."""
    yield InProcess(
        open_measured(
            library,
            workload.plan.policy_set,
            model,
            has_images=workload.images_sha256 is not None,
            report=report,
        )
    )


@contextmanager
def model_on_ray(
    library: PolicyLibrary,
    model: ModelChoice,
    address: str | None,
    workers: int,
    workload: Workload,
    report: Report,
) -> Iterator[Subject]:
    """A model of each worker of a Ray cluster. Raises `ClusterError`; see `on_ray`."""
    from evals.ray_run import on_ray  # of the extra 'ray'

    report(f"opening {model.name} on Ray")
    has_images = workload.images_sha256 is not None
    open_in_worker = partial(
        open_moderator,
        library,
        model.for_data(has_images=has_images),
        reads_images=has_images,
        report=_in_silence,
    )
    with on_ray(open_in_worker, workload, address=address, workers=workers) as subject:
        warn_of_raw_scores(subject.stated.calibration, subject.stated.gaps)
        yield subject


def _in_silence(_what: str) -> None:
    """Workers have no progress bar."""


@contextmanager
def guard_here(
    library: PolicyLibrary,
    form: "GuardFormat",
    weights: str,
    categories: "Categories | None",
    dtype: str | None,
    workload: Workload,
    report: Report,
) -> Iterator[Subject]:
    """A guard model of others. Raises `ModelError`, or `GuardError`: the data is not for guards."""
    from evals.guard_run import guard_subject

    load = partial(
        open_guard, form, weights, dtype=dtype, device=workload.plan.device, report=report
    )
    yield guard_subject(load, library, categories, workload)


@contextmanager
def service_there(address: "Address", workload: Workload, report: Report) -> Iterator[Subject]:
    """A running service. Raises `ServiceError`; see `meet`."""
    from evals.service_run import meet  # of the extra 'client'

    report(f"asking {address.host}")
    yield meet(address, workload)


def service_address(
    url: str,
    categories: "Categories | None",
    *,
    connections: int,
    timeout_s: float,
    as_json: bool,
) -> "Address":
    """Where the service is. Ends the command where the extra 'client' is not installed.

    Raises:
        BadParameter: the URL is none.
    """
    needs_extra("client", ["httpx"], "a service is asked with httpx", as_json=as_json)
    from evals.answers import CategoryApi, WardgateApi
    from evals.service_run import Address

    try:
        return Address.of(
            url,
            WardgateApi() if categories is None else CategoryApi(categories),
            api_key=remote_api_key(),
            connections=connections,
            timeout_s=timeout_s,
        )
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--service") from exc
