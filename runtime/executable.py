"""A program with addresses: native tables, an arena, and the call.

The tables of one instance serve one call at a time; concurrent calls of one executable take
instances of their own from a pool, so results never mix.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from einkorn.codegen.target import Target
from einkorn.ir import program as layout
from einkorn.ir.errors import IRError
from einkorn.ir.program import ARENA, Program
from einkorn.runtime.team import is_awake, run_function, team_for

ALIGNMENT = 64
NOT_RUN = -1  # the status word until the driver clears it
ALONE_NS = 150_000.0  # a step shorter than this is not worth waking another thread
PAYS = 0.85  # two threads that need more of one thread's time are not worth their use
INTERRUPTS = 8  # how often in a row a commit may be stopped and is tried again
KEEP_GIL_NS = 50_000.0  # releasing and retaking the GIL can cost more than such a step


def aligned_bytes(nbytes: int) -> np.ndarray:
    """Uninitialised bytes that start on a cache line."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


def address_of(values: np.ndarray) -> int:
    """The address of an array's first element."""
    return values.__array_interface__["data"][0]


class _Instance:
    """The native tables and the arena of one call at a time."""

    def __init__(self, program: Program, kernels: Sequence[int]) -> None:
        instructions = program.instructions
        self.arena = aligned_bytes(program.arena_bytes)
        self.slots = array("q", [0] * len(program.slots))
        self.slots[ARENA] = address_of(self.arena)
        operands = [operand for row in instructions for operand in row.operands]
        self.pointers = np.zeros(max(1, len(operands)), np.int64)
        self.params = np.array([n for row in instructions for n in row.params] or [0], np.int64)
        self.table = np.zeros((max(1, len(instructions)), layout.INSTRUCTION_WORDS), np.int64)
        self.counters = np.zeros(max(1, len(instructions)) * layout.COUNTER_WORDS + 8, np.int64)
        self._fill_instructions(program, kernels)
        self.binds = np.array(self._binds(operands) or [(0, 0, 0)], np.int64)
        count = sum(operand.slot != ARENA for operand in operands)
        self.block = np.zeros(layout.BLOCK_WORDS, np.int64)
        self.block[layout.COUNT] = len(instructions)
        self.block[layout.INSTRUCTIONS] = address_of(self.table)
        self.block[layout.BINDS] = count
        self.block[layout.BIND_TABLE] = address_of(self.binds)
        self.block[layout.SLOTS] = self.slots.buffer_info()[0]
        start = address_of(self.counters)
        self.block[layout.COUNTERS] = start + -start % ALIGNMENT
        self.address = address_of(self.block)

    def _fill_instructions(self, program: Program, kernels: Sequence[int]) -> None:
        pointers, params = address_of(self.pointers), address_of(self.params)
        for row, instruction, kernel in zip(self.table, program.instructions, kernels):
            row[layout.KERNEL] = kernel
            row[layout.POINTERS] = pointers
            row[layout.PARAMS] = params
            row[layout.WORK] = instruction.work
            row[layout.CHUNK] = max(1, instruction.chunk)
            row[layout.AFTER] = instruction.after
            row[layout.RUN] = instruction.run
            pointers += 8 * len(instruction.operands)
            params += 8 * len(instruction.params)

    def _binds(self, operands: Sequence[layout.Operand]) -> list[tuple[int, int, int]]:
        """Fill the words that point into the arena; list the others for the driver."""
        base, arena = address_of(self.pointers), self.slots[ARENA]
        binds: list[tuple[int, int, int]] = []
        for k, operand in enumerate(operands):
            if operand.slot == ARENA:
                self.pointers[k] = arena + operand.offset
            else:
                binds.append((base + 8 * k, operand.slot, operand.offset))
        return binds


class Executable:
    """A compiled program, ready to be called with addresses."""

    def __init__(self, program: Program, target: Target) -> None:
        self.program = program
        self._kernels = [
            0 if row.kernel is None else target.address(row.kernel) for row in program.instructions
        ]
        self._idle: list[_Instance] = [_Instance(program, self._kernels)]
        released, kept = run_function()
        self._run = kept if program.cost < KEEP_GIL_NS else released

    def run(
        self, addresses: array[int], threads: int, commit: Callable[[], None] | None = None
    ) -> int:
        """Run the program once.

        Args:
            addresses: the base address of every slot but the arena, in slot order.
            threads: how many threads may take part.
            commit: called when the program has run and refused nothing; also when an interrupt
                (Ctrl-C) is waiting to be raised, so that a step is applied whole or not at all.
                It may be called again, when an interrupt stopped it.

        Returns:
            The status word; when it is not zero no state was written.
        """
        try:
            instance = self._idle.pop()
        except IndexError:
            instance = _Instance(self.program, self._kernels)
        if len(addresses) != len(instance.slots) - 1:  # else the table would move in memory
            raise IRError(
                f"{self.program.name} has {len(instance.slots) - 1} slots, got {len(addresses)}"
            )
        instance.slots[1:] = addresses
        block = instance.block
        threads = threads_for(self.program, threads)
        block[layout.THREADS] = threads
        block[layout.TEAM] = team_for(threads) if threads > 1 else 0
        block[layout.STATUS] = NOT_RUN
        try:
            return self._run(instance.address)
        finally:
            if commit is not None and block[layout.STATUS] == 0:
                _complete(commit)
            self._idle.append(instance)


def threads_for(program: Program, wanted: int) -> int:
    """How many threads run a step: all that are wanted, or one where more do not pay."""
    if wanted == 1 or program.shared_cost > PAYS * program.cost:
        return 1
    if program.cost < ALONE_NS and not is_awake(program.cost):
        return 1
    return wanted


def _complete(commit: Callable[[], None]) -> None:
    """Run `commit` to its end; a signal handler's exception that stops it is raised after that."""
    try:
        commit()
    except BaseException:
        for _ in range(INTERRUPTS):
            with suppress(BaseException):
                commit()
                break
        raise
