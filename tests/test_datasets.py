"""Test what open_dataset recognises, splits and refuses, the command, and NW-UCLA's real split."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from skeleton_focus import KINECT20, SkeletonDataset, Split, datasets, open_dataset
from skeleton_focus.format_nw_ucla import NW_UCLA_ACTIONS
from skeleton_focus.formats import FormatError


def write(folder: Path, name: str, frames: int = 2) -> None:
    label = list(NW_UCLA_ACTIONS).index(name[:3]) + 1
    content = {
        "file_name": name,
        "skeletons": [[[t, v, 0.5] for v in range(20)] for t in range(frames)],
        "label": label,
    }
    (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.mark.parametrize("inner", ["", "all_sqe"])
def test_open_dataset_splits_by_view(tmp_path: Path, inner: str) -> None:
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    for name in ("a12_s01_e00_v02", "a01_s02_e01_v03", "a08_s01_e00_v01"):
        write(folder, name, frames=3)
    split = open_dataset(str(tmp_path))
    assert isinstance(split, Split)
    assert split.train.names == ("a08_s01_e00_v01", "a12_s01_e00_v02") and split.test.names == (
        "a01_s02_e01_v03",
    )
    assert split.train.labels == [6, 9] and split.test.labels == [0]
    assert split.train.classes == split.test.classes == tuple(NW_UCLA_ACTIONS.values())
    assert split.train.layout is KINECT20 and split.train[0].x.shape == (3, 3, 20, 1)
    assert split.train[0].x[:, 2, 7, 0].tolist() == [2, 7, 0.5]


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"^open_dataset: expected a folder or file of clips, got .*/none, "
        r"which does not exist$",
    ):
        open_dataset(tmp_path / "none")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(
        ValueError, match=r"expected a folder or file of clips, got .*/loop, which does not exist$"
    ):
        open_dataset(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(
        ValueError, match=r"expected a folder or file of clips, got .*/pipe, which is neither$"
    ):
        open_dataset(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "file").write_text("")
    with pytest.raises(
        ValueError,
        match=r"a file of such poses, got .*/file, which is none of these; pass your own arrays",
    ):
        open_dataset(tmp_path / "empty" / "file")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match=r"a folder or file of clips, got .*/nothing, an empty"):
        open_dataset(tmp_path / "nothing")
    (tmp_path / "nothing" / "wave.MP4").write_bytes(b"x")
    for action in ("jump", "wave"):
        (tmp_path / "flat" / action).mkdir(parents=True)
        np.save(tmp_path / "flat" / action / "a.npy", np.zeros((30, 34)))
    with pytest.raises(FormatError, match=r"jump/a\.npy: expected \(T, V, C\) .* got \(30, 34\)$"):
        open_dataset(tmp_path / "flat")
    with pytest.raises(ValueError, match=r"got the video .*wave\.MP4; a pose estimator such as"):
        open_dataset(tmp_path / "nothing" / "wave.MP4")
    with pytest.raises(
        ValueError,
        match=r"expected a folder of NTU .* got .*/empty, which is none of these; "
        r"pass your own arrays",
    ):
        open_dataset(tmp_path / "empty")
    (tmp_path / "empty" / "ntu60_3danno.pkl").write_text("")
    with pytest.raises(
        ValueError,
        match=r"which is none of these; open one of its files, such as ntu60_3danno\.pkl$",
    ):
        open_dataset(tmp_path / "empty")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros((40, 17, 4)), r"one clip \(T, V, C\) or .* with C of 2 or 3, got \(40, 17, 4\)"),
        (np.zeros((17, 3)), r"expected \(T, V, C\) or \(T, M, V, C\), got \(17, 3\)"),
        (np.array([None, "a"], object), "a dtype of numbers, got 'object'"),
    ],
)
def test_an_array_of_no_clip(tmp_path: Path, array: NDArray[Any], expected: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(FormatError, match=expected):
        open_dataset(tmp_path / "a.npy")


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.listdir

    def refused(folder: Path) -> list[str]:  # what a user who is not root meets
        if folder == closed:
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    (tmp_path / "all_sqe").mkdir()
    monkeypatch.setattr(os, "listdir", refused)
    for closed in (tmp_path, tmp_path / "all_sqe"):
        with pytest.raises(
            FormatError,
            match=rf"^{closed}: expected a folder that can be read, got Permission denied$",
        ):
            open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("names", "lost"),
    [(["a01_s01_e00_v01", "a02_s01_e00_v02"], "test"), (["a01_s01_e00_v03"], "training")],
)
def test_a_split_with_an_empty_side(tmp_path: Path, names: list[str], lost: str) -> None:
    for name in names:
        write(tmp_path, name)
    error = f"open_dataset: expected {lost} clips of split 'xview', got none in {tmp_path}"
    with pytest.raises(ValueError, match=re.escape(error)):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"split": "xsub"}, "split to be one of 'xview', 'random', 'train_subjects=1,2'"),
        ({"workers": -1}, "workers as an integer of at least 0, got -1"),
        ({"workers": 1.5}, r"workers as an integer of at least 0, got 1\.5"),
        ({"progress": True}, "progress as a function of the clips, such as tqdm, got True"),
        ({"cache": ""}, "cache as a folder, True or False, got ''"),
        ({"cache": None}, "cache as a folder, True or False, got None"),
        ({"on_error": None}, "on_error to be one of 'raise', 'skip', got None"),
        ({"on_error": "ignore"}, "on_error to be one of 'raise', 'skip', got 'ignore'"),
        ({"layout": "NTU25"}, "options for NW-UCLA, got layout; leave them out"),
        (
            {"persons": 1, "missing": "fill"},
            "options for NW-UCLA, got missing; leave them out",
        ),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: dict[str, object], error: str) -> None:
    write(tmp_path, "a01_s01_e00_v01")
    with pytest.raises(ValueError, match="^open_dataset: expected " + error):
        open_dataset(tmp_path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("cache", [True, False])
def test_bad_clips_are_raised_skipped_or_collected(tmp_path: Path, cache: bool) -> None:
    for name in ("a01_s01_e00_v01", "a02_s01_e00_v02", "a03_s01_e00_v03"):
        write(tmp_path, name)
    (tmp_path / "a02_s01_e00_v01.json").write_text("{")
    (tmp_path / "a02_s01_e01_v01.json").symlink_to("a02_s01_e01_v01.json")
    for _ in range(2):  # the second time from the cache
        with pytest.raises(
            FormatError, match=r"a02_s01_e00_v01\.json, line 1, column 2: expected JSON"
        ):
            open_dataset(tmp_path, cache=cache)
        with pytest.warns(
            UserWarning,
            match=r"2 of 5 clips cannot be read and are left out; the first: .*v01\.json",
        ):
            split = open_dataset(tmp_path, on_error="skip", cache=cache)
        assert split.train.names == ("a01_s01_e00_v01", "a02_s01_e00_v02") and split.test.names == (
            "a03_s01_e00_v03",
        )
        assert split.train[1].x[:, 1, 7, 0].tolist() == [1, 7, 0.5]
        told: list[FormatError] = []
        open_dataset(tmp_path, on_error=told.append, cache=cache)
        where = [str(error).split(": expected")[0] for error in told]
        assert where == [
            f"{tmp_path}/a02_s01_e00_v01.json, line 1, column 2",
            f"{tmp_path}/a02_s01_e01_v01.json",
        ]
    (tmp_path / "a02_s01_e00_v01.json").unlink()
    (tmp_path / "a02_s01_e01_v01.json").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_dataset(tmp_path, on_error="skip", cache=cache)


def test_several_processes_read_the_same(tmp_path: Path) -> None:
    for i in range(40):
        write(tmp_path, f"a01_s{i:02d}_e00_v0{1 + i % 3}", frames=1 + i % 4)
    (tmp_path / "a01_s17_e00_v03.json").write_text("{")
    (tmp_path / "a01_s99_e00_v03.json").symlink_to("a01_s99_e00_v03.json")
    seen: list[list[FormatError]] = [[], []]
    one, other = (
        open_dataset(tmp_path, workers=n, cache=False, on_error=told.append)
        for n, told in zip((0, 2), seen, strict=True)
    )
    for mine, theirs in zip(one, other, strict=True):
        assert mine.names == theirs.names and mine.labels == theirs.labels
        assert all(torch.equal(a.x, b.x) for a, b in zip(mine, theirs, strict=True))
    assert [(type(error), str(error)) for error in seen[0]] == [
        (type(error), str(error)) for error in seen[1]
    ]
    assert len(seen[0]) == 2


def test_no_clip_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a01_s01_e00_v01.json").write_text("{")
    with pytest.raises(
        ValueError, match=r"open_dataset: expected at least one clip that can be read, got none in "
    ):
        open_dataset(tmp_path, on_error=lambda error: None)


def test_progress_sees_every_clip_and_their_number(tmp_path: Path) -> None:
    for name in ("a01_s01_e00_v01", "a02_s01_e00_v02", "a03_s01_e00_v03"):
        write(tmp_path, name)
    seen = []

    def bar(clips):  # type: ignore[no-untyped-def]
        seen.append(len(clips))
        for clip in clips:
            seen.append(clip.name)
            yield clip

    for _ in range(2):  # from the cache nothing is read
        open_dataset(tmp_path, progress=bar)
        assert seen == [3, "a01_s01_e00_v01", "a02_s01_e00_v02", "a03_s01_e00_v03"]


def command(*arguments: object) -> tuple[int, str]:
    words = [sys.executable, "-W", "error", "-m", "skeleton_focus.datasets", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_the_command_describes(tmp_path: Path) -> None:
    for name in ("a01_s01_e00_v01", "a02_s01_e00_v02", "a03_s01_e00_v03"):
        write(tmp_path, name)
    code, said = command(tmp_path, "--cache", tmp_path / "cache")
    assert code == 0 and (tmp_path / "cache").is_dir()
    *lines, where, none = said.splitlines()
    assert where.startswith(f"cached in {tmp_path}/cache/") and where.endswith(
        " MB), which open_dataset maps"
    )
    assert [*lines, none] == [
        "NW-UCLA: KINECT20, 20 joints, C=3 channels, M=1 body",
        "3 clips of 10 classes, 0 to 1 a class, none of 'walk around', 'sit down', 'stand up' ...",
        "frames: 2 to 2, median 2",
        "bodies: 1 in 100.0 % of the clips",
        "missing joints of present bodies: 0.0 %",
        "split xview: 2 training and 1 test clips",
        "no problems",
    ]


def test_the_command_lists_every_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "a01_s01_e00_v01")
    for bad in ("a02_s01_e00_v01", "a02_s01_e01_v01"):
        (tmp_path / f"{bad}.json").write_text("{")
    assert datasets.main([str(tmp_path), "--no-cache"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0].startswith("NW-UCLA")
        and "split xview: 1 training and 0 test clips: open_dataset needs both" in lines
    )
    assert [line.split(": expected")[0] for line in lines[-3:-1]] == [
        f"problem: {tmp_path}/{bad}.json, line 1, column 2"
        for bad in ("a02_s01_e00_v01", "a02_s01_e01_v01")
    ]
    assert lines[-1] == "2 problems"
    assert datasets.main([str(tmp_path / "none")]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"problem: open_dataset: expected a folder or file of clips, got {tmp_path}/none, "
        "which does not exist",
        "1 problem",
    ]


def test_a_broken_clip_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a01_s01_e00_v01")
    (tmp_path / "a02_s01_e00_v03.json").write_text("{")
    with pytest.raises(
        FormatError, match=r"a02_s01_e00_v03\.json, line 1, column 2: expected JSON"
    ):
        open_dataset(tmp_path)


@pytest.fixture(scope="session")
def nw_ucla(shared_data: Path) -> Split:
    """The real data set, read once."""
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
        assert all(
            actions[label] == name[:3] for label, name in zip(part.labels, part.names, strict=True)
        )


def test_the_real_bodies_are_upright_and_in_metres(nw_ucla: Split) -> None:
    head = KINECT20.index("head")
    foot = KINECT20.index("left_foot")
    upright = [
        bool((clip.x[1, :, head] > clip.x[1, :, foot]).float().mean() > 0.5)
        for clip in nw_ucla.test
    ]
    assert sum(upright) / len(upright) > 0.95
    depth = torch.cat([clip.x[2].flatten() for clip in nw_ucla.test])
    assert 1 < depth.median() < 6


def test_real_clips_make_a_batch(nw_ucla: Split) -> None:
    lengths = [clip.x.shape[1] for clip in nw_ucla.train]
    shortest = lengths.index(min(lengths))
    longest = lengths.index(max(lengths))
    batch = SkeletonDataset.collate([nw_ucla.train[shortest], nw_ucla.train[longest]])
    assert batch.lengths.tolist() == [min(lengths), max(lengths)] and batch.x.isfinite().all()
    assert batch.visibility.sum((1, 2, 3)).tolist() == [20 * min(lengths), 20 * max(lengths)]
