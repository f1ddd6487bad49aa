"""Open a folder or file of clips in any supported format: recognise, read, cache, split.

python -m skeleton_focus.datasets PATH                 # describes the clips, lists problems
python -m skeleton_focus.datasets PATH --save my.npz   # also writes them to one file
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ._cache import default_folder, in_memory, open_pack
from ._checks import check_choice, message
from ._npy import HEAD, read_header
from ._packed import Index, Loaded, MappedClips
from ._pose_files import is_pose_archive
from .clips import UNKNOWN, SkeletonDataset, Split
from .format_arrays import open_ctr_gcn, open_st_gcn
from .format_clips import is_clips_file, open_clips_file
from .format_kinetics import open_kinetics
from .format_ntu import open_ntu
from .format_nw_ucla import open_nw_ucla
from .format_poses import open_poses
from .format_pyskl import open_pyskl
from .formats import (
    PICTURE_LAYOUTS,
    ClipFile,
    ClipSource,
    FormatError,
    UnreadableFileError,
    beginning,
    files_in,
    folders_in,
    short,
)
from .layouts import LAYOUTS, SkeletonLayout, load_layout

__all__ = ["open_clips", "open_dataset"]

# Keeps python -m from warning that the package has imported this file before.
__path__: list[str] = []

_KNOWN = (
    "a folder of NTU .skeleton files, NW-UCLA .json files, Kinetics-Skeleton .json files in "
    "kinetics_train and kinetics_val, ST-GCN .npy and .pkl files, or poses of OpenPose, AlphaPose, "
    "MMPose, MediaPipe or .npy arrays; or a pyskl .pkl, a CTR-GCN .npz, an .npz of "
    "SkeletonDataset.save, or a file of such poses"
)
_VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"}
_BY_SUBJECT = ("train_subjects", "test_subjects")
_TEST_SHARE = 5  # of the split "random": one clip in five


def open_dataset(
    path: str | Path,
    *,
    split: str | None = None,
    layout: str | Path | SkeletonLayout | None = None,
    persons: int | None = None,
    missing: str | None = None,
    threshold: float | None = None,
    on_error: str | Callable[[FormatError], object] = "raise",
    cache: str | Path | bool = True,
    workers: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> Split:
    """Open a data set of labelled clips with its split; the format is detected from the files.

    Supported are NTU RGB+D 60 and 120, NW-UCLA, Kinetics-Skeleton, pyskl and mmaction2 pickles,
    CTR-GCN ``.npz``, ST-GCN and 2s-AGCN ``.npy``, what pose estimators write
    (:func:`~skeleton_focus.format_poses.open_poses`), and the file of
    :meth:`SkeletonDataset.save`. Pass your own arrays to :class:`SkeletonDataset`.

    The clips are stored in a cache that later calls memory-map: no copy in memory, and a loader's
    processes share its pages. The cache is written atomically and rebuilt if a source file
    changes. ST-GCN's ``.npy`` files are mapped without a cache.

    Args:
        path: a folder, or a file for formats that consist of one file.
        split: the name of a split of the data set, such as ``"xsub"``, ``"xview"`` (NTU 60),
            ``"xset"`` (NTU 120), its first one by default; ``"train_subjects=1,3,5"`` or
            ``"test_subjects=2"``, where the performers are known; or ``"random"``, the default
            of data without a split: one clip in five of each class is tested, by the clips' names
            and so the same everywhere.
        layout: the skeleton, where the format does not fix it: a layout, the name of one, or a
            JSON file (:func:`load_layout`). By default it is assumed from the number of joints.
        persons: M, bodies kept; by default 2 where the format has any number of them (NTU,
            Kinetics, pyskl, pose estimators), else those of the file. Bodies that a clip does not
            have are zeros.
        threshold: for pose estimators, the score below which a joint counts as missing; by
            default 0.
        missing: for NTU, ``"mask"`` (default) or ``"fill"``: see :func:`read_ntu`.
        on_error: ``"raise"``; ``"skip"`` to leave out clips that cannot be read and warn once with
            their number; or a function that is called with each error.
        cache: a folder, True for ``$SKELETON_FOCUS_CACHE`` or the user's cache folder, False to
            keep all clips in memory.
        workers: processes that read, for formats with one file for each clip; 0 reads in this
            process.
        progress: wraps the iterable of clips while they are read, such as ``tqdm``.

    Raises:
        ValueError: a path that does not exist or has an unknown format, an unknown split, a split
            without training or test clips, a layout that does not fit.
        FormatError: a file that does not follow its format.
        OSError: a cache that cannot be written.

    Example:
        >>> open_dataset("no/such/folder")
        Traceback (most recent call last):
            ...
        ValueError: open_dataset: expected a folder or file of clips, got no/such/folder, which \
