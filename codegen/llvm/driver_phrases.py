"""What the native driver is written with: the words of the thread team, and short phrases of code.

The team is one struct of 64-bit words, shared by all callers; words that different threads write
are 128 bytes apart.

    team[MUTEX_LOCK ..]    addresses of libc functions, so that the object has no undefined symbols
    team[SPINS]            pauses before a waiting thread gives way, or an idle worker sleeps
    team[LOCK]             1 while a caller uses the team; another caller then runs alone
    team[JOB]              grows by one when a job is opened (odd) and when it is closed (even)
    team[SEATS]            workers that may still join this job
    team[BLOCK]            the job's block
    team[FINISHED]         leading instructions that are finished, or STOPPED
    team[SLEEPERS]         workers inside the mutex, asleep or about to be
    team[STOP]             1 when workers must return
    team[WORKERS]          workers that have started
    team[MUTEX], [CONDITION]  for idle workers
    team[INSIDE + i * LINE]   1 while worker i may touch the block
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from einkorn.codegen.llvm.text import Value, Writer
from einkorn.ir import program

LINE = 16  # words between words that different threads write: two cache lines, fetched as a pair
(MUTEX_LOCK, MUTEX_UNLOCK, COND_WAIT, COND_SIGNAL, SCHED_YIELD, SPINS) = range(6)
LIBC = (
    "pthread_mutex_lock",
    "pthread_mutex_unlock",
    "pthread_cond_wait",
    "pthread_cond_signal",
    "sched_yield",
)
LOCK, JOB, SEATS, FINISHED, SLEEPERS, STOP, WORKERS = (LINE * line for line in range(1, 8))
BLOCK = SEATS + 1
MUTEX, CONDITION, INSIDE = (LINE * line for line in range(8, 11))
MAX_WORKERS = 255
TEAM_WORDS = INSIDE + LINE * MAX_WORKERS


_X86_DEFAULT = 0x1F80  # MXCSR: all exceptions masked, round to nearest, subnormals kept


@dataclass(frozen=True, slots=True)
class Entry:
    """One instruction as the driver sees it."""

    kernel: Value
    pointers: Value
    params: Value
    work: Value


@dataclass(frozen=True, slots=True)
class Phrases:
    """Pieces of code that several functions of the driver share."""

    w: Writer
    arm: bool

    def word(self, base: Value, index: int | Value) -> Value:
        """The address of a 64-bit word."""
        return self.w.gep("i64", base, self.w.i64(index) if isinstance(index, int) else index)

    def field(self, base: Value, index: int, type: str = "i64") -> Value:
        """Read a word that does not change while it is read."""
        return self.w.load(type, self.word(base, index))

    def read(self, address: Value, order: str) -> Value:
        return self.w.emit("i64", f"load atomic i64, {address} {order}, align 8")

    def write(self, value: Value | int, address: Value, order: str) -> None:
        text = value.text if isinstance(value, Value) else str(value)
        self.w.line(f"store atomic i64 {text}, {address} {order}, align 8")

    def update(self, operation: str, address: Value, value: Value | int, order: str) -> Value:
        """An atomic read-modify-write; the result is the word before it."""
        text = value.text if isinstance(value, Value) else str(value)
        return self.w.emit("i64", f"atomicrmw {operation} {address}, i64 {text} {order}, align 8")

    def exchange(self, address: Value, old: Value, new: Value, order: str) -> Value:
        """Compare and exchange; the result says whether it happened."""
        pair = self.w.emit(
            "{ i64, i1 }", f"cmpxchg {address}, {old}, {new} {order} {order}, align 8"
        )
        return self.w.emit("i1", f"extractvalue {pair}, 1")

    def local(self, start: Value | int) -> Value:
        """A variable on the stack."""
        address = self.w.alloca("i64", align=8)
        self.w.store(self.w.i64(start) if isinstance(start, int) else start, address)
        return address

    def pause(self) -> None:
        if self.arm:
            self.w.call("llvm.aarch64.isb", "void", Value("15", "i32"))
        else:
            self.w.call("llvm.x86.sse2.pause", "void")

    def give_way(self, team: Value, turns: Value) -> None:
        """One turn of a waiting loop: pause at first, then let others run."""
        w = self.w
        turn = w.load("i64", turns)
        with w.if_else(w.icmp("slt", turn, self.field(team, SPINS))) as branches:
            self.pause()
            w.store(w.add(turn, w.i64(1)), turns)
            branches.otherwise()
            w.call_pointer(self.field(team, SCHED_YIELD, "ptr"), "i32")

    def libc(self, team: Value, function: int, *words: int) -> None:
        """Call a libc function on addresses of words of the team."""
        address = self.field(team, function, "ptr")
        self.w.call_pointer(address, "i32", *(self.word(team, word) for word in words))

    @contextmanager
    def default_floats(self) -> Generator[None]:
        """Run the body with the default floating-point control register, then restore it."""
        w = self.w
        if self.arm:
            before = w.call("llvm.aarch64.get.fpcr", "i64")
            w.call("llvm.aarch64.set.fpcr", "void", w.i64(0))
            yield
            w.call("llvm.aarch64.set.fpcr", "void", before)
            return
        before, default = w.alloca("i32", align=4), w.alloca("i32", align=4)
        w.store(Value(str(_X86_DEFAULT), "i32"), default)
        w.call("llvm.x86.sse.stmxcsr", "void", before)
        w.call("llvm.x86.sse.ldmxcsr", "void", default)
        yield
        w.call("llvm.x86.sse.ldmxcsr", "void", before)

    def instruction(self, block: Value, index: Value) -> Value:
        """The address of an instruction."""
        table = self.field(block, program.INSTRUCTIONS, "ptr")
        return self.word(table, self.w.mul(index, self.w.i64(program.INSTRUCTION_WORDS)))

    def counters(self, block: Value, index: Value) -> Value:
        """The address of an instruction's counters."""
        table = self.field(block, program.COUNTERS, "ptr")
        return self.word(table, self.w.mul(index, self.w.i64(program.COUNTER_WORDS)))

    def entry(self, instruction: Value) -> Entry:
        return Entry(
            self.field(instruction, program.KERNEL, "ptr"),
            self.field(instruction, program.POINTERS, "ptr"),
            self.field(instruction, program.PARAMS, "ptr"),
            self.field(instruction, program.WORK),
        )

    def launch(self, entry: Entry, begin: Value, end: Value, block: Value) -> None:
        status = self.word(block, program.STATUS)
        self.w.call_pointer(entry.kernel, "void", entry.pointers, entry.params, begin, end, status)

    def own(self, name: str, returns: str, *args: Value) -> Value:
        """Call another function of this module."""
        return self.w.call_pointer(Value(f"@{name}", "ptr"), returns, *args)
