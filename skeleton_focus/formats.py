"""Types and functions of all readers: a clip, a source of clips, errors that name file and line.

Modules of formats: ``format_ntu``, ``format_nw_ucla``, ``format_kinetics``, ``format_pyskl``,
``format_arrays``, ``format_poses``. To add one, write ``format_NAME.py`` with a function
``open_NAME(path)`` that returns a :class:`ClipSource`, or None for a path of another format, and
list it in ``datasets.py``.
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
from .layouts import COCO17, KINECT20, LAYOUTS, NTU25, OPENPOSE18, SkeletonLayout

__all__ = ["ClipFile", "FormatError", "UnreadableFileError"]

MOST_CLASSES = 100_000
"""The end of the labels: larger ones are mistakes that would fill the memory with class names."""

PICTURE_LAYOUTS = ("COCO17", "OPENPOSE18", "BODY25", "HALPE26", "PENN13")
"""The skeletons of pictures: a third number of a joint may be its score."""

# NTU25_PYSKL has 25 joints, too; open_pyskl chooses it by itself.
# The skeletons that a number of joints stands for. 17 and 25 joints have others, too.
_USUAL = (NTU25, KINECT20, OPENPOSE18, COCO17, *LAYOUTS.values())
_Read = TypeVar("_Read")
# Without O_NONBLOCK, opening a pipe would block.
_OPEN_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class FormatError(ValueError):
    """Report a file that does not follow its format.

    The message names the file, the line and what was expected.

    >>> raise FormatError("a01_s01_e00_v01.json: expected a number, got 'x'")
    Traceback (most recent call last):
        ...
    skeleton_focus.formats.FormatError: a01_s01_e00_v01.json: expected a number, got 'x'

    Attributes:
        of_clip: whether the other clips can be read without this one, with ``on_error="skip"``.
    """

    of_clip = False


class UnreadableFileError(FormatError, OSError):
    """A file cannot be opened: it is absent, not permitted, a loop of links, or not a plain file.

    >>> read_bytes(Path("/"))
    Traceback (most recent call last):
        ...
    skeleton_focus.formats.UnreadableFileError: /: expected a plain file, got a folder
    """


class ClipFile(NamedTuple):
    """One clip as read from its file.

    Attributes:
        name: the clip's name.
        x: (C, T, V, M) float32, in the format's units; 0 where a joint was not seen.
        label: class index from 0, or -1 if it is unknown.
        subject: the performer's number, 0 if the format has none.
        view: the camera's number, 0 if the format has none.
        setup: the number of the camera setup, 0 if the format has none.
        visibility: (T, V, M), 0 where a joint was not seen, otherwise 1 or the detector's
            confidence; None: all seen.
        sides: the clip's side in each published split, such as ``{"xsub": "train"}``.
        action: the class's name, if the file holds it.
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
    """A folder or file of clips whose format is known and that is not read yet.

    Attributes:
        format: the format's name, such as ``"NTU RGB+D 60"``.
        layout: the skeleton.
        files: every file that the clips come from.
        num_clips: the number of clips, including those that cannot be read.
        readers: each yields some of the clips, or an error instead of a clip that cannot be read;
            in sequence they yield all clips. They are independent of each other.
        splits: the names of the splits that the files or their publication give, the default first;
            empty if there is none.
        classes: class names in label order; empty if they are stored in the clips.
        mapped: the clips themselves, if they are memory-mapped in place and need no reading.
        assumed: whether the layout follows from the number of joints alone.
    """

    format: str
    layout: SkeletonLayout
    files: Sequence[Path]
    num_clips: int
    readers: Sequence[Callable[[], Iterator[ClipFile | FormatError]]] = field(repr=False)
    splits: tuple[str, ...]
    classes: tuple[str, ...] = ()
    mapped: Loaded | None = None
    assumed: bool = False

    def read(self, workers: int = 0) -> Iterator[ClipFile | FormatError]:
        """Yield all clips in order, or an error instead of a clip, by ``workers`` processes."""
        if workers < 1 or len(self.readers) < 2:
            return chain.from_iterable(reader() for reader in self.readers)
        own = torch.Generator()  # keeps torch's global generator unchanged
        # A DataLoader yields its items in order, whichever process is done first. Without a
        # collate_fn it would convert the arrays to tensors.
        loader = DataLoader(
            _Readers(self.readers),
            batch_size=None,
            num_workers=workers,
            collate_fn=_unchanged,
            generator=own,
        )
        return chain.from_iterable(loader)


class _Readers(Dataset[list["ClipFile | FormatError"]]):
    """The clips of each reader, as a list."""

    def __init__(self, readers: Sequence[Callable[[], Iterator[ClipFile | FormatError]]]) -> None:
        self.readers = readers

    def __len__(self) -> int:
        return len(self.readers)

    def __getitem__(self, index: int) -> list[ClipFile | FormatError]:
        # A process hands over a whole list at once: an iterator cannot be pickled.
        return list(self.readers[index]())


# At module level, because a lambda cannot be sent to a process that is spawned.
def _unchanged(clips: list[ClipFile | FormatError]) -> list[ClipFile | FormatError]:
    return clips


def files_in(folder: Path, suffix: str) -> list[Path]:
    """List a folder's files with this suffix, without hidden ones; none if it does not exist.

    >>> [file.name for file in files_in(Path(__file__).parent, "layouts.py")]
    ['layouts.py']
    """
    return [Path(folder, name) for name in _names_in(folder) if name.endswith(suffix)]


