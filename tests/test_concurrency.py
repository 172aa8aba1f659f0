"""Python threads, forks, signals and interpreter exit around compiled steps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from compile_checks import state
from same_bits import assert_same_bits, bits, split_finely

import einkorn as ek

X = np.linspace(-2, 2, 2000, dtype=np.float32).reshape(40, 50)
WORKERS = 8


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """The results of calls made at the same time, each in a thread of its own."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        gate.wait(30)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(120) for future in [pool.submit(run, call) for call in calls]]


def chain(x: Any, scale: Any) -> Any:
    h = ek.tanh(x @ x.T * scale)
    return (ek.exp(h) + h.sum(axis=0)).mean(axis=1)


def subprocess_result(code: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter where warnings are errors."""
    command = [sys.executable, "-X", "faulthandler", "-W", "error", "-c", code]
    environment = {**os.environ, "EINKORN_THREADS": "2"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


# -- threads ---------------------------------------------------------------------------------------


def test_one_compiled_function_in_many_threads() -> None:
    step = ek.compile(chain)
    want = [bits(step(X, 0.01 * k).numpy()) for k in range(WORKERS)]

    def work(k: int) -> bool:
        return all(bits(step(X, 0.01 * k).numpy()) == want[k] for _ in range(60))

    with split_finely(), ek.settings(threads=2):
        assert all(at_once(*(lambda k=k: work(k) for k in range(WORKERS))))
    assert all(at_once(*(lambda k=k: work(k) for k in range(WORKERS))))


def test_tracing_in_many_threads_at_once() -> None:
    step = ek.compile(chain)
    shapes = [(k % 4 + 2, 7) for k in range(WORKERS)]
    found = at_once(*(lambda s=s: step(X[: s[0], : s[1]], 0.1).numpy() for s in shapes))
    for shape, got in zip(shapes, found):
        assert_same_bits(got, step(X[: shape[0], : shape[1]], 0.1).numpy())

    def made(k: int) -> Callable[[], Any]:
        return lambda: ek.compile(lambda x: x * k + 1)(X).numpy()

    for k, got in enumerate(at_once(*map(made, range(WORKERS)))):
        assert_same_bits(got, X * np.float32(k) + 1)


def test_eager_work_and_gradients_in_many_threads() -> None:
    def work(k: int) -> Any:
        w = ek.Parameter(X * np.float32(k + 1))
        for _ in range(5):
            (ek.tanh(w) * ek.asarray(X)).sum().backward()
        return bits(w.grad.numpy())

    want = [work(k) for k in range(WORKERS)]
    assert at_once(*(lambda k=k: work(k) for k in range(WORKERS))) == want


def test_steps_that_write_one_leaf_follow_each_other() -> None:
    count, total = ek.tensor(0), ek.tensor(np.zeros(5000, np.float32), trainable=False)

    @ek.compile
    def step(x: Any) -> Any:
        count.value = count + 1
        total.value = total + x
        return count + 0

    x = np.ones(5000, np.float32)
    step(x)
    seen = at_once(*(lambda: [step(x).item() for _ in range(100)] for _ in range(WORKERS)))
    assert count.item() == 1 + 100 * WORKERS
    assert sorted(n for row in seen for n in row) == list(range(2, 2 + 100 * WORKERS))
    assert_same_bits(total.numpy(), np.full(5000, 801, np.float32))


def test_settings_of_one_thread_are_its_own() -> None:
    step = ek.compile(lambda x: x * 2)
    step(X)

    def eager() -> bool:
        with ek.eager():
            return all(bits(step(X).numpy()) == bits(X * 2) for _ in range(50))

    assert all(at_once(eager, lambda: bits(step(X).numpy()) == bits(X * 2), eager))


def test_a_trace_in_one_thread_does_not_capture_the_ops_of_another() -> None:
    entered, leave = threading.Event(), threading.Event()

    @ek.compile
    def slow(x: Any) -> Any:
        entered.set()
        assert leave.wait(30)
        return x + 1

    def other() -> Any:
        assert entered.wait(30)
        try:
            return (ek.asarray(X) * 3).numpy()
        finally:
            leave.set()

    first, second = at_once(lambda: slow(X).numpy(), other)
    assert_same_bits(first, X + 1)
    assert_same_bits(second, X * 3)


# -- fork ------------------------------------------------------------------------------------------

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

FORK = """
import os, signal, sys, threading, time, warnings
import numpy as np, einkorn as ek
from einkorn.passes import costs
from einkorn.runtime import executable
costs.SPLIT_NS, costs.HANDOFF_NS = 1e-3, 0.0
executable.ALONE_NS, executable.PAYS = 0.0, float("inf")
warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
w = ek.tensor(np.ones((60, 60), np.float32))

@ek.compile
def step(x):
    value, grad = ek.value_and_grad(lambda x: ek.tanh(w @ x * 1e-2).sum(), w)(x)
    w.value = w - grad * 1e-2
    return value

x = np.linspace(-1, 1, 3600, dtype=np.float32).reshape(60, 60)

def work():
    with ek.eager():
        ek.tanh(w @ x).sum().backward()
        step(x)
    for _ in range(5):
        step(x)
    return ek.compile(lambda x: (ek.sin(x) + 1).sum())(x).item()

step(x)
{before}
codes = []
for _ in range({times}):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        work()
        os._exit(17)
    codes.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in codes]
{after}
work()
assert codes == [17] * {times}, codes
print("done")
"""


@needs_fork
def test_a_forked_child_runs_and_compiles() -> None:
    done = subprocess_result(FORK.format(before="", after="", times=2))
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@needs_fork
def test_a_fork_while_another_thread_runs_steps() -> None:
    before = (
        "stop = []\n"
        "def spin():\n"
        "    k = 0\n"
        "    while not stop:\n"
        "        step(x)\n"
        "        k += 1\n"
        "        ek.compile(lambda x: x * k + k)(x)\n"
        "thread = threading.Thread(target=spin)\n"
        "thread.start()\n"
        "time.sleep(0.05)"
    )
    done = subprocess_result(
        FORK.format(before=before, after="stop.append(1); thread.join()", times=12), timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


# -- exit ------------------------------------------------------------------------------------------

EXIT = """
import threading, time
import numpy as np, einkorn as ek
x = np.ones((600, 600), np.float32)
step = ek.compile(lambda x: ek.tanh(x @ x @ x).sum())
step(x)
def spin():
    while True:
        step(x)
