"""Good files of every format that the package reads: the real ones beside the repository, and small generated ones."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NTU, NW_UCLA, KINETICS, PYSKL = "NTU RGB+D", "NW-UCLA", "Kinetics-Skeleton", "pyskl pickle"
CTR_GCN, ST_GCN_DATA, ST_GCN_LABELS = "CTR-GCN npz", "ST-GCN npy", "ST-GCN labels"
KINDS = (NTU, NW_UCLA, KINETICS, PYSKL, CTR_GCN, ST_GCN_DATA, ST_GCN_LABELS)


class Seed(NamedTuple):
    """A good file and those that lie beside it.

    Attributes:
        kind: one of ``KINDS``.
        target: the file that is changed, relative to the folder.
        content: what it holds.
        beside: the other files.
        opened: what is opened, relative to the folder.
        real: whether it comes from a data set.
    """

    kind: str
    target: str
    content: bytes
    beside: dict[str, bytes]
    opened: str = "."
    real: bool = False


def all_seeds(data: Path | None = None) -> list[Seed]:
    """The generated files and, where ``data`` holds the data sets, some of the real ones."""
    rng = np.random.default_rng(0)
    seeds = [*_ntu(rng, data), *_nw_ucla(rng, data), *_kinetics(rng), *_pyskl(rng), *_ctr_gcn(rng), *_st_gcn(rng)]
    assert {seed.kind for seed in seeds} == {*KINDS}
    return seeds


# ----------------------------------------------------------------------------------------------------------- the texts


def ntu_text(frames: list[dict[str, NDArray[Any]]]) -> bytes:
    """A ``.skeleton`` text of the bodies in each frame."""
    lines = [str(len(frames))]
    for frame in frames:
        lines.append(str(len(frame)))
        for name, pose in frame.items():
            rows = (f"{x:.7g} {y:.7g} {z:.7g} 276.1 190.07 1032.3 514.09 -0.17 0.04 0.97 -0.16 2" for x, y, z in pose)
            lines += [f"{name} 0 1 1 1 1 0 -0.1159187 0.1413209 2", "25", *rows]
    return "\n".join(lines).encode() + b"\n"


def _bodies(rng: np.random.Generator, *present: str) -> list[dict[str, NDArray[Any]]]:
    """In each frame a standing body for each letter."""
    standing = np.stack([np.linspace(-0.2, 0.2, 25), np.linspace(0, 1.7, 25), np.full(25, 3.0)], 1)
    return [
        {f"7205759403793{ord(c)}": standing + rng.normal(0, 0.02, (25, 3)) + [ord(c) % 7, 0, 0] for c in letters}
        for letters in present
    ]


def _first_frames(text: bytes, frames: int) -> bytes:
    """The first frames, one body each, of a longer text."""
    return b"\n".join([str(frames).encode(), *text.split(b"\n")[1 : 1 + 28 * frames]]) + b"\n"


def _ntu(rng: np.random.Generator, data: Path | None) -> Iterator[Seed]:
    name = "S00{}C00{}P00{}R002A051.skeleton"
    beside = {
        name.format(1, 2, 1): ntu_text(_bodies(rng, "a", "a")),
        name.format(1, 1, 3): ntu_text(_bodies(rng, "b")),
    }
    for present in (("ab", "ab", "", "ab", "b"), ("a", "c", "ca", "a", "a", "cb"), ("a",) * 13):
        yield Seed(NTU, name.format(2, 3, 2), ntu_text(_bodies(rng, *present)), beside)
    for path in sorted((data / "ntu_samples").glob("*.skeleton")) if data else ():
        yield Seed(NTU, path.name, path.read_bytes(), beside, real=True)
        for frames in (2, 4, 8):  # most errors lie deeper than a long file's first change
            yield Seed(NTU, path.name, _first_frames(path.read_bytes(), frames), beside, real=True)


def nw_ucla_text(name: str, frames: NDArray[Any], label: int, **style: Any) -> bytes:
    """A JSON text of frames (T, V, C)."""
    content = {"file_name": name, "skeletons": frames.round(6).tolist(), "label": label}
    return json.dumps(content, **style).encode()


def _nw_ucla(rng: np.random.Generator, data: Path | None) -> Iterator[Seed]:
    names = ["a01_s99_e99_v01", "a02_s99_e99_v03", "a05_s99_e98_v02"]
    texts = [nw_ucla_text(name, rng.normal(size=(3, 20, 3)), int(name[1:3])) for name in names]
    beside = {f"all_sqe/{name}.json": text for name, text in zip(names[:2], texts, strict=False)}
    yield Seed(NW_UCLA, f"all_sqe/{names[2]}.json", texts[2], beside)
    for style in ({"indent": 1}, {"separators": (",", ":")}):
        text = nw_ucla_text(names[2], rng.normal(size=(2, 20, 3)), 5, **style)
        yield Seed(NW_UCLA, f"all_sqe/{names[2]}.json", text, beside)
    found = sorted((data / "nw_ucla" / "all_sqe").glob("*.json"), key=lambda p: p.stat().st_size) if data else []
    for path in (found[len(found) * i // 12] for i in range(8)) if found else ():
        yield Seed(NW_UCLA, f"all_sqe/{path.name}", path.read_bytes(), beside, real=True)


def kinetics_text(people: tuple[int, ...], label: int, action: str, rng: np.random.Generator) -> bytes:
    """A JSON text with so many people in each frame."""
    frames = [
        {
            "frame_index": t + 1,
            "skeleton": [
                {"pose": rng.random(36).round(3).tolist(), "score": rng.random(18).round(3).tolist()} for _ in range(n)
            ],
        }
        for t, n in enumerate(people)
    ]
    return json.dumps({"data": frames, "label": action, "label_index": label}).encode()


def _kinetics(rng: np.random.Generator) -> Iterator[Seed]:
    beside = {
        "kinetics_train/a.json": kinetics_text((1, 2), 0, "abseiling", rng),
        "kinetics_val/b.json": kinetics_text((1,), 1, "zumba", rng),
    }
    for people in ((1, 0, 2), (3,), (2, 5, 0, 1)):
        yield Seed(KINETICS, "kinetics_train/x.json", kinetics_text(people, 0, "abseiling", rng), beside)


# ---------------------------------------------------------------------------------------------------------- the arrays


def pyskl_content(rng: np.random.Generator, joints: int, channels: int, scalars: bool) -> dict[str, Any]:
    """What a pickle of pyskl holds; ``scalars``: names and labels as numpy's."""
    annotations = []
    for i, (m, t) in enumerate(((1, 3), (2, 4), (2, 2))):
        keypoint = rng.uniform(1, 900, (m, t, joints, channels)).astype(np.float16 if i else np.float32)
        clip = {"frame_dir": f"S001C00{i + 1}P001R001A001", "label": i, "total_frames": t, "keypoint": keypoint}
        if channels == 2:
            clip["keypoint_score"] = rng.uniform(0.1, 0.9, (m, t, joints)).astype(np.float16)
        if scalars:
            clip["frame_dir"], clip["label"] = np.str_(clip["frame_dir"]), np.int64(i)
        annotations.append({**clip, "img_shape": (1080, 1920)})
    names = [clip["frame_dir"] for clip in annotations]
    return {"split": {"xsub_train": names[:2], "xsub_val": names[2:]}, "annotations": annotations}


