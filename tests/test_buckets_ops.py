"""Every op with a padding rule: the bits of calls without padding, whatever the padding holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bucket_checks import check_padded, padded_ops

import einkorn as ek
from einkorn import nn
from einkorn.ir.ops import Op
from einkorn.passes.padding import REFUSED, RULES

Fn = Callable[..., Any]


def _values(*shape: int, seed: int = 0) -> Any:
    """Numbers of either sign, with zeros of both signs and repeats."""
    random = np.random.default_rng([seed, *shape])
    x = np.round(random.normal(size=shape) * 4).astype("float32") / 4
    x[random.random(shape) < 0.1] = -0.0
    return x


def rows(n: int) -> tuple[Any, ...]:
    """[n, 3]"""
    return (_values(n, 3),)


def special(n: int) -> tuple[Any, ...]:
    """[n, 3] with infinities and NaN in front, which are no padding."""
    x = _values(n, 3, seed=1)
    x[:2] = [[np.inf, -np.inf, 1], [np.nan, -np.inf, np.inf]]
    return (x,)


def columns(n: int) -> tuple[Any, ...]:
    """[3, n]"""
    return (_values(3, n),)


def middle(n: int) -> tuple[Any, ...]:
    """[2, n, 3]"""
    return (_values(2, n, 3),)


SHAPES = {
    "rows": (rows, 0),
    "special": (special, 0),
    "columns": (columns, 1),
    "middle": (middle, 1),
}

# Functions of one array along any of its axes.
ALONG: dict[str, Fn] = {
    "elementwise": lambda x: ek.exp(x) / (1 + x * x),
    "sum": lambda x: x.sum(),
    "sum of each axis": lambda x: [x.sum(axis=k) for k in range(x.ndim)],
    "sum keepdims": lambda x: x - x.sum(axis=-1, keepdims=True),
    "sum of half": lambda x: x.astype("float16").sum(),
    "sum of ints": lambda x: (x * 4).astype("int32").sum(),
    "mean": lambda x: [x.mean(), *(x.mean(axis=k) for k in range(x.ndim))],
    "var": lambda x: [x.var(), x.var(axis=0, correction=1), x.std(axis=-1)],
    "prod": lambda x: [x.prod(), x.prod(axis=0), x.prod(axis=-1)],
    "max": lambda x: [x.max(), x.min(), x.max(axis=0), x.min(axis=-1)],
    "any": lambda x: [(x > 1).any(axis=0), (x > -9).all(axis=-1), (x > 2).any()],
    "argmax": lambda x: [ek.argmax(x), ek.argmin(x), ek.argmax(x, axis=0), ek.argmin(x, axis=-1)],
    "argsort": lambda x: [ek.argsort(x, axis=k) for k in range(x.ndim)],
    "sort down": lambda x: ek.sort(x, axis=-1, descending=True),
    "cumulative": lambda x: [ek.cumulative_sum(x, axis=k) for k in range(x.ndim)],
    "cumulative prod": lambda x: [ek.cumulative_prod(x, axis=-1), ek.cumulative_max(x, axis=0)],
    "cumulative min": lambda x: ek.cumulative_min(x, axis=0),
    "softmax": lambda x: [ek.nn.softmax(x, axis=k) for k in range(x.ndim)],
    "log_softmax": lambda x: [ek.nn.log_softmax(x, axis=k) for k in range(x.ndim)],
    "logsumexp": lambda x: [ek.logsumexp(x), *(ek.logsumexp(x, axis=k) for k in range(x.ndim))],
    "reshape": lambda x: [x.reshape(-1), x.reshape((1, -1)), x.reshape(-1) * 2 + 1],
    "reshape and back": lambda x: ek.exp(x.reshape(-1)).reshape(x.shape) * x,
    "transpose": lambda x: ek.permute_dims(x, tuple(reversed(range(x.ndim)))).reshape(-1),
    "flip": lambda x: [x[::-1], x[..., ::-1], ek.flip(x)],
    "slices": lambda x: [x[1:], x[:-1], x[..., 2:], x[-2:], x[..., -1], x[0], x[..., 1:3]],
    "shift": lambda x: [ek.roll(x, 1, axis=k) for k in range(x.ndim)],
    "concat": lambda x: [ek.concat([x, x * 2, x], axis=k) for k in range(x.ndim)],
    "stack": lambda x: [ek.stack([x, -x], axis=k) for k in range(x.ndim + 1)],
    "pad": lambda x: [ek.pad(x, 1, value=2), ek.pad(x, 2).sum()],
    "diff": lambda x: [ek.diff(x, axis=0), ek.diff(x, axis=-1)],
    "tile": lambda x: [ek.tile(x, 2), ek.tile(x, (2,) * x.ndim)],
    "repeat": lambda x: ek.repeat(x, 3, axis=0),
    "take": lambda x: [ek.take(x, np.array([0, -1, 1]), axis=0), x[..., [1, -1]]],
    "take_along_axis": lambda x: ek.take_along_axis(x, ek.argsort(x, axis=0)[:2], axis=0),
    "at": lambda x: [x.at[1].set(0), x.at[..., 2].add(1), x.at[-1].multiply(3)],
    "numbers": lambda x: [ek.asarray(x.shape[0]), ek.full((2,), x.shape[-1]), ek.sqrt(x.shape[0])],
    "shape": lambda x: [x * x.shape[-1], x / x.shape[0], x.shape[0], x.size, x + x.shape[0] / 2],
    "ones": lambda x: [ek.ones_like(x).sum(), ek.zeros(x.shape[::-1]), ek.arange(x.shape[0]) * 2],
    "dot": lambda x: [x @ ek.matrix_transpose(x), ek.matrix_transpose(x) @ x],
    "tensordot": lambda x: [ek.tensordot(x, x, axes=x.ndim), ek.tensordot(x, x, axes=((0,), (0,)))],
    "norm": lambda x: [ek.sqrt((x * x).sum(axis=0)), x / ek.sqrt((x * x).sum() + 1)],
    "layer_norm": lambda x: [ek.nn.layer_norm(x, axes=k) for k in range(x.ndim)],
    "random": lambda x: [ek.random.uniform(x.shape), ek.random.normal(x.shape[::-1]) * 2],
    "dropout": lambda x: ek.where(ek.random.bernoulli(0.5, x.shape), x, 0),
    "one_hot": lambda x: ek.one_hot(ek.argmax(x, axis=-1), 12),
    "linspace": lambda x: [ek.linspace(0, 3, x.shape[0]), ek.linspace(-1, 1, x.shape[-1] + 1)],
    "tril": lambda x: [ek.tril(x), ek.triu(x, k=1)],
    "scatter": lambda x: ek.zeros((9, 3)).at[(x * 4).astype("int32").reshape(-1) % 9, 0].add(1.0),
    "sign": lambda x: ek.where(x > 0, x, -x) + ek.maximum(x, 0.5) * ek.abs(x),
    "complex": lambda x: ek.real((x + 2j) * (1 + x * 1j)) + ek.imag(x * 2j),
}


def gradient(fn: Fn) -> Fn:
    """What a sum of the squares of the float results gives as gradient."""

    def total(x: Any) -> Any:
        found = [y for y in ek.tree_leaves(fn(x)) if isinstance(y, ek.Tensor)]
        parts = [(y.astype("float32") ** 2).sum() for y in found if y.dtype.is_float]
        return sum(parts[1:], parts[0]) if parts else (x * 0).sum()

    return ek.grad(total)


@pytest.mark.parametrize("name", ALONG)
def test_along_any_axis(name: str) -> None:
    for arrays, axis in SHAPES.values():
        check_padded(ALONG[name], arrays, {"x": {axis: "pow2"}})


@pytest.mark.parametrize("name", [name for name in ALONG if name != "prod"])
def test_gradients_along_any_axis(name: str) -> None:
    for arrays, axis in SHAPES.values():
        check_padded(gradient(ALONG[name]), arrays, {"x": {axis: "pow2"}}, poison=["nan"])


def test_the_gradient_of_a_product_halves_the_axis() -> None:
    step = ek.compile(gradient(lambda x: x.prod(axis=0)), buckets={"x": {0: "pow2"}})
    with pytest.raises(ek.SizeError, match=r"gradient of prod at test_buckets_ops.py:\d+: x.shape"):
        step(*rows(7))


# -- several arrays --------------------------------------------------------------------------------

IMAGES = np.random.default_rng(3).normal(size=(40, 6, 5, 4)).astype("float32")
FILTERS = np.random.default_rng(4).normal(size=(8, 3, 2, 2)).astype("float32")
BATCH = {"x": {0: "pow2"}}


def images(n: int) -> tuple[Any, ...]:
    return (IMAGES[:n],)


def _conv(x: Any) -> Any:
    return ek.nn.conv(x, ek.asarray(FILTERS), padding=1, groups=2)


def _filter_gradient(x: Any) -> Any:
    return ek.grad(lambda w: (ek.nn.conv(x, w, groups=2) ** 2).sum())(ek.asarray(FILTERS))


IMAGE_FUNCTIONS: dict[str, Fn] = {
    "conv": _conv,
    "conv filter": _filter_gradient,
    "max pool": lambda x: ek.nn.max_pool(x, 2),
    "average pool": lambda x: ek.nn.avg_pool(x, 2, padding=1),
    "batch norm": lambda x: (x - x.mean(axis=(0, 1, 2))) / x.std(axis=(0, 1, 2)),
}


@pytest.mark.parametrize("name", IMAGE_FUNCTIONS)
def test_images_in_a_padded_batch(name: str) -> None:
    check_padded(IMAGE_FUNCTIONS[name], images, BATCH)
    if name != "conv filter":
        check_padded(gradient(IMAGE_FUNCTIONS[name]), images, BATCH, poison=["nan"])


def picks(n: int) -> tuple[Any, ...]:
    """[n, 5], and an index for each row that counts from the end at times."""
    random = np.random.default_rng([7, n])
    return _values(n, 5), random.integers(-5, 5, n), random.integers(-n, n, (n, 2))


PICKS: dict[str, Fn] = {
    "gather": lambda x, i, j: [x[j], ek.take(x, i, axis=1), ek.take(x, j, axis=0)],
    "by row": lambda x, i, j: x[ek.arange(x.shape[0]), i],
    "unsigned": lambda x, i, j: x[(j + x.shape[0]).astype("uint64") % x.shape[0]],
    "cross entropy": lambda x, i, j: ek.nn.cross_entropy(x, ek.abs(i) % 5),
    "scatter add": lambda x, i, j: [x.at[j[:, 0]].add(x), ek.zeros((5, 5)).at[i].add(x)],
    "scatter set": lambda x, i, j: [x.at[j[:, 0]].set(x * 2), ek.zeros((5, 5)).at[i].set(x)],
    "scatter many": lambda x, i, j: ek.zeros((99, 5)).at[j].set(x[:, None] * 2),
}


@pytest.mark.parametrize("name", PICKS)
def test_indices_in_a_padded_batch(name: str) -> None:
    buckets = {"x": {0: "pow2"}, "i": {0: "pow2"}, "j": {0: "pow2"}}
    check_padded(PICKS[name], picks, buckets)

    def squares(x: Any, i: Any, j: Any) -> Any:
        return gradient(lambda y: PICKS[name](y, i, j))(x)

    check_padded(squares, picks, buckets, poison=["nan"])


@pytest.mark.parametrize("name", ["sum", "mean", "dot", "softmax", "cumulative", "sum of half"])
@pytest.mark.parametrize("block", [256, 4096])
def test_at_the_borders_of_the_blocks_of_sums(name: str, block: int) -> None:
    sizes = (block - 1, block, block + 1, block + 17)
    listed = {"x": {0: (block + 20,)}}
    fn: Fn = {"dot": lambda x: ek.matrix_transpose(x) @ x}.get(name, ALONG[name])
    check_padded(fn, rows, listed, sizes, poison=["nan"])
    if name != "dot":
        check_padded(fn, columns, {"x": {1: (block + 20,)}}, sizes, poison=["nan"])


def test_rows_of_few_products_have_chains_of_their_own() -> None:
    def products(x: Any, w: Any) -> Any:
        return [x @ w, ek.matrix_transpose(x) @ x, x[:, :1] @ w[:1], w @ ek.matrix_transpose(x)]

    def arrays(n: int) -> Any:
        return _values(n, 3), _values(3, 3, seed=1)

    check_padded(products, arrays, {"x": {0: (40,)}}, sizes=(5, 6, 17, 40))


def test_two_lengths() -> None:
    def arrays(n: int) -> Any:
        return _values(n, n + 4, 3), _values(n + 4, seed=2)

    def fn(x: Any, y: Any) -> Any:
        return [x.sum(), (x * y[:, None]).sum(axis=1), x.reshape(-1), x.reshape((-1, 3)) @ x[0].T]

    for buckets in ({"x": {0: "pow2", 1: 8}, "y": {0: 8}}, {"x": {0: 16, 1: 16}, "y": {0: 16}}):
        check_padded(fn, arrays, buckets, sizes=(5, 6, 12))


LOSSES: dict[str, Fn] = {
    "cross entropy": lambda p, y: nn.cross_entropy(p, y, label_smoothing=0.1),
    "sums": lambda p, y: nn.cross_entropy(p, y, reduction="sum"),
    "of each": lambda p, y: nn.cross_entropy(p, y, reduction="none"),
    "weights": lambda p, y: nn.cross_entropy(p, y, weight=ek.arange(5) + 1.0),
    "ignored": lambda p, y: nn.cross_entropy(p, y, ignore_index=2),
    "nll": lambda p, y: nn.nll_loss(nn.log_softmax(p), y),
    "mse": lambda p, y: nn.mse_loss(p[:, 0], y),
    "l1": lambda p, y: nn.l1_loss(p[:, 0], y.astype("float32")),
    "huber": lambda p, y: nn.huber_loss(p[:, 0], y.astype("float32")),
    "binary": lambda p, y: nn.binary_cross_entropy_with_logits(p[:, 0], (y > 2).astype("float32")),
    "kl": lambda p, y: nn.kl_div(nn.log_softmax(p), nn.softmax(p[::-1])),
    "hinge": lambda p, y: nn.hinge_loss(p[:, 0], (y > 2) * 2.0 - 1),
    "triplet": lambda p, y: nn.triplet_margin_loss(p, p[::-1], p * 2),
    "cosine": lambda p, y: nn.cosine_embedding_loss(p, p[::-1], (y > 2) * 2.0 - 1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_a_padded_batch(name: str) -> None:
    def arrays(n: int) -> tuple[Any, ...]:
        return _values(n, 5), np.random.default_rng(n).integers(0, 5, n)

    def step(p: Any, y: Any) -> Any:
        found = LOSSES[name](p, y)
        return found, ek.grad(lambda p: (LOSSES[name](p, y) * 2).sum())(p)

    check_padded(step, arrays, {"p": {0: "pow2"}, "y": {0: "pow2"}})


# -- the table -------------------------------------------------------------------------------------


def test_the_table_has_every_op() -> None:
    assert RULES.keys() | REFUSED.keys() == set(Op)
    assert not RULES.keys() & REFUSED.keys()


def test_every_rule_is_tried() -> None:
    def everything(x: Any) -> Any:
        y, whole = ek.abs(x) + 1.5, (x * 4).astype("int32")
        unit = x / 100
        return [
            ek.rsqrt(y), ek.expm1(x), ek.log(y), ek.log1p(y), ek.log2(y), ek.log10(y), ek.sin(x),
            ek.cos(x), ek.tan(x), ek.asin(unit), ek.acos(unit), ek.sinh(x), ek.cosh(x), ek.tanh(x),
            ek.asinh(x), ek.acosh(y), ek.atanh(unit), ek.special.erf(x), ek.special.erfc(x),
            ek.special.erfinv(unit), ek.special.ndtr(x), ek.special.gammaln(y), ek.sign(x),
            ek.special.polygamma(1, y), ek.nn.sigmoid(x), ek.nn.silu(x), ek.nn.gelu(x), ek.sqrt(y),
            ek.nn.softplus(x), ek.floor(x), ek.ceil(x), ek.round(x), ek.trunc(x), ek.isfinite(x),
            ~whole, y**x, ek.stop_gradient(x), x // y, x % y, ek.atan2(x, y), ek.nextafter(x, y),
            ek.minimum(x, y), whole & 3, whole | 1, whole ^ 5, whole << 1, whole >> 1, x == y,
            x != y, x < y, x <= y, x >= y, x**3, -x, ek.cumulative_min(x), ek.cumulative_prod(x),
        ]  # fmt: skip

    def flat(n: int) -> tuple[Any, ...]:
        return (_values(n),)

    check_padded(everything, flat, BATCH, poison=["nan"])
    seen = padded_ops(everything, flat(7), BATCH)
    for fn in ALONG.values():
        seen |= padded_ops(fn, rows(7), BATCH) | padded_ops(fn, middle(7), {"x": {1: 8}})
    for fn in IMAGE_FUNCTIONS.values():
        seen |= padded_ops(fn, images(7), BATCH)
        seen |= padded_ops(gradient(fn), images(7), BATCH)
    for fn in PICKS.values():
        seen |= padded_ops(fn, picks(7), {"x": {0: 8}, "i": {0: 8}, "j": {0: 8}})
    seen |= padded_ops(_loops, rows(7), BATCH)
    assert seen >= RULES.keys()


def _loops(x: Any) -> Any:
    """What tests/test_buckets_layers.py tries in earnest."""
    doubled = ek.cond(x.sum() > 0, lambda y: y * 2, lambda y: y - 1, x)
    halved = ek.while_loop(lambda y: y.max() > 1, lambda y: y / 2, doubled)
    return ek.scan(lambda total, row: (total + row, total), ek.zeros(3), halved)
