"""What all readers share: a clip as its file tells it, a source of clips, the error that names file and line.

One file a format: ``format_ntu``, ``format_nw_ucla``, ``format_kinetics``, ``format_pyskl``, ``format_arrays``.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from ._checks import message
from ._packed import Loaded
from .layouts import COCO17, KINECT20, NTU25, OPENPOSE18, SkeletonLayout

MOST_CLASSES = 100_000
"""Labels are class indices below this: larger ones are mistakes that would fill the memory with class names."""

_Read = TypeVar("_Read")
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe would wait for its writer


class FormatError(ValueError):
    """A file that does not hold what its format says. The message names file, line and what was expected.

    >>> raise FormatError("a01_s01_e00_v01.json: expected a number, got 'x'")
    Traceback (most recent call last):
        ...
    skeleton_focus.formats.FormatError: a01_s01_e00_v01.json: expected a number, got 'x'
    """


class UnreadableFileError(FormatError, OSError):
    """A file that the system does not give: absent, without permission, a loop of links, no plain file.

    >>> read_bytes(Path("/"))
    Traceback (most recent call last):
        ...
    skeleton_focus.formats.UnreadableFileError: /: expected a plain file, got a folder
    """


class ClipFile(NamedTuple):
    """One clip as its file tells it.

    Attributes:
        name: the clip's name.
        x: (C, T, V, M) float32, in the format's units; 0 where a joint was not seen.
        label: class index from 0.
        subject: the performer's number, 0 where the format tells none.
        view: the camera's number, 0 where the format tells none.
        setup: the number of the camera setup, 0 where the format tells none.
        visibility: (T, V, M), 0 where a joint was not seen, otherwise 1 or the detector's confidence; None: all seen.
        sides: on which side of each published split the clip stands, such as ``{"xsub": "train"}``.
        action: the class's name, where the file tells it.
    """

    name: str
    x: NDArray[np.float32]
    label: int
    subject: int = 0
    view: int = 0
    setup: int = 0
    visibility: NDArray[np.float32] | None = None
    sides: Mapping[str, str] = {}
    action: str = ""


@dataclass(frozen=True)
class ClipSource:
    """A folder or file of clips that was recognised and not read yet.

    Attributes:
        format: what was found, such as ``"NTU RGB+D 60"``.
        layout: the skeleton.
        files: every file that the clips come from.
        num_clips: how many clips or problems there are.
        readers: each yields some clips, or in a clip's place the error that says why it cannot be read; one after the
            other they yield all. They know nothing of each other.
        splits: the names of the published splits, the default first.
        classes: class names in label order; empty where only the clips tell them.
        mapped: the clips themselves, where they are used in place and nothing is left to read.
    """

    format: str
    layout: SkeletonLayout
    files: Sequence[Path]
    num_clips: int
    readers: Sequence[Callable[[], Iterator[ClipFile | FormatError]]] = field(repr=False)
    splits: tuple[str, ...]
    classes: tuple[str, ...] = ()
    mapped: Loaded | None = None

    def read(self, workers: int = 0) -> Iterator[ClipFile | FormatError]:
        """All clips, or in a clip's place the error, in order; by so many other processes, if there are any."""
        if workers < 1 or len(self.readers) < 2:
            return chain.from_iterable(reader() for reader in self.readers)
        own = torch.Generator()  # torch's global one goes on as if nothing had been read
        loader = DataLoader(
            _Readers(self.readers), batch_size=None, num_workers=workers, collate_fn=_as_read, generator=own
        )
        return chain.from_iterable(loader)


class _Readers(Dataset[list["ClipFile | FormatError"]]):
    """What each reader reads."""

    def __init__(self, readers: Sequence[Callable[[], Iterator[ClipFile | FormatError]]]) -> None:
        self.readers = readers

    def __len__(self) -> int:
        return len(self.readers)

    def __getitem__(self, index: int) -> list[ClipFile | FormatError]:
        return list(self.readers[index]())


def _as_read(clips: list[ClipFile | FormatError]) -> list[ClipFile | FormatError]:
    return clips


def files_in(folder: Path, suffix: str) -> list[Path]:
    """The files of a folder that end so, hidden ones left out; none of a folder that does not exist.

    >>> [file.name for file in files_in(Path(__file__).parent, "layouts.py")]
    ['layouts.py']
    """
    return [Path(folder, name) for name in _names_in(folder) if name.endswith(suffix)]


