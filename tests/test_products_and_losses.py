"""Matrix products, losses and searching against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from function_checks import both, close, same, values

from einkorn.compile import Compiled
from einkorn.functions import creation as cr
from einkorn.functions import linear_algebra as la
from einkorn.functions import losses as lo
from einkorn.functions import searching as se
from einkorn.functions.elementwise import where
from einkorn.ir.errors import BoundsError, DTypeError, ShapeError, TraceError

T23 = cr.asarray(values((2, 3)))

# -- products --------------------------------------------------------------------------------------

_PAIRS = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((7, 1, 2, 3), (5, 3, 4)),
    ((1, 2, 3), (6, 3, 4)),
    ((20, 33), (33, 17)),
    ((2, 0), (0, 4)),
    ((0, 3), (3, 4)),
    ((2, 0, 2, 3), (3, 4)),
]


@pytest.mark.parametrize(("left", "right"), _PAIRS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "uint8"])
def test_matmul(left: tuple[int, ...], right: tuple[int, ...], dtype: str) -> None:
    a, b = values(left, dtype), values(right, dtype, seed=1)
    exact = a.astype("float64") @ b.astype("float64") if dtype.startswith("f") else a @ b
    close(la.matmul(cr.asarray(a), cr.asarray(b)), exact, dtype)


def test_products_compiled() -> None:
    x, w, b = values((4, 5, 6)), values((3, 6), seed=1), values((3,), seed=2)

    def products(x: Any, w: Any, b: Any) -> list[Any]:
        return [
            la.linear(x, w, b),
            la.linear(x[0, 0], w),
            x @ w.T,
            x.mT @ x,
            la.tensordot(x, w, axes=((2,), (1,))),
            la.tensordot(x, x, axes=((0, 2), (0, 2))),
            la.tensordot(b, b, axes=0),
            la.vecdot(x, x[:1]),
            la.vecdot(x, x, axis=-2),
            la.outer(b, b),
        ]

    wants = [
        x @ w.T + b,
        x[0, 0] @ w.T,
        x @ w.T,
        x.mT @ x,
        np.tensordot(x, w, ((2,), (1,))),
        np.tensordot(x, x, ((0, 2), (0, 2))),
        np.tensordot(b, b, 0),
        np.vecdot(x, x[:1]),
        np.vecdot(x, x, axis=-2),
        np.outer(b, b),
    ]
    for got, want in zip(both(products, x, w, b), wants, strict=True):
        close(got, want)


def test_operators_promote() -> None:
    a, b = values((2, 3)), values((3, 2), "int32")
    close(cr.asarray(a) @ b, a @ b.astype("float32"))
    close(a.tolist() @ cr.asarray(b, dtype="float32"), a @ b.astype("float32"))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: la.matmul(T23, T23), ShapeError, r"f32\[2,3\] @ f32\[2,3\].*x1 @ x2.mT"),
        (lambda: la.matmul(T23, cr.zeros((2, 4))), ShapeError, r"x1.mT @ x2"),
        (lambda: la.matmul(T23, cr.zeros(2)), ShapeError, "the only axis"),
        (lambda: la.matmul(T23, 2.0), ShapeError, "needs at least one axis on both sides"),
        (lambda: la.matmul(cr.zeros((2, 2, 3)), cr.zeros((3, 3, 3))), ShapeError, "batch axes"),
        (lambda: la.matmul(T23 > 0, T23.T > 0), DTypeError, "bool has no arithmetic"),
        (lambda: la.linear(T23, cr.zeros((4, 2))), ShapeError, r"f32\[2,3\].*f32\[4,2\]"),
        (lambda: la.linear(cr.zeros((2, 3), dtype="float64"), T23), DTypeError, "float32"),
        (lambda: la.linear(T23, T23, cr.zeros(3)), ShapeError, r"bias .* f32\[3\]"),
        (lambda: la.tensordot(T23, T23.T), ShapeError, "pairs"),
        (lambda: la.tensordot(T23, T23, axes=3), ShapeError, "no 3 axes"),
        (lambda: la.tensordot(T23, T23, axes=((0, 0), (0, 0))), ShapeError, "different axes"),
        (lambda: la.vecdot(T23, cr.zeros((2, 4))), ShapeError, "equally many"),
        (lambda: la.vecdot(T23, cr.zeros((4, 3))), ShapeError, "do not broadcast"),
        (lambda: la.vecdot(T23, T23, axis=0), ShapeError, "counted from the end"),
        (lambda: la.outer(T23, T23), ShapeError, "two vectors"),
    ],
)
def test_products_refuse(call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


# -- losses ----------------------------------------------------------------------------------------


def _log_softmax(x: Any, axis: int = -1) -> Any:
    wide = x.astype("float64")
    return wide - np.log(np.sum(np.exp(wide), axis, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 5), (4,)])
def test_cross_entropy(shape: tuple[int, ...], dtype: str, smoothing: float) -> None:
    x = values(shape, dtype)
    labels = np.random.default_rng(0).integers(0, shape[-1], shape[:-1])
    hot = np.eye(shape[-1])[labels]
    losses = -np.sum(_log_softmax(x) * (hot * (1 - smoothing) + smoothing / shape[-1]), -1)

    def compute(t: Any, by_class: Any, by_share: Any) -> list[Any]:
        rule: dict[str, Any] = {"label_smoothing": smoothing}
        return [
            lo.cross_entropy(t, by_class, **rule),
            lo.cross_entropy(t, by_class, reduction="sum", **rule),
            lo.cross_entropy(t, by_class, reduction="none", **rule),
            lo.cross_entropy(t, by_share, reduction="none", **rule),
        ]

    got = both(compute, x, labels.astype("int32"), hot.astype(dtype))
    for a, b in zip(got, [losses.mean(), losses.sum(), losses, losses], strict=True):
        close(a, b, dtype)


def test_cross_entropy_along_another_axis() -> None:
    x = values((2, 5, 3))
    labels = np.random.default_rng(0).integers(0, 5, (2, 3))
    want = -np.take_along_axis(_log_softmax(x, 1), labels[:, None], 1)[:, 0]
    got = lo.cross_entropy(cr.asarray(x), labels, axis=1, reduction="none")
    close(got, want, "float32")


def test_mse_loss() -> None:
    a, b = values((3, 4)), values((3, 4), seed=1)
    close(both(lo.mse_loss, a, b), np.mean((a - b) ** 2))
    close(lo.mse_loss(a, b, reduction="none"), (a - b) ** 2)
    close(lo.mse_loss(a, b, reduction="sum"), np.sum((a - b) ** 2))


@pytest.mark.parametrize("dtype", ["int64", "uint8", "uint64"])
def test_one_hot(dtype: str) -> None:
    labels = np.array([[0, 3], [2, 2]], dtype)
    same(both(lambda t: lo.one_hot(t, 4), labels), np.eye(4, dtype="float32")[labels])
    same(lo.one_hot(labels, 300, dtype="bool"), np.eye(300, dtype=bool)[labels])
    same(lo.one_hot(cr.asarray([-1, 7]), 4), np.zeros((2, 4), "float32"))


@pytest.mark.parametrize("label", [3, -1, -100, 2**40])
def test_labels_out_of_range(label: int) -> None:
    logits, labels = cr.asarray(values((2, 3))), cr.asarray([0, label])
    with pytest.raises(BoundsError, match=rf"cross_entropy: index {label} is out of range"):
        lo.cross_entropy(logits, labels)
    with pytest.raises(BoundsError, match="out of range"):
        Compiled(lo.cross_entropy)(logits, labels)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: lo.cross_entropy(T23, [0, 1, 2]), ShapeError, r"logits f32\[2,3\].*i64\[3\]"),
        (lambda: lo.cross_entropy(T23, [[0], [1]]), ShapeError, r"integers of shape \(2,\)"),
        (lambda: lo.cross_entropy(T23, [0.0, 1.0]), ShapeError, "or probabilities of shape"),
        (lambda: lo.cross_entropy([[1, 2]], [0]), DTypeError, r"must be floats, got i64\[1,2\]"),
        (lambda: lo.cross_entropy(T23, [0, 1], axis=2), ShapeError, "axis 2 is out of range"),
        (lambda: lo.cross_entropy(cr.zeros((2, 0)), [0, 1]), ShapeError, "no classes"),
        (lambda: lo.cross_entropy(T23, [0, 1], reduction="max"), ShapeError, "'max'"),
        (lambda: lo.cross_entropy(T23, [0, 1], label_smoothing=2.0), ShapeError, "between 0 and 1"),
        (lambda: lo.mse_loss(T23, cr.zeros((2, 1))), ShapeError, r"f32\[2,3\].*f32\[2,1\]"),
        (lambda: lo.mse_loss([1], [2]), DTypeError, "needs floats"),
        (lambda: lo.one_hot([1.0], 3), DTypeError, "must be integers"),
        (lambda: lo.one_hot([1], -3), ShapeError, "negative"),
    ],
)
def test_losses_refuse(call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


# -- searching -------------------------------------------------------------------------------------


def test_nonzero() -> None:
    x = values((3, 4), "int32")
    for a, b in zip(se.nonzero(cr.asarray(x)), np.nonzero(x), strict=True):
        same(a, b, "int64")
    with pytest.raises(ShapeError, match="at least one axis"):
        se.nonzero(cr.asarray(1))
    with pytest.raises(TraceError, match=r"use ek\.where"):
        Compiled(lambda t: se.nonzero(t)[0])(cr.asarray(x))
    same(where(cr.asarray(x) > 0, x, 0), np.where(x > 0, x, 0))
