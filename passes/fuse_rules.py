"""What a group of `fuse` may take in: the roles of nodes in its index space, and its limits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

from einkorn.ir.host_calls import is_host_node
from einkorn.ir.loops import COLUMN_BLOCK, COLUMN_CHUNK, PARTIALS, REDUCTIONS, ROW_BLOCK
from einkorn.ir.node import Node
from einkorn.ir.ops import OPS, Op
from einkorn.passes.costs import SCRATCH_BYTES, SIMPLE_NS, op_cost
from einkorn.passes.views import Reach

Ints = tuple[int, ...]

MAX_BUFFERS = 24  # read and written by one kernel: addresses and strides stay in registers or L1
MAX_MEMBERS = 96  # ops of one kernel: compile time grows with them
MAX_ROW = 16384  # elements of a row that is passed over again: the passes find it in the cache
ALONE = 32768  # elements up to which a kernel runs on one thread anyway
PARALLEL = 8  # work items that a kernel over more elements should have
CONTRACTIONS = (Op.DOT, Op.CONV, Op.CONV_FILTER)
SMALL = 4096  # elements up to which a launch costs more than lanes that idle


@dataclass(eq=False, slots=True)
class Cluster:
    """A group while it grows.

    Attributes:
        index: its place in the order of execution.
        kind: see the top of passes/fuse.py.
        space: the sizes of its index space.
        roles: what each member is in it: "lane" (one value for each index), "row" (one for each
            row) or "total" (of a reduction that other groups read).
        stages: for each member the number of reductions over a row that lead to it, one after the
            other: the kernel passes over a row once more for each.
        reads: operands from elsewhere.
        stored: how many members other groups or the caller read in any case.
        into: the cluster that took this one in, if any.
    """

    index: int
    kind: str
    space: Ints
    roles: dict[Node, str] = field(default_factory=dict[Node, str])
    stages: dict[Node, int] = field(default_factory=dict[Node, int])
    reads: set[Node] = field(default_factory=set[Node])
    stored: int = 0
    into: Cluster | None = None

    @property
    def size(self) -> int:
        return prod(self.space)

    @property
    def buffers(self) -> int:
        """How many buffers its kernel reads and writes at least."""
        return len(self.reads) + self.stored

    @property
    def is_full(self) -> bool:
        return len(self.roles) >= MAX_MEMBERS or self.buffers >= MAX_BUFFERS - 1

    @property
    def shape(self) -> Ints:
        """The shape of the first member: for a dot's cluster that of the dot."""
        return next(iter(self.roles)).shape

    def stage_of(self, node: Node, inside: list[Reach]) -> int:
        """The stage that `node` would have, given its operands among the members."""
        before = max((self.stages[found.base] for found in inside), default=0)
        return before + (node.op in REDUCTIONS)


def is_pointwise(node: Node) -> bool:
    """Whether a loop nest computes the node from operands at the same index."""
    row = OPS[node.op]
    return row.elementwise and not row.view and not is_host_node(node)


def is_source(node: Node) -> bool:
    """Whether nothing computes the node: it is bound at a call, or known."""
    return node.op in (Op.INPUT, Op.CONST)


def maker(base: Node) -> Node:
    """The node that computes what is read: for a projection the one with several results."""
    return base.inputs[0] if base.op is Op.PROJECT else base


def is_normal(node: Node) -> bool:
    """Whether a node is a reduction in one of the forms of passes/decompose.py, over something."""
    if node.op not in REDUCTIONS or node.inputs[0].tensor.size == 0 or is_host_node(node):
        return False
    rank, axes = len(node.inputs[0].shape), node.attr("axes")
    return (rank, axes) in ((1, (0,)), (2, (1,)), (3, (1,)))


def may_share(node: Node, found: Reach) -> bool:
    """Whether `node` might be computed in the kernel that computes what it reads."""
    base = found.base
    if found.repeat == 0 or not (is_pointwise(node) or is_normal(node)):
        return False
    if base.op in CONTRACTIONS:
        return is_pointwise(node) and found.repeat == 1
    if not (is_pointwise(base) or is_normal(base)):
        return False
    if is_normal(base):
        return alone(base)[0] == "rows"
    return found.repeat == 1 or base.tensor.size > 1


def alone(node: Node) -> tuple[str, Ints, str]:
    """Kind, space and role of a node in a cluster of its own."""
    if node.op in CONTRACTIONS and node.tensor.size and not is_host_node(node):
        return "dot", (node.tensor.size,), "lane"
    if is_pointwise(node):
        return "map", (node.tensor.size,), "lane"
    if not is_normal(node):
        return "single", (node.type.size,), "total"
    shape = node.inputs[0].shape
    if len(shape) == 3:
        return "columns", shape, "total"
    if len(shape) == 2:
        return "rows", shape, "row"
    (n,) = shape
    return ("rows", (1, n), "row") if n <= 2 * ROW_BLOCK else ("blocks", (n,), "total")


