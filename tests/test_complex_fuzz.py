"""Random programs of movement, indexing and arithmetic on complex numbers: memory and bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from guarded_run import guarded_run
from host_checks import normal
from same_bits import assert_same_bits, split_finely

import einkorn as ek
from einkorn.runtime.compiler import compile_graph

Array = np.ndarray[Any, Any]
Step = Callable[[Any, np.random.Generator], Any]


def _axis(x: Any, rng: np.random.Generator) -> int:
    return int(rng.integers(x.ndim))


def _part(x: Any, rng: np.random.Generator) -> Any:
    """A slice, perhaps backwards, perhaps empty."""
    axis = _axis(x, rng)
    low, step = int(rng.integers(0, x.shape[axis] + 1)), int(rng.choice([1, 2, 3, -1]))
    index = [slice(None)] * x.ndim
    index[axis] = slice(low, None, step) if step > 0 else slice(low, None, -1)
    return x[tuple(index)]


def _indices(count: int, n: int, rng: np.random.Generator) -> Any:
    """Indices below n, computed by the program itself; some repeat."""
    return (ek.arange(count) * int(rng.integers(1, 5)) + int(rng.integers(9))) % n


def _taken(x: Any, rng: np.random.Generator) -> Any:
    axis = _axis(x, rng)
    if not x.shape[axis]:
        return x
    return ek.take(x, _indices(3, x.shape[axis], rng) - x.shape[axis], axis=axis)


def _changed(x: Any, rng: np.random.Generator) -> Any:
    if not x.shape[0]:
        return x
    where = x.at[_indices(4, x.shape[0], rng)]
    return where.add(x[:1] * 2j) if rng.random() < 0.5 else where.set(1 - 2j)


STEPS: list[Step] = [
    _part,
    _taken,
    _changed,
    lambda x, rng: ek.permute_dims(x, tuple(int(k) for k in rng.permutation(x.ndim))),
    lambda x, rng: ek.flip(x, axis=_axis(x, rng)),
    lambda x, rng: ek.reshape(x, (-1, x.shape[0])) if x.size else x,
    lambda x, rng: ek.pad(x, int(rng.integers(0, 2)), value=complex(*rng.standard_normal(2))),
    lambda x, rng: ek.concat([x, x], axis=_axis(x, rng)),
    lambda x, rng: ek.broadcast_to(x[:, None], (x.shape[0], 2, *x.shape[1:])),
    lambda x, rng: x * ek.conj(x) + 1j,
    lambda x, rng: ek.where(ek.real(x) > 0, x, -x),
    lambda x, rng: ek.sum(x, axis=_axis(x, rng), keepdims=True) + x,
    lambda x, rng: ek.exp(x * 0.1) / (2 + abs(x)),
]


def program(seed: int) -> Callable[[Any], Any]:
    """A function of a few random steps, the same at each call."""

    def run(x: Any) -> Any:
        rng = np.random.default_rng(seed)
        found = []
        for _ in range(6):
            x = STEPS[rng.integers(len(STEPS))](x, rng)
            if x.size > 2000 or x.ndim > 5:
                x = ek.reshape(x, (-1,))[:60]
            found.append(x)
        return found[-1], found[2], ek.real(found[3])

    return run


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("seed", range(12))
def test_random_programs(seed: int, dtype: str) -> None:
    rng = np.random.default_rng([seed, 1])
    x = normal(*rng.integers(0 if seed % 6 == 0 else 1, 5, rng.integers(1, 4)), dtype=dtype)
    fn = program(seed)
    want = [np.asarray(y) for y in fn(ek.asarray(x))]
    graph = ek.trace(fn)(x)
    with split_finely():
        executable = compile_graph(graph)
        for threads, at_end in ((1, True), (2, False)):
            got = guarded_run(executable, graph, [x], threads, at_end)
            for a, b in zip(got, want, strict=True):
                assert_same_bits(a, b)
    reference = ek.compile(fn, backend="reference")(x)
    for a, b in zip(reference, want, strict=True):
        np.testing.assert_allclose(np.asarray(a), b, rtol=1e-5, atol=1e-5)
