"""What pose estimators write: OpenPose, AlphaPose, MMPose, MediaPipe, arrays of key points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._bodies import Track, clip_of, extents, follow, join_tracks, share_slots
from ._checks import message
from ._pose_files import ARRAYS, FRAME, PICTURE, SUFFIXES, Detections, kind_of, read_people
from .formats import ClipFile, ClipSource, FormatError, files_in, folders_in
from .layouts import SkeletonLayout

_SIDES = {"train": "train", "test": "test", "val": "test"}


def open_poses(
    path: Path,
    *,
    persons: int = 2,
    layout: SkeletonLayout | None = None,
    threshold: float = 0.0,
) -> ClipSource | None:
    """Open clips as pose estimators write them; None if ``path`` holds none.

    A clip is one of

    - a folder of OpenPose's ``*_keypoints.json``, one file a frame: BODY_25 or COCO-18;
    - an AlphaPose ``.json``, a list of {image_id, keypoints, score, idx}: 17, 26 or 136 joints;
    - an MMPose ``.json``, instance_info or a list of frames: 17, 26 or 133 joints;
    - MediaPipe landmarks in a ``.json``, a list of frames with 33 {x, y, z, visibility} or null,
      also under pose_landmarks and pose_world_landmarks, or in a ``.csv`` with the columns x0, y0,
      z0, v0, x1, ... or frame, landmark, x, y, z, visibility;
    - an array ``.npy`` (T, V, C) or (T, M, V, C), or an ``.npz`` with one such array or with
      ``keypoints`` and ``scores``, as Ultralytics, rtmlib and ViTPose give them.

    ``path`` is one clip, a folder of clips, a folder with one folder for each class, or a folder
    with ``train`` and ``test`` (or else ``val``) that hold such class folders. Only with class
    folders do clips have a label: the index of the folder's name in sorted order.

    136 joints are cut to the first 26, 133 to the first 17: the body without hands and face. Frames
    are in the order of the numbers in the files' names or image_id; missing ones are empty. People
    are followed through the frames, or by their ids if all have one and no frame has one twice.
    Those with the largest sum of confidence are kept, and may share a slot if they are not there at
    the same time.

    Positions in a picture, pixels or shares alike, are divided by the median extent of the clip's
    bodies, the larger side of the box around the seen joints; y points down. In shares of width and
    height, the proportions of the picture are lost. MediaPipe's landmarks are turned so that y
    points up and z towards the camera. Those with the origin between the hips are in metres and
    keep their unit; they are preferred. An array's third number is the score for skeletons of
    pictures (``COCO17``, ``OPENPOSE18``, ``BODY25``, ``HALPE26``, ``PENN13``), otherwise z, whose
    axes and unit are kept. A joint at (0, 0) or NaN in an array was not seen.

    Args:
        path: a file or folder.
        persons: M, bodies kept; absent bodies are zeros.
        layout: the skeleton; by default by the format and the number of joints. Arrays of 25 joints
            are ``BODY25``.
        threshold: joints with a lower score, in 0..1, count as not seen.

    Returns:
        The source of clips: x (C, T, V, M), visibility (T, V, M) from the scores. Its splits are
        ``("given",)`` with train and test folders, otherwise none. Clips are named after their
        path in the folder.

    Raises:
        FormatError: clips of several formats, no clip that can be read. The error of a single clip,
            such as another skeleton, is yielded instead of the clip.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for action in ("jump", "wave"):
        ...     (folder / action).mkdir()
        ...     np.save(folder / action / "a.npy", np.random.rand(30, 17, 2) * 400)
        >>> source = open_poses(folder)
        >>> source.format, source.layout.name, source.classes
        ('pose arrays', 'COCO17', ('jump', 'wave'))
        >>> [(clip.name, clip.x.shape, clip.label) for clip in source.read()]
        [('jump/a', (2, 30, 17, 2), 0), ('wave/a', (2, 30, 17, 2), 1)]
    """
    path = Path(path)
    if persons < 1:
        raise ValueError(message("open_poses", "persons of at least 1", persons))
    if not 0 <= threshold <= 1:
        raise ValueError(message("open_poses", "a threshold in 0..1", threshold))
    clips, classes = _find(path, layout)
    if not clips:
        return None
    kinds = {clip.kind: clip.path for clip in reversed(clips) if clip.kind}
    if len(kinds) > 1:
        got = " and ".join(f"{kind} in {place.name}" for kind, place in kinds.items())
        raise FormatError(message(str(path), "clips of one format", got))
    (kind,) = kinds
    options = _Options(kind, persons, layout, threshold)
    first = _first(clips, options)
    files = [[*_files(clip.path)] for clip in clips]
    sided = any(clip.side for clip in clips)
    return ClipSource(
        format=kind,
        layout=first.layout,
        assumed=layout is None and kind == "pose arrays",
        files=[*chain(*files)],
        num_clips=len(clips),
        readers=[
            _Reader(clips[start : start + 32], options, first) for start in range(0, len(clips), 32)
        ],
        splits=("given",) if sided else (),
        classes=tuple(classes),
    )


class _Place(NamedTuple):
    """Where a clip is and what its folders say about it; ``kind`` is empty for unknown files."""

    path: Path
    name: str
    kind: str
    label: int = -1
    action: str = ""
    side: str = ""


class _Options(NamedTuple):
    kind: str
    persons: int
    layout: SkeletonLayout | None
    threshold: float


class _Like(NamedTuple):
    """What all clips of a source have in common, and the clip that has decided it."""

    layout: SkeletonLayout
    channels: int
    unit: str
    path: Path


# ----------------------------------------------------------------------------------- the folders


def _find(path: Path, layout: SkeletonLayout | None) -> tuple[list[_Place], list[str]]:
    """Find the clips at a path, and the names of the classes."""
    if not path.is_dir() or _is_frames(path):
        kind = kind_of(path, layout)
        name = path.name if path.is_dir() else path.stem
        return ([_Place(path, name, kind)] if kind else []), []
    if not _holds_clips(path, layout, depth=2):
        return [], []
    clips = _clips_in(path, layout)
    inner = folders_in(path)
    if clips:
        for folder in inner:
            if not _is_frames(folder) and _clips_in(folder, layout):
                expected = "clips either in a folder or in one folder for each class"
                raise FormatError(message(str(path), expected, f"both, such as {folder.name}"))
        return [_Place(place, _stem(place), kind) for place, kind in clips], []
    sides = [folder for folder in inner if folder.name in _SIDES]
    for above in sides:
        if _clips_in(above, layout):
            raise FormatError(message(str(above), "one folder for each class", "clips"))
    by_class = []
    for folder in inner:
        if folder not in sides:
            by_class.append((folder, "", _clips_in(folder, layout)))
    if sides:
        if any(clips for *_, clips in by_class):
            expected = "either classes, or train and test folders that hold classes"
            raise FormatError(message(str(path), expected, ", ".join(one.name for one in inner)))
        called = [above.name for above in sides]
        by_class = []
        for above in sides:
            if above.name == "val" and "test" in called:
                continue
            for folder in folders_in(above):
                by_class.append((folder, _SIDES[above.name], _clips_in(folder, layout)))
    for folder, _, _ in by_class:
        for deeper in folders_in(folder):
            if not _is_frames(deeper) and _clips_in(deeper, layout):
                expected = "clips directly in the folder of each class"
                raise FormatError(message(str(folder), expected, f"clips in {deeper.name}"))
    classes = sorted({folder.name for folder, _, clips in by_class if clips})
    places = []
    for folder, side, clips in by_class:
        # A class without a clip that can be read must not be left out in silence.
        for place, kind in clips or [(file, "") for file in _pose_files(folder)]:
            name = place.relative_to(path).with_name(_stem(place)).as_posix()
            label = classes.index(folder.name) if clips else -1
            places.append(_Place(place, name, kind, label, folder.name, side))
    return places if classes else [], classes


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _is_frames(folder: Path) -> bool:
    return bool(kind_of(folder))


def _clips_in(folder: Path, layout: SkeletonLayout | None) -> list[tuple[Path, str]]:
    """The clips directly in a folder with their formats; none if no format is known.

    Files of an unknown format beside clips are probably damaged clips, and are listed, too.
    """
    clips = [(file, kind_of(file, layout)) for file in _pose_files(folder)]
    clips += [(inner, kind_of(inner)) for inner in folders_in(folder) if _is_frames(inner)]
    return clips if any(kind for _, kind in clips) else []


def _pose_files(folder: Path) -> list[Path]:
    """The files of a folder that could hold poses, by their names."""
    files = [file for suffix in SUFFIXES for file in files_in(folder, suffix)]
    return sorted(files, key=str)  # on Windows, paths are compared without regard to case


def _holds_clips(folder: Path, layout: SkeletonLayout | None, depth: int) -> bool:
    """Look for a clip among the first files and folders, so that other data sets cost no time."""
    files = [file for suffix in SUFFIXES for file in files_in(folder, suffix)[:20]]
    if any(kind_of(file, layout) for file in files):
        return True
    inner = folders_in(folder)
    if any(_is_frames(one) for one in inner[:20]):
        return True
    return depth > 0 and any(_holds_clips(one, layout, depth - 1) for one in inner[:5])


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from files_in(path, FRAME)
    else:
        yield path


# ------------------------------------------------------------------------------------- the clips


def _first(clips: Sequence[_Place], options: _Options) -> _Like:
    """Read until a clip tells skeleton, channels and unit; raise the first error if none does."""
    problem: FormatError | None = None
    for clip in clips:
        try:
            found = read_people(clip.path, clip.kind, options.layout)
            return _like(clip.path, found)
        except FormatError as error:
            problem = problem or error
    raise problem or FormatError(message("open_poses", "a clip", "none"))


def _like(path: Path, found: Detections) -> _Like:
    pose = next(people[0][0] for people in found.people if people)
    if found.layout is None:
        raise FormatError(message(str(path), "a known skeleton", "none"))
    return _Like(found.layout, pose.shape[1] - found.places, found.unit, path)


@dataclass(frozen=True)
class _Reader:
    """Reads one clip after the other when called."""

    clips: Sequence[_Place]
    options: _Options
    first: _Like

    def __call__(self) -> Iterator[ClipFile | FormatError]:
        for clip in self.clips:
            try:
                yield self._read(clip)
            except FormatError as error:
                yield error

    def _read(self, clip: _Place) -> ClipFile:
        if not clip.kind:
            if self.options.kind == ARRAYS and clip.path.suffix in (".npy", ".npz"):
                read_people(clip.path, ARRAYS, self.options.layout)  # its error names the reason
            first = self.first.path
            expected = f"{self.options.kind} as in {first.parent.name}/{first.name}"
            raise FormatError(message(str(clip.path), expected, "another file"))
        found = read_people(clip.path, clip.kind, self.options.layout)
        like = _like(clip.path, found)
        for what, got, expected in (
            ("", like.layout.name, self.first.layout.name),
            ("C=", str(like.channels), str(self.first.channels)),
            ("", like.unit, self.first.unit),
        ):
            if got != expected:
                wanted = f"{what}{expected} as in {self.first.path.name}"
                raise FormatError(message(str(clip.path), wanted, f"{what}{got}"))
        x, visibility = _arrange(clip.path, found, like, self.options)
        return ClipFile(
            clip.name,
            x,
            clip.label,
            visibility=None if (visibility == 1).all() else visibility,
            sides={"given": clip.side} if clip.side else {},
            action=clip.action,
        )


def _arrange(
    path: Path, found: Detections, like: _Like, options: _Options
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Follow the people, choose those that are kept, and scale: x and visibility of a clip."""
    joints = like.layout.num_joints
    width = like.channels + found.places
    people = []
    ids = []
    for of_frame in found.people:
        poses = np.zeros((len(of_frame), joints, width), np.float32)
        scores = np.zeros((len(of_frame), joints), np.float32)
        for i, (pose, score, _) in enumerate(of_frame):
            poses[i] = pose
            scores[i] = score
        scores[scores < options.threshold] = 0
        if like.channels == 2:
            scores[~poses.any(2)] = 0  # an estimator's (0, 0): not found
        people.append((poses, scores))
        ids.append([track for _, _, track in of_frame])
    # Depths in a picture are too uncertain to tell people apart.
    compared = 2 if like.unit == PICTURE or found.places else None
    usable = all(min(names, default=0) >= 0 and len({*names}) == len(names) for names in ids)
    tracks = _by_id(people, ids) if usable else follow(people, channels=compared)
    bodies = join_tracks(tracks, metres=False, channels=compared)
    slots = share_slots(bodies, options.persons)
    if not slots:
        expected = "a joint with a score above 0"
        if options.threshold:
            expected = f"a joint with a score of at least {options.threshold}"
        raise FormatError(message(str(path), expected, f"none in {len(people)} frames"))
    x, visibility = clip_of(slots, len(people), joints, width, options.persons)
    x = x[found.places :]
    if like.unit == PICTURE:
        sizes = np.concatenate([extents(slot.poses[..., :2], slot.seen) for slot in slots])
        known = sizes[sizes > 0]
        size = float(np.median(known)) if len(known) else 1.0
        # Dividing by less would overflow: the only bodies with an extent are specks.
        x = x / np.float32(size if size > 1e-6 * np.abs(x).max() else 1.0)
    return np.ascontiguousarray(x, np.float32), visibility


def _by_id(
    people: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]], ids: Sequence[Sequence[int]]
) -> list[tuple[int, Track]]:
    """The track of each id; where nothing of a person was seen, there is no observation."""
    rows: dict[int, list[tuple[int, int]]] = {}
    for t, names in enumerate(ids):
        for i, name in enumerate(names):
            if people[t][1][i].any():
                rows.setdefault(name, []).append((t, i))
    tracks = []
    for name, at in rows.items():
        poses = np.stack([people[t][0][i] for t, i in at])
        seen = np.stack([people[t][1][i] for t, i in at])
        tracks.append((name, Track(np.array([t for t, _ in at]), poses, seen)))
    return tracks
