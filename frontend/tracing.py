"""`Trace`: what a function collects while it is traced, and how it becomes a graph.

Values from outside become captures: a leaf is an input whose storage is bound at each call, a
setting is a number read at each call, any other tensor is bound as it is. Assignments to leaves
stay in the trace until the call that runs the graph commits them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np

from einkorn.attribute_state import AttributeState
from einkorn.branches import Branches
from einkorn.captures import Attribute, Capture, Guard, attribute_guard, settings_gone
from einkorn.ir.dtypes import bool_, float64, int64
from einkorn.ir.errors import TraceError
from einkorn.ir.graph import Graph, Origin
from einkorn.ir.node import Node, alias, constant, make, placeholder, toposort
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType, TupleType
from einkorn.leaf import Leaf
from einkorn.own_leaves import OwnLeaves
from einkorn.python_reads import PythonReads
from einkorn.recording import (
    Value,
    current_trace,
    escaped,
    result,
    traced,
    user_frame,
    user_origin,
)
from einkorn.runtime.evaluate import evaluate
from einkorn.seen import Seen
from einkorn.tensor import Tensor
from einkorn.tunable import Mode, is_tunable, module_path
from einkorn.watched import reads_watched

MSG_SETTING = (
    "{owner}.{name} was set while {trace} was being traced; a compiled step reads settings but "
    "does not change them: {instead}"
)
_SCHEDULE = "set it outside, or give the optimizer a schedule (a callable or tensor)"
_OUTSIDE = "call train() or eval(), or set it, outside"

MSG_ORDER = (
    "{trace} branches on a tensor at {branch} after ek.callback{callback}; when the branch goes "
    "another way the step is run again, and the callback would be called twice. Call it behind the "
    "branch, or choose with ek.where or ek.cond"
)

MSG_CONCRETE = (
    "{what} needs the value of a tensor, but in the compiled function {trace} it only exists when "
    "the step runs{where}. Use ek.where(condition, a, b) to choose by value; return the tensor, or "
    "assign it to a leaf, to see its value after the call; or run the function under "
    "`with ek.eager():`."
)


@dataclass(eq=False)
class Trace:
    """A function being traced.

    Attributes:
        name: the function's name, for people.
        graph_name: that of its graph, if it is another one.
        active: False once the function has returned.
        inputs: one node for each tensor or number argument.
        captures: values taken from outside, in the order in which they were met.
        guards: what was taken from Python, here and in the traces around and inside.
        specialised: the numbers among the inputs whose values the trace needed.
        lines: what `ek.print` prints; None where it cannot.
        token: what the last callback gave.
        carries: whether attributes that the function writes are written by each call.
        own: the leaves that the function made.
        attributes: those it wrote, and those that are state.
        branches: how `if t:` is decided; None where it cannot be.
        reads: what was read by name, here and in the traces around; None when nobody asks.
        seen: what was seen of modules and leaves, here and in the traces around.
    """

    name: str
    outer: Any = None
    active: bool = True
    inputs: list[Node] = field(default_factory=list[Node])
    captures: list[Capture] = field(default_factory=list[Capture])
    guards: list[Guard] = field(default_factory=list[Guard])
    specialised: dict[Node, Any] = field(default_factory=dict[Node, Any])
    reasons: list[str] = field(default_factory=list[str])
    names: dict[Node, str] = field(default_factory=dict[Node, str])
    origins: dict[Node, Origin] = field(default_factory=dict[Node, Origin])
    reads: PythonReads | None = None
    seen: Seen = field(default_factory=Seen)
    branches: Branches | None = None
    lines: list[Any] | None = None
    token: Node | None = None
    carries: bool = False
    graph_name: str = ""
    own: OwnLeaves = field(default_factory=OwnLeaves)
    attributes: AttributeState = field(init=False)
    _by_key: dict[Any, Capture] = field(default_factory=dict[Any, Capture])
    _current: dict[Leaf, Node] = field(default_factory=dict[Leaf, Node])
    _grads: dict[Leaf, Tensor | None] = field(default_factory=dict[Leaf, "Tensor | None"])
    _versions: list[tuple[Leaf, Node]] = field(default_factory=list[tuple[Leaf, Node]])
    _names: dict[tuple[int, Node], tuple[Value, Node]] = field(
        default_factory=dict[tuple[int, Node], "tuple[Value, Node]"]
    )
    _numbers: dict[Node, Any] = field(default_factory=dict[Node, Any])
    _guarded: set[Any] = field(default_factory=set[Any])
    _callers: set[int] | None = None

    def __post_init__(self) -> None:
        if self.outer is not None:
            self.reads, self.seen = self.outer.reads, self.outer.seen
            self.guards, self._guarded = self.outer.guards, self.outer._guarded
        self.attributes = AttributeState(self)

    # -- values --------------------------------------------------------------------------------

    def argument(
        self, type: TensorType, name: str, number: Any = None, tracks: bool = False
    ) -> Tensor:
        """A new input.

        Args:
            type: its type.
            name: for printed IR.
            number: the value of one that stands for a Python number.
            tracks: whether the argument is tracked outside.
        """
        node = placeholder(type)
        self.inputs.append(node)
        self.names[node] = name
        if number is not None:
            self._numbers[node] = number
        return result(type, node=node, trace=self, weak=number is not None, tracks=tracks)

    def tracks(self, value: Value) -> bool:
        """Whether `value` depends on something tracked, as it would in eager mode."""
        if isinstance(value, Leaf):
            return value._trainable
        return value._tracks if value._trace is not None else value._tracked() is not None

    def operand(self, value: Value, tracked_op: bool) -> Node:
        """The node of an operand; in a tracked op an untracked value has a name of its own."""
        node = self.node_of(value)
        if not tracked_op or self.tracks(value):
            return node
        constant = value._trace is None and value._node is not None
        key = id(value), node  # a number of the run would be asked for its hash
        _, known = self._names.get(key, (value, None)) if not constant else (value, None)
        if known is None:
            known = alias(make(Op.STOP_GRADIENT, node) if node.dtype.is_inexact else node)
            if not constant:
                self._names[key] = value, known
        return known

    def node_of(self, value: Value) -> Node:
        """The node that stands for `value` here; values from outside are captured."""
        if value._trace is self:
            assert value._node is not None
            return value._node
        if isinstance(value, Leaf):
            if value in self._current:
                return self._current[value]
            if value in self.own:
                return self.own.nodes[value]
            return self._capture("leaf", value, value, value._type, value.name or f"leaf{value.id}")
        if value._trace is not None and not self.encloses(value._trace):
            raise escaped(value)
        if value._node is not None and value._trace is None:
            return value._node  # a constant
        return self._capture("value", id(value), value, value._type, f"value{len(self.captures)}")

    @property
    def recorded_once(self) -> Any:
        """The function, this one or one around, that a transform or control flow records, if any.

        Its calls write no attributes and call nobody back.
        """
        inside: Any = self
        while inside is not None and inside.carries:
            inside = inside.outer
        return inside

    def encloses(self, other: Any) -> bool:
        """Whether another trace is open around this one."""
        outer = self.outer
        while outer is not None and outer is not other:
            outer = outer.outer
        return other is not None and outer is not None and other.active

    def _capture(self, kind: str, key: Any, source: Any, type: TensorType, name: str) -> Node:
        found = self._by_key.get((kind, key))
        if found is None:
            origin = user_origin() if kind == "value" else None
            found = Capture(placeholder(type), kind, source, origin)
            self._by_key[kind, key] = found
            self.captures.append(found)
            if kind == "value" and source._array is not None:
                self._guard_array(source._array, name)
            self.names[found.node] = name
        return found.node

    def _guard_array(self, array: np.ndarray[Any, Any], name: str) -> None:
        """A NumPy array can be given another shape or dtype where it lies."""
        shape, dtype = array.shape, array.dtype
        self.guards.append(
            Guard(
                lambda: array.shape == shape and array.dtype == dtype,
                f"the captured array {name} had shape {shape} and dtype {dtype}",
            )
        )

    def note(self, node: Node) -> None:
        """Remember the user's line and the module path of a new node."""
        if node not in self.origins and node.op not in (Op.INPUT, Op.CONST):
            frame = user_frame()
            if frame is not None:
                path = module_path.get()
                self.origins[node] = Origin(frame.f_code.co_filename, frame.f_lineno, path)
                if self.reads is not None and not self._is_caller(frame):
                    self.reads.running(frame)

    def _is_caller(self, frame: FrameType) -> bool:
        """Whether a frame called the traced function: einkorn's own functions call no user code."""
        if self._callers is None:
            self._callers = set()
            found = self.reads and self.reads._root
            while found:
                self._callers.add(id(found))
                found = found.f_back
        return id(frame) in self._callers

    def where(self, node: Node | None) -> str:
        """The user's line that made a node, for messages."""
        origin = self.origins.get(node) if node is not None else None
        return f" (it was made at {origin})" if origin else ""

    def unknown(self, what: str, node: Node | None) -> TraceError:
        """The error of `what`, which asks for the value of a node."""
        return TraceError(MSG_CONCRETE.format(what=what, trace=self.name, where=self.where(node)))

    # -- state ---------------------------------------------------------------------------------

    def _keep_own(self) -> None:
        """Make state of the leaves that were made and written here and are held elsewhere."""
        if not self.own.nodes or not self.carries:
            return
        for leaf in self.own.nodes:
            self.seen.forget(leaf)
            del leaf
        self._versions = [pair for pair in self._versions if pair[0] not in self.own]
        if self.reads is not None and self.outer is None:
            self.reads.release()
        for leaf, last, grad in self.own.release(self._current, self._grads, self.outer is None):
            if last is not None:
                self._capture("leaf", leaf, leaf, leaf._type, leaf.name or f"leaf{leaf.id}")
                self._current[leaf] = last
            self._grads.update((leaf, x) for x in grad)

    def assign(self, leaf: Leaf, value: Tensor) -> None:
        """`leaf.value = value`: a new version of the leaf for the rest of the trace."""
        self.node_of(leaf)  # captured, so that the commit knows it
        node = self.node_of(value)
        if node.dtype.is_inexact:  # no gradient flows through an assignment
            node = make(Op.STOP_GRADIENT, node)
        if leaf in self.own and not self.carries:
            self.seen.renewed[id(leaf)] = leaf
        self._current[leaf] = alias(node)
        self._versions.append((leaf, self._current[leaf]))

    def trainable_behind(self, output: Value) -> list[tuple[Leaf, Node]]:
        """The trainable leaves that `output` depends on, each version of them with its node.

        Leaves in the order of their creation, versions in the order of assignment.
        """
        if not self.tracks(output):
            return []
        reached = set(toposort([self.node_of(output)], into=carries_gradient))
        first = [(c.source, c.node) for c in self.captures if c.kind == "leaf"]
        first += self.own.nodes.items()
        found = [
            (leaf, node)
            for leaf, node in (*first, *self._versions)
            if leaf._trainable and node in reached
        ]
        return sorted(found, key=lambda pair: pair[0].id)

    def grad_of(self, leaf: Leaf) -> Tensor | None:
        """`leaf.grad` inside the trace."""
        if leaf in self._grads:
            return self._grads[leaf]
        if leaf in self.own:
            return None
        if self.outer is not None:
            grad = self.outer.grad_of(leaf)
            return None if grad is None else traced(self.node_of(grad), self)
        present = leaf._grad is not None
        self.guard_call(
            ("grad", leaf),
            lambda: (leaf._grad is not None) == present,
            f"{leaf.name or 'a leaf'}.grad",
        )
        if not present:
            return None
        node = self._capture("grad", leaf, leaf, leaf._type, f"{leaf.name}.grad")
        return traced(node, self)

    def set_grad(self, leaf: Leaf, grad: Tensor | None) -> None:
        self._grads[leaf] = grad

    # -- numbers, settings and modes -----------------------------------------------------------

    def setting(self, owner: Any, name: str, value: Any) -> Any:
        """A numeric setting as a run-time scalar; anything else is guarded."""
        if type(value) is not float:
            self.guard(owner, name, value)
            return value
        source = Attribute(owner, name, gone=settings_gone)
        number = self.number("setting", source, value)
        if ("float", source.key) not in self._guarded:
            self._guarded.add(("float", source.key))
            reason = f"{type(owner).__name__.lower()}.{name} was a float"
            self.guards.append(Guard(lambda: type(source.value) is float, reason, True))
        return number

    def number(self, kind: str, source: Attribute, value: Any) -> Tensor:
        """The input that stands for an attribute which is a number, as a run-time scalar."""
        label = f"{type(source.held()).__name__.lower()}.{source.name}"
        type_ = TensorType(float64 if isinstance(value, float) else int64, ())
        node = self._capture(kind, source.key, source, type_, label)
        self._numbers[node] = value
        return result(type_, node=node, trace=self, weak=True)

    def tensor(self, source: Attribute, value: Tensor) -> Tensor:
        """The input that stands for an attribute which is a tensor."""
        label = f"{type(source.held()).__name__.lower()}.{source.name}"
        node = self._capture("attribute", source.key, source, value._type, label)
        tracks = value._tracked() is not None
        return result(value._type, node=node, trace=self, tracks=tracks)

    def guard(self, owner: Any, name: str, value: Any) -> None:
        """Note that the trace holds for this value of an attribute only."""
        if (id(owner), name) in self._guarded:
            return
        self._guarded.add((id(owner), name))
        # A `Tunable` announces every change but that of a float to another.
        announced = type(value) is not float and is_tunable(owner, name)
        self.guards.append(attribute_guard(owner, name, value, announced))

    def guard_call(self, key: Any, holds: Callable[[], bool], reason: str) -> None:
        """Note a condition that the trace needs, once for each key."""
        if key not in self._guarded:
            self._guarded.add(key)
            self.guards.append(Guard(holds, reason))

    def refuse_write(self, owner: Any, name: str) -> None:
        kind = type(owner)
        instead = _OUTSIDE if isinstance(getattr(kind, name, None), Mode) else _SCHEDULE
        raise TraceError(
            MSG_SETTING.format(owner=kind.__name__, name=name, trace=self.name, instead=instead)
        )

    def specialise(self, value: Value, what: str) -> Any:
        """The Python number that a scalar input stands for; the trace holds for it alone."""
        assert value._node is not None
        found = toposort([value._node])
        for node in found:
            if node.op is Op.SIZE:
                raise node.attr("size").unknown(what)
        bases = [node for node in found if node.op is Op.INPUT]
        known = {node: np.asarray(self._specialise_input(node, what)) for node in bases}
        return evaluate([value._node], known)[0].item()

    def number_of(self, node: Any) -> Any:
        """The Python number that an input stands for; None for any other node."""
        return self._numbers.get(node)

    def branch(self, value: Value) -> bool | None:
        """The outcome of `if value:`; None where a branch cannot be decided."""
        if self.branches is None or current_trace.get() is not self or not self.active:
            return None
        if self.token is not None:
            where = self.where(self.token.inputs[0])
            raise TraceError(
                MSG_ORDER.format(trace=self.name, callback=where, branch=user_origin())
            )
        node = self.node_of(value)
        if node.dtype is not bool_:
            zero = make(Op.BROADCAST, constant(node.dtype, 0), shape=node.shape)
            node = make(Op.NE, node, zero)
        if node.shape:
            node = make(Op.RESHAPE, node, shape=())
        return self.branches.decide(node, user_origin())

    def decide(self, condition: Value) -> bool | None:
        """The outcome of a bool scalar that numbers alone decide; None where it cannot be checked.

        A call in which it is otherwise uses another trace.
        """
        if self.branches is None or not self.active or self.token is not None:
            return None  # (nothing may be called twice)
        node = self.node_of(condition)
        found = toposort([node])
        if any(x.op in (Op.INPUT, Op.SIZE) and x not in self._numbers for x in found):
            return None
        known = {x: np.asarray(self._numbers[x]) for x in found if x.op is Op.INPUT}
        expected = bool(evaluate([node], known)[0])
        return self.branches.decide(node, user_origin(), expected)

    def assume_not(self, condition: Value) -> bool:
        """Whether a bool scalar holds; a call in which it is otherwise uses another trace."""
        assert self.branches is not None
        if self.token is not None:  # nothing may be called twice
            return True
        return self.branches.decide(self.node_of(condition), user_origin(), expected=False)

    def _specialise_input(self, node: Node, what: str) -> Any:
        if node in self.specialised:
            return self._numbers[node]
        if node not in self._numbers:
            outside = next((c.source for c in self.captures if c.node is node), None)
            if isinstance(outside, Value) and outside._trace is not None:
                return outside._trace.specialise(outside, what)
            text = f"{what} needs the value of a number that only exists when {self.name} runs"
            raise TraceError(text)
        self.specialised[node] = self._numbers[node]
        self.reasons.append(f"{what} needed the value of {self.names[node]}, at {user_origin()}")
        for capture in self.captures:
            if capture.node is node:
                self.guard(capture.source.held(), capture.source.name, self._numbers[node])
        return self._numbers[node]

    # -- the end -------------------------------------------------------------------------------

    def finish(self, outputs: list[Tensor]) -> tuple[Graph, list[Leaf], list[Leaf]]:
        """The graph, the leaves that its updates belong to, and the leaves whose grads follow.

        The outputs of the graph are those given, then the gradients that the function left behind,
        then what it prints, then the outcomes of its branches.
        """
        self._keep_own()
        nodes = [self.node_of(x) for x in outputs]
        with_grad = [leaf for leaf, grad in self._kept_grads() if grad is not None]
        for leaf in with_grad:
            grad = self._grads[leaf]
            assert grad is not None
            nodes.append(self.node_of(grad))
        nodes += [self.node_of(x) for line in self.lines or () for x in line.tensors]
        if self.token is not None:
            nodes.append(self.token)
        if self.branches is not None:
            nodes += [branch.check for branch in self.branches.taken]
        updated = [leaf for leaf in self._current if leaf not in self.own]
        placeholders = {c.source: c.node for c in self.captures if c.kind == "leaf"}
        updates = tuple((placeholders[leaf], self._current[leaf]) for leaf in updated)
        captures = tuple(c.node for c in self.captures)
        name, inputs = self.graph_name or self.name, tuple(self.inputs)
        graph = Graph(name, inputs, captures, tuple(nodes), updates, self.names, self.origins)
        return graph, updated, with_grad

    @property
    def cleared_grads(self) -> list[Leaf]:
        """The leaves whose gradient the function set to None."""
        return [leaf for leaf, grad in self._kept_grads() if grad is None]

    def _kept_grads(self) -> list[tuple[Leaf, Tensor | None]]:
        """The gradients of leaves that are still there after the call."""
        return [pair for pair in self._grads.items() if pair[0] not in self.own]


def carries_gradient(node: Node) -> bool:
    """Whether a gradient can flow through a node."""
    is_float = isinstance(node.type, TupleType) or node.type.dtype.is_inexact
    return is_float and node.op is not Op.STOP_GRADIENT


@contextmanager
def tracing(trace: Trace) -> Any:
    """Make `trace` the current one; it is closed at the end, also when the function raises."""
    token = current_trace.set(trace)
    try:
        with reads_watched():
            yield trace
    finally:
        trace.active = False
        current_trace.reset(token)
