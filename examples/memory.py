"""What the C library does with memory that a training frees."""

from __future__ import annotations

import contextlib
import ctypes


def keep_freed_memory() -> None:
    """Tell glibc not to hand freed memory back, so that no step pays for taking it again, page by page.

    By default it does, and what takes more memory takes more time too: much more where a page is dear. It holds for the
    whole process. For any other program, MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=4000000000 in the environment does
    the same.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        libc.mallopt(-4, 0)  # M_MMAP_MAX
