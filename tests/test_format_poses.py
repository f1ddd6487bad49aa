"""Test what pose estimators write, to the letter of each format, and every way it can be wrong."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skeleton_focus import COCO17, NTU25, SkeletonLayout, open_clips, open_dataset
from skeleton_focus._pose_files import read_people
from skeleton_focus.datasets import recognize
from skeleton_focus.format_poses import open_poses
from skeleton_focus.formats import ClipFile, ClipSource, FormatError

RNG = np.random.default_rng(0)


def body(joints: int, x: float = 0.0, size: float = 200.0, t: int = 0) -> np.ndarray:
    """A standing person of a picture (V, 2) in pixels, y down, who walks."""
    ways = np.random.default_rng(joints).uniform(-0.15, 0.15, joints)
    pose = np.stack([ways, np.linspace(0, 1, joints)], 1)
    return np.float64(pose * size + np.array([x + 4 * t + 50, 100])).round(3)


def flat(pose: np.ndarray, score: float = 0.9) -> list[float]:
    """x, y, score side by side."""
    return np.concatenate([pose, np.full((len(pose), 1), score)], 1).flatten().tolist()


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif isinstance(content, dict) and path.suffix == ".npz":
        np.savez(path, **content)
    elif isinstance(content, str):
        path.write_text(content)
    else:
        path.write_text(json.dumps(content))
    return path


def source(path: Path, **options: Any) -> ClipSource:
    opened = open_poses(path, **options)
    assert opened is not None
    return opened


def clips_of(path: Path, **options: Any) -> list[ClipFile]:
    clips = []
    for clip in source(path, **options).read():
        assert not isinstance(clip, FormatError), clip
        clips.append(clip)
    return clips


def clip_of(path: Path, **options: Any) -> ClipFile:
    (clip,) = clips_of(path, **options)
    return clip


def unscaled(clip: ClipFile, size: float) -> np.ndarray:
    """The positions (T, M, V, C) in the file's unit."""
    return clip.x.transpose(1, 3, 2, 0) * size


# ------------------------------------------------------------------- as each of them writes its own


def openpose_person(pose: np.ndarray, score: float = 0.9, track: int = -1) -> dict[str, Any]:
    """As OpenPose 1.7 writes a person."""
    empty = ("face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d")
    none: dict[str, list[float]] = {key: [] for key in (*empty, "pose_keypoints_3d")}
    return {"person_id": [track], "pose_keypoints_2d": flat(pose, score), **none}


def openpose(folder: Path, frames: list[list[dict[str, Any]]], first: int = 0) -> Path:
    for t, people in enumerate(frames):
        name = f"video_{first + t:012d}_keypoints.json"
        put(folder / name, {"version": 1.3, "people": people})
    return folder


def alphapose_person(
    image: Any, pose: np.ndarray, score: float = 0.9, **more: Any
) -> dict[str, Any]:
    """As AlphaPose writes a person of its list."""
    box = [1.0, 2.0, 3.0, 4.0]
    return {
        "image_id": image,
        "category_id": 1,
        "keypoints": flat(pose, score),
        "score": 2.9,
        "box": box,
        **more,
    }


def mmpose_person(pose: np.ndarray, score: float = 0.9, **more: Any) -> dict[str, Any]:
    """As MMPose's inferencer writes an instance."""
    scores = [score] * len(pose)
    people = {"keypoints": pose.tolist(), "keypoint_scores": scores}
    return {**people, "bbox": [[1.0, 2.0, 3.0, 4.0]], "bbox_score": 0.9, **more}


def mmpose(frames: list[list[dict[str, Any]]]) -> dict[str, Any]:
    info = [{"frame_id": t + 1, "instances": people} for t, people in enumerate(frames)]
    return {"meta_info": {"dataset_name": "coco", "num_keypoints": 17}, "instance_info": info}


def landmarks(points: np.ndarray, visibility: float = 0.9) -> list[dict[str, float]]:
    rows = points.round(6).tolist()
    return [{"x": x, "y": y, "z": z, "visibility": visibility} for x, y, z in rows]


def in_shares(t: int = 0, x: float = 0.2) -> np.ndarray:
    """MediaPipe's landmarks (33, 3): shares of the picture, z about the hips."""
    pose = body(33, t=t) / np.array([1000, 400]) + np.array([x, 0])
    return np.concatenate([pose, np.linspace(-0.1, 0.1, 33)[:, None]], 1)


def in_metres(t: int = 0) -> np.ndarray:
    pose = np.concatenate([body(33, t=t) / 200, np.linspace(-0.1, 0.1, 33)[:, None]], 1)
    return np.float64(pose - pose[23:25].mean(0))


def wide_csv(frames: list[np.ndarray | None], names: str, first: int = 0, extra: str = "") -> str:
    """A row a frame; ``names`` is a pattern of a column's name."""
    columns = [
        names.format(c=c, v=v + first)
        for v in range(33)
        for c in (*"xyz", "visibility" if "landmark" in names else "v")
    ]
    lines = [",".join([*extra.split(), *columns])]
    for points in frames:
        row = [""] * 132
        if points is not None:
            row = [f"{n:.6f}" for point in points for n in (*point, 0.9)]
        lines.append(",".join([*(["0.5"] * len(extra.split())), *row]))
    return "\n".join(lines) + "\n"


def long_csv(frames: dict[int, np.ndarray]) -> str:
    lines = ["frame,landmark,x,y,z,visibility"]
    for t, points in frames.items():
        lines += [f"{t},{v},{x:.6f},{y:.6f},{z:.6f},0.9" for v, (x, y, z) in enumerate(points)]
    return "\r\n".join(lines) + "\r\n"


@pytest.mark.parametrize(("joints", "name"), [(25, "BODY25"), (18, "OPENPOSE18")])
def test_openpose(tmp_path: Path, joints: int, name: str) -> None:
    unseen = body(joints, t=1)
    unseen[3] = 0
    person = openpose_person(unseen)
    person["pose_keypoints_2d"][11] = 0.0
    frames = [[openpose_person(body(joints))], [person], [], [openpose_person(body(joints, t=3))]]
    folder = openpose(tmp_path / "a clip", frames, first=7)
    opened = source(folder)
    assert (opened.format, opened.layout.name, opened.splits) == ("OpenPose JSON", name, ())
    assert len(opened.files) == 4 and opened.num_clips == 1 and opened.classes == ()
    clip = clip_of(folder)
    assert (clip.name, clip.label, clip.action, clip.sides) == ("a clip", -1, "", {})
    assert clip.x.shape == (2, 4, joints, 2) and clip.x.dtype == np.float32
    assert clip.visibility is not None
    seen = np.full((4, joints), np.float32(0.9))
    seen[2] = 0
    seen[1, 3] = 0
    assert np.array_equal(clip.visibility[..., 0], seen) and not clip.visibility[..., 1].any()
    for t in (0, 1, 3):  # 200 pixels are the body's extent
        np.testing.assert_allclose(
            unscaled(clip, 200)[t, 0], unseen if t == 1 else body(joints, t=t), rtol=1e-5
        )
    assert not clip.x[:, 2].any()


