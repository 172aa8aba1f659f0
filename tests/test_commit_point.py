"""A step that is refused has changed nothing, wherever and however that happens."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from commit_rig import GOOD, PLACES, WAYS, Rig, X, Y
from same_bits import assert_same_bits, bits, split_finely

import einkorn as ek
from einkorn import bound_call
from einkorn import leaf as leaf_module
from einkorn.ir.graph import graphs_of
from einkorn.ir.ops import OPS, Op
from einkorn.runtime import executable


def tracked(rig: Rig) -> Any:
    """An argument that makes the call a recorded one."""
    return rig.scale * X


MODES: dict[str, Any] = {
    "compiled": ({}, None),
    "two-threads": ({"threads": 2}, None),
    "reference": ({"backend": "reference"}, None),
    "recorded": ({}, tracked),
}
CASES = [
    (way, place, mode)
    for k, way in enumerate(WAYS)
    for j, place in enumerate(PLACES)
    for i, mode in enumerate(MODES)
    if mode == "compiled" or (k + j + i) % 5 == 0
]


def run(rig: Rig, mode: str, probe: Any) -> Any:
    argument = MODES[mode][1]
    x = X if argument is None else argument(rig)
    return rig.step(x, Y, probe)


def refused(rig: Rig, way: str, mode: str) -> None:
    """A call that is refused leaves everything as it was."""
    _, bad, kind, text = WAYS[way]
    held = [leaf.numpy() for leaf in rig.net.v.to_flat_list()]
    before, seen = rig.state(), [bits(x) for x in held]
    arguments = [bits(x) for x in (X, Y, bad)]
    with pytest.raises(kind, match=text):
        run(rig, mode, bad)
    assert rig.state() == before
    assert [bits(x) for x in held] == seen
    assert [bits(x) for x in (X, Y, bad)] == arguments


@pytest.mark.parametrize(("way", "place", "mode"), CASES)
def test_a_refused_step_changes_nothing(way: str, place: str, mode: str, capsys: Any) -> None:
    options = MODES[mode][0]
    twin = Rig(way, place, **options)
    with split_finely():
        want = [[x.numpy() for x in run(twin, mode, GOOD)] for _ in range(2)]
        after = twin.state()
        shown = capsys.readouterr().out
        rig = Rig(way, place, **options)
        refused(rig, way, mode)
        first = run(rig, mode, GOOD)
        refused(rig, way, mode)
        refused(rig, way, mode)
        second = run(rig, mode, GOOD)
    assert rig.state() == after
    for got, wanted in zip((first, second), want):
        for x, y in zip(got, wanted):
            assert_same_bits(x.numpy(), y)
    assert capsys.readouterr().out == shown
    assert shown.count("step") == 2
    if mode == "recorded":
        second[2].backward()
        assert rig.scale.grad is not None


def test_every_op_that_can_refuse_is_refused_here() -> None:
    found: set[Op] = set()
    for way in WAYS:
        graph = Rig(way, "end").step.trace(X, Y, GOOD, branches=[False] * (way == "branch"))
        found.update(node.op for node in toposort_everywhere(graph))
    assert {op for op, row in OPS.items() if row.refuses} <= found
    assert {Op.SCAN, Op.WHILE, Op.COND} <= found


def toposort_everywhere(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of those that they apply."""
    for node in graph.nodes:
        yield node
        for inner in graphs_of(node):
            yield from toposort_everywhere(inner)


# -- where new state is kept until the step may commit -----------------------------------------


@pytest.mark.parametrize("way", ["gather", "singular", "callback", "scan"])
def test_shadow_storage_is_reported(way: str) -> None:
    """What a check depends on is written before the commit point, beside the old value."""
    rows = {
        place: {row.name: row for row in Rig(way, place).step.lower(X, Y, GOOD).memory.updates}
        for place in PLACES
    }
    assert rows["loss"]["hidden.w"].in_place
    moved = rows["end"]["hidden.w"]
    assert not moved.in_place
    assert re.search(r"instruction \d+ writes it before the commit point", moved.reason)
    low = Rig(way, "end").step.lower(X, Y, GOOD)
    assert low.memory.spare_bytes >= moved.nbytes
    assert "beside the old value" in str(low.memory)
    assert rows["end"]["out.w"].in_place  # nothing that can refuse depends on it
    assert "  commit [" in str(low.program) or ": commit" in str(low.program)


# -- what can stop a call outside of its program -------------------------------------------------


def states(way: str, place: str, count: int) -> list[Any]:
    """The state after 0, 1, 2, ... steps that nothing stops."""
    rig = Rig(way, place)
    found = [rig.state()]
    for _ in range(count):
        rig.step(X, Y, GOOD)
        found.append(rig.state())
    return found


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("place", ["loss", "end"])
def test_an_interrupt_at_any_moment_applies_the_step_whole_or_not_at_all(place: str) -> None:
    """Wherever Python looks for signals: when a function begins, and when one in C has returned.

    First each moment of a call that finds its tables filled, then some of those that fill them.
    """
    known = states("gather", place, 5000)
    rig = Rig("gather", place)
    taken = moment = 0
    is_warm, finished = True, False
    while not finished or is_warm:
        if finished:
            is_warm, moment = False, 0
        if is_warm:
            rig.step(X, Y, GOOD)
            taken += 1
        finished = interrupted_at(moment, lambda: rig.step(X, Y, GOOD))
        now, applied = rig.state(), rig.count.item() - taken
        assert applied in ((1,) if finished else (0, 1)), moment
        taken += applied
        assert now == known[taken], moment
        moment += 1 if is_warm else 41
    assert moment > 400
    rig.step(X, Y, GOOD)
    assert rig.state() == known[taken + 1]