def folders_in(folder: Path) -> list[Path]:
    """The folders of a folder that are not empty, hidden ones left out.

    >>> folders_in(Path("no/such/folder"))
    []
    """
    paths = [Path(folder, name) for name in _names_in(folder)]
    return [path for path in paths if path.is_dir() and not path.is_symlink() and _names_in(path)]


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith((".", "__")))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UnreadableFileError(message(str(folder), "a folder that can be read", error.strerror)) from None


def grouped(files: Sequence[Path], size: int = 32) -> list[Sequence[Path]]:
    """Some files for each reader.

    >>> [len(group) for group in grouped([Path("x")] * 40)]
    [32, 8]
    """
    return [files[start : start + size] for start in range(0, len(files), size)]


def read_each(files: Sequence[Path], read: Callable[[Path], _Read]) -> Iterator[_Read | FormatError]:
    """Read files one by one; an error takes its place.

    >>> [str(error) for error in read_each([Path("/")], read_bytes)]
    ['/: expected a plain file, got a folder']
    """
    for file in files:
        try:
            yield read(file)
        except FormatError as error:
            yield error


def read_bytes(path: Path) -> bytes:
    """The content of a plain file; of nothing that would wait for ever, such as a pipe.

    >>> read_bytes(Path("no/such/file"))
    Traceback (most recent call last):
        ...
    skeleton_focus.formats.UnreadableFileError: no/such/file: expected a file that can be read, \
got No such file or directory
    """
    with open_plain_file(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise UnreadableFileError(message(str(path), "a file that can be read", error.strerror)) from None


def beginning(path: Path, size: int = 4096) -> bytes:
    """The first bytes of a file, to tell its format by; none of a file that cannot be read.

    >>> beginning(Path("no/such/file"))
    b''
    """
    try:
        with open_plain_file(path) as file:
            return file.read(size)
    except OSError:
        return b""


def open_plain_file(path: Path) -> IO[bytes]:
    """A plain file, opened for reading.

    >>> open_plain_file(Path("/"))
    Traceback (most recent call last):
        ...
    skeleton_focus.formats.UnreadableFileError: /: expected a plain file, got a folder
    """
    try:
        opened = os.open(path, os.O_RDONLY | _AT_ONCE)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableFileError(message(str(path), "a file that can be read", reason)) from None
    mode = os.fstat(opened).st_mode
    if not stat.S_ISREG(mode):
        os.close(opened)
        got = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
        raise UnreadableFileError(message(str(path), "a plain file", got))
    return os.fdopen(opened, "rb")


def parse_json(path: Path, text: bytes) -> Any:
    """The content of a JSON text that was read from ``path``."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}, column {error.colno}"
        raise FormatError(message(where, "JSON", error.msg)) from None
    except (ValueError, RecursionError) as error:  # not text, nested too deep, or a number of thousands of digits
        raise FormatError(message(str(path), "JSON text", type(error).__name__)) from None


def layout_of(where: str, num_joints: int) -> SkeletonLayout:
    """The named layout with so many joints.

    >>> layout_of("clips.npy", 18).name
    'OPENPOSE18'
    """
    for layout in (NTU25, KINECT20, OPENPOSE18, COCO17):
        if layout.num_joints == num_joints:
            return layout
    raise FormatError(message(where, "V of 25, 20, 18 or 17 joints", num_joints, "other skeletons: SkeletonDataset"))


def short(value: object) -> str:
    """A value as an error shows it: its text if that is short, else its beginning; never a walk through all of it.

    >>> short([1, "x"]), short("y" * 1000)[:5], len(short("y" * 1000))
    ("[1, 'x']", "'yyyy", 60)
    """
    if isinstance(value, (str, bytes)):
        value = value[:60]
    elif isinstance(value, (list, tuple, dict, set)) and len(value) > 30:
        return f"a {type(value).__name__} of {len(value)}"
    elif isinstance(value, int) and value.bit_length() > 200:
        return "an integer of more than 60 digits"
    try:
        return repr(value)[:60]
    except (RecursionError, ValueError):
        return type(value).__name__
