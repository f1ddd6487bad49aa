"""
Your own poses
==============

This tutorial starts from arrays as pose estimators give them: for each video, the positions of 17
joints in pixels and their scores. It reads them, trains a network with ``train.py``, recognises a
new clip and draws where the network looked.
"""

import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from skeleton_focus import COCO17, SyntheticActions, load_pretrained, open_dataset
from skeleton_focus.copy_example import copy_example
from skeleton_focus.plot import plot_film_strip

folder = Path(tempfile.mkdtemp())
os.environ["SKELETON_FOCUS_CACHE"] = str(folder / "cache")  # parsed clips; default: ~/.cache

# %%
# Poses of a few videos
# ---------------------
#
# Generated actions stand in for videos here. A camera 4 m away projects them to a picture of
# 1280 x 720 pixels. Each clip becomes an array (frames, joints, 3) of x, y and score in the order
# of COCO, as Ultralytics, rtmlib and ViTPose give it. With your own videos, skip this cell and save
# the output of your pose estimator.

random = np.random.default_rng(0)


def film(name, count, frames, seed):
    """Return the poses (frames, 17, 3) of generated clips of one class."""
    actions = SyntheticActions(COCO17, frames=frames, num_persons=1)
    labels = [actions.classes.index(name)] * count
    clips = actions.generate(count, seed=seed, labels=labels)
    x, y, z = clips.x[..., 0].unbind(1)  # each (N, T, V), metres
    seen = clips.visibility[..., 0]
    score = seen * torch.from_numpy(random.uniform(0.5, 1.0, seen.shape))
    pixels = (seen * (640 + 800 * x / (z + 4)), seen * (360 - 800 * y / (z + 4)))  # y points down
    return torch.stack([*pixels, score], -1).float().numpy()


# %%
# A folder for each class
# -----------------------
#
# The names of the folders are the classes. Each clip is one file.

poses = folder / "poses"
for seed, name in enumerate(["raise left hand", "raise right hand", "kick", "sit down"]):
    (poses / name).mkdir(parents=True)
    clips = [*film(name, 15, frames=48, seed=seed), *film(name, 15, frames=64, seed=seed + 9)]
    for i, clip in enumerate(clips):
        np.save(poses / name / f"{i:03}.npy", clip)
print(*sorted(str(path.relative_to(folder)) for path in poses.glob("*/000.npy")), sep="\n")
print("one clip:", clip.shape)

# %%
# ``open_dataset`` recognises the format. It divides the positions of a clip by the size of the
# body, takes the scores as visibility, and tests one clip in five of each class. Arrays do not
# name their skeleton, so ``layout`` does.

split = open_dataset(poses, layout="COCO17")
print(split.describe())
first = split.train[0]
print(f"x {tuple(first.x.shape)} (C, T, V, M), visibility {tuple(first.visibility.shape)}")

# %%
# A bad file
# ----------
#
# Errors name the file and what is expected. Here one number is infinite. ``on_error`` collects the
# errors and leaves the clips out. Without it, the first error is raised. ``python -m
# skeleton_focus.datasets poses`` lists all problems.

bad = np.load(poses / "kick" / "000.npy")
bad[3, 7, 0] = np.inf
np.save(poses / "kick" / "bad.npy", bad)
problems = []
split = open_dataset(poses, layout="COCO17", on_error=problems.append)
print(str(problems[0]).removeprefix(f"{folder}/"))
(poses / "kick" / "bad.npy").unlink()

# %%
# Train
# -----
#
# ``copy_example`` copies a program and the files that it imports. On the command line, the training
# below is ``python train.py`` with the same options. The options in the last two lines make it
# short enough for this page. Leave them out for real data, to get the settings of the preset.

programs = folder / "programs"
copy_example("train", programs)
sys.path.insert(0, str(programs))

import train

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # as train.py does
warnings.filterwarnings("ignore", module="lightning")
os.chdir(folder)
options = "--data poses --layout COCO17 --out run --quiet --threads 1 "
options += "--epochs 12 --batch 8 --ema 0 "
options += "--network widths=24,24,48,48 strides=2,1,2,1"
report = train.main(options.split())

# %%
# Recognise a new clip
# --------------------
#
# ``load_pretrained`` loads a run, and ``recognise`` takes a file or a folder of clips. An answer
# holds the class, its probability, the joints with the highest focus and the frames around its
# peak.

np.save(folder / "new.npy", film("raise right hand", 1, frames=64, seed=100)[0])
trained = load_pretrained(folder / "run")
(answer,) = trained.recognise(folder / "new.npy")
for name, probability in answer.ranked:
    print(f"{name:18}{probability:6.1%}")
print(f"joints: {', '.join(answer.joints)}; frames {answer.frames[0]} to {answer.frames[1]}")

# %%
# ``answer.x`` and ``answer.focus`` are ready to draw. 2D positions are drawn as in the picture,
# with y downwards. ``predict.py RUN CLIPS --picture FOLDER`` draws the same.

plot_film_strip(answer.x, answer.focus, COCO17, title=f"{answer.label}, {answer.probability:.0%}")

# %%
# Read the result with care. Four different classes are easy to tell apart, so a high accuracy on a
# few test clips says little, and the network may use more of the body than the moving arm.
# :doc:`plot_1_find_focus` shows how to check a focus, :doc:`plot_2_train_with_stf` how to train it.
#
# What to change for your own data:
#
# - :doc:`/data` lists the formats of other pose estimators. ``open_dataset`` reads them in the same
#   way. Folders ``train`` and ``test`` above the classes make a split of your own.
# - Clips of the same person or video belong on the same side of the split.
# - :doc:`/skeletons` describes skeletons other than COCO's.
