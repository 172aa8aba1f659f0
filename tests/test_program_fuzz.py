"""Random programs through the public API: eager, compiled and region by region give the same bits.

The graphs of test_fuzz.py are built node by node; here ordinary code is traced, so what tracing
merges, captures and cuts is under test as well, together with gradients and assigned leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from same_bits import split_finely

import einkorn as ek

SHAPE = (6, 5)
Pick = Callable[[], Any]

half = ek.compile(lambda a: ek.tanh(a) * 0.5 + a.mean(), on_retrace="allow")
pair = ek.compile(lambda a, b: (a * b + ek.sin(a), ek.cos(b) - a), on_retrace="allow")


def _without_grad(pick: Pick) -> Any:
    with ek.no_grad():
        return pick() * 1.25


def _assigned(pick: Pick, buffer: Any) -> Any:
    buffer.value = ek.tanh(pick()) + buffer * 0.5
    return buffer * pick()


STEPS: dict[str, Callable[[Pick, Any], Any]] = {
    "sin": lambda pick, _: ek.sin(pick()),
    "sigmoid": lambda pick, _: ek.nn.sigmoid(pick()),
    "softmax": lambda pick, _: ek.nn.softmax(pick(), axis=-1),
    "cumsum": lambda pick, _: ek.cumulative_sum(pick(), axis=0) * 0.1,
    "add": lambda pick, _: pick() + pick(),
    "mul": lambda pick, _: pick() * pick(),
    "div": lambda pick, _: pick() / (ek.abs(pick()) + 1.5),
    "scale": lambda pick, _: pick() * 0.3,
    "where": lambda pick, _: ek.where(pick() > 0.1, pick(), pick()),
    "maximum": lambda pick, _: ek.maximum(pick(), pick()),
    "relu": lambda pick, _: ek.nn.relu(pick()),
    "flip": lambda pick, _: pick()[::-1],
    "matmul": lambda pick, _: ek.tanh((pick() @ pick().T) @ pick()),
    "rows": lambda pick, _: pick() - pick().mean(axis=1, keepdims=True),
    "columns": lambda pick, _: pick() - pick().sum(axis=0) * 0.1,
    "take": lambda pick, _: ek.take(pick(), ek.asarray([0, 2, 2, 5, 1, 0]), axis=0),
    "set": lambda pick, _: pick().at[1:3].set(0.5),
    "detach": lambda pick, _: pick().detach(),
    "no grad": lambda pick, _: _without_grad(pick),
    "half": lambda pick, _: half(pick()),
    "pair": lambda pick, _: sum(pair(pick(), pick())),
    "assign": _assigned,
}


def program(names: list[str], picks: list[int]) -> Callable[..., Any]:
    """A loss over two parameters, an input and a buffer: one step after the other."""

    def loss(x: Any, w: Any, v: Any, buffer: Any) -> Any:
        pool, choices = [w, v, x, w * 0.5], iter(picks * len(names))

        def pick() -> Any:
            return pool[next(choices) % len(pool)]

        for name in names:
            pool.append(STEPS[name](pick, buffer))
        return sum(value.mean() for value in pool)

    return loss


def run(loss: Callable[..., Any], mode: str) -> list[bytes]:
    """Two gradient steps in one mode: the bits of everything that they give and leave behind."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(SHAPE).astype("float32") for _ in range(4)]
    w, v = (ek.Parameter(array) for array in arrays[:2])
    buffer = ek.tensor(arrays[2], trainable=False)

    def step(x: Any) -> Any:
        value, grads = ek.value_and_grad(lambda x: loss(x, w, v, buffer), [w, v])(x)
        loss(x, w, v, buffer).backward()
        w.value = w - 0.1 * grads[0]
        return value, grads

    def moved(x: Any) -> Any:
        """A loss that is differentiated outside, by a leaf that is overwritten inside."""
        value = loss(x, w, v, buffer)
        v.value = v * 0.75
        return value

    if mode != "eager":
        step, moved = (ek.compile(fn, on_retrace="allow") for fn in (step, moved))
    found: list[Any] = []
    with ek.settings(compile=mode != "regions"):
        for _ in range(2):
            found.extend(ek.tree_leaves(step(ek.asarray(arrays[3]))))
            moved(ek.asarray(arrays[3])).backward()
    found += [w, v, buffer, w.grad, v.grad]
    return [b"none" if x is None else np.asarray(x).tobytes() for x in found]


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=9),
    st.lists(st.integers(0, 12), min_size=4, max_size=12),
)
def test_every_mode_gives_the_same_bits(names: list[str], picks: list[int]) -> None:
    note(f"steps {names}, picks {picks}")
    loss = program(names, picks)
    want = run(loss, "eager")
    assert run(loss, "regions") == want
    assert run(loss, "compiled") == want


@pytest.mark.parametrize("seed", range(8))
def test_threads_change_no_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.choice(sorted(STEPS), 12)]
    loss = program(names, [int(k) for k in rng.integers(0, 12, 9)])
    want = run(loss, "eager")
    with split_finely():
        for threads in (1, 2):
            with ek.settings(threads=threads):
                assert run(loss, "compiled") == want
