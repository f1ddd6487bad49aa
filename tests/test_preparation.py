"""Test FG-STFormer's and BAGCN's preparations, by slow references and by rigid motions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ensemble
import numpy as np
import pytest
import reference_preparation as reference
import torch
import train
from explain import to_draw
from hypothesis import given
from hypothesis import strategies as st
from layer_tools import draw
from recipe import PREPARATIONS, PRESETS, Recipe, prepare
from run_tools import assert_kept
from torch import Tensor

from skeleton_focus import (
    COCO17,
    KINECT20,
    NTU25,
    Augment,
    Batch,
    SkeletonLayout,
    center,
    convert_layout,
    make_stream,
    resample_frames,
)
from skeleton_focus.augment import rotate
from skeleton_focus.layouts import LAYOUTS, NTU25_PYSKL, UTD20
from skeleton_focus.preparation import align_body, repeat_frames

LENGTHS = (9, 5, 12)


def some_clips(
    seed: int = 0, *, joints: int = 25, persons: int = 2, lost: float = 0.2, clips: int = 3
) -> Batch:
    """Make random clips in float64 with lost joints; the last clip's second person is absent."""
    rng = np.random.default_rng(seed)
    lengths = LENGTHS[:clips]
    t = max(LENGTHS[:clips])
    seen = (rng.random((clips, t, joints, persons)) > lost).astype(float)
    for n, length in enumerate(lengths):
        seen[n, length:] = 0
    if joints > 8:
        seen[:, 2, [0, 1, 4, 8], 0] = 1  # a whole torso somewhere
    if persons > 1:
        seen[-1, :, :, 1] = 0
    x = rng.standard_normal((clips, 3, t, joints, persons)) * seen[:, None]
    parts = [
        torch.from_numpy(x),
        torch.tensor(lengths),
        torch.zeros(clips, dtype=torch.int64),
        torch.from_numpy(seen),
    ]
    return Batch(*parts, torch.zeros(clips, persons, t, joints, dtype=torch.float64))


def moved(batch: Batch, angles: Any, shift: Any) -> Batch:
    """All clips turned and shifted alike; a joint that was not seen stays at 0."""
    turns = torch.tensor(angles, dtype=torch.float64).expand(len(batch.x), 3)
    x = rotate(batch.x, turns) + torch.tensor(shift, dtype=torch.float64)[:, None, None, None]
    return batch._replace(x=x * batch.visibility[:, None])


def expected(batch: Batch, method: Any, frames: int, **options: Any) -> np.ndarray:
    """The reference's clips with their visibility as the last channel."""
    found = [
        method(batch.x[n].numpy(), batch.visibility[n].numpy(), int(length), frames, **options)
        for n, length in enumerate(batch.lengths)
    ]
    return np.stack([np.concatenate([x, seen[None]]) for x, seen in found])


