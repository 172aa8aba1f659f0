"""Complex dtypes against NumPy: values in all modes, gradients of both orders, and what is refused.

The gradient of a real number L by z is dL/dRe(z) + i dL/dIm(z).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from host_checks import (
    check_batched,
    check_forward,
    check_gradients,
    check_same_bits,
    listed,
    normal,
)
from same_bits import assert_same_bits, bits

import einkorn as ek
from einkorn.host import call
from einkorn.ir.host_calls import MOVES
from einkorn.ir.ops import OPS, Op
from einkorn.ir.types import TensorType
from einkorn.passes.gradients import COMPLEX_GRADIENTS

Array = np.ndarray[Any, Any]
DTYPES = ("complex64", "complex128")
Z = normal(3, 4, dtype="complex128")
W = normal(3, 4, dtype="complex128")


def near(got: Any, want: Any) -> None:
    """Nearly equal, in the same shape and dtype."""
    a, b = np.asarray(got), np.asarray(want)
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    limit = 1e-5 if a.dtype in (np.complex64, np.float32) else 1e-13
    np.testing.assert_allclose(a, b, rtol=limit, atol=limit)


# -- values ----------------------------------------------------------------------------------------

UNARY = (
    "abs acos acosh asin asinh atan atanh conj cos cosh exp expm1 imag isfinite isinf isnan log "
    "log10 log1p log2 logical_not negative positive real reciprocal round sign sin sinh sqrt "
    "square tan tanh angle"
).split()
BINARY = "add divide equal logical_and logical_or multiply not_equal pow subtract".split()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_operand(name: str, dtype: str) -> None:
    for x in (Z.astype(dtype), Z[0, 0].astype(dtype), Z[:0].astype(dtype)):
        (got,) = check_same_bits(getattr(ek, name), x)
        near(got, getattr(np, name)(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_operands(name: str, dtype: str) -> None:
    z, w = Z.astype(dtype), W.astype(dtype)
    for x, y in ((z, w), (z, w[0]), (z[:, :1], w), (z, z)):
        (got,) = check_same_bits(getattr(ek, name), x, y)
        near(got, getattr(np, name)(x, y))


OTHERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "sum": (ek.sum, np.sum),
    "sum-axis": (lambda x: ek.sum(x, axis=0), lambda x: np.sum(x, 0)),
    "prod": (lambda x: ek.prod(x, axis=1), lambda x: np.prod(x, 1)),
    "mean": (lambda x: ek.mean(x, axis=-1), lambda x: np.mean(x, -1)),
    "cumulative_sum": (lambda x: ek.cumulative_sum(x, axis=1), lambda x: np.cumsum(x, 1)),
    "cumulative_prod": (lambda x: ek.cumulative_prod(x, axis=0), lambda x: np.cumprod(x, 0)),
    "diff": (ek.diff, np.diff),
    "any": (lambda x: ek.any(x, axis=0), lambda x: np.any(x, 0)),
    "count_nonzero": (ek.count_nonzero, lambda x: np.asarray(np.count_nonzero(x))),
    "matmul": (lambda x: x @ x.mT, lambda x: x @ x.T),
    "vecdot": (lambda x: ek.vecdot(x, x[::-1]), lambda x: np.vecdot(x, x[::-1])),
    "tensordot": (lambda x: ek.tensordot(x, x), lambda x: np.tensordot(x, x)),
    "outer": (lambda x: ek.outer(x[0], x[1]), lambda x: np.outer(x[0], x[1])),
    "einsum": (lambda x: ek.einsum("ij,kj->ik", x, x), lambda x: np.einsum("ij,kj->ik", x, x)),
    "integer_pow": (lambda x: x**3, lambda x: x * x * x),
    "negative_pow": (lambda x: x**-2, lambda x: 1 / (x * x)),
    "transpose": (lambda x: x.T, lambda x: x.T),
    "reshape": (lambda x: x.T.reshape(-1), lambda x: x.T.reshape(-1)),
    "index": (lambda x: x[::-1, 1::2], lambda x: x[::-1, 1::2]),
    "take": (lambda x: x[:, [2, 0, 0]], lambda x: x[:, [2, 0, 0]]),
    "roll": (lambda x: ek.roll(x, 1, axis=1), lambda x: np.roll(x, 1, 1)),
    "pad": (lambda x: ek.pad(x, 1, value=2 - 1j), lambda x: np.pad(x, 1, constant_values=2 - 1j)),
    "concat": (lambda x: ek.concat([x, x], axis=1), lambda x: np.concat([x, x], 1)),
    "stack": (lambda x: ek.stack([x, x], axis=1), lambda x: np.stack([x, x], 1)),
    "tile": (lambda x: ek.tile(x, (2, 1)), lambda x: np.tile(x, (2, 1))),
    "repeat": (lambda x: ek.repeat(x, 2, axis=1), lambda x: np.repeat(x, 2, 1)),
    "broadcast": (lambda x: ek.broadcast_to(x[0], (5, 4)), lambda x: np.broadcast_to(x[0], (5, 4))),
    "where": (lambda x: ek.where(ek.abs(x) > 1, x, 0), lambda x: np.where(np.abs(x) > 1, x, 0)),
    "where-const": (
        lambda x: ek.where(ek.real(x) > 0, x, 1j),
        lambda x: np.where(x.real > 0, x, 1j).astype(x.dtype),
    ),
    "tril": (ek.tril, np.tril),
    "set": (lambda x: x.at[0].set(1j), lambda x: np.concat([np.full((1, 4), 1j, x.dtype), x[1:]])),
    "add-at": (lambda x: x.at[:, 1].add(1 + 1j), lambda x: x + np.array([0, 1 + 1j, 0, 0], "c8")),
    "add-twice": (
        lambda x: x.at[:, [1, 1]].add(1j),
        lambda x: x + np.array([0, 2j, 0, 0], x.dtype),
    ),
    "weak": (lambda x: 1j * x + 2 - x / 2j, lambda x: (1j * x + 2 - x / 2j).astype(x.dtype)),
    "ones": (lambda x: ek.ones_like(x) * x, lambda x: x),
    "full": (lambda x: x + ek.full(4, 2j, dtype=x.dtype), lambda x: x + np.full(4, 2j, x.dtype)),
    "astype": (lambda x: x.astype("complex64"), lambda x: x.astype("complex64")),
    "real-cast": (lambda x: ek.real(x).astype(x.dtype) + x, lambda x: x.real.astype(x.dtype) + x),
    "bool": (lambda x: x.astype("bool"), lambda x: x.astype("bool")),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OTHERS)
def test_other_functions(name: str, dtype: str) -> None:
    function, reference = OTHERS[name]
    (got,) = check_same_bits(function, Z.astype(dtype))
    near(got, reference(Z.astype(dtype)))


LINALG: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    name: (getattr(ek.linalg, name), getattr(np.linalg, name))
    for name in ("cholesky det eigh eigvalsh inv matrix_norm pinv qr slogdet svdvals svd".split())
}


@pytest.mark.parametrize("name", LINALG)
def test_linear_algebra(name: str) -> None:
    x = normal(2, 3, 3, dtype="complex128")
    x = x @ np.conj(np.swapaxes(x, -1, -2)) + np.eye(3)
    function, reference = LINALG[name]
    for got, want in zip(check_same_bits(function, x), listed(reference(x)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)
    near(ek.linalg.vector_norm(x, axis=(0, 1)), np.linalg.vector_norm(x, axis=(0, 1)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_eigenvalues_are_complex(dtype: str) -> None:
    x = np.array([[0.0, 1.0], [-1.0, 0.0]], dtype)
    values, vectors = ek.linalg.eig(x)
    assert values.dtype is vectors.dtype is ek.asarray(x).dtype.complex
    near(ek.sum(abs(x @ vectors - vectors * values)) + 1, np.asarray(1, x.real.dtype))
    assert ek.linalg.eigvals(np.eye(2, dtype=dtype)).dtype is values.dtype


# -- dtypes ----------------------------------------------------------------------------------------


def test_promotion() -> None:
    c64, c128 = ek.complex64, ek.complex128
    for a, b in product(
        ("bool", "int32", "uint64", "float16", "float32", "float64", *DTYPES), DTYPES
    ):
        want = c128 if "float64" in (a, b) or "complex128" in (a, b) else c64
        assert ek.result_type(ek.zeros(2, dtype=a), b) is want
        if a != "bool":
            assert (ek.ones(2, dtype=b) * ek.ones(2, dtype=a)).dtype is want
    assert (ek.ones(2) * 1j).dtype is c64
    assert (ek.ones(2, dtype="float64") + 1j).dtype is c128
    assert (ek.ones(2, dtype="int64") + 1j).dtype is c64
    assert (ek.asarray([1j]) * 2.5).dtype is c64
    assert ek.asarray(2j).dtype is ek.asarray([1, 2j]).dtype is c64
    assert ek.asarray(np.array([1j])).dtype is c128
    assert (ek.real(ek.ones(1, dtype=c128)).dtype, abs(ek.ones(1, dtype=c64)).dtype) == (
        ek.float64,
        ek.float32,
    )


def test_creation() -> None:
    near(ek.linspace(1, 2 + 3j, 4), np.linspace(1, 2 + 3j, 4, dtype="complex64"))
    got = ek.linspace(1j, ek.asarray(2.0), 5, dtype="complex128", endpoint=False)
    near(got, np.linspace(1j, 2, 5, endpoint=False))
    near(ek.linspace(0, 1, 3, dtype="complex128"), np.linspace(0, 1, 3, dtype="complex128"))
    near(ek.eye(2, dtype="complex64"), np.eye(2, dtype="complex64"))
    near(ek.full((2,), 1 - 2j), np.full(2, 1 - 2j, "complex64"))
    near(ek.unique_values(ek.asarray([2j, 1, 2j])), np.array([2j, 1], "complex64"))


def test_dtype_functions() -> None:
    assert ek.finfo("complex64") == ek.finfo("float32")
    assert ek.finfo(ek.complex128).dtype is ek.float64
    assert ek.isdtype("complex64", "complex floating")
    assert ek.isdtype("complex64", "numeric")
    assert not ek.isdtype("complex64", ("real floating", "integral"))
    assert ek.can_cast("float32", "complex64")
    assert not ek.can_cast("complex64", "float64")
    assert not ek.can_cast("float64", "complex64")


def test_leaving_and_entering() -> None:
    x = ek.asarray(Z)
    assert "1.5-2.j" in repr(ek.asarray(1.5 - 2j))
    assert complex(ek.asarray(1.5 - 2j)) == ek.asarray(1.5 - 2j).item() == 1.5 - 2j
    assert np.shares_memory(np.from_dlpack(x), x.numpy())
    assert_same_bits(np.asarray(ek.from_dlpack(Z)), Z)
    assert_same_bits(np.asarray(copy.deepcopy(x)), Z)
    assert_same_bits(np.exp(x), np.exp(Z))
    graph = ek.trace(lambda x: x * (1 + 2j) + ek.pad(x, 1, value=3j)[1:-1, 1:-1])(x)
    assert ek.parse(str(graph)).key == graph.key
    scope: dict[str, Any] = {}
    exec(graph.to_python(), scope)
    got, _ = scope[graph.name](x)
    near(got[0], Z * (1 + 2j) + Z)


def test_special_values() -> None:
    parts = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0]
    z = np.array([complex(a, b) for a, b in product(parts, parts)])
    with np.errstate(all="ignore"):
        for name in ("isnan", "isinf", "isfinite", "abs", "conj", "real", "imag", "negative"):
            (got,) = check_same_bits(getattr(ek, name), z)
            assert_same_bits(got, getattr(np, name)(z))
    joined = ek.asarray(np.asarray(call("complex", z.real, z.imag)))
    assert bits(np.asarray(ek.imag(joined))) == bits(z.imag)


# -- gradients -------------------------------------------------------------------------------------

SMALL = normal(2, 3, dtype="complex128") * 0.4
REAL = normal(2, 3)
HOLOMORPHIC = (
    "exp expm1 log log1p log2 log10 sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh "
    "sqrt rsqrt square reciprocal negative"
).split()
GRADIENTS: dict[str, tuple[Callable[..., Any], tuple[Array, ...]]] = {
    **{name: (getattr(ek, name), (SMALL,)) for name in HOLOMORPHIC},
    "abs": (ek.abs, (SMALL,)),
    "abs2": (lambda z: abs(z) ** 2, (SMALL,)),
    "angle": (ek.angle, (SMALL,)),
    "conj": (lambda z: ek.conj(z) * z * z, (SMALL,)),
    "parts": (lambda z: ek.real(z) * ek.imag(z), (SMALL,)),
    "sign": (ek.sign, (SMALL,)),
    "join": (lambda x, y: call("complex", x, y) ** 2, (REAL, REAL + 1)),
    "cast": (lambda x: x.astype("complex128") ** 2 * 1j, (REAL,)),
    "add": (ek.add, (SMALL, SMALL[0])),
    "mul": (ek.multiply, (SMALL, SMALL[:, :1])),
    "div": (ek.divide, (SMALL, SMALL + 2)),
    "mixed": (lambda z, x: z * x + x / z, (SMALL, REAL)),
    "pow": (ek.pow, (SMALL + 2, SMALL)),
    "integer_pow": (lambda z: z**-3, (SMALL + 1,)),
    "matmul": (lambda a, b: a @ b.mT, (SMALL, SMALL * 2)),
    "vecdot": (ek.vecdot, (SMALL, SMALL * 1j)),
    "sum": (lambda z: ek.sum(z, axis=0) ** 2, (SMALL,)),
    "prod": (lambda z: ek.prod(z, axis=1), (SMALL + 1,)),
    "cumsum": (lambda z: ek.cumulative_sum(z, axis=1) ** 2, (SMALL,)),
    "cumprod": (lambda z: ek.cumulative_prod(z, axis=1), (SMALL + 1,)),
    "movement": (lambda z: (ek.pad(z.mT[::-1, :1], 1) ** 2).reshape(-1)[1:8], (SMALL,)),
    "gather": (lambda z: ek.take(z, ek.asarray([1, 1, 0]), axis=0) ** 2, (SMALL,)),
    "scatter": (lambda z: z.at[[0, 0]].add(z) ** 2 + z.at[0].set(z[1] ** 2), (SMALL,)),
    "where": (lambda z: ek.where(ek.real(z) > 0, z * z, ek.conj(z)), (SMALL,)),
    "concat": (lambda z: ek.concat([z, z * z], axis=1), (SMALL,)),
    "norm": (lambda z: ek.linalg.vector_norm(z, axis=1), (SMALL,)),
    "inv": (ek.linalg.inv, (SMALL[:, :2] + 2 * np.eye(2),)),
    "det": (ek.linalg.det, (SMALL[:, :2] + 2 * np.eye(2),)),
    "slogdet": (ek.linalg.slogdet, (SMALL[:, :2] + 2 * np.eye(2),)),
    "solve": (ek.linalg.solve, (SMALL[:, :2] + 2 * np.eye(2), SMALL)),
    "cholesky": (lambda z: ek.linalg.cholesky(z @ ek.conj(z.mT)), (SMALL,)),
    "qr": (ek.linalg.qr, (normal(3, 2, dtype="complex128"),)),
    "qr-wide": (ek.linalg.qr, (normal(2, 3, dtype="complex128"),)),
    "pinv": (ek.linalg.pinv, (normal(3, 2, dtype="complex128"),)),
    "expm": (ek.linalg.expm, (SMALL[:, :2],)),
    "eigvalsh": (lambda z: ek.linalg.eigvalsh(z @ ek.conj(z.mT)), (SMALL,)),
    "eigh": (lambda z: _projectors(ek.linalg.eigh(z @ ek.conj(z.mT))[1]), (SMALL,)),
    "svdvals": (ek.linalg.svdvals, (SMALL,)),
    "svd": (lambda z: _low_rank(ek.linalg.svd(z, full_matrices=False)), (SMALL,)),
    "svd-phase": (lambda z: _phases(ek.linalg.svd(z, full_matrices=False)), (SMALL,)),
    "eigvals": (ek.linalg.eigvals, (np.diag([1.0, 3.0]) + REAL[:, :2] / 4,)),
    "eigvals-complex": (ek.linalg.eigvals, (np.diag([1.0, 3.0]) + SMALL[:, :2],)),
    "eig": (lambda z: _projectors(ek.linalg.eig(z)[1]), (np.diag([1.0, 3.0]) + SMALL[:, :2],)),
}


def _projectors(vectors: Any) -> Any:
    """What does not depend on the phases of eigenvectors."""
    return vectors[..., :, None, :] * ek.conj(vectors[..., None, :, :])


def _low_rank(parts: Any) -> Any:
    """The best approximation of rank 1."""
    return parts.U[:, :1] * parts.S[:1] @ parts.Vh[:1]


def _phases(parts: Any) -> Any:
    """Depends on the phases of U and Vh together, not on each of them."""
    return (parts.U * ek.asarray([1.0, 2.0], dtype="float64")) @ parts.Vh


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str) -> None:
    function, args = GRADIENTS[name]
    check_gradients(function, *args, tol=5e-6)


@pytest.mark.parametrize("name", ["abs", "mul", "matmul", "mixed", "sign", "svd", "join", "where"])
def test_forward_mode(name: str) -> None:
    function, args = GRADIENTS[name]
    check_forward(function, *args)


@pytest.mark.parametrize("name", ["abs2", "mul", "matmul", "movement", "scatter", "cumprod", "inv"])
def test_vmap(name: str) -> None:
    function, args = GRADIENTS[name]
    args = tuple(np.broadcast_to(x, (2, x.shape[-1])) for x in args)
    check_batched(function, *(np.stack([x, 2 * x, x + 1]) for x in args), exact=False)


def test_descent() -> None:
    """A step against the gradient makes a real number smaller; leaves may be complex."""
    z = ek.Parameter(np.array([1 + 2j, -3j]))

    @ek.compile
    def step() -> Any:
        loss, grad = ek.value_and_grad(lambda: ek.sum(abs(z - (2 - 1j)) ** 2), z)()
        z.value = z - 0.25 * grad
        return loss

    losses = [float(step()) for _ in range(60)]
    assert losses[-1] < 1e-20 < losses[0]
    near(z.numpy(), np.full(2, 2 - 1j))
    loss = ek.sum(abs(z * 2) ** 2)
    loss.backward()
    near(z.grad, 8 * z.numpy())


def test_parts_do_not_share_memory_with_a_leaf() -> None:
    """NumPy's `real` is a view, and that of one element is even dense."""
    z = ek.Parameter(np.array([1 + 2j]))
    kept = [ek.real(z), ek.imag(z), z.astype("complex128"), ek.sum(z, axis=0), ek.round(z)]
    before = [np.asarray(x).copy() for x in kept]

    @ek.compile
    def step() -> None:
        z.value = z * 3

    for _ in range(3):
        step()
    for x, want in zip(kept, before):
        assert_same_bits(np.asarray(x), want)


