"""What the environment says about models and builds. Read here, once, and handed down."""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from moderation.embedded.base import EmbeddedBase


def default_cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where converted models live on this machine.

    `WARDGATE_CACHE_DIR`, else `wardgate` in `XDG_CACHE_HOME`, else `~/.cache/wardgate`.
    """
    if chosen := environ.get("WARDGATE_CACHE_DIR"):
        return Path(chosen).expanduser()
    if xdg := environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "wardgate"
    return Path.home() / ".cache" / "wardgate"


def default_base(environ: Mapping[str, str] = os.environ) -> EmbeddedBase:
    """The base of the embedded models; `WARDGATE_EMBEDDED_BASE` names another copy of it."""
    return EmbeddedBase(default_cache_dir(environ), environ.get("WARDGATE_EMBEDDED_BASE") or None)


def on_github(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this is a job of GitHub Actions, which sets `GITHUB_ACTIONS` to `true`."""
    return environ.get("GITHUB_ACTIONS") == "true"


def remote_api_key(environ: Mapping[str, str] = os.environ) -> SecretStr | None:
    """What a model server is sent as a bearer token: `WARDGATE_REMOTE_API_KEY`."""
    key = environ.get("WARDGATE_REMOTE_API_KEY")
    return SecretStr(key) if key else None
