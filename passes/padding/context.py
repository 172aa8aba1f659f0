"""What padding rules work with: the padded nodes, the lengths of the call, and masks.

A rule gets a node whose type has sizes (`ir/sizes.py`) and its operands with padding, and gives a
node with padding: plain ints everywhere. In front of the true size of every axis it has the
elements of the unpadded node, to the bit; what comes behind is anything: a number, NaN, infinity.
So a rule that lets elements along an axis meet each other replaces what is behind first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce

from einkorn.ir.dtypes import DType, int64
from einkorn.ir.errors import SizeError
from einkorn.ir.graph import Graph, Origin, graphs_of
from einkorn.ir.node import Node, constant, make, placeholder, remake, toposort
from einkorn.ir.ops import Op
from einkorn.ir.sizes import Length, Size, has_size, plain
from einkorn.ir.types import TensorType, TupleType, Type
from einkorn.passes.autodiff import expand
from einkorn.passes.build import add, broadcast, filled, mul, reshape, select

Ints = tuple[int, ...]

MSG_REFUSED = (
    "{op}{where} cannot be padded: {why} (its operands: {types}; buckets: {lengths}). {remedy}"
)
LEAVE_OUT = "Leave this axis out of buckets, so that each of its sizes has a trace of its own"


def padded(value: Ints) -> Ints:
    """A shape or attribute with every size as long as its padding."""
    return plain(value, _longest)


def _longest(size: Size) -> int:
    return size.padded


def sizes_in(type: Type) -> list[Size]:
    """The sizes in a type that are known when a step runs."""
    items = type.items if isinstance(type, TupleType) else (type,)
    return [n for item in items for n in item.shape if isinstance(n, Size)]


class Padding:
    """One graph being padded.

    Attributes:
        env: what stands for each node, padded.
        lengths: those that the call brings.
        scalars: the int64 inputs that they are here.
    """

    def __init__(
        self,
        graph: Graph,
        lengths: Sequence[Length],
        rules: Mapping[Op, Rule],
        reasons: Mapping[Op, str],
    ) -> None:
        """
        Args:
            graph: with sizes; `grad` and `call` in it are expanded first.
            lengths: those that the call brings.
            rules: one for each op that can be padded.
            reasons: why the others cannot.
        """
        self.flat = expand(graph)
        self.lengths = tuple(lengths)
        self.scalars = tuple([placeholder(TensorType(int64, ())) for _ in lengths])
        self.env = {x: placeholder(type_of(x)) if sizes_in(x.type) else x for x in self.flat.params}
        self._rules, self._reasons = rules, reasons
        self._closed: dict[tuple[Graph, int], Graph] = {}
        self._source: Node | None = None  # the node of the graph whose rule is at work

    def graph(self, split: int) -> Graph:
        """The padded graph; the lengths are its inputs behind the first `split`."""
        flat, env = self.flat, self.env
        origins: dict[Node, Origin] = {}
        known = set(env.values())
        for node in flat.nodes:
            self._source = node
            made = toposort([self(node)], into=lambda inner: inner not in known)
            if node in flat.origins:
                places = ((inner, flat.origins[node]) for inner in made if inner not in known)
                origins.update(places)
            known.update(made)
        names = {env[x]: name for x, name in flat.names.items() if x in env}
        names.update((x, length.name) for x, length in zip(self.scalars, self.lengths))
        inputs = [env[x] for x in flat.inputs]
        return replace(
            flat.with_results([env[node] for node in flat.results]),
            inputs=(*inputs[:split], *self.scalars, *inputs[split:]),
            names=names,
            origins=origins,
        )

    def closed(self, graph: Graph, split: int) -> Graph:
        """The padded form of a closed graph that a node applies."""
        key = graph, split
        if key not in self._closed:
            inner = Padding(graph, self.lengths, self._rules, self._reasons)
            self._closed[key] = inner.graph(split)
        return self._closed[key]

    def __call__(self, root: Node) -> Node:
        """The padded node for one with sizes, which a rule may have made."""
        for node in toposort([root], into=lambda node: node not in self.env):
            if node not in self.env:
                self.env[node] = self._made(node)
        return self.env[root]

    def _made(self, node: Node) -> Node:
        operands = tuple([self.env[x] for x in node.inputs])
        if not touches(node):
            return remake(node, operands)
        rule = self._rules.get(node.op)
        if rule is None:
            raise self.refused(node, self._reasons[node.op])
        return rule(self, node, operands)

    # -- parts of rules ------------------------------------------------------------------------

    def number(self, size: int, dtype: DType = int64) -> Node:
        """A size as a scalar, computed from the lengths of the call."""
        return number_of(size, dict(zip(self.lengths, self.scalars)), dtype)

    def inside(self, shape: Ints, axes: Sequence[int]) -> Node | None:
        """Where an element is in front of the padding along each of some axes; None: everywhere."""
        return self.before([(k, shape[k]) for k in axes if isinstance(shape[k], Size)], shape)

    def before(self, limits: Sequence[tuple[int, int]], shape: Ints) -> Node | None:
        """Where the index along each axis is less than a size, as bool of the padded shape."""
        full, found = padded(shape), None
        for axis, size in limits:
            index = make(Op.IOTA, size=full[axis], dtype=int64)
            less = make(Op.LT, index, broadcast(self.number(size), index.shape))
            column = reshape(less, tuple(n if k == axis else 1 for k, n in enumerate(full)))
            here = broadcast(column, full)
            found = here if found is None else make(Op.AND, found, here)
        return found

    def cleared(self, x: Node, shape: Ints, axes: Sequence[int], value: float | int) -> Node:
        """`x`, whose true shape is given, with a value in the padding of some axes."""
        mask = self.inside(shape, axes)
        return x if mask is None else select(mask, x, filled(x.tensor, value))

    def refused(self, node: Node, why: str, remedy: str = LEAVE_OUT) -> SizeError:
        """The error of a node that cannot be padded, with the user's line."""
        origin = self.flat.origins.get(self._source or node)
        types = [x.type for x in node.inputs] or [node.type]
        known = sorted({length for type in types for n in sizes_in(type) for length in n.lengths})
        text = MSG_REFUSED.format(
            op=node.op.name.lower(),
            where=f" at {origin}" if origin else "",
            why=why,
            types=", ".join(map(str, types)),
            lengths=", ".join(f"{x.name} from {x.low} to {x.high}" for x in known) or "in its body",
            remedy=remedy,
        )
        return SizeError(text)


