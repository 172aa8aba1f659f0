"""The call of a trace: tables that stay filled from one call to the next, and the commit.

A `BoundCall` has the addresses of captured leaves in its tables and is told when one of them is no
longer right: each leaf knows who bound it. A call then writes what belongs to it alone: its
arguments, the settings that the trace read, its outputs. `Calls` keeps the bound calls that are
not in use, for several threads call one trace at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

from einkorn.arguments import Arguments
from einkorn.ir.errors import BoundsError
from einkorn.ir.loops import Gather, Scatter
from einkorn.ir.program import ARENA, STATUS_CHECK, Program
from einkorn.ir.types import TensorType
from einkorn.leaf import Leaf, Storage, check_free, kept_still
from einkorn.runtime.compiler import compile_graph
from einkorn.runtime.executable import Executable
from einkorn.runtime.memory import WORD, address_of
from einkorn.runtime.outputs import Outputs
from einkorn.step import Step, captured_value

Array = np.ndarray[Any, Any]

MSG_STEP_BOUNDS = (
    "{name}: an index is out of range in one of these: {places}. Every index must be at least -n "
    "and less than n for an axis of n elements; ek.clip them, or choose with ek.where. The step "
    "was not applied, no state changed."
)


_NOTHING = nullcontext()


class Calls:
    """The compiled calls of a step, as many as there are threads that make one."""

    def __init__(self, step: Step, backend: str) -> None:
        self._step = step
        self._executable = compile_graph(step.graph, backend)
        self._slots = _Slots(step, self._executable.program)
        self._idle: list[BoundCall] = []

    @property
    def program(self) -> Program:
        """What is run."""
        return self._executable.program

    def call(self, arguments: Arguments, threads: int) -> list[Array] | None:
        """Run the step and commit it: the arrays of its outputs."""
        return self.run(arguments.words(), threads)

    def run(self, words: Sequence[Any], threads: int) -> list[Array] | None:
        """Run the step and commit it: the arrays of its outputs; None when a branch goes elsewhere.

        Args:
            words: for each end of the arguments its address or number; 0 for what is static.
            threads: how many threads may take part.
        """
        try:
            call = self._idle.pop()
        except IndexError:
            call = BoundCall(self._step, self._slots, self._executable)
        arrays = call.run(words, threads)
        failure, call.failure = call.failure, None
        self._idle.append(call)  # an exception may have left it half changed
        if failure is not None:
            raise failure
        return arrays


class _Slots:
    """Where the operands and results of a step are in the table of slots.

    Attributes:
        inputs: the slots of the arguments that are not static.
        leaves: each captured leaf, with its slot.
        arrays: captured tensors and gradients; they are looked at in each call.
        settings: captured settings and numbers in attributes, with their slots.
        reads_state: whether attributes are read that other steps write.
        in_place: the leaves that are written over, with the slots of the old and the new value.
        swapped: the same for leaves whose new value needs storage of its own.
        first_output: the slot of the first output.
        kept: the ids of the leaves, if functions of the user run in the middle of the step.
    """

    def __init__(self, step: Step, program: Program) -> None:
        places = iter(range(ARENA + 1, len(program.slots)))
        self.inputs = [next(places) for _ in step.graph.inputs]
        captures = [(next(places), capture) for capture in step.captures]
        slot_of = {x.source: slot for slot, x in captures if x.kind == "leaf"}
        self.leaves = list(slot_of.items())
        arrays, numbers = ("value", "grad", "attribute"), ("setting", "number")
        self.arrays = [(slot, x) for slot, x in captures if x.kind in arrays]
        self.settings = [(slot, x) for slot, x in captures if x.kind in numbers]
        self.reads_state = any(x.kind in ("number", "attribute") for _, x in captures)
        outputs = [next(places) for _ in step.graph.outputs]
        self.first_output = outputs[0] if outputs else 0
        updates = [(leaf, slot_of[leaf], next(places)) for leaf in step.updated]
        self.in_place = [row for k, row in enumerate(updates) if k in program.in_place]
        self.swapped = [row for k, row in enumerate(updates) if k not in program.in_place]
        calls_user = any(row.calls_user for row in program.instructions)
        self.kept = frozenset(leaf.id for leaf in slot_of) if calls_user else frozenset[int]()
        if calls_user:  # they may look at the old values, and keep them
            self.in_place, self.swapped = [], updates
        self.changing = frozenset(
            (
                *self.inputs,
                *outputs,
                *(slot for slot, _ in self.arrays),
                *(slot for _, *both in self.swapped for slot in both),
            )
        )


class BoundCall:
    """The tables of a step, for one call at a time.

    Attributes:
        stale: whether the storage of a leaf was exchanged or lent since it was bound.
        failure: why the last run was refused, when it was not a branch that goes elsewhere.
    """

    def __init__(self, step: Step, known: _Slots, executable: Executable) -> None:
        self.stale = True
        self.failure: BaseException | None = None
        self._step, self._known = step, known
        self._native = executable.instance(known.changing)
        self._program = executable.program
        self._slots = self._native.slots
        # A word for each number, written as what it is; the last is for static arguments.
        self._floats = array("d", [0.0] * (len(known.inputs) + len(known.settings) + 1))
        self._ints = memoryview(self._floats).cast("B").cast("q")
        self._arguments, self._settings = self._places()
        types = [node.tensor for node in step.graph.outputs]
        self._outputs = Outputs(types, self._slots, known.first_output)
        self._sets = bool(step.with_grad or step.cleared or step.writes)
        self._moving: list[tuple[Leaf, int, int]] = []
        self._fresh: list[tuple[Leaf, Storage]] = []
        for leaf, _ in known.leaves:
            leaf._watch(self)

    def _places(self) -> tuple[list[tuple[Any, int]], list[tuple[Any, str, Any, int]]]:
        """The table and place of each argument's word, and of each setting, with who has it.

        The slot of an array gets its address at each call, that of a number has one for good.
        """
        known, base = self._known, self._floats.buffer_info()[0]
        inputs, words = iter(known.inputs), iter(range(len(self._floats) - 1))
        arguments: list[tuple[Any, int]] = []
        for kind in self._step.kinds:
            if isinstance(kind, TensorType):
                arguments.append((self._slots, next(inputs)))
            elif isinstance(kind, str):
                place = next(words)
                self._slots[next(inputs)] = base + WORD * place
                arguments.append((self._floats if kind == "float" else self._ints, place))
            else:
                arguments.append((self._ints, -1))
        settings: list[tuple[Any, str, Any, int]] = []
        for slot, capture in known.settings:
            place, source = next(words), capture.source
            self._slots[slot] = base + WORD * place
            table = self._floats if capture.node.dtype.is_float else self._ints
            settings.append((source.held, source.name, table, place))
        return arguments, settings

    def run(self, words: Sequence[Any], threads: int) -> list[Array] | None:
        """Run the step and commit it: the arrays of its outputs; None when a branch goes elsewhere.

        What else refused then counts for nothing: it was computed for another outcome.
        """
        check_free(self._step.updated)
        if self._known.reads_state and not self._step.reads_fit():
            return None
        if self.stale:
            self._rebind()
        for word, (table, place) in zip(words, self._arguments):
            table[place] = word
        for held, name, table, place in self._settings:
            table[place] = held().__dict__[name]
        held = self._bind_arrays() if self._known.arrays else None
        arrays = self._outputs.take()
        with kept_still(self._known.kept) if self._known.kept else _NOTHING:
            if self._moving or self._sets:
                self._take_storage()
                status = self._native.run(threads, partial(self._commit, arrays))
                if status:
                    self._give_back()
            else:
                status = self._native.run(threads)
        del held
        if not status:
            return arrays
        if not status & STATUS_CHECK:
            outside = BoundsError(_bounds_message(self._program, self._step.name))
            self.failure = self._native.failure(status) or outside
        return None

    def _rebind(self) -> None:
        """Look up the storage of every leaf again."""
        self.stale = False  # before the look: what happens meanwhile is not lost
        slots, moving = self._slots, [*self._known.swapped]
        for leaf, slot in self._known.leaves:
            slots[slot] = leaf._address
        for row in self._known.in_place:
            leaf, _, slot = row
            if leaf._lent:
                moving.append(row)
                self.stale = True  # in the next call its new storage can be written in place
            else:
                slots[slot] = leaf._address
        self._moving = moving
        self._native.bind_all()

    def _bind_arrays(self) -> list[Array]:
        """Bind captured tensors and gradients; gives what has to stay alive during the call."""
        held: list[Array] = []
        for slot, capture in self._known.arrays:
            dense = np.ascontiguousarray(captured_value(capture)._eager())
            self._slots[slot] = address_of(dense)
            held.append(dense)
        return held

    # -- the commit ----------------------------------------------------------------------------

    def _take_storage(self) -> None:
        """Take storage for the leaves that are not written in place in this call."""
        slots, self._fresh = self._slots, []
        for leaf, old, new in self._moving:
            storage = leaf._fresh()
            slots[old], slots[new] = leaf._address, storage[1]
            self._fresh.append((leaf, storage))

    def _give_back(self) -> None:
        for leaf, storage in self._fresh:
            leaf._spare = storage

    def _commit(self, arrays: Sequence[Array]) -> None:
        """Make new values and gradients the leaves' own; once more does no harm.

        Leaves that were written in place have their new value already.
        """
        for leaf, storage in self._fresh:
            leaf._replace(storage, self)
        if self._sets:
            self._step.commit_gradients(arrays)
            self._step.commit_attributes(arrays)


def _bounds_message(program: Program, name: str) -> str:
    rows = [row for _, row in program.walk()]
    found = {
        f"{row.label}, along an axis of {row.params[1]} elements"
        for row in rows
        if isinstance(row.kernel, (Gather, Scatter))
    }
    return MSG_STEP_BOUNDS.format(name=name, places="; ".join(sorted(found)))
