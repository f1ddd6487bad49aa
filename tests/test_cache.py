"""Test the cache: what it gives back, when it is made anew, that it is never read half-written."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from skeleton_focus import SkeletonDataset, open_dataset
from skeleton_focus._cache import _write_header, default_folder, open_pack
from skeleton_focus._packed import MappedClips
from skeleton_focus.formats import ClipFile, ClipSource, FormatError
from skeleton_focus.layouts import COCO17


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A small NW-UCLA folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(6):
        write(folder, i)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def write(folder: Path, i: int, value: float = 0.0) -> Path:
    path = folder / f"a01_s01_e{i:02d}_v0{1 + i % 3}.json"
    frames = [[[value + i, v, t] for v in range(20)] for t in range(2 + i)]
    path.write_text(json.dumps({"file_name": path.stem, "skeletons": frames, "label": 1}))
    return path


def kept(cache: Path) -> list[str]:
    """The names of the caches in a folder, each of which is two files."""
    files = [*cache.iterdir()] if cache.exists() else []
    names = sorted(path.name for path in files if path.suffix != ".lock")
    stems = [name.rpartition(".")[0] for name in names[::2]]
    assert [stem + suffix for stem in stems for suffix in (".json", ".npy")] == names
    return [name.removesuffix(".json") for name in names[::2]]


def same(one: Any, other: Any) -> bool:
    for mine, theirs in zip(one, other, strict=True):
        for attribute in ("names", "labels", "classes"):
            if getattr(mine, attribute) != getattr(theirs, attribute):
                return False
        for i in range(len(mine)):
            pairs = zip(mine[i], theirs[i], strict=True)
            if not all(torch.equal(a, b) for a, b in pairs if torch.is_tensor(a)):
                return False
    return True


def test_the_cache_gives_back_what_was_read(data: Path, cache: Path) -> None:
    in_memory = open_dataset(data, cache=False)
    assert not cache.exists()
    first = open_dataset(data, cache=cache)
    second = open_dataset(str(data), cache=str(cache))
    assert same(in_memory, first) and same(first, second) and len(kept(cache)) == 1
    packed = np.load(cache / f"{kept(cache)[0]}.npy")  # any program can read it
    assert packed.dtype == np.float32 and packed.shape == (sum(4 * 20 * (2 + i) for i in range(6)),)


def test_spellings_of_one_path_share_a_cache(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_dataset(data, cache=cache)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(data)
    before = kept(cache)
    monkeypatch.setattr(
        "skeleton_focus.format_nw_ucla.read_bytes", lambda path: pytest.fail("a file was read")
    )
    others = [
        open_dataset(path, cache="cache")
        for path in ("data", "./data", tmp_path / "link", "link/../data")
    ]
    monkeypatch.chdir("/")
    assert all(same(first, other) for other in others) and kept(cache) == before


def test_a_cache_in_use_is_not_removed(data: Path, cache: Path) -> None:
    """A training goes on when its source changes: also in workers that open the file anew."""
    running = open_dataset(data, cache=cache)
    write(data, 6)
    assert len(open_dataset(data, cache=cache).train) == 5 and len(kept(cache)) == 2
    loader = DataLoader(
        running.train,
        2,
        collate_fn=SkeletonDataset.collate,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    assert len([*loader]) == 2
    del running, loader
    write(data, 7)
    assert len(open_dataset(data, cache=cache).train) == 6 and len(kept(cache)) == 1


def test_a_cache_that_is_gone(data: Path, cache: Path) -> None:
    """Who has it open goes on; a process that opens it anew is told."""
    split = open_dataset(data, cache=cache)
    pickled = pickle.dumps(split.train)
    for path in cache.iterdir():
        path.unlink()
    assert split.train[0].x.shape == (3, 2, 20, 1)
    with pytest.raises(
        OSError, match=r"\.npy: expected the file of the clips, got No such .*; open the data"
    ):
        pickle.loads(pickled)


def test_nothing_is_kept_of_files_that_the_system_does_not_give(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be there the next time, with no change that could be seen."""
    opened = os.open

    def broken(path: Any, *more: Any, **named: Any) -> int:
        if str(path).endswith("e02_v03.json"):
            raise OSError(5, "Input/output error", str(path))
        return opened(path, *more, **named)

    monkeypatch.setattr(os, "open", broken)
    with pytest.warns(UserWarning, match=r"1 of 6 clips cannot be read .* got Input/output error"):
        split = open_dataset(data, cache=cache, on_error="skip")
    assert len(split.test) == 1 and kept(cache) == [] and split.test[0].x.shape == (3, 7, 20, 1)
    monkeypatch.undo()
    assert len(open_dataset(data, cache=cache).test) == 2 and len(kept(cache)) == 1


