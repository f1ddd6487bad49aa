"""The library's own .npz of clips: written by save, by numpy alone, and damaged."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from skeleton_focus import (
    COCO17,
    SkeletonDataset,
    SkeletonLayout,
    Split,
    format_clips,
    open_clips,
    open_dataset,
)
from skeleton_focus.datasets import main
from skeleton_focus.format_clips import open_clips_file
from skeleton_focus.formats import FormatError
from skeleton_focus.layouts import LAYOUTS

CHAIN = SkeletonLayout.from_bones([(0, 1), (1, 2)], joints=["hip", "knee", "foot"], center=1)


def written(folder: Path, **changes: Any) -> Path:
    """A file as a user writes it with numpy alone; a member that is None is left out."""
    random = np.random.default_rng(1)
    members: dict[str, Any] = {
        "x": random.normal(size=(9, 17, 3)).astype(np.float32),
        "lengths": [2, 4, 3],
        "label": [0, 1, 1],
        "layout": "COCO17",
    }
    members |= changes
    path = folder / "clips.npz"
    np.savez(path, **{name: value for name, value in members.items() if value is not None})
    return path


def test_numpy_alone(tmp_path: Path) -> None:
    path = written(tmp_path)
    x = np.load(path)["x"]
    data = open_clips(path, cache=False)
    assert data.layout == COCO17 and data.labels == [0, 1, 1] and data.classes == ("0", "1")
    assert data.names == ("0", "1", "2") and data.origin == "clips"
    for clip, start, end in zip(data, (0, 2, 6), (2, 6, 9), strict=True):
        assert np.array_equal(clip.x[..., 0], x[start:end].transpose(2, 0, 1))
        assert (clip.visibility == 1).all()


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("persons", [1, 2])
def test_round_trip(tmp_path: Path, monkeypatch: Any, cache: bool, persons: int) -> None:
    monkeypatch.setenv("SKELETON_FOCUS_CACHE", str(tmp_path / "cache"))
    random = torch.Generator().manual_seed(0)
    seen = [(torch.rand(t, 3, persons, generator=random) * 2 - 0.5).clamp(0, 1) for t in (4, 7, 1)]
    seen[2][:] = 0.5
    clips = [torch.randn(2, *part.shape, generator=random) * (part > 0) for part in seen]
    data = SkeletonDataset(
        clips,
        [1, 0, -1],
        CHAIN,
        classes=["run", "jump"],
        names=["a", "b", "ü c"],
        subjects=[3, 4, 3],
        visibility=seen,
    )
    path = tmp_path / "new folder" / "mine.npz"
    data.save(path, splits={"mine": ["train", "test", ""]})
    got = open_clips(path, cache=cache)
    assert got.layout == CHAIN and got.layout.parts == CHAIN.parts
    assert (got.labels, got.classes, got.names, got.subjects) == (
        data.labels,
        data.classes,
        data.names,
        data.subjects,
    )
    for ours, theirs in zip(data, got, strict=True):
        assert torch.equal(ours.x, theirs.x) and torch.equal(ours.visibility, theirs.visibility)
    train, test = open_dataset(path, cache=cache)
    assert (train.names, test.names) == (("a",), ("b",))
    assert [*tmp_path.glob("new folder/*.part")] == []


def test_split_saved(tmp_path: Path) -> None:
    train = SkeletonDataset(torch.randn(3, 3, 5, 3, 1), [0, 1, 0], CHAIN)
    test = SkeletonDataset(torch.randn(2, 3, 6, 3, 1), [1, 0], CHAIN)
    Split(train, test).save(tmp_path / "both.npz")
    got = open_dataset(tmp_path / "both.npz", cache=False)
    assert got.train.labels == [0, 1, 0] and got.test.labels == [1, 0]
    assert torch.equal(got.test[1].x, test[1].x)


def test_saving_without_labels(tmp_path: Path) -> None:
    SkeletonDataset(torch.randn(2, 3, 5, 3, 1), None, CHAIN).save(tmp_path / "x.npz")
    data = open_clips(tmp_path / "x.npz", cache=False)
    assert data.labels == [-1, -1] and data.classes == ()
    assert data.describe().startswith("2 clips, 2 without a label\n")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    """It fails while the file is written: every clip is read before, for the lengths."""
    reads = 0

    class Broken(SkeletonDataset):
        def __getitem__(self, index: int) -> Any:
            nonlocal reads
            reads += index == 2
            if reads == 2:
                assert len([*tmp_path.iterdir()]) == 2
                raise OSError("disk full")
            return super().__getitem__(index)

    path = tmp_path / "x.npz"
    path.write_bytes(b"old")
    clips = torch.randn(3, 3, 5, 3, 1)
    with pytest.raises(OSError, match="disk full"):
        Broken(clips, [0, 1, 0], CHAIN).save(path)
    assert path.read_bytes() == b"old" and [*tmp_path.iterdir()] == [path]
    SkeletonDataset(clips, [0, 1, 0], CHAIN).save(path)
    assert torch.equal(open_clips(path, cache=False)[2].x, clips[2])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"path": "x.npy"}, "a path that ends in .npz"),
        ({"path": "x.npz", "splits": {"a": ["train"]}}, "'train', 'test' or '' for each of 2"),
        ({"path": "x.npz", "splits": {"a": ["train", "val"]}}, "in split 'a'"),
    ],
)
def test_save_refuses(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    data = SkeletonDataset(torch.randn(2, 3, 5, 3, 1), [0, 1], CHAIN)
    with pytest.raises(ValueError, match=expected):
        data.save(tmp_path / options.pop("path"), **options)
    assert [*tmp_path.iterdir()] == []


def test_stated_and_assumed_layouts(tmp_path: Path) -> None:
    path = written(tmp_path, layout=None)
    assert open_clips(path, cache=False).heading() == (
        "clips, COCO17 assumed from 17 joints (other --layout: H36M17): "
        "COCO17, 17 joints, C=3 channels, M=1 body"
    )
    stated = open_clips(path, layout="h36m17", cache=False)
    assert stated.layout is LAYOUTS["H36M17"] and stated.origin == "clips"
    own = json.dumps(CHAIN.to_dict())
    x = np.ones((9, 3, 2), np.float32)
    assert open_clips(written(tmp_path, x=x, layout=own), cache=False).layout == CHAIN
    json_file = tmp_path / "mine.json"
    json_file.write_text(own)
    path = written(tmp_path, x=x, layout=None)
    assert open_clips(path, layout=json_file, cache=False).layout == CHAIN
    with pytest.raises(FormatError, match=r"V=17 joints of the layout COCO17, got 3"):
        open_clips(path, layout="COCO17", cache=False)
    with pytest.raises(FormatError, match=r"pass layout \(--layout\)"):
        open_clips(path, cache=False)


def test_random_split(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2], [10, 5, 2])
    path = written(tmp_path, x=np.ones((17, 17, 2)), lengths=np.ones(17, int), label=labels)
    train, test = open_dataset(path, cache=False)
    assert [test.labels.count(label) for label in (0, 1, 2)] == [2, 1, 1]
    assert {*train.names} | {*test.names} == {str(i) for i in range(17)}
    assert test.names == ("7", "8", "10", "15")  # on every machine
    again = open_dataset(path, split="random", cache=False)
    assert again.test.names == test.names


def test_random_split_follows_the_names(tmp_path: Path) -> None:
    """Other clips of a class move a clip's rank by one, clips of other classes by nothing."""
    names = [f"clip {i}" for i in range(30)]
    x = np.ones((30, 17, 2))

    def tested(order: list[int]) -> set[str]:
        path = written(
            tmp_path,
            x=x[order],
            lengths=np.ones(len(order), int),
            name=[names[i] for i in order],
            label=[i % 2 for i in order],
        )
        return {*open_dataset(path, cache=False).test.names}

    every = tested([*range(30)])
    assert tested([*range(29, -1, -1)]) == every and len(every) == 6
    odd = {name for name in every if int(name[5:]) % 2}
    assert odd <= tested([i for i in range(30) if i != 4])


