"""Checks that every layer passes: the same bits, gradients, inferred sizes, state, bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits

import einkorn as ek
from einkorn.ir.errors import StateError

Make = Callable[..., Any]
Array = np.ndarray[Any, Any]


def made(make: Make, seed: int = 1, **options: Any) -> Any:
    """A layer whose parameters are those of a seed."""
    ek.random.seed(seed)
    return make(**options)


def first(out: Any) -> Any:
    """All tensors of a result."""
    return [ek.asarray(x) for x in ek.tree_leaves(out)]


def _loss(layer: Any, inputs: Any) -> Any:
    """A number to differentiate, and the results."""
    results = [x for x in first(layer(*inputs)) if x.dtype.is_float]
    total: Any = 0.0
    for out in results:
        weights = np.sin(np.arange(out.size) + 1.0).reshape(out.shape)
        total = total + ek.sum(out * weights.astype(out.dtype.numpy))
    return total, results


def _step(layer: Any, inputs: tuple[Any, ...]) -> Callable[..., Any]:
    """A training call: results, gradients by parameters and by inputs that are floats."""
    floats = tuple(k for k, x in enumerate(inputs) if np.asarray(x).dtype.kind == "f")
    has = bool(layer.get_parameters(trainable=True))

    def step(*given: Any) -> Any:
        by_inputs: Any = ()
        if floats:
            by_inputs = ek.grad(lambda *x: _loss(layer, x), floats, has_aux=True)(*given)
        by_parameters: Any = ()
        if has:
            by_parameters = ek.grad(lambda: _loss(layer, given), layer, has_aux=True)()
        return by_inputs, by_parameters

    return step


def check_bits(make: Make, inputs: tuple[Any, ...]) -> None:
    """Two training calls and one in eval mode give the same bits eager and compiled, state too."""
    for training in (True, False):
        found = []
        for compiled in (False, True):
            layer = made(make).train(training)
            layer(*inputs)  # built
            step = _step(layer, inputs)
            run = ek.compile(step) if compiled else step
            ek.random.seed(7)
            outcome = [run(*inputs) for _ in range(2 if training else 1)]
            found.append([*first(outcome), *layer.state_dict().values()])
        for eager, native in zip(*found, strict=True):
            assert_same_bits(native, eager)


def check_gradients(make: Make, inputs: tuple[Any, ...]) -> None:
    """A central difference along one direction of parameters and inputs, in float64."""
    layer = made(make, dtype="float64") if takes_dtype(make) else made(make)
    layer.train()
    wide = [np.asarray(x, "float64") if np.asarray(x).dtype.kind == "f" else x for x in inputs]
    layer(*wide)
    rng = np.random.default_rng(3)
    floats = [k for k, x in enumerate(wide) if np.asarray(x).dtype.kind == "f"]
    directions = {k: rng.normal(size=wide[k].shape) for k in floats}
    leaves = [x for x in layer.parameters() if x.trainable]
    ways = [rng.normal(size=x.shape) for x in leaves]
    values = [np.array(x) for x in leaves]

    def at(t: float) -> float:
        for leaf, value, way in zip(leaves, values, ways):
            leaf.value = value + t * way
        moved = [x + t * directions[k] if k in directions else x for k, x in enumerate(wide)]
        ek.random.seed(9)
        return float(_loss(layer, moved)[0])

    slope = (at(1e-6) - at(-1e-6)) / 2e-6
    at(0.0)
    total = 0.0
    if floats:
        ek.random.seed(9)
        grads = ek.grad(lambda *x: _loss(layer, x)[0], tuple(floats))(*wide)
        total += sum(float(np.sum(g * directions[k])) for k, g in zip(floats, grads))
    if leaves:
        ek.random.seed(9)
        by_leaf = ek.grad(lambda: _loss(layer, wide)[0], leaves)()
        total += sum(float(np.sum(np.asarray(g) * way)) for g, way in zip(by_leaf, ways))
    np.testing.assert_allclose(total, slope, rtol=2e-5, atol=2e-6)


def takes_dtype(make: Make) -> bool:
    """Whether a layer has parameters whose dtype may be chosen."""
    try:
        make(dtype="float64")
    except TypeError:
        return False
    return True


def check_inferred(make: Make, shorter: Make, inputs: tuple[Any, ...]) -> None:
    """A layer without its input size becomes the one with it at the first call."""
    whole, part = made(make), made(shorter)
    with pytest.raises(StateError, match=r"are asked for, but .* has none yet"):
        part.parameters()
    ek.random.seed(1)
    eager = made(shorter)
    ek.random.seed(1)
    eager.eval()(*inputs)
    assert whole.v.key_chains() == eager.v.key_chains()
    assert repr(whole) == repr(eager)
    for one, other in zip(whole.parameters(), eager.parameters(), strict=True):
        assert_same_bits(other, one)
    part.eval()
    step = ek.compile(lambda *x: part(*x))
    ek.random.seed(1)
    for one, other in zip(first(step(*inputs)), first(eager(*inputs)), strict=True):
        assert_same_bits(one, other)
    step(*inputs)
    assert len(step.explain().traces) == 1


def check_state(make: Make, inputs: tuple[Any, ...]) -> None:
    """What is saved and loaded makes another layer the same."""
    layer, other = made(make, 1), made(make, 2)
    layer.train()(*inputs)
    other.train()(*inputs)
    other.load_state_dict(layer.state_dict())
    pairs = zip(first(layer.eval()(*inputs)), first(other.eval()(*inputs)), strict=True)
    for one, two in pairs:
        assert_same_bits(two, one)