def test_openpose_of_before_and_hands_alone(tmp_path: Path) -> None:
    old = {"pose_keypoints": flat(body(18)), "face_keypoints": []}
    hands = {"pose_keypoints_2d": [], "hand_left_keypoints_2d": [1.0] * 63}
    clip = clip_of(openpose(tmp_path, [[old], [hands, old]]))
    assert clip.visibility is not None and clip.visibility[..., 0].all()


@pytest.mark.parametrize(
    ("joints", "kept", "name"), [(17, 17, "COCO17"), (26, 26, "HALPE26"), (136, 26, "HALPE26")]
)
@pytest.mark.parametrize("image", ["{}.jpg", "frame_0{}.png", "{}"])
def test_alphapose(tmp_path: Path, joints: int, kept: int, name: str, image: str) -> None:
    people = [
        alphapose_person(image.format(t), body(joints, x, t=t), 1.02 if x else 0.8)
        for t in (10, 9, 12)  # as text, 10 comes before 9
        for x in (0.0, 500.0)
    ]
    path = put(tmp_path / "alphapose-results.json", people)
    opened = source(path)
    assert (opened.format, opened.layout.name) == ("AlphaPose JSON", name)
    clip = clip_of(path)
    assert clip.name == "alphapose-results" and clip.x.shape == (2, 4, kept, 2)
    assert clip.visibility is not None and clip.visibility.max() == 1
    assert (
        clip.visibility[:, 0].round(2).tolist()
        == np.float32([[1, 0.8], [1, 0.8], [0, 0], [1, 0.8]]).tolist()
    )
    size = np.ptp(body(joints)[:kept], axis=0).max()
    for frame, t in ((0, 9), (1, 10), (3, 12)):
        for m, x in ((0, 500.0), (1, 0.0)):
            np.testing.assert_allclose(
                unscaled(clip, size)[frame, m], body(joints, x, t=t)[:kept], rtol=1e-4
            )


def test_image_ids_that_are_numbers(tmp_path: Path) -> None:
    path = put(tmp_path / "a.json", [alphapose_person(t, body(17)) for t in (3, 5)])
    assert clip_of(path).x.shape[1] == 3


@pytest.mark.parametrize(
    ("joints", "kept", "name"), [(17, 17, "COCO17"), (26, 26, "HALPE26"), (133, 17, "COCO17")]
)
@pytest.mark.parametrize("form", ["instance_info", "frames", "lists"])
def test_mmpose(tmp_path: Path, joints: int, kept: int, name: str, form: str) -> None:
    frames = [[mmpose_person(body(joints, t=t), 0.5)] if t != 1 else [] for t in range(3)]
    content: Any = mmpose(frames)
    if form == "frames":
        content = content["instance_info"]
    elif form == "lists":
        content = frames
    path = put(tmp_path / "results_video.json", content)
    opened = source(path)
    assert (opened.format, opened.layout.name) == ("MMPose JSON", name)
    clip = clip_of(path)
    assert clip.x.shape == (2, 3, kept, 2) and clip.visibility is not None
    assert clip.visibility[:, 0, 0].tolist() == [0.5, 0, 0.5]
    size = np.ptp(body(joints)[:kept], axis=0).max()
    np.testing.assert_allclose(unscaled(clip, size)[2, 0], body(joints, t=2)[:kept], rtol=1e-4)


def test_a_joint_at_the_corner_of_the_picture_was_not_found(tmp_path: Path) -> None:
    pose = body(17)
    pose[3] = 0
    clip = clip_of(put(tmp_path / "a.json", mmpose([[mmpose_person(pose)]])))
    assert clip.visibility is not None
    assert [v for v in range(17) if not clip.visibility[0, v, 0]] == [3]


def test_one_picture_of_mmpose(tmp_path: Path) -> None:
    path = put(tmp_path / "a.json", [mmpose_person(body(17)), mmpose_person(body(17, 500.0))])
    clip = clip_of(path)
    assert clip.x.shape == (2, 1, 17, 2) and clip.x.any((0, 1, 2)).all()


SHARES = [in_shares(t) for t in range(4)]
METRES = [in_metres(t) for t in range(4)]


@pytest.mark.parametrize(
    "content",
    [
        [landmarks(SHARES[0]), None, landmarks(SHARES[2])],
        [landmarks(SHARES[0]), [], landmarks(SHARES[2])],
        [[landmarks(SHARES[0])], [], [landmarks(SHARES[2])]],
        [{"landmark": landmarks(SHARES[0])}, None, {"landmark": landmarks(SHARES[2])}],
        {"pose_landmarks": [landmarks(SHARES[0]), None, landmarks(SHARES[2])]},
        [{"pose_landmarks": landmarks(SHARES[0])}, {}, {"pose_landmarks": landmarks(SHARES[2])}],
    ],
)
def test_mediapipe_in_shares_of_the_picture(tmp_path: Path, content: Any) -> None:
    path = put(tmp_path / "a.json", content)
    opened = source(path)
    assert (opened.format, opened.layout.name) == ("MediaPipe landmarks", "MEDIAPIPE33")
    clip = clip_of(path)
    assert clip.x.shape == (3, 3, 33, 2) and not clip.x[:, 1].any()
    size = np.ptp(SHARES[0][:, :2], axis=0).max()
    for t in (0, 2):
        np.testing.assert_allclose(
            unscaled(clip, size)[t, 0], SHARES[t] * np.array([1, -1, -1]), rtol=1e-4, atol=1e-6
        )
    assert clip.visibility is not None and np.unique(clip.visibility).tolist() == [
        0,
        np.float32(0.9),
    ]


def both(t: int) -> dict[str, Any]:
    return {
        "pose_landmarks": landmarks(SHARES[t]),
        "pose_world_landmarks": landmarks(METRES[t]),
    }


