"""Functions of einkorn beside those of PyTorch that should give the same; needs PyTorch.

A `Case` takes float operands of the shapes that its makers are given. `own_size`: errors count in
units of each result; else in units of the largest, because the function adds terms up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from op_makers import Maker, Shape, apart, fixed, indices, nonzero, uniform

import einkorn as ek

Function = Callable[..., Any]
MATRIX = (6, 9)


@dataclass(frozen=True)
class Case:
    """One function in both frameworks.

    Attributes:
        makers: float operands, and indices of a fixed dtype.
        smooth: whether its gradients are compared, too.
        ulps: what is allowed beside twice PyTorch's error; more than 1 where the order of the
            operations is stated to be another one than PyTorch's.
    """

    name: str
    ours: Function
    theirs: Function
    makers: tuple[Maker, ...]
    own_size: bool = False
    smooth: bool = True
    ulps: float = 1.0

    def __str__(self) -> str:
        return self.name


def _between(low: float, high: float) -> Callable[[Shape], Maker]:
    return lambda shape: uniform(shape, low, high)


_POSITIVE = _between(0.2, 5)
_INSIDE = _between(-0.95, 0.95)

UNARY: dict[str, tuple[Function, Function, Callable[[Shape], Maker]]] = {
    "abs": (ek.abs, torch.abs, nonzero),
    "negative": (ek.negative, torch.neg, uniform),
    "positive": (ek.positive, torch.positive, uniform),
    "sign": (ek.sign, torch.sign, nonzero),
    "square": (ek.square, torch.square, uniform),
    "reciprocal": (ek.reciprocal, torch.reciprocal, nonzero),
    "sqrt": (ek.sqrt, torch.sqrt, _POSITIVE),
    "rsqrt": (ek.rsqrt, torch.rsqrt, _POSITIVE),
    "exp": (ek.exp, torch.exp, uniform),
    "expm1": (ek.expm1, torch.expm1, uniform),
    "log": (ek.log, torch.log, _POSITIVE),
    "log1p": (ek.log1p, torch.log1p, _between(-0.7, 4)),
    "log2": (ek.log2, torch.log2, _POSITIVE),
    "log10": (ek.log10, torch.log10, _POSITIVE),
    "sin": (ek.sin, torch.sin, uniform),
    "cos": (ek.cos, torch.cos, uniform),
    "tan": (ek.tan, torch.tan, _between(-1.3, 1.3)),
    "asin": (ek.asin, torch.asin, _INSIDE),
    "acos": (ek.acos, torch.acos, _INSIDE),
    "atan": (ek.atan, torch.atan, uniform),
    "sinh": (ek.sinh, torch.sinh, uniform),
    "cosh": (ek.cosh, torch.cosh, uniform),
    "tanh": (ek.tanh, torch.tanh, uniform),
    "asinh": (ek.asinh, torch.asinh, uniform),
    "acosh": (ek.acosh, torch.acosh, _between(1.1, 5)),
    "atanh": (ek.atanh, torch.atanh, _INSIDE),
    "erf": (ek.erf, torch.erf, uniform),
    "erfc": (ek.special.erfc, torch.erfc, uniform),
    "erfinv": (ek.special.erfinv, torch.erfinv, _INSIDE),
    "ndtr": (ek.special.ndtr, torch.special.ndtr, uniform),
    "gammaln": (ek.special.gammaln, torch.lgamma, _between(2.5, 9)),
    "digamma": (ek.special.digamma, torch.digamma, _between(2, 9)),
    "logit": (ek.special.logit, torch.logit, _between(0.05, 0.95)),
    "sigmoid": (ek.nn.sigmoid, torch.sigmoid, uniform),
    "silu": (ek.nn.silu, torch.nn.functional.silu, uniform),
    "gelu": (ek.nn.gelu, torch.nn.functional.gelu, uniform),
    "softplus": (ek.nn.softplus, torch.nn.functional.softplus, uniform),
    "relu": (ek.nn.relu, torch.relu, nonzero),
    "floor": (ek.floor, torch.floor, apart),
    "ceil": (ek.ceil, torch.ceil, apart),
    "round": (ek.round, torch.round, apart),
    "trunc": (ek.trunc, torch.trunc, apart),
    "clip": (lambda x: ek.clip(x, -1, 2), lambda x: torch.clamp(x, -1, 2), apart),
    "cube": (lambda x: x**3, lambda x: x**3, uniform),
    "inverse square": (lambda x: x**-2, lambda x: x**-2, nonzero),
}

BINARY: dict[str, tuple[Function, Function, tuple[Callable[[Shape], Maker], ...]]] = {
    "add": (ek.add, torch.add, (uniform, uniform)),
    "subtract": (ek.subtract, torch.sub, (uniform, uniform)),
    "multiply": (ek.multiply, torch.mul, (uniform, uniform)),
    "divide": (ek.divide, torch.div, (uniform, nonzero)),
    "floor_divide": (ek.floor_divide, torch.floor_divide, (apart, _between(7, 7.05))),
    "remainder": (ek.remainder, torch.remainder, (apart, _between(7, 7.05))),
    "pow": (ek.pow, torch.pow, (_between(0.3, 2), _between(-2, 3))),
    "maximum": (ek.maximum, torch.maximum, (uniform, uniform)),
    "minimum": (ek.minimum, torch.minimum, (uniform, uniform)),
    "atan2": (ek.atan2, torch.atan2, (uniform, nonzero)),
    "hypot": (ek.hypot, torch.hypot, (nonzero, nonzero)),
    "logaddexp": (ek.logaddexp, torch.logaddexp, (uniform, uniform)),
    "copysign": (ek.copysign, torch.copysign, (nonzero, nonzero)),
    "xlogy": (ek.special.xlogy, torch.xlogy, (uniform, _POSITIVE)),
    "where": (
        lambda x, y: ek.where(x > 0, x, y),
        lambda x, y: torch.where(x > 0, x, y),
        (nonzero, uniform),
    ),
}

# The trigamma function of PyTorch 2.13 is wrong by 4e-10 at 2; the others are steps.
_NO_GRADIENT = ("digamma", "nextafter", "floor_divide")


def elementwise(shape: Shape) -> Iterator[Case]:
    """Functions of each element, on operands of one shape."""
    for name, (ours, theirs, maker) in UNARY.items():
        smooth = name not in _NO_GRADIENT
        yield Case(name, ours, theirs, (maker(shape),), own_size=True, smooth=smooth)
    for name, (ours, theirs, makers) in BINARY.items():
        args = tuple(maker(shape) for maker in makers)
        yield Case(name, ours, theirs, args, own_size=True, smooth=name not in _NO_GRADIENT)


AXES: tuple[tuple[Shape, Any], ...] = (
    ((40,), 0),
    (MATRIX, 0),
    (MATRIX, 1),
    ((3, 4, 5), (0, 2)),
    ((2, 300), 1),
    ((300, 2), 0),
    ((3, 1, 2), 1),
)


def _pair(ours: Function, theirs: Function, axis: Any) -> tuple[Function, Function]:
    return lambda x: ours(x, axis=axis), lambda x: theirs(x, dim=axis)


def reductions() -> Iterator[Case]:
    """Sums and their like over one axis or two."""
    named: dict[str, tuple[Function, Function, Callable[[Shape], Maker]]] = {
        "sum": (ek.sum, torch.sum, _POSITIVE),
        "mean": (ek.mean, torch.mean, _POSITIVE),
        "max": (ek.max, torch.amax, apart),
        "min": (ek.min, torch.amin, apart),
        "logsumexp": (ek.logsumexp, torch.logsumexp, uniform),
        "norm": (ek.linalg.vector_norm, torch.linalg.vector_norm, nonzero),
        "var": (ek.var, lambda x, dim: torch.var(x, dim, correction=0), uniform),
    }
    for name, (ours, theirs, maker) in named.items():
        ulps = 2.0 if name == "var" else 1.0  # PyTorch's is computed in float64
        for shape, axis in AXES:
            pair = _pair(ours, theirs, axis)
            yield Case(f"{name} {shape} {axis}", *pair, (maker(shape),), ulps=ulps)
    for shape, axis in AXES:
        if isinstance(axis, int):
            near_one = (nonzero(shape, 0.8, 1.25),)
            yield Case(f"prod {shape} {axis}", *_pair(ek.prod, torch.prod, axis), near_one)
    for correction in (0, 1, 2.5):
        yield Case(
            f"std {correction}",
            lambda x, c=correction: ek.std(x, axis=1, correction=c),
            lambda x, c=correction: torch.std(x, 1, correction=c),
            (uniform(MATRIX),),
            ulps=2.0,
        )


def scans() -> Iterator[Case]:
    """Running results, and the softmax family, along each axis of a matrix."""
    named: dict[str, tuple[Function, Function, Callable[[Shape], Maker]]] = {
        "cumulative_sum": (ek.cumulative_sum, torch.cumsum, uniform),
        "cumulative_prod": (ek.cumulative_prod, torch.cumprod, lambda s: nonzero(s, 0.8, 1.25)),
        "cumulative_max": (ek.cumulative_max, lambda x, dim: torch.cummax(x, dim)[0], apart),
        "cumulative_min": (ek.cumulative_min, lambda x, dim: torch.cummin(x, dim)[0], apart),
        "cumulative_logsumexp": (ek.nn.cumulative_logsumexp, torch.logcumsumexp, uniform),
        "diff": (ek.diff, torch.diff, uniform),
        "softmax": (ek.nn.softmax, torch.softmax, uniform),
        "log_softmax": (ek.nn.log_softmax, torch.log_softmax, uniform),
    }
    for name, (ours, theirs, maker) in named.items():
        for shape, axis in ((MATRIX, 0), (MATRIX, 1), ((2, 3, 70), 2), ((33,), 0), ((2, 1), 1)):
            yield Case(f"{name} {shape} {axis}", *_pair(ours, theirs, axis), (maker(shape),))


def products() -> Iterator[Case]:
    """Matrix products of several kinds."""
    shapes: list[tuple[Shape, Shape]] = [
        ((5, 7), (7, 3)),
        ((17, 33), (33, 29)),
        ((3, 7), (7,)),
        ((2, 1, 5, 4), (3, 4, 6)),
        ((70, 300), (300, 2)),
    ]
    for a, b in shapes:
        args = uniform(a, -1, 1), uniform(b, -1, 1)
        yield Case(f"matmul {a} {b}", ek.matmul, torch.matmul, args)
    subscripts: list[tuple[str, tuple[Shape, ...]]] = [
        ("ij,kj->ik", ((4, 5), (6, 5))),
        ("bij,bjk->bki", ((2, 3, 4), (2, 4, 5))),
        ("bthd,bshd->bhts", ((2, 5, 3, 4), (2, 6, 3, 4))),
        ("i,j->ij", ((4,), (5,))),
        ("ijk->ki", ((3, 4, 5),)),
        ("...i,...i->...", ((3, 4, 5), (4, 5))),
    ]
    for text, operands in subscripts:
        yield Case(
            f"einsum {text}",
            lambda *x, t=text: ek.einsum(t, *x),
            lambda *x, t=text: torch.einsum(t, *x),
            tuple(uniform(shape, -1, 1) for shape in operands),
        )
    pair = uniform((3, 4, 5)), uniform((5, 4, 2))
    yield Case(
        "tensordot",
        lambda x, y: ek.tensordot(x, y, axes=((1, 2), (1, 0))),
        lambda x, y: torch.tensordot(x, y, dims=((1, 2), (1, 0))),
        pair,
    )
    yield Case("vecdot", ek.vecdot, torch.linalg.vecdot, (uniform((3, 40)), uniform((3, 40))))
    yield Case("outer", ek.outer, torch.outer, (uniform((4,)), uniform((7,))))


def selections() -> Iterator[Case]:
    """Sorting, searching and indexing."""
    many, distinct = uniform((5, 4, 3)), (apart(MATRIX),)
    for axis in (0, 1):
        yield Case(
            f"sort {axis}",
            lambda x, a=axis: ek.sort(x, axis=a, descending=a == 1),
            lambda x, a=axis: torch.sort(x, dim=a, descending=a == 1, stable=True)[0],
            distinct,
        )
        yield Case(
            f"topk {axis}",
            lambda x, a=axis: ek.topk(x, 3, axis=a, largest=a == 1)[0],
            lambda x, a=axis: torch.topk(x, 3, a, largest=a == 1)[0],
            distinct,
        )
    rows, places = indices((7,), 0, 5), indices((5, 2, 3), 0, 4)
    yield Case("take", lambda x, i: ek.take(x, i, axis=0), lambda x, i: x[i], (many, rows))
    yield Case(
        "take_along_axis",
        lambda x, i: ek.take_along_axis(x, i, axis=1),
        lambda x, i: torch.gather(x, 1, i),
        (many, places),
    )
    yield Case("rows", lambda x, i: x[i, 1:, None], lambda x, i: x[i, 1:, None], (many, rows))
    yield Case("pairs", lambda x, i: x[i, :, [0] * 7], lambda x, i: x[i, :, [0] * 7], (many, rows))
    yield Case("slices", lambda x: x[1:, ::2, -1], lambda x: x[1:, ::2, -1], (many,))
    moves: dict[str, tuple[Function, Function]] = {
        "flip": (lambda x: ek.flip(x, axis=1), lambda x: torch.flip(x, (1,))),
        "roll": (lambda x: ek.roll(x, 2, axis=0), lambda x: torch.roll(x, 2, 0)),
        "tile": (lambda x: ek.tile(x, (2, 1, 3)), lambda x: torch.tile(x, (2, 1, 3))),
        "repeat": (lambda x: ek.repeat(x, 2, axis=1), lambda x: x.repeat_interleave(2, 1)),
        "tril": (ek.tril, torch.tril),
        "triu": (ek.triu, torch.triu),
        "stack": (lambda x: ek.stack([x, x * 2], axis=1), lambda x: torch.stack([x, x * 2], 1)),
        "concat": (lambda x: ek.concat([x, x[1:]]), lambda x: torch.cat([x, x[1:]])),
        "broadcast": (
            lambda x: ek.broadcast_to(x[:, :1], (2, 5, 6, 3)),
            lambda x: torch.broadcast_to(x[:, :1], (2, 5, 6, 3)),
        ),
        "permute": (
            lambda x: ek.permute_dims(x, (2, 0, 1)) * ek.permute_dims(x, (2, 0, 1)),
            lambda x: x.permute(2, 0, 1) * x.permute(2, 0, 1),
        ),
    }
    for name, pair in moves.items():
        yield Case(name, *pair, (many,), own_size=True)


def losses() -> Iterator[Case]:
    """Cross entropies and squared errors."""
    labels = indices((6,), 0, 9)
    for smoothing in (0.0, 0.1):
        for reduction in ("mean", "sum", "none"):
            given = {"label_smoothing": smoothing, "reduction": reduction}
            yield Case(
                f"cross_entropy {smoothing} {reduction}",
                lambda x, t, g=given: ek.nn.cross_entropy(x, t, **g),
                lambda x, t, g=given: torch.nn.functional.cross_entropy(x, t, **g),
                (uniform(MATRIX), labels),
            )
    pair = uniform(MATRIX), uniform(MATRIX)
    yield Case("mse_loss", ek.nn.mse_loss, torch.nn.functional.mse_loss, pair)


def others() -> list[Case]:
    return [*reductions(), *scans(), *products(), *selections(), *losses()]


# Points without a derivative, and where a formula would give NaN: the gradients have to be equal.
_ENDS = [-1.0, 2.0, 0.0, -1.5, 2.5]
_TIES = [[1.0, 3.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0], [2.0, 1.0, 1.0, 2.0]]
_ZEROS = [0.0, -0.0, 1.0, -1.0]
_BASES, _EXPONENTS = [0.0, 0.0, 0.0, 0.0, 2.0, -2.0], [0.0, 1.0, 2.0, 3.0, 0.0, 0.0]

KINKS: list[Case] = [
    Case(name, ours, theirs, tuple(fixed(values) for values in operands))
    for name, ours, theirs, *operands in [
        ("relu", ek.nn.relu, torch.relu, _ZEROS),
        ("abs", ek.abs, torch.abs, _ZEROS),
        ("sign", ek.sign, torch.sign, _ZEROS),
        ("sqrt", ek.sqrt, torch.sqrt, [0.0, 1.0]),
        ("clip", lambda x: ek.clip(x, -1, 2), lambda x: torch.clamp(x, -1, 2), _ENDS),
        ("clip below", lambda x: ek.clip(x, -1), lambda x: torch.clamp(x, -1), _ENDS),
        ("maximum", ek.maximum, torch.maximum, _TIES[0], _TIES[2]),
        ("minimum", ek.minimum, torch.minimum, _TIES[0], _TIES[2]),
        ("max", *_pair(ek.max, torch.amax, 1), _TIES),
        ("min", *_pair(ek.min, torch.amin, 1), _TIES),
        ("max of all", ek.max, torch.amax, _TIES),
        ("sort", ek.sort, lambda x: torch.sort(x, stable=True)[0], _TIES),
        (
            "sort downwards",
            lambda x: ek.sort(x, descending=True),
            lambda x: torch.sort(x, descending=True, stable=True)[0],
            _TIES,
        ),
        ("prod", *_pair(ek.prod, torch.prod, 1), [[0.0, 2, 3], [0, 0, 5], [1, 2, 3]]),
        (
            "cumulative_prod",
            *_pair(ek.cumulative_prod, torch.cumprod, 1),
            [[2.0, 0, 3, 4], [0, 2, 0, 5]],
        ),
        ("pow", ek.pow, torch.pow, _BASES, _EXPONENTS),
        ("power 2", lambda x: x**2, lambda x: x**2, _ZEROS),
        ("power 1.5", lambda x: x**1.5, lambda x: x**1.5, [0.0, 1.0]),
        ("norm", *_pair(ek.linalg.vector_norm, torch.linalg.vector_norm, 1), [[0.0, 0], [3, 4]]),
        ("hypot", ek.hypot, torch.hypot, [0.0, 3.0], [0.0, 4.0]),
        ("atan2", ek.atan2, torch.atan2, [0.0, 1.0], [0.0, 2.0]),
        # By y, PyTorch has NaN at (0, 0).
        ("xlogy", ek.special.xlogy, torch.xlogy, [0.0, 2.0], [1.0, 3.0]),
        (
            "where beside sqrt",
            lambda x: ek.where(x > 0, x, 0 * x),
            lambda x: torch.where(x > 0, x, 0 * x),
            _ZEROS,
        ),
        ("softplus", ek.nn.softplus, torch.nn.functional.softplus, [0.0, 19.0, -90.0, 90.0]),
        (
            "logaddexp",
            ek.logaddexp,
            torch.logaddexp,
            [0.0, 700.0, -float("inf")],
            [0.0, -700.0, 1.0],
        ),
        (
            "logsumexp",
            *_pair(ek.logsumexp, torch.logsumexp, 1),
            [[-float("inf"), 0.0], [800.0, 800.0]],
        ),
        (
            "softmax",
            *_pair(ek.nn.softmax, torch.softmax, 1),
            [[-float("inf"), 0.0], [800.0, 800.0]],
        ),
    ]
]
