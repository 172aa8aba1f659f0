"""Every public name of ek.nn has a row in a table, and each gives the same bits compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import test_layer_table
import test_loss_modules
from layer_checks import check_bits, check_gradients, check_state
from same_bits import assert_same_bits

import einkorn as ek

nn = ek.nn
rng = np.random.default_rng(0)
WINDOW: dict[str, Any] = {
    "window": (2, 2), "strides": (2, 1), "low": (1, 0), "high": (0, 1), "dilation": (1, 2)
}  # fmt: skip


def floats(*shape: int) -> Any:
    return rng.normal(size=shape).astype(np.float32)


def positive(*shape: int) -> Any:
    return rng.uniform(0.1, 0.9, shape).astype(np.float32)


ROWS, OTHER, LINE, IMAGE = floats(5, 6), floats(5, 6), floats(2, 7, 4), floats(2, 6, 5, 4)
SIGNS = np.where(floats(5) > 0, 1, -1)
LABELS, ZERO_ONE = np.array([0, 5, 2, 2, 1]), (floats(5, 6) > 0).astype(np.float32)
IDS = np.array([1, 0, 3, 2, 7])
Row = tuple[Callable[..., Any], tuple[Any, ...]]

# One row for each function; floats among the arguments are differentiated by.
ACTIVATIONS: dict[str, Row] = {
    **{
        name: (getattr(nn, name), (ROWS,))
        for name in (
            "celu elu geglu gelu glu hardshrink hardsigmoid hardswish hardtanh leaky_relu "
            "log_sigmoid log_softmax mish relu relu6 selu sigmoid silu softmax softmin softplus "
            "softshrink softsign swiglu tanh tanhshrink"
        ).split()
    },
    "logit": (nn.logit, (positive(5, 6),)),
    "prelu": (nn.prelu, (ROWS, floats(6))),
    "threshold": (lambda x: nn.threshold(x, 0.1, 2.0), (ROWS,)),
}
LOSSES: dict[str, Row] = {
    "binary_cross_entropy": (nn.binary_cross_entropy, (positive(5, 6), ZERO_ONE)),
    "binary_cross_entropy_with_logits": (
        nn.binary_cross_entropy_with_logits, (ROWS, ZERO_ONE)
    ),
    "cosine_embedding_loss": (
        lambda a, b: nn.cosine_embedding_loss(a, b, SIGNS, margin=0.1), (ROWS, OTHER)
    ),
    "cosine_similarity": (nn.cosine_similarity, (ROWS, OTHER)),
    "cross_entropy": (lambda x: nn.cross_entropy(x, LABELS, label_smoothing=0.1), (ROWS,)),
    "gaussian_nll_loss": (nn.gaussian_nll_loss, (ROWS, OTHER, positive(5, 6))),
    "hinge_embedding_loss": (lambda x: nn.hinge_embedding_loss(x, SIGNS), (floats(5),)),
    "hinge_loss": (lambda x: nn.hinge_loss(x, SIGNS), (floats(5),)),
    "huber_loss": (lambda a, b: nn.huber_loss(a, b, delta=0.5), (ROWS, OTHER)),
    "kl_div": (nn.kl_div, (ROWS, positive(5, 6))),
    "l1_loss": (nn.l1_loss, (ROWS, OTHER)),
    "log_cosh_loss": (nn.log_cosh_loss, (ROWS, OTHER)),
    "margin_ranking_loss": (
        lambda a, b: nn.margin_ranking_loss(a, b, SIGNS, margin=0.1), (floats(5), floats(5))
    ),
    "mse_loss": (nn.mse_loss, (ROWS, OTHER)),
    "nll_loss": (lambda x: nn.nll_loss(x, LABELS), (ROWS,)),
    "poisson_nll_loss": (lambda x: nn.poisson_nll_loss(x, abs(SIGNS)), (floats(5),)),
    "smooth_l1_loss": (lambda a, b: nn.smooth_l1_loss(a, b, beta=0.5), (ROWS, OTHER)),
    "soft_margin_loss": (lambda x: nn.soft_margin_loss(x, SIGNS), (floats(5),)),
    "ssim_loss": (lambda a, b: nn.ssim_loss(a, b, window=3), (IMAGE, IMAGE + 0.5)),
    "triplet_margin_loss": (nn.triplet_margin_loss, (ROWS, OTHER, floats(5, 6))),
}  # fmt: skip
OTHERS: dict[str, Row] = {
    "adaptive_avg_pool": (lambda x: nn.adaptive_avg_pool(x, (2, 3)), (IMAGE,)),
    "adaptive_max_pool": (lambda x: nn.adaptive_max_pool(x, 2), (IMAGE,)),
    "attention": (
        lambda q, k, v: nn.attention(q, k, v, causal=True), (LINE, LINE + 1, floats(2, 7, 3))
    ),
    "avg_pool": (lambda x: nn.avg_pool(x, 2, padding=1), (IMAGE,)),
    "batch_norm": (
        lambda x, w, b: nn.batch_norm(x, np.zeros(4, "f"), np.ones(4, "f"), w, b, training=True),
        (IMAGE, floats(4), floats(4)),
    ),
    "batch_statistics": (nn.batch_statistics, (IMAGE,)),
    "conv": (
        lambda x, w, b: nn.conv(x, w, b, stride=2, padding="same"),
        (IMAGE, floats(3, 2, 2, 4), floats(3)),
    ),
    "conv_filter": (lambda x, g: nn.conv_filter(x, g, (2, 2)), (IMAGE, floats(2, 5, 4, 3))),
    "conv_transpose": (
        lambda x, w: nn.conv_transpose(x, w, stride=2), (IMAGE, floats(3, 2, 2, 4))
    ),
    "cumulative_logsumexp": (nn.cumulative_logsumexp, (ROWS,)),
    "embedding": (lambda w: nn.embedding(LABELS, w, padding_idx=1), (floats(6, 3),)),
    "group_norm": (lambda x, w: nn.group_norm(x, 2, w), (IMAGE, floats(4))),
    "instance_norm": (nn.instance_norm, (IMAGE, floats(4), floats(4))),
    "interpolate": (lambda x: nn.interpolate(x, (3, 9), mode="cubic"), (IMAGE,)),
    "layer_norm": (nn.layer_norm, (LINE, floats(4), floats(4))),
    "max_pool": (lambda x: nn.max_pool(x, (3, 2), stride=1), (IMAGE,)),
    "rms_norm": (nn.rms_norm, (LINE, floats(4))),
    "rotary_embedding": (nn.rotary_embedding, (LINE,)),
    "segment_max": (lambda x: nn.segment_max(x, IDS, 4), (ROWS,)),
    "segment_mean": (lambda x: nn.segment_mean(x, IDS, 4), (ROWS,)),
    "segment_min": (lambda x: nn.segment_min(x, IDS, 4), (ROWS,)),
    "segment_prod": (lambda x: nn.segment_prod(x, IDS, 4), (ROWS,)),
    "segment_sum": (lambda x: nn.segment_sum(x, IDS, 4), (ROWS,)),
    "sinusoidal_positions": (lambda x: x + nn.sinusoidal_positions(7, 4), (LINE,)),
    "window_pick": (lambda k, v: nn.window_pick(k, v, **WINDOW), (IMAGE, IMAGE * 2)),
    "window_place": (
        lambda g: nn.window_place(IMAGE, g, **WINDOW),
        (np.ones(np.shape(nn.window_pick(IMAGE, IMAGE, **WINDOW)), "f"),),
    ),
    "window_sum": (lambda x: nn.window_sum(x, **WINDOW), (IMAGE,)),
}  # fmt: skip
FUNCTIONS = {**ACTIVATIONS, **LOSSES, **OTHERS}

# Layers that the table of layers leaves out, for they hold others or take part in training.
HOLDERS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "Sequential": (
        lambda dtype="float32": nn.Sequential(
            nn.Linear(6, 3, dtype=dtype), nn.Dropout(0.5), nn.Tanh()
        ),
        (ROWS,),
    ),
    "FunctionModule": (
        lambda dtype="float32": nn.FunctionModule(lambda x: nn.tanh(nn.Linear(2, dtype=dtype)(x))),
        (ROWS,),
    ),
    "to_module": (
        lambda dtype="float32": nn.to_module(
            lambda x: nn.BatchNorm(dtype=dtype)(nn.Linear(2, dtype=dtype)(x))
        ),
        (ROWS,),
    ),
    "ExponentialMovingAverage": (lambda: nn.ExponentialMovingAverage(0.9), (ROWS,)),
}

# What computes nothing by itself; each has tests of its own.
REST = {
    "Collector", "ImportReport", "Loss", "MismatchError", "Module", "ModuleOrderError",
    "Parameter", "check_outputs", "collect",
}  # fmt: skip


def test_every_public_name_has_a_row() -> None:
    layers = {case.layer.func.__name__ for case in test_layer_table.CASES}
    losses = {type(case[0]).__name__ for case in test_loss_modules.CASES}
    tables = [set(FUNCTIONS), set(HOLDERS), REST, layers, losses]
    found = {name for table in tables for name in table}
    assert found == set(nn.__all__)
    assert sum(map(len, tables)) == len(found)  # in one table each
    public = {name for name, x in vars(nn).items() if not name.startswith("_") and callable(x)}
    assert public <= set(nn.__all__)


def _step(fn: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The result, and gradients of a weighted sum of all of it by each argument."""

    def total(*args: Any) -> Any:
        out = [x for x in ek.tree_leaves(fn(*args)) if isinstance(x, ek.Tensor)]
        found: Any = 0.0
        for x in out:
            weights = np.cos(np.arange(x.size) + 0.5).reshape(x.shape).astype(np.float32)
            found = found + ek.sum(x * weights)
        return found, out

    return lambda *args: ek.value_and_grad(total, tuple(range(count)), has_aux=True)(*args)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_give_the_same_bits_compiled(name: str) -> None:
    fn, arrays = FUNCTIONS[name]
    step = _step(fn, len(arrays))
    eager, native = (ek.tree_leaves(run(*arrays)) for run in (step, ek.compile(step)))
    assert len(eager) >= 2 + len(arrays)
    for one, other in zip(native, eager, strict=True):
        assert_same_bits(one, other)
    assert all(np.isfinite(np.asarray(x)).all() for x in eager)


@pytest.mark.parametrize("name", HOLDERS)
def test_holders_give_the_same_bits_compiled(name: str) -> None:
    make, inputs = HOLDERS[name]
    check_bits(make, inputs)
    check_state(make, inputs)
    if name != "ExponentialMovingAverage":  # whose average is no part of the gradient
        check_gradients(make, inputs)