@pytest.mark.parametrize(
    "content",
    [
        [both(0), None, both(2)],
        [{"world_landmarks": landmarks(METRES[0])}, {}, {"world_landmarks": landmarks(METRES[2])}],
        {"world_landmarks": [landmarks(METRES[0]), None, landmarks(METRES[2])]},
        {
            "pose_landmarks": [landmarks(SHARES[0]), None, landmarks(SHARES[2])],
            "pose_world_landmarks": [landmarks(METRES[0]), None, landmarks(METRES[2])],
        },
        [landmarks(METRES[0]), None, landmarks(METRES[2])],
    ],
)
def test_mediapipe_in_metres(tmp_path: Path, content: Any) -> None:
    clip = clip_of(put(tmp_path / "a.json", content))
    assert clip.x.shape == (3, 3, 33, 2) and not clip.x[:, 1].any()
    for t in (0, 2):
        expected = METRES[t] * np.array([1, -1, -1])
        np.testing.assert_allclose(unscaled(clip, 1)[t, 0], expected, atol=1e-5)
    head_to_foot = clip.x[1, 0, [0, 32], 0]
    assert head_to_foot[0] > head_to_foot[1]  # y points up


def test_people_of_mediapipe_are_told_apart_by_their_places(tmp_path: Path) -> None:
    frames = []
    for t in range(6):
        # Each looks in every frame as the other did in the frame before.
        small, large = METRES[0] * (1 + t % 2), METRES[0] * (2 - t % 2)
        people = [(in_shares(t, 0.1), small), (in_shares(t, 0.3), large)]
        if t % 2:
            people.reverse()
        frames.append(
            {
                "pose_landmarks": [landmarks(place) for place, _ in people],
                "pose_world_landmarks": [landmarks(world) for _, world in people],
            }
        )
    clip = clip_of(put(tmp_path / "a.json", frames))
    for m in (0, 1):
        for t in range(6):
            size = 2 if t % 2 == 1 - m else 1
            expected = METRES[0] * size * np.array([1, -1, -1])
            np.testing.assert_allclose(clip.x[:, t, :, m].T, expected, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        wide_csv([SHARES[0], None, SHARES[2]], "{c}{v}"),
        wide_csv([SHARES[0], None, SHARES[2]], "{c}{v}", first=1, extra="class"),
        wide_csv([SHARES[0], None, SHARES[2]], "landmark_{v}_{c}"),
        wide_csv([SHARES[0], None, SHARES[2]], "{c}_{v}", extra="timestamp class"),
        wide_csv([SHARES[0], None, SHARES[2]], "{c}{v}").replace("\n", "\r\n"),
        wide_csv([SHARES[0], None, SHARES[2]], "{c}{v}").replace(",,", ",nan,"),
        "\ufeff" + wide_csv([SHARES[0], None, SHARES[2]], "{v}_{c}").upper(),
        long_csv({3: SHARES[0], 5: SHARES[2]}),
    ],
)
def test_mediapipe_tables(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    clip = clip_of(path)
    assert clip.x.shape == (3, 3, 33, 2) and not clip.x[:, 1].any()
    size = np.ptp(SHARES[0][:, :2], axis=0).max()
    for t in (0, 2):
        np.testing.assert_allclose(
            unscaled(clip, size)[t, 0], SHARES[t] * np.array([1, -1, -1]), rtol=1e-4, atol=1e-6
        )


def test_landmarks_without_hips_are_not_taken_for_metres(tmp_path: Path) -> None:
    lines = long_csv({0: SHARES[0]}).splitlines()
    lines = [line for line in lines if line.split(",")[1] not in ("23", "24")]
    clip = clip_of(put(tmp_path / "a.csv", "\n".join(lines)))
    assert clip.visibility is not None and not clip.visibility[:, 23:25].any()
    assert 0.9 < np.ptp(clip.x[1, 0, clip.visibility[0, :, 0] > 0, 0]) < 1.1


def test_a_table_with_frame_numbers(tmp_path: Path) -> None:
    lines = wide_csv(METRES[:3], "{c}{v}", extra="frame").split("\n")
    rows = [line.replace("0.5", number, 1) for line, number in zip(lines, "1396", strict=False)]
    clip = clip_of(put(tmp_path / "a.csv", "\n".join([lines[0], *rows[1:]])))
    assert clip.visibility is not None
    assert clip.visibility[:, 0, 0].astype(bool).tolist() == [t in (0, 3, 6) for t in range(7)]
    for t, which in ((0, 0), (3, 2), (6, 1)):
        expected = METRES[which] * np.array([1, -1, -1])
        np.testing.assert_allclose(unscaled(clip, 1)[t, 0], expected, atol=1e-5)


def test_a_table_in_metres(tmp_path: Path) -> None:
    clip = clip_of(put(tmp_path / "a.csv", wide_csv([METRES[0], METRES[1]], "{c}{v}")))
    np.testing.assert_allclose(
        unscaled(clip, 1)[1, 0], METRES[1] * np.array([1, -1, -1]), atol=1e-5
    )


NAMES = {17: "COCO17", 18: "OPENPOSE18", 25: "BODY25", 26: "HALPE26", 133: "COCO17"}


@pytest.mark.parametrize("joints", NAMES)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4"])
@pytest.mark.parametrize("channels", [2, 3])
def test_arrays_of_one_person(tmp_path: Path, joints: int, dtype: str, channels: int) -> None:
    poses = np.stack([body(joints, t=t) for t in range(3)])
    if channels == 3:
        poses = np.concatenate([poses, np.full((3, joints, 1), 1)], 2)
    poses[1, 2] = 0
    if dtype != "i4":
        poses[2, 3, 0] = np.nan
    clip = clip_of(put(tmp_path / "a.npy", poses.astype(dtype)))
    kept = 17 if joints == 133 else joints
    assert clip.x.shape == (2, 3, kept, 2) and clip.visibility is not None
    seen = np.ones((3, kept))
    seen[1, 2] = 0
    seen[2, 3] = dtype == "i4"
    assert np.array_equal(clip.visibility[..., 0], seen)
    known = unscaled(clip, 1)[0, 0]
    pixels = poses.astype(dtype).astype(np.float64)[0, :kept, :2]
    np.testing.assert_allclose(known / known[5, 1], pixels / pixels[5, 1], rtol=1e-5)
    assert 0.9 < np.ptp(known, axis=0).max() < 1.1
    assert source(tmp_path / "a.npy").layout.name == NAMES[joints]


def test_arrays_of_several_people_in_any_order(tmp_path: Path) -> None:
    """As a detector without tracking gives them, most confident first."""
    people = np.zeros((12, 3, 17, 3), np.float32)
    for t in range(12):
        order = RNG.permutation(3)
        for x, score, m in ((0.0, 0.9, 0), (300.0, 0.8, 1)):
            people[t, order[m], :, :2] = body(17, x, t=t)
            people[t, order[m], :, 2] = score
    people[:, :, 4, 2] = 0.1
    people[3] = np.nan
    clip = clip_of(put(tmp_path / "a.npy", people))
    assert clip.visibility is not None and clip.x.shape == (2, 12, 17, 2)
    for m, x in ((0, 0.0), (1, 300.0)):
        for t in range(12):
            expected = np.zeros((17, 2)) if t == 3 else body(17, x, t=t)
            np.testing.assert_allclose(unscaled(clip, 200)[t, m], expected, rtol=1e-5)
    strict = clip_of(tmp_path / "a.npy", threshold=0.5)
    assert strict.visibility is not None and not strict.visibility[:, 4].any()
    assert not strict.x[:, :, 4].any() and strict.x[:, 0, 5].all()
    assert clip_of(tmp_path / "a.npy", persons=4).x.shape == (2, 12, 17, 4)


@pytest.mark.parametrize("people", [False, True])
def test_archives(tmp_path: Path, people: bool) -> None:
    points = np.stack([body(17, t=t) for t in range(3)])
    scores = np.full((3, 17), 0.75, np.float32)
    if people:
        points = points[:, None]
        scores = scores[:, None]
    one = clip_of(put(tmp_path / "one.npz", {"arr_0": points}))
    two = clip_of(put(tmp_path / "two.npz", {"keypoints": points, "scores": scores}))
    assert one.visibility is not None and two.visibility is not None
    assert np.array_equal(one.x, two.x)
    assert np.array_equal(two.visibility, 0.75 * one.visibility)
    assert recognize(tmp_path / "two.npz").format == "pose arrays"
    np.savez_compressed(tmp_path / "two.npz", keypoints=points)
    assert np.array_equal(clip_of(tmp_path / "two.npz").x, one.x)


def test_arrays_in_space(tmp_path: Path) -> None:
    world = clip_of(put(tmp_path / "world.npy", np.stack(METRES)))
    np.testing.assert_allclose(
        unscaled(world, 1)[2, 0], METRES[2] * np.array([1, -1, -1]), atol=1e-6
    )
    kinect = RNG.normal(size=(4, 25, 3)) + np.array([0, 0, 3])
    path = put(tmp_path / "kinect.npy", kinect)
    with pytest.raises(
        FormatError, match=r"joint \d+: expected a score in 0\.\.1 as third number, got .* pass lay"
    ):
        open_poses(path)
    clip = clip_of(path, layout=NTU25)
    assert source(path, layout=NTU25).layout is NTU25
    np.testing.assert_allclose(unscaled(clip, 1)[:, 0], kinect, rtol=1e-6)


def test_a_joint_at_the_origin_of_space_was_not_found(tmp_path: Path) -> None:
    x = RNG.normal(size=(4, 25, 3))
    x[1, 3] = 0
    x[2, 4, :2] = 0  # a position on the z axis is one
    clip = clip_of(put(tmp_path / "a.npy", x), layout=NTU25)
    assert clip.visibility is not None
    assert (clip.visibility[..., 0] == 0).nonzero() == (np.array([1]), np.array([3]))


@pytest.mark.parametrize(("x", "unit"), [(0.0, "metres"), (0.03, "shares of the picture")])
def test_the_hips_tell_the_unit_of_landmarks(tmp_path: Path, x: float, unit: str) -> None:
    """A person in the picture's corner is not measured from the hips."""
    points = [in_metres(t) * 0.2 + np.array([x, 0, 0]) for t in range(3)]
    path = put(tmp_path / "a.npy", np.stack(points))
    assert read_people(path, "pose arrays", None).unit.startswith(unit)


def test_a_layout_of_ones_own(tmp_path: Path) -> None:
    layout = SkeletonLayout.from_bones([(v, v + 1) for v in range(20)], name="mine")
    path = put(tmp_path / "a.npy", np.stack([body(21, t=t) for t in range(3)]))
    shape = r"got 21 in the shape \(3, 21, 2\) of \(T, V, C\)"
    with pytest.raises(
        FormatError,
        match=rf"a\.npy: expected 17, 18, .* joints, {shape}; for others, pass layout \(--layout\)",
    ):
        open_poses(path)
    assert source(path, layout=layout).layout is layout
    assert clip_of(path, layout=layout).x.shape == (2, 3, 21, 2)
    with pytest.raises(FormatError, match=r"expected 17 joints of COCO17, got 21"):
        source(put(tmp_path / "b.json", mmpose([[mmpose_person(body(21))]])), layout=COCO17)
    whole = put(tmp_path / "c.json", mmpose([[mmpose_person(body(133))]]))
    assert clip_of(whole, layout=COCO17).x.shape == (2, 1, 17, 2)


# ------------------------------------------------------------------------------------ the tracking


def crossing(t: int) -> list[tuple[str, np.ndarray, float]]:
    """Two people who cross; their order and their confidences change."""
    people = [
        ("right", body(17, 0) + np.array([10.0 * t, 0]), 0.6 + 0.01 * t),
        ("left", body(17, 305) + np.array([-10.0 * t, 4]), 0.8 - 0.01 * t),
    ]
    return people if t % 3 else people[::-1]


@pytest.mark.parametrize("form", ["openpose", "alphapose", "mmpose", "array"])
def test_people_who_cross(tmp_path: Path, form: str) -> None:
    frames = [crossing(t) for t in range(31)]
    path = tmp_path / "clip.json"
    if form == "openpose":
        shown = [[openpose_person(np.vstack([p, p[:1]]), s) for _, p, s in f] for f in frames]
        path = openpose(tmp_path / "clip", shown)
    elif form == "alphapose":
        put(
            path,
            [alphapose_person(f"{t}.jpg", p, s) for t, f in enumerate(frames) for _, p, s in f],
        )
    elif form == "mmpose":
        put(path, mmpose([[mmpose_person(p, s) for _, p, s in f] for f in frames]))
    else:
        path = put(tmp_path / "clip.npy", np.array([[p for _, p, _ in f] for f in frames]))
    clip = clip_of(path)
    moves = np.diff(unscaled(clip, 200)[:, :, :17, 0], axis=0).mean(2)  # (T - 1, M)
    first = 1 if moves[0, 0] < 0 else 0
    np.testing.assert_allclose(moves[:, first], 10, rtol=1e-2)
    np.testing.assert_allclose(moves[:, 1 - first], -10, rtol=1e-2)


@pytest.mark.parametrize("form", ["alphapose", "alphapose list", "mmpose", "openpose"])
def test_tracking_ids_are_used(tmp_path: Path, form: str) -> None:
    """Ids hold where distances would not: the people jump from place to place."""
    frames = []
    for t in range(8):
        swap = t % 2
        frames.append([(5, body(18, 900.0 * swap), 0.9), (0, body(18, 900.0 * (1 - swap)), 0.5)])
    path = tmp_path / "clip.json"
    if form == "openpose":
        path = openpose(
            tmp_path / "clip", [[openpose_person(p, s, i) for i, p, s in f] for f in frames]
        )
    elif form == "mmpose":
        put(
            path,
            mmpose([[mmpose_person(p[:17], s, track_id=i) for i, p, s in f] for f in frames]),
        )
    else:
        listed = form == "alphapose list"
        put(
            path,
            [
                alphapose_person(f"{t}.jpg", p[:17], s, idx=[float(i)] if listed else i)
                for t, f in enumerate(frames)
                for i, p, s in f
            ],
        )
    clip = clip_of(path)
    assert clip.visibility is not None
    assert np.unique(clip.visibility[..., 0]).tolist() == [np.float32(0.9)]
    assert np.unique(clip.visibility[..., 1]).tolist() == [0.5]


def test_ids_that_are_no_tracks(tmp_path: Path) -> None:
    """Some write the same id for everyone, or none for some."""
    for name, of in (("same", {"idx": 0}), ("none", {"idx": -1})):
        people = []
        for t in range(31):
            for i, (_, pose, score) in enumerate(crossing(t)):
                more = of if name == "same" or i else {"idx": 3}
                people.append(alphapose_person(f"{t}.jpg", pose, score, **more))
        clip = clip_of(put(tmp_path / f"{name}.json", people))
        moves = np.diff(unscaled(clip, 200)[..., 0], axis=0).mean((0, 2))
        assert sorted(moves.round().tolist()) == [-10, 10]


def test_a_bystander_is_left_out_and_a_gap_is_kept(tmp_path: Path) -> None:
    people = np.zeros((20, 3, 17, 3))
    for t in range(20):
        for m, (x, score) in enumerate(((0.0, 0.9), (400.0, 0.8), (800.0, 0.3))):
            people[t, m, :, :2] = body(17, x, t=t)
            people[t, m, :, 2] = score
    people[8:10, 1] = 0
    people[8:10, 2] = 0
    clip = clip_of(put(tmp_path / "a.npy", people))
    assert clip.visibility is not None
    assert (
        clip.visibility[:, 0].round(3).tolist()
        == np.float32([[0.9, 0 if t in (8, 9) else 0.8] for t in range(20)]).round(3).tolist()
    )


# ------------------------------------------------------------------------------------- the folders


def test_a_folder_of_clips(tmp_path: Path) -> None:
    for name in "ba":
        openpose(tmp_path / name, [[openpose_person(body(25))]] * 3)
    opened = source(tmp_path)
    assert opened.num_clips == 2 and opened.splits == () and len(opened.files) == 6
    assert [clip.name for clip in clips_of(tmp_path)] == ["a", "b"]
    assert all(clip.label == -1 and not clip.action for clip in clips_of(tmp_path))
    assert recognize(tmp_path).format == "OpenPose JSON"


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    for action, names in (("wave", "ab"), ("jump", "a")):
        for name in names:
            openpose(tmp_path / action / name, [[openpose_person(body(18))]] * 2)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read.me").write_text("")
    (tmp_path / "labels.txt").write_text("jump\nwave\n")
    opened = source(tmp_path)
    assert opened.classes == ("jump", "wave") and opened.splits == ()
    found = [(clip.name, clip.label, clip.action) for clip in clips_of(tmp_path)]
    assert found == [("jump/a", 0, "jump"), ("wave/a", 1, "wave"), ("wave/b", 1, "wave")]


@pytest.mark.parametrize("other", ["test", "val"])
def test_train_and_test(tmp_path: Path, other: str) -> None:
    for side, action, name in (
        ("train", "wave", "a"),
        ("train", "jump", "b"),
        (other, "wave", "a"),
        (other, "sit", "c"),
    ):
        put(tmp_path / side / action / f"{name}.json", mmpose([[mmpose_person(body(17))]] * 2))
    opened = source(tmp_path)
    assert opened.classes == ("jump", "sit", "wave") and opened.splits == ("given",)
    found = [(clip.name, clip.label, clip.sides["given"]) for clip in clips_of(tmp_path)]
    assert sorted(found) == sorted(
        [
            ("train/jump/b", 0, "train"),
            ("train/wave/a", 2, "train"),
            (f"{other}/sit/c", 1, "test"),
            (f"{other}/wave/a", 2, "test"),
        ]
    )


def test_open_dataset_reads_them(tmp_path: Path) -> None:
    for side, count in (("train", 3), ("test", 2)):
        for action in ("wave", "jump"):
            for i in range(count):
                frames = [[openpose_person(body(25, t=t), 0.7)] for t in range(4 + i)]
                openpose(tmp_path / side / action / str(i), frames)
    for cache in (True, True, False):
        train, test = open_dataset(tmp_path, cache=cache, workers=2 * cache)
        assert len(train) == 6 and len(test) == 4 and train.classes == ("jump", "wave")
        assert train.layout.name == "BODY25" and train.origin == "OpenPose JSON"
        assert train[2].x.shape == (2, 6, 25, 2) and train.labels == [0, 0, 0, 1, 1, 1]
        assert train[2].visibility[:, :, 0].unique().tolist() == [np.float32(0.7)]
    assert open_dataset(tmp_path, persons=1).train[0].x.shape == (2, 4, 25, 1)
    frame = tmp_path / "train" / "wave" / "0" / "video_000000000001_keypoints.json"
    frame.write_text("{")
    with pytest.raises(FormatError, match=r"000001_keypoints\.json, line 1, column 2: expected JS"):
        open_dataset(tmp_path)
    with pytest.warns(UserWarning, match="1 of 10 clips cannot be read"):
        assert len(open_dataset(tmp_path, on_error="skip").train) == 5


def test_a_layout_file_that_changes(tmp_path: Path) -> None:
    """The cache of the clips as another skeleton read them must not be found."""
    x = np.stack([np.c_[body(17, t=t), np.linspace(0.2, 1, 17)] for t in range(3)])
    put(tmp_path / "poses" / "a.npy", x)
    layout = {**COCO17.to_dict(), "name": "mine"}
    for name, channels in (("mine", 3), ("COCO17", 2)):
        put(tmp_path / "layout.json", {**layout, "name": name})
        data = open_clips(
            tmp_path / "poses", layout=tmp_path / "layout.json", cache=tmp_path / "cache"
        )
        assert data[0].x.shape == (channels, 3, 17, 2)


def test_one_side_alone_and_three(tmp_path: Path) -> None:
    for side in ("test", "val", "train"):
        put(tmp_path / side / "wave" / f"{side}.npy", np.stack([body(17)] * 3))
        sides = {clip.sides["given"] for clip in clips_of(tmp_path)}
        assert sides == ({"test"} if side != "train" else {"train", "test"})
    assert sorted(clip.name for clip in clips_of(tmp_path)) == [
        "test/wave/test",
        "train/wave/train",
    ]


def test_other_folders_are_not_ours(tmp_path: Path, shared_data: Path) -> None:
    assert open_poses(Path(__file__).parent) is None
    assert open_poses(shared_data) is None and open_poses(shared_data / "all_sqe") is None
    assert open_poses(Path(__file__)) is None
    nested = tmp_path / "a" / "b" / "c"
    put(nested / "a.npy", np.zeros((4, 17, 2)))
    assert open_poses(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", {"people": 3}),
        ("a.json", []),
        ("a.json", "no JSON"),
        ("a.json", ""),
        ("a.csv", "a,b\n1,2\n"),
        ("a.csv", ""),
        ("a.npy", np.zeros((4, 17, 4))),
        ("a.npy", np.zeros((2, 3, 4, 17, 2))),
        ("a.npy", np.zeros((480, 640, 3), np.uint8)),
        ("a.npy", np.zeros(3)),
        ("a.npy", "x"),
        ("a.npz", {"a": np.zeros((3, 17, 2)), "b": np.zeros(3)}),
        ("a.npz", {"x_train": np.zeros((3, 17))}),
        ("a.npz", "x"),
        ("a.txt", "x0,y0"),
    ],
)
def test_other_files_are_not_ours(tmp_path: Path, name: str, content: Any) -> None:
    assert open_poses(put(tmp_path / name, content)) is None and open_poses(tmp_path) is None