Rule = Callable[[Padding, Node, tuple[Node, ...]], Node]
"""(the padding, a node with sizes, its padded operands) -> the padded node."""


def number_of(size: int, scalars: Mapping[Length, Node], dtype: DType = int64) -> Node:
    """A size as a scalar, computed from lengths."""
    if not isinstance(size, Size):
        return constant(dtype, size)
    total = reduce(add, [_term(scalars, *term) for term in size.terms])
    return total if dtype is int64 else make(Op.CAST, total, dtype=dtype)


def _term(scalars: Mapping[Length, Node], lengths: Sequence[Length], coefficient: int) -> Node:
    factors = [scalars[length] for length in lengths]
    if coefficient != 1 or not factors:
        factors.insert(0, constant(int64, coefficient))
    return reduce(mul, factors)


def touches(node: Node) -> bool:
    """Whether there is a size in a node: its type, its operands, its attributes, its graphs."""
    if any(sizes_in(type) for type in (node.type, *(x.type for x in node.inputs))):
        return True
    if any(has_size(value) for _, value in node.attrs):
        return True
    return any(touches(inner) for graph in graphs_of(node) for inner in graph.nodes)


def same(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """The op on the padded operands, with padded attributes: each element comes from one place."""
    attrs = {name: padded(value) for name, value in node.attrs}
    return make(node.op, *operands, **attrs)


def type_of(node: Node) -> TensorType:
    """The type of a node with padding."""
    return node.tensor.with_shape(padded(node.shape))
