"""Functions of the namespace beside PyTorch's, where it is installed: values and gradients.

In float32 the error against PyTorch in float64 is at most twice PyTorch's own and 1 ulp; in float64
the two agree to 1e-10. tests/test_neural_torch.py has the functions for neural networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_cases import KINKS, Case, elementwise, others  # noqa: E402

import einkorn as ek  # noqa: E402
from einkorn.ir.dtypes import float16, float32, float64  # noqa: E402

Array = np.ndarray[Any, Any]
LARGEST = 1e-10  # relative, in float64

# Operands as views of arrays: (their shape, the view).
LAYOUTS: list[tuple[tuple[int, ...], Callable[[Array], Array]]] = [
    ((41,), lambda x: x),
    ((), lambda x: x),
    ((0, 3), lambda x: x),
    ((12, 9), lambda x: x[::3, ::2].T),
    ((3, 5, 4), lambda x: x[:, ::-1, ::-1]),
    ((4, 1, 3), lambda x: np.broadcast_to(x, (4, 5, 3))),
]


def einkorn_results(case: Case, arrays: list[Array], weights: Any) -> list[Array]:
    """The value, and with weights the gradients of its weighted sum."""
    given = [ek.asarray(x) for x in arrays]
    if weights is None:
        return [np.asarray(case.ours(*given))]
    floats = tuple(k for k, x in enumerate(arrays) if x.dtype.kind == "f")

    def weighted(*operands: Any) -> Any:
        result = case.ours(*operands)
        return (result * ek.asarray(weights.astype(arrays[0].dtype))).sum(), result

    (_, result), found = ek.value_and_grad(weighted, wrt=floats, has_aux=True)(*given)
    return [np.asarray(result), *map(np.asarray, found)]


def torch_results(case: Case, arrays: list[Array], weights: Any) -> list[Array]:
    """The same by PyTorch."""
    given = [torch.tensor(np.array(x, order="C")) for x in arrays]
    floats = [x for x in given if x.is_floating_point()]
    for x in floats:
        x.requires_grad_(weights is not None)
    result = case.theirs(*given)
    if weights is None:
        return [result.numpy()]
    (result * torch.tensor(weights.astype(arrays[0].dtype))).sum().backward()
    gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in floats]
    return [result.detach().numpy(), *(x.numpy() for x in gradients)]


def error(got: Array, want: Array, own_size: bool) -> float:
    """The largest error, in eps of the result's dtype and of the size of what was wanted."""
    assert got.shape == want.shape
    if got.size == 0:
        return 0.0
    size = np.abs(want) if own_size else np.abs(want).max()
    eps = np.finfo(got.dtype).eps
    difference = np.abs(got.astype(np.float64) - want)
    return float(np.max(difference / (eps * np.maximum(size, 1e-30))))


def wide(arrays: list[Array]) -> list[Array]:
    return [x.astype(np.float64) if x.dtype.kind == "f" else x for x in arrays]


def compare(runs: Iterable[tuple[Case, list[Array]]]) -> None:
    """float32 operands: both frameworks against float64, and einkorn in float64.

    The errors are the largest of all runs: a single result may be right by luck.
    """
    errors: dict[int, list[tuple[float, float]]] = {}
    for case, arrays in runs:
        exact = wide(arrays)
        shape = torch_results(case, exact, None)[0].shape
        weights = np.random.default_rng(3).uniform(0.5, 1.5, shape) if case.smooth else None
        want = torch_results(case, exact, weights)
        ours, theirs = einkorn_results(case, arrays, weights), torch_results(case, arrays, weights)
        in_double = einkorn_results(case, exact, weights)
        for k, (a, b, c, d) in enumerate(zip(ours, theirs, want, in_double, strict=True)):
            own = case.own_size and k == 0
            assert (a.dtype, b.dtype, d.dtype) == (np.float32, np.float32, np.float64)
            errors.setdefault(k, []).append((error(a, c, own), error(b, c, own)))
            assert error(d, c, own) * np.finfo(d.dtype).eps <= LARGEST, f"{case} {k} in float64"
    for k, pairs in errors.items():
        mine, other = map(max, zip(*pairs))
        assert mine <= 2 * other + case.ulps, f"{case} {k}: {mine:.2f} ulp, PyTorch {other:.2f}"


