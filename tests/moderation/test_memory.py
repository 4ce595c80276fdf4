"""What a thread has freed serves the others."""

import platform
import subprocess
import sys

import pytest

ALLOCATE = """
import ctypes, sys, tempfile, threading
from moderation.memory import share_freed_memory
if sys.argv[1] == "shared":
    share_freed_memory()
libc, held = ctypes.CDLL(None), threading.Barrier(3)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
def allocate():
    assert libc.malloc(100_000)
    held.wait(10)
threads = [threading.Thread(target=allocate) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
with tempfile.NamedTemporaryFile() as file:
    stream = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(file.read().count(b"<heap nr="))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
def test_all_threads_allocate_from_one_arena() -> None:
    def num_arenas(how: str) -> int:
        command = [sys.executable, "-c", ALLOCATE, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert num_arenas("each its own") > 1
    assert num_arenas("shared") == 1
