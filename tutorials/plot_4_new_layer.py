"""
A new layer in ten minutes
==========================

This tutorial writes a layer out of the package's parts, checks it, puts it into a copied network,
trains a few steps and explains the result. The layer is a graph convolution with a learned
adjacency and a gate for each joint, which depends on the joint's mean over time.
"""

import importlib.util
import math
import tempfile

import torch
from torch import nn

from skeleton_focus import (
    NTU25,
    GraphConv,
    STFLoss,
    STFObjective,
    SyntheticActions,
    center,
    mask_padding,
    multi_scale_adjacency,
)
from skeleton_focus.copy_example import copy_example
from skeleton_focus.focus_metrics import focus_average_precision
from skeleton_focus.graph_conv import convolve_graph
from skeleton_focus.plot import plot_adjacency, plot_film_strip

torch.manual_seed(0)

# %%
# The layer
# ---------
#
# ``convolve_graph`` computes the graph convolution, ``mask_padding`` sets frames beyond a clip's
# length to zero. The learned adjacency starts at zero and the gate at 1, so an untrained layer
# equals ``GraphConv``. This makes it safe to put into a trained network, and easy to test.


class GatedGraphConv(nn.Module):
    """x (N, C, T, V), lengths (N,) -> (N, O, T, V)."""

    def __init__(self, in_channels, out_channels, adjacency):
        super().__init__()
        # A copy, because several layers get the same tensor and load_state_dict writes into it.
        self.register_buffer("adjacency", adjacency.clone())  # (K, V, V)
        self.learned = nn.Parameter(torch.zeros_like(adjacency))
        self.weight = nn.Parameter(torch.empty(len(adjacency), out_channels, in_channels))
        self.gate = nn.Linear(in_channels, 1)
        self.reset_parameters()

    def reset_parameters(self):
        bound = 1 / math.sqrt(self.weight.shape[0] * self.weight.shape[2])
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.learned)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x, lengths=None):
        x = mask_padding(x, lengths)
        frames = x.shape[2] if lengths is None else lengths[:, None, None]
        mean = x.sum(2) / frames  # (N, C, V)
        gate = 2 * torch.sigmoid(self.gate(mean.mT)).mT  # (N, 1, V)
        y = convolve_graph(x, self.weight, self.adjacency + self.learned)
        return y * gate[:, :, None]


# %%
# Check it
# --------
#
# Four checks find most mistakes. Random weights replace the zeros where a zero would hide one.

A = multi_scale_adjacency(NTU25, 3)
layer, reference = GatedGraphConv(4, 6, A), GraphConv(4, 6, A, bias=False)
reference.weight.data.copy_(layer.weight)
x = torch.randn(2, 4, 8, 25)
torch.testing.assert_close(layer(x), reference(x))
print("an untrained layer equals GraphConv")

for parameter in layer.parameters():
    nn.init.normal_(parameter, std=0.3)

lengths = torch.tensor([8, 5])
padded = x.clone()
padded[1, :, 5:] = 1000.0
torch.testing.assert_close(layer(padded, lengths)[1:, :, :5], layer(x[1:, :, :5]))
print("padded frames do not matter")

order = torch.randperm(25)
state = layer.state_dict()
for name in ("adjacency", "learned"):
    state[name] = state[name][:, order][:, :, order]
reordered = GatedGraphConv(4, 6, A)
reordered.load_state_dict(state)
torch.testing.assert_close(reordered(x[..., order]), layer(x)[..., order])
print("the order of the joints does not matter")

small = GatedGraphConv(2, 3, torch.rand(2, 5, 5)).double()
nn.init.normal_(small.gate.weight)
clip = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
assert torch.autograd.gradcheck(small, (clip, torch.tensor([4, 3])))
assert torch.autograd.gradgradcheck(small, (clip, torch.tensor([4, 3])))
print("first and second derivatives are right")

# %%
# The losses differentiate the focus. If the layer lies above an explained one, the focus is itself
# a gradient through the layer, so the second derivatives are needed.
#
# Put it into a network
# ---------------------
#
# ``copy_example`` copies STF-GCN, which is one file. In your copy you would edit the line that
# creates ``self.graph``, and pass ``lengths`` on if your clips are padded. Here the layers are
# replaced from outside, and all clips have the same length.

path, *_ = copy_example("stf_gcn", tempfile.mkdtemp())
spec = importlib.util.spec_from_file_location("my_network", path)
my_network = importlib.util.module_from_spec(spec)
spec.loader.exec_module(my_network)

actions = SyntheticActions(NTU25, frames=32, num_persons=1)
widths = (24, 24, 48)
net = my_network.STFGCN(actions.num_classes, NTU25, in_channels=3, widths=widths, strides=(2, 1, 1))
for block, before, after in zip(net.blocks, (3, *widths), widths, strict=False):
    block.graph = GatedGraphConv(before, after, A)
print([type(block.graph).__name__ for block in net.blocks])

# %%
# Train a few steps
# -----------------

train, test = actions.generate(300, seed=1), actions.generate(100, seed=2)


def prepare(batch):
    return center(batch.x, NTU25.center, each_frame=False, visibility=batch.visibility)


x, x_test = prepare(train), prepare(test)
objective = STFObjective(net, ["blocks.1", "blocks.2"], head="fc", loss=STFLoss.plain())
optimizer = torch.optim.AdamW(net.parameters(), 0.005)
for _ in range(8):
    for chosen in torch.randperm(len(x)).split(20):
        out = objective(x[chosen], train.label[chosen])
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()

net.eval()
with torch.no_grad():
    right = (net(x_test).argmax(1) == test.label).float().mean()
print(f"top-1 of {len(test.label)} test clips: {right:.1%}, chance {1 / actions.num_classes:.1%}")

# %%
# A few steps leave the network far from its best, but the accuracy is above chance. The picture
# shows the fixed and the learned adjacency of the first block. The learned one is dense, and only
# its strongest entries are drawn.

block = net.blocks[0].graph
rows = {"fixed adjacency": block.adjacency, "learned adjacency": block.learned.detach()}
plot_adjacency(test.x[0, :, 0, :, 0].T, rows, NTU25, chords=20)

# %%
# Explain it
# ----------
#
# The objective needs no change for a new layer. Here it explains the last block. The focus of a
# network with so little training may be hardly better than a constant map: the numbers tell.

focus, logits = objective.explain(x_test)
truth = test.critical
constant = focus_average_precision(torch.zeros_like(truth), truth).nanmean()
print(f"average precision of the focus: {focus_average_precision(focus, truth).nanmean():.3f}")
print(f"average precision of a constant map: {constant:.3f}")

clip = int((logits.argmax(1) == test.label).nonzero()[0])
title = f"Predicted: {actions.classes[logits[clip].argmax()]}"
plot_film_strip(test.x[clip], focus[clip], NTU25, truth=truth[clip], title=title)

# %%
# The STF losses work with the layer, too. The first batch runs once more with all terms, so a layer
# that they cannot handle raises an error here and not in the middle of a training.

objective = STFObjective(
    net.train(), ["blocks.1", "blocks.2"], head="fc", loss=STFLoss.recommended(), erasing=0.5
)
out = objective(x[:20], train.label[:20])
out.loss.backward()
print({name: round(term.item(), 3) for name, term in out.terms.items()})

# %%
# :doc:`/layers` lists the package's own layers. ``tests/test_contract.py`` in the clone holds the
# checks that each of them passes, such as half precision and compilation.