def test_no_pickle_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(pickle.dumps([1]))
    np.savez(tmp_path / "c.npz", keypoints=np.array([{"a": 1}], object))
    assert open_poses(tmp_path / "a.npy") is None and open_poses(tmp_path / "b.npy") is None
    with pytest.raises(FormatError, match=r"c\.npz, keypoints\.npy: expected a dtype of numbers"):
        open_poses(tmp_path / "c.npz")


# ---------------------------------------------------------------------------------------- mistakes


def test_mixtures_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "formats" / "a.npy", np.stack([body(17)] * 3))
    put(tmp_path / "formats" / "b.json", mmpose([[mmpose_person(body(17))]]))
    with pytest.raises(
        FormatError, match=r"clips of one format, got MMPose JSON in b\.json and pose arrays in a"
    ):
        open_poses(tmp_path / "formats")
    for joints in (17, 26):
        put(tmp_path / "joints" / f"{joints}.npy", np.stack([body(joints)] * 3))
    good, bad = source(tmp_path / "joints").read()
    assert isinstance(good, ClipFile) and isinstance(bad, FormatError)
    assert str(bad).endswith("26.npy: expected COCO17 as in 17.npy, got HALPE26")
    put(tmp_path / "units" / "a.npy", np.stack(METRES))
    put(tmp_path / "units" / "b.npy", np.stack(SHARES))
    put(tmp_path / "units" / "c.npy", np.stack(SHARES)[..., :2])
    _, shares, two = map(str, source(tmp_path / "units").read())
    assert "expected metres as in a.npy, got shares of the picture or pixels" in shares
    assert "expected C=3 as in a.npy, got C=2" in two
    put(tmp_path / "damaged" / "a.json", mmpose([[mmpose_person(body(17))]]))
    put(tmp_path / "damaged" / "b.json", '{"instance_in')
    assert "b.json: expected MMPose JSON as in damaged/a.json, got another file" in str(
        [*source(tmp_path / "damaged").read()][1]
    )