def test_clips_of_unknown_performers_are_on_no_side(tmp_path: Path) -> None:
    path = written(tmp_path, subject=[1, 0, 2])
    for split in ("train_subjects=1", "test_subjects=1"):
        with pytest.raises(ValueError, match=r"performer of each clip .* 0 for clip '1'"):
            open_dataset(path, split=split, cache=False)


def test_subject_splits(tmp_path: Path) -> None:
    path = written(tmp_path, subject=[1, 2, 5], train=[True, False, True])
    assert open_dataset(path, cache=False).test.names == ("1",)  # the file's own split
    assert open_dataset(path, split="train_subjects=1,2", cache=False).test.names == ("2",)
    assert open_dataset(path, split="test_subjects=1", cache=False).train.names == ("1", "2")
    for split, expected in (
        ("test_subjects=7", r"subjects among \[1, 2, 5\], got \[7\]"),
        ("test_subjects=x", "test_subjects=1,3,5, got 'test_subjects=x'"),
        ("xsub", "'given', 'random', 'train_subjects=1,2'"),
    ):
        with pytest.raises(ValueError, match=expected):
            open_dataset(path, split=split, cache=False)
    with pytest.raises(ValueError, match="training clips of split"):
        open_dataset(path, split="test_subjects=1,2,5", cache=False)
    assert open_clips(path, split="test_subjects=1,2,5", side="test", cache=False).labels == [
        0,
        1,
        1,
    ]


