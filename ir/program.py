"""Programs: a step as data, run by one native driver.

A `Program` is a table of instructions over slots (buffers whose base address is known when the
step is called) and one arena. It has no addresses, so it can be shared, printed and stored; the
runtime turns it into the native layout below.

Native layout, all 64-bit words. The driver is `i64 run(ptr block)` and returns the status word.

    block[COUNT]         number of instructions
    block[INSTRUCTIONS]  -> INSTRUCTION_WORDS words for each instruction
    block[BINDS]         number of binds
    block[BIND_TABLE]    -> for each bind: address of the word to fill, slot number, byte offset
    block[SLOTS]         -> base address of each slot
    block[STATUS]        cleared at the start; kernels set bits in it
    block[THREADS]       threads wanted; 1 runs in the calling thread alone
    block[TEAM]          -> the thread team, or 0
    block[COUNTERS]      -> COUNTER_WORDS words for each instruction, cleared at the start

    instruction[KERNEL]    address of the kernel; 0 is a commit point
    instruction[POINTERS]  -> addresses of its buffers, filled through binds
    instruction[PARAMS]    -> its parameters
    instruction[WORK]      number of work items
    instruction[CHUNK]     work items claimed at once
    instruction[AFTER]     how many leading instructions must be finished before it starts
    instruction[RUN]       how many instructions from this one on are claimed and run as one, by one
                           thread; the others of such a unit are not looked at by themselves
    instruction[CALLER]    1 when only the thread that called `run` may claim it

Work is claimed in pieces of CHUNK items; a unit of several instructions is one piece. A commit
point waits for all instructions before it; if the status word is not zero by then, the driver stops
there, before the first write to state.

A kernel of control flow runs nested programs, each from a block of its own, by calling `run` in the
thread that runs the kernel. The first of its params say where they are:

    params[0]                    address of `run`
    params[1 + NESTED_WORDS * k]  of nested program k: address of its block, address of its slots,
                                 how many binds it has, how many of them change from step to step

A kernel that calls the host has three words of params. The function takes the GIL, in whichever
thread of the team runs the kernel, so a step with such kernels is run without it. What calls
users' functions is run by the caller alone: they find the locks, the context variables and the
thread's own data of the thread that made the call.

    params[CALL]   address of `void call(ptr pointers, ptr params)`
    params[SITE]   a number that tells it what to call
    params[DONE]   cleared before the call; 1 when all results are written
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from einkorn.ir.loops import HostCall, Kernel
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType

COUNT, INSTRUCTIONS, BINDS, BIND_TABLE, SLOTS, STATUS, THREADS, TEAM, COUNTERS = range(9)
BLOCK_WORDS = 16
KERNEL, POINTERS, PARAMS, WORK, CHUNK, AFTER, RUN, CALLER = range(8)
INSTRUCTION_WORDS = 8
NESTED_WORDS = 4
COUNTER_WORDS = 16  # `next` and `done`, each on a cache line of its own

CALL, SITE, DONE = range(3)

STATUS_INDEX = 1  # a gather or scatter index was out of range
STATUS_HOST = 2  # a call of the host failed
STATUS_CHECK = 4  # a condition is not what the step is for

ARENA = 0  # the slot of the arena


@dataclass(frozen=True, slots=True)
class Operand:
    """Where a kernel finds a buffer: a slot and the byte offset in it."""

    slot: int
    offset: int


@dataclass(frozen=True, slots=True)
class Instruction:
    """One kernel launch, or a commit point (kernel None).

    Attributes:
        kernel: what to run.
        operands: its buffers, in the order of the kernel's `pointers`.
        params: its parameters.
        work: the number of work items.
        chunk: work items claimed at once by a thread; `work <= chunk` runs on one thread.
        after: how many leading instructions must be finished before it starts.
        cost: estimated nanoseconds on one thread.
        label: what it computes, for people: op names and the user's line.
        run: how many instructions from this one on one thread runs as one; 0 inside such a unit.
        inner: the programs that a kernel of control flow runs. The runtime gives each tables of
            its own and fills in the first params of the kernel; its last operand is their arena.
    """

    kernel: Kernel | None
    operands: tuple[Operand, ...]
    params: tuple[int, ...]
    work: int
    chunk: int
    after: int
    cost: float
    label: str
    run: int = 1
    inner: tuple[Program, ...] = ()

    @property
    def calls_user(self) -> bool:
        """Whether it, or a nested program, calls a function of the user."""
        nested = (row for part in self.inner for _, row in part.walk())
        return any(
            isinstance(row.kernel, HostCall) and row.kernel.op is Op.CALLBACK
            for row in (self, *nested)
        )


@dataclass(frozen=True, slots=True)
class Slot:
    """A buffer that is bound at each call.

    Attributes:
        role: "arena", "input", "capture", "output" or "update".
        index: which input, capture, output or update of the graph.
        type: its type; None for the arena.
    """

    role: str
    index: int
    type: TensorType | None


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled step without addresses.

    Attributes:
        name: the name of the graph.
        slots: slot 0 is the arena.
        instructions: in order of execution.
        arena_bytes: the size of the arena.
        cost: estimated nanoseconds on one thread.
        in_place: indices of updates whose new value may be written over the old one; the others
            need storage of their own until the step has ended.
        shared_cost: estimated nanoseconds on two threads.
    """

    name: str
    slots: tuple[Slot, ...]
    instructions: tuple[Instruction, ...]
    arena_bytes: int
    cost: float
    in_place: frozenset[int] = frozenset()
    shared_cost: float = 0.0

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The distinct kernels, in the order of their first use."""
        rows = (row.kernel for _, row in self.walk())
        return tuple(kernel for kernel in dict.fromkeys(rows) if kernel is not None)

    @property
    def refuses(self) -> bool:
        """Whether anything in it can stop it."""
        return any(row.kernel is None for row in self.instructions)

    @property
    def calls_host(self) -> bool:
        """Whether any kernel in it, or in nested programs, takes the GIL."""
        return any(isinstance(row.kernel, HostCall) for _, row in self.walk())

    def walk(self) -> Iterator[tuple[str, Instruction]]:
        """Every instruction with its number, those of nested programs ("3.0.1") after their own."""
        for number, row in enumerate(self.instructions):
            yield str(number), row
            for position, inner in enumerate(row.inner):
                for deeper, nested in inner.walk():
                    yield f"{number}.{position}.{deeper}", nested

    def __str__(self) -> str:
        cost, shared = self.cost / 1000, self.shared_cost / 1000
        rows = [
            f"program {self.name} arena={self.arena_bytes} "
            f"cost={cost:.1f}us on two threads {shared:.1f}us {{"
        ]
        for number, slot in enumerate(self.slots):
            place = " in place" if slot.role == "update" and slot.index in self.in_place else ""
            rows.append(f"  slot {number}: {slot.role} {slot.index} {slot.type or ''}{place}")
        for number, row in enumerate(self.instructions):
            kind = "commit" if row.kernel is None else type(row.kernel).__name__
            where = " ".join(f"{x.slot}+{x.offset}" for x in row.operands)
            after = f"after={row.after}" if row.run else "then"
            rows.append(
                f"  {number}: {kind} [{where}] params={row.params} work={row.work}/{row.chunk} "
                f"{after}  # {row.label}"
            )
            for inner in row.inner:
                rows.extend(f"    {line}" for line in str(inner).splitlines())
        return "\n".join([*rows, "}"])
