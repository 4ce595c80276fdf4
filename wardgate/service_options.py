"""Options of commands that measure a running service instead of a model of this process."""

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
        help="For a service that is not Wardgate: which of its categories are which policies;"
        " openai for OpenAI's.",
    ),
]
ConnectionsOption = Annotated[
    int, typer.Option(min=1, max=100, help="Records that a service is asked about at a time.")
]
TimeoutOption = Annotated[
    float,
    typer.Option(min=0.001, help="Seconds that a service has for a record, all tries included."),
]

_OF_A_MODEL = (
    "model",
    "image_model",
    "calibration",
    "dtype",
    "device",
    "threads",
    "raw_text",
    "executor",
)
_OF_A_SERVICE = ("categories", "connections", "timeout")


def check_options(context: typer.Context, *, service: bool) -> None:
    """Raises `BadParameter`: an option is given that would change nothing."""
    if service:
        refuse_given(context, _OF_A_MODEL, "is the service's own affair")
    else:
        refuse_given(context, _OF_A_SERVICE, "needs --service")


def refuse_given(context: typer.Context, names: Sequence[str], why: str) -> None:
    """Raises `BadParameter`: one of these options is given."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(why, param_hint=f"--{name.replace('_', '-')}")


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
