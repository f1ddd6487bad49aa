"""Show where and when a trained network looks: pictures of its focus on one test clip.

    python examples/explain.py runs/mine                                    # generated clip: \
        ground truth outlined
    python examples/explain.py runs/mine --data PATH --clip a02_s10_e01_v03 --out pictures
    python examples/explain.py runs/mine --class "touch neck" --compare runs/plain
    python examples/explain.py runs/mine --curves 64                        # also deletion and \
        insertion, 64 clips

Writes into --out, by default the run's folder: focus.png (film strip), top_two.png (the same frames
for the two most probable classes, and for the other run), map.png (joint x frame) and focus.gif.
For the person with the most focus it also writes, with FG-STFormer, joints.png (the selected joints
and the parts they attend to); with BAGCN, latent.png (the joints that the last block connects to
the latent node); with STF's G_k, adjacency.png (A_k and G_k of the last graph convolution).
--curves adds curves.png, deletion and insertion over the test clips.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from bagcn import BAGCN
from fg_stformer import FGSTFormer
from loading import chosen_clips, clip_options, clips_of
from predict import around_peak, joints_of, to_draw
from recipe import Recipe, prepare
from results import load_run, output_folder
from torch import Tensor, nn
from train import run

from skeleton_focus import (
    SkeletonDataset,
    SkeletonLayout,
    STFAdjacency,
    STFGraphConv,
    STFObjective,
)
from skeleton_focus.feature_tap import FeatureTap
from skeleton_focus.focus import SCORES, resize_focus
from skeleton_focus.focus_diffusion import LatentNode
from skeleton_focus.focus_metrics import deletion_curve, insertion_curve
from skeleton_focus.plot import (
    animate_focus,
    plot_adjacency,
    plot_film_strip,
    plot_focus_comparison,
    plot_focus_map,
    plot_joint_attention,
    plot_latent_edges,
)
from skeleton_focus.plot_runs import plot_curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pick(name: str | None, data: SkeletonDataset, objective: STFObjective, recipe: Recipe) -> int:
    """Find a clip by name or number; by default the first recognised one that is not too easy."""
    if name in data.names:
        return data.names.index(name)
    if name is not None:
        if name.isdecimal() and int(name) < len(data):
            return int(name)
        raise ValueError(
            f"expected --clip to be a test clip's name or number in 0..{len(data) - 1}, "
            f"got {name!r}"
        )
    for start in range(0, len(data), 32):
        batch = SkeletonDataset.collate([data[i] for i in range(start, min(start + 32, len(data)))])
        with torch.no_grad():
            p, first = objective.model(prepare(batch, recipe, data.layout)).softmax(1).max(1)
        for i in ((first == batch.label) & (p < 0.9)).nonzero().flatten().tolist():
            return int(start + i)
    return 0


def tell(focus: Tensor, layout: SkeletonLayout) -> str:
    """Name the joints and the frames with the highest focus."""
    if not focus.any():
        return "nowhere: no joint and no frame speaks for it"
    joints = ", ".join(joints_of(focus, layout, 5))
    first, last = around_peak(focus.mean((0, 2)))
    return (
        f"most in joints: {joints}\nmost in frames: {first} to {last} of 0 to "
        f"{focus.shape[1] - 1}, as the network gets them"
    )


def draw_joint_attention(
    network: FGSTFormer,
    inputs: Tensor,
    drawn: Tensor,
    person: int,
    *,
    layout: SkeletonLayout,
    **options: Any,
) -> Figure:
    """Draw a person's selected joints and their attention to parts, in stage 2's first layer."""
    seen: dict[str, Any] = {}
    cross = network.stage2[0].cross
    handles = [
        network.select.register_forward_hook(lambda module, x, kept: seen.update(kept=kept)),
        cross.register_forward_pre_hook(lambda module, both: seen.update(maps=module.maps(*both))),
    ]
    with torch.no_grad():
        network(inputs)
    for handle in handles:
        handle.remove()
    _, joints, scores = (part[person] for part in seen["kept"])  # the clip's bodies are its rows
    to_parts = seen["maps"][0][person].mean(0)  # (H, T', K, P) -> (T', K, P)
    t = inputs.shape[2]
    step = math.prod(block[1].stride for block in network.stage1)
    held = (hold(part, step, t) for part in (joints, scores, to_parts))
    return plot_joint_attention(drawn[..., person], *held, layout=layout, **options)


def draw_latent_edges(
    network: BAGCN,
    inputs: Tensor,
    drawn: Tensor,
    person: int,
    *,
    layout: SkeletonLayout,
    **options: Any,
) -> Figure:
    """Draw a person's joints by their weight in the latent node of the last block."""
    name = f"blocks.{len(network.blocks) - 1}.spatial.focus"
    with torch.no_grad(), FeatureTap(network, [name]) as tap:
        network(inputs)
    t = inputs.shape[2]
    weights = cast(LatentNode, tap.output(name)).weights[person]
    # The last block strides after its focus.
    step = math.prod(block.stride for block in network.blocks[:-1])
    return plot_latent_edges(drawn[..., person], hold(weights, step, t), layout=layout, **options)