def close(ours: Tensor, wanted: np.ndarray) -> None:
    assert ours.shape == wanted.shape
    np.testing.assert_allclose(ours.numpy(), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("layout", [NTU25, NTU25_PYSKL, KINECT20], ids=lambda layout: layout.name)
@pytest.mark.parametrize("persons", [1, 2])
@pytest.mark.parametrize(
    ("name", "method"), [("ctrgcn", reference.ctr_gcn), ("dgnn", reference.dgnn)]
)
def test_tests_see_what_the_slow_reference_gives(
    name: str, method: Any, persons: int, layout: SkeletonLayout
) -> None:
    batch = some_clips(joints=layout.num_joints, persons=persons)
    ours = prepare(batch, Recipe(preparation=name, frames=13), layout)
    close(ours, expected(batch, method, 13))
    assert ours[:, :-1].abs().amax() > 1
    assert (persons == 1) or not ours[-1, ..., 1].any(), "an absent person stays absent"


def test_training_sees_a_turned_part_of_the_clip() -> None:
    """CTR-GCN: a share of 0.5 to 1, at a random place, turned by up to 0.3 radians an axis."""
    batch = some_clips(lost=0.0)
    recipe = Recipe(
        preparation="ctrgcn", frames=7, augment={"crop": 0.5, "rotation": (17.1887,) * 3}
    )
    drawn = torch.Generator().manual_seed(5)
    angles = (
        ((2 * torch.rand(3, 3, generator=drawn) - 1) * torch.tensor(17.1887).deg2rad())
        .double()
        .numpy()
    )
    torch.rand(3, generator=drawn)  # sizes
    share = (0.5 + 0.5 * torch.rand(3, generator=drawn)).double().numpy()
    start = (1 - share) * torch.rand(3, generator=drawn).double().numpy()
    ours = prepare(batch, recipe, NTU25, torch.Generator().manual_seed(5))
    assert np.all(share >= 0.5) and np.all(start + share <= 1) and abs(angles).max() <= 0.3
    for n, length in enumerate(LENGTHS):
        x, y, z = angles[n]
        turn = reference.about(2, z) @ reference.about(1, y) @ reference.about(0, x)
        options = {"start": start[n], "stop": start[n] + share[n], "turn": turn}
        clip, seen = reference.ctr_gcn(
            batch.x[n].numpy(), batch.visibility[n].numpy(), length, 7, **options
        )
        # Numbers drawn in float32.
        np.testing.assert_allclose(ours[n, :-1].numpy(), clip, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(ours[n, -1].numpy(), seen)


def whole_clips(joints: int, persons: int) -> Batch:
    """Clips in which every joint was seen; padding is 0."""
    batch = some_clips(joints=joints, persons=persons, lost=0.0)
    inside = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    seen = inside[:, :, None, None].double().expand(-1, -1, joints, persons)
    x = draw(3, 3, max(LENGTHS), joints, persons) * seen[:, None]
    return batch._replace(x=x, visibility=seen)


@pytest.mark.parametrize("layout", [NTU25, KINECT20, COCO17], ids=lambda layout: layout.name)
@pytest.mark.parametrize("persons", [1, 2])
def test_a_box_in_tests_is_that_of_the_field(persons: int, layout: SkeletonLayout) -> None:
    batch = whole_clips(layout.num_joints, persons)
    streams = ("joint", "bone", "joint_motion", "bone_motion")
    recipe = Recipe(preparation="box", frames=52, stream="+".join(streams))
    ours = prepare(batch, recipe, layout)
    for n, length in enumerate(LENGTHS):
        joint = reference.ctr_gcn_nw_ucla(batch.x[n].numpy(), length, 52)
        bone = joint - joint[:, :, list(layout.parents)]
        motions = [np.diff(x, axis=1, append=x[:, -1:]) for x in (joint, bone)]
        close(ours[n, :-1], np.concatenate([joint, bone, *motions]))
    assert (ours[:, -1] == 1).all()


def test_a_box_in_training_is_that_of_the_field() -> None:
    """Turned about y and then about x by up to 60 degrees; sorted frames, drawn with repetition."""
    batch = whole_clips(20, 1)
    recipe = Recipe(**PRESETS["nw_ucla_325"])
    drawn = torch.Generator().manual_seed(5)
    angles = ((2 * torch.rand(3, 3, generator=drawn) - 1) * torch.tensor(60.0).deg2rad()).double()
    torch.rand(3, 3, generator=drawn)  # sizes, spans
    times = torch.rand(3, 52, generator=drawn)
    for n, length in enumerate(LENGTHS):
        chosen = (times[n] * length).long().sort().values.numpy()
        assert len(np.unique(chosen)) == length or length > 10
        expected = reference.ctr_gcn_nw_ucla(
            batch.x[n].numpy(), length, 52, chosen=chosen, angles=angles[n].tolist()
        )
        ours = prepare(batch, recipe, KINECT20, torch.Generator().manual_seed(5))
        # Angles drawn in float32.
        np.testing.assert_allclose(ours[n, :-1].numpy(), expected, rtol=0, atol=1e-6)
    assert ours[:, :-1].abs().amax() <= 1


@given(seed=st.integers(0, 10**6), lost=st.floats(0, 0.5))
def test_views_in_a_box_stay_in_it(seed: int, lost: float) -> None:
    """With lost joints, too, and for masks and dropped axes; what was not seen is 0."""
    batch = some_clips(seed, lost=lost)
    augment = {**PRESETS["nw_ucla_325"]["augment"], "mask": 0.5, "axis_dropout": 0.5}
    recipe = Recipe(preparation="box", frames=9, augment=augment)
    for random in (None, torch.Generator().manual_seed(seed)):
        ours = prepare(batch, recipe, NTU25, random)
        assert ours[:, :-1].abs().amax() <= 1 and ours.isfinite().all()
        assert not ours[:, :-1].movedim(1, -1)[ours[:, -1] == 0].any()


ANGLE = st.floats(-3.0, 3.0)
SHIFT = st.floats(-5.0, 5.0)


@given(
    angles=st.tuples(ANGLE, ANGLE, ANGLE),
    shift=st.tuples(SHIFT, SHIFT, SHIFT),
    seed=st.integers(0, 99),
)
def test_dgnn_s_preparation_does_not_see_rigid_motions(angles: Any, shift: Any, seed: int) -> None:
    batch = some_clips(seed)
    recipe = Recipe(preparation="dgnn", stream="joint+bone_motion", frames=10)
    one, two = (prepare(clips, recipe, NTU25) for clips in (batch, moved(batch, angles, shift)))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-8)
    assert one[:, 0].any()


@given(shift=st.tuples(SHIFT, SHIFT, SHIFT), size=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_a_box_sees_neither_translations_nor_sizes(shift: Any, size: float, seed: int) -> None:
    batch = some_clips(seed)
    recipe = Recipe(**{**PRESETS["nw_ucla_325"], "stream": "joint+bone"})
    other = moved(batch._replace(x=size * batch.x), (0.0, 0.0, 0.0), shift)
    for random in (None, 3):
        one, two = (
            prepare(clips, recipe, NTU25, random and torch.Generator().manual_seed(random))
            for clips in (batch, other)
        )
        torch.testing.assert_close(one, two, rtol=0, atol=1e-8)


@given(shift=st.tuples(SHIFT, SHIFT, SHIFT), seed=st.integers(0, 99))
def test_ctr_gcn_s_preparation_does_not_see_translations(shift: Any, seed: int) -> None:
    batch = some_clips(seed)
    recipe = Recipe(preparation="ctrgcn", stream="joint+bone", frames=10)
    one, two = (
        prepare(clips, recipe, NTU25) for clips in (batch, moved(batch, (0.0, 0.0, 0.0), shift))
    )
    torch.testing.assert_close(one, two, rtol=0, atol=1e-10)
    assert one[:, 0].any()


def test_lengths_are_kept_in_the_units_they_came_in() -> None:
    batch = some_clips(lost=0.0)
    for name in ("ctrgcn", "dgnn"):
        recipe = Recipe(preparation=name, frames=10)
        one, two = (prepare(batch._replace(x=size * batch.x), recipe, NTU25) for size in (1.0, 3.0))
        torch.testing.assert_close(3 * one[:, :-1], two[:, :-1])


# ---------------------------------------------------------------------------------------- its parts


@given(angles=st.tuples(ANGLE, ANGLE, ANGLE), seed=st.integers(0, 99))
def test_the_spine_is_along_z_and_the_shoulders_along_x(angles: Any, seed: int) -> None:
    """In the frame that the rotation is taken from; lengths and the order of the axes stay."""
    batch = moved(some_clips(seed), angles, (0.0, 0.0, 0.0))
    out = align_body(batch.x, NTU25, visibility=batch.visibility)
    torch.testing.assert_close(out.norm(dim=1), batch.x.norm(dim=1))
    for n in range(3):
        whole = batch.visibility[n][:, [0, 1, 4, 8], 0].all(1)
        assert whole.any()
        t = int(whole.int().argmax())
        base, spine, left, right = out[n, :, t, [0, 1, 4, 8], 0].T
        torch.testing.assert_close((spine - base)[:2], torch.zeros(2).double(), rtol=0, atol=1e-10)
        assert spine[2] > base[2] and right[0] > left[0]
        assert abs(right[1] - left[1]) < 1e-10
        raw = batch.x[n, :, t, [0, 1, 4], 0]
        turned = out[n, :, t, [0, 1, 4], 0]
        # No mirror image.
        torch.testing.assert_close(torch.linalg.det(raw), torch.linalg.det(turned))


def test_clips_without_a_whole_torso_stay_as_they_are() -> None:
    batch = some_clips(lost=0.0)
    unseen = batch.visibility.clone()
    unseen[0, :, 4, 0] = 0  # never the left shoulder
    unseen[1, :3, 8, 0] = 0  # the right one from frame 3 on
    masked = batch.x * unseen[:, None]
    out = align_body(masked, NTU25, visibility=unseen)
    assert torch.equal(out[0], masked[0]) and not torch.equal(out[1], masked[1])
    turn = torch.from_numpy(reference.upright(*batch.x[1, :, 3, [0, 1, 4, 8], 0].T.numpy()))
    torch.testing.assert_close(out[1], torch.einsum("ij,jtvm->itvm", turn, masked[1]))
    along = batch.x[:1].clone()
    # Shoulders along the spine.
    along[:, :, :, 8] = along[:, :, :, 4] + 2 * (along[:, :, :, 1] - along[:, :, :, 0])
    torch.testing.assert_close(align_body(along, NTU25), along, rtol=0, atol=0)
    assert torch.equal(align_body(torch.zeros(1, 3, 2, 25, 1), NTU25), torch.zeros(1, 3, 2, 25, 1))


def test_mixed_precision_leaves_positions_exact() -> None:
    x = some_clips(lost=0.0).x.float()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = align_body(x, NTU25)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, align_body(x, NTU25), rtol=0, atol=0)


def test_all_persons_are_measured_from_one() -> None:
    batch = some_clips()
    out = center(batch.x, 1, person=1, visibility=batch.visibility)
    seen = batch.visibility[0, :, 1, 1] > 0
    t = int(seen.int().argmax())
    for m in (0, 1):
        wanted = (batch.x[0, :, t, :, m] - batch.x[0, :, t, 1, 1][:, None]) * batch.visibility[
            0, t, :, m
        ]
        torch.testing.assert_close(out[0, :, t, :, m], wanted)
    torch.testing.assert_close(out[2], batch.x[2])  # that person was never there
    once = center(batch.x, 1, each_frame=False, person=1, visibility=batch.visibility)
    wanted = (batch.x[0] - batch.x[0, :, t, 1, 1][:, None, None, None]) * batch.visibility[0]
    torch.testing.assert_close(once[0], wanted)


@pytest.mark.parametrize("length", [1, 2, 40])
def test_tests_see_the_middle(length: int) -> None:
    ramp = torch.linspace(0, 1, length, dtype=torch.float64)
    x = ramp.view(1, 1, length, 1, 1).expand(1, 3, length, 3, 1)
    chain = SkeletonLayout.from_bones([(0, 1), (1, 2)])
    ones = torch.ones(1, length, 3, 1).double()
    none = torch.zeros(1, 1, length, 3).double()
    batch = Batch(x, torch.tensor([length]), torch.tensor([0]), ones, none)
    out = Augment(chain, test_crop=0.5, frames=3)(batch, None)
    wanted = [0.25, 0.5, 0.75] if length > 1 else [0.0] * 3
    torch.testing.assert_close(out.x[0, 0, :, 0, 0], torch.tensor(wanted).double())
    whole = Augment(chain, crop=1.0, test_crop=0.5, frames=3)(
        batch, torch.Generator().manual_seed(0)
    )
    # Training has its own crop.
    torch.testing.assert_close(whole.x, Augment(chain, frames=3)(batch, None).x)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (
            lambda: Augment(NTU25, test_crop=0.0, frames=3),
            "expected test_crop above 0 and at most 1, got 0.0",
        ),
        (
            lambda: Augment(NTU25, test_crop=0.9),
            "expected frames with crop, speed, mask, sampling or test_crop, got None",
        ),
        (
            lambda: center(torch.zeros(1, 3, 2, 25, 2), 1, person=2),
            "center: expected a person in 0..1, or None, got 2",
        ),
        (
            lambda: align_body(torch.zeros(1, 3, 2, 17, 1), COCO17),
            "align_body: expected a layout with the joints spine_",
        ),
        (
            lambda: align_body(torch.zeros(1, 2, 2, 25, 1), NTU25),
            r"expected x \(N, C=3, T, V=25, M\), got \(1, 2, 2, 25",
        ),
        (
            lambda: prepare(some_clips(joints=17), Recipe(preparation="ctrgcn"), COCO17),
            "expected a skeleton with the joint 'spine' for --preparation ctrgcn, got COCO17; "
            "take view or paper",
        ),
        (
            lambda: prepare(some_clips(joints=17), Recipe(preparation="dgnn"), COCO17),
            "expected a skeleton with the joint 'spine' for --preparation dgnn, got COCO17",
        ),
    ],
)
def test_what_is_refused(call: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        call()


@pytest.mark.parametrize("name", PREPARATIONS)
@pytest.mark.parametrize("stream", ["joint", "joint+bone"])
def test_every_preparation_gives_streams_and_a_visibility(name: str, stream: str) -> None:
    batch = some_clips()
    out = prepare(batch, Recipe(preparation=name, stream=stream, frames=11), NTU25)
    assert out.shape == (3, 3 * len(stream.split("+")) + 1, 11, 25, 2)
    assert out.isfinite().all() and set(out[:, -1].unique().tolist()) == {0, 1}
    if stream == "joint+bone":
        torch.testing.assert_close(
            out[:, 3:6], make_stream(out[:, :3], "bone", NTU25, visibility=out[:, -1])
        )


def test_pictures_show_the_frames_that_tests_see() -> None:
    one = Batch(*(part[:1] for part in some_clips(lost=0.0)))
    drawn, truth = to_draw(one, NTU25, Recipe(preparation="ctrgcn", frames=13))
    span = {"start": one.x.new_tensor([0.025]), "stop": one.x.new_tensor([0.975])}
    torch.testing.assert_close(drawn, resample_frames(one.x, one.lengths, 13, **span)[0])
    assert truth.shape == (2, 13, 25)
    drawn, _ = to_draw(one, NTU25, Recipe(preparation="box", frames=13))
    torch.testing.assert_close(drawn, one.x[0, :, [t * 8 // 12 for t in range(13)]])
    drawn, _ = to_draw(one, NTU25, Recipe(preparation="dgnn", frames=13))
    torch.testing.assert_close(drawn, repeat_frames(one.x, one.lengths, 13)[0])


@pytest.mark.filterwarnings("ignore")  # Lightning's
@pytest.mark.parametrize(
    ("preset", "widths", "preparation"),
    [("paper_fg_stformer", "66666666", "ctrgcn"), ("paper_bagcn", "666666666", "dgnn")],
)
def test_a_preset_of_the_paper_is_trained_and_read_back(
    preset: str, widths: str, preparation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # Lightning leaves them behind
        monkeypatch.setenv(name, "0")
    small = [
        "--clips",
        "16",
        "--batch",
        "8",
        "--frames",
        "16",
        "--epochs",
        "1",
        "--threads",
        "1",
        "--quiet",
    ]
    given = [
        "--preset",
        preset,
        "--model",
        preset.removeprefix("paper_"),
        "--network",
        f"widths={','.join(widths)}",
        *small,
    ]
    report = train.main([*given, "--out", str(tmp_path / "run")])
    assert report["recipe"]["preparation"] == preparation
    assert_kept(tmp_path / "run", ensemble.recognise([str(tmp_path / "run")])[0][0])


# ---------------------------------------------------------------------------------- other skeletons


@pytest.mark.parametrize("source", LAYOUTS)
def test_conversion_equals_the_slow_reference(source: str) -> None:
    """To every named layout, with joints that were not seen and confidences."""
    old = LAYOUTS[source]
    x = draw(2, 2, 3, old.num_joints, 2)
    seen = draw(2, 3, old.num_joints, 2, seed=1).sigmoid()
    seen[draw(2, 3, old.num_joints, 2, seed=2) > 1] = 0
    for new in LAYOUTS.values():
        ours, visible = convert_layout(x, old, new, visibility=seen)
        assert ours.shape == (2, 2, 3, new.num_joints, 2)
        assert visible.shape == (2, 3, new.num_joints, 2)
        for n in range(2):
            expected, known = reference.convert(
                x[n].numpy(), seen[n].numpy(), old.joints, new.joints
            )
            close(ours[n], expected)
            close(visible[n], known)


def test_a_conversion_by_hand() -> None:
    shoulders = SkeletonLayout.from_bones(
        [(0, 1)], joints=["left_shoulder", "right_shoulder"], name="shoulders"
    )
    yoke = SkeletonLayout.from_bones(
        [(0, 1), (1, 2), (2, 3)], joints=["head", "left_shoulder", "neck", "right_shoulder"]
    )
    x = torch.tensor([[1.0, 3.0], [5.0, 9.0]]).view(1, 1, 2, 2, 1)
    ours, seen = convert_layout(x, shoulders, yoke)
    assert ours.flatten().tolist() == [0, 1, 2, 3, 0, 5, 7, 9]
    assert seen.flatten().tolist() == [0, 1, 1, 1] * 2
    lost = torch.tensor([[1.0, 0.5], [0.0, 1.0]]).view(1, 2, 2, 1)
    ours, seen = convert_layout(x, shoulders, yoke, visibility=lost)
    assert ours.flatten().tolist() == [0, 1, 2, 3, 0, 0, 0, 9], "both shoulders make a neck"
    assert seen.flatten().tolist() == [0, 1, 0.75, 0.5, 0, 0, 0, 1]
    nose = SkeletonLayout.from_bones([], joints=["nose"], name="nose")
    for pair in ((shoulders, nose), (nose, shoulders)):
        with pytest.raises(
            ValueError,
            match=f"^convert_layout: expected layouts with joints in common, got '{pair[0].name}' "
            f"and '{pair[1].name}'$",
        ):
            convert_layout(torch.zeros(1, 2, 3, pair[0].num_joints, 1), *pair)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_converted_to_itself_is_the_same(name: str) -> None:
    layout = LAYOUTS[name]
    x = draw(2, 3, 2, layout.num_joints, 1)
    ours, seen = convert_layout(x, layout, layout)
    assert torch.equal(ours, x) and torch.equal(seen, torch.ones_like(x[:, 0]))


@given(st.permutations(range(20)), st.integers(0, 2))
def test_conversion_follows_the_names(order: list[int], lost: int) -> None:
    """Not the numbers; what was not seen changes only what is made of it."""
    place = {joint: number for number, joint in enumerate(order)}
    other = SkeletonLayout.from_bones(
        [(place[a], place[b]) for a, b in KINECT20.bones],
        joints=[KINECT20.joints[joint] for joint in order],
    )
    x = draw(1, 3, 2, 20, 1)
    ours, _ = convert_layout(x, KINECT20, other)
    assert torch.equal(ours, x[:, :, :, order])
    assert torch.equal(convert_layout(ours, other, KINECT20)[0], x)
    seen = torch.ones(1, 2, 20, 1)
    seen[:, :, lost] = 0
    x[:, :, :, lost] = torch.nan
    for new in (NTU25, COCO17, UTD20):
        ours, visible = convert_layout(x, KINECT20, new, visibility=seen)
        assert ours.isfinite().all() and not ours.movedim(1, -1)[visible == 0].any()


@pytest.mark.parametrize(
    ("source", "target", "missing"),
    [
        ("COCO17", "NTU25", "hand foot hand_tip thumb"),
        ("BODY25", "NTU25", "hand hand_tip thumb"),
        ("MEDIAPIPE33", "NTU25", "hand_tip"),
        ("HALPE26", "KINECT20", "hand"),
        ("H36M17", "COCO17", "eye ear"),
        ("AZURE_KINECT32", "NTU25", ""),
        ("AZURE_KINECT32", "COCO17", ""),
        ("NTU25", "KINECT20", ""),
        ("KINECT20", "NTU25", "hand_tip thumb"),
        ("UTD20", "KINECT20", ""),
        ("COCO17", "OPENPOSE18", ""),
        ("OPENPOSE18", "COCO17", ""),
        ("COCO17", "PENN13", ""),
        ("FLORENCE15", "UTD20", "hand foot"),
        ("PENN13", "H36M17", ""),
        ("COCO17", "H36M17", ""),
    ],
)
def test_what_is_missing_after_a_conversion(source: str, target: str, missing: str) -> None:
    old = LAYOUTS[source]
    new = LAYOUTS[target]
    _, seen = convert_layout(torch.ones(1, 2, 1, old.num_joints, 1), old, new)
    expected = {f"{side}_{joint}" for joint in missing.split() for side in ("left", "right")}
    assert {new.joints[v] for v in (seen.flatten() == 0).nonzero()} == expected
    assert set(seen.flatten().tolist()) <= {0.0, 1.0}


def test_converted_clips_have_the_bodys_size_and_sides() -> None:
    """Real skeletons are the same height, and left is left, in either layout."""
    batch = some_clips(joints=25, persons=1, lost=0.0)
    new, seen = convert_layout(batch.x, NTU25, KINECT20, visibility=batch.visibility)
    assert torch.equal(new, batch.x[:, :, :, :20] * seen[:, None]) and seen.shape[2] == 20
    back, seen = convert_layout(new, KINECT20, NTU25, visibility=seen)
    shoulders = batch.x[:, :, :, [4, 8]].mean(3) * batch.visibility[:, None, :, 4]
    torch.testing.assert_close(back[:, :, :, 20], shoulders)


def test_conversion_keeps_the_type_and_the_gradient() -> None:
    x = torch.randn(2, 2, 3, 17, 1, dtype=torch.float16)
    ours, seen = convert_layout(x, COCO17, NTU25, visibility=torch.ones(2, 3, 17, 1) > 0)
    assert ours.dtype == seen.dtype == torch.float16
    leaf = draw(1, 2, 2, 17, 1, grad=True)
    assert torch.autograd.gradcheck(lambda x: convert_layout(x, COCO17, NTU25)[0], leaf)
    empty, _ = convert_layout(torch.zeros(0, 2, 3, 17, 1), COCO17, NTU25)
    assert empty.shape == (0, 2, 3, 25, 1)
    with pytest.raises(ValueError, match=r"^convert_layout: expected x \(N, C, T, V=17, M\), got"):
        convert_layout(torch.zeros(1, 2, 3, 18, 1), COCO17, NTU25)
    with pytest.raises(
        ValueError, match=r"^convert_layout: expected visibility \(N=1, T=3, V=17, "
    ):
        convert_layout(torch.zeros(1, 2, 3, 17, 1), COCO17, NTU25, visibility=torch.ones(1, 3, 18))
