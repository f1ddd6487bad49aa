"""The NW-UCLA reader: a good file, and every way a file can be wrong."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skeleton_focus.format_nw_ucla import NW_UCLA_ACTIONS, open_nw_ucla, read_nw_ucla
from skeleton_focus.formats import FormatError

NAME = "a08_s03_e02_v01"
POINT = "[0.25, -1, 3e0]"


def text(frames: int = 2, label: Any = 7, name: str = NAME) -> str:
    body = ", ".join(["[" + ", ".join([POINT] * 20) + "]"] * frames)
    return f'{{"file_name": "{name}", "skeletons": [{body}], "label": {label}}}'


def put(number: str, frame: int = 1, joint: int = 4) -> str:
    """The text with the second coordinate of one joint replaced."""
    at = frame * 20 + joint
    pieces = text().split(POINT)
    return POINT.join(pieces[: at + 1]) + f"[0.25, {number}, 3]" + POINT.join(pieces[at + 1 :])


def read(folder: Path, content: str | bytes, name: str = f"{NAME}.json") -> Any:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_nw_ucla(path)


def test_a_good_file(tmp_path: Path) -> None:
    points = np.random.default_rng(0).standard_normal((3, 20, 3))
    content = json.dumps(
        {"file_name": NAME, "skeletons": points.tolist(), "label": 7, "more": None}
    )
    clip = read(tmp_path, content)
    assert (clip.name, clip.label, clip.subject, clip.view) == (NAME, 6, 3, 1)
    assert (
        clip.x.dtype == np.float32 and clip.x.shape == (3, 3, 20, 1) and clip.x.flags.c_contiguous
    )
    for c, t, v in np.ndindex(3, 3, 20):
        assert clip.x[c, t, v, 0] == np.float32(points[t, v, c])
    assert read_nw_ucla(str(tmp_path / f"{NAME}.json")).label == 6
    assert read(tmp_path, text()).x[:, 1, 19, 0].tolist() == [0.25, -1, 3]


@pytest.mark.parametrize(("label", "action"), list(enumerate(NW_UCLA_ACTIONS)))
def test_labels_follow_the_actions(tmp_path: Path, label: int, action: str) -> None:
    name = f"{action}_s10_e05_v03"
    clip = read(tmp_path, text(1, label + 1, name), f"{name}.json")
    assert (clip.label, clip.subject, clip.view) == (label, 10, 3)


@pytest.mark.parametrize("view", ["0", "4", "9"])
def test_a_view_that_is_none(tmp_path: Path, view: str) -> None:
    name = f"a08_s03_e02_v0{view}"
    with pytest.raises(FormatError, match=rf"{name}\.json: expected a view in 1\.\.3, got {view}"):
        read(tmp_path, text(name=name), f"{name}.json")


def test_the_ten_actions() -> None:
    assert list(NW_UCLA_ACTIONS) == [
        "a01",
        "a02",
        "a03",
        "a04",
        "a05",
        "a06",
        "a08",
        "a09",
        "a11",
        "a12",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "clip.json",
        "a07_s01_e00_v01.json",
        "a1_s01_e00_v01.json",
        "a01_s01_e00_v01_x.json",
        "xa01_s01_e00_v01.json",
    ],
)
def test_another_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        FormatError, match=rf"^{name}: expected a name aAA_sSS_eEE_vVV\.json with an action among"
    ):
        read(tmp_path, text(), name)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(
        OSError, match=rf"{NAME}\.json: expected a file that can be read, got No such file"
    ) as error:
        read_nw_ucla(tmp_path / f"{NAME}.json")
    assert isinstance(error.value, FormatError)  # skipped as any other file that cannot be read


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", r", line 1, column 1: expected JSON, got Expecting value"),
        (
            '{"file_name": "x",\n  "label": }',
            r", line 2, column 12: expected JSON, got Expecting value",
        ),
        (text()[:-1], r", line 1, column \d+: expected JSON, got Expecting"),
        (b"\x80", r": expected JSON text, got UnicodeDecodeError"),
        (b'{"file_name": "\xe9"}', r": expected JSON text, got UnicodeDecodeError"),
        ("[" * 100_000, r": expected JSON text, got RecursionError"),
        ("[1, 2]", r": expected the keys file_name, skeletons and label, got list"),
        ("3", r": expected the keys file_name, skeletons and label, got int"),
        ('{"label": 7, "skeletons": []}', r": expected the keys .*, got \['label', 'skeletons'\]"),
        (text(label=8), r": expected label 7, which is action a08, got 8"),
        (text(label='"7"'), r": expected label 7, which is action a08, got '7'"),
        (text(label="null"), r": expected label 7, which is action a08, got None"),
        (text(label="[" * 500 + "]" * 500), r": expected label 7, which is action a08, got \[\["),
        (text(0), r": expected at least one frame, got none"),
        (text(name="a08_s03_e02_v02"), rf": expected file_name '{NAME}', got 'a08_s03_e02_v02'"),
        (
            text().replace(POINT, "[0, 0.0, -0]"),
            r": expected a position that is not 0, got none in any frame",
        ),
        (
            '{"file_name": 1, "skeletons": {}, "label": 7}',
            r": expected at least one frame, got none",
        ),
        (
            '{"file_name": 1, "skeletons": [7], "label": 7}',
            r", frame 0: expected 20 joints, got int",
        ),
        (
            text().replace(f"{POINT}, {POINT}]", f"{POINT}]", 1),
            r", frame 0: expected 20 joints, got 19",
        ),
        (
            text().replace(f"{POINT}], ", f"{POINT}, {POINT}], ", 1),
            r", frame 0: expected 20 joints, got 21",
        ),
        (put("NaN"), r", frame 1, joint 4: expected finite coordinates, got \[0\.25, nan, 3\.0\]"),
        (
            put("-Infinity"),
            r", frame 1, joint 4: expected finite coordinates, got \[0\.25, -inf, 3\.0\]",
        ),
        (put("1e60"), r", frame 1, joint 4: expected finite coordinates, got \[0\.25, inf, 3\.0\]"),
        (put("1" + "0" * 60), r", frame 1, joint 4: expected finite coordinates"),
        (
            put('"1.5"'),
            r", frame 1, joint 4: expected three numbers x, y, z, got \[0\.25, '1\.5', 3\]",
        ),
        (
            put("null"),
            r", frame 1, joint 4: expected three numbers x, y, z, got \[0\.25, None, 3\]",
        ),
        (
            put("true"),
            r", frame 1, joint 4: expected three numbers x, y, z, got \[0\.25, True, 3\]",
        ),
        (
            put("[1]"),
            r", frame 1, joint 4: expected three numbers x, y, z, got \[0\.25, \[1\], 3\]",
        ),
        (
            put("1, 2"),
            r", frame 1, joint 4: expected three numbers x, y, z, got \[0\.25, 1, 2, 3\]",
        ),
        (
            put("[" * 500 + "]" * 500),
            r", frame 1, joint 4: expected three numbers x, y, z, got \[0\.25, \[\[",
        ),
        (
            text().replace("{", '{"a": ' * 50_000 + "1" + "}" * 49_999 + ", ", 1),
            r": expected JSON text, got Recur",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, content: str | bytes, error: str) -> None:
    with pytest.raises(FormatError, match=rf"{NAME}\.json{error}"):
        read(tmp_path, content)


@pytest.mark.parametrize("digits", [400, 5000])
def test_a_whole_number_too_large_for_a_float(tmp_path: Path, digits: int) -> None:
    with pytest.raises(FormatError, match=rf"{NAME}\.json.*: expected "):
        read(tmp_path, put("1" + "0" * digits))


@pytest.mark.parametrize(
    "spelling",
    [
        "[1, 2]",
        '{"label": 7, "file_name": "%s", "skeletons": %s, "more": [1, [2]]}',
        '{"skeletons": %s, "label": 7}',
    ],
)
@pytest.mark.parametrize(
    "numbers",
    [
        ["0.5", "-0.25", "3"],
        ["1e-3", "-2.5E+01", "0"],
        ["123456789.5", "0.1234567891234567", "-0.0"],
    ],
)
@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":"), (" ,\n", ":")])
def test_every_spelling_gives_what_json_gives(
    tmp_path: Path, spelling: str, numbers: list[str], separators: Any
) -> None:
    points = [[[f"{value}" for value in numbers]] * 20] * 3
    frames = json.dumps(points, separators=separators).replace('"', "")
    if spelling.count("%s") == 2:
        content = spelling.replace("%s", NAME, 1).replace("%s", frames)
    else:
        others = text(3).split('skeletons": ')[1].split(', "label')[0]
        content = text(3).replace(others, frames)
    expected = np.array(json.loads(content)["skeletons"], np.float32)
    assert np.array_equal(read(tmp_path, content).x[..., 0].transpose(1, 2, 0), expected)


@pytest.mark.parametrize(
    "number",
    ["01.5", "+1.5", "1.", ".5", "-", "1.5.5", "--1", "1e", "0x1", "1_0", "1 5", "1e5.5", "٣"],
)
def test_what_json_does_not_call_a_number(tmp_path: Path, number: str) -> None:
    with pytest.raises(FormatError, match=rf"{NAME}\.json.*: expected JSON"):
        read(tmp_path, put(number))


def test_files_read_together_are_those_read_alone(tmp_path: Path) -> None:
    """Groups of files are parsed at once; a bad one among them changes nothing for the others."""
    rng = np.random.default_rng(0)
    for i in range(40):
        points = rng.standard_normal((1 + i % 5, 20, 3)).round(rng.integers(1, 12)).tolist()
        content = json.dumps(
            {"file_name": f"a08_s01_e{i:02d}_v01", "skeletons": points, "label": 7}
        )
        if i % 11 == 3:
            content = content.replace(", ", ", +", 1) if i % 2 else content.replace("0.", "00.", 1)
        (tmp_path / f"a08_s01_e{i:02d}_v01.json").write_text(content)
    source = open_nw_ucla(tmp_path)
    assert source is not None and source.num_clips == 40
    together = list(source.read())
    assert sum(isinstance(clip, FormatError) for clip in together) == 4
    for path, clip in zip(sorted(tmp_path.iterdir()), together, strict=True):
        if isinstance(clip, FormatError):
            with pytest.raises(FormatError, match=re.escape(str(clip))):
                read_nw_ucla(path)
        else:
            alone = read_nw_ucla(path)
            assert np.array_equal(clip.x, alone.x) and clip._replace(x=0) == alone._replace(x=0)


def test_a_long_value_does_not_fill_the_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"expected three numbers") as error:
        read(tmp_path, put('"' + "y" * 10_000 + '"'))
    assert len(str(error.value)) < len(str(tmp_path)) + 250


@given(seed=st.integers(0, 10**9), edits=st.integers(1, 6))
def test_a_damaged_file_is_refused_or_read_whole(
    tmp_path_factory: Any, seed: int, edits: int
) -> None:
    rng = random.Random(seed)
    content = bytearray(text(1).encode())
    for _ in range(edits):
        at = rng.randrange(len(content))
        kind = rng.random()
        if kind < 0.4:
            content[at] = rng.choice(b'0123456789eE+-.,:[]{}"ntI \n\x00\xff')
        elif kind < 0.6:
            del content[at : at + rng.randrange(1, 40)]
        elif kind < 0.8:
            content[at:at] = rng.choice(
                [b"9" * 50, b"e99", b"NaN", b"[", b"]", b"null", b"\\ud800", b"-"]
            )
        else:
            content[at:at] = content[at : at + rng.randrange(1, 60)]
    clip = None
    refusal = ""
    try:
        clip = read(tmp_path_factory.getbasetemp(), bytes(content))
    except FormatError as error:
        refusal = str(error)
    if clip is None:
        assert NAME in refusal and ": expected " in refusal
    else:
        assert (
            clip.label == 6
            and clip.x.shape[0] == 3
            and clip.x.shape[2:] == (20, 1)
            and clip.x.shape[1] > 0
        )
        assert np.isfinite(clip.x).all()
