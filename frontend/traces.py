"""The traces of one compiled function: which one fits a call, how many there may be, and why.

A trace is found by the kinds of the arguments and then by its guards. When none fits, the function
is traced anew; how often that may happen silently is the function's policy.
"""

from __future__ import annotations

import warnings
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from einkorn.arguments import Arguments, is_gone, objects_of
from einkorn.branches import MAX_BRANCHES, too_many
from einkorn.convert import as_choice, as_int
from einkorn.entry import Entry
from einkorn.explanation import Explanation, TraceReport
from einkorn.ir.errors import EinkornError, TraceError
from einkorn.ir.sizes import has_size
from einkorn.ir.types import TensorType
from einkorn.recording import user_frame

POLICIES = ("allow", "warn", "error")
MAX_TRACES = 256  # traces that a compiled function keeps unless told otherwise
MANY = 8  # retraces after which a function without a policy warns
QUICK = 4  # traces that are looked at before the arguments of a call are flattened
REASONS = 32  # reasons of retraces that are remembered

MSG_RETRACE = "{name} is traced again: {why}"
MSG_MANY = (
    "{name} has been traced {count} times; each trace costs milliseconds and more. The last "
    "reasons: {reasons}. Pass what changes as an argument (numbers and arrays among arguments do "
    "not lead to new traces), keep shapes equal, or say @ek.compile(on_retrace='allow')"
)
MSG_VARYING = " (ek.compile(buckets={option}) makes one trace for many sizes)"
MSG_NUMBER = (
    "{name} was traced again because {label} is another number for the second time; pass it as an "
    "argument of {name}, where a new value never leads to a new trace"
)
AROUND = (
    "the same kinds of arguments under something else: no_grad, a derivative, a collector, "
    "training_context or random.use"
)
MSG_REFUSED = (
    "{name} would have to be traced again, which on_retrace='error' forbids: {why}. Nothing was run"
)


class RetraceWarning(UserWarning):
    """A compiled function is traced more often than its user may want."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What happens when a function is traced again.

    Attributes:
        on_retrace: "allow", "warn" (each time) or "error"; None warns once, after many.
        max_traces: how many traces are kept; the one unused for longest makes room.
    """

    on_retrace: str | None = None
    max_traces: int = MAX_TRACES

    def checked(self) -> Policy:
        """The policy itself; an EinkornError when it makes no sense."""
        if self.on_retrace is not None:
            as_choice("compile", "on_retrace", self.on_retrace, POLICIES)
        if as_int("compile", self.max_traces, "max_traces is a number of traces") < 1:
            raise EinkornError(f"compile: max_traces is at least 1, got {self.max_traces}")
        return self


