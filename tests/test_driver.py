"""The native driver and the thread team: hand-made kernels and native tables."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from native_tables import (
    CONTROL,
    FLUSH,
    Block,
    Step,
    chain,
    chained,
    check_chain,
    control_register,
    halve,
    increment,
    meet,
    mirror,
    refuse,
)

from einkorn.codegen.llvm import driver
from einkorn.codegen.llvm.objects import compile_object, features_of, load
from einkorn.ir import program
from einkorn.ir.errors import IRError
from einkorn.runtime import team
from einkorn.runtime.team import run_function, sleeping_workers, team_for


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_chain_is_right_for_any_split(threads: int) -> None:
    rng = np.random.default_rng(threads)
    deadline = time.monotonic() + 4
    for _ in range(1500):
        n, length = int(rng.integers(1, 200)), int(rng.integers(1, 12))
        check_chain(chain(n, length, int(rng.integers(1, 2 * n + 1)), threads), length)
        if time.monotonic() > deadline:
            break


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_one_block_many_runs(threads: int) -> None:
    block = chain(64, 9, 5, threads)
    want = chained(64, 9)
    for turn in range(3000):
        block.arrays[0][:] = np.arange(64)
        assert block.run(keep_gil=turn % 2 == 0) == 0
        assert np.array_equal(block.arrays[0], want)


@pytest.mark.parametrize("threads", [2, 5])
def test_every_item_runs_once(threads: int) -> None:
    rng = np.random.default_rng(5)
    for _ in range(500):
        arrays = [np.zeros(int(n), np.int64) for n in rng.integers(1, 300, 12)]
        # Independent instructions run side by side; `after` of later ones reaches back at random.
        steps = []
        for slot, array in enumerate(arrays):
            chunk, after = int(rng.integers(-1, 90)), int(rng.integers(slot + 1))
            steps.append(Step(increment(), (slot,), (), len(array), chunk, after))
        block = Block(steps, arrays, threads)
        assert block.run() == 0
        assert all((array == 1).all() for array in arrays)


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_dependencies_across_overlapping_instructions(threads: int) -> None:
    n = 97
    arrays = [np.arange(n, dtype=np.int64)] + [np.zeros(n, np.int64) for _ in range(4)]
    steps = [
        Step(mirror(), (0, 1), (n,), n, 7),
        Step(mirror(), (0, 2), (n,), n, 5),  # beside the first
        Step(mirror(), (1, 3), (n,), n, 9, after=1),  # beside the second
        Step(mirror(), (2, 4), (n,), n, 3, after=2),  # beside the third
    ]
    block = Block(steps, arrays, threads)
    for _ in range(1000):
        for array in arrays[1:]:
            array[:] = 0
        assert block.run() == 0
        assert np.array_equal(arrays[3], chained(n, 2))
        assert np.array_equal(arrays[4], chained(n, 2))


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_units_run_as_one(threads: int) -> None:
    rng = np.random.default_rng(threads)
    for _ in range(300):
        n, length = int(rng.integers(1, 100)), int(rng.integers(1, 40))
        block = chain(n, length, int(rng.integers(1, n + 1)), threads)
        first = 0
        while first < length:
            run = min(int(rng.integers(1, 6)), length - first)
            block.table[first, program.RUN] = run
            # Inside a unit nothing is waited for or split.
            block.table[first + 1 : first + run, [program.RUN, program.AFTER]] = 0, 0
            first += run
        check_chain(block, length)


@pytest.mark.parametrize("threads", [2, 3])
def test_units_run_side_by_side(threads: int) -> None:
    n, lanes, turns = 50, 3, 20
    arrays = [np.zeros(n, np.int64) for _ in range(2 * lanes)]
    steps: list[Step] = []
    for _ in range(turns // 2):  # a unit of a lane goes on with the lane's last one
        for lane in range(lanes):
            even, odd = 2 * lane, 2 * lane + 1
            after = max(0, len(steps) - 2 * lanes + 2)
            steps.append(Step(mirror(), (even, odd), (n,), n, n, after, 2))
            steps.append(Step(mirror(), (odd, even), (n,), n, n, 0, 0))
    block = Block(steps, arrays, threads)
    for _ in range(200):
        for array in arrays:
            array[:] = np.arange(n)
        assert block.run() == 0
        assert all(np.array_equal(array, chained(n, turns)) for array in arrays[::2])


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("refused", [False, True])
def test_commit_point(threads: int, refused: bool) -> None:
    arrays = [np.zeros(50, np.int64), np.zeros(50, np.int64)]
    steps = [
        Step(0),  # at the start: nothing to wait for
        Step(increment(), (0,), (), 50, 3),
        Step(refuse() if refused else increment(), (0,), (), 1, 1, after=2),
        Step(0, after=3),
        Step(increment(), (1,), (), 50, 3, after=0),
        Step(0, after=5),
    ]
    block = Block(steps, arrays, threads)
    for _ in range(500):
        arrays[0][:], arrays[1][:] = 0, 0
        assert block.run() == int(refused)
        assert (arrays[0][1:] == 1).all()
        assert (arrays[1] == (0 if refused else 1)).all()


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_status_after_the_last_commit_point_stops_nothing(threads: int) -> None:
    arrays = [np.zeros(50, np.int64)]
    steps = [Step(0), Step(refuse(), (), (), 40, 1), Step(increment(), (0,), (), 50, 3, after=2)]
    block = Block(steps, arrays, threads)
    for turn in range(1, 301):
        assert block.run() == 1
        assert (arrays[0] == turn).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_nothing_to_do(threads: int) -> None:
    assert Block([], [], threads).run() == 0
    assert Block([Step(0), Step(0)], [], threads).run() == 0
    arrays = [np.zeros(4, np.int64)]
    steps = [Step(increment(), (0,)), Step(increment(), (0,), (), 4, 9, after=1)]
    assert Block(steps, arrays, threads).run() == 0
    assert (arrays[0] == 1).all()


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_floating_point_control_register(threads: int) -> None:
    n = 20000
    source, out = np.full(n, 2e-38, np.float32), np.zeros(n, np.float32)
    want = source[0] * np.float32(0.5)
    block = Block([Step(halve(), (0, 1), (), n, 16)], [source, out], threads)
    setter, getter = control_register()
    before = getter()
    block.words[program.THREADS] = threads
    block.words[program.TEAM] = team_for(threads)
    run = run_function()[1]
    address = block.words.ctypes.data
    for _ in range(20):
        out[:] = 0
        setter(FLUSH)
        try:
            status, after = run(address), getter()
        finally:
            setter(before)
        assert status == 0
        assert after & CONTROL == FLUSH & CONTROL
        assert want > 0
        assert (out == want).all()


def test_workers_born_under_flushing_compute_subnormals() -> None:
    script = """
        import test_driver as t
        setter, getter = t.control_register()
        before = getter()
        setter(t.FLUSH)
        t.team_for(4)
        setter(before)
        t.test_floating_point_control_register(4)
    """
    assert in_new_process(script, 60) == 0


def test_many_python_threads_share_the_team() -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(150):
                n, length = int(rng.integers(1, 300)), int(rng.integers(1, 9))
                threads, chunk = int(rng.integers(1, 9)), int(rng.integers(1, 50))
                check_chain(chain(n, length, chunk, threads), length)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("threads", [2, 3])
def test_workers_take_part_however_long_they_waited(threads: int) -> None:
    # Pauses around the time that an idle worker spins: a lost wake-up would show here.
    rng = np.random.default_rng(3)
    out = np.zeros(2, np.int64)
    block = Block([Step(meet(), (0,), (threads,), threads, 1)], [out], threads)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        out[:] = 0
        assert block.run() == 0
        assert (out == threads).all()
        idle = time.perf_counter() + float(rng.choice([0, 20e-6, 30e-6, 40e-6, 300e-6]))
        while time.perf_counter() < idle:
            pass


def test_workers_sleep_and_wake() -> None:
    block = chain(64, 5, 8, 3)
    for _ in range(30):
        check_chain(block, 5)
        time.sleep(0.002)
    deadline = time.monotonic() + 5
    while sleeping_workers() < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sleeping_workers() >= 2


def test_short_steps_use_a_team_that_is_awake_or_soon_will_be() -> None:
    block = chain(64, 5, 8, 2)
    check_chain(block, 5)
    deadline = time.monotonic() + 5
    while not sleeping_workers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not team.is_awake(1e3)  # the first short step after a while runs alone
    assert team.is_awake(1e9)  # as if it had followed at once
    time.sleep(0.01)
    assert not team.is_awake(1e3)


def wait_for(pid: int, seconds: float) -> int:
    """The exit code of a child process; kills one that hangs."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise AssertionError("the child hangs")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_fork_while_others_run() -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        block = chain(100, 6, 7, 3)
        try:
            while not stop.is_set():
                check_chain(block, 6)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    old = chain(100, 6, 7, 3)
    check_chain(old, 6)
    try:
        for _ in range(15):
            pid = os.fork()
            if pid == 0:
                os._exit(in_the_child(old))
            assert wait_for(pid, 20) == 0
            check_chain(old, 6)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


