"""`@ek.compile`: a function as one native call, traced once for each kind of arguments."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    ItemsView,
    Iterator,
    Mapping,
    Sequence,
    Set,
    ValuesView,
)
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import perf_counter
from types import MethodType
from typing import Any
from weakref import WeakSet

import numpy as np

from einkorn.arguments import Arguments, read_arguments
from einkorn.attribute_writes import outputs_of
from einkorn.branches import Branches
from einkorn.buckets import as_buckets
from einkorn.closed import outer_value
from einkorn.collector import current_collector, handing_over
from einkorn.donation import Donation
from einkorn.entry import ELSEWHERE, OUTPUT, Entry, Mode, Returned
from einkorn.explanation import Explanation
from einkorn.ir.dtypes import int64
from einkorn.ir.errors import EinkornError, TraceError
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, make_call, project
from einkorn.ir.sizes import Size
from einkorn.leaf import Leaf
from einkorn.lengths import sized_number
from einkorn.lowered import Lowered
from einkorn.padded_arguments import PaddedArguments
from einkorn.parameters import is_suspended, labels_of, parameters_of
from einkorn.passes.autodiff import expand
from einkorn.passes.padding import pad
from einkorn.passes.padding.fixed import Fixed
from einkorn.python_reads import PythonReads
from einkorn.recording import (
    Value,
    current_region,
    current_trace,
    is_recording,
    traced,
)
from einkorn.region import run_region
from einkorn.running import Call, current_call
from einkorn.runtime import settings
from einkorn.runtime.compiler import clear_caches as clear_programs
from einkorn.runtime.eager import clear_caches as clear_ops
from einkorn.runtime.evaluate import evaluate
from einkorn.runtime.locks import LOCKS
from einkorn.step import captured_value, input_values
from einkorn.surroundings import surroundings
from einkorn.traces import MAX_TRACES, Policy, Traces
from einkorn.tracing import Trace, tracing
from einkorn.transforms.targets import depth
from einkorn.tree import flatten, is_plain_dataclass, unflatten
from einkorn.user_code import label_of, name_of

MSG_STRICT = (
    "{name} would keep these arrays as constants, which strict=True refuses: {listed}. Pass them "
    "as arguments, keep them in variables, attributes or leaves that the function reads, or "
    "compute them with ek functions"
)

MSG_LEAF = (
    "{name} returned {leaf}, a leaf that it makes itself, but a compiled call makes no objects; "
    "return its value, leaf.value, or make the leaf outside"
)

BACKENDS = ("llvm", "reference")
_alive: WeakSet[Any] = WeakSet()  # every compiled function


class Compiled:
    """A compiled function; call it as the function it came from."""

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        backend: str = "llvm",
        threads: int | None = None,
        static_argnames: Sequence[str] = (),
        name: str | None = None,
        strict: bool = False,
        policy: Policy = Policy(),  # noqa: B008 # frozen
        buckets: Any = None,
        donate: Sequence[str] | str = (),
    ) -> None:
        if not callable(fn) or inspect.isclass(fn):
            raise EinkornError(f"ek.compile needs a function or a Module, got {fn!r}")
        if is_suspended(fn) or is_suspended(type(fn).__call__):
            raise EinkornError(
                f"{name_of(fn)} gives a coroutine or generator; compile the function that "
                "computes one step, and await or yield around it"
            )
        if threads is not None:
            settings.check_threads(threads)
        self._backend, self._strict, self._threads = backend, strict, threads
        one_name = isinstance(static_argnames, str)
        self._static = frozenset([static_argnames] if one_name else static_argnames)
        self._parameters = parameters_of(fn)
        if not self._static <= set(self._parameters):
            raise EinkornError(
                f"static_argnames {sorted(self._static)} are not all parameters of "
                f"{name or name_of(fn)}({', '.join(self._parameters)})"
            )
        self._name = name or name_of(fn)
        self._label = name or label_of(fn)  # for messages
        others = (*self._static, *(buckets or ()))
        self._donation = Donation(donate, self._label, self._parameters, others) if donate else None
        self._fn = fn if self._donation is None else self._donation.wrapped(fn)
        self._labels = labels_of(fn)
        self._buckets = as_buckets(buckets, self._label, self._labels)
        self._is_method = False  # whether the first argument is an object, not data
        self._traces = Traces(self._label, policy.checked(), self._labels)
        with LOCKS.programs:
            _alive.add(self)
        functools.update_wrapper(self, fn, updated=())

    def __set_name__(self, owner: type, name: str) -> None:
        self._is_method = True

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self) -> Any:
        raise EinkornError(
            f"compiled function {self._label} cannot be copied or pickled; copy the function it "
            "was made from and compile that"
        )

    def __repr__(self) -> str:
        return f"<compiled {self._label}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._donation is not None and current_trace.get() is None:
            return self._donation.call(self._collected, args, kwargs)
        if current_collector() is None:
            return self._run(args, kwargs, 0)
        return self._collected(args, kwargs)

    def _collected(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        collector = current_collector()
        found = self._run(args, kwargs, 0 if collector is None else collector.wanted)
        return found if collector is None else collector.take(found)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any], collects: int) -> Any:
        """What the function returns; while someone collects, what `handing_over` makes of it."""
        trace = current_trace.get()
        if trace is not None:
            return self._inline(trace, args, kwargs)
        chosen = settings.current()
        if not chosen.compile:
            return run_region(self._name, self._alone, self._read(args, kwargs))
        threads = self._threads or chosen.threads
        mode = (depth() > 0, is_recording(), collects, surroundings.get())
        for entry in self._traces.quick:
            words = entry.words(args, kwargs, mode)
            if words is not None:
                out = entry.run(words, threads)
                if out is not ELSEWHERE:
                    return out
        return self._fitted(
            self._read(args, kwargs), partial(self._call, mode=mode, threads=threads)
        )

    # -- tracing -------------------------------------------------------------------------------

    def _alone(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself, kept apart from what collects and makes modules around it."""
        call = current_call.get()
        token = current_call.set(None if call is None else Call(call.module, compiled=True))
        try:
            return handing_over(self._fn)(*args, **kwargs)
        finally:
            current_call.reset(token)

    def _read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        static: frozenset[int | str] = frozenset(self._static & kwargs.keys())
        if self._static:
            named = enumerate(self._parameters[: len(args)])
            static |= {k for k, name in named if name in self._static}
        if self._is_method and args and is_plain_dataclass(args[0]):
            static |= {0}
        return read_arguments(self._label, args, kwargs, static)

    def _fitted(self, arguments: Arguments, use: Callable[[Arguments], Any]) -> Any:
        """What `use` gives for arguments with the axes padded that were declared to vary."""
        buckets = self._buckets
        return use(arguments) if buckets is None else buckets.run(arguments, self._labels, use)

    def _call(self, arguments: Arguments, mode: Mode, threads: int) -> Any:
        """Run the trace whose guards hold and whose branches go the same way, or a new one."""
        key, tried = (arguments.key, *mode), set[Entry]()
        while True:
            for entry in self._traces.fitting(key, arguments):
                if entry not in tried:
                    out = entry.call(arguments, threads)
                    if out is not ELSEWHERE:
                        self._traces.used(key, entry)
                        return out
                    tried.add(entry)
            with LOCKS.tracing_turn():
                others = [x for x in self._traces.fitting(key, arguments) if x not in tried]
                made = None if others else self._traced(key, arguments, mode)
            if made is not None:
                out = made.call(arguments, threads)
                if out is not ELSEWHERE:
                    return out
                tried.clear()  # another thread has written what branches depend on

    def _traced(self, key: Any, arguments: Arguments, mode: Mode) -> Entry:
        """A new trace."""
        why = self._traces.why(key, arguments)
        start = perf_counter()
        trace, returned = self._run_traced(arguments, computes=True)
        constants = _constants(trace, returned)
        if constants and self._strict:
            listed = "; ".join(constants)
            raise TraceError(MSG_STRICT.format(name=self._label, listed=listed))
        traced = perf_counter()
        entry = Entry(trace, returned, arguments, mode, self._backend, why, constants)
        self._traces.add(key, entry, (traced - start, perf_counter() - traced))
        return entry

    def _run_traced(
        self, arguments: Arguments, computes: bool = False, branches: Sequence[bool] = ()
    ) -> tuple[Trace, Returned]:
        """Run the function on traced arguments.

        Args:
            arguments: of the call.
            computes: whether branches on tensors are decided by their values.
            branches: how they go otherwise, in order.
        """
        trace = Trace(self._label, outer=current_trace.get(), carries=True)
        trace.graph_name = self._name
        if trace.outer is None:
            decide = partial(_value_now, trace, arguments) if computes else None
            trace.branches = Branches(self._label, decide, iter(branches))
        trace.lines = None if trace.outer is not None and trace.outer.lines is None else []
        region = current_region.set(None)
        try:
            with tracing(trace), self._reading(trace, arguments):
                args, kwargs = arguments.traced(trace, self._labels)
                returned = self._alone(*args, **kwargs)
                ends, structure = flatten(returned)
                ends = [sized_number(x, int64, True) if isinstance(x, Size) else x for x in ends]
                _check_returned(trace, ends)
                outputs = [x for x in ends if _is_output(x)]
                for x in outputs:
                    trace.node_of(x)
                writes, tensors = outputs_of(trace, trace.attributes.leave(), outputs)
        finally:
            current_region.reset(region)
        plain = [OUTPUT if _is_output(x) else x for x in ends]
        return trace, Returned(tensors, len(outputs), plain, structure, writes)

    def _reading(self, trace: Trace, arguments: Arguments) -> AbstractContextManager[None]:
        """Note what the function reads by name; within the block effects are refused."""
        if trace.outer is not None:  # which does so
            return nullcontext()
        trace.reads = PythonReads(sys._getframe(1), self._label)
        trace.reads.enter(self._fn, arguments.objects(self._parameters))
        return trace.reads.followed(trace)

    def _inline(self, outer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call inside another trace: a `call` region there."""
        arguments = self._read(args, kwargs)
        trace, returned = self._run_traced(arguments)
        outputs = returned.tensors
        graph, updated, with_grad = trace.finish(outputs)
        closed = Graph(
            graph.name, graph.inputs, graph.captures, graph.results, (), graph.names, graph.origins
        )
        for leaf in trace.own.all():
            outer.own.add(outer, leaf)
        tracks = [trace.tracks(x) for x in outputs]
        values = [*arguments.tensors(), *(outer_value(x) for x in trace.captures)]
        node = make_call(closed, [outer.operand(x, any(tracks)) for x in values])
        outer.note(node)
        count = len(outputs)
        others = [False] * (len(closed.outputs) - count)
        weak = [x._weak for x in outputs] + others
        results = [
            traced(project(node, k), outer, weak=w, tracks=t)
            for k, (w, t) in enumerate(zip(weak, tracks + others))
        ]
        for leaf, grad in zip(with_grad, results[count:]):
            outer.set_grad(leaf, grad)
        rest = iter(results[count + len(with_grad) :])
        for line in trace.lines or ():
            outer.lines.append(line.with_tensors([next(rest) for _ in line.tensors]))
        if trace.token is not None:
            outer.token = outer.node_of(next(rest))
        for leaf in trace.cleared_grads:
            outer.set_grad(leaf, None)
        for leaf, value in zip(updated, results[len(graph.outputs) :]):
            outer.assign(leaf, value)
        for written in returned.writes:
            value = written.rebuilt(results)
            outer.attributes.write(written.owner, written.name, value, written.origin)
        found = iter(results)
        ends = [next(found) if x is OUTPUT else x for x in returned.plain]
        return unflatten(returned.structure, ends)

    # -- inspection ----------------------------------------------------------------------------

    def trace(self, *args: Any, branches: Sequence[bool] = (), **kwargs: Any) -> Graph:
        """The graph of a call with these arguments; nothing is run and no state changes.

        Args:
            branches: how `if t:` on tensors goes, in order.
        """
        graph = partial(self._graph, branches=branches)
        return self._fitted(self._read(args, kwargs), graph)

    def _graph(self, arguments: Arguments, branches: Sequence[bool]) -> Graph:
        trace, returned = self._run_traced(arguments, branches=branches)
        graph = trace.finish(returned.tensors)[0]
        return pad(graph) if isinstance(arguments, PaddedArguments) else graph

    def graph_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
        """The graph of a call whose branches go as the values of the arguments say."""
        trace, returned = self._run_traced(self._read(args, kwargs), computes=True)
        return trace.finish(returned.tensors)[0]

    def lower(self, *args: Any, branches: Sequence[bool] = (), **kwargs: Any) -> Lowered:
        """Every stage of the compilation for these arguments; nothing is run.

        Args:
            branches: how `if t:` on tensors goes, in order.
        """
        return Lowered(self.trace(*args, branches=branches, **kwargs), self._backend)

    def explain(self) -> Explanation:
        """What was traced, why, under which conditions each trace is used, and what it cost.

        Text when it is printed; its attributes are the same as data.
        """
        return self._traces.explain()

    def clear(self) -> None:
        """Forget every trace of this function."""
        self._traces.clear()
        if self._donation is not None:
            self._donation.clear()


def _value_now(trace: Trace, arguments: Arguments, node: Node) -> Any:
    """The value of a node of a trace for the arguments of a call and the state as it is."""
    captures = [capture.node for capture in trace.captures]
    graph = Graph(trace.name, tuple(trace.inputs), tuple(captures), (node,))
    if isinstance(arguments, PaddedArguments):  # of which those that the caller passed are known
        graph, arguments = Fixed(arguments.lengths).graph(graph), arguments.passed
    graph = expand(graph)
    with LOCKS.state:
        values = [*input_values(arguments), *map(captured_value, trace.captures)]
        known = dict(zip(graph.params, [value._eager() for value in values]))
        return evaluate(graph.outputs, known)[0]


def _constants(trace: Trace, returned: Returned) -> list[str]:
    """The arrays that a trace took over as they are, each with the line that used it."""
    assert trace.reads is not None
    values = {c.source: c for c in trace.captures if c.kind == "value"}
    found = [values[x] for x in trace.reads.unseen(values)]
    listed = [f"{c.source._type} used at {c.origin or 'an unknown place'}" for c in found]
    places = [("a returned NumPy array", returned.plain)]
    places += [(f"a NumPy array in {x.label}", x.ends) for x in returned.writes]
    return listed + [
        f"{place} of shape {x.shape} and dtype {x.dtype}"
        for place, ends in places
        for x in ends
        if isinstance(x, np.ndarray)
    ]


def _check_returned(trace: Trace, ends: Sequence[Any]) -> None:
    """Refuse what could hide traced tensors from the caller, and leaves of this trace."""
    name = trace.name
    for x in ends:
        if x in trace.own:
            raise EinkornError(MSG_LEAF.format(name=name, leaf=x.name or "the leaf"))
        if isinstance(x, (Awaitable, AsyncIterator)):
            close = getattr(x, "close", None)
            if close is not None:  # nobody will await it
                close()
            raise EinkornError(
                f"{name} returned a {type(x).__name__}, which would run outside of the step; await "
                "around the compiled function, not inside"
            )
        if isinstance(x, (Set, Iterator, ValuesView, ItemsView)):
            raise EinkornError(
                f"{name} returned a {type(x).__name__}; a compiled function returns tensors in "
                "tuples, lists, dicts or dataclasses: wrap it in list(...) or dict(...)"
            )


def _is_output(x: Any) -> bool:
    return isinstance(x, Value) and not isinstance(x, Leaf)


def compile(
    fn: Callable[..., Any] | None = None,
    *,
    backend: str = "llvm",
    threads: int | None = None,
    static_argnames: Sequence[str] = (),
    name: str | None = None,
    strict: bool = False,
    on_retrace: str | None = None,
    max_traces: int = MAX_TRACES,
    buckets: Mapping[str, Mapping[int, Any]] | None = None,
    donate: Sequence[str] | str = (),
) -> Any:
    """Compile a function, a Module or a method into one native call; use it as a decorator.

    Args:
        fn: what to compile. Tensors and arrays among its (nested) arguments are inputs, Python
            floats and ints run-time scalars; bool, str, None and other objects are static. Leaves
            it reads become inputs, leaves it assigns are written when the whole call succeeded.
        backend: "llvm", or "reference" (NumPy, slow, for checking).
        threads: how many threads a step may use; the setting EINKORN_THREADS by default.
        static_argnames: parameters whose numbers are constants of the trace.
        name: the name in printed IR; the function's own by default.
        strict: refuse arrays that would become constants of a trace because nobody can see where
            they came from, such as what NumPy computed while the function was traced. Without it
            `explain()` lists them.
        on_retrace: what happens when the function has to be traced again: "allow", "warn" or
            "error". By default a RetraceWarning comes after the eighth time, and when one number
            is the reason for the second time.
        max_traces: how many traces are kept; the one unused for longest makes room for another.
        buckets: the axes whose size varies from call to call, such as {"x": {0: "pow2"}}: they are
            padded to the next of some sizes, and one trace serves all sizes up to there, with the
            bits of a call without padding. See docs/buckets.md.
        donate: parameters whose tensors a call uses up: results of their types are written over
            them where that is possible. Nothing is recorded for a backward pass then.
    """
    if backend not in BACKENDS:
        raise EinkornError(f"there is no backend {backend!r}; use one of {', '.join(BACKENDS)}")
    options = {
        "backend": backend,
        "threads": threads,
        "static_argnames": static_argnames,
        "name": name,
        "strict": strict,
        "policy": Policy(on_retrace, max_traces),
        "buckets": buckets,
        "donate": donate,
    }
    if fn is None:
        return lambda fn: Compiled(fn, **options)
    return Compiled(fn, **options)


def trace(fn: Callable[..., Any]) -> Callable[..., Graph]:
    """`ek.trace(fn)(*args)`: the graph that `fn` records for these arguments."""
    compiled = fn if isinstance(fn, Compiled) else Compiled(fn)
    return compiled.trace


def clear_caches() -> None:
    """Forget every trace and every compiled program; kernels stay loaded.

    Calls in progress in other threads end as they would have.
    """
    with LOCKS.programs:
        known = list(_alive)
    for compiled in known:
        compiled.clear()
    clear_ops()
    clear_programs()


def eager() -> AbstractContextManager[Any]:
    """Within the block compiled functions run eagerly, with the same bits."""
    return settings.override(compile=False)