def test_control_flow_and_checkpoint() -> None:
    def fn(z: Any) -> Any:
        def body(carry: Any, row: Any) -> Any:
            carry = ek.exp(carry * 0.5) * row
            return carry, abs(carry)

        last, sizes = ek.scan(body, z[0], z)
        return ek.cond(ek.sum(sizes) > 0, lambda x: x * 2, lambda x: x, last)

    (_,) = check_same_bits(fn, SMALL)
    check_gradients(fn, SMALL)
    check_gradients(ek.checkpoint(fn), SMALL, order=1)


# -- the tables, and what is refused ---------------------------------------------------------------


def test_every_op_that_takes_complex_numbers_has_a_gradient() -> None:
    """What its shape rule accepts; regions and results without a gradient aside."""
    z = TensorType(ek.complex64, (2, 2))
    found: set[Op] = set()
    for op, row in OPS.items():
        if not row.elementwise or op in (
            Op.CAST,
            Op.SELECT,
            Op.INTEGER_POW,
            Op.ALIAS,
            Op.POLYGAMMA,
        ):
            continue
        for operands in ((z,), (z, z)):
            try:
                type = row.infer(*operands)
            except (ek.EinkornError, TypeError):
                continue
            if type.dtype.is_inexact:
                found.add(op)
    assert found <= COMPLEX_GRADIENTS.keys()
    rest = COMPLEX_GRADIENTS.keys() - found
    assert {op for op in rest if not OPS[op].view and op not in MOVES} == {
        Op.CAST, Op.SELECT, Op.INTEGER_POW, Op.SUM, Op.PROD, Op.CUMSUM, Op.CUMPROD, Op.DOT,
    }  # fmt: skip


