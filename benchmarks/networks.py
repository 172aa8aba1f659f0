"""Convolutional, recurrent and attention networks as workloads."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from benchmarks.definition import Array, Arrays, Optimizer, Workload, normal

HEADS = 4  # of the transformer
KERNEL = 5  # of LeNet, as high as wide


def _uniform(generator: np.random.Generator, *shape: int, bound: float) -> Array:
    values = generator.random(shape, dtype=np.float32)
    values -= np.float32(0.5)
    values *= np.float32(2 * bound)
    return values


def _filters(
    generator: np.random.Generator, outputs: int, kernel: int, inputs: int
) -> tuple[Array, int]:
    """Weights (out, kernel, kernel, in) for ReLU, and their multiplications for each pixel."""
    scale = (2 / (kernel * kernel * inputs)) ** 0.5
    weight = normal(generator, outputs, kernel, kernel, inputs, scale=scale)
    return weight, weight.size


def lenet(
    batch: int = 64,
    side: int = 28,
    channels: tuple[int, int] = (6, 16),
    widths: tuple[int, ...] = (120, 84, 10),
) -> Workload:
    """Convolutions with few channels, pooling, small products."""
    generator = np.random.default_rng(103)
    params: dict[str, Array] = {}
    products, before, extent = 0, 1, side
    for k, after in enumerate(channels):
        params[f"filter{k}"], each = _filters(generator, after, KERNEL, before)
        params[f"shift{k}"] = np.zeros(after, np.float32)
        extent -= KERNEL - 1 if k else 0  # the first is padded
        products += (3 if k else 2) * extent * extent * each
        before, extent = after, extent // 2
    features = extent * extent * before
    for k, width in enumerate(widths):
        params[f"weight{k}"] = normal(generator, features, width, scale=(2 / features) ** 0.5)
        params[f"bias{k}"] = np.zeros(width, np.float32)
        products += 3 * features * width
        features = width
    batches: list[Arrays] = [
        (normal(generator, batch, side, side, 1), generator.integers(0, widths[-1], batch))
        for _ in range(4)
    ]
    shape = "-".join(map(str, (*channels, *widths)))
    return Workload(
        "W3",
        f"LeNet {shape}, {side}x{side}, cross-entropy, momentum, batch {batch}",
        "lenet",
        "train",
        params,
        batches,
        Optimizer("momentum", (0.01,) * len(params)),
        matmul_flops=2.0 * batch * products,
    )


class _Convolutions:
    """Filters with a batch norm behind each, as they are added."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self.params: dict[str, Array] = {}
        self.state: list[Array] = []
        self.products = 0

    def add(self, name: str, inputs: int, outputs: int, kernel: int, side: int) -> None:
        """A convolution whose result is side x side; the first one has no gradient behind it."""
        passes = 3 if self.params else 2
        weight, each = _filters(self.generator, outputs, kernel, inputs)
        self.params[f"{name}_filter"] = weight
        self.params[f"{name}_scale"] = np.ones(outputs, np.float32)
        self.params[f"{name}_shift"] = np.zeros(outputs, np.float32)
        self.state += [np.zeros(outputs, np.float32), np.ones(outputs, np.float32)]
        self.products += passes * side * side * each


def residual_network(
    batch: int = 32,
    side: int = 32,
    channels: tuple[int, ...] = (32, 32, 64, 128),
    classes: int = 10,
) -> Workload:
    """Convolutions of middle size, batch norm between them.

    A stem, then blocks of two convolutions; a block that changes the number of channels halves
    height and width, and has a convolution on its shortcut.
    """
    generator = np.random.default_rng(104)
    layers = _Convolutions(generator)
    layers.add("stem", 3, channels[0], 3, side)
    extent = side
    for k, (before, after) in enumerate(pairwise(channels)):
        extent //= 1 if before == after else 2
        layers.add(f"block{k}_first", before, after, 3, extent)
        layers.add(f"block{k}_second", after, after, 3, extent)
        if before != after:
            layers.add(f"block{k}_shortcut", before, after, 1, extent)
    width = channels[-1]
    params = layers.params
    params["weight"] = normal(generator, width, classes, scale=(2 / width) ** 0.5)
    params["bias"] = np.zeros(classes, np.float32)
    batches: list[Arrays] = [
        (normal(generator, batch, side, side, 3), generator.integers(0, classes, batch))
        for _ in range(4)
    ]
    shape = "-".join(map(str, channels))
    return Workload(
        "W4",
        f"residual CNN {shape}, {side}x{side}, batch norm, cross-entropy, momentum, batch {batch}",
        "residual_network",
        "train",
        params,
        batches,
        Optimizer("momentum", (0.01,) * len(params)),
        matmul_flops=2.0 * batch * (layers.products + 3 * width * classes),
        state=layers.state,
    )