def in_the_child(old: Block) -> int:
    """Runs with the parent's team, which must be left alone, then with a new one."""
    try:
        old.arrays[0][:] = np.arange(100)
        assert run_function()[0](old.words.ctypes.data) == 0
        assert np.array_equal(old.arrays[0], chained(100, 6))
        for threads in (2, 4):
            for _ in range(20):
                check_chain(chain(100, 7, 9, threads), 7)
        load("define void @k() {\n  ret void\n}", "k")
    except BaseException:
        return 1
    return 0


def in_new_process(script: str, seconds: float) -> int:
    """The exit code of a Python process that runs `script` beside this file."""
    lines = "\n".join(line.strip() for line in script.strip().splitlines())
    folder = os.path.dirname(os.path.abspath(__file__))
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", lines], cwd=folder, timeout=seconds, check=False
    ).returncode


@pytest.mark.parametrize("pause", ["0", "0.2"])
def test_exit_while_workers_spin_or_sleep(pause: str) -> None:
    script = f"""
        import time, test_driver as t
        t.check_chain(t.chain(64, 5, 8, 4), 5)
        time.sleep({pause})
    """
    assert in_new_process(script, 60) == 0


def test_exit_while_a_daemon_thread_runs() -> None:
    script = """
        import threading, time, test_driver as t
        block = t.chain(2000, 300, 16, 3)
        run = lambda: [block.run() for _ in iter(int, 1)]
        threading.Thread(target=run, daemon=True).start()
        time.sleep(0.3)
    """
    assert in_new_process(script, 60) == 0