def interrupted_at(moment: int, call: Callable[[], Any]) -> bool:
    """Whether a call ended before its n-th moment, at which it is interrupted."""
    events = 0

    def report(frame: Any, event: str, argument: Any) -> None:
        nonlocal events
        if event not in ("call", "c_return"):
            return
        if not frame.f_globals.get("__name__", "einkorn").startswith("einkorn"):
            return
        events += 1
        if events == moment + 1:
            raise KeyboardInterrupt

    sys.setprofile(report)
    try:
        call()
    except KeyboardInterrupt:
        return False
    finally:
        sys.setprofile(None)
    return True


@pytest.mark.parametrize("moment", range(8))
def test_memory_that_cannot_be_had(moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arenas, spare storage and outputs: each is taken before anything is written."""
    rig = Rig("gather", "end")
    before = rig.state()
    fails_at(moment, monkeypatch)
    try:
        rig.step(X, Y, GOOD)
        stopped = False
    except MemoryError:
        stopped = True
    monkeypatch.undo()
    if stopped:
        assert rig.state() == before
        rig.step(X, Y, GOOD)
    assert rig.state() == states("gather", "end", 1)[1]


def fails_at(moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the n-th piece of memory that a call takes be one that cannot be had."""
    taken = 0

    def limited(take: Callable[..., Any]) -> Callable[..., Any]:
        def found(*args: Any, **kwargs: Any) -> Any:
            nonlocal taken
            taken += 1
            if taken == moment + 1:
                raise MemoryError
            return take(*args, **kwargs)

        return found

    monkeypatch.setattr(executable, "aligned_bytes", limited(executable.aligned_bytes))
    monkeypatch.setattr(leaf_module, "new_storage", limited(leaf_module.new_storage))
    monkeypatch.setattr(bound_call, "Outputs", limited(bound_call.Outputs))


def test_integers_that_do_not_fit_are_computed_once() -> None:
    total = ek.tensor(0, trainable=False)
    calls: list[int] = []

    @ek.compile(on_retrace="allow")
    def step(x: Any, n: Any) -> Any:
        ek.callback(lambda v: calls.append(int(v)), None, total)
        total.value = total + 1
        return x * float(n * n)

    ones = np.ones(2)
    for k, n in enumerate((3, 1 << 40, 5, 1 << 62)):
        assert_same_bits(step(ones, n).numpy(), ones * float(n * n))
        assert total.item() == k + 1
    assert calls == [0, 1, 2, 3]


# -- while a function is traced ------------------------------------------------------------------

BROKEN: dict[str, Callable[[Any], Any]] = {
    "shape": lambda x: x @ x,
    "dtype": lambda x: x & 1,
    "index": lambda x: x[9],
    "user": lambda x: 1 // 0,
    "value": lambda x: float(x.sum()),
    "effect": lambda x: input(),
    "leaf": lambda x: ek.optim.SGD(ek.tensor(X), 0.1).step({"other": x}),
    "loop": lambda x: ek.scan(lambda c, i: (c @ c, None), x, np.arange(2)),
    "gradient": lambda x: ek.grad(lambda y: y)(x),
    "distribution": lambda x: ek.random.gamma(-1.0, (2,)),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("recorded", [False, True])
def test_an_error_while_tracing_leaves_nothing_half_done(name: str, recorded: bool) -> None:
    rig = Rig("gather", "end")
    rig.refuse = lambda w, probe: BROKEN[name](ek.asarray(X) + 0 * probe[0, 0])
    before, modes = rig.state(), rig.net.training
    mode = "recorded" if recorded else "compiled"
    for _ in range(2):
        with pytest.raises((ek.EinkornError, ZeroDivisionError)):
            run(rig, mode, GOOD)
        assert rig.state() == before
        assert rig.net.training is modes
        assert not rig.step.explain().traces
        assert_same_bits((ek.asarray(X) + 1).numpy(), X + 1)  # no trace is left open
    rig.refuse = WAYS["gather"][0]
    run(rig, mode, GOOD)
    assert rig.count.item() == 1


# -- eager code: each call of einkorn's is applied whole or not at all -----------------------------


def test_eager_calls_that_are_refused_change_nothing() -> None:
    rig = Rig("gather", "end")
    grads = {"hidden": {"w": ek.ones((6, 5))}, "out": {"w": ek.ones((3, 3))}}
    refused_calls: list[Callable[[], Any]] = [
        lambda: rig.opt.step(grads),
        lambda: rig.opt.step({}),
        lambda: rig.opt.set_state({"count": 1.0}),
        lambda: rig.net.load({"hidden.w": np.ones((6, 5)), "out.w": np.ones(1)}),
        lambda: rig.net.hidden.w.__iadd__(1),
        lambda: setattr(rig.net.hidden.w, "value", np.ones(3, np.float32)),
        lambda: setattr(rig.net.hidden.w, "value", np.ones((6, 5))),
        lambda: setattr(rig.mean, "trainable", 3),
        lambda: ek.random.normal((2, -1)),
        lambda: ek.random.gamma(-1.0, (2,)),
        lambda: ek.random.permutation(-1),
        lambda: ek.random.seed(-1),
        lambda: rig.net(X[:, :3]).sum().backward(),
        lambda: rig.net(X).backward(np.ones(3, np.float32)),
        lambda: setattr(rig.opt, "lr", "fast"),
    ]
    for k, call in enumerate(refused_calls):
        before = rig.state()
        with pytest.raises(ek.EinkornError):
            call()
        assert rig.state() == before, k
