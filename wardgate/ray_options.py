"""Options of a run on the workers of a Ray cluster instead of in this process."""

from enum import StrEnum
from importlib.util import find_spec
from typing import Annotated

import typer

from wardgate.eval_errors import print_eval_error
from wardgate.output import FAILED
from wardgate.service_options import refuse_given


class Executor(StrEnum):
    """Where a run computes."""

    LOCAL = "local"
    RAY = "ray"


ExecutorOption = Annotated[
    Executor,
    typer.Option(help="local computes in this process; ray on the workers of a Ray cluster."),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="The Ray cluster to join, or auto for the one that this machine is a node of;"
        " without it one is started here.",
    ),
]
WorkersOption = Annotated[
    int, typer.Option(min=1, help="Processes on Ray, each with a model of its own.")
]


def check_ray_options(context: typer.Context, executor: Executor, *, as_json: bool) -> None:
    """Ends the command where the extra 'ray' is needed and not installed.

    Raises:
        BadParameter: an option is given that would change nothing.
    """
    if executor is Executor.LOCAL:
        refuse_given(context, ("ray_address", "workers"), "needs --executor ray")
    elif find_spec("ray") is None or find_spec("pyarrow") is None:
        print_eval_error(
            "extra_missing",
            "--executor ray needs Ray Data: pip install 'wardgate[ray]'",
            as_json=as_json,
        )
        raise typer.Exit(FAILED)
