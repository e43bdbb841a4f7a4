"""Every operator once more: numpy in float64, one row at a time, from its formula alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Weights = dict[str, np.ndarray]
Reference = Callable[[Weights, list[np.ndarray]], tuple[np.ndarray, np.ndarray | None]]
SIDE = 4
HEADS = 2
EXPERTS = 3
TEMPERATURE = 0.7


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def unit(v: np.ndarray) -> np.ndarray:
    """Mean square 1."""
    return v / math.sqrt((v**2).mean())


def projected(w: Weights, xs: list[np.ndarray]) -> list[np.ndarray]:
    return [
        w[f"projections.linear.{k}.weight"] @ x + w[f"projections.linear.{k}.bias"]
        for k, x in enumerate(xs)
    ]


def activated(w: Weights, xs: list[np.ndarray]) -> list[np.ndarray]:
    return [gelu(y) for y in projected(w, xs)]


def gated(w: Weights, xs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    z = activated(w, xs)
    g = softmax((w["gate.weight"] @ np.concatenate(z) + w["gate.bias"]) / TEMPERATURE)
    return sum((g[k] * z[k] for k in range(len(z))), np.zeros_like(z[0])), g


def concat(w: Weights, xs: list[np.ndarray]) -> tuple[np.ndarray, None]:
    return gelu(w["projection.weight"] @ np.concatenate(xs) + w["projection.bias"]), None


def total(w: Weights, xs: list[np.ndarray]) -> tuple[np.ndarray, None]:
    return np.sum(activated(w, xs), axis=0), None


def mean(w: Weights, xs: list[np.ndarray]) -> tuple[np.ndarray, None]:
    return np.mean(activated(w, xs), axis=0), None


def hadamard(w: Weights, xs: list[np.ndarray]) -> tuple[np.ndarray, None]:
    ys = projected(w, xs)
    return gelu(unit(np.prod(ys, axis=0))), None  # rescaling on the way cancels


def matmul(w: Weights, xs: list[np.ndarray]) -> tuple[np.ndarray, None]:
    first, *others = projected(w, xs)
    product = first.reshape(-1, SIDE)
    for y in others:
        product = product @ y.reshape(SIDE, SIDE)
    return gelu(unit(product.reshape(-1))), None


UNITS = {  # row times column, as (sign, unit), of 1, i, j, k
    (0, 0): (1, 0),
    (0, 1): (1, 1),
    (0, 2): (1, 2),
    (0, 3): (1, 3),
    (1, 0): (1, 1),
    (1, 1): (-1, 0),
    (1, 2): (1, 3),
    (1, 3): (-1, 2),
    (2, 0): (1, 2),
    (2, 1): (-1, 3),
    (2, 2): (-1, 0),
    (2, 3): (1, 1),
    (3, 0): (1, 3),
    (3, 1): (1, 2),
    (3, 2): (-1, 1),
    (3, 3): (-1, 0),
}


def quaternion(w: Weights, xs: list[np.ndarray]) -> tuple[np.ndarray, None]:
    product, *others = (y.reshape(-1, 4) for y in projected(w, xs))
    for y in others:
        result = np.zeros_like(product)
        for (left, right), (sign, place) in UNITS.items():
            result[:, place] += sign * product[:, left] * y[:, right]
        product = result
    return gelu(unit(product.reshape(-1))), None


def moe(w: Weights, xs: list[np.ndarray]) -> tuple[np.ndarray, None]:
    x = np.concatenate(xs)
    said = gelu(w["experts.weight"] @ x + w["experts.bias"]).reshape(EXPERTS, -1)
    g = softmax(w["gate.weight"] @ x + w["gate.bias"])
    return g @ said, None


def scalar_mix(w: Weights, xs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    g = softmax(w["scores"])
    return w["scale"] * (g @ np.stack(activated(w, xs))), g


def cooccurrence(w: Weights, xs: list[np.ndarray]) -> tuple[np.ndarray, None]:
    z = activated(w, xs)
    pairs = [(i, j) for i in range(len(z)) for j in range(i, len(z))]
    scores = [2 / (1 + math.exp(-w["scale"] * float(z[i] @ z[j]))) - 1 for i, j in pairs]
    return np.concatenate([scores, np.mean(z, axis=0)]), None


def attention(w: Weights, xs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    z = np.stack(activated(w, xs))
    width = z.shape[1]
    part = width // HEADS
    q, k, v = (
        z @ one.T + bias
        for one, bias in zip(
            np.split(w["attention.in_proj_weight"], 3),
            np.split(w["attention.in_proj_bias"], 3),
            strict=True,
        )
    )
    heads, weights = [], []
    for h in range(HEADS):
        cut = slice(h * part, (h + 1) * part)
        scores = q[:, cut] @ k[:, cut].T / math.sqrt(part)
        weights.append(np.stack([softmax(row) for row in scores]))
        heads.append(weights[-1] @ v[:, cut])
    attended = np.concatenate(heads, axis=1) @ w["attention.out_proj.weight"].T
    attended = attended + w["attention.out_proj.bias"]
    return (z + attended).mean(axis=0), np.mean(weights, axis=0).mean(axis=0)


def late(w: Weights, xs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    said = [
        np.log(softmax(w[f"heads.{k}.weight"] @ z + w[f"heads.{k}.bias"]))
        for k, z in enumerate(activated(w, xs))
    ]
    g = softmax(w["scores"])
    return np.log(softmax(g @ np.stack(said))), g


REFERENCES: dict[str, Reference] = {
    "gated": gated,
    "concat": concat,
    "sum": total,
    "mean": mean,
    "hadamard": hadamard,
    "matmul": matmul,
    "quaternion": quaternion,
    "moe": moe,
    "scalar_mix": scalar_mix,
    "cooccurrence": cooccurrence,
    "attention": attention,
    "late": late,
}