def test_a_busy_neighbour_does_not_block() -> None:
    spin = [sys.executable, "-c", "while True: pass"]
    neighbours = [subprocess.Popen(spin) for _ in range(2)]
    try:
        block = chain(200, 10, 10, 3)
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            check_chain(block, 10)
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()


def test_stress() -> None:
    """Random programs with commit points, pauses and thread counts against the order of one."""
    rng = np.random.default_rng(11)
    deadline = time.monotonic() + 6
    while time.monotonic() < deadline:
        n, length = int(rng.integers(1, 400)), int(rng.integers(2, 60))
        block = chain(n, length, int(rng.integers(1, n + 1)), int(rng.integers(2, 7)))
        for row in np.flatnonzero(rng.random(length) < 0.2):
            block.table[row, program.KERNEL] = 0
        first = int((block.table[:, program.KERNEL] != 0).argmax())
        initial = rng.integers(0, 1000, (3, n))
        results = []
        for threads in (1, block.threads):
            for array, values in zip(block.arrays, initial, strict=True):
                array[:] = values
            block.words[program.THREADS], block.words[program.TEAM] = threads, team_for(threads)
            assert run_function()[first % 2](block.words.ctypes.data) == 0
            results.append(np.concatenate(block.arrays))
        assert np.array_equal(*results)
        if rng.random() < 0.05:
            time.sleep(0.001)


def test_driver_compiles_for_every_level() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    for level, triple in [
        ("avx2", "x86_64-unknown-linux-gnu"),
        ("avx512", "x86_64-unknown-linux-gnu"),
        ("neon", "aarch64-unknown-linux-gnu"),
    ]:
        assert compile_object(driver.driver_text(triple), features_of(level, triple))


def test_objects_refuse_calls_outside() -> None:
    with pytest.raises(IRError, match="expf"):
        compile_object("declare void @expf()\ndefine void @k() {\n call void @expf()\n ret void\n}")
    with pytest.raises(IRError, match="LLVM refused"):
        load("define nonsense", "k")
