"""What a process holds on to of the memory that it freed. Does something where the C library is
glibc, and nothing elsewhere."""

import ctypes

_M_ARENA_MAX = -8
"""Source: glibc's malloc.h."""


def share_freed_memory() -> None:
    """Lets all threads allocate from one arena, so that what one has freed serves the others.

    By default each has its own, and a service's threads take turns with large tensors and images.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def return_freed_memory() -> None:
    """Gives what was freed back to the system; loading the embedded models leaves some 300 MB."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