def test_a_split_without_a_side_is_not_ignored(tmp_path: Path) -> None:
    path = written(tmp_path, train=[True, False, True])
    with pytest.raises(ValueError, match="open_clips: expected a side of split 'given', got none"):
        open_clips(path, split="given", cache=False)


def test_members_that_are_no_arrays_are_left_out(tmp_path: Path) -> None:
    path = written(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.txt", "notes")
    assert open_clips(path, cache=False).labels == [0, 1, 1]


def test_own_splits(tmp_path: Path) -> None:
    path = written(tmp_path, split_day=["train", "", "test"], split_night=["test", "train", ""])
    assert open_dataset(path, cache=False).train.names == ("0",)
    assert open_dataset(path, split="night", cache=False).train.names == ("1",)
    assert open_clips(path, split="night", side="test", cache=False).names == ("0",)
    assert open_clips(path, split="night", side="train", cache=False).names == ("1",)
    assert open_clips(path, side="train", cache=False).names == ("0",)
    with pytest.raises(ValueError, match="side to be one of 'train', 'test', got 'val'"):
        open_clips(path, side="val", cache=False)


def test_unlabelled_clips_are_not_trained(tmp_path: Path) -> None:
    path = written(tmp_path, label=[0, -1, 1], train=[True, True, False])
    with pytest.raises(ValueError, match=r"a label for each clip.*clip '1'.*open_clips"):
        open_dataset(path, cache=False)
    assert open_clips(path, cache=False).labels == [0, -1, 1]
    path = written(tmp_path, label=[0, 1, -1], train=[True, True, False])
    with pytest.raises(ValueError, match=r"a label for each clip.*clip '2'"):
        open_dataset(path, cache=False)


@pytest.mark.parametrize("cache", [True, False])
def test_other_numbers_of_persons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: bool
) -> None:
    monkeypatch.setenv("SKELETON_FOCUS_CACHE", str(tmp_path / "cache"))
    x = np.random.default_rng(1).uniform(1, 2, (9, 2, 17, 2)).astype(np.float32)
    path = written(tmp_path, x=x)
    for persons in (None, 1, 3, 2):
        data = open_clips(path, persons=persons, cache=cache)
        first = data[0].x
        assert first.shape == (2, 2, 17, persons or 2)
        kept = min(persons or 2, 2)
        assert np.array_equal(first[..., :kept], x[:2, :kept].transpose(3, 0, 2, 1))
        assert not first[..., 2:].any() and not data[0].visibility[..., 2:].any()


@pytest.mark.parametrize(
    ("joints", "flat", "space"), [(17, "COCO17", "COCO17"), (25, "BODY25", "NTU25")]
)
def test_a_third_number_is_a_score_or_z(tmp_path: Path, joints: int, flat: str, space: str) -> None:
    random = np.random.default_rng(3)
    x = random.uniform(0, 400, (9, joints, 3))
    x[..., 2] = random.uniform(0, 1.001, (9, joints))
    x[0, 2, 2] = 0
    data = open_clips(written(tmp_path, x=x, layout=None), cache=False)
    assert data.layout.name == flat and data[0].x.shape == (2, 2, joints, 1)
    seen = data[0].visibility[..., 0].numpy()
    assert np.allclose(seen, x[:2, :, 2].clip(0, 1)) and (data[0].x[:, 0, 2] == 0).all()
    x[..., 2] -= 0.5
    data = open_clips(written(tmp_path, x=x, layout=None), cache=False)
    assert data.layout.name == space and data[0].x.shape == (3, 2, joints, 1)
    assert (data[0].visibility == 1).all()


