"""Test NTU RGB+D: the real files number by number, the main bodies, and every wrong file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_readers import read_ntu as read_ntu_plainly

from skeleton_focus import NTU25, open_dataset
from skeleton_focus._bodies import Track, fill_gaps, join_tracks, main_bodies
from skeleton_focus.format_ntu import _tracks, open_ntu, read_ntu
from skeleton_focus.formats import FormatError

NAME = "S001C002P003R002A051"
STANDING = np.zeros((25, 3), np.float32)
STANDING[:, 1] = np.linspace(0, 1.7, 25)
STANDING[:, 0] = np.linspace(-0.2, 0.2, 25)

Frames = list[Mapping[str, np.ndarray]]


def body(
    name: str, pose: np.ndarray, states: Any = 2, header: str = "0 1 1 1 1 0 0.1 -0.2 2"
) -> list[str]:
    states = np.broadcast_to(states, 25)
    rows = [
        f"{x!r} {y!r} {z!r} 270.5 190 1030 510.25 0 0 0 1 {s}"
        for (x, y, z), s in zip(pose.tolist(), states, strict=True)
    ]
    return [f"{name} {header}", "25", *rows]


def skeleton(frames: Frames, states: Any = 2) -> str:
    lines = [str(len(frames))]
    for frame in frames:
        lines.append(str(len(frame)))
        for name, pose in frame.items():
            lines += body(name, pose, states)
    return "\n".join(lines) + "\n"


def write(folder: Path, text: str | bytes, name: str = NAME) -> Path:
    path = folder / f"{name}.skeleton"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def walk(t: int, x: float = 0.0, step: float = 0.02, wave: float = 0.1) -> np.ndarray:
    """A body in frame t that walks along x and moves its hands."""
    pose = STANDING + np.float32([x + step * t, 0, 3])
    pose[7] += np.float32([0, wave * np.sin(t), 0])
    return pose.astype(np.float32)


# ----------------------------------------------------------------------------------- the real files


def test_the_real_files_hold_the_numbers_of_their_text(ntu_files: list[Path]) -> None:
    assert len(ntu_files) == 2
    for path in ntu_files:
        lines = path.read_text().splitlines()
        clip = read_ntu(path)
        frames = int(lines[0])
        assert clip.x.shape == (3, frames, 25, 2) and clip.x.dtype == np.float32
        assert not clip.x[..., 1].any()
        for t in range(frames):
            start = 1 + 28 * t  # one body a frame: 1, a body's line, 25, 25 joints
            assert (lines[start], lines[start + 2]) == ("1", "25")
            for v in range(25):
                fields = lines[start + 3 + v].split()
                assert clip.x[:, t, v, 0].tolist() == [
                    np.float32(float(field)) for field in fields[:3]
                ]
        assert clip.visibility is not None
        assert clip.visibility[..., 0].all() and not clip.visibility[..., 1].any()


def test_what_the_real_names_say(ntu_files: list[Path]) -> None:
    first, second = map(read_ntu, ntu_files)
    assert (first.name, first.setup, first.view, first.subject, first.label) == (
        "S001C001P001R001A011",
        1,
        1,
        1,
        10,
    )
    assert (second.setup, second.view, second.subject, second.label) == (3, 1, 15, 33)
    assert (first.action, second.action) == ("reading", "rub two hands")
    assert first.sides == second.sides == {"xsub": "train", "xview": "test", "xset": "test"}


def test_the_real_folder(ntu_files: list[Path]) -> None:
    source = open_ntu(ntu_files[0].parent)
    assert source is not None and (source.format, source.num_clips) == ("NTU RGB+D 60", 2)
    assert source.splits == ("xsub", "xview") and len(source.classes) == 60
    with pytest.raises(ValueError, match=r"expected test clips of split 'xsub', got none in "):
        open_dataset(ntu_files[0].parent)


# ---------------------------------------------------------------------------------- the main bodies


def test_both_actors_the_livelier_first(tmp_path: Path) -> None:
    frames: Frames = [{"11": walk(t, step=0), "22": walk(t, x=2.0, step=0.05)} for t in range(20)]
    clip = read_ntu(write(tmp_path, skeleton(frames)))
    assert clip.visibility is None
    for t in range(20):
        assert np.array_equal(clip.x[:, t, :, 0].T, walk(t, x=2.0, step=0.05))
        assert np.array_equal(clip.x[:, t, :, 1].T, walk(t, step=0))
    alone = read_ntu(write(tmp_path, skeleton(frames)), persons=1)
    assert alone.x.shape == (3, 20, 25, 1) and np.array_equal(alone.x[..., 0], clip.x[..., 0])
    assert read_ntu(write(tmp_path, skeleton(frames)), persons=3).x.shape == (3, 20, 25, 3)


def test_a_third_that_moves_less_is_left_out(tmp_path: Path) -> None:
    frames: Frames = []
    for t in range(20):
        frames.append({str(m): walk(t, x=2.0 * m, step=0.01 * m) for m in range(3)})
    clip = read_ntu(write(tmp_path, skeleton(frames)))
    assert np.array_equal(clip.x[:, 5].transpose(2, 1, 0), [walk(5, 4.0, 0.02), walk(5, 2.0, 0.01)])


def test_spurious_bodies_go(tmp_path: Path) -> None:
    chair = STANDING[:, [1, 0, 2]] + np.float32([3, 0, 3])  # broad and low, and jumping about
    frames: Frames = [
        {
            "1": walk(t),
            "2": chair + np.float32([0.3 * (t % 2), 0, 0]),
            **({"3": walk(t, -3.0, 1.0)} if t < 5 else {}),
        }
        for t in range(30)
    ]
    clip = read_ntu(write(tmp_path, skeleton(frames)))
    assert np.array_equal(clip.x[:, 7, :, 0].T, walk(7)) and not clip.x[..., 1].any()
    lying = read_ntu(write(tmp_path, skeleton([{"2": frame["2"]} for frame in frames])))
    assert np.array_equal(lying.x[:, 7, :, 0].T, frames[7]["2"])  # if all look spurious, none is


def test_an_id_that_changes_is_joined(tmp_path: Path) -> None:
    frames: Frames = [
        {("1" if t < 12 else "9") if t not in (12, 13) else "": walk(t)} for t in range(30)
    ]
    frames = [{name: pose for name, pose in frame.items() if name} for frame in frames]
    clip = read_ntu(write(tmp_path, skeleton(frames)))
    assert clip.visibility is not None and not clip.visibility[..., 1].any()
    for t in range(30):
        lost = t in (12, 13)
        assert clip.visibility[t, :, 0].all() == (not lost)
        assert np.array_equal(clip.x[:, t, :, 0].T, np.zeros((25, 3)) if lost else walk(t))


def test_missing_frames_are_filled_on_request(tmp_path: Path) -> None:
    frames: Frames = [{} if t in (0, 8, 9, 29) else {"1": walk(t, wave=0)} for t in range(30)]
    clip = read_ntu(write(tmp_path, skeleton(frames)), missing="fill")
    assert clip.visibility is not None
    seen = clip.visibility[..., 0].all(1)
    # Nothing is invented before and after.
    assert seen.tolist() == [t not in (0, 29) for t in range(30)]
    for t in (8, 9):
        np.testing.assert_allclose(clip.x[:, t, :, 0].T, walk(t, wave=0), rtol=1e-5)
    assert not clip.x[:, [0, 29]].any()


def test_joints_the_camera_lost(tmp_path: Path) -> None:
    states = np.full(25, 2)
    states[[3, 20]] = 0
    states[5] = 1
    clip = read_ntu(write(tmp_path, skeleton([{"1": walk(t)} for t in range(3)], states)))
    assert clip.visibility is not None
    assert [v for v in range(25) if not clip.visibility[:, v, 0].any()] == [3, 20]
    assert not clip.x[:, :, [3, 20]].any() and clip.x[:, :, 5, 0].all(1).any()


@given(st.lists(st.integers(0, 2), min_size=2, max_size=30), st.integers(0, 5))
def test_every_frame_of_every_track_is_in_one_body(ids: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    tracks = []
    for one in sorted({*ids}):
        at = np.flatnonzero(np.array(ids) == one)
        poses = rng.standard_normal((len(at), 25, 3)).astype(np.float32)
        tracks.append(Track(at, poses, np.ones(poses.shape[:2], bool)))
    bodies = join_tracks(enumerate(tracks))
    assert sorted(t for body in bodies for t in body.frames.tolist()) == list(range(len(ids)))
    for joined in bodies:
        assert (np.diff(joined.frames) > 0).all() and len(joined.frames) == len(
            joined.poses
        ) == len(joined.seen)
        filled = fill_gaps(joined)
        assert filled.frames.tolist() == list(range(joined.frames[0], joined.frames[-1] + 1))
        assert np.array_equal(filled.poses[joined.frames - joined.frames[0]], joined.poses)
    main = main_bodies(bodies, len(ids), 2)
    assert 1 <= len(main) <= 2 and all(any(one is body for body in bodies) for one in main)


def track(frames: list[int], x: float, seen: Any = True) -> Track:
    poses = np.stack([STANDING + np.float32([x, 0, 3])] * len(frames))
    return Track(np.array(frames), poses, np.broadcast_to(seen, (len(frames), 25)))


def joined(*tracks: Track, ids: str = "abcdef") -> list[list[int]]:
    """The frames of each body; ids name the tracks."""
    return [body.frames.tolist() for body in join_tracks(zip(ids, tracks, strict=False))]


def test_who_is_too_far_away_is_another() -> None:
    assert len(joined(track([0, 1], 0.0), track([2, 3], 0.34))) == 1
    assert len(joined(track([0, 1], 0.0), track([2, 3], 0.36))) == 2
    assert len(joined(track([0, 1], 0.0), track([40, 41], 0.99))) == 1
    assert len(joined(track([0, 1], 0.0), track([40, 41], 1.01))) == 2
    assert joined(track([0, 1], 0.0), track([0, 1], 0.4), track([2, 3], 0.3)) == [
        [0, 1],
        [0, 1, 2, 3],
    ]
    assert len(joined(track([0, 1, 2], 0.0), track([2, 3], 0.0))) == 2  # both were there in frame 2
    assert len(joined(*(track([0, 1], 5.0 * i) for i in range(12)), ids="abcdefghijkl")) == 12


def test_an_id_that_comes_back_is_the_same_body() -> None:
    there = [*range(20), *range(40, 60)]
    # Another id meanwhile.
    assert joined(track(there, 0.0), track([*range(20, 40)], 0.1)) == [[*range(60)]]
    away = Track(
        np.array(there),
        np.stack([STANDING + np.float32([0.2 * t, 0, 3]) for t in there]),
        np.ones((40, 25), bool),
    )
    assert joined(away) == [there]  # far from where it was lost


def test_joints_that_nobody_saw_say_nothing() -> None:
    """An unseen joint, wherever it is, neither moves nor widens a body, nor parts two tracks."""
    seen = np.ones((30, 25), bool)
    seen[:, :8] = False
    still = track([*range(30)], -1.0, seen)
    walker = track([*range(30)], 1.0)
    still.poses[::2, :8] = 0
    still.poses[1::2, :8] = 50
    walker.poses[:, :, 0] += 0.01 * np.arange(30)[:, None]
    assert main_bodies([still, walker], 30, 1)[0] is walker
    assert [body is still for body in main_bodies([still, track([*range(11)], 3.0)], 30, 2)] == [
        True
    ]
    assert joined(Track(*(part[:15] for part in still)), Track(*(part[15:] for part in still))) == [
        [*range(30)]
    ]


def test_a_joint_that_no_frame_saw_stays_missing_when_gaps_are_filled() -> None:
    seen = np.ones((3, 25), bool)
    seen[:, 4] = False
    filled = fill_gaps(track([0, 2, 3], 0.0, seen))
    assert filled.frames.tolist() == [0, 1, 2, 3]
    assert not filled.seen[:, 4].any() and filled.seen[:, 5].all() and not filled.poses[:, 4].any()


@pytest.mark.parametrize(("frames", "kept"), [(11, 1), (12, 2)])
def test_short_tracks_are_spurious_in_long_clips_alone(frames: int, kept: int) -> None:
    long = track([*range(60)], 0.0)
    short = track([*range(frames)], 3.0)
    assert len(main_bodies([long, short], 60, 2)) == kept
    # More than half of it.
    assert len(main_bodies([track([*range(20)], 0.0), track([*range(11)], 3.0)], 20, 2)) == 2


def test_many_ids_take_no_time() -> None:
    """A track for each frame, none near another: what a broken or hostile file may hold."""
    tracks = [track([t], 5.0 * t) for t in range(3000)]
    assert len(join_tracks(enumerate(tracks))) == 3000


# ---------------------------------------------------------------------------------------- the names


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("S018C003P038R001A061", {"xsub": "train", "xview": "train", "xset": "train"}),
        ("S017C002P039R001A060", {"xsub": "test", "xview": "train", "xset": "test"}),
        ("S032C001P106R002A120", {"xsub": "test", "xview": "test", "xset": "train"}),
        ("S031C001P103R002A120", {"xsub": "train", "xview": "test", "xset": "test"}),
    ],
)
def test_sides_follow_the_name(tmp_path: Path, name: str, sides: dict[str, str]) -> None:
    assert read_ntu(write(tmp_path, skeleton([{"1": walk(0)}]), name)).sides == sides


# As the publishers print them.
XSUB_60 = "1 2 4 5 8 9 13 14 15 16 17 18 19 25 27 28 31 34 35 38"
XSUB_120 = f"""{XSUB_60} 45 46 47 49 50 52 53 54 55 56 57 58 59 70 74 78
80 81 82 83 84 85 86 89 91 92 93 94 95 97 98 100 103"""


def test_every_performer_stands_where_the_publishers_say(tmp_path: Path) -> None:
    text = skeleton([{"1": walk(0)}])
    for performer in range(1, 107):
        name = f"S001C001P{performer:03d}R001A001"
        side = read_ntu(write(tmp_path, text, name)).sides["xsub"]
        assert side == ("train" if str(performer) in XSUB_120.split() else "test"), performer
    assert (
        all(performer in XSUB_120.split() for performer in XSUB_60.split())
        and len(XSUB_120.split()) == 53
    )


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("S017C001P001R001A060", "NTU RGB+D 60"),
        ("S018C001P001R001A001", "NTU RGB+D 120"),
        ("S017C001P001R001A061", "NTU RGB+D 120"),
        ("S001C001P001R001A121", "NTU RGB+D 60"),
    ],
)
def test_which_ntu_it_is(tmp_path: Path, name: str, found: str) -> None:
    write(tmp_path, "", name)
    source = open_ntu(tmp_path)
    assert source is not None and source.format == found


def test_ntu_120_is_told_by_its_names(tmp_path: Path) -> None:
    for name in ("S001C001P001R001A001", "S018C001P002R001A001"):
        write(tmp_path, skeleton([{"1": walk(0)}]), name)
    source = open_ntu(tmp_path)
    assert (
        source is not None
        and source.format == "NTU RGB+D 120"
        and source.splits == ("xsub", "xset")
    )
    split = open_dataset(tmp_path, split="xset", cache=False)
    assert split.train.names == ("S018C001P002R001A001",) and len(split.train.classes) == 120
    assert split.train.layout is NTU25 and split.train.classes[119] == "rock-paper-scissors"


def test_ntu_120_in_two_folders(tmp_path: Path) -> None:
    for folder, name in (
        ("a", "S001C001P001R001A001"),
        ("b", "S018C001P003R001A001"),
        ("b", "S001C001P001R001A001"),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        write(tmp_path / folder, skeleton([{"1": walk(0)}]), name)
    with pytest.raises(
        FormatError,
        match="clip 'S001C001P001R001A001': expected each clip once, got another clip of this name",
    ):
        open_dataset(tmp_path)
    (tmp_path / "b" / "S001C001P001R001A001.skeleton").unlink()
    split = open_dataset(tmp_path)
    assert split.train.names == ("S001C001P001R001A001",) and split.test.names == (
        "S018C001P003R001A001",
    )


@pytest.mark.parametrize(
    "name",
    [
        "S001C001P001R001A000",
        "S000C001P001R001A001",
        "S001C001P000R001A001",
        "S001C001P001R001A121",
        "S1C001P001R001A001",
        "x",
        "S001C001P001R001A001_x",
    ],
)
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        FormatError,
        match=r"expected a name SsssCcccPpppRrrrAaaa\.skeleton, numbers from 1, "
        r"with an action in 1\.\.120",
    ):
        read_ntu(write(tmp_path, skeleton([{"1": walk(0)}]), name))


# -------------------------------------------------------------------------------------- bad content

GOOD = skeleton([{"72057594037931648": walk(0)}, {}, {"72057594037931648": walk(2), "7": walk(2)}])
LINES = GOOD.splitlines()


def changed(line: int, to: str | None) -> str:
    """The good text with one line, from 1, replaced or left out."""
    lines = [*LINES]
    lines[line - 1 : line] = [] if to is None else [to]
    return "\n".join(lines) + "\n"


def field(line: int, number: int, to: str) -> str:
    fields = LINES[line - 1].split()
    fields[number] = to
    return changed(line, " ".join(fields))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", r", line 1: expected the number of frames, up to 10000, got 'the end of the file'"),
        (
            "\n\n",
            r", line 1: expected the number of frames, up to 10000, got 'the end of the file'",
        ),
        ("0\n", r": expected at least one body in a frame, got 0 in 0 frames"),
        ("2\n0\n0\n", r": expected at least one body in a frame, got 0 in 2 frames"),
        (
            changed(1, "2000000000"),
            r", line 1: expected the number of frames, up to 10000, got '2000000000'",
        ),
        (
            changed(1, "20000000"),
            r", line 1: expected the number of frames, up to 10000, got '20000000'",
        ),
        (
            changed(1, "10000"),
            r", line 86: expected the number of bodies in frame 4 of 10000, got 'the end of",
        ),
        (
            changed(1, "20001") + "0\n" * 19998,
            r", line 1: expected the number of frames, up to 10000, got '20001'",
        ),
        (changed(1, "2"), r", line 31: expected the end of the file after 2 frames, got '2'"),
        (changed(1, "-3"), r", line 1: expected the number of frames, up to 10000, got '-3'"),
        (changed(1, "3.0"), r", line 1: expected the number of frames, up to 10000, got '3\.0'"),
        (changed(1, "3 3"), r", line 1: expected the number of frames, up to 10000, got '3 3'"),
        (changed(2, "2"), r", line 30: expected the 10 fields of a body, got '0'"),
        (
            changed(2, "0"),
            r", line 3: expected the number of bodies in frame 2 of 3, got '72057594037931648 0 1",
        ),
        (changed(30, "99999999"), r", line 31: expected the 10 fields of a body, got '2'"),
        (changed(4, "20"), r", line 4: expected 25 joints, got '20'"),
        (changed(4, "26"), r", line 4: expected 25 joints, got '26'"),
        (
            changed(3, "1 0 1 1 1 1 0 0.1 2"),
            r", line 3: expected the 10 fields of a body, got '1 0 1 1 1 1 0 0\.1 2'",
        ),
        (changed(9, None), r", line 29: expected the 12 fields of a joint, got '0'"),
        (changed(9, LINES[8] + " 1"), r", line 9: expected the 12 fields of a joint, got "),
        (changed(9, ""), r", line 9: expected the 12 fields of a joint, got ''"),
        (GOOD + "5\n", r", line 86: expected the end of the file after 3 frames, got '5'"),
        (field(9, 0, "x"), r", line 9: expected numbers, got 'x'"),
        (field(9, 6, "1,5"), r", line 9: expected numbers, got '1,5'"),
        (field(9, 10, "1.2.3"), r", line 9: expected numbers, got '1\.2\.3'"),
        (field(3, 7, "é"), r", line 3: expected numbers, got '.*xc3.*xa9'"),
        (field(9, 4, "1_0"), r", line 9: expected numbers, got '1_0'"),
        (field(9, 2, "nan"), r", line 9: expected finite x, y and z, got '.* nan 270\.5"),
        (field(61, 0, "-inf"), r", line 61: expected finite x, y and z, got '-inf "),
        (field(9, 1, "1e39"), r", line 9: expected finite x, y and z, got "),
        (field(9, 1, "9" * 400), r", line 9: expected finite x, y and z, got "),
        (field(9, 11, "3"), r", line 9: expected a tracking state 0, 1 or 2 at the end, got "),
        (field(9, 11, "-1"), r", line 9: expected a tracking state 0, 1 or 2 at the end, got "),
        (field(9, 11, "2.0"), r", line 9: expected a tracking state 0, 1 or 2 at the end, got "),
        (
            GOOD.replace("\n7 0", "\n72057594037931648 0"),
            r", line 59: expected each body id once in a frame, got",
        ),
        (GOOD[: len(GOOD) // 2], r", line \d+: expected "),
        (GOOD.replace(" ", "\t\0", 1), r", line 3: expected numbers, got '.*x00"),
        (
            "\r\n".join(LINES[:9]) + "\r" + "\r\n".join([*LINES[9:], ""]),
            r", line 9: expected the 12 fields of a joint",
        ),
        (
            GOOD.replace("\n", "\r"),
            r", line 1: expected the number of frames, up to 10000, got '3 1 72057",
        ),
        (b"\xef\xbb\xbf" + GOOD.encode(), r", line 1: expected numbers, got "),
        (GOOD.encode("utf-16"), r", line 1: expected numbers, got "),
        (b"\0" * 1000, r", line 1: expected numbers, got "),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str | bytes, error: str) -> None:
    with pytest.raises(FormatError, match=rf"{NAME}\.skeleton{error}") as caught:
        read_ntu(write(tmp_path, text))
    assert len(str(caught.value)) < len(str(tmp_path)) + 250


@pytest.mark.parametrize(
    "text",
    [GOOD, GOOD.replace("\n", "\r\n"), GOOD.rstrip("\n"), GOOD + "\n \n", GOOD.replace(" ", "  ")],
)
def test_what_is_as_good(tmp_path: Path, text: str) -> None:
    clip = read_ntu(write(tmp_path, text))
    plain = read_ntu(write(tmp_path, GOOD))
    assert np.array_equal(clip.x, plain.x) and np.array_equal(clip.visibility, plain.visibility)


@pytest.mark.parametrize("number", [3, 6, 10])
def test_what_is_not_read_may_be_not_finite(tmp_path: Path, number: int) -> None:
    """Depth, colour and orientation: of a joint out of the picture they can be anything."""
    assert np.array_equal(
        read_ntu(write(tmp_path, field(9, number, "NaN"))).x, read_ntu(write(tmp_path, GOOD)).x
    )


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{NAME}.skeleton").symlink_to(tmp_path / f"{NAME}.skeleton")
    with pytest.raises(
        FormatError,
        match=r"expected a file that can be read, got Too many levels of symbolic links",
    ):
        read_ntu(tmp_path / f"{NAME}.skeleton")
    (tmp_path / "S001C001P001R001A001.skeleton").mkdir()
    with pytest.raises(FormatError, match=r"A001\.skeleton: expected a plain file, got a folder"):
        read_ntu(tmp_path / "S001C001P001R001A001.skeleton")
    os.mkfifo(tmp_path / "S001C001P001R001A002.skeleton")
    with pytest.raises(
        FormatError, match=r"A002\.skeleton: expected a plain file, got a device or pipe"
    ):
        read_ntu(tmp_path / "S001C001P001R001A002.skeleton")
    path = write(tmp_path, GOOD, "S001C001P001R001A003")
    path.chmod(0)
    opened = os.open

    def refused(name: Any, *arguments: Any) -> int:  # what a user who is not root meets
        if name == path:
            raise PermissionError(13, "Permission denied", str(name))
        return opened(name, *arguments)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(
        FormatError,
        match=r"A003\.skeleton: expected a file that can be read, got Permission denied",
    ):
        read_ntu(path)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"persons": 0}, "persons of at least 1, got 0"),
        ({"missing": "drop"}, "missing to be one of"),
    ],
)
def test_options_that_are_none(tmp_path: Path, options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=f"^read_ntu: expected {error}"):
        read_ntu(write(tmp_path, GOOD), **options)


@given(st.data())
def test_random_files_are_read_as_a_plain_reader_reads_them(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    frames: Frames = [
        {
            str(name): (rng.standard_normal((25, 3)) * 10.0 ** rng.integers(-6, 7)).astype(
                np.float32
            )
            for name in rng.permutation(3)[: rng.integers(0, 4)]
        }
        for _ in range(data.draw(st.integers(1, 12)))
    ]
    if not any(frames):
        frames[0] = {"5": walk(0)}
    path = write(tmp_path_factory.getbasetemp(), skeleton(frames))
    bodies = read_ntu_plainly(path)[1]
    found = _tracks(path, path.read_bytes())[1]
    assert {*found} == {*bodies}
    for name, seen in bodies.items():
        assert found[name].frames.tolist() == [t for t, _ in seen]
        rows = np.array([rows for _, rows in seen])  # (t, 25, 12)
        assert np.array_equal(found[name].poses, rows[..., :3].astype(np.float32))
        assert np.array_equal(found[name].seen, rows[..., 11] > 0)


@pytest.mark.parametrize("state", [0, 2])
def test_a_clip_in_which_nobody_was_seen(tmp_path: Path, state: int) -> None:
    pose = walk(0) if state == 0 else np.zeros((25, 3), np.float32)
    with pytest.raises(
        FormatError,
        match=r"expected a joint that was seen, at a position that is not 0, got none in any",
    ):
        read_ntu(write(tmp_path, skeleton([{"1": pose}] * 3, state)))


def test_a_folder_inside_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(
            tmp_path / folder,
            skeleton([{"1": walk(0)}]),
            f"S001C001P00{1 + 2 * (folder == 'b')}R001A001",
        )
    listed = os.listdir

    def refused(folder: Path) -> list[str]:
        if folder == tmp_path / "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    assert len(open_dataset(tmp_path, cache=False).train) == 1
    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(
        FormatError, match=r"/b: expected a folder that can be read, got Permission denied"
    ):
        open_dataset(tmp_path, cache=False)


def test_a_long_token_takes_no_time(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"line 9: expected numbers, got '11111"):
        read_ntu(write(tmp_path, field(9, 3, "1" * 200_000 + "x")))
