"""Recognise clips: the class of each, its probability, the joints and frames of highest focus.

    python examples/predict.py RUN CLIPS                      # any format, with or without labels
    python examples/predict.py RUN CLIPS --layout COCO17      # for another skeleton than RUN's
    python examples/predict.py RUN CLIPS --json               # one JSON object for each clip
    python examples/predict.py RUN CLIPS --picture pictures   # a film strip of the focus for each
    python examples/predict.py RUN LONG --window 60           # the class over time, by 60 frames

RUN is a folder of train.py, or a network of weights/ such as nw_ucla/stf_gcn/joint. CLIPS are one
or several paths. Clips of another skeleton are converted to the run's. From Python:

    from skeleton_focus import load_pretrained
    answers = load_pretrained("runs/mine").recognise("clips")
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from errors import run
from recipe import PREPARATIONS, Recipe, prepare, sampling_in_time
from results import load_run
from torch import Tensor

from skeleton_focus import (
    Augment,
    Batch,
    Pretrained,
    SkeletonDataset,
    SkeletonLayout,
    open_clips,
)
from skeleton_focus.clips import Clip
from skeleton_focus.preparation import repeat_frames, resample_frames
from skeleton_focus.pretrained import Answer


class Window(NamedTuple):
    """Frames of a clip, in the network's skeleton."""

    clip: Clip
    name: str
    start: int