def test_the_first_third_numbers_decide(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    x = random.uniform(0.1, 1, (9, 17, 3))
    x[:2, :, 2] = 0  # a clip in which nothing was found
    first, second, third = open_clips_file(written(tmp_path, x=x)).read()
    assert isinstance(first, FormatError) and "a joint that was seen" in str(first)
    assert second.x.shape == (2, 4, 17, 1)
    assert np.allclose(third.visibility[..., 0], x[6:, :, 2])
    x[7, 5, 2] = 3.5
    first, second, third = open_clips_file(written(tmp_path, x=x)).read()
    assert second.x.shape == (2, 4, 17, 1) and isinstance(third, FormatError)
    assert "clip '2': expected a score in 0..1 as third number, got 3.5" in str(third)
    x[..., 2] = 0
    assert next(open_clips_file(written(tmp_path, x=x)).read()).x.shape == (3, 2, 17, 1)


def test_small_files_that_would_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.npz"
    members: dict[str, Any] = {"x": np.zeros((4_000_000, 17, 2), np.uint8), "lengths": [4_000_000]}
    np.savez_compressed(path, **members)
    assert path.stat().st_size < 200_000
    with pytest.raises(FormatError, match=r"at most 134217728 numbers, got 4000000 x \(17, 2\)"):
        open_clips_file(path)
    members["lengths"] = np.ones(1 << 23, np.uint8)
    np.savez_compressed(path, **members)
    with pytest.raises(FormatError, match="at most 4194304 clips, got 8388608"):
        open_clips_file(path)


def test_absent_persons_and_missing_joints(tmp_path: Path) -> None:
    x = np.ones((9, 2, 17, 2), np.float32)
    x[3, 1] = 0
    x[4, 1] = np.nan
    clips = [*open_clips_file(written(tmp_path, x=x)).read()]
    assert clips[0].visibility is None
    assert (clips[1].visibility.sum((1, 2)) == [34, 17, 17, 34]).all()
    assert np.isfinite(clips[1].x).all() and (clips[1].x[:, 2, :, 1] == 0).all()
    seen = np.ones((9, 17))
    seen[0, 3] = 0
    alone = np.ones((9, 17, 2))
    alone[0, 3] = np.nan
    clips = [*open_clips_file(written(tmp_path, x=alone, visibility=seen)).read()]
    assert clips[0].visibility[0, 3, 0] == 0 and clips[0].x[0, 0, 3, 0] == 0


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no clips": ({"lengths": np.zeros(0, int)}, "at least one clip"),
    "an empty clip": ({"lengths": [9, 0]}, "each of at least one frame"),
    "other frames": ({"lengths": [2, 4, 2]}, "8 frames, the sum of lengths, got 9"),
    "four channels": ({"x": np.zeros((9, 17, 4))}, "C of 2 or 3 as the last axis"),
    "five axes": ({"x": np.zeros((9, 1, 17, 3, 1))}, r"x: expected \(frames, V, C\)"),
    "labels of others": ({"label": [0, 1]}, "label: expected 3 values, one for each clip, got 2"),
    "a label of no class": ({"classes": ["a"]}, r"label: expected classes in 0..0, or -1"),
    "a negative label": ({"label": [0, -2, 1]}, "or -1 if unknown, got -2"),
    "equal classes": ({"classes": ["a", "a"]}, "classes: expected each name once"),
    "text for numbers": ({"label": ["a", "b", "c"]}, "label: expected a dtype of whole numbers"),
    "float lengths": ({"lengths": [2.0, 4.0, 3.0]}, "a dtype of whole numbers, got 'float64'"),
    "text for booleans": ({"train": ["train", "", ""]}, "train: expected a dtype of booleans"),
    "another name": ({"Classes": ["a", "b"]}, "expected the member classes, got 'Classes'"),
    "numbers for text": ({"name": [1, 2, 3]}, "name: expected a dtype of text"),
    "objects": ({"name": np.array([1, "b", None], object)}, "name: expected a dtype of text"),
    "a side of no split": ({"split_a": ["train", "val", "test"]}, "split_a: expected train, test"),
    "visibility of others": ({"visibility": np.ones((9, 16))}, r"visibility: expected \(9, 17\)"),
    "a layout of others": ({"layout": "NTU25"}, "V=25 joints of the layout NTU25, got 17"),
    "no layout's name": ({"layout": "MARS"}, "layout: expected the name of a layout"),
    "no layout": ({"layout": '{"bones": 3}'}, "layout: expected the name of a layout"),
    "a file": ({"layout": __file__}, "layout: .* got .*expected one of NTU25"),
    "no characters": (
        {"name": np.array([65, 66, 0x110000], "<u4").view("<U1")},
        "name: expected text, got numbers that are no characters",
    ),
    "a bone of no joint": (
        {"layout": '{"joints": ["a", "b"], "bones": [["a", "c"]]}'},
        r"expected bones of joints in \['a', 'b'\], or .*, got 'c'",
    ),
    "no JSON": ({"layout": "{"}, "layout: expected the name of a layout"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_members(tmp_path: Path, what: str) -> None:
    changes, expected = BAD[what]
    with pytest.raises(FormatError, match=expected):
        open_clips_file(written(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"x": np.full((9, 17, 3), np.nan)}, "a joint that was seen"),
        ({"x": np.full((9, 17, 3), np.inf)}, "finite numbers, got NaN or infinity, joint 0"),
        ({"visibility": np.full((9, 17), 2.0)}, r"visibility in \[0, 1\], got values from 2 to 2"),
        ({"visibility": np.zeros((9, 17))}, "a joint that was seen"),
    ],
)
def test_bad_clips(tmp_path: Path, changes: dict[str, NDArray[Any]], expected: str) -> None:
    clips = [*open_clips_file(written(tmp_path, **changes)).read()]
    assert len(clips) == 3 and all(isinstance(clip, FormatError) for clip in clips)
    with pytest.raises(FormatError, match=expected):
        raise clips[0]