def test_a_cache_of_somebody_else_is_used(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_dataset(data, cache=cache)
    for owner, called in ((Path, "mkdir"), (os, "replace")):
        monkeypatch.setattr(
            owner, called, lambda *more, **named: pytest.fail("something was written")
        )
    assert len(open_dataset(data, cache=cache).train) == 4


@pytest.mark.parametrize("name", ["ntu[60]", "*", "x" * 200])
def test_folders_of_any_name(tmp_path: Path, cache: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    for i in range(3):
        write(tmp_path / name, i)
    open_dataset(tmp_path / name, cache=cache)
    write(tmp_path / name, 3)
    open_dataset(tmp_path / name, cache=cache)
    assert len(kept(cache)) == 1


@pytest.mark.parametrize(
    "change",
    [
        ("[3, 2, 20", "[1e400, 2, 20"),
        ('"train"', '"train", "train"'),
        ('"names"', '"nomen"'),
        ("[3, 2, 20", "[3, -2, 20"),
    ],
)
def test_an_index_that_is_not_as_it_was_written(
    data: Path, cache: Path, change: tuple[str, str]
) -> None:
    open_dataset(data, cache=cache)
    path = cache / f"{kept(cache)[0]}.json"
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change, 1))
    assert same(open_dataset(data, cache=cache), open_dataset(data, cache=False))


def test_reading_draws_no_random_number(data: Path, tmp_path: Path) -> None:
    """Training starts from the same weights, whether the cache was there or not, whoever read."""
    for i in range(6, 40):
        write(data, i)
    drawn = []
    for workers in (0, 2, 0):
        torch.manual_seed(0)
        open_dataset(data, cache=tmp_path / "cache" / str(min(workers, 1)), workers=workers)
        drawn.append(torch.rand(1).item())
    assert len({*drawn}) == 1