def answers(
    trained: Pretrained, clips: SkeletonDataset, *, window: int = 0, step: int = 0, batch: int = 32
) -> Iterator[Answer]:
    """Yield an answer for each clip or, with ``window``, for each window of so many frames.

    Windows begin every ``step`` frames, by default a quarter of a window.
    """
    if min(window, step) < 0 or batch < 1:
        raise ValueError(
            "expected window and step of at least 0 frames and a batch of at least 1, got "
            f"{window}, {step} and {batch}"
        )
    if step and not window:
        raise ValueError("expected a step with a window, got no window")
    clips = suited(trained, clips)
    waiting: list[Window] = []
    for i in range(len(clips)):
        waiting += windows(clips[i], clips.names[i], window, step or max(window // 4, 1))
        while len(waiting) >= batch:
            yield from _answers(trained, clips, waiting[:batch])
            waiting = waiting[batch:]
    if waiting:
        yield from _answers(trained, clips, waiting)


def suited(trained: Pretrained, clips: SkeletonDataset) -> SkeletonDataset:
    """Convert clips to the skeleton and the number of bodies that the network takes."""
    channels = clips[0].x.shape[0]
    if channels != trained.channels:
        raise ValueError(
            f"expected clips of {trained.channels} coordinates, as in training, got {channels}; "
            "joints in pictures and joints in 3D need networks of their own"
        )
    joints = clips.layout.num_joints
    if (
        clips.layout_assumed
        and clips.layout != trained.clips_layout
        and joints == trained.clips_layout.num_joints
    ):
        raise ValueError(
            f"expected clips whose skeleton is known, got {clips.layout.name}, guessed from "
            f"{joints} joints, for a network of {trained.clips_layout.name}; name the layout"
        )
    return clips.with_layout(trained.layout).with_persons(trained.persons)


def windows(clip: Clip, name: str, window: int, step: int) -> list[Window]:
    """Cut a clip into windows; the last one ends with the clip. Without a window, take it whole."""
    length = clip.x.shape[1]
    if not window or length <= window:
        return [Window(clip, name, 0)]
    starts = [*range(0, length - window, step), length - window]
    return [Window(cut(clip, start, start + window), name, start) for start in starts]


def cut(clip: Clip, start: int, stop: int) -> Clip:
    return clip._replace(
        x=clip.x[:, start:stop],
        visibility=clip.visibility[start:stop],
        critical=clip.critical[:, start:stop],
    )


def _answers(trained: Pretrained, clips: SkeletonDataset, parts: list[Window]) -> Iterator[Answer]:
    batch = SkeletonDataset.collate([part.clip for part in parts])
    inputs = prepare(batch, trained.recipe, trained.layout).to(next(trained.model.parameters()))
    focus, logits = (out.cpu() for out in trained.objective.explain(inputs))
    for i, part in enumerate(parts):
        p, order = logits[i].detach().softmax(0).sort(descending=True, stable=True)
        ranked = [
            (trained.classes[k], p_k) for k, p_k in zip(order.tolist(), p.tolist(), strict=True)
        ]
        label = part.clip.label
        length = int(batch.lengths[i])
        first, last = frames_of(focus[i], trained.recipe, length)
        yield Answer(
            clip=part.name,
            window=(part.start, part.start + length - 1),
            label=ranked[0][0],
            probability=ranked[0][1],
            ranked=ranked,
            truth=clips.classes[label] if label >= 0 else None,
            joints=joints_of(focus[i], trained.layout),
            frames=(part.start + first, part.start + last),
            focus=focus[i],
            x=to_draw(SkeletonDataset.collate([part.clip]), trained.layout, trained.recipe)[0],
        )


def joints_of(focus: Tensor, layout: SkeletonLayout, count: int = 3) -> list[str]:
    """Name the joints with the highest focus (M, T, V), with the person if there are several."""
    over_joints = focus.mean(1).flatten()  # (M V)
    chosen = [i for i in over_joints.argsort(descending=True)[:count].tolist() if over_joints[i]]
    several = focus.any(2).any(1).sum() > 1
    names = []
    for i in chosen:
        person, joint = divmod(i, layout.num_joints)
        names.append(layout.joints[joint] + (f" of person {person + 1}" if several else ""))
    return names


def frames_of(focus: Tensor, recipe: Recipe, length: int) -> tuple[int, int]:
    """Find the clip's frames around the peak of the focus (M, T, V), down to half the peak."""
    over_time = focus.mean((0, 2))
    how = PREPARATIONS[recipe.preparation]
    frames = torch.arange(length)
    if how.repeats:  # prepared frame t shows frame t modulo the length
        shown = frames[: len(over_time)]
    elif sampling_in_time(recipe)["sampling"] == "random":  # the nearest of the frames taken
        taken = torch.tensor(frames_shown(recipe, length))
        shown = (frames[:, None] - taken).abs().argmin(1)
    else:
        relative = (frames / max(length - 1, 1) - 0.5) / how.test_crop + 0.5
        shown = (relative * (len(over_time) - 1)).round().long().clamp(0, len(over_time) - 1)
    return around_peak(over_time[shown])


def around_peak(values: Tensor) -> tuple[int, int]:
    """The first and the last index around the largest value, down to half of it."""
    low = (values < values.max() / 2).nonzero().flatten().tolist()
    peak = int(values.argmax())
    first = max((t for t in low if t < peak), default=-1) + 1
    last = min((t for t in low if t > peak), default=len(values)) - 1
    return first, last


def to_draw(batch: Batch, layout: SkeletonLayout, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return positions (C, T, V, M) and ground truth (M, T, V) of one clip, at its input's frames.

    Stretched to that many frames, or repeated, as the recipe's preparation has it.
    """
    how = PREPARATIONS[recipe.preparation]
    if how.repeats:
        truth = repeat_frames(
            batch.critical.permute(0, 2, 3, 1)[:, None], batch.lengths, recipe.frames
        )
        return repeat_frames(batch.x, batch.lengths, recipe.frames)[0], truth[0, 0].permute(2, 0, 1)
    drawn = Augment(layout, **sampling_in_time(recipe))(batch, None)
    return drawn.x[0], drawn.critical[0]


def frames_shown(recipe: Recipe, length: int) -> list[int]:
    """Number the frames of the network's input by those of the clip that they show."""
    how = PREPARATIONS[recipe.preparation]
    if how.repeats:
        return (torch.arange(recipe.frames) % length).tolist()
    # Resample the numbers of the frames as the frames themselves.
    numbers = torch.arange(length, dtype=torch.float64).view(1, 1, -1, 1, 1)
    shown = resample_frames(
        numbers,
        torch.tensor([length]),
        recipe.frames,
        start=torch.tensor([0.5 - how.test_crop / 2]),
        stop=torch.tensor([0.5 + how.test_crop / 2]),
        interpolate=sampling_in_time(recipe)["sampling"] != "random",
    )
    return shown.flatten().round().long().tolist()


def as_line(answer: Answer, *, window: bool, top: int) -> str:
    """One line for people."""
    first, last = answer.frames
    names = ", ".join(f"{name} {p:.1%}" for name, p in answer.ranked[:top])
    where = f" frames {answer.window[0]}-{answer.window[1]}" if window else ""
    truth = ""
    if answer.truth is not None:
        truth = " (right)" if answer.truth == answer.label else f" (labelled {answer.truth})"
    joints = ", ".join(answer.joints) or "none"
    return f"{answer.clip}{where}: {names}{truth}; joints: {joints}; frames {first}-{last}"


def as_json(answer: Answer, top: int) -> str:
    """One line for programs."""
    return json.dumps(
        {
            "clip": answer.clip,
            "window": answer.window,
            "label": answer.label,
            "probability": round(answer.probability, 6),
            "ranked": [[name, round(p, 6)] for name, p in answer.ranked[:top]],
            "truth": answer.truth,
            "joints": answer.joints,
            "frames": answer.frames,
        }
    )


def draw(found: list[Answer], trained: Pretrained, folder: Path, *, window: bool) -> list[Path]:
    """Draw a film strip of each clip's focus or, with windows, the class over time."""
    from matplotlib import pyplot

    from skeleton_focus.plot import plot_film_strip

    folder.mkdir(parents=True, exist_ok=True)
    # Clips of several files may have the same name, but each begins with its first frame.
    of_clip: list[list[Answer]] = []
    for answer in found:
        if answer.window[0] == 0:
            of_clip.append([])
        of_clip[-1].append(answer)
    written: list[Path] = []
    for parts in of_clip:
        if window:
            figure = draw_over_time(parts, trained.classes)
        else:
            title = f"{parts[0].label}, {parts[0].probability:.0%}"
            present = parts[0].x.flatten(0, 2).any(0)  # (M,)
            first, last = parts[0].window
            figure = plot_film_strip(
                parts[0].x[..., present],
                parts[0].focus[present],
                trained.layout,
                title=title,
                numbers=frames_shown(trained.recipe, last - first + 1),
            )
        name = parts[0].clip.replace("/", "-")
        others = itertools.count(2)
        target = folder / f"{name}.png"
        while target in written:
            target = folder / f"{name}-{next(others)}.png"
        written.append(target)
        figure.savefig(target)
        pyplot.close(figure)
    return written


def draw_over_time(parts: list[Answer], classes: list[str]) -> Any:
    """Draw the probability of each class that was ever first, over the frames of one clip."""
    from matplotlib import pyplot

    shown = sorted({part.label for part in parts}, key=classes.index)
    figure, axes = pyplot.subplots(figsize=(8, 0.4 * len(shown) + 1.2), layout="constrained")
    middles = [sum(part.window) / 2 for part in parts]
    edges = [(a + b) / 2 for a, b in itertools.pairwise(middles)]
    edges = [parts[0].window[0], *edges, parts[-1].window[1] + 1]
    p = [[dict(part.ranked)[label] for part in parts] for label in shown]
    mesh = axes.pcolormesh(edges, range(len(shown) + 1), p, vmin=0, vmax=1, cmap="viridis")
    axes.set_yticks([i + 0.5 for i in range(len(shown))], shown)
    axes.set_xlabel("frame")
    axes.invert_yaxis()
    figure.colorbar(mesh, label="probability")
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", help="folder of a run of train.py, or network of weights")
    add("clips", nargs="+", help="folders or files of clips, in any format that open_clips reads")
    add("--layout", help="name of the clips' skeleton, or a JSON file of it")
    add("--window", type=int, default=0, metavar="FRAMES", help="recognise windows of each clip")
    add("--step", type=int, default=0, help="frames between two windows; default: window / 4")
    add("--top", type=int, default=1, help="number of classes to print, the most probable first")
    add("--json", action="store_true", help="print one JSON object for each clip or window")
    add("--picture", metavar="FOLDER", help="also draw the focus, or the class over time")
    given = parser.parse_args(arguments)
    if given.top < 1:
        raise ValueError(f"expected --top of at least 1, got {given.top}")
    trained = load_run(given.run)
    found = []
    for path in given.clips:
        clips = open_clips(
            path,
            layout=given.layout,
            usual=trained.clips_layout,
            persons=trained.persons,
            on_error="skip",
            cache=False,
        )
        for answer in answers(trained, clips, window=given.window, step=given.step):
            line = as_line(answer, window=bool(given.window), top=given.top)
            print(as_json(answer, given.top) if given.json else line, flush=True)
            found.append(answer if given.picture else answer._replace(focus=None, x=None))
        if clips.layout != trained.layout:
            names = f"{clips.layout.name} are converted to {trained.layout.name}"
            print(f"note: the clips of {path} in {names}", file=sys.stderr)
    labelled = [answer for answer in found if answer.truth is not None]
    known = [answer for answer in labelled if answer.truth in trained.classes]
    if len(known) < len(labelled):
        print(
            f"note: {len(labelled) - len(known)} clips are of classes that {given.run} does not "
            f"know, such as {next(a.truth for a in labelled if a.truth not in trained.classes)!r}",
            file=sys.stderr,
        )
    if known and not given.json and not given.window:
        right = sum(answer.truth == answer.label for answer in known)
        print(f"top-1 {right / len(known):.2%} of {len(known)} labelled clips")
    if given.picture:
        written = draw(found, trained, Path(given.picture), window=bool(given.window))
        pictures = "1 picture" if len(written) == 1 else f"{len(written)} pictures"
        print(f"written: {pictures} in {given.picture}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
