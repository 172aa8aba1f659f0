"""Layers whose batch or length is padded: values and gradients have the bits of exact calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bucket_checks import check_padded

import einkorn as ek
from einkorn import nn

RANDOM = np.random.default_rng(0)
SEQUENCES = RANDOM.normal(size=(20, 6, 8)).astype("float32")
IMAGES = RANDOM.normal(size=(20, 8, 8, 4)).astype("float32")
TOKENS = RANDOM.integers(0, 6, (20, 6))


def batch(n: int) -> tuple[Any, ...]:
    """[n, 6, 8]"""
    return (SEQUENCES[:n],)


def length(n: int) -> tuple[Any, ...]:
    """[4, n, 8]"""
    return (np.resize(SEQUENCES, (4, n, 8)),)


def images(n: int) -> tuple[Any, ...]:
    """[n, 8, 8, 4]"""
    return (IMAGES[:n],)


def tokens(n: int) -> tuple[Any, ...]:
    """[n, 6]"""
    return (TOKENS[:n],)


def text(n: int) -> tuple[Any, ...]:
    """[3, n]"""
    return (np.resize(TOKENS, (3, n)),)


def embedded(*layers: Any) -> nn.Module:
    return nn.Sequential(nn.Embedding(6, 8), *layers)


BATCHES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)), batch),
    "attention": (lambda: nn.MultiHeadAttention(8, 2), batch),
    "encoder": (lambda: nn.TransformerEncoderBlock(8, 2, hidden=12), batch),
    "causal": (lambda: embedded(nn.TransformerEncoderBlock(8, 2, causal=True)), tokens),
    "rotary": (lambda: nn.TransformerEncoderBlock(8, 2, rotary=True, kv_heads=1), batch),
    "lstm": (lambda: nn.LSTM(8, 5), batch),
    "gru": (lambda: nn.GRU(8, 5, num_layers=2), batch),
    "bidirectional": (lambda: nn.LSTM(8, 4, bidirectional=True), batch),
    "conv 1": (lambda: nn.Conv1D(8, 3, 3), batch),
    "conv 2": (lambda: nn.Conv2D(4, 3, 3, padding="same"), images),
    "transposed": (lambda: nn.Conv2DTranspose(4, 3, 3), images),
    "depthwise": (lambda: nn.DepthwiseConv2D(4, 3), images),
    "batch norm": (lambda: nn.BatchNorm(4), images),
    "group norm": (lambda: nn.GroupNorm(2, 4), images),
    "instance norm": (lambda: nn.InstanceNorm(4), images),
    "convnet": (
        lambda: nn.Sequential(
            nn.Conv2D(4, 6, 3),
            nn.MaxPool2D(2),
            nn.GlobalAvgPool(),
            nn.Dropout(0.3),
            nn.Linear(6, 2),
        ),
        images,
    ),
    "flatten": (lambda: nn.Sequential(nn.AvgPool2D(2), nn.Flatten(), nn.Linear(64, 5)), images),
    "embedding": (lambda: embedded(nn.LayerNorm(8)), tokens),
}

LENGTHS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "linear": (lambda: nn.Linear(8, 5), length),
    "layer norm": (lambda: nn.Sequential(nn.LayerNorm(8), nn.Dropout(0.4)), length),
    "rms norm": (lambda: nn.RMSNorm(8), length),
    "attention": (lambda: nn.MultiHeadAttention(8, 2), length),
    "encoder": (lambda: nn.TransformerEncoderBlock(8, 2, hidden=12), length),
    "causal": (lambda: embedded(nn.TransformerEncoderBlock(8, 2, causal=True)), text),
    "rotary": (lambda: nn.TransformerEncoderBlock(8, 2, rotary=True, kv_heads=1), length),
    "positions": (lambda: embedded(nn.SinusoidalPositions(), nn.Linear(8, 2)), text),
    "lstm": (lambda: nn.LSTM(8, 5), length),
    "gru": (lambda: nn.GRU(8, 5), length),
    "bidirectional": (lambda: nn.LSTM(8, 4, bidirectional=True), length),
}


def step(make: Callable[[], nn.Module]) -> Callable[..., Any]:
    """The mean of the squares of what a layer gives, and its gradients."""
    ek.random.seed(5)
    layer = make()

    def loss(x: Any) -> Any:
        y = ek.tree_leaves(layer(x))[0]
        return (y * y).mean()

    def run(x: Any) -> Any:
        return ek.value_and_grad(loss, layer)(x)

    return run


@pytest.mark.parametrize("name", BATCHES)
def test_a_padded_batch(name: str) -> None:
    make, arrays = BATCHES[name]
    check_padded(step(make), arrays, {"x": {0: "pow2"}}, sizes=(5, 8, 13, 6), poison=["nan"])


@pytest.mark.parametrize("name", LENGTHS)
def test_a_padded_length(name: str) -> None:
    make, arrays = LENGTHS[name]
    check_padded(step(make), arrays, {"x": {1: "pow2"}}, sizes=(5, 8, 13, 6), poison=["nan"])


def test_a_batch_and_a_length() -> None:
    layer = nn.TransformerEncoderBlock(8, 2, hidden=12, causal=True)

    def arrays(n: int) -> tuple[Any, ...]:
        random = np.random.default_rng(n)
        return random.normal(size=(n, n + 3, 8)).astype("float32"), random.integers(
            0, 8, (n, n + 3)
        )

    def run(x: Any, y: Any) -> Any:
        return ek.value_and_grad(lambda x: nn.cross_entropy(layer(x), y), layer)(x)

    sizes = {0: "pow2", 1: 8}
    check_padded(run, arrays, {"x": sizes, "y": sizes}, sizes=(5, 6, 9), poison=["nan"])


# -- loops and branches ----------------------------------------------------------------------------


def _scan_rows(x: Any) -> Any:
    def body(total: Any, row: Any) -> Any:
        total = total * 0.5 + row
        return total, ek.exp(total)

    return [ek.scan(body, ek.zeros(8), x[:, 0]), ek.scan(body, ek.ones((6, 8)), x, reverse=True)]


def _scan_columns(x: Any) -> Any:
    rows = ek.moveaxis(x, 1, 0)
    return ek.scan(lambda c, row: (c + row.sum(), row * c.sum()), ek.zeros(x.shape[0]), rows)


def _scan_indices(x: Any) -> Any:
    table = ek.arange(8) * 1.5
    places = ek.argmax(x, axis=-1)
    return ek.scan(lambda c, i: (c + table[i], x[0, i % 6]), ek.zeros(6), places)


def _nested(x: Any) -> Any:
    def outer(total: Any, matrix: Any) -> Any:
        inner = ek.scan(lambda c, row: (c + row * x.shape[0], c), ek.zeros(8), matrix)[0]
        return total + inner, total

    return ek.scan(outer, ek.zeros(8), x)


def _while(x: Any) -> Any:
    return ek.while_loop(lambda y: ek.abs(y).max() > 0.1, lambda y: y / x.shape[0], x)


LOOPS: dict[str, Callable[..., Any]] = {
    "scan over the axis": _scan_rows,
    "scan beside the axis": _scan_columns,
    "scan with indices": _scan_indices,
    "nested": _nested,
    "while": _while,
    "cond": lambda x: ek.cond(x.sum() > 0, lambda y: y * 2 + y.shape[0], lambda y: y - 1, x),
    "switch": lambda x: ek.switch(1, [lambda y: y.sum(0), lambda y: y.mean(0)], x),
    "fori": lambda x: ek.fori_loop(0, 3, lambda i, y: y + y.mean(axis=0), x),
    "map": lambda x: ek.map(lambda row: row.sum() * x.shape[0], x),
}


@pytest.mark.parametrize("name", LOOPS)
def test_loops_and_branches(name: str) -> None:
    check_padded(LOOPS[name], batch, {"x": {0: "pow2"}}, sizes=(5, 6, 8, 13))


@pytest.mark.parametrize("name", [name for name in LOOPS if name != "while"])
def test_gradients_of_loops_and_branches(name: str) -> None:
    def total(x: Any) -> Any:
        return sum((y**2).sum() for y in ek.tree_leaves(LOOPS[name](x)) if y.dtype.is_float)

    check_padded(ek.grad(total), batch, {"x": {0: "pow2"}}, sizes=(5, 6, 8), poison=["nan"])


def test_vmap_and_checkpoint() -> None:
    layer = nn.Linear(8, 3)

    def run(x: Any) -> Any:
        each = ek.vmap(lambda row: (ek.tanh(layer(row)) ** 2).sum())
        return ek.value_and_grad(lambda x: ek.checkpoint(each)(x).mean(), layer)(x)

    check_padded(run, batch, {"x": {0: "pow2"}})