ELEMENTWISE = [str(case) for case in elementwise(())]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_functions_in_every_layout(name: str) -> None:
    runs: list[tuple[Case, list[Array]]] = []
    for shape, view in LAYOUTS:
        (case,) = (case for case in elementwise(shape) if case.name == name)
        rng = np.random.default_rng(len(shape))
        runs.append((case, [view(make(rng, float32)) for make in case.makers]))
    compare(runs)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_functions_in_half_precision(name: str) -> None:
    (case,) = (case for case in elementwise((200,)) if case.name == name)
    rng = np.random.default_rng(1)
    arrays = [make(rng, float16) for make in case.makers]
    (want,) = torch_results(case, wide(arrays), None)
    (ours,), (theirs,) = einkorn_results(case, arrays, None), torch_results(case, arrays, None)
    assert ours.dtype == theirs.dtype == np.float16
    assert error(ours, want, True) <= 2 * error(theirs, want, True) + 1


@pytest.mark.parametrize("case", others(), ids=str)
def test_other_functions(case: Case) -> None:
    seeds = map(np.random.default_rng, range(3))
    compare((case, [make(rng, float32) for make in case.makers]) for rng in seeds)


@pytest.mark.parametrize("case", KINKS, ids=str)
def test_gradients_where_there_is_no_derivative(case: Case) -> None:
    arrays = [make(np.random.default_rng(0), float64) for make in case.makers]
    shape = torch_results(case, arrays, None)[0].shape
    weights = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    ours, theirs = einkorn_results(case, arrays, weights), torch_results(case, arrays, weights)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=0)


INTEGER = {
    "add": (ek.add, torch.add),
    "multiply": (ek.multiply, torch.mul),
    "floor_divide": (ek.floor_divide, lambda x, y: torch.div(x, y, rounding_mode="floor")),
    "remainder": (ek.remainder, torch.remainder),
    "bitwise_xor": (ek.bitwise_xor, torch.bitwise_xor),
    "shift": (lambda x, y: ek.bitwise_right_shift(x, abs(y)), lambda x, y: x >> abs(y)),
    "maximum": (ek.maximum, torch.maximum),
    "less": (ek.less, torch.lt),
    "argsort": (lambda x, y: ek.argsort(x), lambda x, y: torch.argsort(x, stable=True)),
    "cumulative_max": (
        lambda x, y: ek.cumulative_max(x, axis=0),
        lambda x, y: torch.cummax(x, 0)[0],
    ),
    "argmax": (lambda x, y: ek.argmax(x, axis=1), lambda x, y: torch.argmax(x, 1)),
    "unique": (lambda x, y: ek.unique_values(x), lambda x, y: torch.unique(x)),
    "searchsorted": (
        lambda x, y: ek.searchsorted(ek.sort(ek.reshape(x, -1)), y),
        lambda x, y: torch.searchsorted(torch.sort(x.reshape(-1))[0], y),
    ),
    "count": (
        lambda x, y: ek.count_nonzero(x > y, axis=0),
        lambda x, y: torch.count_nonzero(x > y, 0),
    ),
}


@pytest.mark.parametrize("name", INTEGER)
@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8"])
def test_integers_are_equal(name: str, dtype: str) -> None:
    ours, theirs = INTEGER[name]
    rng = np.random.default_rng(4)
    low, high = (0, 200) if dtype == "uint8" else (-100, 100)
    x = rng.integers(low, high, (6, 7)).astype(dtype)
    y = rng.integers(1, 7, (6, 7)).astype(dtype)
    y[::2] *= 1 if dtype == "uint8" else -1
    got, want = np.asarray(ours(x, y)), theirs(torch.tensor(x), torch.tensor(y)).numpy()
    assert got.dtype == want.dtype or got.dtype.kind == want.dtype.kind == "i"
    np.testing.assert_array_equal(got, want)