does not exist
    """
    options = {
        "layout": layout,
        "persons": persons,
        "missing": missing,
        "threshold": threshold,
    }
    data, sides = _open(path, options, on_error, cache, workers, progress)
    if {*data.labels} == {UNKNOWN}:  # before they are divided by class
        _check_labels(data)
    side_of_clip = _sides(split, data, sides)
    split = _named(split, sides)
    train = _side(data, side_of_clip, "train", f"training clips of split {split!r}", path)
    test = _side(data, side_of_clip, "test", f"test clips of split {split!r}", path)
    _check_labels(train)
    _check_labels(test)
    return Split(train, test)


def _check_labels(data: SkeletonDataset) -> None:
    if UNKNOWN in data.labels:
        name = data.names[data.labels.index(UNKNOWN)]
        hint = "files in one folder for each class have labels; open_clips needs none"
        got = f"none for clip {name!r}"
        raise ValueError(message("open_dataset", "a label for each clip", got, hint))


def open_clips(
    path: str | Path,
    *,
    split: str | None = None,
    side: str | None = None,
    layout: str | Path | SkeletonLayout | None = None,
    usual: SkeletonLayout | None = None,
    persons: int | None = None,
    missing: str | None = None,
    threshold: float | None = None,
    on_error: str | Callable[[FormatError], object] = "raise",
    cache: str | Path | bool = True,
    workers: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> SkeletonDataset:
    """Open all clips, labelled or not, or one side of a split.

    Use it for inference; the formats and options are those of :func:`open_dataset`.

    Args:
        path: a folder or file of clips.
        split: the split that ``side`` refers to; only with a side.
        side: ``"train"`` or ``"test"``; by default all clips. The other side may be absent.
        layout: as in :func:`open_dataset`, like the remaining arguments.
        usual: the skeleton of arrays that do not name theirs, if they have as many joints; by
            default, the number of joints decides alone.

    Raises:
        ValueError, FormatError, OSError: as :func:`open_dataset`; also arrays whose third number is
            a score or z, depending on which of two layouts they have.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from skeleton_focus import COCO17
        >>> path = Path(tempfile.mkdtemp()) / "poses.npz"
        >>> SkeletonDataset([torch.rand(2, 30, 17, 1)], None, COCO17).save(path)
        >>> open_clips(path, cache=False)[0].label
        -1
    """
    if side is not None:
        check_choice("open_clips", "side", side, ("train", "test"))
    elif split is not None:
        raise ValueError(message("open_clips", f"a side of split {split!r}", "none"))
    options = {
        "layout": layout,
        "persons": persons,
        "missing": missing,
        "threshold": threshold,
    }
    if layout is None and usual is not None:
        options["layout"] = _usual(Path(path), options, usual)
    data, sides = _open(path, options, on_error, cache, workers, progress)
    if side is None:
        return data
    chosen = _sides(split, data, sides)
    return _side(data, chosen, side, f"{side} clips of split {_named(split, sides)!r}", path)


def _usual(path: Path, options: dict[str, Any], usual: SkeletonLayout) -> SkeletonLayout | None:
    """Return ``usual`` for clips that may have it and do not name another skeleton, else None."""
    try:
        found = recognize(path, **options)
    except (ValueError, OSError):  # such as a number of joints that no known skeleton has
        found = None
    if found is not None and (
        not found.assumed or found.layout == usual or found.layout.num_joints != usual.num_joints
    ):
        return None
    try:
        other = recognize(path, **{**options, "layout": usual})
    except (ValueError, OSError):
        return None
    if found is not None and _channels(found) != _channels(other):
        expected = f"the layout, {found.layout.name!r} or {usual.name!r}"
        got = f"{usual.num_joints} joints with three numbers in {path}"
        hint = "the third is a score for one of them and z for the other; pass layout (--layout)"
        raise ValueError(message("open_clips", expected, got, hint))
    return usual


def _channels(source: ClipSource) -> int:
    """C of the first clip that can be read."""
    if source.mapped is not None:
        return int(source.mapped.x[0].shape[0])
    return next((clip.x.shape[0] for clip in source.read() if isinstance(clip, ClipFile)), 0)


def _open(
    path: str | Path,
    options: dict[str, Any],
    on_error: str | Callable[[FormatError], object],
    cache: str | Path | bool,
    workers: int,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None,
) -> tuple[SkeletonDataset, dict[str, list[str]]]:
    """Open all clips, and the side of each clip in each split."""
    who = "open_dataset"
    path = Path(path)
    if not callable(on_error):
        check_choice(who, "on_error", on_error, ("raise", "skip"))
    if not isinstance(workers, int) or workers < 0:
        raise ValueError(message(who, "workers as an integer of at least 0", workers))
    if progress is not None and not callable(progress):
        raise ValueError(
            message(who, "progress as a function of the clips, such as tqdm", progress)
        )
    if not isinstance(cache, bool | Path) and (not isinstance(cache, str) or not cache):
        raise ValueError(message(who, "cache as a folder, True or False", repr(cache)))
    problems: list[FormatError] = []

    def report(error: FormatError) -> None:
        problems.append(error)
        error.of_clip = True
        if on_error == "raise":
            raise error
        if callable(on_error):
            on_error(error)

    source = recognize(path, **options)
    clips = _good_clips(source, path, report, workers, progress)
    data, sides = _load(
        source, path, options, clips, report, problems, cache, check_mapped=on_error != "raise"
    )
    if options["persons"] is not None:
        data = data.with_persons(options["persons"])
    if problems and on_error == "skip":
        text = (
            f"open_dataset: {len(problems)} of {source.num_clips} clips cannot be read "
            f"and are left out; the first: {problems[0]}"
        )
        warnings.warn(text, stacklevel=3)
    return data, sides


def _named(split: str | None, sides: dict[str, list[str]]) -> str:
    """The name of the chosen split, or of the default one."""
    return next(iter(sides), "random") if split is None else split


def _sides(split: str | None, data: SkeletonDataset, sides: dict[str, list[str]]) -> list[str]:
    """The side of each clip, "train", "test" or "", in a split of the files or of our own."""
    split = _named(split, sides)
    if split in sides:
        return sides[split]
    kind, _, listed = split.partition("=")
    subjects = sorted({*data.subjects} - {0})
    if kind in _BY_SUBJECT and subjects:
        if 0 in data.subjects:  # on either side, they could be performers of the other one
            name = data.names[data.subjects.index(0)]
            expected = f"the performer of each clip for split {split!r}, counted from 1"
            raise ValueError(message("open_dataset", expected, f"0 for clip {name!r}"))
        try:
            chosen = {int(number) for number in listed.split(",")}
        except ValueError:
            raise ValueError(message("open_dataset", f"{kind}=1,3,5", repr(split))) from None
        if not chosen <= {*subjects}:
            strange = sorted(chosen - {*subjects})
            raise ValueError(message("open_dataset", f"subjects among {subjects}", strange))
        inside, outside = ("train", "test") if kind == "train_subjects" else ("test", "train")
        return [inside if subject in chosen else outside for subject in data.subjects]
    ours = [*sides, "random", *(f"{kind}=1,2" for kind in _BY_SUBJECT if subjects)]
    check_choice("open_dataset", "split", split, ours)
    return _random_sides(data.names, data.labels)


def _random_sides(names: Sequence[str], labels: Sequence[int]) -> list[str]:
    """Draw one clip in five of each class for testing, the same in every call.

    >>> _random_sides("abcdefg", [0] * 5 + [1] * 2).count("test")
    2
    """
    # By the names: a generator's numbers may change with numpy's version, and a clip that is added
    # or cannot be read would change the sides of all others.
    digests = [hashlib.sha256(name.encode("utf8", "surrogatepass")).digest() for name in names]
    seen = Counter[int]()
    sides = ["train"] * len(labels)
    for i in sorted(range(len(labels)), key=digests.__getitem__):
        # The second, seventh ... of a class: a class of two clips has one on each side.
        if seen[labels[i]] % _TEST_SHARE == 1:
            sides[i] = "test"
        seen[labels[i]] += 1
    return sides


def _side(
    data: SkeletonDataset, sides: Sequence[str], side: str, wanted: str, path: str | Path
) -> SkeletonDataset:
    # A clip may be on neither side, such as those of a pyskl val list beside a test list.
    chosen = [i for i, of_clip in enumerate(sides) if of_clip == side]
    if not chosen:
        raise ValueError(message("open_dataset", wanted, f"none in {path}"))
    return data.subset(chosen)


def recognize(path: Path, **options: Any) -> ClipSource:
    """Detect the format of the clips at ``path`` from the folder's files or the file's first bytes.

    >>> recognize(Path("no/such/folder"))
    Traceback (most recent call last):
        ...
    ValueError: open_dataset: expected a folder or file of clips, got no/such/folder, which does \
