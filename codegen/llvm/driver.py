"""The native driver: runs a program's instruction table, alone or with a team of threads.

The blocks that it reads are laid out in `einkorn.ir.program`. The team is one struct of 64-bit
words, shared by all callers; words that different threads write are 128 bytes apart.

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

How threads meet. There are no barriers: a thread claims work items of instruction k from its
counter `next`, and adds what it ran to `done`. Whoever completes an instruction moves FINISHED
forward; k may start when FINISHED reaches AFTER[k]. So a worker that is late or was put aside by
the system delays nobody, unless it holds claimed items. FINISHED passes a commit point by one
compare-exchange, which is therefore the single decision to go on or to stop.

How a job ends. A worker raises its INSIDE word and then looks at JOB; the caller changes JOB and
then looks at the INSIDE words. All four are sequentially consistent, so either the worker sees that
the job is closed, or the caller sees the worker and waits for it. A worker that waits for an
instruction is not inside. SLEEPERS and JOB exclude a lost wake-up in the same way.
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

STOPPED = 1 << 62  # more than any number of instructions
NEXT, DONE = 0, 8  # words of an instruction's counters

_X86_DEFAULT = 0x1F80  # MXCSR: all exceptions masked, round to nearest, subnormals kept


def driver_text(triple: str) -> str:
    """The module of `i64 run(ptr block)`, `ptr worker(ptr team)` and `void pause(i64 times)`."""
    w = Writer()
    driver = _Driver(w, triple.startswith(("aarch64", "arm64")))
    driver.pause_function()
    driver.advance_function()
    driver.help_function()
    driver.alone_function()
    driver.together_function()
    driver.run_function()
    driver.take_part_function()
    driver.worker_function()
    return w.module()


@dataclass(frozen=True, slots=True)
class _Entry:
    """One instruction as the driver sees it."""

    kernel: Value
    pointers: Value
    params: Value
    work: Value


@dataclass(frozen=True, slots=True)
class _Driver:
    """Writes the functions of the driver; each method is one of them or a phrase of several."""

    w: Writer
    arm: bool

    # -- phrases -------------------------------------------------------------------------------

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

    def entry(self, instruction: Value) -> _Entry:
        return _Entry(
            self.field(instruction, program.KERNEL, "ptr"),
            self.field(instruction, program.POINTERS, "ptr"),
            self.field(instruction, program.PARAMS, "ptr"),
            self.field(instruction, program.WORK),
        )

    def launch(self, entry: _Entry, begin: Value, end: Value, block: Value) -> None:
        status = self.word(block, program.STATUS)
        self.w.call_pointer(entry.kernel, "void", entry.pointers, entry.params, begin, end, status)

    def needs(self, block: Value, index: Value) -> Value:
        """What FINISHED must reach before instruction `index`; all of them behind the last one.

        A commit point is passed once it is finished itself.
        """
        w = self.w
        count = self.field(block, program.COUNT)
        last = w.sub(count, w.i64(1))
        inside = w.icmp("slt", index, count)
        instruction = self.instruction(block, w.select(inside, index, last))
        kernel = self.field(instruction, program.KERNEL)
        commit = w.icmp("eq", kernel, w.i64(0))
        after = self.field(instruction, program.AFTER)
        need = w.select(commit, w.add(index, w.i64(1)), after)
        return w.select(inside, need, count)

    def own(self, name: str, returns: str, *args: Value) -> Value:
        """Call another function of this module."""
        return self.w.call_pointer(Value(f"@{name}", "ptr"), returns, *args)

    # -- functions -----------------------------------------------------------------------------

    def pause_function(self) -> None:
        """`void pause(i64 times)`: for measuring how long a pause takes."""
        with self.w.function("pause", [("i64", "times")]) as (times,):
            with self.w.loop(self.w.i64(0), times):
                self.pause()

    def advance_function(self) -> None:
        """`void advance(ptr team, ptr block)`: move FINISHED over all that is finished.

        Called after each completion. Nothing is missed: of two instructions completed at the same
        time, the thread whose `done` comes second in the total order sees the other's.
        """
        w = self.w
        with w.function("advance", [("ptr", "team"), ("ptr", "block")]) as (team, block):
            finished = self.word(team, FINISHED)
            count = self.field(block, program.COUNT)
            following = self.local(0)
            with w.while_() as loop:
                index = self.read(finished, "seq_cst")
                loop.leave_unless(w.icmp("slt", index, count))
                entry = self.entry(self.instruction(block, index))
                w.store(w.add(index, w.i64(1)), following)
                with w.if_else(w.icmp("eq", entry.kernel, Value("null", "ptr"))) as branches:
                    status = self.read(self.word(block, program.STATUS), "monotonic")
                    with w.if_(w.icmp("ne", status, w.i64(0))):
                        w.store(w.i64(STOPPED), following)
                    branches.otherwise()
                    done = self.read(self.word(self.counters(block, index), DONE), "seq_cst")
                    loop.leave_unless(w.icmp("sge", done, entry.work))
                self.exchange(finished, index, w.load("i64", following), "seq_cst")

    def help_function(self) -> None:
        """`i64 help(ptr team, ptr block, i64 start)`: run what can be claimed from `start` on.

        Gives the instruction that must be waited for, or the number of instructions when nothing
        is left to claim.
        """
        w = self.w
        params = [("ptr", "team"), ("ptr", "block"), ("i64", "start")]
        with w.function("help", params, "i64") as (team, block, start):
            finished = self.word(team, FINISHED)
            count = self.field(block, program.COUNT)
            at = self.local(start)
            with w.while_() as loop:
                index = w.load("i64", at)
                loop.leave_unless(w.icmp("slt", index, count))
                reached = self.read(finished, "acquire")
                loop.leave_unless(w.icmp("sge", reached, self.needs(block, index)))
                loop.leave_unless(w.icmp("slt", reached, w.i64(STOPPED)))
                kernel = self.field(self.instruction(block, index), program.KERNEL)
                with w.if_(w.icmp("ne", kernel, w.i64(0))):
                    self.claim(team, block, index)
                w.store(w.add(index, w.i64(1)), at)
            over = w.icmp("sge", self.read(finished, "acquire"), w.i64(STOPPED))
            w.ret(w.select(over, count, w.load("i64", at)))

    def claim(self, team: Value, block: Value, index: Value) -> None:
        """Claim and run work items of one instruction until none is left."""
        w = self.w
        instruction, counters = self.instruction(block, index), self.counters(block, index)
        entry, chunk = self.entry(instruction), self.field(instruction, program.CHUNK)
        # At least one item, and no more than all, so that `next` cannot overflow.
        chunk = self.w.select(w.icmp("sgt", chunk, w.i64(0)), chunk, w.i64(1))
        chunk = self.w.select(w.icmp("slt", chunk, entry.work), chunk, entry.work)
        following, done = self.word(counters, NEXT), self.word(counters, DONE)
        with w.while_() as loop:
            # A look before the update keeps the line shared once nothing is left.
            look = self.read(following, "monotonic")
            loop.leave_unless(w.icmp("slt", look, entry.work))
            begin = self.update("add", following, chunk, "monotonic")
            loop.leave_unless(w.icmp("slt", begin, entry.work))
            end = w.add(begin, chunk)
            end = w.select(w.icmp("slt", end, entry.work), end, entry.work)
            self.launch(entry, begin, end, block)
            ran = w.sub(end, begin)
            before = self.update("add", done, ran, "seq_cst")
            with w.if_(w.icmp("eq", w.add(before, ran), entry.work)):
                self.own("advance", "void", team, block)

    def alone_function(self) -> None:
        """`void alone(ptr block)`: run every instruction in the calling thread."""
        w = self.w
        with w.function("alone", [("ptr", "block")]) as (block,):
            count = self.field(block, program.COUNT)
            table = self.field(block, program.INSTRUCTIONS, "ptr")
            at = self.local(0)
            with w.while_() as loop:
                index = w.load("i64", at)
                loop.leave_unless(w.icmp("slt", index, count))
                w.store(w.add(index, w.i64(1)), at)
                step = w.mul(index, w.i64(program.INSTRUCTION_WORDS))
                entry = self.entry(self.word(table, step))
                with w.if_else(w.icmp("ne", entry.kernel, Value("null", "ptr"))) as branches:
                    self.launch(entry, w.i64(0), entry.work, block)
                    branches.otherwise()
                    status = self.field(block, program.STATUS)
                    loop.leave_unless(w.icmp("eq", status, w.i64(0)))

    def together_function(self) -> None:
        """`void together(ptr team, ptr block)`: run as thread 0 of the team, whose lock is held."""
        w = self.w
        with w.function("together", [("ptr", "team"), ("ptr", "block")]) as (team, block):
            turns, at = self.local(0), self.local(0)
            job, finished = self.word(team, JOB), self.word(team, FINISHED)
            count = self.field(block, program.COUNT)
            self.open_job(team, block)
            with w.while_() as loop:
                index = self.own("help", "i64", team, block, w.load("i64", at))
                w.store(index, at)
                loop.leave_unless(w.icmp("slt", self.read(finished, "acquire"), count))
                need = self.needs(block, index)
                w.store(w.i64(0), turns)
                with w.while_() as wait:
                    reached = self.read(finished, "acquire")
                    wait.leave_unless(w.icmp("slt", reached, need))
                    self.give_way(team, turns)
            closed = w.add(self.read(job, "monotonic"), w.i64(1))
            self.write(closed, job, "seq_cst")
            workers = self.read(self.word(team, WORKERS), "seq_cst")
            w.store(w.i64(0), turns)
            with w.loop(w.i64(0), workers) as each:
                inside = self.word(self.word(team, INSIDE), w.mul(each.index, w.i64(LINE)))
                with w.while_() as wait:
                    wait.leave_unless(w.icmp("ne", self.read(inside, "seq_cst"), w.i64(0)))
                    self.give_way(team, turns)
            self.write(0, self.word(team, LOCK), "release")

    def open_job(self, team: Value, block: Value) -> None:
        """Clear the counters, publish the job, and wake sleepers if seats would stay empty."""
        w = self.w
        with w.loop(w.i64(0), self.field(block, program.COUNT)) as each:
            counters = self.counters(block, each.index)
            self.write(0, self.word(counters, NEXT), "monotonic")
            self.write(0, self.word(counters, DONE), "monotonic")
        seats = w.sub(self.field(block, program.THREADS), w.i64(1))
        self.write(seats, self.word(team, SEATS), "monotonic")
        w.store(block, self.word(team, BLOCK))
        self.write(0, self.word(team, FINISHED), "monotonic")
        self.own("advance", "void", team, block)  # over what has no work: nobody completes it
        job = self.word(team, JOB)
        self.write(w.add(self.read(job, "monotonic"), w.i64(1)), job, "seq_cst")
        sleepers = self.read(self.word(team, SLEEPERS), "seq_cst")
        awake = w.sub(self.read(self.word(team, WORKERS), "monotonic"), sleepers)
        empty = w.sub(seats, awake)
        wake = w.select(w.icmp("slt", empty, sleepers), empty, sleepers)
        with w.if_(w.icmp("sgt", wake, w.i64(0))):
            # Through the mutex once: a worker that counted itself and missed the job now waits.
            self.libc(team, MUTEX_LOCK, MUTEX)
            self.libc(team, MUTEX_UNLOCK, MUTEX)
            with w.loop(w.i64(0), wake):
                self.libc(team, COND_SIGNAL, CONDITION)

    def run_function(self) -> None:
        """`i64 run(ptr block)`: fill in the buffers' addresses, run, give the status word."""
        w = self.w
        with w.function("run", [("ptr", "block")], "i64") as (block,):
            shared = self.local(0)
            with self.default_floats():
                w.store(w.i64(0), self.word(block, program.STATUS))
                self.bind(block)
                team = self.field(block, program.TEAM, "ptr")
                several = w.icmp("sgt", self.field(block, program.THREADS), w.i64(1))
                given = w.icmp("ne", team, Value("null", "ptr"))
                with w.if_(w.and_(several, given)):
                    lock = self.word(team, LOCK)
                    taken = self.exchange(lock, w.i64(0), w.i64(1), "acquire")
                    w.store(w.cast("zext", taken, "i64"), shared)
                with w.if_else(w.icmp("ne", w.load("i64", shared), w.i64(0))) as branches:
                    self.own("together", "void", team, block)
                    branches.otherwise()
                    self.own("alone", "void", block)
            w.ret(self.field(block, program.STATUS))

    def bind(self, block: Value) -> None:
        """Fill in the addresses that depend on this call's buffers."""
        w = self.w
        table = self.field(block, program.BIND_TABLE, "ptr")
        slots = self.field(block, program.SLOTS, "ptr")
        with w.loop(w.i64(0), self.field(block, program.BINDS)) as each:
            bind = self.word(table, w.mul(each.index, w.i64(3)))
            base = w.load("i64", self.word(slots, self.field(bind, 1)))
            w.store(w.add(base, self.field(bind, 2)), self.field(bind, 0, "ptr"))

    def take_part_function(self) -> None:
        """`void take_part(ptr team, ptr inside, i64 job)`: a worker's share of one job."""
        w = self.w
        params = [("ptr", "team"), ("ptr", "inside"), ("i64", "number")]
        with w.function("take_part", params) as (team, inside, number):
            job, finished = self.word(team, JOB), self.word(team, FINISHED)
            seats = self.word(team, SEATS)
            turns, at, seated = self.local(0), self.local(0), self.local(0)
            with w.while_() as loop:
                self.update("xchg", inside, 1, "seq_cst")
                loop.leave_unless(w.icmp("eq", self.read(job, "seq_cst"), number))
                with w.if_(w.icmp("eq", w.load("i64", seated), w.i64(0))):
                    free = self.update("sub", seats, 1, "monotonic")
                    loop.leave_unless(w.icmp("sgt", free, w.i64(0)))
                    w.store(w.i64(1), seated)
                block = self.field(team, BLOCK, "ptr")
                start, reached = w.load("i64", at), self.read(finished, "acquire")
                start = w.select(w.icmp("sgt", reached, start), reached, start)
                index = self.own("help", "i64", team, block, start)
                w.store(index, at)
                loop.leave_unless(w.icmp("slt", index, self.field(block, program.COUNT)))
                need = self.needs(block, index)
                self.write(0, inside, "release")
                w.store(w.i64(0), turns)
                with w.while_() as wait:
                    wait.leave_unless(w.icmp("slt", self.read(finished, "acquire"), need))
                    wait.leave_unless(w.icmp("eq", self.read(job, "monotonic"), number))
                    self.give_way(team, turns)
            self.write(0, inside, "release")

    def worker_function(self) -> None:
        """`ptr worker(ptr team)`: take part in jobs; between them spin a while, then sleep."""
        w = self.w
        with w.function("worker", [("ptr", "team")], "ptr") as (team,):
            job, stop = self.word(team, JOB), self.word(team, STOP)
            own = self.update("add", self.word(team, WORKERS), 1, "seq_cst")
            inside = self.word(self.word(team, INSIDE), w.mul(own, w.i64(LINE)))
            seen, turns = self.local(0), self.local(0)
            with self.default_floats(), w.while_() as loop:
                w.store(w.i64(0), turns)
                with w.while_() as idle:
                    last = w.load("i64", seen)
                    idle.leave_unless(w.icmp("eq", self.read(job, "monotonic"), last))
                    turn = w.load("i64", turns)
                    idle.leave_unless(w.icmp("slt", turn, self.field(team, SPINS)))
                    w.store(w.add(turn, w.i64(1)), turns)
                    self.pause()
                last = w.load("i64", seen)
                with w.if_(w.icmp("eq", self.read(job, "monotonic"), last)):
                    self.sleep(team, last)
                loop.leave_unless(w.icmp("eq", self.read(stop, "monotonic"), w.i64(0)))
                number = self.read(job, "acquire")
                w.store(number, seen)
                opened = w.icmp("ne", w.and_(number, w.i64(1)), w.i64(0))
                with w.if_(opened):
                    self.own("take_part", "void", team, inside, number)
            w.ret(Value("null", "ptr"))

    def sleep(self, team: Value, last: Value) -> None:
        """Wait in the system until a job follows job number `last`, or the team stops."""
        w = self.w
        job, stop, sleepers = (self.word(team, word) for word in (JOB, STOP, SLEEPERS))
        self.libc(team, MUTEX_LOCK, MUTEX)
        self.update("add", sleepers, 1, "seq_cst")
        with w.while_() as wait:
            wait.leave_unless(w.icmp("eq", self.read(job, "seq_cst"), last))
            wait.leave_unless(w.icmp("eq", self.read(stop, "seq_cst"), w.i64(0)))
            self.libc(team, COND_WAIT, CONDITION, MUTEX)
        self.update("sub", sleepers, 1, "seq_cst")
        self.libc(team, MUTEX_UNLOCK, MUTEX)
