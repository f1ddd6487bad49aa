"""The reader of pyskl's pickles: what it gives, and every way a file can be wrong."""

from __future__ import annotations

import pickle
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skeleton_focus import open_dataset
from skeleton_focus._unpickle import load_pickle
from skeleton_focus.datasets import main
from skeleton_focus.format_pyskl import open_pyskl
from skeleton_focus.formats import ClipFile, FormatError

RNG = np.random.default_rng(0)


def annotation(
    name: str = "a", label: Any = 3, *, m: int = 2, t: int = 5, v: int = 17, c: int = 2, **more: Any
) -> Any:
    keypoint = RNG.uniform(1, 9, (m, t, v, c)).astype(np.float16)
    plain = {"frame_dir": name, "label": label, "total_frames": t, "keypoint": keypoint}
    if c == 2:
        plain["keypoint_score"] = RNG.uniform(0.1, 0.9, (m, t, v)).astype(np.float16)
    both = {**plain, "img_shape": (1080, 1920), "original_shape": (1080, 1920), **more}
    return {key: value for key, value in both.items() if value is not Ellipsis}


def content(*annotations: Any, **split: Any) -> dict[str, Any]:
    names = [
        a["frame_dir"]
        for a in annotations
        if isinstance(a, dict) and isinstance(a.get("frame_dir"), str)
    ]
    return {
        "split": split or {"train": names[:1], "val": names[1:]},
        "annotations": list(annotations),
    }


def write(folder: Path, value: Any, protocol: int = 4) -> Path:
    path = folder / "data.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def only(folder: Path, *annotations: Any, persons: int = 2) -> ClipFile:
    """The first clip."""
    clip = next(open_pyskl(write(folder, content(*annotations)), persons=persons).read())
    if isinstance(clip, FormatError):
        raise clip
    return clip


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
@pytest.mark.parametrize("protocol", range(6))
def test_a_good_file(tmp_path: Path, protocol: int, dtype: Any, order: Any) -> None:
    made = [annotation("b"), annotation("a", np.int64(0), t=9), annotation("c", 59, m=1)]
    for one in made:
        one["keypoint"] = one["keypoint"].astype(dtype, order=order)
    path = write(
        tmp_path,
        content(*made, xsub_train=["b", "c"], xsub_val=["a"], xview_train=["a"], xview_val=("b",)),
        protocol,
    )
    source = open_pyskl(str(path))
    assert (source.layout.name, source.num_clips, source.splits, source.files, source.classes) == (
        "COCO17",
        3,
        ("xsub", "xview"),
        [path],
        (),
    )
    for _ in range(2):
        clips = list(source.read())
        assert [(clip.name, clip.label, clip.sides) for clip in clips] == [
            ("b", 3, {"xsub": "train", "xview": "test"}),
            ("a", 0, {"xsub": "test", "xview": "train"}),
            ("c", 59, {"xsub": "train"}),
        ]
        for clip, one in zip(clips, made, strict=True):
            (bodies, frames) = one["keypoint"].shape[:2]
            scores = one["keypoint_score"]
            assert clip.x.dtype == clip.visibility.dtype == np.float32 and clip.x.flags.c_contiguous
            assert clip.x.shape == (2, frames, 17, 2) and clip.visibility.shape == (frames, 17, 2)
            for m, t, v in np.ndindex(2, frames, 17):
                there = m < bodies
                expected = one["keypoint"][m, t, v].astype(np.float32).tolist() if there else [0, 0]
                assert clip.x[:, t, v, m].tolist() == expected
                assert clip.visibility[t, v, m] == (np.float32(scores[m, t, v]) if there else 0)


@pytest.mark.parametrize(
    ("v", "c", "layout"),
    [(25, 3, "NTU25_PYSKL"), (17, 2, "COCO17"), (18, 2, "OPENPOSE18"), (20, 3, "KINECT20")],
)
def test_the_layout_follows_the_joints(tmp_path: Path, v: int, c: int, layout: str) -> None:
    source = open_pyskl(write(tmp_path, content(annotation(v=v, c=c))))
    assert source.layout.name == layout
    assert [clip.x.shape for clip in source.read()] == [(c, 5, v, 2)]


