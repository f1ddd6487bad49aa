"""The cache of a data set: all clips in one memory-mapped ``.npy``, and a JSON index beside it.

Both are written under a temporary name and renamed when complete, the index last: a cache without
index is invalid. For each clip the ``.npy`` holds (C + 1, T, V, M) float32, the coordinates and the
visibility.
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

_VERSION = 3  # of the cache format; caches of other versions are not used
_SUFFIXES = (".npy", ".json")


def default_folder() -> Path:
    """``$SKELETON_FOCUS_CACHE``, else ``skeleton_focus`` in the user's cache folder."""
    named = os.environ.get("SKELETON_FOCUS_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(home) / "skeleton_focus"


def open_pack(
    source: ClipSource,
    path: Path,
    where: Path,
    options: str,
    clips: Iterator[ClipFile],
    problems: list[FormatError],
) -> tuple[Loaded, list[FormatError]]:
    """Open the cache of a source; write it first if there is none or if the source's files changed.

    If several processes start together, one writes and the others wait. The next writer removes the
    drafts of killed processes and outdated caches of the source that no process has open. No cache
    is written if reading raises, or if a file cannot be opened, because it may be readable the next
    time.

    Args:
        source: the recognised source.
        path: the source's folder or file.
        where: the folder of all caches.
        options: the options that affect the content, as text.
        clips: the iterator that reads the source.
        problems: errors of clips that are left out, filled while ``clips`` is read.
    """
    state = _state(source, path)
    resolved = path.resolve()
    # Cut, because a file system takes names of up to 255 bytes. The digest of the whole path tells
    # two folders of one name apart.
    prefix = f"{resolved.name[:60]}-{_digest(str(resolved), options)}"
    stem = f"{where / prefix}-{state}"
    try:
        # Before anything is written: the folder of a cache that someone else made may be read-only.
        with contextlib.suppress(Exception):  # no cache, or a damaged one
            return _load(stem)
        where.mkdir(parents=True, exist_ok=True)
        with (where / f".{prefix}.lock").open("wb") as file:
            locked = lock(file)
            with contextlib.suppress(Exception):  # another process has written it meanwhile
                return _load(stem)
            # Without locks nothing tells whether a draft or an old cache is in use, so nothing is
            # removed.
            if locked:
                _remove_old(where, prefix)
            # A name of its own for each writer: without locks, two may write at the same time.
            draft = f"{where / prefix}-draft-{uuid.uuid4().hex}"
            try:
                _write(draft, source.splits, clips, problems)
                # The cache is named after the state before reading; it must not hold what was
                # written since.
                if _state(source, path) != state:
                    hint = "open them again when nothing writes there"
                    raise ValueError(
                        message(
                            "open_dataset", "files that do not change", f"changes in {path}", hint
                        )
                    )
                if any(isinstance(problem, UnreadableFileError) for problem in problems):
                    # The draft is removed below, so the clips are copied out of its map.
                    loaded, problems = _load(draft)
                    copied = Loaded(loaded.index, list(loaded.x), list(loaded.visibility))
                    del loaded  # Windows removes no file that is mapped
                    return copied, problems
                for suffix in _SUFFIXES:
                    os.replace(draft + suffix, stem + suffix)
            finally:
                for suffix in _SUFFIXES:
                    Path(draft + suffix).unlink(missing_ok=True)
            return _load(stem)
    except OSError as error:
        if isinstance(error, ValueError):  # a file of the source, not of the cache
            raise
        hint = "pass another folder as cache, or cache=False (--no-cache)"
        got = error.strerror or type(error).__name__
        raise OSError(
            message("open_dataset", f"a folder {where} to write a cache into", got, hint)
        ) from None


def _load(stem: str) -> tuple[Loaded, list[FormatError]]:
    """Load the clips of a cache and the errors of clips left out; raise if the cache is damaged."""
    stored = json.loads(Path(stem + ".json").read_bytes())
    index = Index(**stored["index"])
    columns: list[list[Any]] = [
        index.names,
        index.labels,
        index.actions,
        index.subjects,
        index.shapes,
        *index.sides.values(),
    ]
    # reshape for an index without clips, whose array would have a single axis.
    shapes = np.array(index.shapes, np.int64).reshape(-1, 4)
    shapes[:, 0] += 1  # the visibility
    offset = stored["offset"]
    size = int(shapes.prod(1).sum())
    complete = Path(stem + ".npy").stat().st_size == offset + 4 * size
    # Sizes below 1 are checked, too: two negative ones have a positive product.
    if not complete or len({len(column) for column in columns}) > 1 or shapes.min(initial=1) < 1:
        raise ValueError(f"{stem} is damaged")
    array = map_file(stem + ".npy", np.dtype("<f4"), offset, (size,))
    x = MappedClips(array, shapes, _coordinates)
    loaded = Loaded(index, x, MappedClips(array, shapes, _visibility))
    return loaded, [*map(FormatError, stored["problems"])]


def _coordinates(clip: Tensor, index: int) -> Tensor:
    return clip[:-1]


def _visibility(clip: Tensor, index: int) -> Tensor:
    return clip[-1]


def _write(
    stem: str, splits: Sequence[str], clips: Iterator[ClipFile], problems: list[FormatError]
) -> None:
    """Write all clips, one at a time."""
    index = Index()
    size = 0
    with open(stem + ".npy", "wb") as file:
        offset = _write_header(file, 0)
        for clip in clips:
            _add(index, clip, splits)
            packed = np.concatenate([clip.x, _visibility_of(clip)[None]]).astype("<f4", "C")
            file.write(packed.data)
            size += packed.size
        file.seek(0)
        # Of the same length, because numpy reserves space for the first axis to grow.
        _write_header(file, size)
        file.flush()
        # The data reach the disk before they are renamed; otherwise a power failure could leave a
        # complete name with incomplete content.
        os.fsync(file.fileno())
    with open(stem + ".json", "w") as text:
        json.dump(
            {"index": asdict(index), "problems": [*map(str, problems)], "offset": offset}, text
        )
        text.flush()
        os.fsync(text.fileno())


def _write_header(file: IO[bytes], size: int) -> int:
    header = {"descr": "<f4", "fortran_order": False, "shape": (size,)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _remove_old(where: Path, prefix: str) -> None:
    """Remove drafts of killed writers and the source's outdated caches that no process has open."""
    for data in where.iterdir():
        if data.name.startswith(f"{prefix}-") and data.suffix == ".npy":
            with data.open("rb") as file:
                if lock(file, at_once=True):
                    data.unlink(missing_ok=True)
                    data.with_suffix(".json").unlink(missing_ok=True)


def _state(source: ClipSource, path: Path) -> str:
    """A digest of every file's name, size, modification time and readability."""
    lines = []
    for file in source.files:
        name = file.relative_to(path)
        try:
            stat = file.stat()
            # The change time, too: a program that rewrites a file may restore its modification
            # time.
            lines.append(f"{name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}")
        except OSError as error:
            # The reader reports such a file, for example a link to nowhere.
            lines.append(f"{name} {error.errno}")
    return _digest(*lines)


def _digest(*texts: str) -> str:
    text = "\n".join((str(_VERSION), *texts))
    # File names need not be valid UTF-8.
    return hashlib.sha256(text.encode("utf8", "surrogateescape")).hexdigest()[:16]


def in_memory(clips: Iterator[ClipFile], splits: Sequence[str]) -> Loaded:
    """Load all clips as lists of arrays, without a cache."""
    loaded = Loaded(Index(), [], [])
    for clip in clips:
        _add(loaded.index, clip, splits)
        loaded.x.append(clip.x)
        loaded.visibility.append(_visibility_of(clip))
    return loaded


def _add(index: Index, clip: ClipFile, splits: Sequence[str]) -> None:
    index.names.append(clip.name)
    index.labels.append(clip.label)
    index.actions.append(clip.action)
    index.subjects.append(clip.subject)
    index.shapes.append([*clip.x.shape])
    for split in splits:
        index.sides.setdefault(split, []).append(clip.sides.get(split, ""))


def _visibility_of(clip: ClipFile) -> Any:
    return np.ones(clip.x.shape[1:], np.float32) if clip.visibility is None else clip.visibility