def folders_in(folder: Path) -> list[Path]:
    """List the subfolders of a folder that are neither empty nor hidden.

    >>> folders_in(Path("no/such/folder"))
    []
    """
    paths = [Path(folder, name) for name in _names_in(folder)]
    return [path for path in paths if path.is_dir() and not path.is_symlink() and _names_in(path)]


def _names_in(folder: Path) -> list[str]:
    try:
        # Sorted: file systems list in any order, and clips have to come in the same one everywhere.
        return sorted(name for name in os.listdir(folder) if not name.startswith((".", "__")))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UnreadableFileError(
            message(str(folder), "a folder that can be read", error.strerror)
        ) from None


def grouped(files: Sequence[Path], size: int = 32) -> list[Sequence[Path]]:
    """Divide files into groups, one for each reader.

    >>> [len(group) for group in grouped([Path("x")] * 40)]
    [32, 8]
    """
    return [files[start : start + size] for start in range(0, len(files), size)]


def read_each(
    files: Sequence[Path], read: Callable[[Path], _Read]
) -> Iterator[_Read | FormatError]:
    """Read files one by one and yield the error instead of a file that cannot be read.

    >>> [str(error) for error in read_each([Path("/")], read_bytes)]
    ['/: expected a plain file, got a folder']
    """
    for file in files:
        try:
            yield read(file)
        except FormatError as error:
            yield error


def read_bytes(path: Path) -> bytes:
    """Read a plain file; raise for others, such as a pipe, which could block forever.

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
            raise UnreadableFileError(
                message(str(path), "a file that can be read", error.strerror)
            ) from None


def beginning(path: Path, size: int = 4096) -> bytes:
    """Read the first bytes of a file to detect its format; empty if it cannot be read.

    >>> beginning(Path("no/such/file"))
    b''
    """
    try:
        with open_plain_file(path) as file:
            return file.read(size)
    except OSError:
        return b""


def open_plain_file(path: Path) -> IO[bytes]:
    """Open a plain file for reading.

    >>> open_plain_file(Path("/"))
    Traceback (most recent call last):
        ...
    skeleton_focus.formats.UnreadableFileError: /: expected a plain file, got a folder
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _OPEN_FLAGS)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        if isinstance(error, PermissionError) and path.is_dir():  # Windows opens no folder
            raise UnreadableFileError(message(str(path), "a plain file", "a folder")) from None
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableFileError(message(str(path), "a file that can be read", reason)) from None
    mode = os.fstat(descriptor).st_mode
    # The open file is examined, not the path: another file could take its place in between.
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        got = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
        raise UnreadableFileError(message(str(path), "a plain file", got))
    return os.fdopen(descriptor, "rb")


def parse_json(path: Path, text: bytes) -> Any:
    """Parse a JSON text that was read from ``path``."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}, column {error.colno}"
        raise FormatError(message(where, "JSON", error.msg)) from None
    # Not text, nested too deep, or a number of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise FormatError(message(str(path), "JSON text", type(error).__name__)) from None


def layout_of(
    where: str, num_joints: int, stated: SkeletonLayout | None = None, *, flat: bool = False
) -> SkeletonLayout:
    """Return the stated layout, or else the usual one with this number of joints.

    ``flat`` prefers the skeletons of pictures.

    >>> layout_of("clips.npy", 25).name, layout_of("clips.npy", 25, flat=True).name
    ('NTU25', 'BODY25')
    """
    if stated is not None:
        if stated.num_joints != num_joints:
            expected = f"V={stated.num_joints} joints of the layout {stated.name}"
            raise FormatError(message(where, expected, num_joints))
        return stated
    usual = [LAYOUTS[name] for name in PICTURE_LAYOUTS] if flat else []
    for layout in (*usual, *_USUAL):
        if layout.num_joints == num_joints:
            return layout
    known = ", ".join(map(str, sorted({layout.num_joints for layout in _USUAL})))
    hint = "pass layout (--layout): the name of a skeleton, or a JSON file of yours"
    raise FormatError(message(where, f"V of {known} joints", num_joints, hint))


def holds_scores(third: NDArray[Any], num_joints: int, stated: SkeletonLayout | None) -> bool:
    """Whether the third numbers of joints are scores and not z.

    They are if the skeleton is one of pictures and they lie in 0..1, but not all at 0.

    >>> scores = np.array([0.9, 0.1, 1.0])
    >>> holds_scores(scores, 17, None), holds_scores(scores - 0.5, 17, None)
    (True, False)
    """
    layouts = LAYOUTS.values() if stated is None else [stated]
    names = {layout.name for layout in layouts if layout.num_joints == num_joints}
    if names.isdisjoint(PICTURE_LAYOUTS):
        return False
    # Scores leave 0..1 by rounding, or as peaks of a heat map.
    return bool(((third > -0.1) & (third < 1.1)).all() and (third > 0).any())


def clamp_scores(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clamp a detector's finite scores to 0..1, the range of a visibility.

    Scores lie slightly outside by rounding, or as peaks of a heat map.

    >>> clamp_scores(np.float32([-0.1, 0.5, 1.0001])).tolist()
    [0.0, 0.5, 1.0]
    """
    return scores.clip(0, 1)


def short(value: object) -> str:
    """Format a value for an error message: its repr, cut to 60 characters.

    Large containers are not traversed.

    >>> short([1, "x"]), short("y" * 1000)[:5], len(short("y" * 1000))
    ("[1, 'x']", "'yyyy", 60)
    """
    # Cut before repr, which would first build the text of the whole value.
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
