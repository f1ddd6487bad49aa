"""Trained networks load in one line, from anywhere, and leave the user's modules alone."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import results
import torch

from skeleton_focus import SkeletonDataset, load_pretrained, pretrained_names
from skeleton_focus._shipped import import_example

NAME = "nw_ucla/stf_gcn/joint"
# The package's name first: the examples have siblings called results and recipe, as this user has.
BESIDE_OWN_MODULES = f"""
import sys
import recipe
from skeleton_focus import load_pretrained
trained = load_pretrained({NAME!r})
assert recipe.mine and sys.modules["recipe"] is recipe
import results
assert results.mine
print(sorted(name for name in sys.modules if name in ("train", "predict", "stf_gcn", "bagcn")))
"""


def clips(frames: int = 40) -> SkeletonDataset:
    x = torch.randn(3, frames, 20, 1, generator=torch.Generator().manual_seed(0))
    return SkeletonDataset([x], None, load_pretrained(NAME).layout)


def test_a_network_loads_by_its_name_and_is_the_one_of_the_programs() -> None:
    trained = load_pretrained(NAME)
    ours = results.load_run(NAME)
    assert NAME in pretrained_names() and trained.classes == ours.classes
    assert not trained.model.training
    x = trained.prepare(SkeletonDataset.collate([clips()[0]]))
    torch.testing.assert_close(trained.model(x), ours.model(x))
    focus, logits = trained.objective.explain(x)
    (answer,) = trained.recognise(clips())
    assert answer.label == trained.classes[logits.argmax()] and answer.truth is None
    assert len(answer.joints) == 3 and focus.shape == (1, 1, 52, 20)
    windows = trained.recognise(clips(), window=20, step=10, batch=2)
    assert [answer.window for answer in windows] == [(0, 19), (10, 29), (20, 39)]


def test_a_folder_elsewhere_loads_alike(tmp_path: Path) -> None:
    for name in ("model.pt", "model.json"):
        shutil.copy(Path(results.WEIGHTS) / NAME / name, tmp_path)
    trained = load_pretrained(tmp_path)
    x = trained.prepare(SkeletonDataset.collate([clips()[0]]))
    torch.testing.assert_close(trained.model(x), load_pretrained(NAME).model(x))
    facts = json.loads((tmp_path / "model.json").read_text())
    for text, error in (
        ("{", "expected JSON in .*model.json"),
        ("[]", "expected an object of JSON in .*, got list"),
        (json.dumps({**facts, "recipe": {"momentum": 1}}), r"model\.json to describe .*momentum"),
        (json.dumps({**facts, "layout": "NTU26"}), r"model\.json to describe .* got one: .*NTU26"),
        (json.dumps({**facts, "version": "0.3", "layout": ""}), "got one of version 0.3, not"),
        (json.dumps({**facts, "channels": 2}), r"model\.pt to fit model\.json, .*size mismatch"),
        (json.dumps({"version": facts["version"]}), r"model\.json to describe .*'recipe'"),
    ):
        (tmp_path / "model.json").write_text(text)
        with pytest.raises(ValueError, match=error):
            load_pretrained(tmp_path)
    (tmp_path / "model.json").unlink()
    with pytest.raises(ValueError, match=r"holds no model\.json; versions before 0\.2 wrote none"):
        load_pretrained(tmp_path)


def test_an_array_is_no_clip() -> None:
    with pytest.raises(
        ValueError, match=r"expected a path or a SkeletonDataset, got ndarray; save"
    ):
        load_pretrained(NAME).recognise(np.zeros((8, 20, 3)))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    known = r"the networks of weights/ are .*nw_ucla/stf_gcn/bone"
    with pytest.raises(ValueError, match=rf"got nw_ucla/tsf, .*; {known}"):
        load_pretrained("nw_ucla/tsf")


def test_modules_of_the_users_keep_their_names(tmp_path: Path) -> None:
    for name in ("recipe", "results", "stf_gcn"):
        (tmp_path / f"{name}.py").write_text("mine = True\n")
    done = subprocess.run(
        [sys.executable, "-c", BESIDE_OWN_MODULES],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    assert done.stdout == "[]\n"


def test_a_failed_import_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    full = "skeleton_focus._examples.errors"
    import_example("memory")  # now their common parent is there
    monkeypatch.delitem(sys.modules, full, raising=False)
    before = {*sys.modules}
    broken = compile("1 / 0", "", "exec")
    monkeypatch.setattr("importlib.machinery.SourceFileLoader.get_code", lambda *_: broken)
    with pytest.raises(ZeroDivisionError):
        import_example("errors")
    assert full not in sys.modules and {*sys.modules} == before


def test_a_loaded_network_is_copied_and_compiled_like_any_other() -> None:
    model = load_pretrained(NAME).model
    assert type(model).__module__ == "skeleton_focus._examples.stf_gcn"
    x = torch.randn(1, 4, 52, 20, 1)
    for other in (copy.deepcopy(model), torch.compile(model, backend="eager")):
        torch.testing.assert_close(other(x), model(x))


def test_an_edited_copy_is_told(tmp_path: Path) -> None:
    for name in ("model.pt", "model.json"):
        shutil.copy(Path(results.WEIGHTS) / NAME / name, tmp_path)
    facts = json.loads((tmp_path / "model.json").read_text())
    ours = results.code_of(load_pretrained(NAME).model)
    assert ours == results.code_of(results.load_run(NAME).model)
    for code, told in ((ours, False), ("0" * 16, True)):
        (tmp_path / "model.json").write_text(json.dumps({**facts, "code": code}))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load_pretrained(tmp_path)
        assert any("another STFGCN" in str(each.message) for each in caught) == told
