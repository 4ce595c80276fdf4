"""Options of `wardgate eval run` that name what is measured, and which of them go together.

That is a model of this process or of the workers of a Ray cluster, a guard model of others, or a
running service.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer


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

ServiceOption = Annotated[
    str | None,
    typer.Option(
        "--service",
        metavar="URL",
        help="Measure the moderation API that answers there; its key is WARDGATE_REMOTE_API_KEY.",
    ),
]
CategoriesOption = Annotated[
    str | None,
    typer.Option(
        "--categories",
        metavar="FILE",
        help="For a service that is not Wardgate, or a guard: which of its categories are which"
        " policies; openai for OpenAI's, and a guard's format has its own.",
    ),
]
ConnectionsOption = Annotated[
    int, typer.Option(min=1, max=100, help="Records that a service is asked about at a time.")
]
TimeoutOption = Annotated[
    float,
    typer.Option(min=0.001, help="Seconds that a service has for a record, all tries included."),
]

GuardOption = Annotated[
    str | None,
    typer.Option(
        "--guard",
        metavar="FORMAT",
        help="Measure a guard model of others by its own prompt: llama-guard, qwen3guard,"
        " wildguard, granite-guardian or granite-guardian-3.3.",
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option("--weights", metavar="DIR_OR_HUB_ID", help="The checkpoint of --guard."),
]

_OF_OUR_MODEL = ("model", "image_model", "calibration", "raw_text", "executor")
_OF_A_PROCESS = ("dtype", "device", "threads")
_OF_A_SERVICE = ("connections", "timeout")
_OF_RAY = ("ray_address", "workers")


def check_options(
    context: typer.Context, *, service: bool, guard: bool, executor: Executor
) -> None:
    """Raises `BadParameter`: an option is given that would change nothing, or one is missing."""
    if service and guard:
        raise typer.BadParameter("a run measures one or the other", param_hint="--service, --guard")
    if service:
        _refuse_given(
            context, (*_OF_OUR_MODEL, *_OF_A_PROCESS, "weights"), "is the service's own affair"
        )
    elif guard:
        _refuse_given(
            context, _OF_OUR_MODEL, "is for models that judge by our prompts, and not guards"
        )
        _refuse_given(context, _OF_A_SERVICE, "needs --service")
        if not _is_given(context, "weights"):
            raise typer.BadParameter("needs --weights", param_hint="--guard")
    else:
        _refuse_given(context, _OF_A_SERVICE, "needs --service")
        _refuse_given(context, ("categories",), "needs --service or --guard")
        _refuse_given(context, ("weights",), "needs --guard")
    if executor is Executor.LOCAL:
        _refuse_given(context, _OF_RAY, "needs --executor ray")


def _refuse_given(context: typer.Context, names: Sequence[str], problem: str) -> None:
    """Raises `BadParameter`: one of these options is given."""
    for name in names:
        if _is_given(context, name):
            raise typer.BadParameter(problem, param_hint=f"--{name.replace('_', '-')}")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