def test_the_name_of_an_ntu_clip_tells_who_and_where(tmp_path: Path) -> None:
    clip = only(tmp_path, annotation("S017C003P020R002A060", v=25, c=3))
    assert (clip.setup, clip.view, clip.subject) == (17, 3, 20)
    clip = only(tmp_path, annotation("abseiling/S017C003P020R002A060", v=25, c=3))
    assert (clip.setup, clip.view, clip.subject) == (0, 0, 0)


def test_without_scores_a_body_of_zeros_is_absent(tmp_path: Path) -> None:
    one = annotation(v=25, c=3)
    assert only(tmp_path, one).visibility is None
    one["keypoint"][1, 2:4] = 0
    one["keypoint"][0, 1, 7] = 0  # one joint at the origin is no absent body
    seen = only(tmp_path, one).visibility
    assert seen is not None and seen[2:4, :, 1].max() == 0 and seen.sum() == 2 * 5 * 25 - 2 * 25


def test_a_joint_of_score_zero_has_no_position_and_scores_are_clamped(tmp_path: Path) -> None:
    one = annotation()
    one["keypoint_score"][0, 0, :3] = [0, 1.25, -0.5]
    clip = only(tmp_path, one)
    assert clip.visibility is not None
    assert clip.visibility[0, :3, 0].tolist() == [0, 1, 0]
    assert clip.x[:, 0, :3, 0].tolist() == [[0, one["keypoint"][0, 0, 1, c], 0] for c in range(2)]
    assert only(tmp_path, annotation(keypoint_score=None)).visibility is None
    assert only(tmp_path, annotation(keypoint_score=np.ones((2, 5, 17)))).visibility is None


@pytest.mark.parametrize("persons", [1, 2, 3, 5])
def test_the_bodies_that_are_seen_most_are_kept_in_their_order(
    tmp_path: Path, persons: int
) -> None:
    one = annotation(m=4)
    one["keypoint_score"][:] = np.array([0.5, 0.25, 0.75, 0.5])[:, None, None]
    clip = only(tmp_path, one, persons=persons)
    kept = {1: [2], 2: [0, 2], 3: [0, 2, 3], 5: [0, 1, 2, 3]}[persons]
    assert clip.x.shape == (2, 5, 17, persons)
    np.testing.assert_array_equal(
        clip.x[..., : len(kept)], one["keypoint"][kept].transpose(3, 1, 2, 0)
    )
    assert not clip.x[..., len(kept) :].any()


@pytest.mark.parametrize("persons", [0, -1])
def test_no_person_is_refused(tmp_path: Path, persons: int) -> None:
    with pytest.raises(
        ValueError, match=rf"^open_pyskl: expected persons of at least 1, got {persons}"
    ):
        open_pyskl(tmp_path, persons=persons)


