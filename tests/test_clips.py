"""Clips as a data set, and their batches."""

from __future__ import annotations

import os
import pickle
import sys
from collections import deque
from pathlib import Path
from typing import Any

import einops
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from skeleton_focus import (
    COCO17,
    KINECT20,
    NTU25,
    Batch,
    SkeletonDataset,
    SkeletonLayout,
    Split,
    convert_layout,
    open_clips,
)
from skeleton_focus.clips import Clip

CHAIN = SkeletonLayout.from_bones([(0, 1), (1, 2)])


def clips(*frames: int, joints: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, t, joints, 1, generator=generator) for t in frames]


def test_defaults() -> None:
    x = clips(2, 4)
    data = SkeletonDataset(x, [1, 0], CHAIN)
    assert (
        len(data) == 2
        and data.classes == ("0", "1")
        and data.names == ("0", "1")
        and data.layout is CHAIN
    )
    clip = data[1]
    assert torch.equal(clip.x, x[1]) and clip.label == 0
    assert torch.equal(clip.visibility, torch.ones(4, 3, 1)) and torch.equal(
        clip.critical, torch.zeros(1, 4, 3)
    )


def test_everything_as_given() -> None:
    x = clips(2, 4)
    seen = [torch.rand(t, 3, 1) for t in (2, 4)]
    truth = [torch.rand(1, t, 3) for t in (2, 4)]
    data = SkeletonDataset(
        x,
        torch.tensor([2, 0]),
        CHAIN,
        classes=["a", "b", "c"],
        names=["x", "y"],
        visibility=seen,
        critical=truth,
    )
    assert data.labels == [2, 0] and data.classes == ("a", "b", "c") and data.names == ("x", "y")
    assert data[0].visibility is seen[0] and data[1].critical is truth[1]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"clips": [], "labels": []}, "at least one clip, got none"),
        ({"labels": [0]}, "2 labels, one for each clip, got 1"),
        ({"labels": [0, 1, 0]}, "2 labels, one for each clip, got 3"),
        ({"labels": []}, "2 labels, one for each clip, got 0"),
        ({"names": ["a"]}, "2 names, one for each clip, got 1"),
        ({"visibility": [torch.ones(2, 3, 1)]}, "2 visibility, one for each clip, got 1"),
        ({"critical": []}, "2 critical, one for each clip, got 0"),
        ({"labels": [0.5, 1]}, r"integer labels in 0\.\.99999, got 0\.5"),
        ({"labels": ["0", "1"]}, r"integer labels in 0\.\.99999, got '0'"),
        ({"labels": [0, 10**9]}, r"integer labels in 0\.\.99999, got 1000000000"),
        ({"labels": torch.eye(2)}, r"integer labels in 0\.\.99999, got tensor"),
        ({"labels": [True, False]}, r"integer labels in 0\.\.99999, got True"),
        ({"layout": "ntu"}, "a SkeletonLayout, got str"),
        ({"names": ["a", "a"]}, r"names without duplicates, got \['a', 'a'\]"),
        ({"classes": ["a", "a"]}, r"classes without duplicates, got \['a', 'a'\]"),
        ({"classes": "ab"}, "classes without duplicates, got 'ab'"),
        ({"clips": [[[[0.0]]], [[[0.0]]]]}, r"clip '0' .* to be a tensor, got list"),
        (
            {"visibility": [torch.full((2, 3, 1), -1.0), torch.ones(4, 3, 1)]},
            r"visibility of clip '0' in 0\.\.1",
        ),
        (
            {"visibility": [torch.ones(2, 3, 1), torch.full((4, 3, 1), torch.nan)]},
            r"visibility of clip '1' in 0\.\.1",
        ),
        (
            {"visibility": torch.full((2, 2, 3, 1), 1.5), "clips": torch.ones(2, 2, 2, 3, 1)},
            "visibility of clip",
        ),
        ({"labels": [0, -2]}, r"labels in 0\.\.0, or -1, got \[-2\]"),
        ({"labels": [7, 1], "classes": ["a", "b"]}, r"labels in 0\.\.1, or -1, got \[7\]"),
        ({"layout": NTU25}, r"clip '0' \(C=2, T, V=25, M=1\), got \(2, 2, 3, 1\)"),
        (
            {"clips": [torch.zeros(2, 2, 3, 1), torch.zeros(3, 2, 3, 1)]},
            r"clip '1' \(C=2, T, V=3, M=1\), got \(3, 2, 3, 1\)",
        ),
        (
            {"clips": [torch.zeros(2, 2, 3, 1), torch.zeros(2, 2, 3, 2)]},
            r"clip '1' \(C=2, T, V=3, M=1\), got \(2, 2, 3, 2\)",
        ),
        (
            {"clips": [torch.zeros(2, 2, 3), torch.zeros(2, 2, 3)]},
            r"clip '0' \(C, T, V=3, M\), got \(2, 2, 3\)",
        ),
        (
            {"clips": [torch.zeros(2, 2, 3, 1), torch.zeros(2, 0, 3, 1)], "names": ["a", "b"]},
            "clip 'b' to have frames, got none",
        ),
        (
            {"clips": [torch.zeros(2, 2, 3, 1), torch.full((2, 2, 3, 1), torch.nan)]},
            "clip '1' to be finite, got NaN or infinity; "
            "set missing joints to 0 and their visibility to 0",
        ),
        (
            {"clips": [torch.full((2, 2, 3, 1), torch.inf), torch.zeros(2, 2, 3, 1)]},
            "clip '0' to be finite, got NaN",
        ),
        (
            {"clips": [torch.ones(2, 2, 3, 1, dtype=torch.int64)], "labels": [0]},
            "clip '0' of floating-point numbers, got torch.int64",
        ),
        (
            {"visibility": [torch.ones(2, 3, 1), torch.ones(1, 3, 1)]},
            r"visibility .*, got \(1, 3, 1\)",
        ),
        (
            {"visibility": [torch.ones(1, 2, 3), torch.ones(4, 3, 1)]},
            r"visibility .*, got \(1, 2, 3\)",
        ),
        ({"critical": [torch.ones(2, 3, 1), torch.ones(1, 4, 3)]}, r"critical .*, got \(2, 3, 1\)"),
    ],
)
def test_what_is_refused(change: dict[str, Any], error: str) -> None:
    options: dict[str, Any] = {"clips": clips(2, 4), "labels": [0, 0], "layout": CHAIN, **change}
    with pytest.raises(ValueError, match="^SkeletonDataset: expected .*" + error):
        SkeletonDataset(
            options.pop("clips"), options.pop("labels"), options.pop("layout"), **options
        )


