"""Test that two processes under DistributedDataParallel step as one on the joined batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from test_public_networks import FoldedOtherwise
from test_public_networks import clips as plain_clips
from test_public_networks import draw as draw_plain
from test_training import BRANCHES, clips, network, objective
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from skeleton_focus import STFObjective
from skeleton_focus._sync_batch_norm import plain_sync_batch_norm

# Without SyncBatchNorm each process would norm by its own half; in evaluation mode BatchNorm ties
# no clips together.
CASES = [(branch, synced) for branch in BRANCHES for synced in (True, False)]
STEPS = 2


def build(branch: str, synced: bool) -> STFObjective:
    net = network()
    if synced:
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
        for i, layer in enumerate(m for m in net.modules() if isinstance(m, nn.SyncBatchNorm)):
            layer.momentum = (0.1, None)[i % 2]
    return objective(net, branch).train(synced)


def steps(trained: nn.Module, x: Tensor, target: Tensor, weights: nn.Module) -> dict[str, Tensor]:
    """The gradients of the last of some SGD steps, the buffers and the weights after it."""
    optimizer = torch.optim.SGD(weights.parameters(), lr=0.05)
    for _ in range(STEPS):
        optimizer.zero_grad()
        trained(x, target).loss.backward()
        optimizer.step()
    found = {f"gradient of {name}": p.grad for name, p in weights.named_parameters()}
    return {**found, **{name: value.clone() for name, value in weights.state_dict().items()}}


def in_one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    # It refuses SyncBatchNorm on CPUs, since PyTorch's own is for GPUs alone; in the objective it
    # runs anywhere.
    DistributedDataParallel._passing_sync_batchnorm_handle = lambda self, module: None
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    (x, target) = clips()
    mine = slice(2 * rank, 2 * rank + 2)
    found = {}
    for branch, synced in CASES:
        trained = build(branch, synced)
        found[f"{branch} {synced}"] = steps(
            DistributedDataParallel(trained), x[mine], target[mine], trained
        )
        assert all("forward" not in vars(module) for module in trained.modules())
    net = nn.SyncBatchNorm.convert_sync_batchnorm(draw_plain(FoldedOtherwise))
    x, target = plain_clips()
    try:
        STFObjective(net, ["low", "high"], head="fc")(x[mine], target[mine])
    except ValueError as error:
        Path(folder, f"{rank}.txt").write_text(str(error))
    layer = nn.SyncBatchNorm(3)
    rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(rank)).requires_grad_()
    found["fixed statistics"] = {}
    for fixed in (False, True):
        with plain_sync_batch_norm(layer, fixed_statistics=fixed):
            y = layer(rows)
        gradient = torch.autograd.grad(y[0].square().sum(), rows)[0]
        found["fixed statistics"] |= {
            f"values {fixed}": y.detach(),
            f"reached {fixed}": (gradient != 0).any(1),
        }
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """What each of two processes found in each case."""
    folder: Path = tmp_path_factory.mktemp("processes")
    mp.spawn(in_one_of_two, (str(folder),), nprocs=2)
    # Persons before clips, under a SyncBatchNorm that mixes all rows before the head.
    for rank in range(2):
        assert (
            "expected each clip's persons in adjacent rows" in (folder / f"{rank}.txt").read_text()
        )
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_fixed_statistics_keep_the_values_and_part_the_rows(
    shared: list[dict[str, dict[str, Tensor]]],
) -> None:
    for process in shared:
        found = process["fixed statistics"]
        torch.testing.assert_close(found["values True"], found["values False"])
        assert found["reached False"].tolist() == [True] * 4
        assert found["reached True"].tolist() == [True, False, False, False]


@pytest.mark.parametrize(("branch", "synced"), CASES)
def test_two_processes_equal_one(
    branch: str, synced: bool, shared: list[dict[str, dict[str, Tensor]]]
) -> None:
    x, target = clips()
    alone = build(branch, False).train(synced)
    if synced:
        alone.model.load_state_dict(build(branch, True).model.state_dict())
        for i, layer in enumerate(
            m for m in alone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
        ):
            layer.momentum = (0.1, None)[i % 2]
    expected = steps(alone, x, target, alone)
    for found in (process[f"{branch} {synced}"] for process in shared):
        assert found.keys() == expected.keys()
        moved = 0.0
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-9, msg=name)
            moved = max(moved, value.abs().max().item() if name.startswith("gradient") else 0.0)
        assert moved > 1e-3