def test_no_class_is_left_out(tmp_path: Path) -> None:
    clip = np.stack([body(17)] * 3)
    put(tmp_path / "jump" / "a.npy", clip)
    put(tmp_path / "wave" / "a.npy", clip.reshape(3, 34))
    good, bad = source(tmp_path).read()
    assert isinstance(good, ClipFile) and isinstance(bad, FormatError)
    assert "wave/a.npy: expected (T, V, C) or (T, M, V, C), got (3, 34)" in str(bad)
    put(tmp_path / "wave" / "a.npy", clip.transpose(1, 2, 0))
    assert "joints, got 2 in the shape (17, 2, 3) of (T, V, C)" in str(
        [*source(tmp_path).read()][1]
    )
    (tmp_path / "wave" / "a.npy").write_bytes(b"0.1 0.2")
    assert "wave/a.npy: expected an .npy header" in str([*source(tmp_path).read()][1])
    put(tmp_path / "wave" / "first performer" / "b.npy", clip)
    with pytest.raises(FormatError, match=r"wave: expected clips directly .* in first performer"):
        open_poses(tmp_path)


def test_folders_that_are_ambiguous(tmp_path: Path) -> None:
    clip = np.stack([body(17)] * 3)
    put(tmp_path / "a" / "x.npy", clip)
    put(tmp_path / "a" / "wave" / "y.npy", clip)
    with pytest.raises(
        FormatError, match=r"in a folder or in one folder for each class, got both, such as wave"
    ):
        open_poses(tmp_path / "a")
    put(tmp_path / "b" / "train" / "x.npy", clip)
    with pytest.raises(FormatError, match=r"b/train: expected one folder for each class, got clip"):
        open_poses(tmp_path / "b")
    put(tmp_path / "c" / "train" / "wave" / "x.npy", clip)
    put(tmp_path / "c" / "jump" / "x.npy", clip)
    with pytest.raises(
        FormatError, match=r"either classes, or train and test folders .* got jump, train"
    ):
        open_poses(tmp_path / "c")


