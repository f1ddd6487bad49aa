"""What the C library does with freed memory: taken from the system each time, or once and for all."""

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
def take(): len(b"1" * 240_000_000)
take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    take()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}


def page_faults(way: str, **environment: str) -> int:
    run = subprocess.run(
        [sys.executable, "-c", FAULTS, way], env={**PLAIN, "PYTHONPATH": str(ROOT / "examples"), **environment},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what another C library does is its own")
def test_freed_memory_is_kept() -> None:
    """By the function, and by the variables that the pages name."""
    assert page_faults("leave") > 500  # 293,000 pages of 4 KiB, or 570 of 2 MiB
    assert page_faults("keep") < 50
    for page in ("README.md", "docs/speed.md", "docs/troubleshooting.md", "examples/memory.py"):
        told = dict(re.findall(r"(MALLOC_\w+)=(\d+)", (ROOT / page).read_text().replace("MALLOC_MMAP_THRESHOLD_=", "")))
        assert {*told} == {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"}, page
    assert page_faults("leave", **told) < 50


def test_a_training_keeps_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert train.keep_freed_memory is memory.keep_freed_memory
    called: list[bool] = []
    monkeypatch.setattr(train, "keep_freed_memory", lambda: called.append(True))
    with pytest.raises(ValueError, match="expected a folder or file of clips"):
        train.main(["--data", str(tmp_path / "nothing"), "--out", str(tmp_path / "run")])
    assert called