def test_arrays_and_one_array() -> None:
    x = clips(4, 4)
    alone = SkeletonDataset(
        [part.numpy() for part in x],
        np.array([1, 0]),
        CHAIN,
        visibility=np.ones((2, 4, 3, 1), "f4"),
    )
    whole = SkeletonDataset(torch.stack(x), [1, 0], CHAIN)
    frozen = np.stack([part.numpy() for part in x])
    frozen.flags.writeable = False
    for data in (alone, whole, SkeletonDataset(frozen, [1, 0], CHAIN)):
        assert data.labels == [1, 0] and all(
            torch.equal(clip.x, part) for clip, part in zip(data, x, strict=True)
        )
        assert all(torch.equal(clip.visibility, torch.ones(4, 3, 1)) for clip in data)


def test_a_subset_keeps_what_is_known() -> None:
    x = clips(2, 4, 3)
    seen = [torch.rand(t, 3, 1) for t in (2, 4, 3)]
    truth = [torch.rand(1, t, 3) for t in (2, 4, 3)]
    data = SkeletonDataset(
        x, [1, 0, 2], CHAIN, names=["a", "b", "c"], visibility=seen, critical=truth, origin="mine"
    )
    part = data.subset([2, 0])
    assert (part.names, part.labels, part.classes, part.origin) == (
        ("c", "a"),
        [2, 1],
        ("0", "1", "2"),
        "mine",
    )
    assert (
        part[0].x is x[2]
        and part[1].visibility is seen[0]
        and part[0].critical is truth[2]
        and len(data) == 3
    )
    assert SkeletonDataset(x, [1, 0, 2], CHAIN).subset([1])[0].visibility.shape == (4, 3, 1)


def test_any_sequence_is_checked() -> None:
    with pytest.raises(ValueError, match="clip '1' to be finite"):
        SkeletonDataset(
            deque([torch.zeros(2, 2, 3, 1), torch.full((2, 2, 3, 1), torch.nan)]), [0, 0], CHAIN
        )