GOOD = [[mmpose_person(body(17, t=t))] for t in range(3)]


def changed(**changes: Any) -> Any:
    return mmpose([*GOOD, [*GOOD[0], {**GOOD[1][0], **changes}]])


def without(key: str) -> Any:
    content = changed()
    del content["instance_info"][3]["instances"][1][key]
    return content


def alpha(**changes: Any) -> Any:
    return [alphapose_person("1.jpg", body(17)), alphapose_person("2.jpg", body(17)) | changes]


def media(change: Any) -> Any:
    return [landmarks(SHARES[0]), [*landmarks(SHARES[1])[:32], change]]


NAN = float("nan")
HALF = wide_csv([SHARES[0]], "{c}{v}", extra="frame")  # a frame number 0.5
LONG = long_csv({0: SHARES[0]})


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.json", '{"instance_info": [', r", line 1, column \d+: expected JSON, got "),
        ("a.json", '[{"keypoint_scores": ' + "[" * 100_000, r": expected JSON text, got Recursion"),
        ("a.json", {"instance_info": 3}, r": expected instance_info or a list of frames, got 3"),
        ("a.json", {"instance_info": []}, r": expected a person in some frame, got none in 0"),
        ("a.json", mmpose([[], []]), r": expected a person in some frame, got none in 2 frames"),
        ("a.json", {"instance_info": [7]}, r", frame 1: expected a list of instances, got 7"),
        ("a.json", mmpose([[3]]), r", frame 1, person 1: expected the keys keypoints and keypoint"),  # type: ignore[list-item]
        ("a.json", without("keypoint_scores"), r", frame 4, person 2: expected the keys keypoints"),
        ("a.json", changed(keypoints=[[1, 2]] * 16), r", frame 4, person 2: expected keypoint_sco"),
        (
            "a.json",
            changed(keypoints=[[1, 2]] * 26, keypoint_scores=[1] * 26),
            r", frame 4, person 2: expected 17 joints, got 26",
        ),
        (
            "a.json",
            mmpose([[mmpose_person(body(21))]]),
            r", frame 1, person 1: expected 17, 26, 133 joints, got 21; for others, pass layout",
        ),
        (
            "a.json",
            changed(keypoints=7),
            r", frame 4, person 2: expected keypoints of 2 numbers ea",
        ),
        (
            "a.json",
            changed(keypoints=[[1, 2, 3]] * 17),
            r"expected keypoints of 2 numbers each, got",
        ),
        (
            "a.json",
            changed(keypoints=[[1, "2"]] * 17),
            r"person 2: expected keypoints with 34 numb",
        ),
        (
            "a.json",
            changed(keypoints=[[NAN, 2]] * 17),
            r"person 2: expected finite positions up to",
        ),
        (
            "a.json",
            changed(keypoints=[[1e7, 2]] * 17),
            r"finite positions up to 1000000, got 1e\+07",
        ),
        (
            "a.json",
            changed(keypoints=[[10**400, 2]] * 17),
            r"finite positions up to 1000000, got i",
        ),
        (
            "a.json",
            changed(keypoint_scores=[NAN] * 17),
            r"person 2: expected finite scores, got nan",
        ),
        (
            "a.json",
            changed(keypoint_scores=[True] * 17),
            r"expected keypoint_scores with 17 numbers",
        ),
        (
            "a.json",
            mmpose([GOOD[0] * 201]),
            r", frame 1, person 201: expected at most 200 people in a frame, got more",
        ),
        (
            "a.json",
            alpha(keypoints=[1.0] * 50),
            r"'2\.jpg', entry 2: expected keypoints with x, y,",
        ),
        ("a.json", alpha(keypoints="x"), r"'2\.jpg', entry 2: expected keypoints with x, y, score"),
        ("a.json", alpha(keypoints=[1.0] * 78), r"'2\.jpg', entry 2: expected 17 joints, got 26"),
        ("a.json", alpha(image_id="x.jpg"), r": expected a number in each frame's name, got 'x'"),
        ("a.json", alpha(image_id="b/01.jpg"), r": expected each frame number once, got '01', ag"),
        (
            "a.json",
            alpha(image_id=None),
            r", entry 2: expected image_id as text or a number, got N",
        ),
        ("a.json", alpha(image_id="900000.jpg"), r": expected up to 100000 frames, got 900000"),
        ("a.json", [*alpha(), 3], r", entry 3: expected the keys image_id and keypoints, got 3"),
        ("a.json", {"image_id": 1, "keypoints": []}, r": expected a list of people, got dict"),
        ("a.json", media({"x": 1, "y": 2}), r", frame 2, person 1, landmark 32: expected x, y, z"),
        ("a.json", media("x"), r", frame 2, person 1, landmark 32: expected x, y, z and visibili"),
        ("a.json", [landmarks(SHARES[0])[:32]], r", frame 1, person 1: expected 33 landmarks, got"),
        (
            "a.json",
            [landmarks(SHARES[0]), 7],
            r", frame 2: expected a list of 33 landmarks or null",
        ),
        ("a.json", [both(0), {"a": 1}], r", frame 2: expected pose_landmarks or pose_world_landma"),
        (
            "a.json",
            [both(0), landmarks(SHARES[0])],
            r"frame 2: expected the same kinds of landmark",
        ),
        ("a.json", {"pose_landmarks": 3}, r": expected a list of frames under each key, got"),
        (
            "a.json",
            {"pose_landmarks": [None], "world_landmarks": [None, None]},
            r": expected as many frames of each kind, got 1 of pose_landmarks, 2 of world_landmar",
        ),
        ("a.csv", HALF, r"line 2: expected frame as an integer in 0\.\."),
        ("a.csv", wide_csv([SHARES[0]], "{c}{v}") + "1,2\n", r"line 3: expected 132 fields, got 2"),
        (
            "a.csv",
            wide_csv([SHARES[0]], "{c}{v}").replace("0.9", "1_0"),
            r"line 2: expected numbers",
        ),
        (
            "a.csv",
            HALF.replace("0.5", "7") + HALF.split("\n")[1].replace("0.5", "7"),
            r"frame 7 again",
        ),
        ("a.csv", wide_csv([None], "{c}{v}"), r": expected a person in some frame, got none in 1"),
        ("a.csv", wide_csv([], "{c}{v}"), r": expected at least one frame, got none"),
        ("a.csv", LONG + "0,3,1,2,3,1\n", r"line 35: expected each landmark once, got landmark 3"),
        ("a.csv", LONG + "1,33,1,2,3,1\n", r"line 35: expected landmark as an integer in 0\.\.32"),
        ("a.csv", LONG + "999999,3,1,2,3,1\n", r": expected up to 100000 frames, got 1000000"),
        ("a.npy", np.full((3, 17, 2), np.inf), r"frame 1, person 1: expected finite positions up"),
        ("a.npy", np.full((3, 17, 2), np.nan), r": expected a person in some frame, got none in 3"),
        ("a.npy", np.full((3, 17, 2), 2e6), r"frame 1, person 1: expected finite positions up to"),
        ("a.npy", np.zeros((0, 17, 2)), r"expected \(T, V, C\) or \(T, M, V, C\) with T in 1\.\."),
        ("a.npy", np.zeros((1, 201, 17, 2), "f2"), r"M up to 200, C of 2 or 3, got \(1, 201, 17"),
        ("a.npy", np.zeros((100_001, 17, 2), "f2"), r"with T in 1\.\.100000, .* got \(100001, 17"),
        (
            "a.npz",
            {"keypoints": np.ones((3, 17, 2)), "scores": np.ones((3, 16))},
            r", scores\.npy: expected \(T, V\) or \(T, M, V\) of \(3, 17\), got \(3, 16\)",
        ),
        (
            "a.npz",
            {"keypoints": np.ones((3, 17))},
            r", keypoints\.npy: expected \(T, V, C\) or \(T, M, V",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str, content: Any, error: str) -> None:
    with pytest.raises(FormatError, match=rf"a\.{name[2:]}.*{error}") as caught:
        open_poses(put(tmp_path / name, content))
    assert len(str(caught.value)) < len(str(tmp_path)) + 300
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("person", "error"),
    [
        ([], r"person 1: expected a dict, got \[\]"),
        ({}, r"person 1: expected pose_keypoints_2d|pose_keypoints with x, y, score"),
        (
            {"pose_keypoints_2d": [1.0] * 76},
            r"person 1: expected pose_keypoints_2d with x, y, score",
        ),
        ({"pose_keypoints_2d": [1.0] * 45}, r"person 1: expected 25, 18 joints, got 15"),
    ],
)
def test_openpose_files_that_are_refused(tmp_path: Path, person: Any, error: str) -> None:
    folder = openpose(tmp_path / "clip", [[], [person]])
    with pytest.raises(FormatError, match=rf"video_000000000001_keypoints\.json, {error}"):
        open_poses(folder)
    put(folder / "video_000000000001_keypoints.json", {"people": 3})
    with pytest.raises(FormatError, match=r"_keypoints\.json: expected a list people, got 3"):
        open_poses(folder)
    put(folder / "video_0000000000001_keypoints.json", {"people": []})
    with pytest.raises(FormatError, match=r"clip: expected each frame number once, got '"):
        open_poses(folder)


