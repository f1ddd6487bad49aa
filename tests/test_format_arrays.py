"""Test the readers of CTR-GCN's and ST-GCN's arrays: what they give, and every wrong file."""

from __future__ import annotations

import io
import pickle
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from skeleton_focus import SkeletonDataset, open_dataset
from skeleton_focus.format_arrays import open_ctr_gcn, open_st_gcn, trim
from skeleton_focus.formats import ClipFile, FormatError

RNG = np.random.default_rng(0)
MEMBERS = ["x_train", "y_train", "x_test", "y_test"]


def npz_arrays(
    width: int = 150, t: int = 6, train: int = 3, test: int = 2, dtype: Any = np.float32
) -> dict[str, Any]:
    arrays = {}
    for side, n in (("train", train), ("test", test)):
        arrays[f"x_{side}"] = RNG.uniform(0.1, 1, (n, t, width)).astype(dtype)
        arrays[f"y_{side}"] = np.eye(5)[np.arange(n) % 5]
    return arrays


def npy(array: Any, **more: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), **more)
    return file.getvalue()


def header(shape: str, descr: str = "'<f4'", fortran: str = "False", version: int = 1) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}}}\n".encode()
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + len(text).to_bytes(2 if version == 1 else 4, "little")
        + text
    )


def pack(path: Path, method: int = zipfile.ZIP_STORED, **members: Any) -> Path:
    """An .npz of arrays, or of a member's bytes."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, value in members.items():
            archive.writestr(f"{name}.npy", value if isinstance(value, bytes) else npy(value))
    return path


def clips_of(path: Path) -> list[ClipFile]:
    clips = list(open_ctr_gcn(path).read())
    for clip in clips:
        if isinstance(clip, FormatError):
            raise clip
    return clips  # type: ignore[return-value]


def test_many_long_names_do_not_fill_the_error(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.npz", **{f"{i}" + "n" * 200: b"" for i in range(30)})
    with pytest.raises(FormatError, match="expected the members x_train") as caught:
        open_ctr_gcn(path)
    assert len(str(caught.value)) < len(str(path)) + 350


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize(
    ("width", "m", "v", "layout"),
    [
        (150, 2, 25, "NTU25"),
        (75, 1, 25, "NTU25"),
        (120, 2, 20, "KINECT20"),
        (60, 1, 20, "KINECT20"),
    ],
)
def test_a_good_npz(
    tmp_path: Path, width: int, m: int, v: int, layout: str, dtype: Any, save: Any
) -> None:
    path = tmp_path / "x.npz"
    arrays = npz_arrays(width, dtype=dtype)
    save(path, **arrays)
    source = open_ctr_gcn(str(path))
    assert (source.layout.name, source.num_clips, source.splits, source.files) == (
        layout,
        5,
        ("given",),
        [path],
    )
    for _ in range(2):
        clips = clips_of(path)
        assert [clip.name for clip in clips] == [
            "train_000000",
            "train_000001",
            "train_000002",
            "test_000000",
            "test_000001",
        ]
        assert [(clip.label, clip.sides["given"]) for clip in clips] == [
            (0, "train"),
            (1, "train"),
            (2, "train"),
            (0, "test"),
            (1, "test"),
        ]
        for clip, row in zip(clips, [*arrays["x_train"], *arrays["x_test"]], strict=True):
            assert (
                clip.x.shape == (3, 6, v, m)
                and clip.x.dtype == np.float32
                and clip.x.flags.c_contiguous
            )
            assert clip.visibility is None
            for c, t, j, body in np.ndindex(3, 6, v, m):
                assert clip.x[c, t, j, body] == np.float32(row[t, (body * v + j) * 3 + c])


def test_padding_goes_and_an_absent_body_is_not_seen(tmp_path: Path) -> None:
    arrays = npz_arrays()
    arrays["x_train"][0, 4:] = 0  # padding
    arrays["x_train"][0, 2] = 0  # no padding: frames follow
    arrays["x_train"][0, :, 75:] = 0  # the second body
    arrays["x_train"][1, 5, :149] = 0  # one number is a frame
    clips = clips_of(pack(tmp_path / "x.npz", **arrays))
    assert [clip.x.shape[1] for clip in clips] == [4, 6, 6, 6, 6]
    seen = clips[0].visibility
    assert seen is not None and seen.shape == (4, 25, 2) and seen.dtype == np.float32
    assert seen.max(1).tolist() == seen.min(1).tolist() == [[1, 0], [1, 0], [0, 0], [1, 0]]


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float32])
def test_labels_of_any_numbers(tmp_path: Path, dtype: Any) -> None:
    arrays = npz_arrays()
    arrays["y_train"] = np.eye(5)[[4, 0, 2]].astype(dtype)
    assert [clip.label for clip in clips_of(pack(tmp_path / "x.npz", **arrays))] == [4, 0, 2, 0, 1]


def changed(**members: Any) -> dict[str, Any]:
    arrays = {**npz_arrays(), **members}
    return {name: array for name, array in arrays.items() if array is not None}


LIE = header("(3, 6, 150)") + bytes(100)
WRONG_NPZ: list[tuple[dict[str, Any], str]] = [
    (
        changed(y_test=None),
        r"members x_train\.npy, .*, got 'x_test\.npy', 'x_train\.npy', 'y_train\.npy'",
    ),
    (
        changed(more=np.ones(1)),
        r"expected the members x_train\.npy, y_train\.npy, x_test.*got 'more\.npy', 'x_test",
    ),
    ({}, "expected the members .*, got none"),
    (changed(x_train=b""), r"x_train\.npy: expected an \.npy header, got EOF"),
    (
        changed(x_train=b"\x93NUMPX\x01\x00"),
        "x_train.npy: expected an .npy header, got the magic string",
    ),
    (changed(x_train=header("(3, 6, 150)", version=3)), "expected an .npy header, got version"),
    (changed(y_test=header("(3,", version=2)), r"y_test\.npy: expected an \.npy header"),
    (changed(x_train=header("3")), "expected an .npy header"),
    (changed(x_train=header("(" * 500)), "an .npy header"),
    (
        changed(x_train=header("(float, 6, 150)")),
        r"an \.npy header, got malformed .* <ast.Name object>$",
    ),
    (changed(x_train=header("(" + "9" * 5000 + ",)")), "expected an .npy header"),
    (changed(x_train=header("(3, 6, 150)" + " " * 20_000)), "expected an .npy header"),
    (changed(x_train=b"\x93NUMPY\x02\x00\xff\xff\xff\xff{"), "expected an .npy header"),
    (
        changed(x_train=LIE),
        r"x_train\.npy: expected 108\d\d bytes for \(3, 6, 150\) float32, got 1\d\d",
    ),
    (changed(x_train=header("(3000000, 300, 150)") + bytes(999)), "expected 54000000.* bytes for"),
    (changed(x_train=header("(-3, 6, 150)")), r"expected \(N, T, M\*V\*C\), got \(-3, 6, 150\)"),
    (changed(x_train=header("(0, 0, 150)")), r"expected \(N, T, M\*V\*C\), got \(0, 0, 150\)"),
    (
        changed(x_train=header("(0, 99999999999999, 150)")),
        r"expected \(N, T, M\*V\*C\), got \(0, 99999999999999",
    ),
    (changed(x_train=header("(0, 10001, 150)")), r"x_train.*T up to 10000, got \(0, 10001, 150\)"),
    (
        changed(x_train=np.ones((3, 6, 2, 75), np.float32)),
        r"expected \(N, T, M\*V\*C\), got \(3, 6, 2, 75\)",
    ),
    (
        changed(x_train=np.ones((3, 6, 151), np.float32)),
        r"with M\*V\*C of 60, 75, 120, 150, .*got \(3, 6, 151\)",
    ),
    (
        changed(x_train=np.ones((3, 6, 150), int)),
        "x_train.npy: expected a dtype of float32, .*, got 'int64'",
    ),
    (
        changed(x_train=np.ones((3, 6, 150), complex)),
        "expected a dtype of float32.*, got 'complex128'",
    ),
    (
        changed(x_train=header("(3, 6, 150)", "'<f16'") + bytes(43200)),
        "a dtype of float32.*, got float128",
    ),
    (
        changed(x_train=np.asfortranarray(np.ones((3, 6, 150), np.float32))),
        "numbers in C order, got Fortran",
    ),
    (
        changed(x_train=header("(3, 6, 150)", "'|O'")),
        "expected a dtype of float32, float64 or float16, got 'object'",
    ),
    (
        changed(y_train=npy(np.array([[None]]), allow_pickle=True)),
        "y_train.*a dtype of numbers, got 'object'",
    ),
    (changed(x_train=header("(3, 6, 150)", "[('a', '<f4')]")), "expected a dtype of float32"),
    (
        changed(x_test=np.ones((2, 7, 150), np.float32)),
        r"x_test\.npy: expected \(N, T, M\*V\*C\) of \(2, 6, 150\), got",
    ),
    (
        changed(y_train=np.eye(5)[:2]),
        r"y_train\.npy: expected \(N, classes\) of \(3, 5\), got \(2, 5\)",
    ),
    (
        changed(y_test=np.eye(6)[:2]),
        r"y_test\.npy: expected \(N, classes\) of \(2, 5\), got \(2, 6\)",
    ),
    (changed(y_train=np.arange(3)), r"y_train\.npy: expected \(N, classes\), got \(3,\)"),
    (changed(y_train=np.ones((3, 2), "U1")), "y_train.npy: expected a dtype of numbers, got '<U1'"),
]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("number", range(len(WRONG_NPZ)))
def test_what_is_wrong_with_a_whole_npz(tmp_path: Path, number: int, method: int) -> None:
    members, error = WRONG_NPZ[number]
    path = pack(tmp_path / "x.npz", method, **members)
    with pytest.raises(FormatError, match=rf"^{path}(, \w+\.npy)?: expected ") as refused:
        open_ctr_gcn(path)
    assert refused.match(error) and len(str(refused.value)) < len(str(path)) + 300


def one_clip(number: float, at: Any = (1, 2, 3)) -> dict[str, Any]:
    arrays = npz_arrays()
    arrays["x_train"][at] = number
    return arrays


def one_row(*row: float) -> dict[str, Any]:
    arrays = npz_arrays()
    arrays["y_train"][1] = row
    return arrays


@pytest.mark.parametrize(
    ("arrays", "error"),
    [
        (one_clip(np.nan), r"finite numbers, got nan at \(0, 2, 1, 0\) of \(C, T, V, M\)"),
        (one_clip(-np.inf), r"finite numbers, got -inf at "),
        (one_clip(0, 1), r"a body in some frame, got none in any"),
        (one_row(0, 0, 0, 0, 0), r"a one-hot row, got \[0\.0, 0\.0, 0\.0, 0\.0, 0\.0\]"),
        (one_row(0, 1, 1, 0, 0), r"a one-hot row"),
        (one_row(0, 2, 0, 0, 0), r"a one-hot row"),
        (one_row(0, np.nan, 0, 0, 0), r"a one-hot row"),
        (one_row(0.5, 0.5, 0, 0, 0), r"a one-hot row"),
        (one_row(0, -1, 0, 0, 0), r"a one-hot row"),
    ],
)
def test_what_is_wrong_with_one_clip_takes_its_place(
    tmp_path: Path, arrays: Any, error: str
) -> None:
    path = pack(tmp_path / "x.npz", **arrays)
    clips = list(open_ctr_gcn(path).read())
    assert [isinstance(clip, FormatError) for clip in clips] == [False, True, False, False, False]
    with pytest.raises(FormatError, match=rf"^{path}, [xy]_train\.npy, clip 1: expected {error}"):
        raise clips[1]  # type: ignore[misc]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_is_told_while_reading(tmp_path: Path, method: int) -> None:
    path = pack(tmp_path / "x.npz", method, **npz_arrays(t=40))
    content = bytearray(path.read_bytes())
    content[40_000] ^= 16
    path.write_bytes(content)
    source = open_ctr_gcn(path)
    with pytest.raises(
        FormatError, match=rf"^{path}, x_train\.npy(, clip \d)?: expected an intact \.npz, got "
    ):
        list(source.read())


def test_a_zip_that_is_none(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.npz", **npz_arrays())
    content = path.read_bytes()
    for damaged in (b"", b"\x93NUMPY", content[:-30], content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(
            FormatError, match=rf"^{path}: expected an intact \.npz, got File is not a zip file"
        ):
            open_ctr_gcn(path)
    with pytest.raises(FormatError, match=r"expected a plain file, got a folder"):
        open_ctr_gcn(tmp_path)
    with pytest.raises(
        FormatError,
        match=rf"^{path}, x_train\.npy: expected a member that is stored or deflated, got met",
    ):
        open_ctr_gcn(pack(path, zipfile.ZIP_LZMA, **npz_arrays()))


def test_members_twice_locked_or_lying(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.npz", **npz_arrays())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x_train.npy", b"")
    with pytest.raises(
        FormatError,
        match=r"expected the members .*, got 'x_test\.npy', 'x_train\.npy', 'x_train\.npy'",
    ):
        open_ctr_gcn(path)
    content = bytearray(pack(path, **npz_arrays()).read_bytes())
    at = content.index(b"PK\x01\x02")
    locked = bytearray(content)
    lying = bytearray(content)
    locked[at + 8] |= 1
    path.write_bytes(locked)
    with pytest.raises(
        FormatError, match=r"x_train\.npy: expected an intact \.npz, got File .*encrypted"
    ):
        open_ctr_gcn(path)
    lying[at + 24 : at + 28] = (2**31).to_bytes(4, "little")
    path.write_bytes(lying)
    with pytest.raises(
        FormatError,
        match=r"x_train\.npy: expected a member that .*, got method 0, 2147483648 bytes out",
    ):
        open_ctr_gcn(path)


IN_A_SMALL_ROOM = """
import resource, sys
from pathlib import Path
from skeleton_focus.format_arrays import open_ctr_gcn, open_st_gcn
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
print(sum(not isinstance(clip, Exception) for clip in open_ctr_gcn(sys.argv[1]).read()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells how much memory the process has")
def test_the_npz_is_never_in_memory(tmp_path: Path) -> None:
    arrays = npz_arrays(t=300, train=1200, test=1)  # 216 MB of 64
    np.savez_compressed(
        tmp_path / "x.npz",
        **{name: np.ones_like(array) if "x_" in name else array for name, array in arrays.items()},
    )
    command = [sys.executable, "-c", IN_A_SMALL_ROOM, str(tmp_path / "x.npz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "1201", done.stderr


@given(seed=st.integers(0, 10**9), edits=st.integers(1, 4), deflated=st.booleans())
def test_a_damaged_npz_is_refused_or_read_whole(
    tmp_path_factory: Any, seed: int, edits: int, deflated: bool
) -> None:
    rng = random.Random(seed)
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    pack(
        path,
        zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED,
        **npz_arrays(60, t=1, train=2, test=1),
    )
    damage(path, rng, edits)
    answers: list[Any] = []
    try:
        source = open_ctr_gcn(path)
        for answer in source.read():
            answers.append(answer)
        assert len(answers) == source.num_clips
    except FormatError as error:
        answers.append(error)
    for answer in answers:
        if isinstance(answer, FormatError):
            assert str(path) in str(answer) and ": expected " in str(answer)
        else:
            assert answer.x.shape[0] == 3 and np.isfinite(answer.x).all() and answer.label >= 0


def damage(path: Path, rng: random.Random, edits: int) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(edits):
        at = rng.randrange(len(content))
        if rng.random() < 0.8:
            content[at] = rng.randrange(256)
        else:
            del content[at : at + rng.randrange(1, 30)]
    path.write_bytes(content)


def st_gcn(folder: Path, *, joint: bool = True, n: int = 3, **sides: Any) -> Path:
    """A folder of one or both sides, each {data, names, labels}."""
    for prefix, parts in (sides or {"train": {}, "val": {}}).items():
        data = parts.get("data", RNG.uniform(0.1, 1, (n, 3, 6, 25, 2)).astype(np.float32))
        names = parts.get("names", [f"{prefix}{i}.skeleton" for i in range(n)])
        content = data if isinstance(data, bytes) else npy(data)
        (folder / f"{prefix}_data{'_joint' * joint}.npy").write_bytes(content)
        label = parts.get("pickle", (names, parts.get("labels", [i % 4 for i in range(n)])))
        content = label if isinstance(label, bytes) else pickle.dumps(label, 2)
        (folder / f"{prefix}_label.pkl").write_bytes(content)
    return folder


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize(
    ("joint", "c", "v", "layout"),
    [(True, 3, 25, "NTU25"), (False, 3, 18, "OPENPOSE18"), (True, 2, 17, "COCO17")],
)
def test_a_good_folder(
    tmp_path: Path, joint: bool, c: int, v: int, layout: str, dtype: Any
) -> None:
    made = {
        name: {"data": RNG.uniform(size=(3, c, t, v, 2)).astype(dtype)}
        for name, t in (("train", 6), ("val", 4))
    }
    if v == 25:  # z, which would be a score if all of it lay in 0..1
        for parts in made.values():
            parts["data"][:, 2] -= 2
    source = open_st_gcn(str(st_gcn(tmp_path, joint=joint, **made)))
    assert source is not None and source.layout.name == layout and source.classes == ()
    assert [file.name for file in source.files][::2] == [
        f"{p}_data{'_joint' * joint}.npy" for p in ("train", "val")
    ]
    assert source.mapped is not None
    mapped = pickle.loads(pickle.dumps(source.mapped))
    index = mapped.index
    clips = mapped.x
    seen = mapped.visibility
    assert index.names == [f"{prefix}{i}.skeleton" for prefix in ("train", "val") for i in range(3)]
    assert index.labels == [0, 1, 2] * 2 and index.sides == {"given": ["train"] * 3 + ["test"] * 3}
    assert len(clips) == len(seen) == source.num_clips == 6
    for i in range(6):
        expected = made["train" if i < 3 else "val"]["data"][i % 3].astype(np.float32)
        if v == 18 and c == 3:  # Kinetics: the third channel is the confidence
            assert torch.equal(seen[i], torch.from_numpy(expected[2]))
            expected = expected[:2] * (expected[2:] > 0)
        else:
            assert torch.equal(seen[i], torch.ones(expected.shape[1:]))
        assert clips[i].dtype == torch.float32 and clips[i].shape == (
            len(expected),
            6 if i < 3 else 4,
            v,
            2,
        )
        np.testing.assert_array_equal(clips[i].numpy(), expected)


def test_the_data_set_reads_in_place(tmp_path: Path) -> None:
    data = RNG.uniform(1.5, 2, (3, 3, 9, 25, 2)).astype(np.float32)
    data[0, :, 6:] = 0  # padding
    data[1, :, :, :, 1] = 0  # one body
    data[2, :, 4, :, 0] = 0  # that is not there in a frame
    data[2, :, 5, 3] = 0  # a joint at the origin is there with its body
    split = open_dataset(
        st_gcn(
            tmp_path,
            train={"data": data},
            val={"data": data[:2], "names": ["a", "b"], "labels": [0, 1]},
        )
    )
    assert [clip.x.shape[1] for clip in split.train] == [6, 9, 9] and split.test.names == ("a", "b")
    assert [int(clip.visibility.sum()) for clip in split.train] == [6 * 50, 9 * 25, 9 * 50 - 25]
    assert split.train[2].visibility[4, :, 0].sum() == 0 and torch.equal(
        split.test[1].x, torch.from_numpy(data[1])
    )
    assert split.train.origin == "ST-GCN arrays, NTU25 assumed from 25 joints"
    assert split.train.classes == ("0", "1", "2")
    batch = SkeletonDataset.collate([split.train[i] for i in range(3)])
    assert batch.lengths.tolist() == [6, 9, 9]
    loader = DataLoader(split.train, 2, collate_fn=SkeletonDataset.collate, num_workers=2)
    assert torch.equal(torch.cat([b.lengths for b in loader]), batch.lengths)


def test_a_bad_clip_in_place_is_named_when_it_is_read(tmp_path: Path) -> None:
    data = np.full((2, 3, 4, 25, 2), 2, np.float32)
    data[1, 0, 2, 3, 1] = np.nan
    split = open_dataset(st_gcn(tmp_path, n=2, train={"data": data}, val={}))
    assert split.train[0].x.shape == (3, 4, 25, 2)
    with pytest.raises(
        FormatError,
        match=r"train_data_joint\.npy, clip train1\.skeleton: expected finite numbers, got nan",
    ):
        split.train[1]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_label_files_of_any_kind(tmp_path: Path, kind: Callable[[Any], Any], protocol: int) -> None:
    for labels in ([3, 0, 1], np.array([3, 0, 1])):
        content = pickle.dumps((["a", "b", np.str_("c")], kind(labels)), protocol)
        source = open_st_gcn(st_gcn(tmp_path, val={"pickle": content}))
        assert source is not None and source.mapped is not None
        index = source.mapped.index
        assert (
            index.labels == [3, 0, 1]
            and index.names == ["a", "b", "c"]
            and index.sides == {"given": ["test"] * 3}
        )


def test_what_python_2_wrote(tmp_path: Path) -> None:
    data = header("(1L, 3L, 2L, 25L, 1L)") + np.ones(150, np.float32).tobytes()
    source = open_st_gcn(
        st_gcn(
            tmp_path, train={"data": data, "pickle": b"((lp0\nS'a.skeleton'\np1\na(lp2\nI7\nat."}
        )
    )
    assert source is not None and source.mapped is not None
    assert (source.mapped.index.names, source.mapped.index.labels) == (["a.skeleton"], [7])
    assert source.mapped.x[0].eq(1).all()


def test_joints_before_plain_data_and_no_folder(tmp_path: Path) -> None:
    st_gcn(st_gcn(tmp_path, joint=False))
    source = open_st_gcn(tmp_path)
    assert source is not None and source.files[0].name == "train_data_joint.npy"
    assert open_st_gcn(tmp_path / "absent") is None and open_st_gcn(Path(__file__).parent) is None


FOLDERS: list[tuple[dict[str, Any], str]] = [
    ({"train": {"data": b""}}, r"train_data_joint\.npy: expected an \.npy header, got EOF"),
    (
        {"val": {"data": header("(3, 3, 6, 25, 2)") + bytes(10)}},
        r"joint\.npy: expected 108\d\d bytes for .*, got",
    ),
    (
        {"val": {"data": npy(np.ones((3, 3, 6, 25, 2), "f4")) + b"x"}},
        r"expected 10928 bytes for .*, got 10929",
    ),
    ({"val": {"data": header("(300000000, 3, 300, 25, 2)")}}, "expected 54000000.* bytes for"),
    (
        {"val": {"data": header("(3, 3, 6, 25, 2)", "'|O'")}},
        "expected a dtype of float32, .*, got 'object'",
    ),
    (
        {"val": {"data": np.ones((3, 3, 6, 25, 2), int)}},
        "expected a dtype of float32, .*, got 'int64'",
    ),
    (
        {"val": {"data": np.asfortranarray(np.ones((3, 3, 6, 25, 2)))}},
        "expected numbers in C order, got Fortran order",
    ),
    ({"val": {"data": np.ones((3, 3, 6, 25))}}, r"expected \(N, C, T, V, M\), got \(3, 3, 6, 25\)"),
    (
        {"val": {"data": np.ones((3, 3, 0, 25, 2))}},
        r"expected \(N, C, T, V, M\), got \(3, 3, 0, 25, 2\)",
    ),
    (
        {"val": {"data": np.ones((0, 3, 6, 25, 2))}},
        r"with N of at least 1 and C of 2 or 3, got \(0, 3, 6, 25, 2\)",
    ),
    ({"val": {"data": np.ones((3, 4, 6, 25, 2))}}, r"C of 2 or 3, got \(3, 4, 6, 25, 2\)"),
    (
        {"val": {"data": np.ones((3, 3, 6, 24, 2))}},
        "val_data_joint.npy: expected V of 13, 15, 17, 18, .* joints, got 24; pass layout",
    ),
    (
        {"train": {}, "val": {"data": np.ones((3, 3, 6, 25, 1))}},
        r"expected the same \(C, V, M\) in train and val, got",
    ),
    (
        {"val": {"names": ["a", "b"]}},
        r"val_label\.pkl: expected 3 names, one for each clip, got a list of 2",
    ),
    (
        {"val": {"labels": [0]}},
        r"val_label\.pkl: expected 3 labels, one for each clip, got a list of 1",
    ),
    ({"val": {"labels": 7}}, "expected 3 labels, one for each clip, got 7"),
    ({"val": {"labels": np.ones(3)}}, r"expected 3 labels, one for each clip, got an array \(3,\)"),
    ({"val": {"labels": np.ones((), int)}}, "expected 3 labels, one for each clip, got 1"),
    (
        {"val": {"names": ["a", "b", "a"]}},
        r"val_label\.pkl, clip 2: expected a unique name, got 'a'",
    ),
    ({"val": {"names": ["a", "b", 3]}}, r"val_label\.pkl, clip 2: expected a unique name, got 3"),
    (
        {"val": {"labels": [0, -1, 2]}},
        r"val_label\.pkl, clip 1: expected an integer label in 0\.\..*, got -1",
    ),
    (
        {"val": {"labels": [0, 1, 10**9]}},
        "clip 2: expected an integer label in 0..99999, got 1000000000",
    ),
    ({"val": {"labels": [0, 1, 2.0]}}, "clip 2: expected an integer label in 0..99999, got 2.0"),
    (
        {"val": {"labels": np.ones((3, 2), int)}},
        "clip 0: expected an integer label in 0..99999, got a list of 2",
    ),
    (
        {"train": {"names": ["a", "b", "c"]}, "val": {"names": ["x", "y", "c"]}},
        "expected each clip on one side of the split, got names",
    ),
    (
        {"val": {"pickle": [1, 2, 3]}},
        r"val_label\.pkl: expected a pair \(names, labels\), got a list of 3",
    ),
    ({"val": {"pickle": {"names": 1}}}, r"expected a pair \(names, labels\), got a dict of 1"),
    (
        {"val": {"pickle": b"cos\nsystem\n(S'true'\ntR."}},
        r"val_label\.pkl, byte 11: .*, got os\.system, which",
    ),
]


@pytest.mark.parametrize("number", range(len(FOLDERS)))
def test_what_is_wrong_with_a_folder(tmp_path: Path, number: int) -> None:
    sides, error = FOLDERS[number]
    with pytest.raises(FormatError, match=rf"^{tmp_path}.*: expected ") as refused:
        open_st_gcn(st_gcn(tmp_path, **sides))
    assert refused.match(error) and len(str(refused.value)) < len(str(tmp_path)) + 300


def test_data_without_labels_and_labels_without_data(tmp_path: Path) -> None:
    st_gcn(tmp_path)
    (tmp_path / "val_label.pkl").unlink()
    error = (
        rf"^{tmp_path}: expected val_data_joint\.npy or val_data\.npy beside val_label\.pkl, "
        r"got only val_data_joint\.npy"
    )
    with pytest.raises(FormatError, match=error):
        open_st_gcn(tmp_path)
    st_gcn(tmp_path)
    (tmp_path / "train_data_joint.npy").unlink()
    with pytest.raises(FormatError, match=r"beside train_label\.pkl, got only train_label\.pkl"):
        open_st_gcn(tmp_path)


@pytest.mark.parametrize("length", [1, 2, 6])
def test_trim(length: int) -> None:
    x = torch.zeros(3, 6, 25, 2)
    x[2, length - 1, 7, 1] = -1
    assert trim("clip", x).equal(x[:, :length]) and trim("clip", x).data_ptr() == x.data_ptr()
    for number in (torch.nan, torch.inf):
        x[0, 5, 1, 0] = number
        with pytest.raises(
            FormatError,
            match=rf"^clip 3: expected finite numbers, got {number} at \(0, 5, 1, 0\) of \(C",
        ):
            trim("clip 3", x)


def test_a_clip_of_zeros_has_no_length() -> None:
    with pytest.raises(
        FormatError, match=r"^clip 3: expected a body in some frame, got none in any"
    ):
        trim("clip 3", torch.zeros(3, 6, 25, 2))


@given(
    seed=st.integers(0, 10**9),
    edits=st.integers(1, 3),
    side=st.sampled_from(["val_data.npy", "val_label.pkl"]),
)
def test_a_damaged_folder_is_refused_or_read_whole(
    tmp_path_factory: Any, seed: int, edits: int, side: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    st_gcn(folder, n=2, joint=False, val={"data": np.ones((2, 3, 1, 17, 1), np.float32)})
    damage(folder / side, random.Random(seed), edits)
    try:
        source = open_st_gcn(folder)
        assert source is not None and source.mapped is not None
        for i in range(len(source.mapped.x)):
            x = source.mapped.x[i]
            assert x.shape[0] in (2, 3) and x.shape[1] > 0 and x.isfinite().all()
    except FormatError as error:
        assert str(folder) in str(error) and ": expected " in str(error)  # noqa: PT017


def test_eighteen_joints_in_space_keep_their_z(tmp_path: Path) -> None:
    """They lost every entry whose z was not above 0."""
    data = RNG.normal(size=(3, 3, 6, 18, 2)).astype(np.float32)
    split = open_dataset(
        st_gcn(tmp_path, train={"data": data}, val={"data": data, "names": list("abc")})
    )
    assert torch.equal(split.train[1].x, torch.from_numpy(data[1]))
    assert (split.train[1].visibility == 1).all()


@pytest.mark.parametrize(("joints", "layout"), [(17, "COCO17"), (25, "BODY25")])
def test_x_y_and_score(tmp_path: Path, joints: int, layout: str) -> None:
    """17 joints were COCO17 in 3D with the score as z, 25 were NTU25."""
    data = RNG.uniform(0.1, 1, size=(3, 3, 6, joints, 2)).astype(np.float32)
    split = open_dataset(
        st_gcn(tmp_path, train={"data": data}, val={"data": data, "names": list("abc")})
    )
    assert split.train.layout.name == layout
    assert torch.equal(split.train[1].x, torch.from_numpy(data[1, :2]))
    assert torch.equal(split.train[1].visibility, torch.from_numpy(data[1, 2]))
