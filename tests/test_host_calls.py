"""Calls of the host inside of compiled steps: failures, threads, interrupts, forks, inspection."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits, split_finely

import einkorn as ek
from einkorn.host import call
from einkorn.ir import host_calls
from einkorn.ir.graph import Graph
from einkorn.ir.host import HOST, HostFunction
from einkorn.ir.loops import HostCall
from einkorn.ir.node import make, placeholder
from einkorn.ir.ops import OPS, Op
from einkorn.ir.parse import parse
from einkorn.ir.types import TensorType
from einkorn.passes.cost_report import cost_report
from einkorn.runtime import host as runtime_host
from einkorn.runtime.compiler import compile_graph

Array = np.ndarray[Any, Any]
la: Any = ek.linalg

GOOD = np.array([[2.0, 1.0], [1.0, 3.0]])
BAD = np.array([[1.0, 2.0], [2.0, 1.0]])  # not positive definite
SINGULAR = np.ones((2, 2))


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Array], Any]], str]:
    """Registers a function of one vector for the time of a test."""

    def register(function: Callable[[Array], Any]) -> str:
        def run(x: Array) -> Array:
            function(x)
            return x * 2

        monkeypatch.setitem(HOST, "probe", HostFunction(lambda x: x, run, lambda x: 1.0))
        return "probe"

    return register


# -- failures --------------------------------------------------------------------------------------


def test_a_failure_leaves_state_as_it_was() -> None:
    w, count = ek.Parameter(np.zeros(2)), ek.tensor(0, name="count")

    @ek.compile
    def step(x: Any) -> Any:
        count.value = count + 1
        w.value = w + la.cholesky(x)[0]
        return ek.sum(la.cholesky(x))

    step(GOOD)
    before = w.numpy().copy(), count.numpy().copy()
    for _ in range(3):
        with pytest.raises(ek.LinAlgError, match="positive definite") as caught:
            step(BAD)
        assert (w.numpy().tolist(), int(count)) == (before[0].tolist(), 1)
        assert "test_host_calls.py" in str(caught.value)
        assert isinstance(caught.value, np.linalg.LinAlgError)
    step(GOOD)
    assert int(count) == 2


def test_eager_code_raises_the_same() -> None:
    for run in (lambda: la.inv(SINGULAR), lambda: ek.compile(la.inv)(SINGULAR)):
        with pytest.raises(
            ek.LinAlgError, match=r"inv: the matrix is singular; use ek\.linalg\.pinv"
        ):
            run()
    x = ek.tensor(SINGULAR)
    with pytest.raises(ek.LinAlgError, match="inv"):
        la.det(x).backward()


def test_only_the_branch_that_is_taken_is_called() -> None:
    def choose(flag: Any, x: Any) -> Any:
        return ek.cond(flag, lambda x: la.cholesky(x), lambda x: x, x)

    for run in (choose, ek.compile(choose)):
        assert_same_bits(np.asarray(run(ek.asarray(False), BAD)), BAD)
        with pytest.raises(ek.LinAlgError):
            run(ek.asarray(True), BAD)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failure_inside_of_loops(threads: int) -> None:
    total = ek.tensor(np.zeros(()), name="total")

    def scanned(xs: Any) -> Any:
        def body(carry: Any, x: Any) -> Any:
            total.value = total + 1
            return carry + la.cholesky(x)[0, 0], carry

        return ek.scan(body, ek.asarray(0.0, dtype="float64"), xs)[0]

    step = ek.compile(scanned, threads=threads)
    step(np.stack([GOOD] * 3))
    assert float(total) == 3
    for run in (scanned, step):
        before = float(total)
        with pytest.raises(ek.LinAlgError, match="cholesky"):
            run(np.stack([GOOD, BAD, GOOD]))
        assert float(total) == before


def test_a_loop_on_what_a_failure_left_ends() -> None:
    """Its condition would hold for ever on what the call did not write."""

    def looped(x: Any) -> Any:
        start = la.cholesky(x)
        return ek.while_loop(lambda y: ek.sum(y) != -1.0, lambda y: y * 1.0, start)

    with pytest.raises(ek.LinAlgError):
        ek.compile(looped)(BAD)


def test_unexpected_exceptions_keep_their_cause(probe: Any) -> None:
    def fail(x: Array) -> None:
        raise RuntimeError("no luck")

    name = probe(fail)
    for run in (lambda x: call(name, x), ek.compile(lambda x: call(name, x))):
        with pytest.raises(ek.HostError, match="probe: RuntimeError: no luck") as caught:
            run(np.ones(2))
        assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_result_of_another_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for made in (np.zeros(3), np.zeros(2, "float32")):
        row = HostFunction(lambda x: x, lambda x, made=made: made, lambda x: 1.0)
        monkeypatch.setitem(HOST, "wrong", row)
        ek.clear_caches()
        for run in (lambda x: call("wrong", x), ek.compile(lambda x: call("wrong", x))):
            with pytest.raises(ek.HostError, match="instead of"):
                run(np.ones(2))


def test_operands_are_read_only_inside(probe: Any) -> None:
    def write(x: Array) -> None:
        x[0] = 5

    with pytest.raises(ek.HostError, match="read-only"):
        ek.compile(lambda x: call(probe(write), x))(np.ones(2))


def test_names_that_are_not_there() -> None:
    with pytest.raises(ek.IRError, match="no host function 'nothing'; there are"):
        call("nothing", np.ones(2))


# -- interrupts ------------------------------------------------------------------------------------


def test_interrupt_in_a_call() -> None:
    leaf = ek.tensor(np.ones(3), name="leaf")
    started = threading.Event()

    def wait(x: Array) -> Array:
        started.set()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            time.sleep(0.001)
        return x

    HOST["wait"] = HostFunction(lambda x: x, wait, lambda x: 1.0)
    try:

        @ek.compile
        def step(x: Any) -> Any:
            leaf.value = call("wait", x)
            return x

        def interrupt() -> None:
            started.wait(20)
            signal.raise_signal(signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            step(np.zeros(3))
        thread.join()
        assert leaf.numpy().tolist() == [1.0] * 3
    finally:
        del HOST["wait"]


def test_a_call_that_was_stopped_before_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """The word DONE is not set, and nothing was kept: the step refuses."""
    leaf = ek.tensor(np.ones((2, 2)), name="leaf")

    @ek.compile
    def step(x: Any) -> Any:
        leaf.value = la.inv(x)
        return x

    step(GOOD)
    before = leaf.numpy().copy()
    monkeypatch.setattr(runtime_host.HostSite, "call", _stopped)
    with pytest.raises(KeyboardInterrupt):
        step(GOOD)
    assert_same_bits(leaf.numpy(), before)


def _stopped(site: Any, pointers: int) -> None:
    site.__class__ = _Forgetful
    raise KeyboardInterrupt


class _Forgetful(runtime_host.HostSite):
    """A site that keeps no error."""

    error = property(lambda self: None, lambda self, value: None)


# -- threads and processes -------------------------------------------------------------------------


def test_every_thread_of_the_team_may_call() -> None:
    def many(x: Any) -> Any:
        return [la.solve(x + k * ek.eye(2, dtype="float64"), x @ x) for k in range(6)]

    want = [np.asarray(y) for y in many(ek.asarray(GOOD))]
    with split_finely():
        for threads in (1, 2, 3):
            step = ek.compile(many, threads=threads)
            for _ in range(20):
                for got, x in zip(step(GOOD), want, strict=True):
                    assert_same_bits(np.asarray(got), x)


def test_python_threads_side_by_side() -> None:
    step = ek.compile(lambda x: la.inv(x @ x) @ x, threads=2)
    want = np.asarray(step(GOOD))
    failures: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(50):
                assert_same_bits(np.asarray(step(GOOD)), want)
                with pytest.raises(ek.LinAlgError):
                    step(SINGULAR)
        except Exception as error:
            failures.append(error)

    with split_finely():
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)


def test_other_threads_go_on_during_a_call(probe: Any) -> None:
    began = threading.Event()
    name = probe(lambda x: began.wait(20))
    done: list[Any] = []
    step = ek.compile(lambda x: call(name, x))
    thread = threading.Thread(target=lambda: done.append(step(np.ones(2))))
    thread.start()
    time.sleep(0.01)
    began.set()  # could not run if the step held the interpreter lock without giving way
    thread.join(20)
    assert len(done) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_calls_the_host() -> None:
    step = ek.compile(la.inv, threads=2)
    want = np.asarray(step(GOOD))
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(np.asarray(step(GOOD)), want) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_steps_that_call_the_host_give_up_the_lock() -> None:
    assert ek.compile(la.inv).lower(GOOD).program.calls_host
    assert not ek.compile(lambda x: x + 1).lower(GOOD).program.calls_host
    looped = ek.compile(lambda x: ek.scan(lambda c, y: (la.inv(c), y), x, x)[0])
    assert looped.lower(GOOD).program.calls_host


# -- data ------------------------------------------------------------------------------------------


def test_graphs_with_host_functions_print_and_parse() -> None:
    def fn(x: Any) -> Any:
        values, vectors = la.eigh(x)
        return vectors * ek.exp(values), la.svd(x, full_matrices=False).S, ek.fft.rfft(x)

    graph = ek.trace(fn)(GOOD)
    text = str(graph)
    assert "host(x) function=eigh params=()" in text
    again = parse(text)
    assert (str(again), again.key) == (text, graph.key)
    scope: dict[str, Any] = {}
    exec(graph.to_python(), scope)
    got, _ = scope[graph.name](GOOD)
    for a, b in zip(got, ek.compile(fn)(GOOD), strict=True):
        assert_same_bits(np.asarray(a), np.asarray(b))


def test_costs_and_labels() -> None:
    program = ek.compile(la.inv).lower(np.eye(64)).program
    (row,) = [row for row in program.instructions if isinstance(row.kernel, HostCall)]
    assert row.label.startswith("inv")
    assert "host call host function=inv params=(): f64[64,64] -> f64[64,64]" in str(row.kernel)
    assert row.cost > 50_000
    assert re.search(r"HostCall +inv", str(cost_report(program)))


def test_operands_are_dense_and_results_have_their_place() -> None:
    """Strided views, and one buffer as several operands."""

    def fn(x: Any) -> Any:
        return la.solve(x[::2, ::2].mT, x[::2, ::2].mT), la.inv(x[1:3, 1:3]).mT

    x = np.arange(16.0).reshape(4, 4) + 9 * np.eye(4)
    for a, b in zip(fn(ek.asarray(x)), ek.compile(fn)(x), strict=True):
        assert_same_bits(np.asarray(a), np.asarray(b))


def test_zero_sizes() -> None:
    for shape in ((0, 0), (0, 3, 3), (2, 0, 0)):
        x = np.zeros(shape)
        assert_same_bits(np.asarray(ek.compile(la.inv)(x)), x)
        assert np.asarray(ek.compile(la.det)(x)).tolist() == np.linalg.det(x).tolist()


def test_every_way_is_one_function() -> None:
    """The reference target, eager mode and the kernel call the same."""
    x = placeholder(TensorType(ek.float64, (2, 2)))
    node = make(Op.HOST, x, function="inv", params=())
    graph = Graph("one", (x,), (), (node,))
    assert host_calls.is_host_node(node)
    assert OPS[Op.HOST].refuses
    assert compile_graph(graph).program.refuses
    want = np.linalg.inv(GOOD)
    for run in (la.inv, ek.compile(la.inv), ek.compile(la.inv, backend="reference")):
        assert_same_bits(np.asarray(run(GOOD)), want)


def test_what_was_raised_keeps_no_memory_of_the_step(probe: Any) -> None:
    kept: list[Any] = []

    def fail(x: Array) -> None:
        raise ValueError("bad")

    step = ek.compile(lambda x: call(probe(fail), x))
    with pytest.raises(ek.HostError) as caught:
        step(np.ones(2))
    error: BaseException | None = caught.value.__cause__
    while error is not None:
        assert error.__traceback__ is None
        error = error.__cause__ or error.__context__
    frame = caught.value.__traceback__
    while frame is not None:
        kept.append(frame.tb_frame.f_code.co_name)
        frame = frame.tb_next
    assert "call_host" not in kept
