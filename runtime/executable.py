"""A program with addresses: native tables, an arena, and the call.

The tables of one instance serve one call at a time; concurrent calls take instances of their own
from a pool, so results never mix. Addresses stay in the tables until they are exchanged.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

import numpy as np

from einkorn.codegen.target import Target
from einkorn.ir import program as layout
from einkorn.ir.errors import IRError
from einkorn.ir.loops import Branch, HostCall, ScanLoop
from einkorn.ir.program import ARENA, Instruction, Program
from einkorn.runtime.host import HostSite, call_address, first_failure
from einkorn.runtime.memory import ALIGNMENT, address_of, aligned_bytes
from einkorn.runtime.team import is_awake, run_address, run_function, team_for

NOT_RUN = -1  # the status word until the driver clears it
ALONE_NS = 150_000.0  # a step shorter than this is not worth waking another thread
PAYS = 0.85  # two threads that need more of one thread's time are not worth their use
INTERRUPTS = 8  # how often in a row a commit may be stopped and is tried again
KEEP_GIL_NS = 50_000.0  # releasing and retaking the GIL can cost more than such a step

Commit = Callable[[], None]


def threads_for(program: Program, wanted: int) -> int:
    """How many threads run a step: all that are wanted, or one where more do not pay."""
    if wanted == 1 or program.shared_cost > PAYS * program.cost:
        return 1
    if program.cost < ALONE_NS and not is_awake(program.cost):
        return 1
    return wanted


class Instance:
    """The native tables and the arena of one call at a time.

    Attributes:
        arena: the memory of the temporaries.
        slots: the address of each slot; for the caller to fill in, but not to resize.
    """

    def __init__(
        self,
        program: Program,
        kernels: Sequence[int],
        changing: Collection[int] | None = None,
        inner: Sequence[Sequence[Executable]] = (),
        arena: int = 0,
    ) -> None:
        """
        Args:
            program: what to run.
            kernels: the address of the kernel of each instruction.
            changing: the slots whose addresses are exchanged from call to call; after another one
                was, call `bind_all`. None for all.
            inner: the nested programs of each instruction.
            arena: the address of memory for the temporaries, in the arena of another instance.
        """
        instructions = program.instructions
        self._program = program
        self.arena = aligned_bytes(0 if arena else program.arena_bytes)
        self.slots = array("q", [0] * len(program.slots))
        self.slots[ARENA] = arena or address_of(self.arena)
        operands = [operand for row in instructions for operand in row.operands]
        self._pointers = np.zeros(max(1, len(operands)), np.int64)
        self._params = np.array([n for row in instructions for n in row.params] or [0], np.int64)
        self._table = np.zeros((max(1, len(instructions)), layout.INSTRUCTION_WORDS), np.int64)
        self._counters = np.zeros(max(1, len(instructions)) * layout.COUNTER_WORDS + 8, np.int64)
        self._fill_instructions(program, kernels)
        self._inner = self._nested(program, inner)
        self._sites = self._host_sites(program)
        binds = self._binds(operands)
        if changing is not None:
            binds.sort(key=lambda bind: bind[1] not in changing)
        self._all = len(binds)
        self._few = sum(changing is None or bind[1] in changing for bind in binds)
        self._bind_table = np.array(binds or [(0, 0, 0)], np.int64)
        self._block = array("q", [0] * layout.BLOCK_WORDS)
        self._block[layout.COUNT] = len(instructions)
        self._block[layout.INSTRUCTIONS] = address_of(self._table)
        self._block[layout.BIND_TABLE] = address_of(self._bind_table)
        self._block[layout.SLOTS] = self.slots.buffer_info()[0]
        start = address_of(self._counters)
        self._block[layout.COUNTERS] = start + -start % ALIGNMENT
        self._address = self._block.buffer_info()[0]
        released, kept = run_function()
        keeps = program.cost < KEEP_GIL_NS and not program.calls_host
        self._run = kept if keeps else released
        self._settled = False
        self.bind_all()

    def _fill_instructions(self, program: Program, kernels: Sequence[int]) -> None:
        pointers, params = address_of(self._pointers), address_of(self._params)
        first = self._table[0]  # of the unit
        for row, instruction, kernel in zip(self._table, program.instructions, kernels):
            row[layout.KERNEL] = kernel
            row[layout.POINTERS] = pointers
            row[layout.PARAMS] = params
            row[layout.WORK] = instruction.work
            row[layout.CHUNK] = max(1, instruction.chunk)
            row[layout.AFTER] = instruction.after
            row[layout.RUN] = instruction.run
            if instruction.run:
                first = row
            if instruction.calls_user:
                first[layout.CALLER] = 1
            pointers += 8 * len(instruction.operands)
            params += 8 * len(instruction.params)

    def _nested(self, program: Program, inner: Sequence[Sequence[Executable]]) -> list[Instance]:
        """Tables for the nested programs, known to the kernels that run them by their params."""
        made: list[Instance] = []
        at = 0
        for row, parts in zip(program.instructions, inner):
            for k, part in enumerate(parts):
                place = row.operands[-1]
                assert place.slot == ARENA, "nested programs keep their temporaries in the arena"
                nested = part.instance(_changing(row), self.slots[ARENA] + place.offset)
                words = at + 1 + layout.NESTED_WORDS * k
                self._params[at] = run_address()
                self._params[words : words + layout.NESTED_WORDS] = nested.words
                made.append(nested)
            at += len(row.params)
        return made

    def _host_sites(self, program: Program) -> list[HostSite]:
        """What kernels that call the host call, known to them by their params."""
        made: list[HostSite] = []
        at = 0
        for row in program.instructions:
            if isinstance(row.kernel, HostCall):
                site = HostSite(row.kernel, row.label)
                self._params[at + layout.CALL] = call_address()
                self._params[at + layout.SITE] = site.number
                made.append(site)
            at += len(row.params)
        return made

    @property
    def sites(self) -> list[HostSite]:
        """Every call of the host, those of nested programs after the program's own."""
        return [*self._sites, *(site for part in self._inner for site in part.sites)]

    def failure(self, status: int) -> BaseException | None:
        """What a call of the host has raised, if that is why a run gave this status word."""
        if not status & layout.STATUS_HOST:
            return None
        # Without an error it was stopped before there was a place to keep one.
        return first_failure(self.sites) or KeyboardInterrupt()

    @property
    def words(self) -> tuple[int, int, int, int]:
        """What a kernel needs to run this as a nested program (einkorn.ir.program)."""
        return self._address, self.slots.buffer_info()[0], self._all, self._few

    def _binds(self, operands: Sequence[layout.Operand]) -> list[tuple[int, int, int]]:
        """Fill the words that point into the arena; list the others for the driver."""
        base, arena = address_of(self._pointers), self.slots[ARENA]
        binds: list[tuple[int, int, int]] = []
        for k, operand in enumerate(operands):
            if operand.slot == ARENA:
                self._pointers[k] = arena + operand.offset
            else:
                binds.append((base + 8 * k, operand.slot, operand.offset))
        return binds

    def bind_all(self) -> None:
        """Let the next call use the address of every slot, also of those that seldom change."""
        self._block[layout.BINDS] = self._all
        self._settled = False

    def run(self, threads: int, commit: Commit | None = None) -> int:
        """Run the program once.

        Args:
            threads: how many threads may take part.
            commit: called when the program has run and refused nothing; also when an interrupt
                (Ctrl-C) is waiting to be raised, so that a step is applied whole or not at all.
                It may be called again, when an interrupt stopped it.

        Returns:
            The status word; when it is not zero no state was written.
        """
        block = self._block
        threads = threads_for(self._program, threads)
        block[layout.THREADS] = threads
        if threads > 1:
            block[layout.TEAM] = team_for(threads)
        if commit is None:
            status = self._run(self._address)
        else:
            block[layout.STATUS] = NOT_RUN
            try:
                status = self._run(self._address)
                if status == 0:
                    commit()
            except BaseException:  # an interrupt, perhaps on the way into `commit`
                if block[layout.STATUS] == 0:
                    _complete(commit)
                raise
        if not self._settled:
            block[layout.BINDS] = self._few
            self._settled = True
        return status


