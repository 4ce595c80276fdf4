"""Where converted models live on this machine. Read here, once, and handed down."""

import os
from collections.abc import Mapping
from pathlib import Path


def default_cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """`WARDGATE_CACHE_DIR`, else `wardgate` in `XDG_CACHE_HOME`, else `~/.cache/wardgate`."""
    if chosen := environ.get("WARDGATE_CACHE_DIR"):
        return Path(chosen).expanduser()
    if xdg := environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "wardgate"
    return Path.home() / ".cache" / "wardgate"
