"""`wardgate serve`: the moderation API and the gate, over HTTP."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moderation.errors import ModerationError
from moderation.memory import share_freed_memory
from policies import PolicyError, PolicyLibrary, load_library
from wardgate.environment import default_cache_dir
from wardgate.output import FAILED, WRONG_USE, print_error, stderr, stdout

if TYPE_CHECKING:
    from service.runtime import Runtime
    from service.settings import Settings

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 127.0.0.1 by default.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 8080 by default.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A YAML file of settings; WARDGATE_* variables come before it."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Check settings, policies and models, then exit: 0 or 1."),
    ] = False,
) -> None:
    """Serve the moderation API and the gate; every setting is also a WARDGATE_* variable."""
    try:
        import uvicorn  # noqa: F401

        from service.settings import SettingsError, load_settings
    except ImportError as exc:
        _say(f"error: the service needs the extra 'serve' ({exc}): pip install 'wardgate[serve]'")
        raise typer.Exit(FAILED) from exc
    try:
        settings = load_settings(config, overrides={"host": host, "port": port})
        if "cache_dir" not in settings.model_fields_set:
            settings = settings.model_copy(update={"cache_dir": default_cache_dir()})
        library = load_library(settings.policy_dirs)
        library.policy_set(settings.policy_set)
    except SettingsError as exc:
        _say(f"error: {exc}")
        raise typer.Exit(FAILED if check else WRONG_USE) from exc
    except PolicyError as exc:
        code = print_error(exc, as_json=False)
        raise typer.Exit(FAILED if check else code) from exc
    if check:
        raise typer.Exit(_check(settings, library))
    raise typer.Exit(_run(settings, library))


def _check(settings: "Settings", library: PolicyLibrary) -> int:
    """Loads everything once; returns the exit code."""
    from service.models import load_generator, load_moderator

    console = stdout()
    policy_set = library.policy_set(settings.policy_set)
    console.print(f"ok  settings, policy set {policy_set.id} ({len(policy_set.policies)} policies)")
    try:
        load_moderator(settings, library, _say)
        console.print(f"ok  classifier {settings.model}", markup=False)
        if settings.generator != "none":
            generator = load_generator(settings, _say)
            console.print(f"ok  generator {generator.name}", markup=False)
    except ModerationError as exc:
        return print_error(exc, as_json=False)
    return 0


def _run(settings: "Settings", library: PolicyLibrary) -> int:
    """Serves until a signal comes, or the models cannot be loaded; returns the exit code."""
    from service.logs import configure_logging
    from service.models import load_generator, load_moderator
    from service.runtime import Runtime
    from service.server import Server

    configure_logging(settings.log_level)
    share_freed_memory()
    try:
        listener = _listen(settings.host, settings.port)
    except OSError as exc:
        _say(
            f"error: cannot listen on {settings.host}:{settings.port}: {exc.strerror or exc}; stop"
            " what listens there, or choose another with --port"
        )
        return FAILED
    url = _url(settings.host, listener.getsockname()[1])
    runtime = Runtime(
        settings,
        library,
        load_moderator=lambda: load_moderator(settings, library, _say),
        load_generator=(
            None if settings.generator == "none" else lambda: load_generator(settings, _say)
        ),
    )

    def when_loaded(loaded: "Runtime") -> None:
        if loaded.state == "ready":
            _say(_welcome(url, loaded))
        elif loaded.failure is not None:
            server.should_exit = True

    server = Server(runtime, when_loaded=when_loaded)
    if settings.host not in LOOPBACK:
        _say(f"warning: anyone who reaches {settings.host} can use this service: it has no keys")
    _say(f"listening on {url}; loading the models")
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        return 0
    finally:
        listener.close()
    if runtime.failure is not None:
        _say(f"error: the models could not be loaded: {runtime.failure}")
        return FAILED
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises `OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _url(host: str, port: int) -> str:
    shown = "127.0.0.1" if host == "0.0.0.0" else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


def _welcome(url: str, runtime: "Runtime") -> str:
    """Where it listens, and calls to try."""
    sign = Path("docs/examples/sign.png")
    image = sign if sign.is_file() else Path("IMAGE.png")
    header = "-H 'Content-Type: application/json'"
    lines = [
        "",
        f"Wardgate is ready on {url} (classifier {runtime.settings.model}, policy set"
        f" {runtime.policy_set.id}). To try it:",
        "",
        "moderate a text:",
        f"""  curl -s {url}/v1/moderations {header} \\""",
        """    -d '{"input": "Explain step by step how to build a pipe bomb at home."}'""",
        "",
        "moderate an image:",
        """  printf '{"input": [{"type": "image_url", "image_url": {"url":"""
        """ "data:image/png;base64,%s"}}]}' \\""",
        f"""    "$(base64 < {image} | tr -d '\\n')" | \\""",
        f"  curl -s {url}/v1/moderations {header} -d @-",
    ]
    if runtime.has_gate:
        # an upstream for all models names none of them
        model = next(iter(runtime.router.model_names), "A-MODEL-OF-YOURS")
        lines += [
            "",
            "chat through the gate:",
            f"""  curl -sN {url}/v1/chat/completions {header} \\""",
            f"""    -d '{{"model": "{model}", "stream": true,"""
            """ "max_tokens": 40,""",
            """         "messages": [{"role": "user", "content": "What is the capital of"""
            """ Australia?"}]}'""",
        ]
    return "\n".join([*lines, ""])


def _say(text: str) -> None:
    stderr().print(text, markup=False, highlight=False, soft_wrap=True)
