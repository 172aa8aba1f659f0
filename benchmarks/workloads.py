"""The workloads by name, and in groups; `definition` says what one is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks import networks
from benchmarks.definition import Array, Arrays, Optimizer, Workload, normal, size


def _layers(generator: np.random.Generator, widths: tuple[int, ...]) -> dict[str, Array]:
    """Weights for ReLU, and zero biases."""
    params: dict[str, Array] = {}
    for k, (before, after) in enumerate(pairwise(widths)):
        params[f"weight{k}"] = normal(generator, before, after, scale=(2 / before) ** 0.5)
        params[f"bias{k}"] = np.zeros(after, np.float32)
    return params


def _layer_flops(widths: tuple[int, ...], batch: int) -> float:
    """Forward, gradient by the weights, and but for the first layer gradient by the input."""
    pairs = list(pairwise(widths))
    products = 3 * sum(a * b for a, b in pairs) - pairs[0][0] * pairs[0][1]
    return 2.0 * batch * products


def regression(batch: int = 32, hidden: int = 64) -> Workload:
    """A network so small that calls and launches are all there is."""
    generator = np.random.default_rng(101)
    params = _layers(generator, (3, hidden, 1))
    batches: list[Arrays] = []
    for _ in range(4):
        x = normal(generator, batch, 3)
        batches.append((x, np.cos(2 * x[:, :1]) * x[:, 1:2]))
    return Workload(
        "W1",
        f"MLP 3-{hidden}-1, tanh, squared error, SGD, batch {batch}",
        "tanh_mlp",
        "train",
        params,
        batches,
        Optimizer("sgd", (0.02,) * len(params)),
        matmul_flops=_layer_flops((3, hidden, 1), batch),
        exponentials=batch * hidden,
    )


def _classifier(
    name: str, title: str, widths: tuple[int, ...], batch: int, seed: int, rate: float
) -> Workload:
    """A ReLU network with cross-entropy and Adam, labels at random."""
    generator = np.random.default_rng(seed)
    params = _layers(generator, widths)
    batches: list[Arrays] = [
        (normal(generator, batch, widths[0]), generator.integers(0, widths[-1], batch))
        for _ in range(4)
    ]
    return Workload(
        name,
        title,
        "relu_mlp_loss",
        "train",
        params,
        batches,
        Optimizer("adam", (rate,) * len(params)),
        matmul_flops=_layer_flops(widths, batch),
        least_bytes=4.0 * 7 * size(params),
    )


def classifier(batch: int = 128, widths: tuple[int, ...] = (784, 512, 256, 10)) -> Workload:
    """Matrix products of middle size."""
    title = f"MLP {'-'.join(map(str, widths))}, cross-entropy, Adam, batch {batch}"
    return _classifier("W2", title, widths, batch, seed=102, rate=1e-4)


def deep_classifier(batch: int = 32, depth: int = 50, width: int = 64) -> Workload:
    """Many small layers: 102 parameters, 204 moments."""
    title = f"MLP of {depth} layers of width {width}, cross-entropy, Adam, batch {batch}"
    return _classifier("W11", title, (width,) * (depth + 1) + (10,), batch, seed=111, rate=2e-5)


def elementwise(size: int = 4 * 2**20) -> Workload:
    """Three transcendental functions, forward and gradient, one pass over memory if fused."""
    generator = np.random.default_rng(106)
    params = {
        "x": normal(generator, size),
        "a": np.full((), 0.9, np.float32),
        "b": np.full((), 0.1, np.float32),
    }
    return Workload(
        "W6",
        f"mean(tanh(a x + b) sigmoid(x) + exp(-x x)), {size:,} elements, SGD",
        "chain",
        "train",
        params,
        [()],
        Optimizer("sgd", (1e-3 * size, 0.1, 0.1)),  # the gradient by x is of order 1 / size
        least_bytes=2.0 * 4 * size,
        exponentials=3.0 * size,
    )


def normalised_softmax(rows: int = 4096, columns: int = 1024) -> Workload:
    """Reductions along rows, and what comes between them."""
    generator = np.random.default_rng(107)
    params = {
        "x": normal(generator, rows, columns),
        "gamma": np.ones(columns, np.float32),
        "beta": np.zeros(columns, np.float32),
    }
    return Workload(
        "W7",
        f"sum(softmax(layernorm(x)) w) / rows, {rows}x{columns}, SGD",
        "norm_softmax",
        "train",
        params,
        [(generator.random((rows, columns), dtype=np.float32),)],
        Optimizer("sgd", (1.0 * rows, 0.1, 0.1)),
        least_bytes=3.0 * 4 * rows * columns,
        exponentials=1.0 * rows * columns,
    )


def adam_alone(count: int = 10, side: int = 1024) -> Workload:
    """Memory traffic: three arrays are read and written, a fourth is read."""
    generator = np.random.default_rng(108)
    params = {f"weight{k}": normal(generator, side, side) for k in range(count)}
    gradients = tuple(normal(generator, side, side, scale=0.01) for _ in range(count))
    return Workload(
        "W8",
        f"Adam on {count} arrays of {side}x{side}",
        "none",
        "update",
        params,
        [gradients],
        Optimizer("adam", (1e-3,) * count),
        least_bytes=4.0 * 7 * size(params),
    )


def inference(widths: tuple[int, ...] = (784, 512, 256, 10)) -> Workload:
    """Latency of one row from NumPy to NumPy: products with one row read every weight once."""
    generator = np.random.default_rng(102)
    params = _layers(generator, widths)
    return Workload(
        "W10",
        f"MLP {'-'.join(map(str, widths))} applied to one row, NumPy in and out",
        "relu_mlp",
        "infer",
        params,
        [(normal(generator, 1, widths[0]),) for _ in range(16)],
        matmul_flops=2.0 * size(params),
        least_bytes=4.0 * size(params),
    )


def product(m: int, k: int, n: int) -> Workload:
    """One matrix product, called through the peer's front door."""
    generator = np.random.default_rng(120)
    return Workload(
        f"matmul {m}x{k}x{n}",
        f"a @ b, {m}x{k} by {k}x{n}",
        "product",
        "call",
        {},
        [(normal(generator, m, k), normal(generator, k, n))],
        matmul_flops=2.0 * m * k * n,
    )


