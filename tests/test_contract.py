"""The contract that every layer keeps: one table of layers, and tests of each of its entries.

test_export.py exports the same table, and test_no_read.py runs it on a stand-in for a GPU.
"""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pytest
import torch
from layer_tools import filled, joined, parts
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.attention import SDPBackend, sdpa_kernel

import skeleton_focus
from skeleton_focus import (
    DilatedTemporalAttention,
    FocalJointSelection,
    FocusDiffusionBlock,
    GraphConv,
    JointPartAttention,
    MultiScaleG3D,
    MultiScaleGraphConv,
    MultiScaleTemporalConv,
    PartEncoding,
    ScatterToJoints,
    SkeletonLayout,
    SpatialAttention,
    STFAdjacency,
    STFGraphConv,
    TemporalContext,
    TemporalConv,
    directed_adjacency,
    multi_scale_adjacency,
    window_adjacency,
)
from skeleton_focus.focus_diffusion import AttentiveDiffusion, AttentiveFocus

BODY = SkeletonLayout.from_bones(
    [(0, 1), (1, 2), (1, 3), (3, 4)], center=1, parts={"arm": [0, 1], "leg": [2, 3, 4]}
)
A = multi_scale_adjacency(BODY, 3, dtype=torch.float64)
WINDOWS = window_adjacency(BODY, 3, 2, dtype=torch.float64)
OUT_AND_IN = [
    directed_adjacency(BODY, direction, dtype=torch.float64) for direction in ("outward", "inward")
]

# An axis is a size or a name: N clips, T frames, T/2 after a stride of 2, and the axes of FREE,
# whose size the layer takes from its input.
Shape = tuple[int | str, ...]
FREE = {"C": 6, "V": BODY.num_joints, "K": 3, "P": 2}


@dataclass(frozen=True)
class Case:
    """How to build a layer, the shapes of its inputs and outputs, and what does not hold for it."""

    build: Callable[[], nn.Module]
    inputs: Mapping[str, Shape]
    outputs: tuple[Shape, ...]
    errors_of: str = ""  # whom its errors name, by default the layer
    not_for: Mapping[str, str] = field(default_factory=dict)  # a property, and why it does not hold

    def draw(self, n: int, t: int) -> list[Tensor]:
        """Inputs of n clips and t frames, the same ones every time."""
        random = torch.Generator().manual_seed(0)
        given = []
        for name, axes in self.inputs.items():
            shape = sized(axes, n, t)
            if name == "slots of":
                order = torch.rand(n, t, BODY.num_joints, generator=random).argsort(2)
                given.append(order[..., : shape[2]].clone())
            else:
                given.append(torch.randn(shape, generator=random, dtype=torch.float64))
        return given


def sized(shape: Shape, n: int, t: int) -> tuple[int, ...]:
    """The shape for n clips and t frames."""
    sizes = {"N": n, "T": t, "T/2": (t + 1) // 2, **FREE}
    return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in shape)


def maps(channels: int, joints: int | str = "V") -> dict[str, Shape]:
    """One feature map."""
    return {"x": ("N", channels, "T", joints)}


