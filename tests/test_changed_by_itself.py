"""Python state that a function both reads and changes: each of its traces stands for one call."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits

import einkorn as ek

X = np.linspace(-1, 1, 4, dtype=np.float32)
Program = tuple[Callable[[Any], Any], Callable[[], None]]  # a step, and how the user starts it anew


def a_flag() -> Program:
    holder = SimpleNamespace(first=True)

    def step(x: Any) -> Any:
        if holder.first:
            holder.first = False
            return x
        return 2 * x

    return step, lambda: setattr(holder, "first", True)


def a_count() -> Program:
    holder = SimpleNamespace(count=0)

    def step(x: Any) -> Any:
        holder.count += 1
        return x * holder.count

    return step, lambda: setattr(holder, "count", 0)


def an_entry() -> Program:
    table = {"count": 0}

    def step(x: Any) -> Any:
        table["count"] += 1
        return x * table["count"]

    return step, lambda: table.update(count=0)


def a_list() -> Program:
    rows: list[int] = []

    def step(x: Any) -> Any:
        rows.append(1)
        return x * len(rows)

    return step, rows.clear


def a_cell() -> Program:
    count = 0

    def step(x: Any) -> Any:
        nonlocal count
        count += 1
        return x * count

    def again() -> None:
        nonlocal count
        count = 0

    return step, again


@pytest.mark.parametrize("program", [a_flag, a_count, an_entry, a_list, a_cell])
def test_what_the_user_starts_anew_is_seen(program: Callable[[], Program]) -> None:
    (eager, eager_again), (step, again) = program(), program()
    run = ek.compile(step, on_retrace="allow")
    for _ in range(3):
        for _ in range(3):
            assert_same_bits(run(X), np.asarray(eager(X)))
        eager_again()
        again()
    assert "is changed by the function itself: each trace is for one call" in str(run.explain())


def test_the_reason_of_a_trace_says_so_when_all_is_as_it_was() -> None:
    step, again = a_flag()
    run = ek.compile(step)
    run(X)
    again()
    run(X)
    (reason,) = run.explain().reasons
    label = "holder.first in a_flag.<locals>.step"
    assert reason == f"{label} is changed by the function itself: each trace is for one call"


def test_what_is_only_put_somewhere_leaves_a_trace_alone() -> None:
    log: list[int] = []

    @ek.compile
    def step(x: Any) -> Any:
        log.append(1)
        return x * 2

    for _ in range(3):
        step(X)
    assert len(step.explain().traces) == 1
