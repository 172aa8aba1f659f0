"""`Collector`: the losses, metrics and summaries that hooks add while it is open.

A compiled function fills a collector of its own; what that holds is returned with the outputs and
handed to the collector outside, in eager mode as well. So nothing traced ever leaves a trace.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from einkorn.ir.errors import StateError, TraceError
from einkorn.recording import current_trace, user_origin
from einkorn.tensor import Tensor
from einkorn.tunable import module_path

LOSSES, METRICS, SUMMARIES, OUTPUTS = "losses", "metrics", "summaries", "outputs"
Added = list[tuple[str, str, Any]]  # kind, name and value

MSG_INSIDE = (
    "{what} at {where}: inside of {name}, a function that a loop, a branch or a transform of "
    "einkorn records, a value has no place in the collector outside; return it (a scan stacks "
    "them) and add it outside, or collect inside"
)
MSG_OUTSIDE = (
    "the {kind} of this collector are read inside of a compiled function, which hands over what "
    "it adds when it returns; open the collector inside: with ek.nn.collect() as found: ..."
)

open_collector: ContextVar[Collector | None] = ContextVar("einkorn_collector", default=None)


class Collector:
    """What hooks have added, by name; each a dict in the order in which they were added.

    Attributes:
        losses: scalars; those of one name are added up.
        metrics: tensors, with no gradient.
        summaries: anything.
        inputs: the arguments of the modules whose outputs are kept, when they are wanted.
    """

    def __init__(
        self, compiled: bool = False, base: tuple[str, ...] | None = None, outputs: bool = False
    ) -> None:
        """
        Args:
            compiled: whether it belongs to a call of a compiled function.
            base: the path that names leave out; that of the running module by default.
            outputs: whether it keeps what modules return.
        """
        self._outer, self._trace = open_collector.get(), current_trace.get()
        self._base = _path() if base is None else base
        self._compiled, self._outputs = compiled, outputs
        if compiled and self._outer is not None:
            self._outputs = self._outer._keeper() is not None
        self.inputs: dict[str, Any] | None = None
        self._found: dict[str, dict[str, Any]] = {
            kind: {} for kind in (LOSSES, METRICS, SUMMARIES, OUTPUTS)
        }
        self._names: dict[tuple[str, str], str] = {}  # as given, where others had it already

    @property
    def losses(self) -> dict[str, Tensor]:
        return self._visible(LOSSES)

    @property
    def metrics(self) -> dict[str, Tensor]:
        return self._visible(METRICS)

    @property
    def summaries(self) -> dict[str, Any]:
        return self._visible(SUMMARIES)

    @property
    def wanted(self) -> int:
        """What is collected here: 1 what hooks add, 2 what modules return as well."""
        return 1 if self._keeper() is None else 2

    def _keeper(self) -> Collector | None:
        """The collector that keeps what modules return here, this one or one around it."""
        found: Collector | None = self
        while found is not None and not found._outputs:
            found = None if found._compiled else found._outer
        return found

    def keep(self, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what the running module returns for these arguments."""
        keeper = self._keeper()
        if keeper is None or keeper._trace is not current_trace.get():
            return
        path = _path()
        if path != keeper._base:
            keeper.add(OUTPUTS, "", out)
        if keeper.inputs is not None:
            keeper.inputs.setdefault("/".join(path[len(keeper._base) :]), (args, kwargs))

    @property
    def outputs(self) -> dict[str, Any]:
        """What modules returned, by their paths: "act", and "act#2" for its second call."""
        return self._found[OUTPUTS]

    def _visible(self, kind: str) -> dict[str, Any]:
        inner, compiled = open_collector.get(), False
        while inner is not None and inner is not self:
            compiled = compiled or inner._compiled
            inner = inner._outer
        if inner is self and compiled:
            raise StateError(MSG_OUTSIDE.format(kind=kind))
        return self._found[kind]

    def check(self, what: str) -> None:
        """TraceError unless a value that is made here may be kept.

        Args:
            what: who asks, for the message.
        """
        trace = current_trace.get()
        if trace is not self._trace:
            name = "a transform" if trace is None else trace.name
            raise TraceError(MSG_INSIDE.format(what=what, where=user_origin(), name=name))

    def add(self, kind: str, name: str, value: Any) -> None:
        """Keep a value under a name that is relative to the module whose forward is running."""
        path = _path()[len(self._base) :]
        name = "/".join((*path, name) if name else path)
        found = self._found[kind]
        if kind == LOSSES and name in found:
            found[name] = found[name] + value
            return
        unique, count = name, 0
        while unique in found:
            count += 1
            unique = f"{name}#{count + 1}" if kind == OUTPUTS else f"{name}_{count}"
        if unique != name:
            self._names[kind, unique] = name
        found[unique] = value

    def added(self) -> Added:
        """Everything, for `take` of another collector."""
        return [
            (kind, self._names.get((kind, name), name), value)
            for kind, found in self._found.items()
            for name, value in found.items()
        ]

    def take(self, returned: tuple[Any, Added], key: str = "") -> Any:
        """Keep what a function wrapped by `handing_over` added; gives what it returned itself.

        Args:
            returned: by that function.
            key: goes in front of the names.
        """
        out, added = returned
        if any(kind != OUTPUTS for kind, *_ in added):
            self.check("what hooks add")
        for kind, name, value in added:
            holder = self._keeper() if kind == OUTPUTS else self
            if holder is not None and holder._trace is current_trace.get():
                holder.add(kind, "/".join(filter(None, (key, name))), value)
        return out

    def end_gradients(self, before: dict[str, Tensor]) -> None:
        """Detach the losses that are not those of `before`."""
        found = self._found[LOSSES]
        for name, value in found.items():
            if before.get(name) is not value:
                found[name] = value.detach()

    def so_far(self) -> dict[str, Tensor]:
        """The losses added until now."""
        return dict(self._found[LOSSES])


def _path() -> tuple[str, ...]:
    """The path of the running module below the outermost one."""
    path = module_path.get()
    return tuple(path.split("/")[1:]) if path else ()


def current_collector() -> Collector | None:
    """The innermost open collector."""
    return open_collector.get()


@contextmanager
def collect() -> Generator[Collector]:
    """Within the block hooks add to this collector: its `losses`, `metrics` and `summaries`.

    Inside a compiled function its values are outputs of the step when they are returned; outside
    of one it gets them when the function returns. Only the innermost of nested ones is filled.
    """
    collector = Collector()
    token = open_collector.set(collector)
    try:
        yield collector
    finally:
        open_collector.reset(token)


def handing_over(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, which while someone collects returns a pair: its result and what hooks added in it.

    The collector outside has to `take` the pair.
    """
    if open_collector.get() is None:
        return fn

    def both(*args: Any, **kwargs: Any) -> tuple[Any, Added]:
        own = Collector(compiled=True)
        token = open_collector.set(own)
        try:
            out = fn(*args, **kwargs)
        finally:
            open_collector.reset(token)
        return out, own.added()

    return both
