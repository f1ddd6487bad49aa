"""
Find what your network looks at
===============================

This tutorial trains a small network and explains its predictions. The network is plain PyTorch and
uses no layer of this library. The clips are generated, so the joints and frames that define each
class are known, and the explanation can be compared with them.
"""

import textwrap

import torch
from torch import nn

from skeleton_focus import STFLoss, STFObjective, SyntheticActions, center, spatial_partition
from skeleton_focus.focus_metrics import focus_average_precision, pointing_game
from skeleton_focus.focus_sanity import cascading_randomization, max_sensitivity
from skeleton_focus.plot import plot_film_strip, plot_focus_map

torch.manual_seed(0)

# %%
# The clips
# ---------
#
# ``x`` has the axes (N, C, T, V, M): clips, coordinates, frames, joints, persons. ``critical``
# (N, M, T, V) is 1 where a joint defines the class in a frame. Only the comparison below uses it.

actions = SyntheticActions(frames=32, num_persons=1)
train = actions.generate(500, seed=1)
test = actions.generate(150, seed=2)
print(textwrap.fill(f"{actions.num_classes} classes: {', '.join(actions.classes)}", 80))
print(f"x {tuple(test.x.shape)}, critical {tuple(test.critical.shape)}")


def prepare(batch):
    """Measure positions from the base of the spine in the first frame."""
    return center(batch.x, actions.layout.center, each_frame=False, visibility=batch.visibility)


x, x_test = prepare(train), prepare(test)

# %%
# The network
# -----------
#
# The network has three blocks of a graph convolution and a temporal convolution, global average
# pooling, and a linear layer. Any other network will do: :doc:`the page on the losses
# </objective>` lists the arguments for other forms.


class Block(nn.Module):
    def __init__(self, in_channels, out_channels, adjacency, stride=1):
        super().__init__()
        self.register_buffer("adjacency", adjacency)  # (K, V, V)
        self.mix = nn.Conv2d(len(adjacency) * in_channels, out_channels, 1)
        self.temporal = nn.Conv2d(out_channels, out_channels, (5, 1), (stride, 1), (2, 0))
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x):
        x = torch.einsum("nctv,kvw->nkctw", x, self.adjacency).flatten(1, 2)
        return self.norm(self.temporal(self.mix(x).relu())).relu()


class Net(nn.Module):
    def __init__(self, num_classes, adjacency):
        super().__init__()
        sizes = ((3, 32, 2), (32, 32, 1), (32, 64, 1))
        self.blocks = nn.ModuleList(Block(i, o, adjacency, stride) for i, o, stride in sizes)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x):
        x = x.squeeze(4)  # (N, C, T, V): these clips have one person
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((2, 3)))


net = Net(actions.num_classes, spatial_partition(actions.layout))

# %%
# Train it
# --------

epochs = 10
batches = len(x) // 20
optimizer = torch.optim.AdamW(net.parameters())
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=epochs * batches)
for _ in range(epochs):
    for chosen in torch.randperm(len(x)).split(20):
        loss = nn.functional.cross_entropy(net(x[chosen]), train.label[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

net.eval()
with torch.no_grad():
    right = net(x_test).argmax(1) == test.label
print(f"top-1 of {len(right)} test clips: {right.float().mean():.1%}")
print(f"chance: {1 / actions.num_classes:.1%}")

# %%
# Explain it
# ----------
#
# The objective takes the name of the layer to explain and of the linear layer after the pooling.
# It does not change the network. ``explain`` returns the focus (N, M, T, V) of the predicted
# classes, from 0 to 1. ``STFLoss.plain()`` states that nothing is trained with the STF terms.

objective = STFObjective(net, ["blocks.2"], head="fc", loss=STFLoss.plain())
focus, logits = objective.explain(x_test)

# %%
# The picture shows a clip that the network recognises. Darker and larger joints have more focus.
# The blue outlines mark the truth, and the band shows the largest focus of each frame. In a single
# clip, the darkest joints may lie outside the truth: the measures below are means over all clips.

kick = actions.classes.index("kick")
clip = int((right & (test.label == kick)).nonzero()[0])
plot_film_strip(
    test.x[clip],
    focus[clip],
    actions.layout,
    truth=test.critical[clip],
    title=f"Predicted: {actions.classes[logits[clip].argmax()]}",
)

# %%
# The map shows the same focus for all joints and frames. Joints are sorted by body part.

title = "Joints and frames of this clip"
plot_focus_map(focus[clip], actions.layout, truth=test.critical[clip], title=title)

# %%
# Compare it with the truth
# -------------------------
#
# `Average precision` asks whether critical entries rank above the others. `Pointing` asks whether
# the entry with the highest focus is critical. Both need baselines: a constant map, random
# numbers, and the speed of the joints. None of the three uses the network.

present = test.visibility.permute(0, 3, 1, 2)  # (N, T, V, M) -> (N, M, T, V)
speed = test.x.diff(dim=2, prepend=test.x[:, :, :1]).norm(dim=1).permute(0, 3, 1, 2)
maps = {
    "focus": focus,
    "constant": present,
    "random": torch.rand(focus.shape) * present,
    "joint speed": speed * present,
}
print(f"{'':14}average precision   pointing")
for name, values in maps.items():
    precision = focus_average_precision(values, test.critical).nanmean()
    pointing = pointing_game(values, test.critical).nanmean()
    print(f"{name:14}{precision:17.3f}{pointing:11.3f}")

# %%
# The focus is far above the constant and the random map. Joint speed is the hard baseline, because
# the truth of generated actions is largely motion. A focus may differ from the truth for two
# reasons: the explanation is wrong, or it is right and the network uses other joints. The next
# checks need no truth.
#
# Check it without a truth
# ------------------------
#
# The first check draws the weights again, layer by layer from the output down, and correlates the
# ranks of the old and the new focus. A correlation near 1 at the last step would mean that the
# focus depends on the clip alone. The second check moves every joint by up to 2 cm and measures the
# relative change of the focus. Small values are good.

classes = logits.argmax(1)[:50]


def explain(clips):
    return objective.explain(clips, classes)[0]


layers = ["fc", "blocks.2", "blocks.1", "blocks.0"]
similarity = cascading_randomization(net, explain, x_test[:50], layers=layers)
for layer, values in similarity.items():
    print(f"drawn again down to {layer:9} rank correlation {values.nanmean():6.2f}")
change = max_sensitivity(explain, x_test[:50], position_channels=3)
print(f"joints moved by up to 2 cm: relative change {change.nanmean():.2f}")

# %%
# How to read a focus
# -------------------
#
# - The values are relative: the highest entry of each clip is 1, even if the network is unsure.
# - An entry of the last layer has seen its neighbours: three graph convolutions reach joints three
#   bones away, and temporal convolutions reach several frames. A blurred border is expected.
# - A focus away from the truth in a clip that the network recognises is a reason to look closer.
#   The network may use a shortcut, such as the pose before the action.
# - A picture of one clip proves nothing. Report means over a test set, beside baselines.
#
# :doc:`/explanations` describes further measures. :doc:`plot_2_train_with_stf` trains a network
# with losses that act on its focus.
