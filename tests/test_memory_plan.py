"""Order, memory and waits of programs, checked against what their launches read and write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import pytest
from random_graphs import random_arrays, random_graph
from same_bits import execute, split_finely

import einkorn as ek
from einkorn.codegen.llvm.target import LLVM
from einkorn.ir import dtypes as dt
from einkorn.ir.dtypes import DType
from einkorn.ir.graph import Graph
from einkorn.ir.loops import Access, LoopKernel
from einkorn.ir.program import ARENA, Operand, Program
from einkorn.ir.rewrite import always
from einkorn.passes import arena
from einkorn.passes.launches import Buffer, Launch, Launches
from einkorn.passes.memory import plan_memory
from einkorn.passes.pipeline import stages
from einkorn.passes.replace import touches
from einkorn.passes.schedule import dependencies
from einkorn.runtime.executable import Executable, threads_for

Range = tuple[object, int, int]  # which memory, its first byte, the byte behind its last


def planned(graph: Graph, without: str = "") -> tuple[Launches, Program]:
    """The scheduled launches of a graph, and its program; one stage may be left out."""
    results: dict[str, Any] = {}
    stage: Any = graph
    for name, run in stages(LLVM.machine, always):
        if name != without:
            stage = results[name] = run(stage)
    return results["schedule"], results["plan-memory"]


@dataclass
class Touching:
    """One launch with the memory that it reads and writes."""

    launch: Launch
    reads: list[Range]
    writes: list[Range]
    unit: int
    after: int


def accesses(launches: Launches, program: Program) -> list[Touching | None]:
    """What each instruction touches; None for a commit point."""
    steps = iter(launches.steps)
    rows: list[Touching | None] = []
    unit, after = 0, 0
    for number, row in enumerate(program.instructions):
        if row.run:
            unit, after = number, row.after
        if row.kernel is None:
            rows.append(None)
            continue
        launch = next(steps)
        places: list[Range] = []
        buffers = (*launch.reads, *launch.writes)
        for (buffer, offset), operand in zip(buffers, row.operands, strict=True):
            slot = program.slots[operand.slot]
            memory: object = (slot.role, slot.index)
            if operand.slot == ARENA:
                start = operand.offset - offset
                assert start >= 0
                assert start + buffer.nbytes <= program.arena_bytes
                places.append(("arena", start, start + buffer.nbytes))
                continue
            if slot.role == "update" and slot.index in program.in_place:
                leaf, _ = launches.graph.updates[slot.index]
                memory = ("capture", launches.graph.captures.index(leaf))
            places.append((memory, 0, buffer.nbytes))
        count = len(launch.reads)
        rows.append(Touching(launch, places[:count], places[count:], unit, after))
    assert next(steps, None) is None
    return rows


def meet(a: Range, b: Range) -> bool:
    return a[0] == b[0] and a[1] < b[2] and b[1] < a[2]


def check(launches: Launches, program: Program) -> None:
    """Launches that touch the same memory follow each other, and what is read is what was meant."""
    rows = accesses(launches, program)
    commits = [k for k, row in enumerate(rows) if row is None]
    for k, row in enumerate(rows):
        if row is None:
            assert program.instructions[k].after == k
            continue
        for j, other in enumerate(rows[:k]):
            ordered = row.after > j or (other is not None and other.unit == row.unit)
            if other is None:
                assert row.after > j, f"{k} may overtake the commit point {j}"
            elif any(meet(a, b) for a in row.writes for b in other.reads + other.writes) or any(
                meet(a, b) for a in row.reads for b in other.writes
            ):
                assert ordered, f"{k} may run beside {j}\n{program}"
        for read, (buffer, _) in zip(row.reads, row.launch.reads):
            if any(meet(read, write) for write in row.writes) and buffer.nbytes:
                over = [x for x, write in zip(row.launch.writes, row.writes) if meet(read, write)]
                alike = touches(row.launch)
                assert all(alike[x] == alike[buffer] for x, _ in over), f"{k}\n{program}"
    for k, row in enumerate(rows):
        if row is not None and row.launch.refuses:
            assert k < max(commits)
        if row is not None and commits and k < max(commits):
            updates = [buffer.index for buffer, _ in row.launch.writes if buffer.role == "update"]
            assert not program.in_place & set(updates), f"{k} writes state too early\n{program}"
    _check_contents(rows, program)


def _check_contents(rows: Iterable[Touching | None], program: Program) -> None:
    """Whoever reads a buffer finds there what was written to that buffer last."""
    held: list[tuple[Range, object]] = []  # what memory holds, the newest last
    for k, row in enumerate(rows):
        if row is None:
            continue
        for place, (buffer, _) in zip(row.reads, row.launch.reads):
            owners = [owner for other, owner in held if meet(place, other)]
            fresh = not owners and buffer.role in ("input", "capture")
            mine = bool(owners) and owners[-1] is buffer
            assert fresh or mine or place[1] == place[2], f"{k} reads what is gone\n{program}"
        for place, (buffer, _) in zip(row.writes, row.launch.writes):
            held = [item for item in held if item[1] is buffer or not meet(place, item[0])]
            held.append((place, buffer))


@pytest.mark.parametrize("handoff_ns", [0.0, 100.0, 1e5])
@pytest.mark.parametrize("split_ns", [1e-3, 1e9])
def test_plans_of_random_graphs(split_ns: float, handoff_ns: float) -> None:
    with split_finely(split_ns, handoff_ns):
        for seed in range(40):
            check(*planned(random_graph(Random(seed), 40)))


@pytest.mark.parametrize("seed", range(12))
def test_the_arena_is_used_to_its_end_and_not_beyond(seed: int) -> None:
    graph = random_graph(Random(seed), 40)
    arrays = random_arrays(Random(seed), graph)
    executable = Executable(planned(graph)[1], LLVM)
    used = touched(executable, graph, arrays)
    size = executable.program.arena_bytes
    assert size - arena.ALIGNMENT < used <= size


def touched(executable: Executable, graph: Graph, arrays: list[Any]) -> int:
    """The bytes of the arena up to the last one that a run changes."""
    instance = executable.instance()
    executable._idle.append(instance)  # the next run takes it
    memory = instance.arena
    changed = np.zeros(len(memory), bool)
    for pattern in (0x5A, 0xA5):
        memory[:] = pattern
        try:
            execute(executable, graph, arrays, 1)
        except ek.BoundsError:
            pass
        changed |= memory != pattern
    return int(np.flatnonzero(changed).max(initial=-1)) + 1


# -- places ----------------------------------------------------------------------------------------


def no_two_meet(lives: arena.Lives, offsets: list[int], size: int) -> bool:
    """Whether temporaries that live at the same time have memory of their own."""
    rows = [(n, first, last, at) for (n, first, last), at in zip(lives, offsets) if n]
    return all(at % arena.ALIGNMENT == 0 and at + n <= size for n, _, _, at in rows) and not any(
        a[1] <= b[2] and b[1] <= a[2] and a[3] < b[3] + b[0] and b[3] < a[3] + a[0]
        for k, a in enumerate(rows)
        for b in rows[:k]
    )


def test_random_lives() -> None:
    rng = Random(0)
    for _ in range(200):
        lives = [
            (rng.choice([0, 1, 64, 100, 1000, 5000]), first, first + rng.randrange(8))
            for first in (rng.randrange(30) for _ in range(rng.randrange(40)))
        ]
        offsets, size = arena.arrange(lives)
        assert no_two_meet(lives, offsets, size)
        assert size >= arena._most_at_once(lives)


def test_holes_are_avoided() -> None:
    # In order of time the third does not fit where the first was, beside the second.
    lives = [(64, 0, 1), (64, 1, 3), (128, 2, 3)]
    assert arena.arrange(lives)[1] == 192


# -- programs --------------------------------------------------------------------------------------


def adam_like(count: int, size: int = 4096) -> Graph:
    """A chain of layers, and an update of weights and slots that needs each layer's gradient."""
    weights = [ek.Parameter(np.ones((64, size // 64), "f4"), name=f"w{k}") for k in range(count)]
    slots = [ek.tensor(np.zeros((64, size // 64), "f4"), trainable=False) for _ in weights]

    def loss_of(x: Any) -> Any:
        for weight in weights:
            x = ek.tanh(x @ weight)
        return x.sum()

    @ek.compile
    def step(x: Any) -> Any:
        loss, grads = ek.value_and_grad(loss_of, weights)(x)
        for weight, slot, grad in zip(weights, slots, grads):
            slot.value = slot * 0.9 + grad
            weight.value = weight - slot * 0.1
        return loss

    return step.trace(np.ones((32, 64), "f4"))


def test_updates_of_different_leaves_do_not_wait_for_each_other() -> None:
    launches, program = planned(adam_like(6), without="batch")
    check(launches, program)
    assert program.in_place == frozenset(range(12))
    needs = dependencies(launches.graph, launches.steps)
    writers = {
        buffer.index: k
        for k, launch in enumerate(launches.steps)
        for buffer, _ in launch.writes
        if buffer.role == "update"
    }
    for index, k in writers.items():
        assert not needs[k] & {writers[other] for other in writers if other // 2 != index // 2}


def test_gradients_do_not_wait_in_memory_for_each_other() -> None:
    few, many = (planned(adam_like(count), without="batch")[1] for count in (4, 12))
    activation = 32 * 64 * 4  # of each layer its value and its derivative; a gradient has 64 * 64
    assert many.arena_bytes - few.arena_bytes <= 8 * 2 * activation


def test_a_swap_of_two_leaves() -> None:
    a, b = (ek.tensor(np.full(9, k, "f4"), trainable=False) for k in (1, 2))

    @ek.compile
    def swap() -> None:
        a.value, b.value = b + 0.5, a + 0.5

    check(*planned(swap.trace()))
    swap()
    assert (a.numpy() == 2.5).all()
    assert (b.numpy() == 1.5).all()


def maps(*rows: tuple[DType, DType, tuple[int, ...], tuple[int, ...]]) -> Launches:
    """A chain of maps over 64 elements: of each the dtypes and the strides of load and store."""
    extents = {1: (64,), 2: (8, 8)}
    buffers = [Buffer("", 64 * rows[0][0].itemsize)]
    steps: list[Launch] = []
    for read, write, loads, stores in rows:
        buffers.append(Buffer("", 64 * write.itemsize))
        kernel = LoopKernel(len(loads), (Access(read, "any"),), (), ((Access(write, "any"), 0),))
        params = (*extents[len(loads)], *loads, *stores)
        operands = ((buffers[-2], 0),), ((buffers[-1], 0),)
        in_step = frozenset(buffers[-2:-1])
        steps.append(Launch(kernel, *operands, params, 64, 64, 1.0, "", in_step=in_step))
    return Launches(Graph("maps", (), (), ()), steps)


def test_a_result_takes_the_place_of_an_operand_that_dies() -> None:
    program = plan_memory(maps(*[(dt.float32, dt.float32, (1,), (1,))] * 5))
    assert program.arena_bytes == 64 * 4
    assert all(row.operands == (Operand(ARENA, 0),) * 2 for row in program.instructions)


@pytest.mark.parametrize(
    "row",
    [
        (dt.float32, dt.float64, (1,), (1,)),  # wider
        (dt.float32, dt.int16, (1,), (1,)),  # narrower
        (dt.float32, dt.float32, (8, 1), (1, 8)),  # element (0, 1) is written where (1, 0) is read
        (dt.float32, dt.float32, (0, 1), (8, 1)),  # read more than once
    ],
)
def test_a_result_takes_no_place_where_it_would_be_in_the_way(
    row: tuple[DType, DType, tuple[int, ...], tuple[int, ...]],
) -> None:
    (only,) = plan_memory(maps(row)).instructions
    read, write = (operand.offset for operand in only.operands)
    assert read != write


def test_commit_comes_right_behind_the_last_that_refuses() -> None:
    w = ek.Parameter(np.ones((8, 8), "f4"))

    @ek.compile
    def step(x: Any, k: Any) -> Any:
        rows = ek.take(x, k, axis=0)
        w.value = w + x.sum()
        return (rows @ w).sum()

    launches, program = planned(step.trace(np.ones((8, 8), "f4"), np.zeros(3, "i4")))
    check(launches, program)
    labels = [row.label for row in program.instructions]
    at = labels.index("commit")
    assert "gather" in labels[at - 1]
    assert program.in_place == {0}


def test_a_second_thread_is_used_where_it_pays() -> None:
    @ek.compile
    def product(x: Any) -> Any:
        return x @ x

    @ek.compile
    def chain(x: Any) -> Any:
        for _ in range(200):
            x = ek.tanh(x @ x)
        return x

    short = planned(chain.trace(np.ones((16, 16), "f4")))[1]
    assert short.shared_cost > 0.95 * short.cost
    assert threads_for(short, 4) == 1
    long = planned(product.trace(np.ones((512, 512), "f4")))[1]
    assert long.shared_cost < 0.6 * long.cost
    assert threads_for(long, 4) == 4
    assert threads_for(long, 1) == 1