class Executable:
    """A compiled program, ready to be called with addresses."""

    def __init__(self, program: Program, target: Target) -> None:
        self.program = program
        self._kernels = [
            0 if row.kernel is None else target.address(row.kernel) for row in program.instructions
        ]
        self._inner = [
            [Executable(part, target) for part in row.inner] for row in program.instructions
        ]
        self._idle: list[Instance] = []

    def instance(self, changing: Collection[int] | None = None, arena: int = 0) -> Instance:
        """New tables; see `Instance`."""
        return Instance(self.program, self._kernels, changing, self._inner, arena)

    def run(self, addresses: array[int], threads: int) -> int:
        """Run the program once, on tables of its own.

        Args:
            addresses: the base address of every slot but the arena, in slot order.
            threads: how many threads may take part.

        Returns:
            The status word; when it is not zero no state was written. What a call of the host
            raised is raised again.
        """
        try:
            instance = self._idle.pop()
        except IndexError:
            instance = self.instance()
        slots = instance.slots
        if len(addresses) != len(slots) - 1:  # else the table would move in memory
            raise IRError(f"{self.program.name} has {len(slots) - 1} slots, got {len(addresses)}")
        slots[1:] = addresses
        try:
            status = instance.run(threads)
            if status and (error := instance.failure(status)) is not None:
                raise error
            return status
        finally:
            self._idle.append(instance)


def _changing(row: Instruction) -> Collection[int] | None:
    """The slots of the nested programs of a loop that differ from step to step."""
    if isinstance(row.kernel, Branch):
        return None
    first = 1 + layout.NESTED_WORDS * len(row.inner)
    consts = row.params[first + 2 if isinstance(row.kernel, ScanLoop) else first]
    slots = max(len(part.slots) for part in row.inner)
    return range(ARENA + 1 + consts, slots)


def _complete(commit: Commit) -> None:
    """Run `commit` to its end, again when a signal handler's exception stops it."""
    for _ in range(INTERRUPTS):
        with suppress(BaseException):
            commit()
            break
