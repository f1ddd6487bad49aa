"""A typical ST-GCN, trained with the STF losses by three added lines, each marked "added".

    python examples/your_backbone.py            # generated actions
    python examples/your_backbone.py --plain    # the same training with cross-entropy alone

The network and the training loop are plain PyTorch: replace them with your own.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn

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
        self, num_classes: int, A: Tensor, widths: tuple[int, ...] = (32, 32, 64, 64)
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3 * A.shape[1])
        self.blocks = nn.ModuleList()
        before = 3
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


def prepare(batch: sf.Batch) -> Tensor:
    """Around the hips, in body heights."""
    x = sf.center(batch.x, sf.NTU25.center, visibility=batch.visibility)
    return x / sf.body_height(x, sf.NTU25, visibility=batch.visibility)[:, None, None, None, None]


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plain", action="store_true", help="train with cross-entropy alone")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument(
        "--clips",
        type=int,
        default=1200,
        help="number of training clips; a quarter as many for testing",
    )
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args(arguments)
    if given.epochs < 1 or given.batch < 2 or given.clips < max(given.batch, 4):
        parser.error("expected at least 1 epoch, batches of 2 and as many clips as a batch has")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(1)

    actions = sf.SyntheticActions(frames=32)
    train, test = (
        actions.generate(n, seed=seed) for n, seed in ((given.clips, 1), (given.clips // 4, 2))
    )
    x_train = prepare(train)
    x_test = prepare(test)
    model = STGCN(len(actions.classes), sf.spatial_partition(sf.NTU25)).to(device)
    steps = given.clips // given.batch
    total = given.epochs * steps
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
        for chosen in torch.randperm(given.clips)[: steps * given.batch].view(steps, -1):
            x = x_train[chosen].to(device)
            label = train.label[chosen].to(device)
            # before: loss = nn.functional.cross_entropy(model(x), label)
            out = objective(x, label)  # added, line 3
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            logits = torch.cat([model(part.to(device)) for part in x_test.split(64)]).cpu()
        accuracy = (logits.argmax(1) == test.label).float().mean().item()
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
