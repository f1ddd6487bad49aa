"""Test how the C library gets memory: from the system each time, or once and for all."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import memory
import pytest
import train

ROOT = Path(__file__).parents[1]
FAULTS = """
import resource, sys
if sys.argv[1] == "keep":
    from memory import keep_freed_memory
    keep_freed_memory()
def take(): len(b"1" * int(sys.argv[2]))
take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    take()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
LARGE = 2_400_000_000  # more than an int holds
PLAIN = {
    name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))
}


def page_faults(way: str, size: int = 240_000_000, **environment: str) -> int:
    run = subprocess.run(
        [sys.executable, "-c", FAULTS, way, str(size)],
        env={**PLAIN, "PYTHONPATH": str(ROOT / "examples"), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return int(run.stdout)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="what another C library does is its own"
)
def test_freed_memory_is_kept() -> None:
    """By the function, and by the variables that the pages name."""
    assert page_faults("leave") > 500  # 293,000 pages of 4 KiB, or 570 of 2 MiB
    assert page_faults("keep") < 50
    assert page_faults("keep", LARGE) < 50
    pages = ("docs/figures.md", "docs/speed.md", "docs/troubleshooting.md", "examples/memory.py")
    told = {
        name: re.findall(r"MALLOC_MMAP_MAX_=\d+ MALLOC_TRIM_\w+=\d+", (ROOT / name).read_text())
        for name in pages
    }
    (variables,) = {text for texts in told.values() for text in texts}
    assert all(told.values())
    assert page_faults("leave", LARGE, **dict(text.split("=") for text in variables.split())) < 50


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="what another C library does is its own"
)
def test_the_environment_comes_first() -> None:
    """By the variable that the function names as the way out."""
    (way_out,) = re.findall(
        r"(MALLOC_\w+)=(\d+) is glibc's own way", memory.keep_freed_memory.__doc__ or ""
    )
    assert page_faults("keep", **dict([way_out])) > 500


def test_a_training_keeps_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert train.keep_freed_memory is memory.keep_freed_memory
    called: list[bool] = []
    monkeypatch.setattr(train, "keep_freed_memory", lambda: called.append(True))
    with pytest.raises(ValueError, match="expected a folder or file of clips"):
        train.main(["--data", str(tmp_path / "nothing"), "--out", str(tmp_path / "run")])
    assert called
