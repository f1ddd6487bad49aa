"""Slow reference of BAGCN (Gao et al., 2019): plain loops over float64, from the paper alone.

Feature maps are (N, C, T, V). Weights are dictionaries of arrays, as a layer's state_dict names
them.
"""

from __future__ import annotations

import math

import numpy as np


def directed_graph(num_joints, bones, center, outward):
    """Make section 3.1's {root, closer} outward, {root, far} inward, divided by both degrees."""
    distance = [math.inf] * num_joints
    distance[center] = 0
    for _ in range(num_joints):
        for a, b in bones:
            distance[a] = min(distance[a], distance[b] + 1)
            distance[b] = min(distance[b], distance[a] + 1)
    subsets = np.zeros((2, num_joints, num_joints))
    for source in range(num_joints):
        for target in range(num_joints):
            if source == target:
                subsets[0, source, target] = 1
            elif (source, target) in bones or (target, source) in bones:
                if distance[source] == distance[target]:
                    subsets[0, source, target] = 1
                elif (distance[source] < distance[target]) == outward:
                    subsets[1, source, target] = 1
    normalised = np.zeros_like(subsets)
    for s in range(2):
        for source in range(num_joints):
            for target in range(num_joints):
                if subsets[s, source, target]:
                    out = sum(subsets[s, source, w] for w in range(num_joints))
                    into = sum(subsets[s, v, target] for v in range(num_joints))
                    normalised[s, source, target] = 1 / (math.sqrt(out) * math.sqrt(into))
    return normalised


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def equation_4(x, weights, focus, normalize="sigmoid"):
    """The latent node (N, C, T) and the weights (N, T, V): attention, mean or max."""
    n_, c_, t_, v_ = x.shape
    embed = weights["embed.weight"][:, :, 0, 0]
    latent = np.zeros((n_, c_, t_))
    shares = np.ones((n_, t_, v_))
    for n in range(n_):
        for t in range(t_):
            joints = [embed @ x[n, :, t, v] for v in range(v_)]
            if focus == "mean":
                latent[n, :, t] = sum(joints) / v_
            elif focus == "max":
                latent[n, :, t] = [max(joint[c] for joint in joints) for c in range(c_)]
            else:
                scores = [
                    float(weights["score.weight"][0, :, 0, 0] @ x[n, :, t, v])
                    + weights["score.bias"][0]
                    for v in range(v_)
                ]
                if normalize == "sigmoid":
                    shares[n, t] = [sigmoid(score) for score in scores]
                else:
                    total = sum(math.exp(score) for score in scores)
                    shares[n, t] = [math.exp(score) / total for score in scores]
                for v in range(v_):
                    latent[n, :, t] += shares[n, t, v] * joints[v]
    return latent, shares


def lstm_layer(rows, weights, name, width):
    """Equations 5 and 6, one direction; rows (T, C) in the order in which they are read."""
    hidden = np.zeros(width)
    cell = np.zeros(width)
    out = []
    for row in rows:
        gates = weights[f"weight_ih_{name}"] @ row + weights[f"bias_ih_{name}"]
        gates = gates + weights[f"weight_hh_{name}"] @ hidden + weights[f"bias_hh_{name}"]
        for j in range(width):
            i, f, g, o = (gates[part * width + j] for part in range(4))  # PyTorch's order
            cell[j] = sigmoid(f) * cell[j] + sigmoid(i) * math.tanh(g)
            hidden[j] = sigmoid(o) * math.tanh(cell[j])
        out.append(hidden.copy())
        hidden = hidden.copy()
        cell = cell.copy()
    return out


def context(x, weights, layers, bidirectional, lengths=None):
    """Projection by W_2 and stacked LSTM layers of each joint's sequence, its true frames alone."""
    n_, _, t_, v_ = x.shape
    lstm = {
        name.removeprefix("lstm."): value
        for name, value in weights.items()
        if name.startswith("lstm.")
    }
    width = lstm["weight_hh_l0"].shape[1]
    y = np.zeros((n_, width * (2 if bidirectional else 1), t_, v_))
    for n in range(n_):
        for v in range(v_):
            length = t_ if lengths is None else lengths[n]
            rows = [weights["project.weight"][:, :, 0, 0] @ x[n, :, t, v] for t in range(length)]
            for layer in range(layers):
                forward = lstm_layer(rows, lstm, f"l{layer}", width)
                if bidirectional:
                    backward = lstm_layer(rows[::-1], lstm, f"l{layer}_reverse", width)[::-1]
                    rows = [np.concatenate(pair) for pair in zip(forward, backward, strict=True)]
                else:
                    rows = forward
            for t in range(length):
                y[n, :, t, v] = rows[t]
    return y


def equation_7(x, latent, shares, weights):
    """[f_in, f_g] W_3 at every joint; latent (N, D, T)."""
    n_, c_, t_, v_ = x.shape
    y = np.zeros((n_, c_, t_, v_))
    for n in range(n_):
        for t in range(t_):
            for v in range(v_):
                both = np.concatenate([x[n, :, t, v], shares[n, t, v] * latent[n, :, t]])
                y[n, :, t, v] = weights["mix.weight"][:, :, 0, 0] @ both + weights["mix.bias"]
    return y


def graph_convolution(x, weights, name, norm):
    """Compute equations 1 and 3: each subset weighted; BatchNorm by running statistics; ReLU."""
    n_, _, t_, v_ = x.shape
    w = weights[f"{name}.weight"]
    edges = weights[f"{name}.importance"] * weights[f"{name}.adjacency"]
    y = np.zeros((n_, w.shape[1], t_, v_))
    for n in range(n_):
        for t in range(t_):
            for target in range(v_):
                for s in range(len(w)):
                    for source in range(v_):
                        y[n, :, t, target] += edges[s, source, target] * (w[s] @ x[n, :, t, source])
    for c in range(w.shape[1]):
        scale = weights[f"{norm}.weight"][c] / math.sqrt(weights[f"{norm}.running_var"][c] + 1e-5)
        y[:, c] = (y[:, c] - weights[f"{norm}.running_mean"][c]) * scale + weights[f"{norm}.bias"][
            c
        ]
    return np.where(y > 0, y, 0.0)


def block(x, weights, focus, direction, normalize="sigmoid", lengths=None):
    """Equations 1 to 3, whole."""

    def of(part):
        return {
            name.removeprefix(f"{part}."): value
            for name, value in weights.items()
            if name.startswith(f"{part}.")
        }

    middle = graph_convolution(x, weights, "outward", "outward_norm")
    if focus != "none":
        latent, shares = equation_4(middle, of("focus"), focus, normalize)
        if direction != "none":
            both = direction == "bidirectional"
            latent = context(latent[..., None], of("context"), 2, both, lengths)[..., 0]
        middle = equation_7(middle, latent, shares, of("diffusion"))
    return graph_convolution(middle, weights, "inward", "inward_norm")