def _pyskl(rng: np.random.Generator) -> Iterator[Seed]:
    for protocol in (2, 4, 5):
        for joints, channels in ((17, 2), (25, 3)):
            for scalars in (False, True):
                content = pickle.dumps(pyskl_content(rng, joints, channels, scalars), protocol)
                yield Seed(PYSKL, "data.pkl", content, {}, "data.pkl")


def ctr_gcn_arrays(rng: np.random.Generator, width: int) -> dict[str, NDArray[Any]]:
    """The four members of an ``.npz``."""
    arrays = {}
    for side, n in (("train", 3), ("test", 2)):
        x = rng.normal(size=(n, 5, width)).astype(np.float32)
        x[0, 3:] = 0
        arrays[f"x_{side}"], arrays[f"y_{side}"] = x, np.eye(4)[np.arange(n)]
    return arrays


def npz(members: Iterable[tuple[str, bytes]], method: int) -> bytes:
    """An archive, written at no time."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in members:
                archive.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _ctr_gcn(rng: np.random.Generator) -> Iterator[Seed]:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        for width in (150, 60):
            members = {f"{name}.npy": _npy(array) for name, array in ctr_gcn_arrays(rng, width).items()}
            yield Seed(CTR_GCN, "data.npz", npz(members.items(), method), {}, "data.npz")


def _st_gcn(rng: np.random.Generator) -> Iterator[Seed]:
    for dtype, joints in (("<f4", 25), (">f4", 18), ("<f2", 25)):
        beside = {}
        for side, n in (("train", 3), ("val", 2)):
            x = rng.normal(size=(n, 3, 4, joints, 2)).astype(dtype)
            x[0, :, 2:] = 0
            beside[f"{side}_data_joint.npy"] = _npy(x)
            labels = [*range(n)] if side == "val" else np.arange(n)
            beside[f"{side}_label.pkl"] = pickle.dumps(([f"{side}{i}" for i in range(n)], labels), 2)
        for target, kind in (("train_data_joint.npy", ST_GCN_DATA), ("train_label.pkl", ST_GCN_LABELS)):
            others = {name: content for name, content in beside.items() if name != target}
            yield Seed(kind, target, beside[target], others)
