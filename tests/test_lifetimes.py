"""How long traces, programs and models live: as long as what they were made for, and bounded."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits

import einkorn as ek
from einkorn.codegen.llvm import objects
from einkorn.entry import Entry
from einkorn.runtime import compiler
from einkorn.runtime.executable import Executable, Instance

X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
OURS = (ek.nn.Module, ek.Leaf, ek.Compiled, Entry, Executable, Instance, ek.optim.Optimizer)


def collect() -> None:
    for _ in range(3):  # what is let go by a collection goes in the next
        gc.collect()


def living(*kinds: type[Any]) -> int:
    collect()
    return sum(issubclass(type(x), kinds) for x in gc.get_objects())


class Net(ek.nn.Module):
    def __init__(self, width: int = 8) -> None:
        self.a, self.b = ek.nn.Linear(8, width), ek.nn.Linear(width, 1)

    def forward(self, x: Any) -> Any:
        return self.b(ek.tanh(self.a(x))).sum()

    @ek.compile
    def loss(self, x: Any) -> Any:
        return self(x) * 2


def train(width: int) -> list[weakref.ref[Any]]:
    """Compile and run a step of a new model; the references to what it is made of."""
    model = Net(width)
    optimizer = ek.optim.Adam(model, lr=0.1)

    @ek.compile
    def step(x: Any) -> Any:
        loss, grads = ek.value_and_grad(model, model)(x)
        optimizer.step(grads)
        return loss

    for _ in range(2):
        step(X)
    return [weakref.ref(x) for x in (model, optimizer, step, model.a.w)]


def test_a_model_its_step_and_its_weights_are_freed() -> None:
    refs = train(8)
    collect()
    assert [ref() for ref in refs] == [None] * len(refs)


@pytest.mark.parametrize("way", ["captured", "argument", "method"])
def test_weights_go_with_their_model_not_with_the_next_trace(way: str) -> None:
    holder = SimpleNamespace(model=Net())
    captured = ek.compile(lambda x: holder.model(x).detach())
    argument = ek.compile(lambda x, model: model(x).detach())
    made = Net.loss if way == "method" else captured if way == "captured" else argument
    if way == "captured":
        captured(X)
    elif way == "argument":
        argument(X, holder.model)
    else:
        holder.model.loss(X)
    refs = [weakref.ref(x) for x in (holder.model, holder.model.a, holder.model.a.w)]
    assert len(made.explain().traces) == 1
    holder.model = None
    collect()
    assert [ref() for ref in refs] == [None] * 3
    assert made.explain().traces == ()


def test_a_trace_that_is_dropped_while_it_runs() -> None:
    """The callback of the step lets the model go that the step was made for."""
    holder = SimpleNamespace(model=Net())

    def let_go(x: Any) -> Any:
        holder.model = None
        collect()
        return x + 1

    step = ek.compile(lambda x: ek.callback(let_go, ek.ShapeDtype((), "float32"), holder.model(x)))
    with ek.eager():
        want = holder.model(X).numpy() + np.float32(1)
    assert_same_bits(step(X).numpy(), want)
    assert step.explain().traces == ()


def test_many_models_leave_nothing_behind() -> None:
    train(8)
    before = living(*OURS)
    for _ in range(60):
        train(8)
    assert living(*OURS) == before


def test_programs_are_bounded_and_can_be_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "CACHED_INSTRUCTIONS", 60)
    for width in range(1, 30):
        x = np.ones(width)
        assert_same_bits(ek.compile(lambda x: x * 2 + 1)(x).numpy(), x * 2 + 1)
        assert sum(compiler._weights.values()) <= 60
        assert compiler._weights.keys() == compiler._cache.keys()
    refs = [weakref.ref(x) for x in compiler._cache.values()]
    ek.clear_caches()
    collect()
    assert [ref() for ref in refs] == [None] * len(refs)
    assert not compiler._weights


def test_kernels_do_not_grow_with_sizes() -> None:
    """Code stays loaded, but is the same for every size: many models share it."""
    for width in (40, 41, 48, 200):
        train(width)
    before = len(objects._addresses)
    for width in range(49, 80, 3):
        train(width)
    assert len(objects._addresses) - before <= 4


def test_functions_without_references_go_at_once() -> None:
    step = ek.compile(lambda x: x + 1)
    step(X)
    ref = weakref.ref(step)
    del step
    collect()
    assert ref() is None


def test_clearing_between_calls_and_inside_of_one() -> None:
    count = ek.tensor(0)

    @ek.compile
    def inner(x: Any) -> Any:
        return x * 2

    @ek.compile
    def step(x: Any) -> Any:
        ek.clear_caches()  # while this function is traced
        count.value = count + 1
        return inner(x) + 1

    for k in range(4):
        assert_same_bits(step(X).numpy(), X * 2 + 1)
        assert count.item() == k + 1
        ek.clear_caches()