SLOTS: dict[str, Shape] = {"x": ("N", 6, "T", "K"), "slots of": ("N", "T", "K")}
LSTM = {
    "empty batch": "PyTorch's LSTM takes no empty batch",
    "compile": "torch.compile breaks the graph at an LSTM",
}
ON_JOINTS = "N", 4, "T", 5
CASES: dict[str, Case] = {
    "graph, aggregated first": Case(
        lambda: GraphConv(2, 4, A, learn_adjacency=True, edge_importance=True),
        maps(2, 5),
        (ON_JOINTS,),
    ),
    "graph, mixed first": Case(
        lambda: GraphConv(4, 2, A, bias=False), maps(4, 5), (("N", 2, "T", 5),)
    ),
    "graph, many subsets": Case(
        lambda: GraphConv(4, 2, A.repeat(2, 1, 1)), maps(4, 5), (("N", 2, "T", 5),)
    ),
    "multi-scale graph": Case(lambda: MultiScaleGraphConv(2, 4, A), maps(2, 5), (ON_JOINTS,)),
    "windows, aggregated first": Case(
        lambda: MultiScaleG3D(2, 4, WINDOWS, 3, hidden_channels=8), maps(2, 5), (ON_JOINTS,)
    ),
    "windows, mixed first, stride": Case(
        lambda: MultiScaleG3D(6, 4, WINDOWS, 3, stride=2, hidden_channels=2),
        maps(6, 5),
        (("N", 4, "T/2", 5),),
    ),
    "stf adjacency": Case(
        lambda: STFAdjacency(4, 2, 5, hidden=2), maps(4, 5), (("N", 2, 5, 5), ("N", "T", 5))
    ),
    "stf graph, aggregated first": Case(
        lambda: STFGraphConv(2, 4, A, hidden=2), maps(2, 5), (ON_JOINTS,)
    ),
    "stf graph, mixed first": Case(
        lambda: STFGraphConv(4, 2, A, hidden=2), maps(4, 5), (("N", 2, "T", 5),)
    ),
    "stf graph, some subsets": Case(
        lambda: STFGraphConv(2, 4, A, learn_adjacency=True, generated=1, hidden=2),
        maps(2, 5),
        (ON_JOINTS,),
    ),
    "temporal": Case(lambda: TemporalConv(2, 4, stride=2), maps(2), (("N", 4, "T/2", "V"),)),
    "multi-scale temporal": Case(
        lambda: MultiScaleTemporalConv(2, 8, stride=2), maps(2), (("N", 8, "T/2", "V"),)
    ),
    "multi-scale temporal, no residual": Case(
        lambda: MultiScaleTemporalConv(2, 8, residual=False), maps(2), (("N", 8, "T", "V"),)
    ),
    "spatial attention": Case(lambda: SpatialAttention(6, 5), maps(6, 5), (("N", 6, "T", 5),)),
    "spatial attention of some joints": Case(
        lambda: SpatialAttention(6, 5), SLOTS, (("N", 6, "T", "K"),)
    ),
    "spatial attention, a map for each head": Case(
        lambda: SpatialAttention(6, 5, shared_map="per_head"), maps(6, 5), (("N", 6, "T", 5),)
    ),
    "spatial attention of some joints, a map for each head": Case(
        lambda: SpatialAttention(6, 5, shared_map="per_head"), SLOTS, (("N", 6, "T", "K"),)
    ),
    "joints and parts": Case(
        lambda: JointPartAttention(6, heads=2),
        {"joints": ("N", 6, "T", "K"), "parts": ("N", 6, "T", "P")},
        (("N", 6, "T", "K"), ("N", 6, "T", "P")),
    ),
    "temporal attention": Case(
        lambda: DilatedTemporalAttention(4, 4, kernel_size=3), maps(4), (("N", 4, "T", "V"),)
    ),
    "temporal attention, stride": Case(
        lambda: DilatedTemporalAttention(4, 6, kernel_size=3, stride=2),
        maps(4),
        (("N", 6, "T/2", "V"),),
    ),
    "temporal attention alone": Case(
        lambda: DilatedTemporalAttention(4, 4, convolution=False), maps(4), (("N", 4, "T", "V"),)
    ),
    "temporal attention without attention": Case(
        lambda: DilatedTemporalAttention(4, 4, attention=False), maps(4), (("N", 4, "T", "V"),)
    ),
    "focal joints": Case(
        lambda: FocalJointSelection(4, 3),
        maps(4),
        (("N", 4, "T", 3), ("N", "T", 3), ("N", "T", "V")),
    ),
    "focal joints by score": Case(
        lambda: FocalJointSelection(4, 3, gate="none", order="score"),
        maps(4),
        (("N", 4, "T", 3), ("N", "T", 3), ("N", "T", "V")),
    ),
    "scatter": Case(
        lambda: ScatterToJoints(5),
        {**SLOTS, "x": ("N", "C", "T", "K")},
        (("N", "C", "T", 5),),
        errors_of="scatter_to_joints",  # the function that the layer calls
        not_for={"no frames": "no slots are brought back as a map of no frames"},
    ),
    "parts": Case(lambda: PartEncoding(4, 6, BODY.parts.values()), maps(4), (("N", 6, "T", 2),)),
    "focus": Case(lambda: AttentiveFocus(4), maps(4), (("N", 4, "T", 1), ("N", "T", "V"))),
    "focus, softmax": Case(
        lambda: AttentiveFocus(4, normalize="softmax"),
        maps(4),
        (("N", 4, "T", 1), ("N", "T", "V")),
    ),
    "focus, mean": Case(
        lambda: AttentiveFocus(4, focus="mean"), maps(4), (("N", 4, "T", 1), ("N", "T", "V"))
    ),
    "focus, max": Case(
        lambda: AttentiveFocus(4, focus="max"), maps(4), (("N", 4, "T", 1), ("N", "T", "V"))
    ),
    "context": Case(
        lambda: TemporalContext(4, context_channels=6),
        maps(4),
        (("N", 6, "T", "V"),),
        not_for=LSTM,
    ),
    "context, forward": Case(
        lambda: TemporalContext(4, context_channels=6, direction="forward"),
        maps(4),
        (("N", 6, "T", "V"),),
        not_for=LSTM,
    ),
    "diffusion": Case(
        lambda: AttentiveDiffusion(4, 6),
        {"x": ("N", 4, "T", "V"), "context": ("N", 6, "T", 1), "weights": ("N", "T", "V")},
        (("N", 4, "T", "V"),),
    ),
    "block": Case(
        lambda: FocusDiffusionBlock(3, 8, *OUT_AND_IN, context_channels=6),
        maps(3, 5),
        (("N", 8, "T", 5),),
        not_for=LSTM,
    ),
    "block, forward": Case(
        lambda: FocusDiffusionBlock(3, 8, *OUT_AND_IN, context_channels=6, context="forward"),
        maps(3, 5),
        (("N", 8, "T", 5),),
        not_for=LSTM,
    ),
}
NO_LAYERS = {"STFLoss", "STFObjective", "Augment"}  # they train a network and do not run in it