for _ in range({threads}):
    threading.Thread(target=spin, daemon=True).start()
time.sleep({sleep})
print("leaving")
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_exit_while_threads_are_in_a_step(threads: int) -> None:
    for sleep in (0.0, 0.03, 0.1):
        done = subprocess_result(EXIT.format(threads=threads, sleep=sleep))
        assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", ""), sleep


def test_exit_right_after_a_step_and_from_an_error() -> None:
    code = "import numpy as np, einkorn as ek\nek.compile(lambda x: x @ x)(np.ones((500, 500)))\n"
    done = subprocess_result(code)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess_result(code + "raise SystemExit(5)")
    assert (done.returncode, done.stderr) == (5, "")


# -- signals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", range(6))
def test_an_interrupt_in_the_middle_of_the_commit(
    when: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All leaves are written, or none; lent ones (fresh storage) beside those written in place."""
    leaves = [ek.tensor(X + k, trainable=False) for k in range(5)]

    @ek.compile
    def step() -> None:
        for leaf in leaves:
            leaf.value = leaf * 2

    step()
    before = [leaf.numpy() for leaf in leaves[::2]]
    held = [x.copy() for x in before]
    moments, replace = iter(range(100)), ek.Leaf._replace

    def interrupted(leaf: Any, *args: Any) -> None:
        if next(moments) == when:
            raise KeyboardInterrupt
        replace(leaf, *args)
        if next(moments) == when:
            raise KeyboardInterrupt

    monkeypatch.setattr(ek.Leaf, "_replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        step()
    monkeypatch.undo()
    for k, leaf in enumerate(leaves):
        assert_same_bits(leaf.numpy(), (X + np.float32(k)) * 4)
    step()
    for k, leaf in enumerate(leaves):
        assert_same_bits(leaf.numpy(), (X + np.float32(k)) * 8)
    for view, then in zip(before, held):
        assert_same_bits(view, then)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_a_keyboard_interrupt_arrives_after_the_step_and_state_is_consistent() -> None:
    """Two leaves are updated together; an interrupt at any time leaves them equal."""
    size = 400
    a = ek.tensor(np.eye(size, dtype=np.float32), trainable=False)
    b = ek.tensor(np.eye(size, dtype=np.float32), trainable=False)
    count = ek.tensor(0)

    @ek.compile
    def step(x: Any) -> None:
        product = (a @ x) @ x * 0.5
        a.value = product + 0.25
        b.value = product + 0.25
        count.value = count + 1

    x = np.eye(size, dtype=np.float32)
    step(x)
    random = np.random.default_rng(0)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted, start = 0, time.perf_counter()
    try:
        while interrupted < 40 and time.perf_counter() - start < 20:
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 6e-3))
                for _ in range(20):
                    step(x)
            except KeyboardInterrupt:
                interrupted += 1
                signal.setitimer(signal.ITIMER_REAL, 0)
                assert state(a) == state(b)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted == 40
    steps = count.item()
    step(x)
    assert count.item() == steps + 1
    value = np.eye(size, dtype=np.float32)
    for _ in range(steps + 1):
        value = value * np.float32(0.5) + np.float32(0.25)
    assert_same_bits(a.numpy(), value)
    assert_same_bits(b.numpy(), value)
