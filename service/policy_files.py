"""The folders that the policies are read from: whether they have changed, and how reading went."""

from collections.abc import Sequence
from pathlib import Path

from policies import PolicyLibrary, load_library


class PolicyFiles:
    """The built-in policies with the operator's folders laid over them. Blocks."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """They were read just now."""
        self._folders = folders
        self._as_read = self._last_seen = self._state()
        self.failure: str | None = None
        """Why the last reload left the policies as they were; None where it did not."""

    def read(self) -> PolicyLibrary:
        """All of them. Raises `PolicyFileError`."""
        self._as_read = self._state()  # first: what changes meanwhile is another change
        return load_library(self._folders)

    def have_changed(self) -> bool:
        """Whether they are not what was read, and are what they were when this was last asked:
        somebody may be in the middle of writing."""
        before, self._last_seen = self._last_seen, self._state()
        return self._last_seen == before != self._as_read

    def _state(self) -> tuple[object, ...]:
        """Another one once a file is added, removed or written, or a link leads elsewhere:
        Kubernetes puts a new ConfigMap in place by one link above all of its files."""
        return tuple(_state_of(folder) for folder in self._folders)


def _state_of(folder: Path) -> object:
    try:
        files = [(path.resolve(), path.stat()) for path in sorted(folder.iterdir())]
    except OSError as exc:
        return str(exc)  # reading it says more
    return [(path, found.st_mtime_ns, found.st_size, found.st_ino) for path, found in files]
