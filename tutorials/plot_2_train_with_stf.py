"""
Train with STF
==============

This tutorial trains a network in two stages, as :doc:`/objective` recommends: first with
cross-entropy alone, then with the recommended STF losses and erasing. It measures what changes on
whole clips, on clips with a hidden body part, and in the focus. A second copy of the network is
trained equally long without the losses, because longer training also changes a network.
"""

import copy

import matplotlib.pyplot as plt
import torch
from torch import nn

from skeleton_focus import (
    GraphConv,
    STFLoss,
    STFObjective,
    SyntheticActions,
    TemporalConv,
    center,
    multi_scale_adjacency,
)
from skeleton_focus.focus_metrics import focus_average_precision, pointing_game
from skeleton_focus.occlusion import body_parts, hide_joints
from skeleton_focus.plot import plot_focus_comparison

torch.manual_seed(0)

# %%
# Clips and network
# -----------------

actions = SyntheticActions(frames=32, num_persons=1)
train = actions.generate(400, seed=1)
test = actions.generate(150, seed=2)


def prepare(batch):
    """Measure positions from the base of the spine in the first frame."""
    return center(batch.x, actions.layout.center, each_frame=False, visibility=batch.visibility)


class Block(nn.Sequential):
    def __init__(self, in_channels, out_channels, adjacency, stride=1):
        super().__init__(
            GraphConv(in_channels, out_channels, adjacency),
            nn.ReLU(),
            TemporalConv(out_channels, out_channels, kernel_size=5, stride=stride),
            nn.ReLU(),
        )


class Net(nn.Module):
    def __init__(self, num_classes, adjacency):
        super().__init__()
        sizes = ((3, 24, 2), (24, 24, 1), (24, 48, 1))
        self.blocks = nn.Sequential(*(Block(i, o, adjacency, stride) for i, o, stride in sizes))
        self.fc = nn.Linear(48, num_classes)

    def forward(self, x):
        return self.fc(self.blocks(x.squeeze(4)).mean((2, 3)))


# %%
# Stage 1: plain training
# -----------------------
#
# ``STFLoss.plain()`` is cross-entropy alone, so one loop serves both stages. With an existing loop,
# keep that loop for this stage. The learning rate rises and falls to 0 in one cycle.


def fit(objective, epochs, rate):
    """Train and return the mean of each term in each epoch."""
    x = prepare(train)
    batches = len(x) // 20
    optimizer = torch.optim.AdamW(objective.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * batches)
    history = []
    objective.train()
    for _ in range(epochs):
        sums = {}
        for chosen in torch.randperm(len(x)).split(20):
            out = objective(x[chosen], train.label[chosen])
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
            schedule.step()
            for name, term in out.terms.items():
                sums[name] = sums.get(name, 0.0) + term.item() / batches
        history.append(sums)
    objective.eval()
    return history


net = Net(actions.num_classes, multi_scale_adjacency(actions.layout, 3))
fit(STFObjective(net, ["blocks.2"], head="fc", loss=STFLoss.plain()), epochs=12, rate=0.01)

# %%
# Stage 2: the losses and erasing
# -------------------------------
#
# The recommended loss adds two terms to cross-entropy. The exploration term lowers the confidence
# that is left after the focus is masked out of the clip. The coherence term makes the focus of the
# two named layers agree. Erasing hides joints of high focus in half of the training clips. Stage 2
# takes half the learning rate. The first copy is the comparison.

layers = ["blocks.1", "blocks.2"]  # a middle block and the last one
plain = STFObjective(copy.deepcopy(net), layers, head="fc", loss=STFLoss.plain())
focused = STFObjective(
    copy.deepcopy(net), layers, head="fc", loss=STFLoss.recommended(), erasing=0.5
)
fit(plain, epochs=4, rate=0.005)
history = fit(focused, epochs=4, rate=0.005)

# %%
# ``out.terms`` holds the terms before their weights. With erasing, the cross-entropy is that of
# clips with hidden joints. The terms pull in different directions, so they need not all fall.

epochs = range(1, len(history) + 1)
_, axes = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
for axis, name in zip(axes, history[0], strict=True):
    axis.plot(epochs, [sums[name] for sums in history], marker="o", color="#0072b2")
    axis.set(title=name, xlabel="epoch", xticks=epochs)

# %%
# What changed
# ------------
#
# Accuracy with a hidden part is the mean over the left arm, the right arm, both hands, both legs
# and the trunk.


@torch.no_grad()
def accuracy(model, batch):
    return (model(prepare(batch)).argmax(1) == batch.label).float().mean().item()


def measure(objective):
    hidden = [
        accuracy(objective.model, hide_joints(test, joints))
        for joints in body_parts(actions.layout).values()
    ]
    focus, _ = objective.explain(prepare(test))
    return {
        "top-1": accuracy(objective.model, test),
        "part hidden": sum(hidden) / len(hidden),
        "average precision": focus_average_precision(focus, test.critical).nanmean().item(),
        "pointing": pointing_game(focus, test.critical).nanmean().item(),
    }


before = STFObjective(net, layers, head="fc", loss=STFLoss.plain())
rows = {"after stage 1": before, "trained further": plain, "with the losses": focused}
results = {name: measure(objective) for name, objective in rows.items()}
print(" " * 17 + "".join(f"{name:>19}" for name in results["after stage 1"]))
for name, result in results.items():
    print(f"{name:17}" + "".join(f"{value:19.3f}" for value in result.values()))


constant = focus_average_precision(torch.zeros_like(test.critical), test.critical).nanmean()
print(f"{'constant map':17}{constant:57.3f}")

# sphinx_gallery_thumbnail_number = 2

# %%
# The table is one run; change the seed at the top to see another. How to read it:
#
# - **Hidden parts.** Erasing trains this case. How much it gains depends on how well the plain
#   network does.
# - **Whole clips.** Do not expect a higher accuracy. One of the 150 test clips is 0.7 points, so a
#   difference of a few clips is noise.
# - **Focus.** The plain network is far above a constant map, and this short training changes its
#   focus little. :doc:`/focus_quality` measures longer trainings of a larger network over three
#   seeds, which change it more.

# %%
# Two networks on one clip
# ------------------------
#
# Both rows explain the labelled class, so that they answer the same question.

clip = int((test.label == actions.classes.index("throw")).nonzero()[0])
x, label = prepare(test)[clip : clip + 1], test.label[clip : clip + 1]
plot_focus_comparison(
    test.x[clip],
    {name: objective.explain(x, label)[0][0] for name, objective in list(rows.items())[1:]},
    actions.layout,
    truth=test.critical[clip],
)

# %%
# For a network of your own, fine-tune two copies equally long, with and without the losses, and
# compare them on your test clips. If only hidden joints matter, ``STFLoss.plain()`` with
# ``erasing=0.5`` is cheaper. :doc:`/focus_quality` has the measurements behind these settings.
