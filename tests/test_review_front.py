"""Faults that a review of the call path found: interrupts, readers of leaves, modes."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from compile_checks import traces
from same_bits import assert_same_bits

import einkorn as ek
from einkorn import recording
from einkorn.runtime.locks import LOCKS

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


# -- interrupts ------------------------------------------------------------------------------------


@contextmanager
def interrupt_at(moment: int) -> Generator[list[int]]:
    """Raise KeyboardInterrupt at one of the moments at which Python runs signal handlers.

    Those are the start of a function and the return from native code.
    """
    seen = [0]

    def look(frame: Any, event: str, arg: Any) -> None:
        if event in ("call", "c_return"):
            seen[0] += 1
            if seen[0] == moment:
                raise KeyboardInterrupt

    sys.setprofile(look)
    try:
        yield seen
    finally:
        sys.setprofile(None)


def test_an_interrupt_at_any_moment_of_a_step_leaves_all_of_it_or_nothing() -> None:
    held, turned, plain = (ek.tensor(X, trainable=False) for _ in range(3))
    p = ek.Parameter(X)

    @ek.compile
    def step() -> Any:
        held.value, plain.value, turned.value = held + 1, plain + 1, ek.flip(turned) + 1
        p.grad = plain * 1
        return plain.sum()

    step()
    views: list[Any] = []
    moment, applied = 0, 1
    while True:
        views.append(held.value)  # lent: not written in place
        moment += 1
        try:
            with interrupt_at(moment) as seen:
                step()
        except KeyboardInterrupt:
            now = plain.value.copy()
            applied += int(now[0, 0] - X[0, 0]) - applied
        else:
            if seen[0] < moment:
                break
            applied += 1  # the interrupt came in the profiler's own last moments
        want = X + np.float32(0)
        back = X
        for _ in range(applied):
            want, back = want + np.float32(1), np.flip(back) + np.float32(1)
        assert_same_bits(plain.value.copy(), want)
        assert_same_bits(held.value.copy(), want)
        assert_same_bits(turned.value.copy(), back)
        assert_same_bits(p.grad.numpy(), want)
        step()
        applied += 1
    assert moment > 10


# -- readers of leaves -----------------------------------------------------------------------------

READERS: dict[str, Callable[[Any], Any]] = {
    "an op": lambda w: w * 1,
    "a kernel": lambda w: ek.exp(w),
    "a view": lambda w: w.reshape(-1),
    "a slice": lambda w: w[1:],
}


@pytest.mark.parametrize("name", READERS)
def test_a_step_of_another_thread_waits_while_an_eager_op_reads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = ek.tensor(X, trainable=False)

    @ek.compile
    def step() -> None:
        w.value = ek.flip(w) + 1  # never in place: old storage is used again

    for _ in range(3):
        step()
    run_op = recording.run_op
    threads: list[threading.Thread] = []

    def slow(*args: Any) -> Any:
        array = run_op(*args)

        def steps() -> None:
            for _ in range(4):
                step()

        if not threads:
            threads.append(threading.Thread(target=steps))
            threads[0].start()
            threads[0].join(0.2)  # without a lock it has run by then
        return array

    value = X  # not read from `w`, which would lend its storage
    for _ in range(3):
        value = np.flip(value) + np.float32(1)
    want = np.asarray(READERS[name](ek.asarray(value)))
    monkeypatch.setattr(recording, "run_op", slow)
    got = READERS[name](w)
    monkeypatch.undo()
    threads[0].join()
    assert_same_bits(got.numpy(), want)


COPIES: dict[str, Callable[[Any], Any]] = {
    "a copy": lambda w: np.array(w, copy=True),
    "another dtype": lambda w: np.asarray(w, dtype="float64"),
    "dlpack": np.from_dlpack,
    "a list": lambda w: np.array(w.tolist()),
    "a deep copy": lambda w: copy.deepcopy(w)._array,
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_of_a_leaf_waits_for_the_step_of_another_thread(name: str) -> None:
    w = ek.tensor(X, trainable=False)
    copies: list[Any] = []
    reader = threading.Thread(target=lambda: copies.append(COPIES[name](w)))
    with LOCKS.state:  # as a step does while it writes in place
        reader.start()
        reader.join(0.2)
        assert not copies
    reader.join()
    assert np.array_equal(copies[0], X)


# -- modes -----------------------------------------------------------------------------------------


def test_switching_between_train_and_eval_uses_the_traces_again() -> None:
    model = ek.nn.Sequential(ek.nn.Linear(4, 3), ek.nn.Dropout(0.5))
    other = ek.nn.Linear(4, 2)
    step = ek.compile(lambda x: model(x))
    apart = ek.compile(lambda x: other(x))
    for _ in range(3):
        model.train()
        assert np.any(step(X).numpy() == 0)
        model.eval()
        assert not np.any(step(X).numpy() == 0)
        apart(X)
    assert (traces(step), traces(apart)) == (2, 1)
