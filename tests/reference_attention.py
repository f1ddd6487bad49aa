"""Compute FG-STFormer (Gao et al., ACCV 2022) slowly: float64 loops, by the paper alone.

Feature maps are (N, C, T, V). Weights are dictionaries of arrays, as a layer's state_dict names
them.
"""

from __future__ import annotations

import math

import numpy as np


def position_codes(position, channels):
    """Sine at even and cosine at odd channels, one position."""
    return np.array(
        [
            (math.cos if c % 2 else math.sin)(position / 10000 ** ((c - c % 2) / channels))
            for c in range(channels)
        ]
    )


def softmax(row):
    top = max(row)
    parts = [math.exp(value - top) for value in row]
    return [part / sum(parts) for part in parts]


def leaky_relu(x):
    return np.where(x > 0, x, 0.01 * x)


def batch_norm(x, weights, name):
    """With the running statistics; x (C,)."""
    scale = weights[f"{name}.weight"] / np.sqrt(weights[f"{name}.running_var"] + 1e-5)
    return (x - weights[f"{name}.running_mean"]) * scale + weights[f"{name}.bias"]


def equation_1(queries, keys, values):
    """softmax(Q K^T / sqrt(d)) V; rows are elements."""
    out = np.zeros((len(queries), values.shape[1]))
    for i, query in enumerate(queries):
        attention = softmax([float(query @ key) / math.sqrt(len(query)) for key in keys])
        for weight, value in zip(attention, values, strict=True):
            out[i] += weight * value
    return out


def projections(rows, weights, name, heads):
    """Queries, keys and values of rows (R, C), a list of heads each."""
    width = len(weights[f"{name}.linear.weight"]) // 3
    d = width // heads
    all_ = np.array(
        [weights[f"{name}.linear.weight"] @ row + weights[f"{name}.linear.bias"] for row in rows]
    )
    return [
        [all_[:, p * width + h * d : p * width + (h + 1) * d] for h in range(heads)]
        for p in range(3)
    ]


def update(row, joined, weights, name):
    """What follows the heads: row (C,), joined (H d,)."""
    z = batch_norm(
        row + weights[f"{name}.project.weight"][:, :, 0, 0] @ joined, weights, f"{name}.norm"
    )
    y = leaky_relu(weights[f"{name}.linear.weight"][:, :, 0, 0] @ z)
    return batch_norm(z + y, weights, f"{name}.linear_norm")


def spatial_attention(x, weights, heads, joints=None, codes=True):
    """Compute eq. 1 between the joints of every frame, with A_g (V, V) added, or a head's own.

    Maps of the heads' own are (H, V, V). joints (N, T, V') names those that are there.
    """
    out = np.zeros_like(x)
    for n in range(x.shape[0]):
        for t in range(x.shape[2]):
            which = list(range(x.shape[3])) if joints is None else list(joints[n, t])
            rows = [
                x[n, :, t, s] + (position_codes(j, x.shape[1]) if codes else 0)
                for s, j in enumerate(which)
            ]
            queries, keys, values = projections(rows, weights, "project", heads)
            by_head = []
            for h in range(heads):
                head = equation_1(queries[h], keys[h], values[h])
                of_head = weights["shared"][h] if weights["shared"].ndim == 3 else weights["shared"]
                for a, i in enumerate(which):
                    for b, j in enumerate(which):
                        head[a] += of_head[i, j] * values[h][b]
                by_head.append(head)
            for s in range(len(which)):
                joined = np.concatenate([head[s] for head in by_head])
                out[n, :, t, s] = update(x[n, :, t, s], joined, weights, "update")
    return out


def joint_part_attention(joints, parts, weights, heads):
    """Eq. 4 in both directions."""
    new_joints = np.zeros_like(joints)
    new_parts = np.zeros_like(parts)
    for n in range(joints.shape[0]):
        for t in range(joints.shape[2]):
            q_j, k_j, v_j = projections(joints[n, :, t].T, weights, "project_joints", heads)
            q_p, k_p, v_p = projections(parts[n, :, t].T, weights, "project_parts", heads)
            at_joints = np.concatenate(
                [equation_1(q_j[h], k_p[h], v_p[h]) for h in range(heads)], 1
            )
            at_parts = np.concatenate([equation_1(q_p[h], k_j[h], v_j[h]) for h in range(heads)], 1)
            for s, joined in enumerate(at_joints):
                new_joints[n, :, t, s] = update(
                    joints[n, :, t, s], joined, weights, "update_joints"
                )
            for s, joined in enumerate(at_parts):
                new_parts[n, :, t, s] = update(parts[n, :, t, s], joined, weights, "update_parts")
    return new_joints, new_parts


