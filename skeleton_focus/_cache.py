"""A data set's clips in one file that every later opening maps: written once, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ._checks import message
from ._packed import Index, Loaded, PackedClips
from .formats import ClipFile, ClipSource, FormatError, UnreadableFileError

_VERSION = 1  # of what is written; another is read from the source again


class _Held:
    """A file that is locked, with others who read it, for as long as this object lives."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")
        _lock(self.file, shared=True)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()


def _load(folder: Path) -> tuple[Loaded, list[FormatError]]:
    """The clips of a cache and what was left out; an error if anything is not as it was written."""
    held = _Held(folder / "index.json")
    written = json.load(held.file)
    index = Index(**written["index"])
    columns: list[list[Any]] = [index.names, index.labels, index.actions, index.shapes, *index.sides.values()]
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"{folder} is not as it was written")
    shapes = np.array(index.shapes, np.int64).reshape(-1, 4)
    kind = np.dtype({"uint8": np.uint8, "float32": np.float32}[written["visibility"]])
    x, seen = _packed(folder / "x", np.dtype(np.float32), shapes), _packed(folder / "visibility", kind, shapes[:, 1:])
    x.held = seen.held = held
    return Loaded(index, x, seen), [FormatError(problem) for problem in written["problems"]]


def _packed(path: Path, kind: np.dtype[Any], shapes: NDArray[np.int64]) -> PackedClips:
    ends = np.cumsum(shapes.prod(1) * kind.itemsize)
    if path.stat().st_size != ends[-1:].sum():
        raise ValueError(f"{path} is not as long as it was written")
    return PackedClips(path, kind, np.concatenate(([0], ends[:-1])), shapes)