@pytest.mark.parametrize(
    ("names", "splits", "sides"),
    [
        (["train", "val"], ("given",), [{"given": "train"}, {"given": "test"}]),
        (["train", "test"], ("given",), [{"given": "train"}, {"given": "test"}]),
        (["xset_train", "xset_test"], ("xset",), [{"xset": "train"}, {"xset": "test"}]),
        (["train2", "test2"], ("split2",), [{"split2": "train"}, {"split2": "test"}]),
        (["split1_train", "split1_val"], ("split1",), [{"split1": "train"}, {"split1": "test"}]),
        (["train", "test", "val"], ("given",), [{"given": "train"}, {"given": "test"}, {}]),
    ],
)
def test_names_of_splits(tmp_path: Path, names: list[str], splits: Any, sides: list[Any]) -> None:
    clips = [annotation(name) for name in "abc"]
    source = open_pyskl(
        write(
            tmp_path, content(*clips, **{name: [c] for name, c in zip(names, "abc", strict=False)})
        )
    )
    assert source.splits == splits
    assert [clip.sides for clip in source.read()] == [*sides, {}, {}][:3]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (7, "a dict with the keys split and annotations, or a list of annotations, got 7"),
        ([], "annotations as a non-empty list, got split None, annotations a list of 0"),
        ([7], r"expected annotations that hold keypoint .*, got 7"),
        ({"split": {}, "x": 1}, "or a list of annotations, got the keys split, x"),
        ({"split": {}, "x\n": 1}, r"or a list of annotations, got the keys split, 'x\\n'"),
        (
            content(annotation(), **{"x" * 900 + "_train": ["a"], "x" * 900 + "_val": ["a"]}),
            r"split 'x{59}: expected clips that are not in 'x{59}, got 'a'",
        ),
        (
            {**content(annotation()), "split": {}},
            "split: expected a train list and a val or test list, got no list",
        ),
        (
            content(annotation(), train=["a"], val=[], split_train=[]),
            "each split once, got 'train' and 'split_train'",
        ),
        (
            content(),
            "annotations as a non-empty list, got split a dict of 2, annotations a list of 0",
        ),
        ({"split": [], "annotations": [1]}, "got split a list of 0, annotations a list of 1"),
        (
            content(annotation(keypoint=..., raw_file="a.pkl")),
            r"keypoint \(M, T, V, C\), got the keys frame_dir, label, .*raw_file; "
            "if it refers to raw_file",
        ),
        (
            content(annotation(keypoint=None)),
            r"expected annotations that hold keypoint .*, got None",
        ),
        (content(7), r"expected annotations that hold keypoint .*, got 7"),
        (
            content(annotation(keypoint=np.ones((5, 17, 2)))),
            r"hold keypoint \(M, T, V, C\), got an array \(5, 17, 2\)",
        ),
        (content(annotation(v=16)), "expected V of 13, 15, 17, 18, .* joints, got 16; pass layout"),
        (content(annotation(c=4)), "with C of 2 or 3, got C=4"),
        (
            content(annotation(), train=["a", "b"], val=[]),
            "split 'train': expected the frame_dir of an annotation, got 'b'",
        ),
        (
            content(annotation(), train=[], val=[["a"]]),
            "split 'val': expected the frame_dir .*, got a list of 1",
        ),
        (
            content(annotation(), train=["a"], val=["a"]),
            "split 'val': expected clips that are not in 'train', got 'a'",
        ),
        (
            content(annotation(), xsub_train=["a"]),
            "expected a train list and a val or test list .*, got 'xsub_train'",
        ),
        (content(annotation(), xsub_val=["a"]), "a val or test list of each split, got 'xsub_val'"),
        (
            content(annotation(), all=["a"]),
            "expected names of splits that end in train, val or test, got 'all'",
        ),
        ({**content(annotation()), "split": {1: []}}, "names of splits .*, got 1"),
        (
            content(annotation(), train1=[], split1_train=[], test1=[]),
            "each split once, got 'train1' and 'split1",
        ),
        (
            content(annotation(), train="a", val=[]),
            "split 'train': expected a list of frame_dir, got 'a'",
        ),
        (
            content(annotation(keypoint=np.array([None]))),
            "expected arrays of numbers, got an array of dtype 'O8'",
        ),
        (
            content(annotation(keypoint=np.zeros(2, "f4,f4"))),
            "expected arrays of numbers, got an array of dtype 'V8'",
        ),
        (content(annotation(more={1})), "got the opcode EMPTY_SET"),
        (content(annotation(more=Path("a"))), "pathlib"),
    ],
)
def test_what_is_wrong_with_a_whole_file(tmp_path: Path, value: Any, error: str) -> None:
    with pytest.raises(
        FormatError, match=rf"^{tmp_path}/data\.pkl(, \w+.*)?: expected .*, got "
    ) as refused:
        open_pyskl(write(tmp_path, value))
    assert refused.match(error)


def test_names_of_a_split_that_are_no_text(tmp_path: Path) -> None:
    for names in (np.arange(2), np.array([["a"]])):
        with pytest.raises(FormatError, match=r"split 'val': expected a list of frame_dir, got an"):
            open_pyskl(write(tmp_path, content(annotation(), train=["a"], val=names)))
    bad = pickle.dumps(content(annotation(), train=[], val=np.array(["\U00010fff"])))
    bad = bad.replace(np.array(["\U00010fff"]).tobytes(), b"\xff\xff\xff\x7f")
    (tmp_path / "data.pkl").write_bytes(bad)
    with pytest.raises(FormatError, match=r"split 'val': expected names as text, got bytes"):
        open_pyskl(tmp_path / "data.pkl")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("protocol", range(6))
