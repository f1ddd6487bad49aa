"""Clips in memory, their batches, and the real NW-UCLA split."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from skeleton_focus import KINECT20, NTU25, Batch, FormatError, SkeletonDataset, SkeletonLayout, Split, open_dataset
from skeleton_focus.formats import NW_UCLA_ACTIONS

CHAIN = SkeletonLayout.from_bones([(0, 1), (1, 2)])


def clips(*frames: int, joints: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, t, joints, 1, generator=generator) for t in frames]


def write(folder: Path, name: str, frames: int = 2) -> None:
    label = list(NW_UCLA_ACTIONS).index(name[:3]) + 1
    content = {
        "file_name": name,
        "skeletons": [[[t, v, 0.5] for v in range(20)] for t in range(frames)],
        "label": label,
    }
    (folder / f"{name}.json").write_text(json.dumps(content))


def test_defaults() -> None:
    x = clips(2, 4)
    data = SkeletonDataset(x, [1, 0], CHAIN)
    assert len(data) == 2 and data.classes == ("0", "1") and data.names == ("0", "1") and data.layout is CHAIN
    clip = data[1]
    assert torch.equal(clip.x, x[1]) and clip.label == 0
    assert torch.equal(clip.visibility, torch.ones(4, 3, 1)) and torch.equal(clip.critical, torch.zeros(1, 4, 3))


def test_everything_as_given() -> None:
    x, seen, truth = clips(2, 4), [torch.rand(t, 3, 1) for t in (2, 4)], [torch.rand(1, t, 3) for t in (2, 4)]
    data = SkeletonDataset(
        x, torch.tensor([2, 0]), CHAIN, classes=["a", "b", "c"], names=["x", "y"], visibility=seen, critical=truth
    )
    assert data.labels == [2, 0] and data.classes == ("a", "b", "c") and data.names == ("x", "y")
    assert data[0].visibility is seen[0] and data[1].critical is truth[1]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"clips": [], "labels": []}, "at least one clip, got none"),
        ({"labels": [0]}, "2 labels, one a clip, got 1"),
        ({"labels": [0, 1, 0]}, "2 labels, one a clip, got 3"),
        ({"labels": []}, "2 labels, one a clip, got 0"),
        ({"names": ["a"]}, "2 names, one a clip, got 1"),
        ({"visibility": [torch.ones(2, 3, 1)]}, "2 visibility, one a clip, got 1"),
        ({"critical": []}, "2 critical, one a clip, got 0"),
        ({"labels": [0, -1]}, r"labels in 0\.\.0, got \[-1\]"),
        ({"labels": [7, 1], "classes": ["a", "b"]}, r"labels in 0\.\.1, got \[7\]"),
        ({"layout": NTU25}, r"clip '0' \(C=2, T, V=25, M=1\), got \(2, 2, 3, 1\)"),
        ({"clips": [torch.zeros(2, 2, 3, 1), torch.zeros(3, 2, 3, 1)]},
         r"clip '1' \(C=2, T, V=3, M=1\), got \(3, 2, 3, 1\)"),
        ({"clips": [torch.zeros(2, 2, 3, 1), torch.zeros(2, 2, 3, 2)]},
         r"clip '1' \(C=2, T, V=3, M=1\), got \(2, 2, 3, 2\)"),
        ({"clips": [torch.zeros(2, 2, 3), torch.zeros(2, 2, 3)]}, r"clip '0' \(C=2, T, V=3, M=3\), got \(2, 2, 3\)"),
        ({"clips": [torch.zeros(2, 2, 3, 1), torch.zeros(2, 0, 3, 1)], "names": ["a", "b"]},
         "clip 'b' to hold frames, got none"),
        ({"clips": [torch.zeros(2, 2, 3, 1), torch.full((2, 2, 3, 1), torch.nan)]},
         "clip '1' to be finite, got NaN or infinity; set missing joints to 0 and their visibility to 0"),
        ({"clips": [torch.full((2, 2, 3, 1), torch.inf), torch.zeros(2, 2, 3, 1)]}, "clip '0' to be finite, got NaN"),
        ({"visibility": [torch.ones(2, 3, 1), torch.ones(1, 3, 1)]}, r"visibility .*, got \(1, 3, 1\)"),
        ({"visibility": [torch.ones(1, 2, 3), torch.ones(4, 3, 1)]}, r"visibility .*, got \(1, 2, 3\)"),
        ({"critical": [torch.ones(2, 3, 1), torch.ones(1, 4, 3)]}, r"critical .*, got \(2, 3, 1\)"),
    ],
)  # fmt: skip
def test_what_is_refused(change: dict[str, Any], error: str) -> None:
    options: dict[str, Any] = {"clips": clips(2, 4), "labels": [0, 0], "layout": CHAIN, **change}
    with pytest.raises(ValueError, match="^SkeletonDataset: expected .*" + error):
        SkeletonDataset(options.pop("clips"), options.pop("labels"), options.pop("layout"), **options)


def test_collate_pads_with_zeros() -> None:
    x, seen, truth = clips(2, 4, 1), [torch.ones(t, 3, 1) for t in (2, 4, 1)], [torch.ones(1, t, 3) for t in (2, 4, 1)]
    data = SkeletonDataset(x, [1, 0, 2], CHAIN, visibility=seen, critical=truth)
    batch = SkeletonDataset.collate([data[i] for i in range(3)])
    assert (
        batch.x.shape == (3, 2, 4, 3, 1) and batch.lengths.tolist() == [2, 4, 1] and batch.label.tolist() == [1, 0, 2]
    )
    assert batch.label.dtype == batch.lengths.dtype == torch.int64
    for n, t in enumerate((2, 4, 1)):
        assert torch.equal(batch.x[n, :, :t], x[n]) and not batch.x[n, :, t:].any()
        assert batch.visibility[n, :t].all() and not batch.visibility[n, t:].any()
        assert batch.critical[n, :, :t].all() and not batch.critical[n, :, t:].any()
    assert batch.visibility.shape == (3, 4, 3, 1) and batch.critical.shape == (3, 1, 4, 3)


def test_collate_keeps_the_dtype() -> None:
    data = SkeletonDataset([x.double() for x in clips(2, 1)], [0, 0], CHAIN)
    batch = SkeletonDataset.collate([data[0], data[1]])
    assert batch.x.dtype == batch.visibility.dtype == batch.critical.dtype == torch.float64


def test_a_batch_becomes_a_data_set_and_comes_back() -> None:
    data = SkeletonDataset(clips(2, 4, 1), [1, 0, 2], CHAIN, visibility=[torch.rand(t, 3, 1) for t in (2, 4, 1)],
                           critical=[torch.rand(1, t, 3) for t in (2, 4, 1)])  # fmt: skip
    batch = SkeletonDataset.collate([data[i] for i in range(3)])
    again = SkeletonDataset.from_batch(batch, CHAIN, classes=["a", "b", "c"])
    assert again.classes == ("a", "b", "c") and [clip.x.shape[1] for clip in again] == [2, 4, 1]
    back = SkeletonDataset.collate([again[i] for i in range(3)])
    assert all(torch.equal(one, other) for one, other in zip(batch, back, strict=True))
    assert SkeletonDataset.from_batch(batch, CHAIN).classes == ("0", "1", "2")


def test_a_data_loader_takes_it() -> None:
    data = SkeletonDataset(clips(2, 4, 1, 3, 3), [0, 1, 2, 3, 4], CHAIN)
    batches = list(DataLoader(data, batch_size=2, collate_fn=SkeletonDataset.collate))
    assert all(isinstance(batch, Batch) for batch in batches)
    assert [batch.lengths.tolist() for batch in batches] == [[2, 4], [1, 3], [3]]


# ------------------------------------------------------------------------------------------------------ open_dataset


@pytest.mark.parametrize("inner", ["", "all_sqe"])
def test_open_dataset_splits_by_view(tmp_path: Path, inner: str) -> None:
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    for name in ("a12_s01_e00_v02", "a01_s02_e01_v03", "a08_s01_e00_v01"):
        write(folder, name, frames=3)
    split = open_dataset(str(tmp_path))
    assert isinstance(split, Split)
    assert split.train.names == ("a08_s01_e00_v01", "a12_s01_e00_v02") and split.test.names == ("a01_s02_e01_v03",)
    assert split.train.labels == [6, 9] and split.test.labels == [0]
    assert split.train.classes == split.test.classes == tuple(NW_UCLA_ACTIONS.values())
    assert split.train.layout is KINECT20 and split.train[0].x.shape == (3, 3, 20, 1)
    assert split.train[0].x[:, 2, 7, 0].tolist() == [2, 7, 0.5]


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^open_dataset: expected a folder of clips, got .*/none, which does not exist$"
    ):
        open_dataset(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"^open_dataset: expected a folder of clips, got .*/file, which is a file$"):
        open_dataset(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"^open_dataset: expected NW-UCLA clips .*/empty, which holds no \.json file$"
    ):
        open_dataset(tmp_path / "empty")


@pytest.mark.parametrize(
    ("names", "lost"),
    [(["a01_s01_e00_v01", "a02_s01_e00_v02"], "test view 3"), (["a01_s01_e00_v03"], "training views 1 and 2")],
)
def test_a_split_with_an_empty_side(tmp_path: Path, names: list[str], lost: str) -> None:
    for name in names:
        write(tmp_path, name)
    with pytest.raises(ValueError, match=re.escape(f"open_dataset: expected clips of {lost}, got none in {tmp_path}")):
        open_dataset(tmp_path)


def test_a_broken_clip_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a01_s01_e00_v01")
    (tmp_path / "a02_s01_e00_v03.json").write_text("{")
    with pytest.raises(FormatError, match=r"a02_s01_e00_v03\.json, line 1, column 2: expected JSON"):
        open_dataset(tmp_path)


@pytest.fixture(scope="session")
def nw_ucla(shared_data: Path) -> Split:
    """The real data set, read once (about five seconds)."""
    return open_dataset(shared_data)


def test_the_real_split(nw_ucla: Split) -> None:
    assert (len(nw_ucla.train), len(nw_ucla.test)) == (1020, 464)
    frames = [clip.x.shape[1] for part in nw_ucla for clip in part]
    assert (min(frames), max(frames), round(sum(frames) / len(frames))) == (1, 201, 39)
    assert {name[-3:] for name in nw_ucla.train.names} == {"v01", "v02"}
    assert {name[-3:] for name in nw_ucla.test.names} == {"v03"}
    for part in nw_ucla:
        assert set(part.labels) == set(range(10)) and len(part.classes) == 10
        assert len(set(part.names)) == len(part)
        assert all(clip.x.shape[0] == 3 and clip.x.shape[2:] == (20, 1) for clip in part)
        actions = list(NW_UCLA_ACTIONS)
        assert all(actions[label] == name[:3] for label, name in zip(part.labels, part.names, strict=True))


def test_the_real_bodies_are_upright_and_in_metres(nw_ucla: Split) -> None:
    head, foot = KINECT20.index("head"), KINECT20.index("left_foot")
    upright = [bool((clip.x[1, :, head] > clip.x[1, :, foot]).float().mean() > 0.5) for clip in nw_ucla.test]
    assert sum(upright) / len(upright) > 0.95
    depth = torch.cat([clip.x[2].flatten() for clip in nw_ucla.test])
    assert 1 < depth.median() < 6


def test_real_clips_make_a_batch(nw_ucla: Split) -> None:
    lengths = [clip.x.shape[1] for clip in nw_ucla.train]
    shortest, longest = lengths.index(min(lengths)), lengths.index(max(lengths))
    batch = SkeletonDataset.collate([nw_ucla.train[shortest], nw_ucla.train[longest]])
    assert batch.lengths.tolist() == [min(lengths), max(lengths)] and batch.x.isfinite().all()
    assert batch.visibility.sum((1, 2, 3)).tolist() == [20 * min(lengths), 20 * max(lengths)]