not exist
    """
    who = "open_dataset"
    options = {name: value for name, value in options.items() if value is not None}
    if "layout" in options:
        options["layout"] = load_layout(options["layout"])
    try:
        folder = path.is_dir()
        if not folder and not path.is_file():
            got = "which is neither" if path.exists() else "which does not exist"
            raise ValueError(message(who, "a folder or file of clips", f"{path}, {got}"))
    except OSError as error:
        raise UnreadableFileError(
            message(str(path), "a folder or file that can be read", error.strerror)
        ) from None
    sources = []
    for opens, takes in _FOLDERS if folder else _FILES:
        # Only the options that this format takes: the error below names the format of the others.
        source = opens(path, **{option: options[option] for option in takes if option in options})
        if source is not None:
            # Where the readers do not choose bodies, `_open` cuts or pads their axis.
            unsupported = sorted(set(options) - {*takes, "persons"})
            if unsupported:
                raise ValueError(
                    message(
                        who,
                        f"options for {source.format}",
                        ", ".join(unsupported),
                        "leave them out",
                    )
                )
            sources.append(source)
    # All formats are tried, not only up to the first that fits: a folder of mixed files would
    # otherwise open as whichever comes first, without its other clips.
    if len(sources) > 1:
        kinds = " and ".join(source.format for source in sources)
        raise ValueError(message(who, "clips of one data set", f"{path}, which holds {kinds}"))
    if not sources:
        hint = _hint(path)
        if not hint:
            _check_file(who, path)
            hint = "pass your own arrays to SkeletonDataset"
        raise ValueError(message(who, _KNOWN, f"{path}, which is none of these", hint))
    return sources[0]


def _check_file(who: str, path: Path) -> None:
    """Name what is wrong with a path that users often pass by mistake."""
    if path.is_dir():
        if not any(path.iterdir()):
            raise ValueError(message(who, "a folder or file of clips", f"{path}, an empty folder"))
        arrays = [file for folder in (path, *folders_in(path)) for file in files_in(folder, ".npy")]
        path = next(iter(arrays), path)
    if path.suffix.lower() in _VIDEOS:
        hint = "a pose estimator such as OpenPose or MediaPipe finds the joints in it"
        raise ValueError(message(who, "joints of the people", f"the video {path}", hint))
    if path.suffix == ".npy" and path.is_file():
        axes = "T, V, C or T, M, V, C"
        head = read_header(str(path), beginning(path, HEAD), axes, kinds="fiu", any_order=True)
        expected = "one clip (T, V, C) or (T, M, V, C) with C of 2 or 3"
        raise FormatError(message(str(path), expected, head.shape))


def _hint(path: Path) -> str:
    """Suggest what to open instead of a path of unknown format."""
    near = [path.parent] if not path.is_dir() else [*folders_in(path), path.absolute().parent]
    for folder in near:
        with contextlib.suppress(ValueError):
            if any(opens(folder) is not None for opens, _ in _FOLDERS):
                return f"open {folder}"
    files = [*files_in(path, ".npz"), *files_in(path, ".pkl")] if path.is_dir() else []
    if files:
        return f"open one of its files, such as {files[0].name}"
    return ""


def _open_zip(path: Path, *, layout: SkeletonLayout | None = None) -> ClipSource | None:
    if beginning(path, 4) != b"PK\x03\x04" or is_pose_archive(path, layout):
        return None
    opens = open_clips_file if is_clips_file(path) else open_ctr_gcn
    return opens(path, layout=layout)


def _open_pickle(path: Path, **options: Any) -> ClipSource | None:
    # Protocols from 2 on begin with \x80, older ones with the opcode of a dict, list or tuple.
    is_pickle = beginning(path, 1) in (b"\x80", b"(", b"}", b"]")
    return open_pyskl(path, **options) if is_pickle else None


_FOLDERS: list[tuple[Callable[..., ClipSource | None], tuple[str, ...]]] = [
    (open_ntu, ("persons", "missing")),
    (open_nw_ucla, ()),
    (open_kinetics, ("persons",)),
    (open_st_gcn, ("layout",)),
    (open_poses, ("persons", "layout", "threshold")),
]
_FILES: list[tuple[Callable[..., ClipSource | None], tuple[str, ...]]] = [
    (_open_zip, ("layout",)),
    (_open_pickle, ("persons", "layout")),
    (open_poses, ("persons", "layout", "threshold")),
]


def _load(
    source: ClipSource,
    path: Path,
    options: dict[str, Any],
    clips: Iterator[ClipFile],
    report: Callable[[FormatError], None],
    problems: list[FormatError],
    cache: str | Path | bool,
    *,
    check_mapped: bool,
) -> tuple[SkeletonDataset, dict[str, list[str]]]:
    """Load all clips of a source, and the side of each clip in each split."""
    chosen = None
    if source.mapped is not None:
        loaded = source.mapped
        # Mapped clips are checked when they are read. Only a caller that leaves out bad clips has
        # to know them beforehand, which costs a pass over the whole file.
        chosen = list(_readable(loaded, report)) if check_mapped else None
    elif cache is False:
        loaded = in_memory(clips, source.splits)
    else:
        where = (default_folder() if cache is True else Path(cache)).expanduser().absolute()
        # The options are part of the cache's name: clips read with others must not be found. The
        # layout itself, since a JSON file of one may change under the same path.
        if options["layout"] is not None:
            options = {**options, "layout": source.layout}
        loaded, stored_problems = open_pack(
            source, path, where, repr((source.format, options)), clips, problems
        )
        if not problems:  # otherwise they were reported while the cache was written
            for problem in stored_problems:
                report(problem)
    index = loaded.index
    if not index.names or chosen == []:
        raise ValueError(
            message("open_dataset", "at least one clip that can be read", f"none in {path}")
        )
    classes = source.classes or _classes(path, index)
    assumed = ""
    if source.assumed:
        assumed = f", {source.layout.name} assumed from {source.layout.num_joints} joints"
        others = _others(source.layout, loaded.x[0].shape[0])
        if others:
            assumed += f" (other --layout: {', '.join(others)})"
    data = SkeletonDataset(
        loaded.x,
        index.labels,
        source.layout,
        classes=classes,
        names=index.names,
        subjects=index.subjects,
        visibility=loaded.visibility,
        origin=source.format + assumed,
        layout_assumed=source.assumed,
    )
    # Without bad clips the data stay one mapped array rather than a Subset of it.
    if chosen is None or len(chosen) == len(data):
        return data, index.sides
    chosen_sides = {}
    for split, sides in index.sides.items():
        chosen_sides[split] = [sides[i] for i in chosen]
    return data.subset(chosen), chosen_sides


def _others(layout: SkeletonLayout, channels: int) -> list[str]:
    """List the named skeletons whose joints the clips may have as well, in another order.

    >>> from skeleton_focus import KINECT20, NTU25
    >>> _others(KINECT20, 3), _others(NTU25, 3)
    (['UTD20'], [])
    """
    return [
        name
        for name, other in LAYOUTS.items()
        if other.num_joints == layout.num_joints
        and other.joints != layout.joints
        and (channels == 2 or name not in PICTURE_LAYOUTS)
    ]


def _readable(loaded: Loaded, report: Callable[[FormatError], None]) -> Iterator[int]:
    """The indices of valid clips in mapped arrays; this reads every clip."""
    for i in range(len(loaded.x)):
        try:
            loaded.x[i]
        except FormatError as error:
            report(error)
        else:
            yield i


def _good_clips(
    source: ClipSource,
    path: Path,
    report: Callable[[FormatError], None],
    workers: int,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None,
) -> Iterator[ClipFile]:
    """Yield the clips that can be read, each once, and report the others."""
    # Clips are told apart by their names; two folders of NTU 120 may hold the same clip.
    reading = _ReadingWithLength(source, workers)
    names = set[str]()
    for clip in reading if progress is None else progress(reading):
        if isinstance(clip, FormatError):
            report(clip)
        elif clip.name in names:
            where = f"{path}, clip {short(clip.name)}"
            report(FormatError(message(where, "each clip once", "another clip of this name")))
        else:
            names.add(clip.name)
            yield clip


class _ReadingWithLength:
    """The clips of a source, with the length that a progress bar needs."""

    def __init__(self, source: ClipSource, workers: int) -> None:
        self.source = source
        self.workers = workers

    def __len__(self) -> int:
        return self.source.num_clips

    def __iter__(self) -> Iterator[ClipFile | FormatError]:
        return self.source.read(self.workers)


def _classes(path: Path, index: Index) -> list[str]:
    """Class names as given by the clips, or numbers for classes without a name."""
    names = [str(label) for label in range(max(index.labels) + 1)]  # none if all are unknown
    named: dict[int, str] = {}
    for clip, label, action in zip(index.names, index.labels, index.actions, strict=True):
        if action and named.setdefault(label, action) != action:
            got = f"{short(named[label])} and, in clip {short(clip)}, {short(action)}"
            raise FormatError(message(str(path), f"one name for class {label}", got))
    classes = [named.get(label, name) for label, name in enumerate(names)]
    for name in named.values():
        if classes.count(name) > 1:
            raise FormatError(
                message(str(path), "a unique name for each class", f"{short(name)} for several")
            )
    return classes


def main(arguments: list[str] | None = None) -> int:
    """Describe the clips at a path and list every problem; return 1 if there are any."""
    parser = argparse.ArgumentParser(
        prog="python -m skeleton_focus.datasets",
        description="Describe the clips in a folder or file, "
        "and list every problem with file and line.",
    )
    parser.add_argument(
        "path", type=Path, help="a folder, or a file for formats that consist of one file"
    )
    parser.add_argument(
        "--persons",
        type=int,
        help="bodies kept; by default 2 (NTU, Kinetics, pyskl, pose estimators) or the file's",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="for pose estimators: joints with a lower score count as missing",
    )
    parser.add_argument(
        "--missing",
        choices=["mask", "fill"],
        help="for NTU: how to treat bodies that were not seen",
    )
    parser.add_argument(
        "--layout",
        help="name of the skeleton or a JSON file of one, where the format does not fix it",
    )
    parser.add_argument("--save", metavar="FILE", help="also write the clips to one .npz")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--cache", help="folder of the cache; by default in the user's cache folder")
    where.add_argument("--no-cache", action="store_true", help="write no cache")
    parser.add_argument("--workers", type=int, default=0, help="number of processes that read")
    given = parser.parse_args(arguments)
    problems: list[FormatError] = []
    failed = ""
    try:
        if given.workers < 0:
            raise ValueError(
                message("open_dataset", "workers as an integer of at least 0", given.workers)
            )
        # Not by open_dataset: that would stop at a side without clips, whereas this command reports
        # all problems and every split.
        names = ("layout", "persons", "missing", "threshold")
        options = {name: getattr(given, name) for name in names}
        source = recognize(given.path, **options)
        cache = False if given.no_cache else given.cache or True
        clips = _good_clips(source, given.path, problems.append, given.workers, _progress)
        data, sides = _load(
            source, given.path, options, clips, problems.append, problems, cache, check_mapped=True
        )
        _print_lines(data.heading(), data.describe())
        for split, of_clips in sides.items():
            train = of_clips.count("train")
            test = of_clips.count("test")
            note = "" if train and test else ": open_dataset needs both"
            _print_lines(f"split {split}: {train} training and {test} test clips{note}")
        if not sides:
            _print_lines("no split: open_dataset tests one clip in five of each class")
        subjects = sorted({*data.subjects} - {0})
        if len(subjects) > 1 and 0 not in data.subjects:
            _print_lines(f"{len(subjects)} subjects: split train_subjects=... or test_subjects=...")
        if isinstance(data.clips, MappedClips):
            array = data.clips.array
            _print_lines(
                f"cached in {array.filename} ({array.nbytes / 1e6:.1f} MB), which open_dataset maps"
            )
        if given.save:
            data.save(given.save, splits=sides)
            _print_lines(f"written: {given.save}")
    except (ValueError, OSError) as error:
        failed = str(error)
    texts = [*map(str, problems)]
    if failed:
        texts.append(failed)
    count = "1 problem" if len(texts) == 1 else f"{len(texts) or 'no'} problems"
    _print_lines(*(f"problem: {text}" for text in texts), count)
    return int(bool(texts))


def _print_lines(*lines: str) -> None:
    """Print lines; escape characters that the terminal's encoding does not have."""
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.writelines(
        line.encode(encoding, "backslashreplace").decode(encoding) + "\n" for line in lines
    )


def _progress(reading: Iterable[Any]) -> Iterator[Any]:
    """Show the number of clips read if stderr is a terminal."""
    in_terminal = sys.stderr.isatty()
    for i, clip in enumerate(reading, 1):
        if in_terminal and i % 100 == 0:
            sys.stderr.write(f"\r{i} clips read")
        yield clip
    if in_terminal:
        sys.stderr.write("\r\033[K")


if __name__ == "__main__":
    raise SystemExit(main())
