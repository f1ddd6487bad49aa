"""Open a folder or file of clips, whatever its format: recognise, read, cache, split.

python -m skeleton_focus.datasets PATH    # says what is there, and every problem with file and line
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ._cache import default_folder, in_memory, open_pack
from ._checks import check_choice, message
from ._packed import Index, Loaded, MappedClips
from .clips import SkeletonDataset, Split
from .format_arrays import open_ctr_gcn, open_st_gcn
from .format_kinetics import open_kinetics
from .format_ntu import open_ntu
from .format_nw_ucla import open_nw_ucla
from .format_pyskl import open_pyskl
from .formats import ClipFile, ClipSource, FormatError, UnreadableFileError, beginning, files_in, folders_in, short

__path__: list[str] = []  # so that python -m does not warn that the package has imported this file before

_KNOWN = (
    "a folder of NTU .skeleton files, NW-UCLA .json files, Kinetics-Skeleton .json files in kinetics_train and "
    "kinetics_val, or ST-GCN .npy and .pkl files; or a pyskl .pkl, or a CTR-GCN .npz"
)


def open_dataset(
    path: str | Path,
    *,
    split: str | None = None,
    persons: int | None = None,
    missing: str | None = None,
    on_error: str | Callable[[FormatError], object] = "raise",
    cache: str | Path | bool = True,
    workers: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> Split:
    """Open clips with the split that their publishers use; the format is recognised by what is there.

    Known are NTU RGB+D 60 and 120, NW-UCLA, Kinetics-Skeleton, pyskl and mmaction2 pickles, CTR-GCN ``.npz``, ST-GCN
    and 2s-AGCN ``.npy``. Your own arrays go to :class:`SkeletonDataset`.

    What was read is kept in a cache, from which later openings map it: no copy in memory, pages shared among a loader's
    processes. It is written once, whole or not at all, and again when a file of the source changed. ST-GCN's ``.npy``
    are mapped where they lie.

    Args:
        path: a folder, or the one file of some formats.
        split: the name of a published split, such as ``"xsub"``, ``"xview"`` (NTU 60), ``"xset"`` (NTU 120); by default
            the first that the data have.
        persons: M, bodies kept (NTU, Kinetics, pyskl); by default 2.
        missing: of NTU, ``"mask"`` (the default) or ``"fill"``: see :func:`read_ntu`.
        on_error: ``"raise"``; ``"skip"``: leave out clips that cannot be read, and warn once of how many; or a function
            that is called with each error.
        cache: a folder, True for ``$SKELETON_FOCUS_CACHE`` or the user's folder of caches, False for none: everything
            in memory.
        workers: processes that read, where the clips stand in files of their own; 0: this one reads.
        progress: wraps the clips while they are read, such as ``tqdm``.

    Raises:
        ValueError: nothing at ``path``, nothing that is known, another split than the data have, a side without clips.
        FormatError: a file that is not what it should be.
        OSError: a cache that cannot be written.

    Example:
        >>> open_dataset("no/such/folder")
        Traceback (most recent call last):
            ...
        ValueError: open_dataset: expected a folder or file of clips, got no/such/folder, which does not exist
    """
    who, path = "open_dataset", Path(path)
    if not callable(on_error):
        check_choice(who, "on_error", on_error, ("raise", "skip"))
    if not isinstance(workers, int) or workers < 0:
        raise ValueError(message(who, "workers, a whole number from 0", workers))
    if progress is not None and not callable(progress):
        raise ValueError(message(who, "progress that takes the clips, such as tqdm", progress))
    if not isinstance(cache, bool | Path) and (not isinstance(cache, str) or not cache):
        raise ValueError(message(who, "cache, a folder, True or False", repr(cache)))
    problems: list[FormatError] = []

    def tell(error: FormatError) -> None:
        problems.append(error)
        if on_error == "raise":
            raise error
        if callable(on_error):
            on_error(error)

    source = recognize(path, persons, missing)
    split = source.splits[0] if split is None else split
    check_choice(who, "split", split, source.splits)
    options = {"persons": persons, "missing": missing}
    clips = _good_clips(source, path, tell, workers, progress)
    data, sides = _load(source, path, options, clips, tell, problems, cache, look=on_error != "raise")
    if problems and on_error == "skip":
        text = f"open_dataset: {len(problems)} of {source.num_clips} clips cannot be read and are left out; the first"
        warnings.warn(f"{text}: {problems[0]}", stacklevel=2)
    parts = []
    for side, called in (("train", "training"), ("test", "test")):
        chosen = [i for i, stands in enumerate(sides[split]) if stands == side]
        if not chosen:
            raise ValueError(message("open_dataset", f"{called} clips of split {split!r}", f"none in {path}"))
        parts.append(data.subset(chosen))
    return Split(*parts)


def recognize(path: Path, persons: int | None = None, missing: str | None = None) -> ClipSource:
    """What clips there are at ``path``, by what is in the folder or how the file begins.

    >>> recognize(Path("no/such/folder"))
    Traceback (most recent call last):
        ...
    ValueError: open_dataset: expected a folder or file of clips, got no/such/folder, which does not exist
    """
    who = "open_dataset"
    asked = {option: value for option, value in (("persons", persons), ("missing", missing)) if value is not None}
    try:
        folder = path.is_dir()
        if not folder and not path.is_file():
            got = "which is neither" if path.exists() else "which does not exist"
            raise ValueError(message(who, "a folder or file of clips", f"{path}, {got}"))
    except OSError as error:
        raise UnreadableFileError(message(str(path), "a folder or file that can be read", error.strerror)) from None
    found = []
    for opens, takes in _FOLDERS if folder else _FILES:
        source = opens(path, **{option: asked[option] for option in takes if option in asked})
        if source is not None:
            useless = sorted(set(asked) - set(takes))
            if useless:
                raise ValueError(message(who, f"options for {source.format}", ", ".join(useless), "it has none such"))
            found.append(source)
    if len(found) > 1:
        kinds = " and ".join(source.format for source in found)
        raise ValueError(message(who, "clips of one data set", f"{path}, which holds {kinds}"))
    if not found:
        raise ValueError(message(who, _KNOWN, f"{path}, which is none of these", _hint(path)))
    return found[0]


def _hint(path: Path) -> str:
    """What could be opened in place of a path that holds nothing known."""
    near = [path.parent] if not path.is_dir() else [*folders_in(path), path.absolute().parent]
    for folder in near:
        with contextlib.suppress(ValueError):
            if any(opens(folder) is not None for opens, _ in _FOLDERS):
                return f"open {folder}"
    files = [file for suffix in (".npz", ".pkl") for file in (files_in(path, suffix) if path.is_dir() else ())]
    return (
        f"open one of its files, such as {files[0].name}" if files else "for your own arrays there is SkeletonDataset"
    )


def _open_file(path: Path, *, persons: int = 2) -> ClipSource | None:
    """A zip or a pickle, by its first bytes."""
    start = beginning(path, 4)
    if start == b"PK\x03\x04":
        return open_ctr_gcn(path)
    return open_pyskl(path, persons=persons) if start[:1] in (b"\x80", b"(", b"}", b"]") else None


_FOLDERS: list[tuple[Callable[..., ClipSource | None], tuple[str, ...]]] = [
    (open_ntu, ("persons", "missing")),
    (open_nw_ucla, ()),
    (open_kinetics, ("persons",)),
    (open_st_gcn, ()),
]
_FILES: list[tuple[Callable[..., ClipSource | None], tuple[str, ...]]] = [(_open_file, ("persons",))]


def _load(
    source: ClipSource,
    path: Path,
    options: dict[str, Any],
    clips: Iterator[ClipFile],
    tell: Callable[[FormatError], None],
    problems: list[FormatError],
    cache: str | Path | bool,
    *,
    look: bool,
) -> tuple[SkeletonDataset, dict[str, list[str]]]:
    """All clips of a source, and the side on which each stands in each split."""
    chosen = None
    if source.mapped is not None:
        loaded = source.mapped
        chosen = list(_readable(loaded, tell)) if look else None
    elif cache is False:
        loaded = in_memory(clips, source.splits)
    else:
        where = (default_folder() if cache is True else Path(cache)).expanduser().absolute()
        loaded, told = open_pack(source, path, where, repr((source.format, options)), clips, problems)
        if not problems:  # they were found when the cache was written
            for problem in told:
                tell(problem)
    index = loaded.index
    if not index.names or chosen == []:
        raise ValueError(message("open_dataset", "at least one clip that can be read", f"none in {path}"))
    classes = source.classes or _classes(path, index)
    data = SkeletonDataset(
        loaded.x, index.labels, source.layout, classes=classes, names=index.names, visibility=loaded.visibility,
        origin=source.format,
    )  # fmt: skip
    if chosen is None or len(chosen) == len(data):
        return data, index.sides
    return data.subset(chosen), {split: [sides[i] for i in chosen] for split, sides in index.sides.items()}


def _readable(loaded: Loaded, tell: Callable[[FormatError], None]) -> Iterator[int]:
    """The clips of arrays used in place that are as they should be; every one is read for that."""
    for i in range(len(loaded.x)):
        try:
            loaded.x[i]
        except FormatError as error:
            tell(error)
        else:
            yield i


def _good_clips(
    source: ClipSource,
    path: Path,
    tell: Callable[[FormatError], None],
    workers: int,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None,
) -> Iterator[ClipFile]:
    """The clips that can be read, each once; of the others is told."""
    reading, names = _Sized(source, workers), set[str]()
    for clip in reading if progress is None else progress(reading):
        if isinstance(clip, FormatError):
            tell(clip)
        elif clip.name in names:
            tell(FormatError(message(f"{path}, clip {short(clip.name)}", "each clip once", "another of its name")))
        else:
            names.add(clip.name)
            yield clip


class _Sized:
    """What a source reads, with the length that a progress bar asks for."""

    def __init__(self, source: ClipSource, workers: int) -> None:
        self.source, self.workers = source, workers

    def __len__(self) -> int:
        return self.source.num_clips

    def __iter__(self) -> Iterator[ClipFile | FormatError]:
        return self.source.read(self.workers)


def _classes(path: Path, index: Index) -> list[str]:
    """Class names as the clips tell them; numbers where none does."""
    names = [str(label) for label in range(max(index.labels) + 1)]
    named: dict[int, str] = {}
    for clip, label, action in zip(index.names, index.labels, index.actions, strict=True):
        if action and named.setdefault(label, action) != action:
            got = f"{short(named[label])} and, in clip {short(clip)}, {short(action)}"
            raise FormatError(message(str(path), f"one name for class {label}", got))
    classes = [named.get(label, name) for label, name in enumerate(names)]
    for name in named.values():
        if classes.count(name) > 1:
            raise FormatError(message(str(path), "a name of its own for each class", f"{short(name)} for several"))
    return classes


def main(arguments: list[str] | None = None) -> int:
    """Describe what is at a path, and list every problem; 1 if there are any."""
    parser = argparse.ArgumentParser(
        prog="python -m skeleton_focus.datasets",
        description="Say what clips are in a folder or file, and list every problem with file and line.",
    )
    parser.add_argument("path", type=Path, help="a folder, or the one file of some formats")
    parser.add_argument("--persons", type=int, help="bodies kept (NTU, Kinetics, pyskl); by default 2")
    parser.add_argument("--missing", choices=["mask", "fill"], help="of NTU: where a body was not seen")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--cache", help="folder to keep what was read in; by default the user's folder of caches")
    where.add_argument("--no-cache", action="store_true", help="keep nothing")
    parser.add_argument("--workers", type=int, default=0, help="processes that read")
    given = parser.parse_args(arguments)
    problems: list[FormatError] = []
    failed = ""
    try:
        if given.workers < 0:
            raise ValueError(message("open_dataset", "workers, a whole number from 0", given.workers))
        source = recognize(given.path, given.persons, given.missing)
        cache = False if given.no_cache else given.cache or True
        options = {"persons": given.persons, "missing": given.missing}
        clips = _good_clips(source, given.path, problems.append, given.workers, _progress)
        data, sides = _load(source, given.path, options, clips, problems.append, problems, cache, look=True)
        _say(data.heading(), data.describe())
        for split, of_clips in sides.items():
            train, test = of_clips.count("train"), of_clips.count("test")
            alone = "" if train and test else ": open_dataset wants both"
            _say(f"split {split}: {train} training and {test} test clips{alone}")
        if isinstance(data.clips, MappedClips):
            kept = data.clips.array
            _say(f"kept in {kept.filename} ({kept.nbytes / 1e6:.1f} MB), for open_dataset to map")
    except (ValueError, OSError) as error:
        failed = str(error)
    said = [*map(str, problems), *([failed] if failed else [])]
    _say(*(f"problem: {problem}" for problem in said), f"{len(said) or 'no'} problem{'s' * (len(said) != 1)}")
    return int(bool(said))


def _say(*lines: str) -> None:
    """Print, also what the terminal's encoding does not have."""
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.writelines(line.encode(encoding, "backslashreplace").decode(encoding) + "\n" for line in lines)


def _progress(reading: Iterable[Any]) -> Iterator[Any]:
    """Count on a terminal what was read."""
    shown = sys.stderr.isatty()
    for i, clip in enumerate(reading, 1):
        if shown and i % 100 == 0:
            sys.stderr.write(f"\r{i} clips read")
        yield clip
    if shown:
        sys.stderr.write("\r\033[K")


if __name__ == "__main__":
    raise SystemExit(main())