def open_pack(
    source: ClipSource, path: Path, where: Path, options: str, clips: Iterator[ClipFile], problems: list[FormatError]
) -> tuple[Loaded, list[FormatError]]:
    """The cache of a source and what it leaves out, written first if there is none or its files changed since.

    Of processes that start together one writes and the others wait. What a killed one leaves behind is removed by the
    next, and so is the cache of the files as they were, unless somebody has it open. Nothing is kept of a reading that
    raises, or of files that the system does not give: it may give them the next time.

    Args:
        source: what was recognised.
        path: where.
        where: the folder of all caches.
        options: what besides the files decides about the content.
        clips: reads the source.
        problems: what ``clips`` leaves out, filled while it reads.
    """
    state, true = _state(source, path), path.resolve()
    prefix = f"{true.name[:60]}-{_digest(str(true), options)}"
    folder = where / f"{prefix}-{state}"
    try:
        with contextlib.suppress(Exception):  # none there, or not as it was written
            return _load(folder)
        where.mkdir(parents=True, exist_ok=True)
        with _alone(where / f".{prefix}.lock") as alone:
            with contextlib.suppress(Exception):  # another has written it meanwhile
                return _load(folder)
            for old in where.iterdir() if alone else ():
                if old.name.startswith(f"{prefix}-") and not _in_use(old):
                    shutil.rmtree(old, ignore_errors=True)
            draft = where / f"{prefix}-draft-{uuid.uuid4().hex}"
            draft.mkdir()
            try:
                _write(draft, source, clips, problems)
                if _state(source, path) != state:
                    hint = "open them again when nothing writes there"
                    raise ValueError(message("open_dataset", "files that stay as they are", f"changes in {path}", hint))
                if any(isinstance(problem, UnreadableFileError) for problem in problems):
                    loaded, problems = _load(draft)
                    x, seen = ([clip.clone() for clip in packed] for packed in (loaded.x, loaded.visibility))
                    return Loaded(loaded.index, x, seen), problems
                with contextlib.suppress(OSError):  # another, without a lock, was faster
                    draft.rename(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            return _load(folder)
    except OSError as error:
        if isinstance(error, ValueError):  # a file of the source, not of the cache
            raise
        hint = "name another folder as cache, or none by cache=False (--no-cache)"
        got = error.strerror or type(error).__name__
        raise OSError(message("open_dataset", f"a folder {where} to write a cache into", got, hint)) from None


def _in_use(folder: Path) -> bool:
    """Whether a process has a cache open; a draft has no index yet, or its writer is gone."""
    try:
        with (folder / "index.json").open("rb") as file:
            return not _lock(file, at_once=True)
    except OSError:
        return False


def _write(folder: Path, source: ClipSource, clips: Iterator[ClipFile], problems: list[FormatError]) -> None:
    """Write all clips, one at a time."""
    index, kind = Index(), "uint8"
    with (folder / "x").open("wb") as xs, (folder / "visibility").open("w+b") as seen:
        for clip in clips:
            _add(index, clip, source.splits)
            xs.write(clip.x.astype(np.float32, "C").data)
            visibility = _visibility(clip)
            if kind == "uint8" and ((visibility != 0) & (visibility != 1)).any():
                kind = "float32"
                _widen(seen)
            seen.write(visibility.astype(kind, "C").data)
        for file in (xs, seen):
            file.flush()
            os.fsync(file.fileno())
    written = {"index": asdict(index), "problems": [*map(str, problems)], "visibility": kind}
    with (folder / "index.json").open("w") as text:
        json.dump(written, text)
        text.flush()
        os.fsync(text.fileno())


def _widen(file: IO[bytes]) -> None:
    """Rewrite the bytes written so far as float32, from the last to the first."""
    size, step = file.tell(), 1 << 20
    for start in range((size - 1) // step * step, -1, -step) if size else ():
        file.seek(start)
        values = np.frombuffer(file.read(min(step, size - start)), np.uint8)
        file.seek(4 * start)
        file.write(values.astype(np.float32).data)
    file.seek(4 * size)


def _state(source: ClipSource, path: Path) -> str:
    """Changes with every change of a file: its name, size, time of writing, or who may read it."""
    lines = []
    for file in source.files:
        name = file.relative_to(path)
        try:
            found = file.stat()
            lines.append(f"{name} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}")
        except OSError as error:
            lines.append(f"{name} {error.errno}")
    return _digest(*lines)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join((str(_VERSION), *texts)).encode("utf8", "surrogateescape")).hexdigest()[:16]


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Wait until no other process is here; False where the system knows no locks."""
    with path.open("wb") as file:
        yield _lock(file)


def _lock(file: IO[bytes], *, shared: bool = False, at_once: bool = False) -> bool:
    """Lock a file until it is closed, by the system at the latest; False if that is not to be had."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (fcntl.LOCK_NB if at_once else 0))
    except OSError:  # in use; or a network file system without locks
        return False
    return True


def default_folder() -> Path:
    """``$SKELETON_FOCUS_CACHE``, else ``skeleton_focus`` in the user's folder of caches."""
    named = os.environ.get("SKELETON_FOCUS_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(home) / "skeleton_focus"


def in_memory(clips: Iterator[ClipFile], splits: Sequence[str]) -> Loaded:
    """All clips as lists of arrays, where no cache is wanted."""
    loaded = Loaded(Index(), [], [])
    for clip in clips:
        _add(loaded.index, clip, splits)
        loaded.x.append(clip.x)
        loaded.visibility.append(_visibility(clip))
    return loaded


def _add(index: Index, clip: ClipFile, splits: Sequence[str]) -> None:
    index.names.append(clip.name)
    index.labels.append(clip.label)
    index.actions.append(clip.action)
    index.shapes.append([*clip.x.shape])
    for split in splits:
        index.sides.setdefault(split, []).append(clip.sides.get(split, ""))


def _visibility(clip: ClipFile) -> NDArray[np.float32]:
    return np.ones(clip.x.shape[1:], np.float32) if clip.visibility is None else clip.visibility