@pytest.mark.parametrize("kept", ["list", "tensor"])
def test_workers_that_are_not_forked_get_many_clips(kept: str) -> None:
    """As on macOS, on Windows and with Python 3.14."""
    clips: Any = [torch.full((3, 2, 20, 1), float(i)) for i in range(300)]
    seen = torch.rand(300, 2, 20, 1)
    given = clips if kept == "list" else torch.stack(clips)
    data = SkeletonDataset(given, [0] * 300, KINECT20, visibility=seen)
    loader = DataLoader(
        data,
        100,
        collate_fn=SkeletonDataset.collate,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    batches = [*loader]
    assert torch.equal(torch.cat([batch.x for batch in batches]), torch.stack(clips))
    assert torch.equal(torch.cat([batch.visibility for batch in batches]), seen)
    assert torch.equal(data[7].x, clips[7]), "the data set itself stays as it is"


def test_other_views_of_the_clips_share_them_and_their_gradients() -> None:
    clip = torch.ones(3, 4, 20, 1, requires_grad=True)
    data = SkeletonDataset([clip, clip], [0, 0], KINECT20)
    for view in (data.with_persons(1), data.subset([1]), data.with_layout(KINECT20)):
        assert view[0].x.requires_grad and view[0].x.data_ptr() == clip.data_ptr()
    assert data.with_persons(2)[0].x.requires_grad


def test_an_array_that_is_mapped_stays_so(tmp_path: Path) -> None:
    """np.load(mmap_mode="r"): read where it lies; whoever writes into a clip changes a copy."""
    array = np.random.default_rng(0).random((40, 2, 5, 3, 1), np.float32)
    for name, order in (("c", "C"), ("f", "F")):
        np.save(tmp_path / f"{name}.npy", np.asarray(array, order=order))
        data = SkeletonDataset(np.load(tmp_path / f"{name}.npy", mmap_mode="r"), [0] * 40, CHAIN)
        assert torch.equal(data[7].x, torch.from_numpy(array[7]))
        data[7].x.fill_(9)
        assert np.array_equal(np.load(tmp_path / f"{name}.npy"), array)
        assert torch.equal(data[7].x, torch.from_numpy(array[7]))
        assert len(pickle.dumps(data)) < 6000 and torch.equal(
            pickle.loads(pickle.dumps(data))[7].x, data[7].x
        )
        assert [clip.x.shape for clip in data.subset([3, 7])] == [(2, 5, 3, 1)] * 2
        part = SkeletonDataset(
            np.load(tmp_path / f"{name}.npy", mmap_mode="r")[4:9], [0] * 5, CHAIN
        )
        assert torch.equal(pickle.loads(pickle.dumps(part))[3].x, torch.from_numpy(array[7]))
    assert "x" not in str(data) and "40 clips" in repr(data)


@pytest.mark.skipif(sys.platform != "linux", reason="the machine's memory is asked for by sysconf")
def test_an_array_larger_than_the_memory(tmp_path: Path) -> None:
    """A sparse file of 1.2 times the machine's memory: opened and read clip by clip."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shape = (3, 3000, 3, 1)
    n = int(1.2 * memory) // (4 * 3 * 3000 * 3)
    path = tmp_path / "x.npy"
    np.lib.format.open_memmap(path, "w+", np.float32, (n, *shape))[n - 1] = 0.5
    data = SkeletonDataset(np.load(path, mmap_mode="r"), np.zeros(n, np.int64), CHAIN)
    assert len(data) == n and data[n // 2].x.shape == shape and not data[n // 2].x.any()
    data[n // 2].x.fill_(7)  # a copy, whatever was done to it
    assert not data[n // 2].x.any() and data[n - 1].x.eq(0.5).all()


def test_clips_of_a_mapped_array_are_checked_when_they_are_read(tmp_path: Path) -> None:
    array = np.zeros((4, 2, 5, 3, 1), np.float32)
    array[2, 0, 1, 1, 0] = np.nan
    np.save(tmp_path / "x.npy", array)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    data = SkeletonDataset(mapped, [0] * 4, CHAIN, names=["a", "b", "c", "d"]).subset([1, 2])
    assert data[0].x.shape == (2, 5, 3, 1)
    with pytest.raises(ValueError, match="clip 'c' to be finite, got NaN or infinity"):
        data[1]
    with pytest.raises(ValueError, match=r"clip '0' \(C=2, T, V=25, M=1\), got \(2, 5, 3, 1\)"):
        SkeletonDataset(mapped, [0] * 4, NTU25)
    seen = np.full((4, 5, 3, 1), 2, np.float32)
    with pytest.raises(ValueError, match=r"visibility of clip '0' in 0\.\.1"):
        SkeletonDataset(mapped, [0] * 4, CHAIN, visibility=seen)


def test_a_subset_of_nothing() -> None:
    with pytest.raises(ValueError, match="expected at least one index, got none"):
        SkeletonDataset(clips(2, 4), [0, 0], CHAIN).subset([])


def test_confidences_stay_what_they_are() -> None:
    seen = [torch.rand(2, 3, 1), torch.rand(4, 3, 1)]
    data = SkeletonDataset(clips(2, 4), [0, 0], CHAIN, visibility=seen)
    batch = SkeletonDataset.collate([data[0], data[1]])
    assert torch.equal(batch.visibility[0, :2], seen[0]) and torch.equal(
        batch.visibility[1], seen[1]
    )


def test_describe_counts() -> None:
    seen = [torch.ones(2, 3, 2), torch.ones(4, 3, 2), torch.ones(3, 3, 2)]
    seen[0][:, :, 1] = 0  # one body
    seen[1][1, 2, 0] = 0  # a joint is missing
    seen[2][0, :, 1] = 0  # a body comes late
    x = [torch.ones(2, t, 3, 2) for t in (2, 4, 3)]
    data = SkeletonDataset(
        x, [1, 1, 0], CHAIN, classes=["a", "b", "c"], visibility=seen, origin="mine"
    )
    assert data.describe().splitlines() == [
        "3 clips of 3 classes, 0 to 2 a class, none of 'c'",
        "frames: 2 to 4, median 3",
        "bodies: 1 in 33.3 %, 2 in 66.7 % of the clips",
        f"missing joints of present bodies: {100 * 1 / (6 + 24 + 15):.1f} %",
    ]
    lines = Split(data, data.subset([0])).describe().splitlines()
    assert lines[0] == "mine: custom, 3 joints, C=2 channels, M=2 bodies"
    assert (
        lines[1] == "training: " + data.describe().splitlines()[0]
        and lines[2] == "  frames: 2 to 4, median 3"
    )
    assert lines[5] == "test: 1 clip of 3 classes, 0 to 1 a class, none of 'a', 'c'"


def test_collate_pads_with_zeros() -> None:
    x = clips(2, 4, 1)
    seen = [torch.ones(t, 3, 1) for t in (2, 4, 1)]
    truth = [torch.ones(1, t, 3) for t in (2, 4, 1)]
    data = SkeletonDataset(x, [1, 0, 2], CHAIN, visibility=seen, critical=truth)
    batch = SkeletonDataset.collate([data[i] for i in range(3)])
    assert (
        batch.x.shape == (3, 2, 4, 3, 1)
        and batch.lengths.tolist() == [2, 4, 1]
        and batch.label.tolist() == [1, 0, 2]
    )
    assert batch.label.dtype == batch.lengths.dtype == torch.int64
    for n, t in enumerate((2, 4, 1)):
        assert torch.equal(batch.x[n, :, :t], x[n]) and not batch.x[n, :, t:].any()
        assert batch.visibility[n, :t].all() and not batch.visibility[n, t:].any()
        assert batch.critical[n, :, :t].all() and not batch.critical[n, :, t:].any()
    assert batch.visibility.shape == (3, 4, 3, 1) and batch.critical.shape == (3, 1, 4, 3)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.dtype(">f8")])
@pytest.mark.parametrize("form", ["list", "array", "mapped"])
def test_clips_become_float32(tmp_path: Path, form: str, dtype: Any) -> None:
    """Weights of a network are float32: other types stopped in it, with "mixed dtype"."""
    x = np.random.default_rng(0).normal(size=(2, 2, 4, 3, 1)).astype(dtype)
    given: Any = list(x) if form == "list" else x
    if form == "mapped":
        np.save(tmp_path / "x.npy", x)
        given = np.load(tmp_path / "x.npy", mmap_mode="r")
    seen: Any = np.full((2, 4, 3, 1), 0.5, dtype)
    data = SkeletonDataset(given, [0, 0], CHAIN, visibility=seen, critical=np.moveaxis(seen, 3, 1))
    assert all(part.dtype == torch.float32 for part in (data[0].x, *data[1][2:]))
    batch = SkeletonDataset.collate([data[0], data[1]])
    assert batch.x.dtype == batch.visibility.dtype == batch.critical.dtype == torch.float32
    np.testing.assert_array_equal(batch.x.numpy(), x.astype(np.float32))
    nn.Linear(2, 3)(batch.x.transpose(1, -1))


@pytest.mark.parametrize("one_array", [False, True])
@pytest.mark.parametrize(
    ("shape", "permuted"),
    [
        ((1, 30, 17, 3), (3, 30, 17, 1)),  # M, T, V, C: was taken for C = 1, M = 3
        ((1, 30, 17, 2), (2, 30, 17, 1)),
        ((30, 1, 17, 3), (3, 30, 17, 1)),  # T, M, V, C
        ((30, 2, 17, 2), (2, 30, 17, 2)),
        ((30, 17, 3, 2), (3, 30, 17, 2)),
        ((30, 17, 2, 3), (2, 30, 17, 3)),
        ((30, 17, 1, 3), (3, 30, 17, 1)),
        ((3, 30, 1, 17), (3, 30, 17, 1)),
        ((1, 3, 30, 17), (3, 30, 17, 1)),
        ((30, 17, 3), (3, 30, 17, 1)),
        ((30, 17, 2), (2, 30, 17, 1)),
        ((2, 30, 17), (2, 30, 17, 1)),
        ((30, 51), (3, 30, 17, 1)),
        ((30, 34), (2, 30, 17, 1)),
    ],
)
@pytest.mark.parametrize("mapped", [False, True])
def test_an_error_about_the_axes_gives_the_call_that_mends_it(
    tmp_path: Path, mapped: bool, shape: Any, permuted: Any, one_array: bool
) -> None:
    x: Any = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    if mapped:
        np.save(tmp_path / "x.npy", x)
    elif not one_array:
        x = list(x)
    given = np.load(tmp_path / "x.npy", mmap_mode="r") if mapped else x
    with pytest.raises(ValueError, match=r"^SkeletonDataset: expected clip '0' \(C") as caught:
        SkeletonDataset(given, [0, 1, 0, 1], COCO17)
    _, _, call = str(caught.value).partition("; ")
    call, _, _ = call.partition(" permutes ")
    name, _, call = call.partition(" = ")
    whole = mapped or one_array
    assert name == ("x" if whole else "clip")
    mended = [eval(call, {"einops": einops, name: part}) for part in ([x] if whole else x)]
    data = SkeletonDataset(mended[0] if whole else mended, [0, 1, 0, 1], COCO17)
    assert data[3].x.shape == permuted


def test_two_persons_in_space_are_known_by_an_absent_one() -> None:
    """(M=2, T, V, C=3) could be (C=2, T, V, M=3), but for a channel that is 0 throughout."""
    x = torch.randn(2, 30, 25, 3)
    assert SkeletonDataset([x], [0], NTU25)[0].x.shape == (2, 30, 25, 3)
    x[1] = 0
    error = r"\(2, 30, 25, 3\), which seems to be \(M, T, V, C\); clip = .*'m t v c -> c t v m'"
    with pytest.raises(ValueError, match=error):
        SkeletonDataset([torch.randn(2, 30, 25, 3), x], [0, 0], NTU25)


@pytest.mark.parametrize("shape", [(1, 5, 17, 1), (6, 5, 17, 2), (3, 5, 17, 3), (4, 2, 17, 1)])
def test_other_channels_pass(shape: tuple[int, ...]) -> None:
    assert SkeletonDataset([torch.ones(shape)], [0], COCO17)[0].x.shape == shape


def test_numbers_beyond_float32_are_not_finite() -> None:
    with pytest.raises(ValueError, match="expected clip '0' to be finite, got NaN or infinity"):
        SkeletonDataset(np.full((1, 2, 4, 3, 1), 1e300), [0], CHAIN)


def test_collate_keeps_the_dtype() -> None:
    clip = Clip(torch.ones(2, 4, 3, 1).double(), 0, torch.ones(4, 3, 1), torch.zeros(1, 4, 3))
    batch = SkeletonDataset.collate([clip])
    assert batch.x.dtype == batch.visibility.dtype == batch.critical.dtype == torch.float64


def test_a_batch_becomes_a_data_set_and_comes_back() -> None:
    data = SkeletonDataset(
        clips(2, 4, 1),
        [1, 0, 2],
        CHAIN,
        visibility=[torch.rand(t, 3, 1) for t in (2, 4, 1)],
        critical=[torch.rand(1, t, 3) for t in (2, 4, 1)],
    )
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


def test_room_for_more_persons() -> None:
    data = SkeletonDataset(clips(2, 4), [0, 1], CHAIN)
    wider = data.with_persons(3)
    for i in range(2):
        here = data[i]
        there = wider[i]
        assert torch.equal(there.x[..., :1], here.x) and there.x[..., 1:].abs().max() == 0
        assert (
            torch.equal(there.visibility[..., :1], here.visibility)
            and there.visibility[..., 1:].max() == 0
        )
        assert there.critical.shape == (3, *here.critical.shape[1:])
    assert data[0].x.shape[3] == 1 and wider.subset([1])[0].x.shape[3] == 3
    assert wider.with_persons(3)[0].x.shape[3] == 3 and "M=3 bodies" in wider.heading()
    assert SkeletonDataset.collate([wider[0], wider[1]]).x.shape[-1] == 3


def test_fewer_persons() -> None:
    three = SkeletonDataset(torch.rand(2, 3, 5, 3, 3), [0, 1], CHAIN)
    two = three.with_persons(2)
    assert torch.equal(two[1].x, three[1].x[..., :2]) and two[1].critical.shape == (2, 5, 3)
    assert torch.equal(two.with_persons(3)[0].x, three[0].x)
    with pytest.raises(ValueError, match="at least one person, got 0"):
        three.with_persons(0)


@pytest.mark.parametrize("mapped", [False, True])
def test_another_skeleton_and_other_persons(tmp_path: Path, mapped: bool) -> None:
    """Both views of a data set, in any order, with subsets, workers and a saved file."""
    x = torch.rand(3, 2, 5, 17, 2) + 1
    np.save(tmp_path / "x.npy", x.numpy())
    given = np.load(tmp_path / "x.npy", mmap_mode="r") if mapped else x
    truth = torch.zeros(3, 2, 5, 17)
    truth[:, 1, 2, COCO17.joints.index("left_hip")] = 1
    data = SkeletonDataset(given, [0, 1, 0], COCO17, critical=[*truth], names=["a", "b", "c"])
    expected, seen = convert_layout(x, COCO17, KINECT20)
    missing = 1 - seen[0, 0, :, 0].mean().item()
    orders = (
        data.with_layout(KINECT20).with_persons(3).subset([2, 0]),
        data.subset([2, 0]).with_persons(1).with_layout(NTU25).with_layout(KINECT20),
    )
    for view, persons, present in zip(orders, ("3 bodies", "1 body"), (2, 1), strict=True):
        assert view.heading().endswith(f"KINECT20, 20 joints, C=2 channels, M={persons}")
        assert f"bodies: {present} in 100.0 % of the clips" in view.describe()
        assert torch.equal(view[0].x[..., :1], expected[2][..., :1])
    wide = orders[0]
    assert wide.describe().endswith(f"present bodies: {100 * missing:.1f} %")
    wide.save(tmp_path / "saved.npz")
    saved = open_clips(tmp_path / "saved.npz", cache=False)
    assert saved.layout == KINECT20 and saved.names == ("c", "a")
    loaded = DataLoader(wide, 2, collate_fn=SkeletonDataset.collate, num_workers=1)
    (batch,) = loaded
    for i, k in enumerate((2, 0)):
        assert torch.equal(wide[i].x[..., :2], expected[k])
        assert torch.equal(wide[i].visibility[..., :2], seen[k])
        assert not wide[i].x[..., 2].any() and not wide[i].visibility[..., 2].any()
        marked = {KINECT20.joints[v] for m, t, v in wide[i].critical.nonzero().tolist()}
        assert marked == {"left_hip", "spine_base", "spine"}
        assert wide[i].critical[1, 2].any() and wide[i].critical.sum() == 3
        assert torch.equal(batch.x[i], wide[i].x) and torch.equal(saved[i].x, wide[i].x)
        assert torch.equal(saved[i].visibility, wide[i].visibility)
    assert torch.equal(wide.with_layout(COCO17)[0].x[..., :2], x[2])


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"classes": ["b", "a"]}, r"classes \('a', 'b'\), got \('b', 'a'\)"),
        ({"layout": SkeletonLayout.from_bones([(0, 2), (2, 1)])}, "the same layout"),
        ({"persons": 2}, "C=2 channels and M=1 persons, got C=2 and M=2"),
    ],
)
def test_parts_that_differ_are_not_saved(
    tmp_path: Path, other: dict[str, Any], expected: str
) -> None:
    train = SkeletonDataset(clips(2, 4), [0, 1], CHAIN, classes=["a", "b"])
    test = SkeletonDataset(
        clips(2, 4), [0, 1], other.get("layout", CHAIN), classes=other.get("classes", ["a", "b"])
    ).with_persons(other.get("persons", 1))
    with pytest.raises(ValueError, match=expected):
        Split(train, test).save(tmp_path / "x.npz")
    assert [*tmp_path.iterdir()] == []