def test_a_split_as_arrays_of_names(tmp_path: Path, protocol: int, order: str) -> None:
    made = [annotation(name) for name in ("a", "bé", "cde")]
    names = np.array(["bé", "cde"]).astype(f"{order}U3")
    source = open_pyskl(write(tmp_path, content(*made, train=["a"], val=names), protocol))
    assert [clip.sides["given"] for clip in source.read()] == ["train", "test", "test"]


@pytest.mark.parametrize("listed", [list, {"annotations": ...}, {"split": None}])
def test_annotations_without_a_split(
    tmp_path: Path, listed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [annotation("a"), annotation("b")]
    path = write(tmp_path, made if listed is list else {**listed, "annotations": made})
    source = open_pyskl(path)
    assert source.splits == () and [clip.name for clip in source.read()] == ["a", "b"]
    assert all(clip.sides == {} for clip in source.read())
    assert {clip for part in open_dataset(path) for clip in part.names} == {"a", "b"}
    with pytest.raises(ValueError, match="expected split to be one of 'random', got 'xsub'"):
        open_dataset(path, split="xsub")
    assert main([str(path), "--cache", str(tmp_path / "cache")]) == 0
    said = capsys.readouterr().out
    assert (
        "2 clips of 4 classes" in said and "no split: open_dataset tests one clip in five" in said
    )


@pytest.mark.parametrize("protocol", range(6))
def test_keys_that_are_floats(tmp_path: Path, protocol: int) -> None:
    """As in pyskl's Kinetics: the number of valid frames by threshold of the boxes' scores."""
    made = annotation(valid={0.5: 10, np.float64(0.6): 9})
    path = write(tmp_path, content(made), protocol)
    (clip,) = open_pyskl(path).read()
    assert isinstance(clip, ClipFile)
    assert load_pickle(path)["annotations"][0]["valid"] == {0.5: 10, 0.6: 9}


@pytest.mark.parametrize("nested", ["lists", "tuples", "arrays of persons"])
def test_keypoints_as_nested_lists(tmp_path: Path, nested: str) -> None:
    plain = annotation()
    made = dict(plain)
    for key in ("keypoint", "keypoint_score"):
        made[key] = list(plain[key]) if nested == "arrays of persons" else plain[key].tolist()
    if nested == "tuples":
        made["keypoint"] = tuple(made["keypoint"])
    expected = only(tmp_path, plain)
    clip = only(tmp_path, made)
    assert clip.visibility is not None and expected.visibility is not None
    np.testing.assert_array_equal(clip.x, expected.x)
    np.testing.assert_array_equal(clip.visibility, expected.visibility)


RAGGED = np.ones((2, 5, 17, 2)).tolist()
RAGGED[1][3] = RAGGED[1][3][:-1]
SHARED: Any = [1.0, 2.0]
for _size in (17, 1000, 1000):
    SHARED = [SHARED] * _size


@pytest.mark.parametrize(
    ("keypoint", "error"),
    [
        (RAGGED, r"expected numbers \(M, T, V=17, C=2\), got a list of 2"),
        ([[[[1, 2]] * 16 + [[1, None]]]], r"numbers \(M, T, V=17, C=2\), got a list of 1"),
        ([[[[1, 2]] * 16 + [[1, 10**400]]]], r"numbers \(M, T, V=17, C=2\), got a list of 1"),
        ([[[[1, 2]] * 16 + [[1, True]]]], r"numbers \(M, T, V=17, C=2\), got a list of 1"),
        ([[[[1, 2]] * 16 + [[1, float("nan")]]]], "expected finite numbers, got nan"),
        ([[[[1, 2]] * 16]], r"numbers \(M, T, V=17, C=2\), got a list of 1"),
        ([np.ones((5, 17, 2)), np.ones((4, 17, 2))], r"V=17, C=2\), got a list of 2"),
        ([np.full((5, 17, 2), "x")], r"V=17, C=2\), got a list of 1 of <U1"),
    ],
)
def test_nested_lists_that_are_no_keypoints(tmp_path: Path, keypoint: Any, error: str) -> None:
    made = [annotation(), annotation("b", keypoint=keypoint, keypoint_score=..., total_frames=...)]
    _, refused = open_pyskl(write(tmp_path, content(*made))).read()
    assert isinstance(refused, FormatError) and re.search(error, str(refused))


def test_lists_that_share_entries_take_no_memory(tmp_path: Path) -> None:
    shared = annotation(keypoint=SHARED, keypoint_score=..., total_frames=...)
    with pytest.raises(FormatError, match=r"arrays of at most the file's .*, got 34000000"):
        open_pyskl(write(tmp_path, content(shared)))


def spoilt(what: str, at: Any, number: float) -> Any:
    one = annotation("b")
    one[what][at] = number
    return one


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (7, r"expected a dict with a frame_dir, got 7"),
        (annotation(7), r"expected a dict with a frame_dir, got 7"),
        (annotation(frame_dir=...), r"expected a dict with a frame_dir, got None"),
        (
            annotation("a"),
            r" \('a'\): expected each frame_dir once, got one of an earlier annotation",
        ),
        (
            annotation("b", keypoint=...),
            r" \('b'\): expected the keys frame_dir, label and keypoint, got",
        ),
        (annotation("b", label=...), r"label and keypoint, got the keys frame_dir, total_"),
        (annotation("b", -1), r" \('b'\), label: expected an integer label in 0\.\.99999, got -1"),
        (annotation("b", 100_000), "got 100000"),
        (annotation("b", 10**300), "an integer of more than 60 digits"),
        (annotation("b", True), "got True"),
        (annotation("b", 1.0), "got 1.0"),
        (annotation("b", "1"), "got '1'"),
        (annotation("b", [1]), "got a list of 1"),
        (annotation("b", None), "got None"),
        (annotation("b", np.float32(2)), "got 2.0"),
        (annotation("b", np.ones(1, int)), r"got an array \(1,\)"),
        (annotation("b", total_frames=6), "expected total_frames 5, the length of keypoint, got 6"),
        (annotation("b", total_frames=5.0), "total_frames 5, the length of keypoint, got 5.0"),
        (
            annotation("b", keypoint=[1]),
            r"keypoint: expected numbers \(M, T, V=17, C=2\), got a list of 1",
        ),
        (
            annotation("b", v=18),
            r"expected numbers \(M, T, V=17, C=2\), got an array \(2, 5, 18, 2\) of float16",
        ),
        (
            annotation("b", c=3),
            r"expected numbers \(M, T, V=17, C=2\), got an array \(2, 5, 17, 3\)",
        ),
        (annotation("b", m=0), r"\(M, T, V=17, C=2\), got an array \(0, 5, 17, 2\)"),
        (annotation("b", t=0), r"\(M, T, V=17, C=2\), got an array \(2, 0, 17, 2\)"),
        (
            annotation("b", keypoint=np.ones((2, 5, 17, 2), bool)),
            r"got an array \(2, 5, 17, 2\) of bool",
        ),
        (annotation("b", keypoint=np.ones((5, 17, 2))), r"got an array \(5, 17, 2\) of float64"),
        (
            annotation("b", keypoint_score=np.ones((2, 5, 16))),
            r"keypoint_score: expected numbers \(M=2, T=5, V=17\), got an array \(2, 5, 16\)",
        ),
        (
            annotation("b", keypoint_score=np.ones((1, 5, 17))),
            r"expected numbers \(M=2, T=5, V=17\)",
        ),
        (
            annotation("b", keypoint_score=3),
            r"keypoint_score: expected numbers \(M=2, T=5, V=17\), got 3",
        ),
        (
            spoilt("keypoint", (1, 2, 3, 1), np.nan),
            r"finite numbers, got nan at \(1, 2, 3, 1\) of \(M, T, V=17",
        ),
        (
            spoilt("keypoint", (0, 0, 0, 0), -np.inf),
            r"expected finite numbers, got -inf at \(0, 0, 0, 0\)",
        ),
        (
            spoilt("keypoint_score", (1, 2, 3), np.nan),
            r"keypoint_score: expected finite numbers, got nan",
        ),
        (
            annotation("b", keypoint=np.full((2, 5, 17, 2), 1e300)),
            r"finite numbers, got inf at \(0, 0, 0, 0\)",
        ),
        (
            annotation("b", keypoint=np.zeros((2, 5, 17, 2)), keypoint_score=...),
            "a body in some frame, got none",
        ),
        (
            annotation("b", keypoint_score=np.zeros((2, 5, 17))),
            "expected a body in some frame, got none in any",
        ),
    ],
)
def test_what_is_wrong_with_one_annotation_takes_its_place(
    tmp_path: Path, wrong: Any, error: str
) -> None:
    good = [annotation("a"), annotation("c")]
    source = open_pyskl(write(tmp_path, content(good[0], wrong, good[1], train=["a"], val=["c"])))
    first, refused, last = source.read()
    assert isinstance(first, ClipFile) and isinstance(last, ClipFile) and source.num_clips == 3
    assert isinstance(refused, FormatError)
    with pytest.raises(
        FormatError, match=rf"^{tmp_path}/data\.pkl, annotation 1.*: expected .*, got "
    ) as told:
        raise refused
    assert told.match(error)
    assert len(str(refused)) < len(str(tmp_path)) + 350