def small_call(model: str, captured: int) -> Workload:
    """Arrays of eight elements: the time is that of the call."""
    generator = np.random.default_rng(121)
    params = {f"p{k}": normal(generator, 8) for k in range(captured)}
    titles = {
        "add_all": f"compiled call, 2 arrays, {captured} parameters, all of them added",
        "capture_all": f"compiled call, 2 arrays, {captured} parameters captured, x + y returned",
        "add": "x + y of 8 elements",
        "exp": "exp(x) of 8 elements",
    }
    name = f"{model.replace('_', '-')} {captured}" if captured else model
    batch = (normal(generator, 8), normal(generator, 8))
    return Workload(name, titles[model], model, "call", params, [batch])


TINY: dict[str, dict[str, Any]] = {  # the same code in milliseconds, for tests
    "W1": {"batch": 8, "hidden": 16},
    "W2": {"batch": 8, "widths": (12, 16, 8, 5)},
    "W3": {"batch": 3, "side": 16, "channels": (2, 3), "widths": (7, 6, 5)},
    "W4": {"batch": 4, "side": 8, "channels": (8, 8, 16), "classes": 5},
    "W5": {"batch": 2, "length": 6, "width": 8, "layers": 2, "letters": 11},
    "W6": {"size": 1000},
    "W7": {"rows": 6, "columns": 20},
    "W8": {"count": 2, "side": 5},
    "W9": {"batch": 3, "length": 5, "inputs": 4, "hidden": 6, "classes": 5},
    "W10": {"widths": (12, 16, 8, 5)},
    "W11": {"batch": 4, "depth": 4, "width": 8},
}
STEPS: dict[str, Callable[..., Workload]] = {
    "W1": regression,
    "W2": classifier,
    "W3": networks.lenet,
    "W4": networks.residual_network,
    "W5": networks.transformer,
    "W6": elementwise,
    "W7": normalised_softmax,
    "W8": adam_alone,
    "W9": networks.lstm,
    "W10": inference,
    "W11": deep_classifier,
}
PRODUCTS = [(n, n, n) for n in (64, 128, 256, 512, 1024)] + [
    (32, 64, 64),
    (128, 784, 512),
    (1, 784, 512),
    (1024, 128, 512),
]
CALLS = [(model, n) for n in (6, 20, 200) for model in ("capture_all", "add_all")] + [
    ("add", 0),
    ("exp", 0),
]
_OTHERS = {
    **{f"matmul {m}x{k}x{n}": (product, (m, k, n)) for m, k, n in PRODUCTS},
    **{small_call(*row).name: (small_call, row) for row in CALLS},
}
GROUPS: dict[str, list[str]] = {  # what one process of a peer measures
    **{name: [name] for name in STEPS},
    "matmul": [name for name in _OTHERS if name.startswith("matmul")],
    "calls": [name for name in _OTHERS if not name.startswith("matmul")],
}


def make(name: str, *, tiny: bool = False) -> Workload:
    """The workload of that name; `tiny` for tests."""
    if name in STEPS:
        return STEPS[name](**TINY[name] if tiny else {})
    build, sizes = _OTHERS[name]
    return build(*sizes)


def in_float64(workload: Workload) -> Workload:
    """The same numbers in double precision: what the reference computes with."""
    params = {name: values.astype(np.float64) for name, values in workload.params.items()}
    batches = [
        tuple(x.astype(np.float64) if x.dtype == np.float32 else x for x in batch)
        for batch in workload.batches
    ]
    return replace(workload, params=params, batches=batches)