def focal_joints(x, direction, kept, gate, order):
    """Eq. 2 and 3: features (N, C, T, K), joints (N, T, K), scores (N, T, V)."""
    n_, c_, t_, v_ = x.shape
    length = math.sqrt(sum(w * w for w in direction))
    kept = min(kept, v_)
    features = np.zeros((n_, c_, t_, kept))
    joints = np.zeros((n_, t_, kept), int)
    scores = np.zeros((n_, t_, v_))
    for n in range(n_):
        for t in range(t_):
            for v in range(v_):
                scores[n, t, v] = 1 / (
                    1 + math.exp(-sum(x[n, c, t, v] * direction[c] for c in range(c_)) / length)
                )
            ranked = sorted(range(v_), key=lambda v: (-scores[n, t, v], v))[:kept]
            for s, v in enumerate(sorted(ranked) if order == "joint" else ranked):
                joints[n, t, s] = v
                features[n, :, t, s] = x[n, :, t, v] * (scores[n, t, v] if gate == "score" else 1)
    return features, joints, scores


def part_encoding(x, weight, bias, parts):
    """Embed a part's joints side by side, zeros up to the largest part; weight (O, C, 1, S)."""
    out = np.zeros((x.shape[0], len(weight), x.shape[2], len(parts)))
    for n in range(x.shape[0]):
        for t in range(x.shape[2]):
            for p, part in enumerate(parts):
                for o in range(len(weight)):
                    out[n, o, t, p] = bias[o]
                    for s, v in enumerate(part):
                        out[n, o, t, p] += sum(
                            weight[o, c, 0, s] * x[n, c, t, v] for c in range(x.shape[1])
                        )
    return out


def equation_5(x, weights, dilations, stride, attention, convolution):
    """The FG-TFormer block."""
    n_, c_, t_, v_ = x.shape
    kept = list(range(0, t_, stride))
    out = []
    for n in range(n_):
        for v in range(v_):
            rows = [x[n, :, t, v] + position_codes(t, c_) for t in range(t_)]
            by_head = []
            for h, dilation in enumerate(dilations):
                kernel = weights[f"values.{h}.weight"][:, :, :, 0]
                bias = weights[f"values.{h}.bias"]
                half = kernel.shape[2] // 2
                values = []
                for t in kept:
                    value = bias.copy()
                    for i in range(kernel.shape[2]):
                        source = t + (i - half) * dilation
                        if 0 <= source < t_:
                            value = value + kernel[:, :, i] @ rows[source]
                    values.append(value)
                values = np.array(values)
                if attention:
                    d = values.shape[1]
                    part = slice(h * d, (h + 1) * d)
                    queries = [
                        weights["queries.weight"][part] @ rows[t] + weights["queries.bias"][part]
                        for t in kept
                    ]
                    keys = [
                        weights["keys.weight"][part] @ rows[t] + weights["keys.bias"][part]
                        for t in kept
                    ]
                    fused = equation_1(queries, keys, values)
                    values = fused @ weights["mix"][h] + values if convolution else fused
                by_head.append(values)
            for i, t in enumerate(kept):
                joined = np.concatenate([head[i] for head in by_head])
                y = leaky_relu(
                    batch_norm(weights["project.weight"][:, :, 0, 0] @ joined, weights, "norm")
                )
                shortcut = x[n, :, t, v]
                if "shortcut.0.weight" in weights:
                    shortcut = batch_norm(
                        weights["shortcut.0.weight"][:, :, 0, 0] @ shortcut, weights, "shortcut.1"
                    )
                out.append(((n, i, v), y + shortcut))
    result = np.zeros((n_, len(out[0][1]), len(kept), v_))
    for (n, i, v), y in out:
        result[n, :, i, v] = y
    return result
