"""Hundreds of damaged files of every format, always the same ones; and the checks see a reader that is wrong."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_readers
import numpy as np
import pytest
from fuzz_readers import Row, failure, lay_out, limited_memory, make, replay, run
from fuzz_seeds import KINDS, KINETICS, NTU, NW_UCLA, Seed, all_seeds
from hypothesis import given
from hypothesis import strategies as st

from skeleton_focus import _cache, format_arrays, format_kinetics, format_ntu, format_nw_ucla, format_pyskl
from skeleton_focus._bodies import Track
from skeleton_focus.formats import ClipFile, FormatError

SEEDS = all_seeds()
MUTANTS = 560


def nothing(done: int) -> None:
    """Tell nobody how far it is."""


def test_damaged_files(tmp_path: Path) -> None:
    report = run(SEEDS, range(MUTANTS), 1, tmp_path, tmp_path / "kept", nothing)
    assert report.wrong == []
    for row in report.rows.values():
        assert row.mutants == MUTANTS // len(KINDS) and row.accepted + row.refused == row.mutants
        assert row.refused > 20 and row.accepted and row.compared


def test_damaged_real_files(tmp_path: Path, ntu_files: list[Path]) -> None:
    seeds = [seed for seed in all_seeds(ntu_files[0].parents[1]) if seed.real]
    assert {path.name for path in ntu_files} <= {seed.target for seed in seeds}
    for kind in sorted({seed.kind for seed in seeds}):
        of_kind = [seed for seed in seeds if seed.kind == kind]
        numbers = range(KINDS.index(kind), 60 * len(KINDS), len(KINDS))
        report = run(of_kind, numbers, 2, tmp_path / kind, tmp_path / "kept", nothing)
        assert report.wrong == []
        assert report.rows[kind].mutants == 60 and report.rows[kind].accepted and report.rows[kind].refused


def test_a_mutant_is_always_the_same() -> None:
    made = [make(SEEDS, number, 3) for number in range(70)]
    assert made == [make(SEEDS, number, 3) for number in range(70)]
    assert len({content for _, content in made}) > 60
    assert made != [make(SEEDS, number, 4) for number in range(70)]


LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5)
POINTS = st.lists(st.lists(st.lists(LEAVES, min_size=3, max_size=3), min_size=20, max_size=20), max_size=3)
PEOPLE = st.fixed_dictionaries(
    {"pose": st.lists(LEAVES, min_size=36, max_size=36) | LEAVES, "score": st.lists(LEAVES | st.just(0.5), max_size=18)}
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner))
CONTENTS = {
    NW_UCLA: st.fixed_dictionaries({"file_name": VALUES, "skeletons": POINTS | VALUES, "label": st.just(5) | VALUES}),
    KINETICS: st.fixed_dictionaries(
        {
            "data": st.lists(
                st.fixed_dictionaries({"frame_index": st.integers(0, 2), "skeleton": st.lists(PEOPLE, max_size=3)})
            ),
            "label": st.just("abseiling") | VALUES,
            "label_index": st.just(0) | VALUES,
        }
    ),
}


@pytest.mark.parametrize("kind", CONTENTS)
@given(data=st.data())
def test_contents_of_any_types(tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject) -> None:
    content = json.dumps(data.draw(CONTENTS[kind] | VALUES), ensure_ascii=data.draw(st.booleans()))
    changed = seed_of(kind)._replace(content=content.encode("utf-8", "surrogatepass"))
    assert wrong(changed, tmp_path_factory.mktemp("contents")) == ""


@pytest.mark.parametrize("kind", KINDS)
@given(content=st.binary(max_size=200))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, kind: str, content: bytes) -> None:
    """Alone, and behind the first bytes of a good file, so that they are taken for one."""
    for start in (b"", seed_of(kind).content[:6]):
        changed = seed_of(kind)._replace(content=start + content)
        assert wrong(changed, tmp_path_factory.mktemp("bytes")) == ""


# ------------------------------------------------------------------------------------------------ the checks can fail


def seed_of(kind: str) -> Seed:
    return next(seed for seed in SEEDS if seed.kind == kind)


def wrong(seed: Seed, folder: Path) -> str:
    """What is wrong with how a seed, or its mutant, is read."""
    return failure(seed, lay_out([seed], folder)[0], Row(), cache=True)


def off_by_a_hair(clip: ClipFile) -> ClipFile:
    x = clip.x.copy()
    x[0, 0, 3, 0] = np.nextafter(x[0, 0, 3, 0], np.float32(9))
    return clip._replace(x=x)


def raising(error: Exception) -> Callable[[ClipFile], ClipFile]:
    def fault(clip: ClipFile) -> ClipFile:
        raise error

    return fault


def warning(clip: ClipFile) -> ClipFile:
    warnings.warn("overflow", RuntimeWarning, stacklevel=2)
    return clip


def waiting(clip: ClipFile) -> ClipFile:
    while True:
        pass


def allocating(clip: ClipFile) -> ClipFile:
    return clip._replace(x=np.ones(1 << 40, np.float32))


FAULTS = [
    (off_by_a_hair, "alone another clip than through open_dataset"),
    (lambda clip: clip._replace(label=7), "alone another clip than through open_dataset"),
    (lambda clip: clip._replace(x=clip.x.astype(np.float64)), r"torch\.float64 .*, expected finite float32"),
    (lambda clip: clip._replace(x=np.full_like(clip.x, np.inf)), "expected finite float32"),
    (lambda clip: clip._replace(x=clip.x[:, :, 1:]), r"expected finite float32"),
    (lambda clip: clip._replace(visibility=np.full(clip.x.shape[1:], 2, np.float32)), "visibility"),
    (lambda clip: clip._replace(visibility=np.zeros(clip.x.shape[1:], np.float32)), "joints that were not seen"),
    (raising(FormatError("x: expected y, got z")), "a message without the path or the form"),
    (raising(KeyError("x")), "KeyError at test_fuzz_readers"),
    (raising(ValueError("x: expected y, got z")), "ValueError at "),
    (raising(RecursionError()), "RecursionError at "),
    (warning, "RuntimeWarning at .*: overflow"),
    (waiting, r"Slow at .*: more than 0\.3 s"),
    (allocating, "MemoryError at "),
]


@pytest.mark.parametrize(("fault", "told"), FAULTS)
@pytest.mark.parametrize("kind", [NTU, NW_UCLA, KINETICS])
def test_a_planted_fault_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, fault: Callable[[ClipFile], ClipFile], told: str
) -> None:
    good = fuzz_readers.READERS[kind]
    monkeypatch.setattr(fuzz_readers, "MOST_SECONDS", 0.3)
    monkeypatch.setitem(fuzz_readers.READERS, kind, lambda path: fault(good(path)))
    with limited_memory():
        assert re.match(f"{re.escape(kind)}: .*{told}", wrong(seed_of(kind), tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_and_refusals_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Faults that reach a reader alone and open_dataset alike."""
    seed = seed_of(kind)
    assert wrong(seed, tmp_path / "good") == ""
    for module, name in (
        (format_ntu, "main_bodies"), (format_nw_ucla, "_clip"), (format_kinetics, "_person"),
        (format_pyskl, "_numbers"), (format_arrays, "_poses"), (format_arrays, "trim"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, doubled(getattr(module, name)))
    told = "a body in frame 0 that the file does not hold" if kind == NTU else "other numbers than plainly"
    assert wrong(seed, tmp_path / "doubled").endswith(told)


def doubled(function: Callable[..., Any]) -> Callable[..., Any]:
    """What gives positions or something with positions in it, with all of them twice as far away."""

    def twice(value: Any) -> Any:
        if isinstance(value, Track):
            return value._replace(poses=2 * value.poses)
        if isinstance(value, ClipFile):
            return value._replace(x=2 * value.x)
        if isinstance(value, tuple):
            return (twice(value[0]), *value[1:])
        return [twice(part) for part in value] if isinstance(value, list) else 2 * value

    return lambda *arguments, **options: twice(function(*arguments, **options))


def test_a_reader_that_is_too_patient_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = seed_of(NW_UCLA)
    bad = seed._replace(content=seed.content.replace(b'"label": 5', b'"label": 6'))
    assert wrong(bad, tmp_path / "refused") == ""
    good = fuzz_readers.read_nw_ucla(lay_out([seed], tmp_path)[0] / seed.target)
    read = format_nw_ucla._clip
    monkeypatch.setattr(format_nw_ucla, "_clip", lambda path, *of: good if path.stem == good.name else read(path, *of))
    monkeypatch.setattr(fuzz_readers, "_agrees_alone", lambda *_: None)
    assert wrong(bad, tmp_path / "accepted") == "NW-UCLA: accepted, plainly refused"


def test_a_reader_that_is_too_strict_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(path: Path, text: bytes) -> Any:
        raise FormatError(f"{path}: expected much, got less")

    monkeypatch.setattr(format_ntu, "_tracks", refuses)
    seed = seed_of(NTU)._replace(beside={})
    monkeypatch.setattr(fuzz_readers, "_agrees_alone", lambda *_: None)
    assert wrong(seed, tmp_path).startswith("NTU RGB+D: plainly accepted, refused: ")


@pytest.mark.parametrize("text", ["x" * 500, "a\nb", "\ud800", "\x1b[31m"])
def test_a_message_that_is_long_or_cannot_be_printed_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    def refuses(path: Path) -> ClipFile:
        raise FormatError(f"{path}: expected much, got {text}")

    monkeypatch.setitem(fuzz_readers.READERS, NTU, refuses)
    assert re.match(r"NTU RGB\+D: a message of \d+ characters, or not printable", wrong(seed_of(NTU), tmp_path))


def test_a_cache_that_is_left_behind_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = seed_of(NTU)
    bad = seed._replace(content=b"2\n")
    assert wrong(bad, tmp_path / "refused") == ""
    monkeypatch.setattr(_cache.shutil, "rmtree", lambda *_, **__: None)
    assert re.match(r"NTU RGB\+D: after an error the cache holds \[", wrong(bad, tmp_path / "left"))


def test_what_is_wrong_is_kept_and_can_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seed, kept = seed_of(KINETICS), tmp_path / "kept"
    good = fuzz_readers.READERS[KINETICS]

    def breaks(path: Path) -> ClipFile:
        if path.read_bytes() != seed.content:
            raise KeyError("x")
        return good(path)

    monkeypatch.setitem(fuzz_readers.READERS, KINETICS, breaks)
    report = run([seed], [KINDS.index(KINETICS)], 0, tmp_path / "run", kept, nothing)
    (file,) = kept.iterdir()
    assert report.wrong == [f"{file}: {replay(file)}"] and "KeyError" in report.wrong[0]
    assert fuzz_readers.main(["--replay", str(file)]) == 1
    monkeypatch.undo()
    assert fuzz_readers.main(["--replay", str(file)]) == 0
    assert capsys.readouterr().out.endswith("nothing is wrong\n")
