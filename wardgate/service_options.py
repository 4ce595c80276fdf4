"""Options of commands that measure a running service or a guard model of others."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from wardgate.environment import remote_api_key
from wardgate.eval_errors import print_eval_error
from wardgate.output import FAILED

if TYPE_CHECKING:
    from evals.categories import Categories
    from evals.service_run import Address

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


def check_options(context: typer.Context, *, service: bool, guard: bool) -> None:
    """Raises `BadParameter`: an option is given that would change nothing, or one is missing."""
    if service and guard:
        raise typer.BadParameter("a run measures one or the other", param_hint="--service, --guard")
    if service:
        refuse_given(
            context, (*_OF_OUR_MODEL, *_OF_A_PROCESS, "weights"), "is the service's own affair"
        )
    elif guard:
        refuse_given(
            context, _OF_OUR_MODEL, "is for models that judge by our prompts, and not guards"
        )
        refuse_given(context, _OF_A_SERVICE, "needs --service")
        if not _is_given(context, "weights"):
            raise typer.BadParameter("needs --weights", param_hint="--guard")
    else:
        refuse_given(context, _OF_A_SERVICE, "needs --service")
        refuse_given(context, ("categories",), "needs --service or --guard")
        refuse_given(context, ("weights",), "needs --guard")


def refuse_given(context: typer.Context, names: Sequence[str], problem: str) -> None:
    """Raises `BadParameter`: one of these options is given."""
    for name in names:
        if _is_given(context, name):
            raise typer.BadParameter(problem, param_hint=f"--{name.replace('_', '-')}")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


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
    if find_spec("httpx") is None:
        print_eval_error(
            "extra_missing",
            "a service is asked with httpx: pip install 'wardgate[client]'",
            as_json=as_json,
        )
        raise typer.Exit(FAILED)
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