def transformer(
    batch: int = 8, length: int = 128, width: int = 128, layers: int = 4, letters: int = 96
) -> Workload:
    """Products of middle size with layer norm, softmax and GELU between them."""
    generator = np.random.default_rng(105)
    ones, zeros = np.ones, np.zeros
    params = {
        "letters": normal(generator, letters, width, scale=0.02),
        "positions": normal(generator, length, width, scale=0.02),
    }
    for k in range(layers):
        params |= {
            f"layer{k}_scale0": ones(width, np.float32),
            f"layer{k}_shift0": zeros(width, np.float32),
            f"layer{k}_qkv": normal(generator, width, 3 * width, scale=0.08),
            f"layer{k}_qkv_bias": zeros(3 * width, np.float32),
            f"layer{k}_out": normal(generator, width, width, scale=0.05),
            f"layer{k}_out_bias": zeros(width, np.float32),
            f"layer{k}_scale1": ones(width, np.float32),
            f"layer{k}_shift1": zeros(width, np.float32),
            f"layer{k}_up": normal(generator, width, 4 * width, scale=0.08),
            f"layer{k}_up_bias": zeros(4 * width, np.float32),
            f"layer{k}_down": normal(generator, 4 * width, width, scale=0.04),
            f"layer{k}_down_bias": zeros(width, np.float32),
        }
    params["scale"], params["shift"] = ones(width, np.float32), zeros(width, np.float32)
    params["head"] = normal(generator, width, letters, scale=0.08)
    batches: list[Arrays] = []
    for _ in range(4):
        text = generator.integers(0, letters, (batch, length + 1))
        batches.append((text[:, :-1].copy(), text[:, 1:].copy()))
    weights = layers * 12 * width * width + width * letters
    attention = layers * 2 * length * width  # of each position; masked halves counted
    return Workload(
        "W5",
        f"transformer, {layers} layers of width {width}, {HEADS} heads, {length} letters of "
        f"{letters}, AdamW, batch {batch}",
        "transformer",
        "train",
        params,
        batches,
        Optimizer("adamw", (3e-4,) * len(params)),
        matmul_flops=6.0 * batch * length * (weights + attention),
        exponentials=batch * length * (layers * (HEADS * length + 4 * width) + letters),
    )


def lstm(
    batch: int = 32, length: int = 64, inputs: int = 64, hidden: int = 128, classes: int = 10
) -> Workload:
    """A recurrence: every step waits for a small product."""
    generator = np.random.default_rng(109)
    bound = hidden**-0.5
    shapes = {
        "input_weight": (inputs, 4 * hidden),
        "hidden_weight": (hidden, 4 * hidden),
        "gate_bias": (4 * hidden,),
        "weight": (hidden, classes),
    }
    params = {name: _uniform(generator, *shape, bound=bound) for name, shape in shapes.items()}
    params["bias"] = np.zeros(classes, np.float32)
    batches: list[Arrays] = [
        (normal(generator, length, batch, inputs), generator.integers(0, classes, batch))
        for _ in range(4)
    ]
    return Workload(
        "W9",
        f"LSTM {inputs}-{hidden}, {length} steps, cross-entropy of the last, Adam, batch {batch}",
        "lstm",
        "train",
        params,
        batches,
        Optimizer("adam", (1e-3,) * len(params)),
        matmul_flops=2.0 * batch * length * 4 * hidden * (2 * inputs + 3 * hidden),
        exponentials=5.0 * batch * length * hidden,
    )