def test_one_array_that_thousands_share_is_refused(tmp_path: Path) -> None:
    keypoint = annotation(t=50)["keypoint"]
    shared = [annotation(str(i), t=50, keypoint=keypoint, keypoint_score=...) for i in range(100)]
    with pytest.raises(
        FormatError, match=r"expected keypoint arrays of at most the file's \d+ bytes, got 680000"
    ):
        open_pyskl(write(tmp_path, content(*shared)))


def test_the_file_is_not_read_before_the_clips_are(tmp_path: Path) -> None:
    made = content(annotation(), annotation("b"))
    path = write(tmp_path, made)
    source = open_pyskl(path)
    at = path.read_bytes().index(made["annotations"][1]["keypoint"].tobytes())
    with path.open("r+b") as file:
        file.seek(at)
        file.write(np.float16(123).tobytes())
    assert [clip.x[0, 0, 0, 0] == 123 for clip in source.read()] == [False, True]


@given(seed=st.integers(0, 10**9), protocol=st.integers(0, 5), edits=st.integers(1, 4))
def test_a_damaged_file_is_refused_or_read_whole(
    tmp_path_factory: Any, seed: int, protocol: int, edits: int
) -> None:
    rng = random.Random(seed)
    path = tmp_path_factory.getbasetemp() / "damaged.pkl"
    made = content(
        annotation(m=1, t=2),
        annotation("b", 5, m=1, t=1),
        annotation("c", m=1, t=1, keypoint_score=...),
    )
    damaged = bytearray(pickle.dumps(made, protocol))
    for _ in range(edits):
        at = rng.randrange(len(damaged))
        kind = rng.random()
        if kind < 0.6:
            damaged[at] = rng.randrange(256)
        elif kind < 0.8:
            del damaged[at : at + rng.randrange(1, 30)]
        else:
            damaged[at:at] = damaged[at : at + rng.randrange(1, 60)]
    path.write_bytes(damaged)
    answers: list[ClipFile | FormatError]
    try:
        source = open_pyskl(path)
        answers = list(source.read())
        assert len(answers) == source.num_clips
    except FormatError as error:
        answers = [error]
    for answer in answers:
        if isinstance(answer, FormatError):
            assert str(path) in str(answer) and ": expected " in str(answer)
        else:
            assert (
                answer.x.shape[0] in (2, 3)
                and answer.x.shape[2:] == (17, 2)
                and answer.x.shape[1] > 0
            )
            assert (
                np.isfinite(answer.x).all() and answer.x.dtype == np.float32 and answer.label >= 0
            )


@pytest.mark.parametrize("score", [True, False])
def test_a_third_number_is_a_score_or_z(tmp_path: Path, score: bool) -> None:
    """17 joints with (x, y, score) were COCO17 in 3D with the score as z."""
    random = np.random.default_rng(0)
    keypoint = random.uniform(0, 400, (1, 5, 17, 3))
    keypoint[..., 2] = random.uniform(0, 1, (1, 5, 17)) - (0 if score else 0.5)
    made = {**annotation("a"), "keypoint": keypoint, "total_frames": 5}
    made.pop("keypoint_score", None)
    (clip,) = open_pyskl(write(tmp_path, [made])).read()
    assert clip.x.shape[0] == (2 if score else 3)
    if score:
        assert np.allclose(clip.visibility[..., 0], keypoint[0, ..., 2], atol=1e-6)
    else:
        assert np.allclose(clip.x[2, ..., 0], keypoint[0, ..., 2], atol=1e-6)
