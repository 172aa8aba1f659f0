"""The native driver: runs a program's instruction table, alone or with a team of threads.

The blocks that it reads are laid out in `einkorn.ir.program`, the team in `driver_phrases`.

How threads meet. There are no barriers: a thread claims pieces of a unit (an instruction, or
several that run as one) from its counter `next`, and counts what it ran in `done`. Whoever
completes a unit moves FINISHED forward; a unit may start when FINISHED reaches its AFTER. A thread
looks for work from FINISHED on, at most WINDOW units ahead, but not past a commit point. So a
worker that is late or was put aside by the system delays nobody, unless it holds claimed pieces.
FINISHED passes a commit point by one compare-exchange, which is therefore the single decision to go
on or to stop.

`next` counts the pieces that were claimed from the front, by the caller and half of the workers,
and in its upper half those claimed from the back, by the others. So a thread finds in its cache
what it left there: in the unit before, and in the step before. An instruction may be the caller's
alone; workers go past it as past one that waits for others.

How a job ends. A worker raises its INSIDE word and then looks at JOB; the caller changes JOB and
then looks at the INSIDE words. All four are sequentially consistent, so either the worker sees that
the job is closed, or the caller sees the worker and waits for it. A worker that waits for an
instruction is not inside. SLEEPERS and JOB exclude a lost wake-up in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

from einkorn.codegen.llvm.driver_phrases import (
    BLOCK,
    COND_SIGNAL,
    COND_WAIT,
    CONDITION,
    FINISHED,
    INSIDE,
    JOB,
    LINE,
    LOCK,
    MUTEX,
    MUTEX_LOCK,
    MUTEX_UNLOCK,
    SEATS,
    SLEEPERS,
    SPINS,
    STOP,
    WORKERS,
    Phrases,
)
from einkorn.codegen.llvm.text import Value, Writer
from einkorn.ir import program

STOPPED = 1 << 62  # more than any number of instructions
NEXT, DONE = 0, 8  # words of a unit's counters
BACK = 32  # the bit of `next` where the pieces claimed from the back are counted
MOST_PIECES = 1 << 28  # of one instruction
FRONT, REAR, CALLING = range(3)  # how a thread claims: from which end, and as whom
WINDOW = 12  # units beyond the first that is not finished


def driver_text(triple: str) -> str:
    """The module of `i64 run(ptr block)`, `ptr worker(ptr team)` and `void pause(i64 times)`."""
    w = Writer()
    driver = _Driver(w, triple.startswith(("aarch64", "arm64")))
    driver.pause_function()
    driver.pieces_function()
    driver.advance_function()
    driver.claim_function()
    driver.help_function()
    driver.alone_function()
    driver.together_function()
    driver.run_function()
    driver.take_part_function()
    driver.worker_function()
    return w.module()


@dataclass(frozen=True, slots=True)
class _Driver(Phrases):
    """Writes the functions of the driver; each method is one of them or a part of one."""

    def pause_function(self) -> None:
        """`void pause(i64 times)`: for measuring how long a pause takes."""
        with self.w.function("pause", [("i64", "times")]) as (times,):
            with self.w.loop(self.w.i64(0), times):
                self.pause()

    def units(self, instruction: Value) -> Value:
        """How many instructions run as one from this one on; a table may leave the word 0."""
        w = self.w
        run = self.field(instruction, program.RUN)
        return w.select(w.icmp("sgt", run, w.i64(1)), run, w.i64(1))

    def chunk(self, instruction: Value, work: Value) -> Value:
        """Items of a piece: at least one, and so many that pieces can be counted in half a word."""
        w = self.w
        chunk = self.field(instruction, program.CHUNK)
        least = w.add(w.lshr(work, w.i64(MOST_PIECES.bit_length() - 1)), w.i64(1))
        return w.select(w.icmp("sgt", chunk, least), chunk, least)

    def pieces_function(self) -> None:
        """`i64 pieces(ptr instruction)`: the pieces of the unit that starts here."""
        w = self.w
        with w.function("pieces", [("ptr", "instruction")], "i64") as (instruction,):
            work = self.field(instruction, program.WORK)
            chunk = self.chunk(instruction, work)
            found = w.add(w.binary("sdiv", w.sub(work, w.i64(1)), chunk), w.i64(1))
            found = w.select(w.icmp("sgt", work, w.i64(0)), found, w.i64(0))
            several = w.icmp("sgt", self.field(instruction, program.RUN), w.i64(1))
            w.ret(w.select(several, w.i64(1), found))

    def advance_function(self) -> None:
        """`void advance(ptr team, ptr block)`: move FINISHED over all that is finished.

        Called after each completion. Nothing is missed: of two units completed at the same time,
        the thread whose `done` comes second in the total order sees the other's.
        """
        w = self.w
        with w.function("advance", [("ptr", "team"), ("ptr", "block")]) as (team, block):
            finished = self.word(team, FINISHED)
            count = self.field(block, program.COUNT)
            following = self.local(0)
            with w.while_() as loop:
                index = self.read(finished, "seq_cst")
                loop.leave_unless(w.icmp("slt", index, count))
                instruction = self.instruction(block, index)
                kernel = self.field(instruction, program.KERNEL)
                w.store(w.add(index, self.units(instruction)), following)
                with w.if_else(w.icmp("eq", kernel, w.i64(0))) as branches:
                    status = self.read(self.word(block, program.STATUS), "monotonic")
                    with w.if_(w.icmp("ne", status, w.i64(0))):
                        w.store(w.i64(STOPPED), following)
                    branches.otherwise()
                    done = self.read(self.word(self.counters(block, index), DONE), "seq_cst")
                    pieces = self.own("pieces", "i64", instruction)
                    loop.leave_unless(w.icmp("sge", done, pieces))
                self.exchange(finished, index, w.load("i64", following), "seq_cst")

    def help_function(self) -> None:
        """`i64 help(ptr team, ptr block, i64 way)`: run what can be claimed now.

        Gives what FINISHED must reach before there can be more, or the number of instructions when
        nothing is left to claim.
        """
        w = self.w
        params = [("ptr", "team"), ("ptr", "block"), ("i64", "way")]
        with w.function("help", params, "i64") as (team, block, way):
            count = self.field(block, program.COUNT)
            wanted, at, claimed, seen, waiting = (self.local(0) for _ in range(5))
            with w.while_() as loop:
                reached = self.read(self.word(team, FINISHED), "acquire")
                over = w.icmp("sge", reached, count)
                w.store(w.select(over, count, w.add(reached, w.i64(1))), wanted)
                loop.leave_unless(w.not_(over))
                w.store(reached, at)
                for variable in (claimed, seen, waiting):
                    w.store(w.i64(0), variable)
                self.look((team, block, way), reached, (wanted, at, claimed, seen, waiting))
                loop.leave_unless(w.icmp("ne", w.load("i64", claimed), w.i64(0)))
            w.ret(w.load("i64", wanted))

    def look(self, params: tuple[Value, ...], reached: Value, variables: tuple[Value, ...]) -> None:
        """Go through the units from `reached` on until one gives something to run."""
        w = self.w
        team, block, way = params
        wanted, at, claimed, seen, waiting = variables
        count = self.field(block, program.COUNT)
        with w.while_() as loop:
            index = w.load("i64", at)
            with w.if_(w.icmp("sge", index, count)):  # all is claimed, or will be by others
                idle = w.icmp("eq", w.load("i64", waiting), w.i64(0))
                w.store(w.select(idle, count, w.load("i64", wanted)), wanted)
            loop.leave_unless(w.icmp("slt", index, count))
            units = w.load("i64", seen)
            loop.leave_unless(w.icmp("slt", units, w.i64(WINDOW)))
            w.store(w.add(units, w.i64(1)), seen)
            instruction = self.instruction(block, index)
            # A commit point is passed by `advance` alone, and nothing behind it is looked at.
            loop.leave_unless(w.icmp("ne", self.field(instruction, program.KERNEL), w.i64(0)))
            w.store(w.add(index, self.units(instruction)), at)
            taken, pieces = self.taken(block, index), self.own("pieces", "i64", instruction)
            with w.if_(w.icmp("slt", taken, pieces)):
                after = self.field(instruction, program.AFTER)
                others = w.icmp("eq", self.field(instruction, program.CALLER), w.i64(0))
                mine = w.icmp("eq", way, w.i64(CALLING))
                allowed = w.or_(others, mine)
                with w.if_else(w.and_(w.icmp("sge", reached, after), allowed)) as branches:
                    self.own("claim", "void", team, block, index, way)
                    w.store(w.i64(1), claimed)
                    branches.otherwise()
                    w.store(w.i64(1), waiting)
            loop.leave_unless(w.icmp("eq", w.load("i64", claimed), w.i64(0)))

    def taken(self, block: Value, index: Value) -> Value:
        """How many pieces of a unit are claimed; a look that keeps the line shared."""
        w = self.w
        word = self.read(self.word(self.counters(block, index), NEXT), "monotonic")
        return w.add(*self.halves(word))

    def halves(self, word: Value) -> tuple[Value, Value]:
        """The pieces claimed from the front and from the back."""
        w = self.w
        return w.and_(word, w.i64((1 << BACK) - 1)), w.lshr(word, w.i64(BACK))

    def claim_function(self) -> None:
        """`void claim(ptr team, ptr block, i64 index, i64 way)`: run pieces until none is left."""
        w = self.w
        params = [("ptr", "team"), ("ptr", "block"), ("i64", "index"), ("i64", "way")]
        with w.function("claim", params) as (team, block, index, way):
            instruction, counters = self.instruction(block, index), self.counters(block, index)
            pieces, work = self.own("pieces", "i64", instruction), self.entry(instruction).work
            chunk = self.chunk(instruction, work)
            chunk = w.select(w.icmp("eq", pieces, w.i64(1)), work, chunk)
            from_back = w.icmp("eq", way, w.i64(REAR))
            one = w.select(from_back, w.i64(1 << BACK), w.i64(1))
            following, done = self.word(counters, NEXT), self.word(counters, DONE)
            with w.while_() as loop:
                loop.leave_unless(w.icmp("slt", self.taken(block, index), pieces))
                before = self.update("add", following, one, "monotonic")
                front, rear = self.halves(before)
                loop.leave_unless(w.icmp("slt", w.add(front, rear), pieces))
                last = w.sub(w.sub(pieces, w.i64(1)), rear)
                begin = w.mul(w.select(from_back, last, front), chunk)
                self.run_piece(block, index, begin, chunk)
                before = self.update("add", done, 1, "seq_cst")
                with w.if_(w.icmp("eq", w.add(before, w.i64(1)), pieces)):
                    self.own("advance", "void", team, block)

    def run_piece(self, block: Value, index: Value, begin: Value, chunk: Value) -> None:
        """Run one piece of an instruction, and the rest of its unit."""
        w = self.w
        instruction = self.instruction(block, index)
        entry = self.entry(instruction)
        end = w.add(begin, chunk)
        end = w.select(w.icmp("slt", end, entry.work), end, entry.work)
        self.launch(entry, begin, end, block)
        with w.loop(w.i64(1), self.units(instruction)) as each:
            rest = self.entry(self.instruction(block, w.add(index, each.index)))
            self.launch(rest, w.i64(0), rest.work, block)

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
            turns = self.local(0)
            job, finished = self.word(team, JOB), self.word(team, FINISHED)
            count = self.field(block, program.COUNT)
            self.open_job(team, block)
            with w.while_() as loop:
                wanted = self.own("help", "i64", team, block, w.i64(CALLING))
                w.store(w.i64(0), turns)
                with w.while_() as wait:
                    reached = self.read(finished, "acquire")
                    wait.leave_unless(w.icmp("slt", reached, wanted))
                    self.give_way(team, turns)
                loop.leave_unless(w.icmp("slt", self.read(finished, "acquire"), count))
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
        count, at = self.field(block, program.COUNT), self.local(0)
        with w.while_() as loop:
            index = w.load("i64", at)
            loop.leave_unless(w.icmp("slt", index, count))
            counters = self.counters(block, index)
            self.write(0, self.word(counters, NEXT), "monotonic")
            self.write(0, self.word(counters, DONE), "monotonic")
            w.store(w.add(index, self.units(self.instruction(block, index))), at)
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
        """`void take_part(ptr team, ptr inside, i64 job, i64 way)`: a worker's share of a job."""
        w = self.w
        params = [("ptr", "team"), ("ptr", "inside"), ("i64", "number"), ("i64", "way")]
        with w.function("take_part", params) as (team, inside, number, way):
            job, finished = self.word(team, JOB), self.word(team, FINISHED)
            seats = self.word(team, SEATS)
            turns, seated = self.local(0), self.local(0)
            with w.while_() as loop:
                self.update("xchg", inside, 1, "seq_cst")
                loop.leave_unless(w.icmp("eq", self.read(job, "seq_cst"), number))
                with w.if_(w.icmp("eq", w.load("i64", seated), w.i64(0))):
                    free = self.update("sub", seats, 1, "monotonic")
                    loop.leave_unless(w.icmp("sgt", free, w.i64(0)))
                    w.store(w.i64(1), seated)
                block = self.field(team, BLOCK, "ptr")
                wanted = self.own("help", "i64", team, block, way)
                loop.leave_unless(w.icmp("slt", wanted, self.field(block, program.COUNT)))
                self.write(0, inside, "release")
                w.store(w.i64(0), turns)
                with w.while_() as wait:
                    wait.leave_unless(w.icmp("slt", self.read(finished, "acquire"), wanted))
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
            way = w.sub(w.i64(REAR), w.and_(own, w.i64(1)))  # FRONT or REAR
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
                    self.own("take_part", "void", team, inside, number, way)
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
