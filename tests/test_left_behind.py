"""Tensors of a trace that a function leaves behind in Python: refused with the line, taken back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from compile_checks import both
from same_bits import assert_same_bits

import einkorn as ek

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)

LAST: Any = None
STATE = {"h": np.zeros((3, 4), np.float32)}


def into_a_global(x: Any) -> Any:
    global LAST
    LAST = x * 2
    return x.sum()


def into_a_dict_that_is_read(x: Any) -> Any:
    STATE["h"] = STATE["h"] * 0.5 + x
    return STATE["h"].sum()


def into_an_attribute_that_is_read() -> tuple[Any, Callable[[], Any]]:
    class Memory:
        def __init__(self) -> None:
            self.h = X

        def step(self, x: Any) -> Any:
            self.h = self.h * 0.5 + x
            return self.h.sum()

    memory = Memory()
    return memory.step, lambda: vars(memory)


def into_a_new_attribute() -> tuple[Any, Callable[[], Any]]:
    holder = SimpleNamespace(n=1)

    def fn(x: Any) -> Any:
        holder.last = x * 2
        return x.sum()

    return fn, lambda: vars(holder)


def into_a_slot() -> tuple[Any, Callable[[], Any]]:
    class Slot:
        __slots__ = ("h",)

    slot = Slot()

    def fn(x: Any) -> Any:
        slot.h = x * 2
        return x.sum()

    return fn, lambda: hasattr(slot, "h")


def into_a_class() -> tuple[Any, Callable[[], Any]]:
    class Shared:
        last = None

    def fn(x: Any) -> Any:
        Shared.last = x * 2
        return x.sum()

    return fn, lambda: (Shared.last, "last" in vars(Shared))


def into_a_cell() -> tuple[Any, Callable[[], Any]]:
    h: Any = None

    def fn(x: Any) -> Any:
        nonlocal h
        h = x * 2
        return x.sum()

    return fn, lambda: h


def into_a_list() -> tuple[Any, Callable[[], Any]]:
    kept: list[Any] = [1]

    def fn(x: Any) -> Any:
        kept.append(x * 2)
        return x.sum()

    return fn, lambda: kept


def into_a_default() -> tuple[Any, Callable[[], Any]]:
    def fn(x: Any, cache: Any = []) -> Any:  # noqa: B006 # the trap
        cache.append(x * 2)
        return x.sum()

    return fn, lambda: fn.__defaults__


def into_a_queue() -> tuple[Any, Callable[[], Any]]:
    kept: deque[Any] = deque(maxlen=2)

    def fn(x: Any) -> Any:
        kept.append(x * 2)
        return x.sum()

    return fn, lambda: kept


def into_a_set() -> tuple[Any, Callable[[], Any]]:
    kept: set[Any] = {1}

    def fn(x: Any) -> Any:
        kept.add(x * 2)
        return x.sum()

    return fn, lambda: kept


def into_a_nest() -> tuple[Any, Callable[[], Any]]:
    holder = SimpleNamespace(rows={"a": [None, 2]})

    def fn(x: Any) -> Any:
        holder.rows["a"][0] = (x * 2, 1)
        return x.sum()

    return fn, lambda: holder.rows


def into_a_list_of_a_module() -> tuple[Any, Callable[[], Any]]:
    class Net(ek.nn.Module):
        def __init__(self) -> None:
            self.kept: list[Any] = []

        def forward(self, x: Any) -> Any:
            self.kept.append(x * 2)
            return x.sum()

    net = Net()
    return net, lambda: net.kept


def into_what_a_helper_gets() -> tuple[Any, Callable[[], Any]]:
    holder = SimpleNamespace(h=None)

    def put(where: Any, value: Any) -> None:
        setattr(where, "h", value)  # noqa: B010 # hidden on purpose

    def fn(x: Any) -> Any:
        put(holder, x * 2)
        return x.sum()

    return fn, lambda: holder.h


def into_an_object_inside() -> tuple[Any, Callable[[], Any]]:
    holder = SimpleNamespace(out=None)

    def fn(x: Any) -> Any:
        holder.out = SimpleNamespace(loss=x.sum())
        return x

    return fn, lambda: holder.out


def of_a_function_that_is_compiled_itself() -> tuple[Any, Callable[[], Any]]:
    holder = SimpleNamespace(h=None)

    @ek.compile
    def inner(x: Any) -> Any:
        holder.h = x * 2
        return x

    return (lambda x: inner(x).sum()), lambda: holder.h


def of_a_function_that_is_mapped() -> tuple[Any, Callable[[], Any]]:
    kept: list[Any] = []

    def row(x: Any) -> Any:
        kept.append(x * 2)
        return x.sum()

    return ek.vmap(row), lambda: kept


LEFT = [
    lambda: (into_a_global, lambda: LAST),
    lambda: (into_a_dict_that_is_read, lambda: STATE),
    into_an_attribute_that_is_read,
    into_a_new_attribute,
    into_a_slot,
    into_a_class,
    into_a_cell,
    into_a_list,
    into_a_default,
    into_a_queue,
    into_a_set,
    into_a_nest,
    into_a_list_of_a_module,
    into_what_a_helper_gets,
    into_an_object_inside,
    of_a_function_that_is_compiled_itself,
    of_a_function_that_is_mapped,
]


@pytest.mark.parametrize("make", LEFT)
def test_a_tensor_that_is_left_behind_is_refused_and_taken_back(make: Any) -> None:
    fn, held = make()
    before = repr(held())
    step = ek.compile(fn, name="step")
    for _ in range(2):
        with pytest.raises(
            ek.TraceError, match=r"step puts a traced tensor into .*test_left_behind\.py:\d"
        ):
            step(X)
        assert repr(held()) == before
    with pytest.raises(ek.TraceError, match="puts a traced tensor into"):
        step.lower(X)
    assert repr(held()) == before


def test_the_line_that_left_a_tensor_is_named() -> None:
    holder = SimpleNamespace(h=None)

    def fn(x: Any) -> Any:
        y = x * 2
        holder.h = y
        return x

    line = fn.__code__.co_firstlineno + 2
    with pytest.raises(
        ek.TraceError, match=rf"into holder\.h in .*\.fn, at .*test_left_behind\.py:{line}\."
    ):
        ek.compile(fn)(X)


def test_a_number_of_the_run_is_not_left_behind_either() -> None:
    rates: list[Any] = []
    step = ek.compile(lambda x, lr: (rates.append(lr * 2), x * lr)[1])
    with pytest.raises(ek.TraceError, match="puts a traced number into rates"):
        step(X, 0.5)
    assert rates == []


def test_an_exception_takes_back_what_was_left() -> None:
    holder = SimpleNamespace(h=None, fail=True)

    def fn(x: Any) -> Any:
        kept, holder.h = holder.h, x * 2
        if holder.fail:
            raise KeyError("mine")
        holder.h = kept
        return x * 2

    step = ek.compile(fn)
    with pytest.raises(KeyError, match="mine"):
        step(X)
    assert holder.h is None
    holder.fail = False
    both(step, X)  # what is put back in time may be there in between


def test_what_a_function_makes_itself_may_hold_tensors() -> None:
    class Result:
        def __init__(self, h: Any) -> None:
            self.h, self.rows = h, [h * 2]

    def fn(x: Any) -> Any:
        result, total = Result(x), ek.zeros(4)

        def add(row: Any) -> None:
            nonlocal total
            total = total + row

        result.h = result.h * 3
        result.rows.append(result.h)
        for row in result.rows:
            add(row[0])
        return {"h": result.h, "total": total, "rows": result.rows}

    both(fn, X)


def test_leaves_that_are_made_in_a_trace_may_be_kept() -> None:
    cache: dict[str, Any] = {}

    def fn(x: Any) -> Any:
        if "w" not in cache:
            cache["w"] = ek.tensor(X, trainable=False)
        return cache["w"] * x

    step = ek.compile(fn)
    for _ in range(3):
        assert_same_bits(step(X).numpy(), X * X)


def test_leaves_that_steps_of_a_loop_make_and_write_are_not_kept() -> None:
    cache: dict[str, Any] = {}

    def fn(x: Any) -> Any:
        def body(total: Any, row: Any) -> Any:
            if "w" not in cache:
                cache["w"] = ek.tensor(0.0, trainable=False)
            cache["w"].value = cache["w"] + row.sum()
            return total + cache["w"], row

        return ek.scan(body, np.float32(0), x)[0]

    step = ek.compile(fn, name="step")
    with pytest.raises(ek.TraceError, match=r"step makes a leaf, .*into cache\['w'\] in "):
        step(X)
    assert cache == {}
