"""A typical ST-GCN, trained with the STF losses by three added lines, each marked "added".

    python examples/your_backbone.py                # generated actions
    python examples/your_backbone.py --data PATH    # your clips, in any format of the package
    python examples/your_backbone.py --plain        # the same training with cross-entropy alone

The network and the training loop are plain PyTorch: replace them with your own.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import skeleton_focus as sf  # for the data
from skeleton_focus import STFLoss, STFObjective  # added, line 1


class Block(nn.Module):
    """Graph convolution over K neighbour sets, then a temporal one; a residual around both."""

    def __init__(self, in_channels: int, out_channels: int, A: Tensor, stride: int = 1) -> None:
        super().__init__()
        self.register_buffer("A", A)  # (K, V, V)
        self.graph = nn.Conv2d(in_channels, len(A) * out_channels, 1)
        self.norm = nn.BatchNorm2d(out_channels)
        self.temporal = nn.Conv2d(out_channels, out_channels, (9, 1), (stride, 1), (4, 0))
        self.out_norm = nn.BatchNorm2d(out_channels)
        self.residual = nn.Identity()
        if in_channels != out_channels or stride != 1:
            self.residual = nn.Conv2d(in_channels, out_channels, 1, (stride, 1))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.graph(x).unflatten(1, (len(self.A), -1))  # (N, K, C, T, V)
        y = torch.einsum("nkctv,kvw->nctw", y, self.A)
        y = self.out_norm(self.temporal(self.relu(self.norm(y))))
        return self.relu(y + self.residual(x))


class STGCN(nn.Module):
    """Clips (N, C, T, V, M) to logits (N, classes)."""

    def __init__(
        self,
        num_classes: int,
        A: Tensor,
        channels: int = 3,
        widths: tuple[int, ...] = (32, 32, 64, 64),
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels * A.shape[1])
        self.blocks = nn.ModuleList()
        before = channels
        for i, width in enumerate(widths):
            self.blocks.append(Block(before, width, A, stride=2 if i and width > before else 1))
            before = width
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        x = x.permute(0, 4, 3, 1, 2).reshape(
            n * m, v * c, t
        )  # persons folded into the batch, n * M + m
        x = self.norm(x).view(n * m, v, c, t).permute(0, 2, 3, 1)  # (N M, C, T, V)
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((2, 3)).view(n, m, -1).mean(1))


def prepare(batch: sf.Batch, layout: sf.SkeletonLayout, frames: int) -> Tensor:
    """Around the centre joint, in body heights, resampled to ``frames``."""
    x = sf.center(batch.x, layout.center, visibility=batch.visibility)
    height = sf.body_height(x, layout, visibility=batch.visibility)
    return sf.resample_frames(x / height[:, None, None, None, None], batch.lengths, frames)


def load(given: argparse.Namespace) -> sf.Split:
    """Your clips, or generated ones."""
    if given.data is not None:
        return sf.open_dataset(given.data, split=given.split, layout=given.layout)
    actions = sf.SyntheticActions(frames=given.frames)
    parts = ((given.clips, 1), (given.clips // 4, 2))
    return sf.Split(
        *(
            sf.SkeletonDataset.from_batch(
                actions.generate(n, seed=seed), actions.layout, classes=actions.classes
            )
            for n, seed in parts
        )
    )


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plain", action="store_true", help="train with cross-entropy alone")
    parser.add_argument("--data", help="folder or file of clips; default: generated actions")
    parser.add_argument("--split", help="split of the data; default: its first one")
    parser.add_argument("--layout", help="skeleton of the data, a name or a JSON file")
    parser.add_argument("--frames", type=int, default=32, help="frames of every prepared clip")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument(
        "--clips",
        type=int,
        default=1200,
        help="number of generated training clips; a quarter as many for testing",
    )
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args(arguments)
    if given.epochs < 1 or given.batch < 2 or given.clips < max(given.batch, 4):
        parser.error("expected at least 1 epoch, batches of 2 and as many clips as a batch has")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(1)

    train, test = load(given)
    layout = train.layout
    channels = train[0].x.shape[0]
    model = STGCN(len(train.classes), sf.spatial_partition(layout), channels).to(device)
    batches = DataLoader(
        train, given.batch, shuffle=True, drop_last=True, collate_fn=sf.SkeletonDataset.collate
    )
    total = given.epochs * len(batches)
    optimizer = torch.optim.SGD(
        model.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=total)

    objective = STFObjective(
        model, ["blocks.2", "blocks.3"], head="fc", warmup=total // 2
    )  # added, line 2
    if given.plain:
        objective.loss = STFLoss.plain()  # to compare
    start = time.perf_counter()
    accuracy = 0.0
    for epoch in range(given.epochs):
        objective.train()
        for batch in batches:
            x = prepare(batch, layout, given.frames).to(device)
            label = batch.label.to(device)
            # before: loss = nn.functional.cross_entropy(model(x), label)
            out = objective(x, label)  # added, line 3
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        right = 0
        with torch.no_grad():
            for batch in DataLoader(test, 64, collate_fn=sf.SkeletonDataset.collate):
                logits = model(prepare(batch, layout, given.frames).to(device)).cpu()
                right += int((logits.argmax(1) == batch.label).sum())
        accuracy = right / len(test)
        last = ", ".join(f"{name} {term.item():.3f}" for name, term in out.terms.items())
        seconds = time.perf_counter() - start
        print(
            f"epoch {epoch + 1}/{given.epochs}: top-1 {accuracy:.1%}; last step: {last}; "
            f"{seconds:.0f} s",
            flush=True,
        )
    return accuracy


if __name__ == "__main__":
    main()
