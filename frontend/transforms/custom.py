"""`custom_vjp` and `custom_jvp`: functions with a derivative rule of the user's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from einkorn.convert import as_tensor
from einkorn.inner import Closed, Inner, apply_region, close, recording
from einkorn.ir.errors import EinkornError
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node
from einkorn.ir.types import TensorType
from einkorn.leaf import Leaf
from einkorn.recording import Value, current_trace, is_recording
from einkorn.tensor import Tensor
from einkorn.transforms.checkpoint import is_input
from einkorn.transforms.products import float_ends
from einkorn.transforms.pull import pull, unknown, zeros
from einkorn.transforms.targets import check_callable, place, read_like, run_recorded
from einkorn.tree import END, alike, describe, flatten, paths, unflatten

# The functions whose rules are being recorded around this point.
_open: ContextVar[frozenset[Any]] = ContextVar("einkorn_custom", default=frozenset())

MSG_RULE = "{what}: {name} has no rule yet; give it one with {name}.{define}"
MSG_KEYWORDS = "{what}: call {name} with positional arguments; its rule takes them by position"
MSG_CAPTURED = (
    "{what}: {name} uses {leaf}, for which gradients are tracked, from outside; its rule could not "
    "say what its gradient is. Pass it as an argument, or use ek.stop_gradient of it"
)
MSG_STATE = (
    "{what}: the backward rule of {name} assigned a leaf or drew random numbers; do so in the "
    "forward rule and pass them on"
)
MSG_PAIR = "{what}: {fn} must return a pair ({parts}), got {got}"
MSG_COUNT = (
    "{what}: {fn} must return a tuple with one entry for each of the {want} arguments that are "
    "differentiated (None for zero), got {got}"
)
MSG_ENTRY = "{what}: what {fn} returns for argument {k} must have the structure {want}, got {got}"


@dataclass(slots=True)
class _Call:
    """One call, its arguments as the rule sees them.

    Attributes:
        fixed: the arguments that are not differentiated, by position.
        count: how many arguments there are.
        ends: the ends of the others.
        structure: how those are nested.
        inputs: the tensors among `ends`, by position.
    """

    fixed: dict[int, Any]
    count: int
    ends: list[Any]
    structure: Any
    inputs: dict[int, Tensor]

    def joined(self, primals: Sequence[Any]) -> list[Any]:
        """All arguments, from those that are differentiated."""
        rest = iter(primals)
        return [self.fixed[k] if k in self.fixed else next(rest) for k in range(self.count)]

    def float_types(self) -> dict[int, TensorType]:
        return {k: x._type for k, x in self.inputs.items() if x.dtype.is_inexact}


class _Custom:
    """What both kinds share: a call is a region whose backward graph is the rule's."""

    what: str
    define: str

    def __init__(self, fn: Callable[..., Any], nondiff_argnums: Sequence[int] = ()) -> None:
        check_callable(self.what, fn)
        self._fn = fn
        self._name = getattr(fn, "__name__", type(fn).__name__)
        self._static = tuple(nondiff_argnums)
        functools.update_wrapper(self, fn, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function; its rule is used where the call is differentiated."""
        if kwargs:
            raise EinkornError(MSG_KEYWORDS.format(what=self.what, name=self._name))
        if not self._has_rule():
            raise EinkornError(MSG_RULE.format(what=self.what, name=self._name, define=self.define))
        if self in _open.get() or not is_recording():  # in its own rule it is what it computes
            return self._fn(*args)
        fixed = {k % len(args): args[k] for k in self._static if -len(args) <= k < len(args)}
        ends, structure = flatten(tuple(x for k, x in enumerate(args) if k not in fixed))
        inputs = {
            k: as_tensor(x, self.what)
            for k, x in enumerate(ends)
            if is_input(x) or isinstance(x, Leaf)
        }
        if not any(map(_is_tracked, inputs.values())):
            return self._fn(*args)
        token = _open.set(_open.get() | {self})
        try:
            return self._differentiated(_Call(fixed, len(args), ends, structure, inputs))
        finally:
            _open.reset(token)

    def _differentiated(self, call: _Call) -> Any:
        """The call as a region; its results are the function's, then what the rule keeps."""
        with recording(f"ek.{self.what}", self._fn) as trace:
            for k, x in call.inputs.items():
                call.ends[k] = trace.example(x, f"x{k}")
            out, kept = self._forward(call, unflatten(call.structure, call.ends))
            outputs, out_structure = float_ends(self.what, out)
            kept_ends, kept_structure = flatten(kept)
            places = [k for k, x in enumerate(kept_ends) if isinstance(x, Value)]
            residuals = [as_tensor(kept_ends[k], self.what) for k in places]
            with recording(f"ek.{self.what}", self._fn) as back:
                for k, x in zip(places, residuals):
                    kept_ends[k] = back.argument(x._type, "residual", tracks=True)
                seeds = [back.argument(x._type, "ct", tracks=True) for x in outputs]
                given = unflatten(kept_structure, kept_ends), unflatten(out_structure, seeds)
                cotangents = self._backward(call, *given)
                for x in cotangents:
                    back.node_of(x)
            backward = close(back, cotangents)
            shared = [trace.node_of(x) for x in backward.captured]
            results = [trace.node_of(x) for x in (*outputs, *residuals)]
        closed = close(trace, outputs)
        self._check(trace, backward)
        state = closed.graph.outputs[len(outputs) :]
        graph = replace(closed.graph, outputs=(*results, *shared, *state))
        rule = _rule(backward, len(residuals))
        values = [*call.inputs.values(), *closed.captured]
        found = apply_region(graph, values, backward=rule, outputs=len(outputs))
        closed.commit(found[len(found) - len(state) :])
        return unflatten(out_structure, found[: len(outputs)])

    def _check(self, trace: Inner, backward: Closed) -> None:
        """Refuse what is tracked and not an argument, for it would silently have no gradient."""
        for capture in trace.captures:
            if capture.kind in ("leaf", "value") and _is_tracked(capture.source):
                label = trace.names.get(capture.node, "a tensor")
                raise EinkornError(MSG_CAPTURED.format(what=self.what, name=self._name, leaf=label))
        if backward.updated or backward.with_grad:
            raise EinkornError(MSG_STATE.format(what=self.what, name=self._name))

    def _has_rule(self) -> bool:
        raise NotImplementedError

    def _forward(self, call: _Call, primals: tuple[Any, ...]) -> tuple[Any, Any]:
        """The result, and a nest that the rule keeps."""
        raise NotImplementedError

    def _backward(self, call: _Call, kept: Any, cotangents: Any) -> list[Tensor]:
        """The cotangents of the floating-point inputs."""
        raise NotImplementedError


def _rule(backward: Closed, residuals: int) -> Graph:
    """The backward graph over residuals, then what it captured, then cotangents."""
    graph = backward.graph
    kept, seeds = graph.inputs[:residuals], graph.inputs[residuals:]
    inputs: tuple[Node, ...] = (*kept, *graph.captures, *seeds)
    return Graph(graph.name, inputs, (), graph.outputs, names=graph.names, origins=graph.origins)


def _is_tracked(x: Value) -> bool:
    trace = current_trace.get()
    return x._tracked() is not None if trace is None else trace.tracks(x)


class custom_vjp(_Custom):
    """A function with a reverse rule of its own; use it as a decorator.

        @ek.custom_vjp
        def clipped(x):
            return x

        clipped.defvjp(lambda x: (x, None), lambda _, g: (ek.clip(g, -1, 1),))

    Where nothing is differentiated `fn` runs. Otherwise `fwd` does, and `bwd` gives the derivative;
    derivatives of higher order differentiate `bwd`, and `fwd` as far as it makes residuals.

    Args:
        fn: the function, of positional arguments; gives floating-point tensors in any nest.
        nondiff_argnums: positions of arguments that are not differentiated; `bwd` gets them first.
    """

    what, define = "custom_vjp", "defvjp(fwd, bwd)"
    _fwd: Callable[..., Any] | None = None
    _bwd: Callable[..., Any] | None = None

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any]) -> None:
        """Set the rule.

        Args:
            fwd: takes the arguments of the function and gives (result, residuals); the residuals
                are a nest of tensors and anything else.
            bwd: takes the arguments of `nondiff_argnums`, the residuals and the cotangent of the
                result, and gives a tuple with the cotangent of each other argument; None is zero.
        """
        check_callable(self.what, fwd)
        check_callable(self.what, bwd)
        self._fwd, self._bwd = fwd, bwd

    def _has_rule(self) -> bool:
        return self._fwd is not None

    def _forward(self, call: _Call, primals: tuple[Any, ...]) -> tuple[Any, Any]:
        assert self._fwd is not None
        pair = self._fwd(*call.joined(primals))
        if not isinstance(pair, tuple) or len(pair) != 2:
            got = type(pair).__name__
            raise EinkornError(
                MSG_PAIR.format(what=self.what, fn="fwd", parts="result, residuals", got=got)
            )
        return pair

    def _backward(self, call: _Call, kept: Any, cotangents: Any) -> list[Tensor]:
        assert self._bwd is not None
        nests = self._bwd(*(call.fixed[k] for k in sorted(call.fixed)), kept, cotangents)
        parts = call.structure[4:]
        if not isinstance(nests, (tuple, list)) or len(nests) != len(parts):
            listed = isinstance(nests, (tuple, list))
            count = len(nests) if listed else f"a {type(nests).__name__}"
            raise EinkornError(
                MSG_COUNT.format(what=self.what, fn="bwd", want=len(parts), got=count)
            )
        types = call.float_types()
        found: list[Tensor] = []
        position = 0
        for number, (part, nest) in enumerate(zip(parts, nests)):
            count = len(paths(part))
            some = [types.get(position + k) for k in range(count)]
            found += self._read(number, part, nest, some)
            position += count
        return found

    def _read(
        self, number: int, part: Any, nest: Any, types: Sequence[TensorType | None]
    ) -> list[Tensor]:
        """The cotangents of one argument's floating-point ends."""
        given, got = flatten(nest)
        if nest is None:
            given, got = [None] * len(types), part
        if not alike(part, got):
            raise EinkornError(
                MSG_ENTRY.format(
                    what=self.what, fn="bwd", k=number, want=describe(part), got=describe(got)
                )
            )
        found: list[Tensor] = []
        for x, type, path in zip(given, types, paths(part)):
            if type is not None and x is None:
                found.append(zeros(type))
            elif type is not None:
                name, of = f"the cotangent of argument {number}{place(path)}", "the argument"
                found += read_like(self.what, name, x, of, END, [type])
        return found