@pytest.mark.parametrize("names", [("a_0", "b_1"), ("1699.95", "1700.05"), ("0_a", "1_b")])
def test_frames_of_several_videos(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        put(tmp_path / f"{name}_keypoints.json", {"people": [openpose_person(body(25))]})
    with pytest.raises(FormatError, match=rf"differ by their last number, as '{names[0]}', got"):
        open_poses(tmp_path)


def test_an_archive_that_would_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, np.zeros((99_000, 20, 17, 2), np.uint8))
    assert path.stat().st_size < 100_000
    with pytest.raises(FormatError, match=r"an array of at most 67108864 numbers, got \(99000, 20"):
        open_poses(path)


def test_a_truncated_array(tmp_path: Path) -> None:
    path = put(tmp_path / "a.npy", np.stack([body(17)] * 3))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(FormatError, match=r"expected \d+ bytes for \(3, 17, 2\) float64, got \d+$"):
        open_poses(path)


def test_the_threshold_is_the_least_score_that_counts(tmp_path: Path) -> None:
    points = np.c_[body(17), np.full(17, 0.5)][None]
    points[0, 3, 2] = 0.25
    clip = clip_of(put(tmp_path / "a.npy", points), threshold=0.5)
    assert clip.visibility is not None
    assert clip.visibility[0, :, 0].tolist() == [0.0 if v == 3 else 0.5 for v in range(17)]


