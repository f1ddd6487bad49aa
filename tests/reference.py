"""Compute STF, "Towards To-a-T Spatio-Temporal Focus", slowly: float64 loops, by the paper alone.

Axes: N batch, C channels, T frames, V joints, M persons, K subsets. Feature maps are
(N*M, C, T, V), row n*M + m; skeleton sequences are (N, C, T, V, M); focus maps are (N, M, T, V).
Nothing here is fast, and nothing should be.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

# ------------------------------------------------------------------------------- A_k and equation 1


def hop_distance(num_joints, bones):
    """Count the bones between joints (Floyd-Warshall): (V, V) int, -1 where no path joins them."""
    hops = [[0 if v == w else math.inf for w in range(num_joints)] for v in range(num_joints)]
    for v, w in bones:
        hops[v][w] = hops[w][v] = 1
    for via in range(num_joints):
        for v in range(num_joints):
            for w in range(num_joints):
                hops[v][w] = min(hops[v][w], hops[v][via] + hops[via][w])
    return np.array([[-1 if math.isinf(h) else int(h) for h in row] for row in hops], dtype=int)


def multi_scale_adjacency(num_joints, bones, num_scales):
    """Compute A_k of eq. 1, k = 0 .. K-1, as D^-1/2 A D^-1/2: (K, V, V).

    A_k joins the joints exactly k hops apart, and each joint to itself.
    """
    hops = hop_distance(num_joints, bones)
    result = np.zeros((num_scales, num_joints, num_joints))
    for k in range(num_scales):
        linked = [[v == w or hops[v, w] == k for w in range(num_joints)] for v in range(num_joints)]
        for v in range(num_joints):
            for w in range(num_joints):
                if linked[v][w]:
                    result[k, v, w] = 1.0 / math.sqrt(sum(linked[v]) * sum(linked[w]))
    return result


def spatial_partition(num_joints, bones_child_parent):
    """Compute A_k of eq. 1 as three subsets, (3, V, V).

    They are itself, A[parent, child] and A[child, parent]; columns sum to 1 or 0.
    """
    result = np.zeros((3, num_joints, num_joints))
    for v in range(num_joints):
        result[0, v, v] = 1.0
    for child, parent in bones_child_parent:
        result[1, parent, child] = 1.0
        result[2, child, parent] = 1.0
    for k in range(3):
        for w in range(num_joints):
            total_w = sum(result[k, v, w] for v in range(num_joints))
            for v in range(num_joints):
                if total_w > 0:
                    result[k, v, w] /= total_w
    return result


def graph_conv(x, weight, adjacency, bias=None):
    """Compute eq. 1, a graph convolution.

    out[n,o,t,w] = sum_k sum_c sum_v weight[k,o,c] x[n,c,t,v] adjacency[(n,)k,v,w] (+ bias[o]).

    x (N, C, T, V), weight (K, O, C), adjacency A_k (K, V, V) or A_k + G_k (N, K, V, V)
    -> (N, O, T, V).
    """
    rows, channels, frames, joints = x.shape
    subsets, outputs, _ = weight.shape
    out = np.zeros((rows, outputs, frames, joints))
    for n in range(rows):
        graph = adjacency[n] if adjacency.ndim == 4 else adjacency
        for o in range(outputs):
            for t in range(frames):
                for w in range(joints):
                    value = 0.0 if bias is None else float(bias[o])
                    for k in range(subsets):
                        for c in range(channels):
                            for v in range(joints):
                                value += (
                                    float(weight[k, o, c])
                                    * float(x[n, c, t, v])
                                    * float(graph[k, v, w])
                                )
                    out[n, o, t, w] = value
    return out


def window_conv(x, weight, adjacency, stride=1):
    """Convolve over windows of frames: each term of the sum alone, zeros beyond the clip's ends.

    x (N, C, T, V), weight (K, O, C), adjacency (K, w * V, w * V) -> (N, O, ceil(T / stride),
    w * V).
    """
    batch, channels, frames, joints = x.shape
    subsets, outputs, _ = weight.shape
    size = adjacency.shape[1]
    window = size // joints
    starts = range(-(window // 2), frames - window // 2, stride)
    y = np.zeros((batch, outputs, len(starts), size))
    for n, o, k, c in itertools.product(
        range(batch), range(outputs), range(subsets), range(channels)
    ):
        for place, start in enumerate(starts):
            for source, target in itertools.product(range(size), range(size)):
                frame = start + source // joints
                if 0 <= frame < frames:
                    value = x[n, c, frame, source % joints]
                    y[n, o, place, target] += weight[k, o, c] * value * adjacency[k, source, target]
    return y


def temporal_conv(x, weight, bias=None, stride=1, dilation=1):
    """Convolve over time by a kernel S x 1.

    out[n,o,t,v] = sum_c sum_s weight[o,c,s] x[n,c,t*stride + s*dilation - pad,v].

    pad = dilation*(S-1)//2 zero frames on both sides. x (N, C, T, V), weight (O, C, S) or
    (O, C, S, 1).
    """
    rows, channels, frames, joints = x.shape
    outputs, _, size = weight.shape[:3]
    weight = weight.reshape(outputs, channels, size)
    pad = dilation * (size - 1) // 2
    kept = (frames + 2 * pad - dilation * (size - 1) - 1) // stride + 1
    out = np.zeros((rows, outputs, kept, joints))
    for n in range(rows):
        for o in range(outputs):
            for t in range(kept):
                for v in range(joints):
                    value = 0.0 if bias is None else float(bias[o])
                    for s in range(size):
                        source = t * stride + s * dilation - pad
                        if 0 <= source < frames:
                            for c in range(channels):
                                value += float(weight[o, c, s]) * float(x[n, c, source, v])
                    out[n, o, t, v] = value
    return out


# ---------------------------------------------------------------------------- the focus, equation 2


def _log_sum_exp(values):
    """log sum exp(values), the largest taken out first so that nothing overflows."""
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def log_odds(logits, y):
    """Compute log(p / (1 - p)), a score for eq. 2: logits (N, classes) -> (N,).

    It is z_y - log sum_{k != y} exp(z_k).
    """
    scores = np.zeros(len(logits))
    for n, row in enumerate(logits):
        scores[n] = float(row[y[n]]) - _log_sum_exp(
            [float(z) for k, z in enumerate(row) if k != y[n]]
        )
    return scores


def probability(logits, y):
    """Score y-hat of eq. 2 as printed: softmax(z)_y. logits (N, classes), y (N,) -> (N,)."""
    scores = np.zeros(len(logits))
    for n, row in enumerate(logits):
        scores[n] = math.exp(float(row[y[n]]) - _log_sum_exp([float(z) for z in row]))
    return scores


def min_max(q):
    """Compute eq. 2's "min-max normalization" to [0, 1] of a sample's array; constant: zeros."""
    values = [float(q[i]) for i in np.ndindex(*q.shape)]
    low = min(values)
    high = max(values)
    out = np.zeros(q.shape)
    for i in np.ndindex(*q.shape):
        if high > low:
            out[i] = (float(q[i]) - low) / (high - low)
    return out


def grad_cam(derivative, features, num_persons):
    """Eq. 2: Q = min_max(ReLU(sum_c (1/Z sum_{m,t,v} dscore/dX) X)), Z = M*T*V, per sample.

    derivative dscore[n]/dX and features X (N*M, C, T, V) -> Q (N, M, T, V).
    """
    rows, channels, frames, joints = features.shape
    batch = rows // num_persons
    q = np.zeros((batch, num_persons, frames, joints))
    for n in range(batch):
        for c in range(channels):
            alpha = 0.0
            for m in range(num_persons):
                for t in range(frames):
                    for v in range(joints):
                        alpha += float(derivative[n * num_persons + m, c, t, v]) / (
                            num_persons * frames * joints
                        )
            for m in range(num_persons):
                for t in range(frames):
                    for v in range(joints):
                        q[n, m, t, v] += alpha * float(features[n * num_persons + m, c, t, v])
        for i in np.ndindex(*q[n].shape):
            q[n][i] = max(q[n][i], 0.0)
        q[n] = min_max(q[n])
    return q


def linear_head_logits(features, weight, bias, num_persons):
    """z_k = sum_c weight[k,c] (1/Z sum_{m,t,v} X_cmtv) + bias[k], Z = M*T*V.

    features (N*M, C, T, V), weight (classes, C), bias (classes,) or None -> (N, classes).
    """
    rows, channels, frames, joints = features.shape
    logits = np.zeros((rows // num_persons, len(weight)))
    for n in range(rows // num_persons):
        for k in range(len(weight)):
            logits[n, k] = 0.0 if bias is None else float(bias[k])
            for c in range(channels):
                pooled = 0.0
                for m in range(num_persons):
                    for t in range(frames):
                        for v in range(joints):
                            pooled += float(features[n * num_persons + m, c, t, v]) / (
                                num_persons * frames * joints
                            )
                logits[n, k] += float(weight[k, c]) * pooled
    return logits


def score_derivative(logits, y, score="log_odds"):
    """d score[n] / d logits[n, k] for eq. 2, (N, classes).

    logit: 1 for k = y, else 0; log-odds: 1 for k = y, else -softmax over the other classes;
    probability: p_y (1 - p_y), else -p_y p_k.
    """
    out = np.zeros(logits.shape)
    for n, row in enumerate(logits):
        if score == "logit":
            out[n, y[n]] = 1.0
            continue
        others = [k for k in range(len(row)) if k != y[n]]
        if score == "log_odds":
            rest = _log_sum_exp([float(row[k]) for k in others])
            factor = 1.0
        elif score == "probability":
            rest = _log_sum_exp([float(z) for z in row])
            factor = math.exp(float(row[y[n]]) - rest)
        else:
            raise ValueError(
                "score_derivative: expected score 'logit', 'log_odds' or 'probability', "
                f"got {score!r}"
            )
        for k in others:
            out[n, k] = -factor * math.exp(float(row[k]) - rest)
            out[n, y[n]] -= out[n, k]  # the score does not change when every logit moves alike
    return out


def focus_linear_head(features, weight, bias, classes, num_persons, score="log_odds"):
    """Compute eq. 2 if average pooling over (M, T, V) and a linear layer follow X.

    dz_k/dX_cmtv = weight[k,c] / (M*T*V).

    features (N*M, C, T, V), weight (classes, C), bias (classes,) or None, classes (N,) -> Q
    (N, M, T, V).
    """
    rows, channels, frames, joints = features.shape
    by_logit = score_derivative(
        linear_head_logits(features, weight, bias, num_persons), classes, score
    )
    derivative = np.zeros(features.shape)
    for row in range(rows):
        for c in range(channels):
            for t in range(frames):
                for v in range(joints):
                    for k in range(len(weight)):
                        by_feature = float(weight[k, c]) / (num_persons * frames * joints)
                        derivative[row, c, t, v] += by_logit[row // num_persons, k] * by_feature
    return grad_cam(derivative, features, num_persons)


def focus_by_differences(score_fn, features, num_persons, step=1e-5):
    """Compute eq. 2 with dscore/dX by central differences.

    score_fn maps features (N*M, C, T, V) to scores (N,) -> Q.
    """
    derivative = np.zeros(features.shape)
    for i in np.ndindex(*features.shape):
        above = np.array(features, dtype=float)
        below = np.array(features, dtype=float)
        size = step * max(1.0, abs(float(features[i])))
        above[i] += size
        below[i] -= size
        n = i[0] // num_persons
        derivative[i] = (float(score_fn(above)[n]) - float(score_fn(below)[n])) / (2 * size)
    return grad_cam(derivative, features, num_persons)


# ---------------------------------------------------------------------------- losses, equations 3-6


def resize_frames(q, frames):
    """Resize Q to another frame rate, (..., T', V) -> (..., frames, V).

    It is linear in time, with half-pixel centres. Output frame t reads source position (t + 0.5)
    T'/T - 0.5, held within [0, T'-1].
    """
    *lead, old, joints = q.shape
    out = np.zeros((*lead, frames, joints))
    for t in range(frames):
        position = min(max((t + 0.5) * old / frames - 0.5, 0.0), old - 1.0)
        before = math.floor(position)
        after = min(before + 1, old - 1)
        part = position - before
        for i in np.ndindex(*lead):
            for v in range(joints):
                out[(*i, t, v)] = (1 - part) * float(q[(*i, before, v)]) + part * float(
                    q[(*i, after, v)]
                )
    return out


def mask_by_focus(x, q):
    """Compute the input of eq. 3, X - Q * X, every channel alike.

    x (N, C, T, V, M), q (N, M, T, V) -> (N, C, T, V, M).
    """
    out = np.zeros(x.shape)
    for n, c, t, v, m in np.ndindex(*x.shape):
        out[n, c, t, v, m] = float(x[n, c, t, v, m]) - float(q[n, m, t, v]) * float(
            x[n, c, t, v, m]
        )
    return out


def exploration_loss(masked_logits, y):
    """Compute eq. 3, L_e = g^y(X - Q * X), as the mean over n.

    It is the masked input's probability of the class predicted before.
    """
    return sum(float(p) for p in probability(masked_logits, y)) / len(masked_logits)


def _distance(a, b):
    """Euclidean norm of a - b over all entries of one sample."""
    return math.sqrt(sum((float(a[i]) - float(b[i])) ** 2 for i in np.ndindex(*a.shape)))


def divergence_loss(q_i, q_j):
    """Compute eq. 4, L_d = -||Q^{y_i} - Q^{y_j}||_2 of the top two, (N, M, T, V); mean over n."""
    return -sum(_distance(q_i[n], q_j[n]) for n in range(len(q_i))) / len(q_i)


def coherence_loss(q_i, q_j):
    """Compute eq. 5, L_c = ||Q_i - Q_j||_2 of two layers, as the mean over n.

    The maps are (N, M, T_i, V) and (N, M, T_j, V), compared at the longer T.
    """
    frames = max(q_i.shape[-2], q_j.shape[-2])
    q_i = resize_frames(q_i, frames)
    q_j = resize_frames(q_j, frames)
    return sum(_distance(q_i[n], q_j[n]) for n in range(len(q_i))) / len(q_i)


def adjacency_focus_loss(q, embeddings):
    """L_G = ||Q - beta(X^l)||_2 per sample over (M, T_l, V); mean over the modules l and over n.

    q (N, M, T', V) is resized to T_l; embeddings is a list of beta(X^l), (N*M, T_l, V) each.
    """
    batch, persons = q.shape[:2]
    value = 0.0
    for embedding in embeddings:
        target = resize_frames(q, embedding.shape[1])
        for n in range(batch):
            squares = 0.0
            for m in range(persons):
                squares += _distance(target[n, m], embedding[n * persons + m]) ** 2
            value += math.sqrt(squares) / (batch * len(embeddings))
    return value


def cross_entropy(logits, target):
    """Compute L_ce of eq. 6, log sum_k exp(z_k) - z_target, as the mean over n.

    logits (N, classes), target (N,).
    """
    value = 0.0
    for n, row in enumerate(logits):
        value += _log_sum_exp([float(z) for z in row]) - float(row[target[n]])
    return value / len(logits)


def total(ce, terms, weights):
    """Compute eq. 6, L = L_ce + sum of lambda * L, from dicts by name.

    A weight of 0 needs no term.
    """
    value = float(ce)
    for name, weight in weights.items():
        if weight != 0:
            value += float(weight) * float(terms[name])
    return value


# --------------------------------------------------------- "Data preparation", x is (N, C, T, V, M)


def center(x, joint):
    """Prepare by "subtracting each joint position by the center joint position", frame by frame."""
    out = np.zeros(x.shape)
    for n, c, t, v, m in np.ndindex(*x.shape):
        out[n, c, t, v, m] = float(x[n, c, t, v, m]) - float(x[n, c, t, joint, m])
    return out


def mean_length(body, seen, joints):
    """The mean length of a chain of joints over the frames that show all of them, or None.

    body is (C, T, V), seen (T, V).
    """
    lengths = []
    for t in range(body.shape[1]):
        if all(seen[t, v] > 0 for v in joints):
            length = 0.0
            for v, w in itertools.pairwise(joints):
                length += math.dist(*([float(a) for a in body[:, t, joint]] for joint in (v, w)))
            lengths.append(length)
    return sum(lengths) / len(lengths) if lengths else None


def mean_diagonal(body, seen):
    """The mean diagonal of the box around the visible joints, over the frames with any, or 0."""
    diagonals = []
    for t in range(body.shape[1]):
        shown = [body[:, t, v] for v in range(body.shape[2]) if seen[t, v] > 0]
        if shown:
            sides = [float(max(axis) - min(axis)) for axis in zip(*shown, strict=True)]
            diagonals.append(math.hypot(*sides))
    return sum(diagonals) / len(diagonals) if diagonals else 0.0


def body_height(x, visibility, path, bones=(), mirror=None):
    """Data preparation: the "body height", (N,): bone lengths summed along the joints of path.

    The mean over the frames in which all joints of path are visible (visibility (N, T, V, M), 1 or
    0), then the largest over persons that have such a frame. When nobody has, each bone of path by
    itself, over the frames in which it is visible; else its mirror image; else the mean of path's
    known bones, or of all known ``bones``; of the persons with the most known bones, the largest
    sum. Without any bone, the mean diagonal of the box around the joints; 1.0 when that is 0, too.
    """
    mirror = range(x.shape[3]) if mirror is None else mirror
    heights = np.ones(len(x))
    for n in range(len(x)):
        whole = []
        estimates = []
        boxes = []
        for m in range(x.shape[4]):
            body = x[n, ..., m]
            seen = visibility[n, ..., m]
            whole.append(mean_length(body, seen, path))
            lengths = []
            for v, w in itertools.pairwise(path):
                own = mean_length(body, seen, (v, w))
                other = mean_length(body, seen, (mirror[v], mirror[w]))
                lengths.append(other if own is None else own)
            known = [length for length in lengths if length is not None]
            every = [mean_length(body, seen, bone) for bone in bones]
            rest = known or [length for length in every if length is not None]
            if rest:
                mean = sum(rest) / len(rest)
                total = sum(mean if length is None else length for length in lengths)
                estimates.append((len(known), total))
            boxes.append(mean_diagonal(body, seen))
        whole = [length for length in whole if length is not None]
        if whole:
            heights[n] = max(whole)
        elif estimates:
            heights[n] = max(estimates)[1]
        else:
            heights[n] = max(boxes) or 1.0
    return heights


def repeat_frames(x, lengths, frames):
    """Prepare by "padded to T frames by repeating": frame t of the output is t % lengths[n]."""
    batch, channels, _, joints, persons = x.shape
    out = np.zeros((batch, channels, frames, joints, persons))
    for n, c, t, v, m in np.ndindex(*out.shape):
        out[n, c, t, v, m] = x[n, c, t % int(lengths[n]), v, m]
    return out


def bone(x, parents):
    """The bone stream (B): x[v] - x[parents[v]]; the centre is its own parent and gives 0."""
    out = np.zeros(x.shape)
    for n, c, t, v, m in np.ndindex(*x.shape):
        out[n, c, t, v, m] = float(x[n, c, t, v, m]) - float(x[n, c, t, parents[v], m])
    return out


def motion(x):
    """The motion stream: x[t+1] - x[t]; the last frame is 0."""
    out = np.zeros(x.shape)
    for n, c, t, v, m in np.ndindex(*x.shape):
        if t + 1 < x.shape[2]:
            out[n, c, t, v, m] = float(x[n, c, t + 1, v, m]) - float(x[n, c, t, v, m])
    return out