def role_in(cluster: Cluster, node: Node, operands: list[tuple[Node, Reach]]) -> str | None:
    """What `node` would be in the cluster; None when the cluster cannot take it."""
    inside = [found for _, found in operands if found.base in cluster.roles]
    if any(cluster.roles[found.base] == "total" or not found.repeat for found in inside):
        return None
    if cluster.kind == "single":
        return None
    if cluster.kind == "dot":
        return _role_in_dot(cluster, node, operands)
    if node.op in REDUCTIONS:
        return _role_of_reduction(cluster, node, inside)
    if node.tensor.size == cluster.size:
        return _role_of_lane(cluster, node, inside)
    if cluster.kind in ("rows", "bands") and node.tensor.size == cluster.space[0] and inside:
        rows = all(cluster.roles[found.base] == "row" and found.repeat == 1 for found in inside)
        return "row" if rows else None
    if cluster.kind == "map" and inside and _widens_to_rows(cluster, node, inside):
        return "lane"
    return None


def _role_in_dot(cluster: Cluster, node: Node, operands: list[tuple[Node, Reach]]) -> str | None:
    """Elementwise nodes join the dot they read, in its own shape."""
    direct = [x for x, _ in operands if x in cluster.roles]
    inside = [x for x, found in operands if found.base in cluster.roles]
    same = is_pointwise(node) and node.shape == cluster.shape
    return "lane" if same and direct and len(direct) == len(inside) else None


def _role_of_lane(cluster: Cluster, node: Node, inside: list[Reach]) -> str | None:
    """Elementwise nodes join a cluster of their size, reading members at the same index."""
    if cluster.kind in ("rows", "bands", "columns") and wastes_lanes(cluster.space, [node]):
        return None
    for found in inside:
        row = cluster.roles[found.base] == "row"
        if found.repeat != (cluster.space[-1] if row else 1):
            return None
        if row and cluster.space[-1] > MAX_ROW:
            return None
    return "lane"


def _role_of_reduction(cluster: Cluster, node: Node, inside: list[Reach]) -> str | None:
    """Reductions join a cluster over their operand's elements, if that is split the same way."""
    kind, space, role = alone(node)
    if any(cluster.roles[found.base] != "lane" or found.repeat != 1 for found in inside):
        return None
    if cluster.kind == "map":
        same = cluster.size == prod(space) and not wastes_lanes(space, cluster.roles)
        return role if same and _stays_parallel(kind, space) else None
    if cluster.kind in ("rows", "bands"):
        if (kind, space) == ("rows", cluster.space):
            return "row" if _has_room(cluster, node, inside) else None
        return "total" if _adds_up_in_bands(cluster, space) else None
    return role if (cluster.kind, cluster.space) == (kind, space) else None


def _adds_up_in_bands(cluster: Cluster, space: Ints) -> bool:
    """Whether bands of rows can give the partial results of a reduction over columns or over all.

    For all elements that takes rows that fill blocks of the canonical order evenly.
    """
    rows, n = cluster.space
    if cluster.size > ALONE and -(-rows // COLUMN_BLOCK) < PARALLEL:
        return False
    if len(space) == 3:
        return space == (1, rows, n)
    is_whole = space in ((cluster.size,), (1, cluster.size))
    return is_whole and n % PARTIALS == 0 and ROW_BLOCK % n == 0


def _stays_parallel(kind: str, space: Ints) -> bool:
    """Whether a map may be computed with a reduction of that kind."""
    if prod(space) <= ALONE or kind == "blocks":
        return True
    if kind == "rows":
        return space[0] >= PARALLEL
    outer, rows, columns = space
    return outer * -(-rows // COLUMN_BLOCK) * -(-columns // COLUMN_CHUNK) >= PARALLEL


def wastes_lanes(space: Ints, nodes: Iterable[Node]) -> bool:
    """Whether nodes would be computed on vectors that the rows of a space do not fill.

    Dear ones are better off in a map of their own, unless everything is small.
    """
    if space[-1] >= PARTIALS or prod(space) <= SMALL:
        return False
    return any(op_cost(node.op) > SIMPLE_NS for node in nodes)


def _has_room(cluster: Cluster, node: Node, inside: list[Reach]) -> bool:
    """Whether a further pass over a row finds what the passes before it have kept.

    Two passes may compute again what does not fit, that costs less than memory; further ones would
    compute everything again each time.
    """
    stage = cluster.stage_of(node, inside)
    nbytes = max(node.dtype.itemsize, 4) * cluster.space[-1]
    return stage <= 2 or stage * nbytes <= SCRATCH_BYTES


def _widens_to_rows(cluster: Cluster, node: Node, inside: list[Reach]) -> bool:
    """Whether a map over R elements can become rows [R, n], of which it computes one value each."""
    repeats = {found.repeat for found in inside}
    n = node.tensor.size // max(cluster.size, 1)
    return (
        cluster.size > 1
        and repeats == {n}
        and n <= MAX_ROW
        and not wastes_lanes((cluster.size, n), [node])
        and (node.tensor.size <= ALONE or cluster.size >= PARALLEL)
    )


def take_space(cluster: Cluster, node: Node, role: str) -> None:
    """Give a map the index space that its new member asks for."""
    if cluster.kind == "rows" and role == "total":
        cluster.kind = "bands"
    if cluster.kind != "map" or not cluster.roles:
        return
    if node.op in REDUCTIONS:
        cluster.kind, cluster.space, _ = alone(node)
    elif node.tensor.size != cluster.size:
        cluster.kind = "rows"
        cluster.space = (cluster.size, node.tensor.size // cluster.size)
        cluster.roles = dict.fromkeys(cluster.roles, "row")