def draw_adjacency(
    network: nn.Module,
    inputs: Tensor,
    drawn: Tensor,
    person: int,
    *,
    layout: SkeletonLayout,
    frame: int,
    title: str,
) -> Figure:
    """Draw A_k and a person's G_k in the last STFGraphConv, on the body in one frame."""
    name = [name for name, module in network.named_modules() if isinstance(module, STFAdjacency)][
        -1
    ]
    with torch.no_grad(), FeatureTap(network, [name]) as tap:
        network(inputs)
    generated, _ = cast(tuple[Tensor, Tensor], tap.output(name))  # the clip's bodies are its rows
    conv = cast(STFGraphConv, network.get_submodule(name.rpartition(".")[0]))
    rows = {
        "A_k, fixed": conv.adjacency[: generated.shape[1]],
        "G_k, of this clip": generated[person],
    }
    return plot_adjacency(drawn[:, frame, :, person].T, rows, layout, title=title)


def draw_curves(
    objective: STFObjective, data: SkeletonDataset, recipe: Recipe, clips: int
) -> Figure:
    """Draw deletion and insertion curves of the focus and of a random order, over test clips."""
    chosen = torch.linspace(0, len(data) - 1, min(clips, len(data))).round().int().tolist()
    curves: dict[str, list[Tensor]] = {}
    random = torch.Generator().manual_seed(1)
    for start in range(0, len(chosen), 32):
        batch = SkeletonDataset.collate([data[i] for i in chosen[start : start + 32]])
        x = prepare(batch, recipe, data.layout)
        focus, _ = objective.explain(x)
        orders = {"focus": focus, "random": torch.rand(focus.shape, generator=random)}
        for curve, name in ((deletion_curve, "deletion"), (insertion_curve, "insertion")):
            for order, values in orders.items():
                curves.setdefault(f"{name}, {order}", []).append(curve(objective.model, x, values))
    title = "what the prediction becomes as entries are taken out, or put in"
    return plot_curves({name: torch.cat(parts) for name, parts in curves.items()}, title=title)


