"""Random skeletons for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

Bones = list[tuple[int, int]]


@st.composite
def trees(draw: st.DrawFn, max_joints: int = 8) -> Bones:
    """Bones of a random tree: joint labels, bone order and bone directions are all arbitrary."""
    size = draw(st.integers(2, max_joints))
    label = draw(st.permutations(range(size)))
    bones = [(label[j], label[draw(st.integers(0, j - 1))]) for j in range(1, size)]
    return draw(shuffled(bones))


@st.composite
def graphs(draw: st.DrawFn, max_joints: int = 7) -> Bones:
    """Bones of a random connected graph, cycles included."""
    bones = draw(trees(max_joints))
    size = len(bones) + 1
    free = [
        (a, b) for a in range(size) for b in range(a) if (a, b) not in bones and (b, a) not in bones
    ]
    if free:
        bones = bones + draw(st.lists(st.sampled_from(free), unique=True, max_size=4))
    return draw(shuffled(bones))


@st.composite
def forests(draw: st.DrawFn, max_joints: int = 8) -> tuple[Bones, int]:
    """Bones of a tree of which some are lost, and the number of joints, some without a bone."""
    bones = draw(trees(max_joints))
    kept = draw(st.lists(st.sampled_from(bones), unique=True, max_size=len(bones)))
    return draw(shuffled(kept)), len(bones) + 1


@st.composite
def shuffled(draw: st.DrawFn, bones: Bones) -> Bones:
    """The same bones in another order, some of them turned round."""
    return [(b, a) if draw(st.booleans()) else (a, b) for a, b in draw(st.permutations(bones))]
