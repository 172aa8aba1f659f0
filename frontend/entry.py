"""One trace of a compiled function: when it may be used, and what a call of it gives."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from einkorn.arguments import Arguments
from einkorn.attribute_writes import Written
from einkorn.bound_call import Calls
from einkorn.branches import Taken
from einkorn.captures import Guard
from einkorn.epochs import EPOCHS
from einkorn.ir.errors import SizeError
from einkorn.ir.program import Program
from einkorn.ir.sizes import Size
from einkorn.ir.types import TensorType
from einkorn.padded_arguments import PaddedArguments
from einkorn.padded_step import unpadded
from einkorn.printing import show_lines
from einkorn.python_places import Place
from einkorn.recorded_call import RecordedCalls, calls_of
from einkorn.recording import result
from einkorn.runtime.locks import LOCKS
from einkorn.signature import signature_of
from einkorn.step import Step
from einkorn.surroundings import Surroundings
from einkorn.tensor import Tensor
from einkorn.tracing import Trace
from einkorn.tree import END, unflatten

Array = np.ndarray[Any, Any]
# Whether a gradient is being taken around a call, whether it records, what is collected of what
# hooks add and modules return, and what blocks around it decide.
Mode = tuple[bool, bool, int, Surroundings]

ELSEWHERE: Any = object()  # a call's branches go another way than the trace
OUTPUT: Any = object()  # stands for an output tensor among the ends of what a function returned

MSG_KEPT = (
    "{label} was set while {name} was being traced{where}, to a tensor with an axis that varies in "
    "buckets; keep what has one size, such as a mean over that axis, or return it"
)


@dataclass(frozen=True, slots=True)
class Returned:
    """What a traced function returned.

    Attributes:
        tensors: the ends that are tensors of the trace, then those of attributes.
        count: how many the ends have.
        plain: every end, with OUTPUT in the place of tensors.
        structure: how the ends are nested.
        writes: the attributes that it set.
    """

    tensors: list[Tensor]
    count: int
    plain: list[Any]
    structure: Any
    writes: list[Written]


class Entry:
    """A trace that can be called again while its guards hold.

    Attributes:
        graph: what was traced.
        calls: how often it was called.
        why: why it was made, for people.
        reasons: why numbers are part of it.
        constants: the arrays that are part of it, for people.
    """

    def __init__(
        self,
        trace: Trace,
        returned: Returned,
        arguments: Arguments,
        mode: Mode,
        backend: str,
        why: str,
        constants: Sequence[str] = (),
    ) -> None:
        outputs = returned.tensors
        self.graph, updated, with_grad = trace.finish(outputs)
        self.branches: tuple[Taken, ...] = (
            () if trace.branches is None else tuple(trace.branches.taken)
        )
        step = self._step = Step(
            self.graph,
            arguments.kinds,
            trace.captures,
            updated,
            with_grad,
            trace.cleared_grads,
            len(outputs),
            self.graph.outputs[len(self.graph.outputs) - len(self.branches) :],
            returned.writes,
            trace.name,
        )
        self._lines = trace.lines or []
        self._printed = len(outputs) + len(with_grad)  # the first output that is printed
        self._mode, self.why, self.reasons = mode, why, trace.reasons
        self.constants = constants
        self.calls, self._epoch = 0, EPOCHS.structure
        self._seen = trace.seen.conditions(x.source for x in trace.captures if x.kind == "leaf")
        polled = [Guard(*x.polled) for x in self._seen if x.polled is not None]
        self._guards = [*trace.guards, *polled]
        self._announced = [guard for guard in self._guards if guard.announced]
        self._others = [guard for guard in self._guards if not guard.announced]
        self._reads = trace.reads
        if self._reads is not None:
            self._reads.finish([x.source for x in trace.captures if x.kind == "value"])
        self._as_read = _always if self._reads is None else self._reads.check()
        self._checked = -1  # the epoch of settings in which those announced were seen to hold
        self._specialised = _specialised_arguments(trace, arguments)
        self._plain, self._structure = returned.plain, returned.structure
        self._types = [node.tensor for node in self.graph.outputs]
        self._count_of_outputs = returned.count
        self._lengths = sorted(arguments.lengths) if isinstance(arguments, PaddedArguments) else ()
        self._numbers = [k for k, x in enumerate(outputs[: returned.count]) if x._weak]
        self._is_one = returned.structure is END and returned.count == 1 and not self._numbers
        self._stateful = self._step.stateful
        tracked = [trace.tracks(x) for x in outputs]
        _check_kept(trace.name, returned.writes, self._types)
        for written in returned.writes:
            written.track(tracked)
        self._recorded = RecordedCalls(step, tracked, backend, arguments) if any(tracked) else None
        recorded = self._recorded
        self._calls = recorded.calls if recorded else calls_of(step, backend, arguments)
        quick = recorded is None and isinstance(self._calls, Calls) and not self._lengths
        self._signature = signature_of(arguments, self._specialised) if quick else None

    # -- guards --------------------------------------------------------------------------------

    def words(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], mode: Mode) -> Any:
        """What `run` needs if this trace stands for a call now; also None when that is unclear."""
        signature = self._signature
        if signature is None or mode != self._mode:
            return None
        words = signature.read(args, kwargs)
        return words if words is not None and self._guards_hold() else None

    def holds(self, arguments: Arguments) -> bool:
        """Whether this trace stands for a call with arguments of its kinds now."""
        ends = arguments.ends
        if any(repr(ends[k]) != repr(value) for k, value in self._specialised.items()):
            return False
        return self._guards_hold()

    def _guards_hold(self) -> bool:
        structure, settings = EPOCHS.structure, EPOCHS.settings
        if self._epoch != structure:
            if not all([condition.holds() for condition in self._seen]):
                return False
            self._epoch = structure
        if self._checked != settings:
            if not all([guard.holds() for guard in self._announced]):
                return False
            self._checked = settings
        for guard in self._others:
            if not guard.holds():
                return False
        return self._as_read()

    def why_not(self, arguments: Arguments) -> str:
        """Why this trace cannot be used, for people."""
        for k, value in self._specialised.items():
            if repr(arguments.ends[k]) != repr(value):
                return f"the number {value} became {arguments.ends[k]}: {'; '.join(self.reasons)}"
        failed = [condition.why_not() for condition in self._seen if not condition.holds()]
        failed += [guard.reason for guard in self._guards if not guard.holds()]
        places = [place for place in self._places if not place.holds()]
        failed += [x.why_not() for x in places if x.kind != "changed"]
        failed = failed or [x.why_not() for x in places]
        return "; ".join(failed) or "the arguments differ"

    def changed_numbers(self) -> list[str]:
        """What reads the numbers by name that are others now."""
        return [x.label for x in self._places if x.is_number and not x.holds()]

    @property
    def is_spent(self) -> bool:
        """Whether an object that it was made for is gone, or was exchanged for another one."""
        if any(place.is_gone for place in self._places):
            return True
        if self._epoch == EPOCHS.structure:
            return False
        return any(not x.holds() and not x.may_return for x in self._seen)

    def needs(self) -> Iterable[Any]:
        """The objects that it was made for and does not keep alive; see `is_spent`."""
        held = [x for place in self._places for x in (place.owner, place.value)]
        found = [x() for x in held if type(x) is weakref.ref]
        return [x for x in found if x is not None]

    def conditions(self) -> Iterable[str]:
        """What has to be as it was, for people."""
        yield from (f"{x.name} is from {x.low} to {x.high}" for x in self._lengths)
        yield from map(str, self.branches)
        yield from (guard.reason for guard in self._guards)
        yield from (text for condition in self._seen for text in condition.shown())
        yield from (place.describe() for place in self._places)

    @property
    def _places(self) -> Sequence[Place]:
        return self._reads.places if self._reads is not None else ()

    # -- the call ------------------------------------------------------------------------------

    @property
    def program(self) -> Program | None:
        """What is run; None with the reference."""
        return self._calls.program if isinstance(self._calls, Calls) else None

    @property
    def is_quick(self) -> bool:
        """Whether `words` can ever be other than None."""
        return self._signature is not None

    def run(self, words: Any, threads: int) -> Any:
        """Run the step for the words of its arguments. If it refuses, no state has changed.

        Returns:
            What the function returns; ELSEWHERE when a branch of it goes another way.
        """
        calls: Any = self._calls
        if self._stateful:
            with LOCKS.state:
                arrays = calls.run(words, threads)
        else:
            arrays = calls.run(words, threads)
        return ELSEWHERE if arrays is None else self._wrapped(arrays, self._types)

    def call(self, arguments: Arguments, threads: int) -> Any:
        """The same for arguments of any kind, on at most `threads` threads."""
        if self._recorded is not None:
            tensors, arrays = self._recorded.call(arguments, threads)
            if tensors is None:
                return ELSEWHERE
            self._count(arrays)
            return self._rebuilt(tensors)
        if self._lengths:
            return self._call_padded(arguments, threads)
        with self._step.lock():
            arrays = self._calls.call(arguments, threads)
        return ELSEWHERE if arrays is None else self._wrapped(arrays, self._types)

    def _call_padded(self, arguments: Any, threads: int) -> Any:
        """The same for arguments that are padded."""
        with self._step.lock(), arguments.explained():
            arrays = self._calls.call(arguments.of_call(), threads)
        return (
            ELSEWHERE
            if arrays is None
            else self._wrapped(*unpadded(arguments, arrays, self._types))
        )

    def _count(self, arrays: list[Array]) -> None:
        """Note that a call succeeded, and print what it prints."""
        self.calls += 1
        if self._lines:
            show_lines(self._lines, arrays[self._printed :])

    def _wrapped(self, arrays: list[Array], types: list[TensorType]) -> Any:
        self._count(arrays)
        if self._is_one:
            return result(types[0], arrays[0])
        rows = zip(types[: self._count_of_outputs], arrays)
        return self._rebuilt([result(type, array) for type, array in rows])

    def _rebuilt(self, tensors: list[Any]) -> Any:
        """What the function returned, with these tensors."""
        for k in self._numbers:  # scalars of Python stay numbers of Python
            tensors[k] = tensors[k].item()
        found = iter(tensors)
        ends = [next(found) if x is OUTPUT else x for x in self._plain]
        return unflatten(self._structure, ends)


def _check_kept(name: str, writes: Sequence[Written], types: Sequence[TensorType]) -> None:
    """SizeError when an attribute would keep the padding of a call."""
    for written in writes:
        for k in written.positions:
            if any(isinstance(n, Size) for n in types[k].shape):
                text = MSG_KEPT.format(name=name, label=written.label, where=written.where)
                raise SizeError(text)


def _always() -> bool:
    return True


def _specialised_arguments(trace: Trace, arguments: Arguments) -> dict[int, Any]:
    """The values, by position among the ends, of number arguments whose value the trace needed."""
    positions = [
        k
        for k, kind in enumerate(arguments.kinds)
        if isinstance(kind, TensorType) or (isinstance(kind, str) and trace.outer is None)
    ]
    return {
        position: trace.specialised[node]
        for position, node in zip(positions, trace.inputs)
        if node in trace.specialised
    }