z64 = ek.asarray([1j, 2.0])
REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: z64 < z64, "order"),
    (lambda: ek.maximum(z64, 0), "order"),
    (lambda: ek.max(z64), "order"),
    (lambda: ek.argmax(z64), "order"),
    (lambda: ek.sort(z64), "order"),
    (lambda: ek.clip(z64, 0, 1), "order"),
    (lambda: z64 // 2, "order"),
    (lambda: z64 % 2, "order"),
    (lambda: ek.cumulative_max(z64), "order"),
    (lambda: ek.floor(z64), "floating"),
    (lambda: ek.erf(z64), "floating"),
    (lambda: ek.nn.softmax(z64), "floating"),
    (lambda: ek.atan2(z64, z64), "floating"),
    (lambda: ek.var(z64), "real numbers"),
    (lambda: ek.hypot(z64, z64), "real numbers"),
    (lambda: ek.special.xlogy(z64, z64), "real numbers"),
    (lambda: ek.linspace(0, 1j, 3, dtype="float32"), "complex numbers"),
    (lambda: z64.astype("float32"), r"ek.real\(x\)"),
    (lambda: ek.asarray([1j], dtype="float32"), "real part"),
    (lambda: ek.asarray([1.0]).at[0].set(1j), "complex"),
    (lambda: float(z64[0]), r"complex\(t\)"),
    (lambda: int(z64[0]), r"complex\(t\)"),
    (lambda: ek.grad(lambda z: ek.sum(z * z))(z64), "take ek.real or abs"),
    (lambda: ek.jacobian(lambda z: z * z)(z64), "real numbers"),
    (lambda: ek.sum(z64, dtype="float32"), "imaginary"),
    (lambda: z64 & z64, "integers or bool"),
]


@pytest.mark.parametrize("position", range(len(REFUSED)))
def test_what_complex_numbers_have_not(position: int) -> None:
    call, text = REFUSED[position]
    with pytest.raises(ek.DTypeError, match=text):
        call()
