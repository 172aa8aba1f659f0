"""Leaves in compiled functions: those it makes are new in every call, others are read each time."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compile_checks import traces
from same_bits import assert_same_bits

import einkorn as ek
from einkorn import nn
from einkorn.ir.errors import EinkornError, TraceError

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def counted(x: Any) -> Any:
    """Assigns to a leaf of its own, which keeps nothing."""
    total = ek.tensor(0.5, trainable=False, dtype="float32")
    for row in range(3):
        total.value = total + x[row].sum()
    return total * 2.0


def started(x: Any) -> Any:
    """Starts from an array that is no constant number."""
    cell = ek.tensor(np.arange(4, dtype=np.float32), name="cell")
    first = cell + 0.0
    cell.value = x[0]
    return first, cell.value, cell + first


def differentiated(x: Any) -> Any:
    w = ek.Parameter(np.full((2, 4), 0.5, np.float32))
    return ek.value_and_grad(lambda: ek.sum((x @ w.T) ** 2), w)()


def backwards(x: Any) -> Any:
    w = ek.Parameter(np.full((2, 4), 0.5, np.float32))
    assert w.grad is None
    ek.sum((x @ w.T) ** 2).backward()
    first = w.grad
    w.zero_grad()
    ek.sum(x @ w.T).backward()
    return first, w.grad


def optimized(x: Any) -> Any:
    """Some steps of an optimizer from the same start in every call."""
    w = ek.Parameter(np.zeros(4, np.float32))
    optimizer = ek.optim.Adam(w, lr=0.1)
    for _ in range(3):
        loss, grads = ek.value_and_grad(lambda: ek.sum((x @ w - 1.0) ** 2), w)()
        optimizer.step(grads)
    return loss, w.value


def looped(x: Any) -> Any:
    outside = ek.tensor(np.zeros(4, np.float32), trainable=False)

    def body(carry: Any, row: Any) -> Any:
        inside = ek.tensor(1.0, trainable=False, dtype="float32")
        inside.value = inside + carry
        outside.value = outside + row * inside
        return inside.value, inside * 2.0

    return ek.scan(body, ek.asarray(np.float32(0)), ek.asarray(x)), outside.value


def nested(x: Any) -> Any:
    cell = ek.tensor(np.float32(1.0), trainable=False)
    inner = ek.compile(lambda y: setattr(cell, "value", cell + y.sum()) or counted(y) + cell)
    return inner(x), inner(x * 2.0), cell.value


def by_argument(x: Any) -> Any:
    def total(y: Any) -> Any:
        scale = ek.tensor(np.float32(3.0))
        scale.value = scale * 2.0
        return ek.sum(y * scale * y)

    return ek.grad(total)(x), ek.vmap(total)(x)


PROGRAMS = [
    counted, started, differentiated, backwards, optimized, looped, nested, by_argument
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda x: x.__name__)
def test_every_call_starts_anew(program: Callable[[Any], Any]) -> None:
    run = ek.compile(program)
    for x in (X, X, X * 2):
        pairs = zip(ek.tree_leaves(run(x)), ek.tree_leaves(program(x)), strict=True)
        for one, other in pairs:
            assert_same_bits(one, other)
    assert traces(run) == 1


def test_a_leaf_of_the_trace_is_not_handed_out() -> None:
    def step(x: Any) -> Any:
        mean = ek.tensor(np.float32(0.0), name="mean")
        mean.value = x.mean()
        return {"mean": mean}

    with pytest.raises(
        EinkornError, match=r"step returned mean, a leaf that it makes itself, .*value"
    ):
        ek.compile(step)(X)
    assert float(step(X)["mean"]) == 0.0
    outside = ek.tensor(np.float32(0.0))
    assert ek.compile(lambda: outside)() is outside


def test_a_number_is_no_array_that_is_kept() -> None:
    run = ek.compile(counted, strict=True)
    assert_same_bits(run(X), counted(X))
    assert "constant" not in str(run.explain())


@pytest.mark.parametrize("make", [lambda: nn.Linear(4, 2), lambda: nn.Linear(2)])
def test_parameters_with_random_values_are_not_made_in_a_step(make: Callable[[], Any]) -> None:
    with pytest.raises(TraceError, match=r"a module makes parameters while step is being traced"):
        ek.compile(lambda x: make()(x), name="step")(X)

    class Net(nn.Module):
        def forward(self, x: Any) -> Any:
            return make()(x)

    net = Net()
    run = ek.compile(net)
    first = run(X)
    assert_same_bits(run(X), first)
    assert_same_bits(net(X), first)


READS: dict[str, Callable[[Any], Any]] = {
    ".item()": lambda leaf: leaf.item(),
    "float(t)": float,
    "int(t)": int,
    ".tolist()": lambda leaf: leaf.tolist(),
    "np.asarray(t)": np.asarray,
    ".numpy()": lambda leaf: leaf.numpy(),
    "a copy of a leaf": copy.deepcopy,
}


@pytest.mark.parametrize("what", READS)
def test_the_value_of_a_leaf_is_no_constant(what: str) -> None:
    """It is another one in the next call."""
    leaf = ek.tensor(np.float32(1.0), trainable=False)
    message = rf"^{re.escape(what)} needs the value of a tensor, .* step it only exists when"
    with pytest.raises(TraceError, match=message):
        ek.compile(lambda x: x * np.float32(READS[what](leaf)), name="step")(X)
    READS[what](leaf)


def test_a_branch_on_a_leaf_is_a_condition() -> None:
    leaf = ek.tensor(True, trainable=False)

    def step(x: Any) -> Any:
        if leaf:
            return x * 2.0
        leaf.value = True
        return x * 3.0

    run = ek.compile(step)
    for value, factor in ((True, 2), (False, 3), (True, 2), (False, 3)):
        leaf.value = value
        assert_same_bits(run(X), X * np.float32(factor))
        assert bool(leaf)
    assert traces(run) == 2


def test_what_reads_all_values_is_refused(tmp_path: Path) -> None:
    model, path = nn.Linear(4, 2), tmp_path / "model.safetensors"
    model.save(path)
    for call, message in (
        (model.state_dict, r"\.numpy\(\) needs the value"),
        (lambda: model.save(path), r"\.numpy\(\) needs the value"),
        (lambda: model.load(path), r"model.safetensors was to be read while step was being"),
        (lambda: model.import_weights(path), r"was to be read .* Load outside"),
        (model.eval, r"Linear.training was set .*: call train\(\) or eval\(\), or set it, outside"),
    ):
        with pytest.raises(TraceError, match=message):
            ek.compile(lambda call=call: call() and None, name="step")()
    assert model.training


# -- leaves that stay: state made in the first call ------------------------------------------------


class Running:
    """A plain object with a leaf that the first call makes."""

    total: Any = None

    def __call__(self, x: Any) -> Any:
        if self.total is None:
            self.total = ek.tensor(np.zeros(4, np.float32), trainable=False)
        self.total.value = self.total * 0.5 + x[0]
        return self.total.sum()


def in_an_object() -> tuple[Callable[[Any], Any], Callable[[], Any]]:
    running = Running()
    return running, lambda: running.total


def in_a_dict() -> tuple[Callable[[Any], Any], Callable[[], Any]]:
    table: dict[str, Any] = {}

    def step(x: Any) -> Any:
        if "total" not in table:
            table["total"] = ek.tensor(np.ones(4, np.float32), trainable=False)
        table["total"].value = table["total"] + x[0]
        return table["total"] * 2.0

    return step, lambda: table["total"]


def in_a_cell() -> tuple[Callable[[Any], Any], Callable[[], Any]]:
    total: Any = None

    def step(x: Any) -> Any:
        nonlocal total
        if total is None:
            total = ek.tensor(np.arange(4, dtype=np.float32), trainable=False)
        total.value = total + x[0]
        return total * 2.0

    return step, lambda: total


def an_optimizer() -> tuple[Callable[[Any], Any], Callable[[], Any]]:
    w = ek.Parameter(np.full(4, 0.5, np.float32))
    made: dict[str, Any] = {}

    def step(x: Any) -> Any:
        if "optimizer" not in made:
            made["optimizer"] = ek.optim.Adam(w, lr=0.1)
        loss, grads = ek.value_and_grad(lambda: ek.sum((x @ w - 1.0) ** 2), w)()
        made["optimizer"].step(grads)
        return loss

    return step, lambda: (w, made["optimizer"].state)


def with_a_gradient() -> tuple[Callable[[Any], Any], Callable[[], Any]]:
    made: dict[str, Any] = {}

    def step(x: Any) -> Any:
        if "w" not in made:
            made["w"] = ek.Parameter(np.full(4, 0.5, np.float32))
        loss = ek.sum((x @ made["w"]) ** 2)
        loss.backward()
        return loss

    return step, lambda: (made["w"], made["w"].grad)


def in_a_compiled_part() -> tuple[Callable[[Any], Any], Callable[[], Any]]:
    running = Running()
    part = ek.compile(running)
    return lambda x: part(x) + part(x * 2.0) + running.total.sum(), lambda: running.total


def made_each_time() -> tuple[Callable[[Any], Any], Callable[[], Any]]:
    table: dict[str, Any] = {}

    def step(x: Any) -> Any:
        table["last"] = ek.tensor(np.zeros(4, np.float32), trainable=False)
        table["last"].value = table["last"] + x[0]
        return ek.sum(x)

    return step, lambda: table["last"]


KEPT = [
    in_an_object,
    in_a_dict,
    in_a_cell,
    an_optimizer,
    with_a_gradient,
    in_a_compiled_part,
    made_each_time,
]


@pytest.mark.parametrize("program", KEPT, ids=lambda x: x.__name__)
def test_state_that_the_first_call_makes(program: Callable[[], Any]) -> None:
    found: list[list[Any]] = []
    for compiled in (False, True):
        step, state = program()
        run = ek.compile(step) if compiled else step
        found.append([])
        for x in (X, X + 1, X * 2, -X):
            found[-1].append((run(x), ek.tree_map(lambda x: np.array(x), state())))
    for one, other in zip(ek.tree_leaves(found[0]), ek.tree_leaves(found[1]), strict=True):
        assert_same_bits(other, one)


def test_a_leaf_that_nobody_keeps_is_no_state() -> None:
    assert not ek.trace(optimized)(X).updates
    step, _ = an_optimizer()
    assert ek.trace(step)(X).updates
