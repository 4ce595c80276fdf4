"""What a process holds on to after its models are loaded."""

import ctypes


def return_freed_memory() -> None:
    """Gives what was freed back to the system; loading the embedded models leaves some 300 MB.

    Does something where the C library is glibc, and nothing elsewhere.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