def test_nothing_is_read_again(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_dataset(data, cache=cache)
    monkeypatch.setattr(
        "skeleton_focus.format_nw_ucla.read_bytes", lambda path: pytest.fail("a file was read")
    )
    assert len(open_dataset(data, cache=cache).train) == 4


@pytest.mark.parametrize("change", ["content", "size", "new file", "less files", "mode"])
def test_a_changed_source_is_read_again(data: Path, cache: Path, change: str) -> None:
    open_dataset(data, cache=cache)
    before = kept(cache)
    path = data / "a01_s01_e00_v01.json"
    if change == "content":  # of the same size and, to the second, the same time
        stat = path.stat()
        path.write_text(path.read_text().replace("[0.0, 1, 0]", "[7.0, 1, 0]"))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "size":
        write(data, 0, value=0.25)
    elif change == "new file":
        write(data, 6)
    elif change == "less files":
        (data / "a01_s01_e03_v01.json").unlink()
    else:
        path.chmod(0o600)
    split = open_dataset(data, cache=cache)
    assert same(split, open_dataset(data, cache=False))
    assert len(kept(cache)) == 1 and kept(cache) != before  # the old one is gone


def test_options_have_caches_of_their_own(tmp_path: Path, cache: Path) -> None:
    pose = " ".join(["0.5"] * 3)
    joint = f"{pose} 0 0 0 0 0 0 0 0 2\n"
    text = "1\n1\n7 0 0 0 0 0 0 0 0 2\n25\n" + 25 * joint
    for name in ("S001C002P001R001A001", "S001C002P003R001A001"):
        (tmp_path / f"{name}.skeleton").write_text(text)
    for persons in (1, 2, 3, 1):
        assert open_dataset(tmp_path, persons=persons, cache=cache).test[0].x.shape[3] == persons
    open_dataset(tmp_path, split="xsub", missing="fill", cache=cache)
    assert len(kept(cache)) == 4


def test_two_folders_of_one_name(tmp_path: Path, cache: Path) -> None:
    for where in ("one", "other"):
        (tmp_path / where / "data").mkdir(parents=True)
        for i in range(3):
            write(tmp_path / where / "data", i, value=0.5 * (where == "other"))
    for _ in range(2):
        one, other = (
            open_dataset(tmp_path / where / "data", cache=cache) for where in ("one", "other")
        )
        assert (one.train[0].x[0, 0, 0, 0], other.train[0].x[0, 0, 0, 0]) == (0, 0.5)
    assert len(kept(cache)) == 2


@pytest.mark.parametrize("bad", ["{", '{"file_name": "x", "skeletons": [], "label": 1}'])
def test_nothing_is_kept_of_a_bad_read(data: Path, cache: Path, bad: str) -> None:
    (data / "a01_s01_e09_v01.json").write_text(bad)
    with pytest.raises(FormatError):
        open_dataset(data, cache=cache)
    assert kept(cache) == []
    (data / "a01_s01_e09_v01.json").unlink()
    assert same(open_dataset(data, cache=cache), open_dataset(data, cache=False))


def test_nothing_is_kept_of_a_reading_that_is_interrupted(data: Path, cache: Path) -> None:
    def bar(clips: Any) -> Iterator[Any]:
        for i, clip in enumerate(clips):
            if i == 3:
                raise KeyboardInterrupt
            yield clip

    with pytest.raises(KeyboardInterrupt):
        open_dataset(data, cache=cache, progress=bar)
    assert kept(cache) == [] and len(open_dataset(data, cache=cache).train) == 4


def test_files_that_change_meanwhile(data: Path, cache: Path) -> None:
    def bar(clips: Any) -> Iterator[Any]:
        for clip in clips:
            write(data, 0, value=1.0)
            yield clip

    with pytest.raises(
        ValueError,
        match=r"^open_dataset: expected files that do not change, got changes in .*/data; open",
    ):
        open_dataset(data, cache=cache, progress=bar)
    assert kept(cache) == []


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "empty", "longer"])
def test_a_damaged_cache_is_made_anew(data: Path, cache: Path, suffix: str, damage: str) -> None:
    open_dataset(data, cache=cache)
    path = cache / (kept(cache)[0] + suffix)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": content[:-3], "empty": b"", "longer": content + b"7"}[damage])
    assert same(open_dataset(data, cache=cache), open_dataset(data, cache=False))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_writer_leaves_nothing_that_is_read(data: Path, cache: Path) -> None:
    program = f"""
import os, signal, sys
from skeleton_focus import open_dataset
def bar(clips):
    for i, clip in enumerate(clips):
        if i == 4:
            print("reading", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        yield clip
open_dataset({str(data)!r}, cache={str(cache)!r}, progress=bar)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "reading\n")
    # No index: it is never read.
    (draft,) = [path.name for path in cache.iterdir() if path.suffix != ".lock"]
    assert "-draft-" in draft and draft.endswith(".npy")
    assert same(open_dataset(data, cache=cache), open_dataset(data, cache=False))
    assert len(kept(cache)) == 1 and "-draft-" not in kept(cache)[0]  # and its draft is gone


def _open_slowly(data: Path, cache: Path, read: Any, checksum: Any) -> None:
    def bar(clips: Any) -> Iterator[Any]:
        with read.get_lock():
            read.value += 1
        for clip in clips:
            time.sleep(0.05)
            yield clip

    split = open_dataset(data, cache=cache, progress=bar)
    checksum.put(float(sum(part[i].x.sum() for part in split for i in range(len(part)))))


def test_of_processes_that_start_together_one_writes(data: Path, cache: Path) -> None:
    start = multiprocessing.get_context("fork")
    read = start.Value("i", 0)
    checksum = start.Queue()
    several = [
        start.Process(target=_open_slowly, args=(data, cache, read, checksum)) for _ in range(3)
    ]
    for process in several:
        process.start()
    sums = [checksum.get(timeout=60) for _ in several]
    for process in several:
        process.join(60)
    assert [process.exitcode for process in several] == [0, 0, 0]
    assert read.value == 1 and len({*sums}) == 1 and len(kept(cache)) == 1


def test_two_writers_without_locks(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each writes files of its own; the last to finish replaces the first's by the same."""
    monkeypatch.setattr("skeleton_focus._cache.lock", lambda file, **named: False)

    def bar(clips: Any) -> Iterator[Any]:
        for i, clip in enumerate(clips):
            if i == 3:
                inner.append(open_dataset(data, cache=cache))
            yield clip

    inner: list[Any] = []
    outer = open_dataset(data, cache=cache, progress=bar)
    assert (
        same(outer, inner[0])
        and same(outer, open_dataset(data, cache=False))
        and len(kept(cache)) == 1
    )