def hold(x: Tensor, step: int, frames: int) -> Tensor:
    """Repeat every step-th frame until the next: x (T', ...) -> (frames, ...)."""
    return x.repeat_interleave(step, 0)[:frames]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="folder of a run of train.py, or network of weights")
    clip_options(parser)
    parser.add_argument(
        "--clip",
        metavar="NAME",
        help="test clip by name or number; default: one recognised at p < 0.9",
    )
    parser.add_argument(
        "--class",
        dest="label",
        metavar="NAME",
        help="class to explain; default: the predicted class",
    )
    parser.add_argument(
        "--out",
        help="folder for the pictures; default: the run's, or this one for a network of weights",
    )
    parser.add_argument("--compare", metavar="RUN", help="also draw the focus of another run")
    parser.add_argument(
        "--score",
        choices=SCORES,
        help="class score whose gradient gives the focus; default: the run's",
    )
    parser.add_argument("--frames", type=int, default=8, help="frames in a film strip, default 8")
    parser.add_argument(
        "--curves",
        type=int,
        default=0,
        metavar="N",
        help="also draw deletion and insertion curves of N test clips",
    )
    given = parser.parse_args(arguments)

    objective, recipe, layout, classes, *_ = load_run(given.run)
    objective.score = given.score or objective.score
    if given.label is not None and given.label not in classes:
        raise ValueError(
            f"expected --class to be one of {', '.join(map(repr, classes))}, got {given.label!r}"
        )
    if not 1 <= given.frames <= recipe.frames:
        raise ValueError(f"expected --frames in 1..{recipe.frames}, got {given.frames}")
    if given.curves < 0:
        raise ValueError(f"expected --curves of at least 0 clips, got {given.curves}")
    data, _ = clips_of(given.run, recipe, layout, classes, **chosen_clips(given))

    number = pick(given.clip, data, objective, recipe)
    batch = SkeletonDataset.collate([data[number]])
    inputs = prepare(batch, recipe, layout)
    p = objective.explain(inputs)[1][0].softmax(0)
    ranked = p.argsort(descending=True, stable=True).tolist()
    chosen = classes.index(given.label) if given.label is not None else ranked[0]
    rival = next(label for label in ranked if label != chosen)
    drawn, truth = to_draw(batch, layout, recipe)
    present = drawn.flatten(0, 2).any(0)  # (M,), without the persons that are absent
    x = drawn[..., present]
    truth = truth[present]

    def explain(label: int) -> Tensor:
        return objective.explain(inputs, torch.tensor([label]))[0][0][present]

    names = {label: f"{classes[label]}, {p[label]:.0%}" for label in (chosen, rival)}
    focus = explain(chosen)
    rows = {names[chosen]: focus, names[rival]: explain(rival)}
    if given.compare is not None:
        other, others, same_layout, same_classes, *_ = load_run(given.compare)
        other.score = given.score or other.score
        if same_layout != layout or same_classes != classes:
            raise ValueError(
                "expected --compare with a run on the same skeleton and classes, got "
                f"{given.compare}"
            )
        theirs, logits = other.explain(prepare(batch, others, layout), torch.tensor([chosen]))
        title = f"{classes[chosen]}, {logits[0].softmax(0)[chosen]:.0%}, by {given.compare}"
        rows[title] = resize_focus(theirs, recipe.frames)[0][present]

    print(
        f"clip {data.names[number]} of class {classes[data.labels[number]]!r}; predicted:",
        ", ".join(f"{classes[label]} {p[label]:.1%}" for label in ranked[:3]),
    )
    print(f"the focus of {classes[chosen]!r}:\n{tell(focus, layout)}")
    out = Path(given.out if given.out is not None else output_folder(given.run))
    out.mkdir(parents=True, exist_ok=True)
    known = truth if truth.any() else None
    options = {"frames": given.frames, "truth": known}
    plot_film_strip(x, focus, layout, title=names[chosen], **options).savefig(out / "focus.png")
    plot_focus_comparison(x, rows, layout, **options).savefig(out / "top_two.png")
    plot_focus_map(focus, layout, truth=known, title=names[chosen]).savefig(out / "map.png")
    animate_focus(x, focus, layout, out / "focus.gif", title=names[chosen], truth=known)
    written = ["focus.png", "top_two.png", "map.png", "focus.gif"]
    network = objective.model
    person = int(focus.sum((1, 2)).argmax())  # of those present
    title = names[chosen] + (f", person {person + 1}" if len(focus) > 1 else "")
    of_person = (inputs, drawn, int(present.nonzero()[person]))
    options = {"layout": layout, "frames": min(given.frames, 4), "title": title}
    if (
        isinstance(network, FGSTFormer)
        and network.select is not None
        and network.stage2[0].cross is not None
    ):
        draw_joint_attention(network, *of_person, **options).savefig(out / "joints.png")
        written.append("joints.png")
    elif isinstance(network, FGSTFormer):
        print(
            "no joints.png: this network selects no joints, or has no attention between joints "
            "and parts"
        )
    elif isinstance(network, BAGCN) and recipe.network.get("focus", "attention") == "attention":
        draw_latent_edges(network, *of_person, **options).savefig(out / "latent.png")
        written.append("latent.png")
    elif isinstance(network, BAGCN):
        print("no latent.png: without attention all joints have equal weight")
    if any(isinstance(module, STFAdjacency) for module in network.modules()):
        seen = (x[..., person] != 0).any(0).sum(1)  # (T,), joints
        frame = int(torch.where(seen == seen.max(), focus[person].sum(1), -1.0).argmax())
        figure = draw_adjacency(
            network, *of_person, layout=layout, frame=frame, title=f"{title}, frame {frame}"
        )
        figure.savefig(out / "adjacency.png")
        written.append("adjacency.png")
    else:
        print("no adjacency.png: this network has no STFAdjacency")
    if given.curves:
        draw_curves(objective, data, recipe, given.curves).savefig(out / "curves.png")
        written.append("curves.png")
    print("written:", ", ".join(str(out / name) for name in written))


if __name__ == "__main__":
    run(main)