def test_fortran_order_reads_the_same(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    arrays = {"x": random.normal(size=(9, 17, 2)), "visibility": random.uniform(0.1, 1, (9, 17))}
    expected = [*open_clips_file(written(tmp_path, **arrays)).read()]
    path = written(tmp_path, **{name: np.asfortranarray(x) for name, x in arrays.items()})
    for one, other in zip(expected, open_clips_file(path).read(), strict=True):
        assert np.array_equal(one.x, other.x) and np.array_equal(one.visibility, other.visibility)


def test_members_that_are_read_as_a_whole_are_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(format_clips, "_MOST_BYTES", 1000)
    x = np.ones((9, 17, 2))
    assert open_clips_file(written(tmp_path, x=x)).num_clips == 3
    with pytest.raises(FormatError, match="x: expected numbers in C order, got Fortran order"):
        open_clips_file(written(tmp_path, x=np.asfortranarray(x)))
    with pytest.raises(FormatError, match="name: expected at most 1000 bytes, got 3728"):
        open_clips_file(written(tmp_path, x=x, name=["a", "b", "c" * 300]))


def test_a_truncated_member(tmp_path: Path) -> None:
    path = written(tmp_path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    head = io.BytesIO()
    np.save(head, np.zeros((9, 17, 3), np.float32))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, head.getvalue()[:-4] if name == "x.npy" else content)
    with pytest.raises(FormatError, match="x: expected"):
        open_clips_file(path)


def test_described_and_converted(tmp_path: Path, capsys: Any) -> None:
    path = written(tmp_path, subject=[1, 2, 5], split_day=["train", "", "test"])
    target = tmp_path / "new.npz"
    assert main([str(path), "--no-cache", "--save", str(target)]) == 0
    out = capsys.readouterr().out
    assert "split day: 1 training and 1 test clips" in out
    assert "3 subjects: split train_subjects=... or test_subjects=..." in out
    assert f"written: {target}" in out
    again = open_dataset(target, split="day", cache=False)
    assert again.train.names == ("0",) and again.train.subjects == (1,)