def test_a_header_is_as_long_for_any_size(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        first = _write_header(file, 0)
        assert all(
            file.seek(0) == 0 and _write_header(file, 10**power) == first for power in range(15)
        )


def test_without_locks_nothing_of_others_is_removed(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")  # Unix has it

    def none(file: Any, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    open_dataset(data, cache=cache)
    another = cache / f"{kept(cache)[0].rsplit('-', 1)[0]}-draft-of-another.npy"
    another.touch()
    write(data, 6)
    assert len(open_dataset(data, cache=cache).train) == 5 and another.exists()
    another.unlink()
    assert len(kept(cache)) == 2


def test_a_cache_that_cannot_be_written(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError,
        match=r"^open_dataset: expected a folder .*/file/cache to write a cache into, "
        r"got Not a dir",
    ) as error:
        open_dataset(data, cache=tmp_path / "file" / "cache")
    assert str(error.value).endswith("pass another folder as cache, or cache=False (--no-cache)")


def test_where_caches_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKELETON_FOCUS_CACHE", "/a/b")
    assert default_folder() == Path("/a/b")
    monkeypatch.delenv("SKELETON_FOCUS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert default_folder() == Path("/c/skeleton_focus")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_folder() == Path("/home/someone/.cache/skeleton_focus")


def test_others_may_read_the_cache(data: Path, cache: Path) -> None:
    before = os.umask(0o022)
    try:
        open_dataset(data, cache=cache)
    finally:
        os.umask(before)
    assert cache.stat().st_mode & 0o777 == 0o755
    for suffix in (".npy", ".json"):
        assert (cache / (kept(cache)[0] + suffix)).stat().st_mode & 0o777 == 0o644


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.sampled_from(["none", "zeros and ones", "confidence"])),
        min_size=1,
        max_size=12,
    )
)
def test_every_kind_of_visibility_comes_back(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[int, str]]
) -> None:
    rng = np.random.default_rng(len(made))
    clips = []
    for i, (frames, kind) in enumerate(made):
        seen = rng.random((frames, 17, 1), np.float32)
        visibility = {"none": None, "zeros and ones": np.round(seen), "confidence": seen}[kind]
        clips.append(
            ClipFile(str(i), rng.random((2, frames, 17, 1), np.float32), i, visibility=visibility)
        )
    folder = tmp_path_factory.mktemp("cache")
    source = ClipSource(
        "clips", COCO17, [Path(__file__)], len(clips), [lambda: iter(clips)], ("given",)
    )
    loaded, problems = open_pack(source, Path(__file__).parent, folder, "", iter(clips), [])
    assert problems == [] and loaded.index.labels == list(range(len(clips)))
    for i, clip in enumerate(clips):
        assert np.array_equal(loaded.x[i], clip.x)
        whole = np.ones((clip.x.shape[1], 17, 1), np.float32)
        if clip.visibility is not None:
            whole = clip.visibility
        assert loaded.visibility[i].dtype == torch.float32 and np.array_equal(
            loaded.visibility[i], whole
        )


def test_workers_share_the_file_and_not_copies(data: Path, cache: Path) -> None:
    split = open_dataset(data, cache=cache)
    assert len(pickle.dumps(split.train)) < 6000  # the path, not the clips
    again = pickle.loads(pickle.dumps(split.train))
    assert torch.equal(again[3].x, split.train[3].x)
    for context in ("fork", "spawn"):
        loader = DataLoader(
            split.train,
            2,
            collate_fn=SkeletonDataset.collate,
            num_workers=2,
            multiprocessing_context=context,
        )
        lengths = torch.cat([batch.lengths for batch in loader])
        assert lengths.tolist() == [split.train[i].x.shape[1] for i in range(4)]


def test_a_write_into_a_clip_stays_in_this_process(data: Path, cache: Path) -> None:
    split = open_dataset(data, cache=cache)
    split.train[0].x.fill_(9)
    assert open_dataset(data, cache=cache).train[0].x[0, 0, 0, 0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells how much memory the process has")
def test_only_the_pages_that_are_asked_for_are_in_memory(tmp_path: Path) -> None:
    """A file of 1 GiB, without blocks on the disk, of which one clip is read."""
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    n = (1 << 30) // (4 * 3 * 100 * 25 * 2)
    clips = MappedClips(np.memmap(path, np.float32, "r"), np.tile([3, 100, 25, 2], (n, 1)))
    before = int(Path("/proc/self/statm").read_text().split()[1])
    assert clips[n // 2].sum() == 0
    assert (int(Path("/proc/self/statm").read_text().split()[1]) - before) * 4096 < 64 << 20
