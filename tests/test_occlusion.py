"""Test hidden joints and frames, jitter, short clips: by plain loops, and after preparation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import reference_occlusion as reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_tools import draw
from recipe import PREPARATIONS, Recipe, prepare
from torch import Tensor

from skeleton_focus import (
    NTU25,
    Batch,
    SkeletonDataset,
    SkeletonLayout,
    SyntheticActions,
    body_height,
)
from skeleton_focus.layouts import LAYOUTS
from skeleton_focus.occlusion import (
    body_parts,
    drop_frames,
    hide_frames,
    hide_joints,
    hide_random_joints,
    jitter_joints,
    keep_beginning,
)
from skeleton_focus.preparation import BODY_AXES

CHAIN = SkeletonLayout.from_bones([(0, 1), (1, 2), (2, 3), (3, 4)], center=2, name="chain")
LENGTHS = (10, 7, 1, 4)
each_layout = pytest.mark.parametrize(
    "layout", list(LAYOUTS.values()), ids=lambda layout: layout.name
)


def some_batch(
    joints: int = 5, *, seed: int = 0, lost: float = 0.2, lengths: tuple[int, ...] = LENGTHS
) -> Batch:
    """Make two persons in float64, with confidences, and zeros where a joint was not seen.

    The last clip's second person is absent.
    """
    rng = np.random.default_rng(seed)
    n = len(lengths)
    t = max(lengths)
    seen = torch.from_numpy(
        rng.uniform(0.3, 1, (n, t, joints, 2)) * (rng.random((n, t, joints, 2)) >= lost)
    )
    for i, length in enumerate(lengths):
        seen[i, length:] = 0
    seen[-1, :, :, 1] = 0
    x = draw(n, 3, t, joints, 2, seed=seed) * (seen > 0)[:, None]
    truth = torch.from_numpy(rng.random((n, 2, t, joints)) > 0.5) * (seen.permute(0, 3, 1, 2) > 0)
    return Batch(x, torch.tensor(lengths), torch.arange(n), seen, truth.double())


def single(batch: Batch) -> Batch:
    """The batch in float32, as data sets hold it."""
    return Batch(*(part.float() if part.is_floating_point() else part for part in batch))


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def arrays(batch: Batch) -> reference.Clips:
    return batch.x.numpy(), batch.lengths.tolist(), batch.visibility.numpy(), batch.critical.numpy()


def same(ours: Batch, expected: reference.Clips) -> None:
    for one, two in zip(arrays(ours), expected, strict=True):
        np.testing.assert_array_equal(one, two)
    assert torch.equal(ours.label, torch.arange(len(ours.x)))


def equal(one: Batch, two: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


CHANGES: dict[str, Callable[[Batch], Batch]] = {
    "hide_joints": lambda batch: hide_joints(batch, (0, 2)),
    "hide_frames": lambda batch: hide_frames(batch, 0.3),
    "hide_random_joints": lambda batch: hide_random_joints(batch, 0.4, generator()),
    "jitter_joints": lambda batch: jitter_joints(
        batch, CHAIN, p=0.5, sigma=0.1, generator=generator()
    ),
    "keep_beginning": lambda batch: keep_beginning(batch, 0.6),
    "drop_frames": lambda batch: drop_frames(batch, 0.5, generator()),
}


# --------------------------------------------------------------------------------------- body parts


@pytest.mark.parametrize("name", ["NTU25", "NTU25_PYSKL"])
def test_the_parts_of_ntu_are_the_papers(name: str) -> None:
    parts = body_parts(LAYOUTS[name])
    assert {part: {j + 1 for j in joints} for part, joints in parts.items()} == reference.NTU_PARTS


@each_layout
def test_parts_are_what_the_joints_names_say(layout: SkeletonLayout) -> None:
    parts = body_parts(layout)
    assert parts == reference.parts_by_name(layout.joints)
    apart = [parts[part] for part in ("left_arm", "right_arm", "two_legs", "trunk")]
    assert sorted(joint for joints in apart for joint in joints) == list(range(layout.num_joints))
    mirrored = {layout.mirror[joint] for joint in parts["left_arm"]}
    assert mirrored == {*parts["right_arm"]}
    assert {*parts["two_hands"]} <= {*parts["left_arm"], *parts["right_arm"]}


def test_a_layout_without_the_parts_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"body_parts: expected a layout with the parts left_upper_arm, .*got 'chain' wi",
    ):
        body_parts(CHAIN)
    names = [*product(("left", "right"), ("upper_arm", "hand", "thigh", "foot"))]
    limbs = {f"{side}_{limb}": (i,) for i, (side, limb) in enumerate(names)}
    bones = [(i, i + 1) for i in range(7)]
    with pytest.raises(ValueError, match="outside its limbs, got 'spider'"):
        body_parts(SkeletonLayout.from_bones(bones, parts=limbs, name="spider"))
    del limbs["right_hand"]
    with pytest.raises(
        ValueError, match=r"got 'one hand' without right_hand; pass them to SkeletonLayout"
    ):
        body_parts(SkeletonLayout.from_bones(bones, parts=limbs, name="one hand"))


# ----------------------------------------------------------------------- against the slow reference


@each_layout
def test_hidden_parts_equal_the_slow_reference(layout: SkeletonLayout) -> None:
    batch = some_batch(layout.num_joints)
    for joints in body_parts(layout).values():
        expected = reference.hide(arrays(batch), lambda n, t, v, m, joints=joints: v in joints)
        same(hide_joints(batch, joints), expected)
    assert equal(hide_joints(batch, ()), batch)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.3, 0.5, 1.0])
def test_hidden_frames_equal_the_slow_reference(share: float) -> None:
    batch = some_batch()
    blocks = [reference.middle(length, share) for length in LENGTHS]
    same(
        hide_frames(batch, share), reference.hide(arrays(batch), lambda n, t, v, m: t in blocks[n])
    )


def test_hidden_frames_by_hand() -> None:
    batch = some_batch(lost=0)
    there = hide_frames(batch, 0.3).visibility[..., 0].any(2).int().tolist()
    assert there == [
        [1, 1, 1, 0, 0, 0, 1, 1, 1, 1],
        [1, 1, 0, 0, 1, 1, 1, 0, 0, 0],
        [1] + 9 * [0],
        [1, 0, 1, 1] + 6 * [0],
    ]


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_random_joints_equal_the_slow_reference(p: float) -> None:
    batch = some_batch()
    random = generator()
    again = generator()
    drawn = torch.rand(4, 10, 5, 2, generator=again).numpy()
    ours = hide_random_joints(batch, p, random)
    same(ours, reference.hide(arrays(batch), lambda n, t, v, m: drawn[n, t, v, m] < p))
    assert torch.equal(random.get_state(), again.get_state())


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_jitter_equals_the_slow_reference(p: float) -> None:
    batch = some_batch(lost=0.1)
    again = generator()
    chosen = torch.rand(4, 10, 5, 2, generator=again).numpy() < p
    noise = torch.randn(4, 3, 10, 5, 2, generator=again).double().numpy()
    ours = jitter_joints(batch, CHAIN, p=p, sigma=0.1, generator=generator())
    expected = reference.jitter(arrays(batch), chosen, noise, 0.1, CHAIN.path(*CHAIN.height))
    np.testing.assert_allclose(ours.x.numpy(), expected, rtol=0, atol=1e-12)
    assert equal(ours._replace(x=batch.x), batch)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.65, 1.0])
def test_beginnings_equal_the_slow_reference(share: float) -> None:
    batch = some_batch()
    kept = [list(range(max(int(np.floor(share * length + 0.5)), 1))) for length in LENGTHS]
    same(keep_beginning(batch, share), reference.play(arrays(batch), kept))


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_dropped_frames_equal_the_slow_reference(p: float) -> None:
    batch = some_batch()
    drawn = torch.rand(4, 10, generator=generator()).numpy()
    kept = []
    for n, length in enumerate(LENGTHS):
        frames = [t for t in range(length) if drawn[n, t] >= p]
        kept.append(frames or [max(range(length), key=lambda t, n=n: drawn[n, t])])
    same(drop_frames(batch, p, generator()), reference.play(arrays(batch), kept))


# --------------------------------------------------------------------------------------- properties


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_but_the_result_changes(change: str) -> None:
    batch = some_batch()
    before = [part.clone() for part in batch]
    state = torch.random.get_rng_state()
    ours = CHANGES[change](batch)
    assert all(torch.equal(a, b) for a, b in zip(before, batch, strict=True))
    assert torch.equal(torch.random.get_rng_state(), state), (
        "the global generator is neither read nor written"
    )
    assert equal(ours, CHANGES[change](batch)) and not torch.equal(ours.x, batch.x)
    assert not ours.x[(ours.visibility == 0)[:, None].expand_as(ours.x)].any()
    assert not ours.critical[(ours.visibility == 0).permute(0, 3, 1, 2)].any()
    assert int(ours.lengths.max()) == ours.x.shape[2] and int(ours.lengths.min()) >= 1
    assert [part.dtype for part in ours] == [part.dtype for part in batch]
    single = batch._replace(
        x=batch.x.float(), visibility=batch.visibility.float(), critical=batch.critical.float()
    )
    torch.testing.assert_close(CHANGES[change](single).x, ours.x.float())


@pytest.mark.parametrize("change", CHANGES)
def test_changed_clips_are_a_data_set_again(change: str) -> None:
    """Padding, zeros and lengths are those of collated clips."""
    ours = single(CHANGES[change](some_batch()))
    data = SkeletonDataset.from_batch(ours, CHAIN)
    assert equal(SkeletonDataset.collate([data[i] for i in range(len(data))]), ours)


@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_p_takes_more_of_the_same(seed: int, one: float, two: float) -> None:
    batch = some_batch(seed=seed)
    (few, many) = sorted((one, two))
    hidden = [hide_random_joints(batch, p, generator(seed)).visibility > 0 for p in (few, many)]
    assert not (hidden[1] & ~hidden[0]).any()
    rows = [drop_frames(batch, p, generator(seed)) for p in (few, many)]
    for n, length in enumerate(rows[1].lengths.tolist()):
        kept = [
            [frame.tolist() for frame in part.x[n].transpose(0, 1)[: part.lengths[n]]]
            for part in rows
        ]
        assert all(frame in kept[0] for frame in kept[1]) and length <= rows[0].lengths[n]


def test_what_is_drawn_has_its_share() -> None:
    batch = some_batch(lost=0, lengths=(300, 200))
    seen = batch.visibility > 0
    for p in (0.1, 0.5):
        left = (hide_random_joints(batch, p, generator()).visibility > 0).sum() / seen.sum()
        assert left.item() == pytest.approx(1 - p, abs=0.02)
        moved = jitter_joints(batch, CHAIN, p=p, sigma=0.1, generator=generator()).x - batch.x
        assert ((moved != 0).any(1).sum() / seen.sum()).item() == pytest.approx(p, abs=0.02)
        height = body_height(batch.x, CHAIN, visibility=batch.visibility)
        for n in range(2):
            spread = moved[n][moved[n] != 0].std() / height[n]
            assert spread.item() == pytest.approx(0.1, rel=0.05)
        lengths = drop_frames(batch, p, generator()).lengths
        assert (lengths / batch.lengths).tolist() == pytest.approx([1 - p] * 2, abs=0.08)


@given(st.floats(0.001, 1000))
def test_jitter_grows_with_the_body(size: float) -> None:
    """A clip in other units is jittered alike."""
    batch = some_batch(lost=0)
    options: dict[str, Any] = {"p": 0.5, "sigma": 0.1}
    ours = jitter_joints(batch, CHAIN, generator=generator(), **options).x
    larger = batch._replace(x=size * batch.x)
    other = jitter_joints(larger, CHAIN, generator=generator(), **options).x
    torch.testing.assert_close(other, size * ours)


def test_no_clips_stay_no_clips() -> None:
    empty = Batch(*(part[:0] for part in some_batch()))
    for change in ("hide_joints", "hide_frames", "hide_random_joints", "jitter_joints"):
        assert equal(CHANGES[change](empty), empty)


# ---------------------------------------------------------------------- as the preparation takes it


def prepared(batch: Batch, layout: SkeletonLayout, preparation: str) -> Tensor:
    streams = "joint+bone+joint_motion+bone_motion"
    return prepare(batch, Recipe(stream=streams, preparation=preparation, frames=12), layout)


PREPARED = [
    (layout, how)
    for layout in LAYOUTS.values()
    for how, what in PREPARATIONS.items()
    if what.origin is None or what.origin in layout.joints
    if not what.aligned or set(BODY_AXES) <= set(layout.joints)
]


@pytest.mark.parametrize(
    ("layout", "preparation"), PREPARED, ids=lambda one: getattr(one, "name", one)
)
def test_what_is_hidden_is_as_if_never_seen(layout: SkeletonLayout, preparation: str) -> None:
    """Hidden joints, even the centre and those of the height, are as in clips read without them."""
    batch = single(some_batch(layout.num_joints, lost=0.05))
    everything = {
        **body_parts(layout),
        "center": (layout.center,),
        "height": layout.path(*layout.height),
    }
    everything["all"] = tuple(range(layout.num_joints))
    for joints in everything.values():
        clips = []
        seen = []
        truth = []
        for n, length in enumerate(LENGTHS):
            visibility = batch.visibility[n, :length].clone()
            visibility[:, list(joints)] = 0
            clips.append(batch.x[n, :, :length] * (visibility > 0))
            seen.append(visibility)
            truth.append(batch.critical[n, :, :length] * (visibility > 0).permute(2, 0, 1))
        data = SkeletonDataset(clips, batch.label, layout, visibility=seen, critical=truth)
        read = SkeletonDataset.collate([data[i] for i in range(len(data))])
        hidden = hide_joints(batch, joints)
        assert equal(hidden, read)
        ours = prepared(hidden, layout, preparation)
        assert ours.isfinite().all()
        assert torch.equal(ours, prepared(read, layout, preparation))
        assert not ours[:, :, :, list(joints)].any(), "what was not seen stays at 0, in all streams"


@pytest.mark.parametrize(
    ("layout", "preparation"), PREPARED, ids=lambda one: getattr(one, "name", one)
)
def test_every_change_can_be_prepared(layout: SkeletonLayout, preparation: str) -> None:
    batch = some_batch(layout.num_joints)
    random = {"generator": generator()}
    changed = [
        *(hide_frames(batch, share) for share in (0.1, 0.5, 1.0)),
        *(hide_random_joints(batch, p, **random) for p in (0.5, 1.0)),
        jitter_joints(batch, layout, p=1.0, sigma=0.1, **random),
        *(keep_beginning(batch, share) for share in (0.01, 0.5)),
        *(drop_frames(batch, p, **random) for p in (0.5, 1.0)),
    ]
    for ours in changed:
        x = prepared(ours, layout, preparation)
        assert x.shape == (4, 13, 12, layout.num_joints, 2) and x.isfinite().all()


def test_the_truth_of_generated_actions_is_hidden_too() -> None:
    batch = SyntheticActions(frames=32).generate(18, seed=0)
    arm = list(body_parts(NTU25)["right_arm"])
    ours = hide_joints(batch, arm)
    assert batch.critical[..., arm].any() and not ours.critical[..., arm].any()
    others = [joint for joint in range(25) if joint not in arm]
    assert torch.equal(ours.critical[..., others], batch.critical[..., others])


# ------------------------------------------------------------------------------------------- errors

GOOD = some_batch()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (
            lambda: hide_joints(GOOD.x, (0,)),
            "hide_joints: expected a Batch, such as SkeletonDataset.collate returns, got T",
        ),
        (
            lambda: hide_joints(GOOD, "left_arm"),
            "hide_joints: expected joints as a sequence of indices, got 'left_arm'",
        ),
        (
            lambda: hide_joints(GOOD, ["left_arm"]),
            r"hide_joints: expected joints as a sequence of indices, got \['left_arm'\]; body",
        ),
        (
            lambda: hide_joints(GOOD, 3),
            "hide_joints: expected joints as a sequence of indices, got 3",
        ),
        (lambda: hide_joints(GOOD, (0, 5)), r"hide_joints: expected joints in 0..4, got \[0, 5\]"),
        (lambda: hide_joints(GOOD, (-1,)), r"hide_joints: expected joints in 0..4, got \[-1\]"),
        (lambda: hide_frames(GOOD, 1.1), "hide_frames: expected a share in 0..1, got 1.1"),
        (lambda: hide_frames(GOOD, float("nan")), "hide_frames: expected a share in 0..1, got nan"),
        (
            lambda: hide_frames(GOOD._replace(lengths=torch.tensor([10, 7, 1, 11])), 0.1),
            r"hide_frames: expected lengths in 1..10, got \[10, 7, 1, 11\]",
        ),
        (
            lambda: hide_frames(GOOD._replace(visibility=GOOD.visibility[:, :9]), 0.1),
            r"hide_frames: expected visibility \(N=4, T=10, V=5, M=2\), got \(4, 9, 5, 2\)",
        ),
        (
            lambda: hide_frames(GOOD._replace(critical=GOOD.visibility), 0.1),
            r"hide_frames: expected critical \(N=4, M=2, T=10, V=5\), got \(4, 10, 5, 2\)",
        ),
        (
            lambda: hide_random_joints(GOOD, -0.1, generator()),
            "hide_random_joints: expected a probability p in 0..1, go",
        ),
        (
            lambda: hide_random_joints(GOOD, 0.1, None),
            "hide_random_joints: expected a torch.Generator, such as .*NoneT",
        ),
        (
            lambda: jitter_joints(GOOD, NTU25, p=0.1, sigma=0.1, generator=generator()),
            r"jitter_joints: expected x \(N, C, T, V=25, M\), got \(4, 3, 10, 5, 2\)",
        ),
        (
            lambda: jitter_joints(GOOD, CHAIN, p=0.1, sigma=-1, generator=generator()),
            "jitter_joints: expected sigma of at least 0, got -1",
        ),
        (
            lambda: jitter_joints(GOOD, CHAIN, p=2, sigma=0.1, generator=generator()),
            "jitter_joints: expected a probability p in 0..1, got 2",
        ),
        (
            lambda: keep_beginning(GOOD, 0),
            "keep_beginning: expected a share above 0 and at most 1, got 0",
        ),
        (
            lambda: drop_frames(GOOD, 1.5, generator()),
            "drop_frames: expected a probability p in 0..1, got 1.5",
        ),
    ],
)
def test_what_is_refused(call: Callable[[], Any], error: str) -> None:
    with pytest.raises(ValueError, match="^" + error):
        call()


def test_a_mask_of_joints_hides_those() -> None:
    """allowed_joints gives such masks; as numbers they would be joints 0 and 1."""
    batch = SyntheticActions(frames=16, missing=0.0).generate(2, seed=0)
    mask = torch.zeros(25, dtype=torch.bool)
    mask[[7, 11]] = True
    by_mask = hide_joints(batch, mask)
    for other in ([7, 11], (np.int64(7), np.int64(11)), torch.tensor([7, 11]), mask.tolist()):
        assert torch.equal(by_mask.visibility, hide_joints(batch, other).visibility)
    assert torch.equal(hide_joints(batch, ()).x, batch.x)
    with pytest.raises(ValueError, match=r"hide_joints: expected integer joints, or a mask \(V,\)"):
        hide_joints(batch, [2.9])
    with pytest.raises(ValueError, match=r"hide_joints: expected the mask \(V=25\), got \(24,\)"):
        hide_joints(batch, mask[1:])