class custom_jvp(_Custom):
    """A function with a forward rule of its own; use it as a decorator.

        @ek.custom_jvp
        def log1pexp(x):
            return ek.log(1 + ek.exp(x))

        @log1pexp.defjvp
        def _(primals, tangents):
            (x,), (t,) = primals, tangents
            return log1pexp(x), t * x.sigmoid()

    The rule's tangent must be linear in the tangents; reverse mode is its transpose.

    Args:
        fn: the function, of positional arguments; gives floating-point tensors in any nest.
        nondiff_argnums: positions of arguments that are not differentiated; the rule gets them
            first.
    """

    what, define = "custom_jvp", "defjvp(rule)"
    _jvp: Callable[..., Any] | None = None

    def defjvp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Set the rule: it takes (primals, tangents) and gives (result, tangent of the result)."""
        check_callable(self.what, rule)
        self._jvp = rule
        return rule

    def _has_rule(self) -> bool:
        return self._jvp is not None

    def _forward(self, call: _Call, primals: tuple[Any, ...]) -> tuple[Any, Any]:
        return self._fn(*call.joined(primals)), primals

    def _backward(self, call: _Call, kept: Any, cotangents: Any) -> list[Tensor]:
        """The transpose of the rule's tangents: they are linear in tangents whose value is free."""
        assert self._jvp is not None
        trace = current_trace.get()
        types = call.float_types()
        along = {k: unknown(trace, type) for k, type in types.items()}
        tangents = [along.get(k) for k in range(len(call.ends))]
        fixed = (call.fixed[k] for k in sorted(call.fixed))
        pair = run_recorded(self._jvp, [*fixed, kept, unflatten(call.structure, tangents)], {})
        if not isinstance(pair, tuple) or len(pair) != 2:
            got = type(pair).__name__
            raise EinkornError(
                MSG_PAIR.format(what=self.what, fn="the rule", parts="result, tangent", got=got)
            )
        seeds, structure = flatten(cotangents)
        name, of = "the tangent that the rule returned", "the result"
        through = read_like(self.what, name, pair[1], of, structure, [x._type for x in seeds])
        nodes = [trace.node_of(x) for x in along.values()]
        return run_recorded(pull, [through, seeds, nodes, list(types.values())], {})