def test_the_unit_is_the_median_extent_in_the_picture(tmp_path: Path) -> None:
    sizes = np.array([100, 100, 100, 250, 900])
    x = np.stack([body(17, size=size) for size in sizes])
    clip = clip_of(put(tmp_path / "a.npy", x))
    assert np.allclose(np.ptp(clip.x[1, :, :, 0], axis=1), sizes / 100, rtol=1e-5)
    deep = np.stack([in_shares(t) for t in range(3)])
    deep[..., 2] *= 50  # depths count for nothing
    clip = clip_of(put(tmp_path / "b.npy", deep))
    assert np.allclose(np.ptp(clip.x[1, :, :, 0], axis=1), 1, rtol=1e-5)


def test_a_clip_below_the_threshold(tmp_path: Path) -> None:
    for name, score in (("a", 0.9), ("b", 0.3)):
        put(tmp_path / f"{name}.json", mmpose([[mmpose_person(body(17), score)]] * 2))
    good, bad = source(tmp_path, threshold=0.5).read()
    assert isinstance(good, ClipFile)
    assert "b.json: expected a joint with a score of at least 0.5, got none in 2 frames" in str(bad)
    with pytest.raises(ValueError, match=r"^open_poses: expected a threshold in 0\.\.1, got 2"):
        open_poses(tmp_path, threshold=2)
    with pytest.raises(ValueError, match=r"^open_poses: expected persons of at least 1, got 0"):
        open_poses(tmp_path, persons=0)


def test_positions_that_are_specks_do_not_overflow(tmp_path: Path) -> None:
    poses = np.full((3, 17, 2), 1e-40)
    poses[:, 3] = 2e-40
    poses[0, 5] = 1e6
    clip = clip_of(put(tmp_path / "a.npy", poses))
    assert np.isfinite(clip.x).all()


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.listdir

    def refused(folder: Path) -> list[str]:
        if folder == tmp_path / "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    put(tmp_path / "a" / "x.npy", np.stack([body(17)] * 3))
    put(tmp_path / "b" / "x.npy", np.stack([body(17)] * 3))
    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(FormatError, match=r"/b: expected a folder that can be read, got Permiss"):
        open_poses(tmp_path)
