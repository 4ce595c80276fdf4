"""The moving parts of a guard, from the same settings as `wardgate serve`."""

from policies import load_library
from service.models import load_moderator
from service.runtime import Runtime
from service.settings import Settings, load_settings


def start_runtime(settings: Settings | None = None) -> Runtime:
    """A runtime with the classifier of the settings and no generator; a guard loads it when the
    application starts.

    Args:
        settings: of this process; from the environment by default.

    Raises:
        SettingsError, PolicyError: they cannot be used.
    """
    settings = settings or load_settings()
    settings = settings.model_copy(
        update={"generator": "none", "cache_dir": settings.cache_dir.expanduser()}
    )
    library = load_library(settings.policy_dirs)
    return Runtime(
        settings,
        library,
        load_moderator=lambda: load_moderator(settings, library, lambda _: None),
        load_generator=None,
    )
