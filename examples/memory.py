"""Disable glibc memory trimming."""

from __future__ import annotations

import contextlib
import ctypes
import os


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory, because taking it again page by page costs time.

    The process then keeps the memory that it once used, also the holes between its tensors. In the
    environment of any other program, these variables do the same:
    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=18446744073709551615
    If the environment sets any MALLOC_ variable, nothing is changed here;
    MALLOC_MMAP_MAX_=65536 is glibc's own way.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD, the largest there is
        libc.mallopt(-4, 0)  # M_MMAP_MAX