def cases(what: str = "") -> pytest.MarkDecorator:
    """The names of all cases, or of those for which a property holds."""
    return pytest.mark.parametrize("name", [n for n, c in CASES.items() if what not in c.not_for])


def built(name: str, seed: int = 0) -> nn.Module:
    """The layer in float64 and evaluation, with random weights, statistics and buffers."""
    torch.manual_seed(seed)
    return filled(CASES[name].build(), seed, scale=0.6)


def cast(given: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The inputs in another dtype, but for numbers of joints."""
    return [x.to(dtype) if x.is_floating_point() else x for x in given]


def assert_equal(got: object, expected: object, tolerance: float = 1e-12) -> None:
    for one, other in zip(parts(got), parts(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def assert_near(got: object, expected: object, share: float) -> None:
    """What a lower precision may change, as a share of all numbers together."""
    for one, other in zip(parts(got), parts(expected), strict=True):
        if one.is_floating_point():
            assert (one.double() - other).norm() <= share * other.norm()
        else:
            assert torch.equal(one, other)


def test_the_table_holds_every_layer() -> None:
    public = {name: getattr(skeleton_focus, name) for name in skeleton_focus.__all__}
    modules = {
        name
        for name, thing in public.items()
        if inspect.isclass(thing) and issubclass(thing, nn.Module)
    }
    found = {type(case.build()).__name__ for case in CASES.values()}
    assert found == modules - NO_LAYERS | {"AttentiveFocus", "AttentiveDiffusion"}


@cases()
def test_output_shape(name: str) -> None:
    case = CASES[name]
    layer = built(name)
    for n, t in [(2, 1), (1, 2), (3, 7)]:
        got = [tuple(part.shape) for part in parts(layer(*case.draw(n, t)))]
        assert got == [sized(shape, n, t) for shape in case.outputs]
    got = [tuple(part.shape) for part in parts(layer.train()(*case.draw(3, 7)))]
    assert got == [sized(shape, 3, 7) for shape in case.outputs]


@pytest.mark.parametrize(
    ("dtype", "share"),
    [(torch.float64, 0), (torch.float32, 1e-6), (torch.bfloat16, 0.03), (torch.float16, 0.03)],
)
@cases()
def test_dtype_follows_the_input(name: str, dtype: torch.dtype, share: float) -> None:
    layer = built(name)
    given = CASES[name].draw(2, 5)
    expected = layer(*given)
    low = copy.deepcopy(layer).to(dtype)(*cast(given, dtype))
    assert all(part.dtype == dtype for part in parts(low) if part.is_floating_point())
    assert_near(low, expected, share)


@cases()
def test_autocast(name: str) -> None:
    layer = built(name)
    given = CASES[name].draw(2, 5)
    expected = layer(*given)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer.float()(*cast(given, torch.float32))
    assert_near(low, expected, 0.03)


def other_layouts(x: Tensor) -> list[Tensor]:
    """The same numbers in other places of the memory."""
    apart = torch.stack([x, x], dim=-1)[..., 0]
    turned = x.transpose(-1, -2).contiguous().transpose(-1, -2)
    if x.dim() != 4:
        return [turned, turned, apart]
    return [x.contiguous(memory_format=torch.channels_last), turned, apart]


@cases()
def test_memory_format_does_not_matter(name: str) -> None:
    """Neither that of the input nor that of the gradient which comes back."""
    layer = built(name)
    given = CASES[name].draw(2, 5)

    def run(given: list[Tensor], which: int | None) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        wanted = [x.detach().requires_grad_() for x in given if x.is_floating_point()]
        rest = iter(wanted)
        output = parts(layer(*(next(rest) if x.is_floating_point() else x for x in given)))
        output = [part for part in output if part.requires_grad]
        back = [part.detach().cos() for part in output]
        if which is not None:
            back = [other_layouts(g)[which] for g in back]
        return output, torch.autograd.grad(output, wanted, back)

    expected, expected_gradients = run(given, None)
    for which in range(3):
        got, gradients = run([other_layouts(x)[which] for x in given], which)
        assert_equal(got, expected)
        assert_equal(gradients, expected_gradients)


@cases("empty batch")
def test_an_empty_batch(name: str) -> None:
    case = CASES[name]
    layer = built(name)
    given = case.draw(0, 3)
    for x in given:
        x.requires_grad_(x.is_floating_point())
    output = parts(layer(*given))
    assert [tuple(part.shape) for part in output] == [sized(axes, 0, 3) for axes in case.outputs]
    joined(output).sum().backward()
    assert all(x.grad.shape == x.shape for x in given if x.is_floating_point())
    assert not any(p.grad.any() for p in layer.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if "empty batch" in case.not_for]
)
def test_an_empty_batch_is_refused(name: str) -> None:
    layer = built(name)
    error = f"^{type(layer).__name__}: expected x with at least 1 clip"
    with pytest.raises(ValueError, match=error):
        layer(*CASES[name].draw(0, 3))


@cases()
def test_copies_give_the_same_output(name: str) -> None:
    layer = built(name)
    given = CASES[name].draw(2, 5)
    expected = layer(*given)
    other = built(name, seed=1)
    if layer.state_dict():
        assert not torch.equal(joined(other(*given)), joined(expected))
    other.load_state_dict(layer.state_dict())
    copies = (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)))
    with torch.no_grad():  # a copy shares no memory with the layer
        for value in layer.state_dict().values():
            value.zero_()
    for copied in copies:
        assert_equal(copied(*given), expected, tolerance=0)


@cases()
def test_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    layer = built(name)
    given = CASES[name].draw(4, 5)
    whole = parts(layer(*given))
    for n in range(4):
        alone = layer(*(x[n : n + 1] for x in given))
        assert_equal(alone, [part[n : n + 1] for part in whole])


def stored(layer: nn.Module) -> dict[str, set[str]]:
    """The names of all that a layer and its parts hold."""
    return {name: {*vars(m), *m._buffers} for name, m in layer.named_modules()}


@cases()
def test_forward_changes_nothing(name: str) -> None:
    layer = built(name)
    given = CASES[name].draw(2, 5)
    kept = [x.clone() for x in given]
    state = copy.deepcopy(layer.state_dict())
    before = stored(layer)
    layer(*given)
    assert all(torch.equal(value, state[part]) for part, value in layer.state_dict().items())
    layer.train()(*given)
    assert all(torch.equal(x, before) for x, before in zip(given, kept, strict=True))
    assert stored(layer) == before


@cases()
def test_device_follows_the_input(name: str) -> None:
    """On the one device besides the CPU that needs no driver."""
    case = CASES[name]
    layer = case.build().double().to("meta")
    output = parts(layer(*(x.to("meta") for x in case.draw(2, 5))))
    assert [tuple(part.shape) for part in output] == [sized(axes, 2, 5) for axes in case.outputs]
    assert {part.device.type for part in output} == {"meta"}


def assert_the_same_on(device: str, name: str) -> None:
    """Outputs and all gradients, in float64, in training where that differs."""
    results = []
    for there in ("cpu", device):
        layer = built(name).train(has_norm(CASES[name])).to(there)
        given = [x.to(there) for x in CASES[name].draw(2, 5)]
        wanted = [x.requires_grad_() for x in given if x.is_floating_point()]
        output = layer(*given)
        joined(output).square().mean().backward()
        assert {part.device.type for part in parts(output)} == {there}
        found = [x.grad for x in [*wanted, *layer.parameters()] if x.grad is not None]
        results.append([part.cpu() for part in (*parts(output), *found)])
    assert_equal(results[1], results[0], 1e-10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@cases()
def test_a_gpu_computes_the_same(name: str) -> None:
    assert_the_same_on("cuda", name)


def has_norm(case: Case) -> bool:
    """Whether training and evaluation are two functions."""
    return any(isinstance(module, nn.BatchNorm2d) for module in case.build().modules())


@pytest.mark.parametrize(
    ("name", "training"),
    [(name, False) for name in CASES]
    + [(name, True) for name, case in CASES.items() if has_norm(case)],
)
def test_gradients_of_first_and_second_order(name: str, training: bool) -> None:
    layer = built(name).train(training)
    given = CASES[name].draw(2, 3)
    wanted = [x.requires_grad_() for x in given if x.is_floating_point()]

    def of_inputs(*floating: Tensor) -> Tensor:
        rest = iter(floating)
        return joined(layer(*(next(rest) if x.is_floating_point() else x for x in given)))

    assert gradcheck(of_inputs, wanted)
    with sdpa_kernel(SDPBackend.MATH):  # no fused attention is differentiated twice
        assert gradgradcheck(of_inputs, wanted, fast_mode=True)

    names = [name for name, _ in layer.named_parameters()]
    fixed = tuple(x.detach() for x in given)

    def of_parameters(*values: Tensor) -> Tensor:
        return joined(
            torch.func.functional_call(layer, dict(zip(names, values, strict=True)), fixed)
        )

    if names:
        parameters = [p.detach().clone().requires_grad_() for p in layer.parameters()]
        assert gradcheck(of_parameters, parameters, fast_mode=True)


def wrong_shapes(case: Case) -> Iterator[list[tuple[int, ...]]]:
    """The right shapes but for one axis that the layer or another input fixes, lacks or adds."""
    right = [sized(axes, 2, 3) for axes in case.inputs.values()]
    fixed: set[int | str] = set()
    for i, axes in enumerate(case.inputs.values()):
        shape = right[i]
        wrong = [shape[:-1], (*shape, 1)]
        for j, axis in enumerate(axes):
            if isinstance(axis, int) or axis in fixed:
                wrong.append((*shape[:j], shape[j] + 1, *shape[j + 1 :]))
        fixed |= set(axes)
        for other in wrong:
            yield [*right[:i], other, *right[i + 1 :]]
    if "no frames" not in case.not_for:
        yield [sized(axes, 2, 0) for axes in case.inputs.values()]


@cases()
def test_wrong_shapes_are_refused_by_name(name: str) -> None:
    case = CASES[name]
    layer = case.build()
    who = case.errors_of or type(layer).__name__
    dtypes = [x.dtype if x.dtype == torch.int64 else torch.float64 for x in case.draw(1, 1)]
    for shapes in wrong_shapes(case):
        given = [torch.zeros(s, dtype=d) for s, d in zip(shapes, dtypes, strict=True)]
        with pytest.raises(ValueError, match=rf"^{re.escape(who)}: expected .*, got "):
            layer.double()(*given)


@pytest.mark.no_cover  # a tracer doubles the time of torch's own tracing
@cases("compile")
def test_compiled_as_one_graph(name: str) -> None:
    torch._dynamo.reset()
    layer = built(name)
    given = CASES[name].draw(2, 5)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    results = []
    for run in (layer, compiled):
        wanted = [x.clone().requires_grad_(x.is_floating_point()) for x in given]
        output = run(*wanted)
        joined(output).square().sum().backward()
        gradients = [p.grad for p in layer.parameters() if p.grad is not None]
        results.append([*parts(output), *(x.grad for x in wanted if x.grad is not None)])
        results[-1] += [g.clone() for g in gradients]
        layer.zero_grad()
    assert_equal(results[1], results[0])