class Traces:
    """What one compiled function has traced.

    Several threads use it at once, and a trace is dropped at the moment when an object that it was
    made for is gone, which can be any. So each of its dicts is changed by single operations, and
    nothing is taken for granted between two of them; what gets lost then is a trace, made again.

    Attributes:
        quick: the traces used lately for calls with flat arguments.
    """

    def __init__(self, name: str, policy: Policy, parameters: Sequence[str] = ()) -> None:
        self.quick: tuple[Entry, ...] = ()
        self._name, self._policy, self._parameters = name, policy, parameters
        self._by_kind: dict[Any, dict[Entry, None]] = {}  # the newest at the end
        self._used: dict[Entry, Any] = {}  # each with its key, the one used last at the end
        self._seconds: dict[Entry, tuple[float, float]] = {}
        self._watched: dict[Entry, list[weakref.ref[Any]]] = {}  # what each was made for
        self._made = 0
        self._numbers: Counter[str] = Counter()
        self._reasons: deque[str] = deque(maxlen=REASONS)

    def fitting(self, key: Any, arguments: Arguments) -> Iterator[Entry]:
        """The traces that stand for a call with these arguments now, but for their branches."""
        return (entry for entry in self._of(key) if entry.holds(arguments))

    def _of(self, key: Any) -> list[Entry]:
        """The traces for a key, the newest first."""
        return list(self._by_kind.get(key, ()))[::-1]

    def used(self, key: Any, entry: Entry) -> None:
        """Note that a trace was used."""
        used = self._used
        if used.pop(entry, None) is not None:
            used[entry] = key
            if entry.is_quick and entry not in self.quick[:1]:
                rest = [x for x in self.quick if x is not entry]
                self.quick = (entry, *rest[: QUICK - 1])

    def why(self, key: Any, arguments: Arguments) -> str:
        """Why a new trace is needed; raises or warns where the policy says so."""
        if not self._made:
            return "first call"
        entries = self._of(key)
        elsewhere = [entry for entry in entries if entry.holds(arguments)]
        if len(elsewhere) >= MAX_BRANCHES:
            raise too_many(self._name, [x for entry in elsewhere for x in entry.branches])
        if elsewhere:
            why = f"a branch went another way: not {elsewhere[0].branches[-1]}"
        elif not entries and any(known[0] == key[0] for known in list(self._by_kind)):
            why = AROUND
        elif not entries:
            why = f"new kinds of arguments: {arguments.describe()}{self._varying(arguments)}"
        else:
            why = entries[0].why_not(arguments)
        if self._policy.on_retrace == "error":
            raise TraceError(MSG_REFUSED.format(name=self._name, why=why))
        self._reasons.append(why)
        self._warn(why, entries)
        return why

    def _varying(self, arguments: Arguments) -> str:
        """The axes that alone differ from those of a trace, and what makes one trace of both."""
        labels = arguments.labels(self._parameters)
        for key in list(self._by_kind):
            (structure, kinds, _), *_ = key
            if structure == arguments.structure:
                axes = varying_axes(kinds, arguments.kinds)
                if axes:
                    option = {labels[k]: dict.fromkeys(found, "pow2") for k, found in axes.items()}
                    return MSG_VARYING.format(option=option)
        return ""

    def _warn(self, why: str, entries: Sequence[Entry]) -> None:
        policy, retraces = self._policy.on_retrace, self._made
        if policy == "allow":
            return
        text = ""
        if policy == "warn":
            text = MSG_RETRACE.format(name=self._name, why=why)
        elif retraces == MANY:
            listed = "; ".join(dict.fromkeys(list(self._reasons)[-4:]))
            text = MSG_MANY.format(name=self._name, count=retraces, reasons=listed)
        numbers = entries[0].changed_numbers() if entries else ()
        self._numbers.update(numbers)
        for label in numbers:
            if self._numbers[label] == 2:
                text = MSG_NUMBER.format(name=self._name, label=label)
        if text:
            _warn_user(text)

    def add(self, key: Any, entry: Entry, seconds: tuple[float, float]) -> None:
        """Keep a new trace.

        Args:
            key: the kinds of arguments that it is for.
            entry: the trace.
            seconds: what tracing and compiling took.
        """
        self.quick = ()
        self._made += 1
        for old in list(self._used):
            if old.is_spent or is_gone(self._used.get(old)):
                self._drop(old)
        while len(oldest := list(self._used)) >= self._policy.max_traces:
            self._drop(oldest[0])
        self._seconds[entry], self._used[entry] = seconds, key
        self._by_kind.setdefault(key, {})[entry] = None
        drop = _dropping(self, entry)
        needed = {id(x): x for x in (*entry.needs(), *objects_of(key))}
        self._watched[entry] = [weakref.ref(x, drop) for x in needed.values()]

    def _drop(self, entry: Entry) -> None:
        self.quick = tuple(x for x in self.quick if x is not entry)
        key = self._used.pop(entry, None)
        for table in (self._seconds, self._watched):
            table.pop(entry, None)
        rest = self._by_kind.get(key)
        if rest is not None:
            rest.pop(entry, None)
            if not rest:
                self._by_kind.pop(key, None)

    def clear(self) -> None:
        """Forget every trace."""
        self.quick = ()
        self._by_kind, self._used, self._seconds, self._watched = {}, {}, {}, {}

    def explain(self) -> Explanation:
        """What was traced, why, when each trace can be used, and what it cost."""
        keys = list(self._by_kind)
        reports = [self._report(x) for key in keys for x in self._of(key)]
        return Explanation(self._name, tuple(reports), self._made, tuple(self._reasons))

    def _report(self, entry: Entry) -> TraceReport:
        traced, compiled = (1e3 * seconds for seconds in self._seconds.get(entry, (0.0, 0.0)))
        program = entry.program
        return TraceReport(
            entry.why,
            len(entry.graph.nodes),
            entry.calls,
            tuple(entry.reasons),
            tuple(dict.fromkeys(entry.conditions())),
            tuple(entry.constants),
            traced,
            compiled,
            None if program is None else len(program.instructions),
            None if program is None else len(program.kernels),
            None if program is None else program.arena_bytes,
        )


def varying_axes(old: Sequence[Any], new: Sequence[Any]) -> dict[int, list[int]]:
    """The axes of arguments, by position, that differ where nothing else does; none otherwise."""
    found: dict[int, list[int]] = {}
    if any(has_size(x.shape) for x in new if isinstance(x, TensorType)):
        return {}  # they are declared to vary
    for k, (before, now) in enumerate(zip(old, new)):
        if before == now:
            continue
        both = isinstance(before, TensorType) and isinstance(now, TensorType)
        if not both or before.dtype is not now.dtype or before.rank != now.rank:
            return {}
        rows = enumerate(zip(before.shape, now.shape))
        found[k] = [axis for axis, (a, b) in rows if a != b]
    return found


def _dropping(traces: Traces, entry: Entry) -> Callable[[Any], None]:
    """What drops a trace when an object is gone, and keeps neither alive."""
    owner, known = weakref.ref(traces), weakref.ref(entry)

    def drop(_: Any) -> None:
        found, old = owner(), known()
        if found is not None and old is not None:
            found._drop(old)

    return drop


def _warn_user(text: str) -> None:
    """A warning that shows the line of the user's code that was running."""
    frame = user_frame()
    if frame is None:
        warnings.warn(text, RetraceWarning, stacklevel=2)
        return
    space = frame.f_globals
    warnings.warn_explicit(
        text,
        RetraceWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        space.get("__name__", "<unknown>"),
        space.setdefault("__warningregistry__", {}),
    )
