"""`ek.linalg` against NumPy: values, gradients of both orders, all modes, and bad input."""

from __future__ import annotations

from collections.abc import Callable
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
from same_bits import assert_same_bits

import einkorn as ek
from einkorn.ir.host import HOST
from einkorn.passes.gradients.host import HOST_GRADIENTS

Array = np.ndarray[Any, Any]
la: Any = ek.linalg


def spd(*shape: int, dtype: str = "float64") -> Array:
    """Positive definite matrices whose eigenvalues are far apart."""
    x = normal(*shape, dtype=dtype)
    return x @ np.conj(np.swapaxes(x, -1, -2)) + np.diag(np.arange(1.0, shape[-1] + 1)).astype(
        dtype
    )


def symmetric(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of a symmetric matrix as one of any matrix."""
    return lambda x: fn((x + ek.conj(x.mT)) / 2)


def apart(m: int, n: int, dtype: str = "float64") -> Array:
    """A matrix whose singular values are far apart."""
    u, _, vh = np.linalg.svd(normal(m, n, dtype=dtype), full_matrices=False)
    return (u * np.arange(1.0, min(m, n) + 1)) @ vh


# -- values ----------------------------------------------------------------------------------------

SQUARE: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "cholesky": (la.cholesky, np.linalg.cholesky),
    "cholesky-upper": (
        lambda x: la.cholesky(x, upper=True),
        lambda x: np.linalg.cholesky(x, upper=True),
    ),
    "det": (la.det, np.linalg.det),
    "eigh": (la.eigh, np.linalg.eigh),
    "eigvalsh": (la.eigvalsh, np.linalg.eigvalsh),
    "inv": (la.inv, np.linalg.inv),
    "slogdet": (la.slogdet, np.linalg.slogdet),
    "power3": (lambda x: la.matrix_power(x, 3), lambda x: np.linalg.matrix_power(x, 3)),
    "power-5": (lambda x: la.matrix_power(x, -5), lambda x: np.linalg.matrix_power(x, -5)),
    "power0": (lambda x: la.matrix_power(x, 0), lambda x: np.linalg.matrix_power(x, 0)),
}
ANY: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "qr": (la.qr, np.linalg.qr),
    "qr-complete": (
        lambda x: la.qr(x, mode="complete"),
        lambda x: np.linalg.qr(x, mode="complete"),
    ),
    "svd": (la.svd, np.linalg.svd),
    "svd-thin": (
        lambda x: la.svd(x, full_matrices=False),
        lambda x: np.linalg.svd(x, full_matrices=False),
    ),
    "svdvals": (la.svdvals, np.linalg.svdvals),
    "matrix_rank": (la.matrix_rank, np.linalg.matrix_rank),
    "pinv": (la.pinv, np.linalg.pinv),
    "trace": (la.trace, lambda x: np.trace(x, axis1=-2, axis2=-1)),
    "trace+1": (
        lambda x: la.trace(x, offset=1),
        lambda x: np.trace(x, offset=1, axis1=-2, axis2=-1),
    ),
    "matrix_transpose": (la.matrix_transpose, lambda x: np.swapaxes(x, -1, -2)),
    **{
        f"norm-{ord}": (
            lambda x, ord=ord: la.matrix_norm(x, ord=ord),
            lambda x, ord=ord: np.linalg.matrix_norm(x, ord=ord),
        )
        for ord in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf)
    },
}


def agree(got: Any, want: Any, dtype: str) -> None:
    limit = 1e-4 if dtype in ("float32", "complex64") else 1e-11
    for a, b in zip(listed(got), listed(want), strict=True):
        a = np.asarray(a)
        assert (a.shape, a.dtype) == (np.shape(b), np.asarray(b).dtype)
        np.testing.assert_allclose(a, b, rtol=limit, atol=limit)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SQUARE)
def test_functions_of_square_matrices(name: str, dtype: str) -> None:
    function, reference = SQUARE[name]
    for shape in ((1, 1), (4, 4), (2, 3, 5, 5)):
        x = spd(*shape, dtype=dtype)
        agree(function(ek.asarray(x)), reference(x), dtype)
    agree(function(ek.zeros((0, 3, 3), dtype=dtype)), reference(np.zeros((0, 3, 3), dtype)), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ANY)
def test_functions_of_any_matrices(name: str, dtype: str) -> None:
    function, reference = ANY[name]
    for shape in ((1, 1), (4, 4), (5, 3), (2, 3, 5), (2, 1, 4, 2)):
        x = normal(*shape, dtype=dtype)
        agree(function(ek.asarray(x)), reference(x), dtype)
    agree(function(ek.zeros((0, 2, 3), dtype=dtype)), reference(np.zeros((0, 2, 3), dtype)), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equations(dtype: str) -> None:
    a, b = spd(2, 3, 3, dtype=dtype), normal(3, 4, dtype=dtype)
    agree(la.solve(a, b), np.linalg.solve(a, b), dtype)
    agree(la.solve(a[0], b[:, 0]), np.linalg.solve(a[0], b[:, 0]), dtype)
    agree(la.solve(a, b[:, 0]), np.linalg.solve(a, b[:, 0]), dtype)
    for lower in (True, False):
        half = np.tril(a) if lower else np.triu(a)
        agree(la.solve_triangular(a, b, lower=lower), np.linalg.solve(half, b), dtype)
        half[..., [0, 1, 2], [0, 1, 2]] = 1
        got = la.solve_triangular(a, b, lower=lower, unit_diagonal=True)
        agree(got, np.linalg.solve(half, b), dtype)
    tall = normal(6, 3, dtype=dtype)
    right = normal(6, 2, dtype=dtype)
    agree(la.lstsq(tall, right), np.linalg.lstsq(tall, right)[0], dtype)
    agree(la.lstsq(tall, right[:, 0]), np.linalg.lstsq(tall, right[:, 0])[0], dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_exponential(dtype: str) -> None:
    for shape, factor in (((3, 3), 0.1), ((2, 4, 4), 1.0), ((3, 3), 12.0), ((0, 0), 1.0)):
        x = (spd(*shape, dtype=dtype) if shape[-1] else np.zeros(shape, dtype)) * factor / 5
        w, v = np.linalg.eigh(x)
        want = (v * np.exp(w)[..., None, :]) @ np.conj(np.swapaxes(v, -1, -2))
        got = np.asarray(la.expm(x))
        assert (got.shape, got.dtype) == (x.shape, x.dtype)
        scale = np.abs(want).max(initial=1)
        np.testing.assert_allclose(
            got / scale, want / scale, atol=2e-6 if dtype[-2:] == "32" else 1e-12
        )
    assert np.isnan(np.asarray(la.expm(np.full((2, 2), np.inf)))).all()


def test_vectors() -> None:
    x, y = normal(4, 3), normal(2, 1, 3)
    agree(la.cross(x, y), np.cross(x, y), "float64")
    agree(la.cross(x.T, y[0].T, axis=-2), np.cross(x.T, y[0].T, axis=-2), "float64")
    whole = np.arange(6).reshape(2, 3)
    agree(la.cross(whole, whole[::-1]), np.cross(whole, whole[::-1]), "float64")
    for ord in (2, 1, 0, 3.5, -2, np.inf, -np.inf):
        for axis in (None, 0, (0, 1), -1):
            want = np.linalg.vector_norm(x, axis=axis, ord=ord, keepdims=True)
            agree(la.vector_norm(x, axis=axis, ord=ord, keepdims=True), want, "float64")
    assert la.vector_norm(ek.asarray([3.0, 4.0], dtype="float16")).dtype is ek.float16
    for offset in range(-4, 5):
        want = np.diagonal(x, offset=offset)
        agree(la.diagonal(x, offset=offset), want, "float64")
    assert la.matrix_norm(x, keepdims=True).shape == (1, 1)


def test_limits_of_small_singular_values() -> None:
    x = np.stack([np.diag([4.0, 2.0, 1e-9]), np.diag([1.0, 0.5, 0.25])])
    assert np.asarray(la.matrix_rank(x)).tolist() == [3, 3]
    assert np.asarray(la.matrix_rank(x, rtol=1e-6)).tolist() == [2, 3]
    assert np.asarray(la.matrix_rank(x, rtol=np.array([1e-6, 0.3]))).tolist() == [2, 2]
    got = np.asarray(la.pinv(x, rtol=np.array([1e-6, 0.3])))
    np.testing.assert_allclose(got, np.linalg.pinv(x, rtol=np.array([1e-6, 0.3])), atol=1e-12)
    assert np.asarray(la.matrix_rank(np.zeros((2, 0, 3)))).tolist() == [0, 0]
    assert la.pinv(np.zeros((2, 0, 3))).shape == (2, 3, 0)


def test_results_have_names() -> None:
    x = spd(3, 3)
    assert la.eigh(x)._fields == ("eigenvalues", "eigenvectors") == la.eig(x)._fields
    assert la.slogdet(x)._fields == ("sign", "logabsdet")
    assert (la.svd(x)._fields, la.qr(x)._fields) == (("U", "S", "Vh"), ("Q", "R"))


# -- gradients -------------------------------------------------------------------------------------

GRADIENTS: dict[str, tuple[Callable[..., Any], tuple[Array, ...]]] = {
    "cholesky": (symmetric(la.cholesky), (spd(3, 3),)),
    "cholesky-upper": (symmetric(lambda x: la.cholesky(x, upper=True)), (spd(2, 2, 2),)),
    "cross": (la.cross, (normal(2, 3), normal(3))),
    "det": (la.det, (spd(2, 2, 2),)),
    "diagonal": (lambda x: la.diagonal(x, offset=-1), (normal(3, 4),)),
    "eigvalsh": (symmetric(la.eigvalsh), (spd(3, 3),)),
    "eigh": (symmetric(lambda x: abs(la.eigh(x).eigenvectors)), (spd(3, 3),)),
    "expm": (la.expm, (normal(2, 3, 3) / 2,)),
    "inv": (la.inv, (spd(3, 3),)),
    "lstsq": (la.lstsq, (normal(4, 2), normal(4))),
    "matrix_power": (lambda x: la.matrix_power(x, 5), (normal(2, 2),)),
    "matrix_power-2": (lambda x: la.matrix_power(x, -2), (spd(2, 2),)),
    "norm": (lambda x: la.matrix_norm(x), (normal(2, 3),)),
    "norm-nuc": (lambda x: la.matrix_norm(x, ord="nuc"), (apart(3, 2),)),
    "norm-2": (lambda x: la.matrix_norm(x, ord=2), (apart(2, 3),)),
    "pinv-tall": (la.pinv, (apart(4, 2),)),
    "pinv-wide": (la.pinv, (apart(2, 3),)),
    "qr": (la.qr, (apart(3, 3),)),
    "qr-tall": (la.qr, (apart(4, 2),)),
    "qr-wide": (la.qr, (apart(2, 4),)),
    "qr-complete": (lambda x: la.qr(x, mode="complete"), (apart(2, 3),)),
    "slogdet": (lambda x: la.slogdet(x)[1], (spd(3, 3),)),
    "solve": (la.solve, (spd(2, 3, 3), normal(3, 2))),
    "solve-vector": (la.solve, (spd(3, 3), normal(3))),
    "solve_triangular": (la.solve_triangular, (spd(3, 3), normal(3, 1))),
    "svdvals": (la.svdvals, (apart(3, 2),)),
    "svd": (lambda x: [abs(y) for y in la.svd(x, full_matrices=False)], (apart(3, 3),)),
    "svd-tall": (lambda x: [abs(y) for y in la.svd(x, full_matrices=False)], (apart(4, 2),)),
    "svd-wide": (lambda x: [abs(y) for y in la.svd(x, full_matrices=False)], (apart(2, 4),)),
    "svd-full": (lambda x: abs(la.svd(x).U[:, :2]), (apart(3, 2),)),
    "trace": (la.trace, (normal(2, 3, 3),)),
    "vector_norm": (lambda x: la.vector_norm(x, axis=0), (normal(3, 2),)),
    "vector_norm3": (lambda x: la.vector_norm(x, ord=3.5), (normal(3),)),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str) -> None:
    function, args = GRADIENTS[name]
    check_gradients(function, *args)


@pytest.mark.parametrize(
    "name", ["cholesky", "eigh", "qr-tall", "qr-wide", "svd-tall", "solve", "expm"]
)
def test_forward_mode(name: str) -> None:
    function, args = GRADIENTS[name]
    check_forward(function, *args)


def test_every_host_function_has_a_gradient() -> None:
    assert HOST.keys() == HOST_GRADIENTS.keys()


def test_norms_have_gradient_zero_at_zero() -> None:
    zero = ek.zeros((2, 2), dtype="float64")
    for fn in (la.vector_norm, la.matrix_norm, lambda x: la.vector_norm(x, ord=3)):
        assert not np.asarray(ek.grad(fn)(zero)).any()


def test_repeated_eigenvalues() -> None:
    """Of the values the gradient is right; of the vectors there is none."""
    x = ek.eye(2, dtype="float64")
    got = ek.grad(lambda x: ek.sum(la.eigvalsh(x) * ek.asarray([2.0, 2.0], dtype="float64")))(x)
    np.testing.assert_allclose(np.asarray(got), 2 * np.eye(2), atol=1e-15)
    vectors = ek.grad(lambda x: ek.sum(la.eigh(x).eigenvectors * np.array([[1.0, 2], [3, 4]])))(x)
    assert not np.isfinite(np.asarray(vectors)).all()


# -- modes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["cholesky", "eigh", "slogdet", "qr-tall", "svd-wide", "pinv-wide"]
)
def test_all_modes_give_the_same_bits(name: str) -> None:
    function, args = GRADIENTS[name]
    check_same_bits(function, *args)
    check_same_bits(function, *(x.astype("float32") for x in args))


@pytest.mark.parametrize(
    "name", ["cholesky", "eigh", "det", "qr", "svdvals", "expm", "inv", "solve"]
)
def test_vmap(name: str) -> None:
    function, args = GRADIENTS[name]
    args = tuple(x if x.ndim == 2 else x[0] for x in args)
    check_batched(function, *(np.stack([x, x * 1.5, x + 0.1]) for x in args))


def test_per_example_gradients() -> None:
    x = spd(3, 2, 2)
    got = ek.vmap(ek.grad(lambda x: la.slogdet(x)[1]))(x)
    np.testing.assert_allclose(np.asarray(got), np.swapaxes(np.linalg.inv(x), -1, -2), atol=1e-12)


def test_examples_that_do_not_count_refuse_nothing() -> None:
    """A branch computed for all examples and chosen for some; a loop that some have left."""
    x = np.stack([np.eye(2), np.full((2, 2), np.nan), np.ones((2, 2)), 4 * np.eye(2)])
    flags = np.array([True, False, False, True])

    def chosen(flag: Any, x: Any) -> Any:
        return ek.cond(flag, lambda x: la.svdvals(la.inv(x)), lambda x: x[0], x)

    def looped(flag: Any, x: Any) -> Any:
        def body(carry: Any) -> Any:
            count, x = carry
            return count + 1, la.inv(x)

        start = ek.where(flag, 0, 1)
        return ek.while_loop(lambda carry: carry[0] < 1, body, (start, x))[1]

    for function in (chosen, looped):
        rows = [np.asarray(function(*map(ek.asarray, row))) for row in zip(flags, x)]
        for run in (ek.vmap(function), ek.compile(ek.vmap(function))):
            assert_same_bits(np.asarray(run(flags, x)), np.stack(rows))
            with pytest.raises(ek.LinAlgError):
                run(np.array([True, False, True, True]), x)


# -- bad input -------------------------------------------------------------------------------------

NOT_SQUARE = ["cholesky", "det", "eig", "eigh", "eigvals", "eigvalsh", "expm", "inv", "slogdet"]


@pytest.mark.parametrize("name", [*NOT_SQUARE, "matrix_power"])
def test_square_matrices_are_asked_for(name: str) -> None:
    function = getattr(la, name)
    more = (2,) if name == "matrix_power" else ()
    for x in (np.zeros((2, 3)), np.zeros(3), np.zeros(())):
        for run in (function, ek.compile(lambda x: function(x, *more))):
            with pytest.raises(ek.ShapeError, match=name):
                run(x, *more if run is function else ())


@pytest.mark.parametrize("name", [*NOT_SQUARE, "qr", "svd", "svdvals", "pinv"])
def test_half_types_are_refused(name: str) -> None:
    with pytest.raises(ek.DTypeError, match=r"cast with .astype\('float32'\)"):
        getattr(la, name)(ek.ones((2, 2), dtype="float16"))


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: la.solve(np.eye(3), np.ones(2)), ek.ShapeError, "rows"),
    (lambda: la.solve(np.ones((2, 3)), np.ones(2)), ek.ShapeError, "square"),
    (lambda: la.solve(np.ones((2, 3, 3)), np.ones((4, 3, 1))), ek.ShapeError, "broadcast"),
    (lambda: la.qr(np.eye(2), mode="full"), ek.ShapeError, "mode"),
    (lambda: la.svd(np.eye(2), full_matrices=1), ek.DTypeError, "full_matrices"),
    (lambda: la.matrix_norm(np.eye(2), ord=3), ek.ShapeError, "ord"),
    (lambda: la.matrix_norm(np.eye(2), ord="big"), ek.ShapeError, "ord"),
    (lambda: la.matrix_norm(np.ones(2)), ek.ShapeError, "2 axes"),
    (lambda: la.vector_norm(np.ones(2), axis=2), ek.ShapeError, "axis 2"),
    (lambda: la.vector_norm(np.ones((2, 2)), axis=(0, 0)), ek.ShapeError, "twice"),
    (lambda: la.cross(np.ones(2), np.ones(2)), ek.ShapeError, "3 elements"),
    (lambda: la.cross(np.ones((3, 3)), np.ones(3), axis=0), ek.ShapeError, "3 elements|axis"),
    (lambda: la.diagonal(np.ones(3)), ek.ShapeError, "2 axes"),
    (lambda: la.matrix_power(np.eye(2), 0.5), ek.DTypeError, "integer"),
    (lambda: la.pinv(np.eye(2), rtol=np.ones(3)), ek.ShapeError, "broadcast"),
    (lambda: la.inv("text"), ek.DTypeError, "numbers"),
]


@pytest.mark.parametrize("position", range(len(BAD)))
def test_bad_input(position: int) -> None:
    call, kind, text = BAD[position]
    with pytest.raises(kind, match=text):
        call()


def test_integers_become_float32() -> None:
    assert la.inv(np.eye(2, dtype="int64")).dtype is ek.float32
    assert la.solve(np.eye(2, dtype="int32"), [1, 2]).dtype is ek.float32


def test_qr_of_tall_matrices_has_no_complete_gradient() -> None:
    with pytest.raises(ek.StateError, match="mode='reduced'"):
        ek.grad(lambda x: ek.sum(la.qr(x, mode="complete").Q))(ek.asarray(apart(3, 2)))
