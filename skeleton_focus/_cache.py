"""The cache of a data set: all clips in one ``.npy``, which every later opening maps, and a JSON index beside it.

Both are written under another name and renamed when they are whole, the index last: without it there is no cache. Of a
clip the ``.npy`` holds (C + 1, T, V, M) float32, the coordinates and the visibility.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
from torch import Tensor

from ._checks import message
from ._packed import Index, Loaded, MappedClips, lock, map_file
from .formats import ClipFile, ClipSource, FormatError, UnreadableFileError

_VERSION = 2  # of what is written; another is read from the source again
_SUFFIXES = (".npy", ".json")


def default_folder() -> Path:
    """``$SKELETON_FOCUS_CACHE``, else ``skeleton_focus`` in the user's folder of caches."""
    named = os.environ.get("SKELETON_FOCUS_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(home) / "skeleton_focus"


def open_pack(
    source: ClipSource, path: Path, where: Path, options: str, clips: Iterator[ClipFile], problems: list[FormatError]
) -> tuple[Loaded, list[FormatError]]:
    """Open the cache of a source; write it first if there is none or the source's files changed since.

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
    state = _state(source, path)
    true = path.resolve()
    prefix = f"{true.name[:60]}-{_digest(str(true), options)}"
    stem = f"{where / prefix}-{state}"
    try:
        with contextlib.suppress(Exception):  # none there, or not as it was written
            return _load(stem)
        where.mkdir(parents=True, exist_ok=True)
        with (where / f".{prefix}.lock").open("wb") as file:
            alone = lock(file)
            with contextlib.suppress(Exception):  # another has written it meanwhile
                return _load(stem)
            if alone:
                _remove_old(where, prefix)
            draft = f"{where / prefix}-draft-{uuid.uuid4().hex}"
            try:
                _write(draft, source.splits, clips, problems)
                if _state(source, path) != state:
                    hint = "open them again when nothing writes there"
                    raise ValueError(message("open_dataset", "files that stay as they are", f"changes in {path}", hint))
                if any(isinstance(problem, UnreadableFileError) for problem in problems):
                    loaded, problems = _load(draft)
                    return Loaded(loaded.index, list(loaded.x), list(loaded.visibility)), problems
                for suffix in _SUFFIXES:
                    os.replace(draft + suffix, stem + suffix)
            finally:
                for suffix in _SUFFIXES:
                    Path(draft + suffix).unlink(missing_ok=True)
            return _load(stem)
    except OSError as error:
        if isinstance(error, ValueError):  # a file of the source, not of the cache
            raise
        hint = "name another folder as cache, or none by cache=False (--no-cache)"
        got = error.strerror or type(error).__name__
        raise OSError(message("open_dataset", f"a folder {where} to write a cache into", got, hint)) from None


def _load(stem: str) -> tuple[Loaded, list[FormatError]]:
    """The clips of a cache and what was left out; an error if anything is not as it was written."""
    written = json.loads(Path(stem + ".json").read_bytes())
    index = Index(**written["index"])
    columns: list[list[Any]] = [index.names, index.labels, index.actions, index.shapes, *index.sides.values()]
    shapes = np.array(index.shapes, np.int64).reshape(-1, 4)
    shapes[:, 0] += 1  # the visibility
    offset, size = written["offset"], int(shapes.prod(1).sum())
    whole = Path(stem + ".npy").stat().st_size == offset + 4 * size
    if not whole or len({len(column) for column in columns}) > 1 or shapes.min(initial=1) < 1:
        raise ValueError(f"{stem} is not as it was written")
    array = map_file(stem + ".npy", np.dtype("<f4"), offset, (size,))
    x = MappedClips(array, shapes, _coordinates)
    return Loaded(index, x, MappedClips(array, shapes, _visibility)), [*map(FormatError, written["problems"])]


def _coordinates(clip: Tensor, index: int) -> Tensor:
    return clip[:-1]


def _visibility(clip: Tensor, index: int) -> Tensor:
    return clip[-1]


def _write(stem: str, splits: Sequence[str], clips: Iterator[ClipFile], problems: list[FormatError]) -> None:
    """Write all clips, one at a time."""
    index = Index()
    size = 0
    with open(stem + ".npy", "wb") as file:
        offset = _write_header(file, 0)
        for clip in clips:
            _add(index, clip, splits)
            packed = np.concatenate([clip.x, _seen(clip)[None]]).astype("<f4", "C")
            file.write(packed.data)
            size += packed.size
        file.seek(0)
        _write_header(file, size)  # as long as the first: numpy leaves room for a first axis that grows
        file.flush()
        os.fsync(file.fileno())
    with open(stem + ".json", "w") as text:
        json.dump({"index": asdict(index), "problems": [*map(str, problems)], "offset": offset}, text)
        text.flush()
        os.fsync(text.fileno())


def _write_header(file: IO[bytes], size: int) -> int:
    header = {"descr": "<f4", "fortran_order": False, "shape": (size,)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _remove_old(where: Path, prefix: str) -> None:
    """Remove the drafts of killed writers, and the caches of the source as it was that no process has open."""
    for data in where.iterdir():
        if data.name.startswith(f"{prefix}-") and data.suffix == ".npy":
            with data.open("rb") as file:
                if lock(file, at_once=True):
                    data.unlink(missing_ok=True)
                    data.with_suffix(".json").unlink(missing_ok=True)


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


def in_memory(clips: Iterator[ClipFile], splits: Sequence[str]) -> Loaded:
    """All clips as lists of arrays, where no cache is wanted."""
    loaded = Loaded(Index(), [], [])
    for clip in clips:
        _add(loaded.index, clip, splits)
        loaded.x.append(clip.x)
        loaded.visibility.append(_seen(clip))
    return loaded


def _add(index: Index, clip: ClipFile, splits: Sequence[str]) -> None:
    index.names.append(clip.name)
    index.labels.append(clip.label)
    index.actions.append(clip.action)
    index.shapes.append([*clip.x.shape])
    for split in splits:
        index.sides.setdefault(split, []).append(clip.sides.get(split, ""))


def _seen(clip: ClipFile) -> Any:
    return np.ones(clip.x.shape[1:], np.float32) if clip.visibility is None else clip.visibility
