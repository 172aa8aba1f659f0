"""Pass `fuse`: group nodes into kernels. Changes no value, and no bit of one.

Nodes are visited in a topological order that keeps producers, consumers and readers of the same
data close; each joins the first group that takes it, or starts a new one. Groups are computed in
the order in which they were started. A node joins only a group that comes no earlier than those it
reads, so groups can never depend on each other in a circle.

A group has an index space, and a node finds its place in it by flat index: reshapes are free, and
one value for each row is repeated along the row.

    "map"      elementwise nodes of one size
    "rows"     [R, n]: also reductions over n, and what is computed from them
    "bands"    rows, with reductions over R or over all elements that only other groups read
    "blocks"   [n], long: also reductions to one element, in parts that run in parallel
    "columns"  [O, R, C]: also reductions over R
    "dot"      a contraction, and elementwise nodes on its finished elements
    "single"   any other op, alone

Cost rule. Every node is computed once, in one group; what another group needs is stored. Joining a
group saves a pass over memory and a launch, so a node joins whenever it can, except where that
would take parallelism away or exceed what a kernel can hold (the limits below).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from math import prod

from einkorn.ir.graph import Graph
from einkorn.ir.loops import COLUMN_BLOCK, COLUMN_CHUNK, PARTIALS, REDUCTIONS, ROW_BLOCK
from einkorn.ir.node import Node
from einkorn.ir.ops import OPS, Op
from einkorn.passes.launches import Group, Groups
from einkorn.passes.views import Reach, reach, scalar_constant

Ints = tuple[int, ...]

MAX_BUFFERS = 24  # read and written by one kernel: addresses and strides stay in registers or L1
MAX_MEMBERS = 96  # ops of one kernel: compile time grows with them
MAX_ROW = 16384  # elements of a row that is passed over again: the passes find it in the cache
ALONE = 32768  # elements up to which a kernel runs on one thread anyway
PARALLEL = 8  # work items that a kernel over more elements should have


def is_pointwise(node: Node) -> bool:
    """Whether a loop nest computes the node from operands at the same index."""
    return OPS[node.op].elementwise and not OPS[node.op].view


def fuse(graph: Graph) -> Groups:
    """Choose what is computed together."""
    fusion = _Fusion(graph)
    for node in fusion.order():
        fusion.place(node)
    return fusion.groups()


@dataclass(eq=False, slots=True)
class _Cluster:
    """A group while it grows.

    Attributes:
        index: its place in the order of execution.
        kind: see the top of this file.
        space: the sizes of its index space.
        roles: what each member is in it: "lane" (one value for each index), "row" (one for each
            row) or "total" (of a reduction that other groups read).
        reads: operands from elsewhere.
        into: the cluster that took this one in, if any.
    """

    index: int
    kind: str
    space: Ints
    roles: dict[Node, str] = field(default_factory=dict[Node, str])
    reads: set[Node] = field(default_factory=set[Node])
    into: _Cluster | None = None

    @property
    def size(self) -> int:
        return prod(self.space)


class _Fusion:
    """The clusters of one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.clusters: list[_Cluster] = []
        self.home: dict[Node, _Cluster] = {}
        self.readers: dict[Node, list[_Cluster]] = {}
        self._reach: dict[Node, Reach] = {}
        self._scalars: _Cluster | None = None
        self._results = {self.reach(x).base for x in graph.results}

    def reach(self, x: Node) -> Reach:
        """What stored or computed node `x` shows, and how."""
        if x not in self._reach:
            self._reach[x] = reach(x)
        return self._reach[x]

    def operands(self, node: Node) -> list[tuple[Node, Reach]]:
        """The operands that are not constants, each with what it shows."""
        return [(x, self.reach(x)) for x in node.inputs if scalar_constant(x) is None]

    # -- the order of visits -------------------------------------------------------------------

    def order(self) -> list[Node]:
        """Nodes that compute something, by the kernels that must come before them; scalars first.

        What the scalars of a step give (a learning rate, a bias correction) is then ready before
        the kernels over many elements, which can take in what reads them.
        """
        nodes = [n for n in self.graph.nodes if not _is_source(n) and not OPS[n.op].view]
        place = {node: k for k, node in enumerate(nodes)}
        users: dict[Node, list[Node]] = {node: [] for node in nodes}
        waiting: dict[Node, int] = {}
        for node in nodes:
            bases = {found.base for x in node.inputs if (found := self.reach(x)).base in place}
            waiting[node] = len(bases)
            for base in bases:
                users[base].append(node)
        depth: dict[Node, int] = {}
        ready: list[tuple[int, bool, int]] = []

        def visit(node: Node) -> None:
            depth[node] = max((self._depth(node, x, depth) for x in node.inputs), default=0)
            heapq.heappush(ready, (depth[node], node.tensor.size != 1, place[node]))

        for node in nodes:
            if not waiting[node]:
                visit(node)
        found: list[Node] = []
        while ready:
            node = nodes[heapq.heappop(ready)[2]]
            found.append(node)
            for user in users[node]:
                waiting[user] -= 1
                if not waiting[user]:
                    visit(user)
        return found

    def _depth(self, node: Node, x: Node, depth: dict[Node, int]) -> int:
        """The number of kernels that must come before `node` because of its operand `x`."""
        found = self.reach(x)
        before = depth.get(found.base)
        if before is None:
            return 0
        return before if _may_share(node, found) else before + 1

    # -- placing -------------------------------------------------------------------------------

    def place(self, node: Node) -> None:
        """Put a node into the first cluster that takes it, or into a new one."""
        operands = self.operands(node)
        self._join_sources(node, operands)
        for cluster in self._candidates(node, operands):
            role = _role(cluster, node, operands)
            if role is not None and self._fits(cluster, node, operands):
                self._add(cluster, node, role, operands)
                return
        kind, space, role = _alone(node)
        cluster = _Cluster(len(self.clusters), kind, space)
        self.clusters.append(cluster)
        self._add(cluster, node, role, operands)

    def _candidates(self, node: Node, operands: list[tuple[Node, Reach]]) -> list[_Cluster]:
        if node.tensor.size == 0 or not (is_pointwise(node) or _is_normal(node)):
            return []
        homes = [self.home[found.base] for _, found in operands if found.base in self.home]
        first = max((cluster.index for cluster in homes), default=0)
        near = {cluster.index: cluster for cluster in homes}
        for x, found in operands:
            if x.tensor.size == found.base.tensor.size > 1:
                near.update((c.index, c) for c in self._readers(found.base))
        if node.tensor.size == 1 and self._scalars is not None:
            near[self._scalars.index] = self._scalars
        return [near[index] for index in sorted(near) if index >= first]

    def _fits(self, cluster: _Cluster, node: Node, operands: list[tuple[Node, Reach]]) -> bool:
        new = {x for x, found in operands if found.base not in cluster.roles} - cluster.reads
        buffers = (
            len(cluster.reads) + len(new) + sum(node in self._results for node in cluster.roles)
        )
        return buffers < MAX_BUFFERS and len(cluster.roles) < MAX_MEMBERS

    def _add(
        self, cluster: _Cluster, node: Node, role: str, operands: list[tuple[Node, Reach]]
    ) -> None:
        _reshape_cluster(cluster, node, role)
        cluster.roles[node] = role
        self.home[node] = cluster
        for x, found in operands:
            if found.base not in cluster.roles:
                cluster.reads.add(x)
            known = self.readers.setdefault(found.base, [])
            if not known or known[-1] is not cluster:
                known.append(cluster)
        if cluster.kind == "map" and cluster.size == 1:
            self._scalars = cluster

    def _readers(self, base: Node) -> list[_Cluster]:
        """The clusters that read a node, those they were taken into."""
        found: list[_Cluster] = []
        for cluster in self.readers.get(base, ()):
            while cluster.into is not None:
                cluster = cluster.into
            found.append(cluster)
        return found

    # -- joining clusters ----------------------------------------------------------------------

    def _join_sources(self, node: Node, operands: list[tuple[Node, Reach]]) -> None:
        """Make one cluster of those that a node reads, where they compute one size side by side."""
        if not (is_pointwise(node) or _is_normal(node)):
            return
        size = node.inputs[0].tensor.size
        homes = {
            self.home[found.base].index: self.home[found.base]
            for _, found in operands
            if found.base in self.home and found.repeat == 1
        }
        near = [homes[index] for index in sorted(homes) if homes[index].size == size]
        if near:
            late = near[-1]
            for early in reversed(near[:-1]):
                if early.kind == "map" and self._can_join(early, late):
                    late = self._join(early, late)

    def _can_join(self, early: _Cluster, late: _Cluster) -> bool:
        if late.kind in ("dot", "single"):
            return False
        crossing = [self.reach(x) for x in late.reads if self.reach(x).base in early.roles]
        if any(found.repeat != 1 for found in crossing):
            return False
        reads = {x for x in early.reads | late.reads if self.reach(x).base not in early.roles}
        results = [node for c in (early, late) for node in c.roles if node in self._results]
        if len(reads) + len(results) >= MAX_BUFFERS:
            return False
        if len(early.roles) + len(late.roles) >= MAX_MEMBERS:
            return False
        return self._moves_back(early, late) or self._moves_ahead(early, late)

    def _moves_back(self, early: _Cluster, late: _Cluster) -> bool:
        """Whether everything that reads `early` comes no earlier than `late`."""
        readers = (c for node in early.roles for c in self._readers(node))
        return all(c is early or c.index >= late.index for c in readers)

    def _moves_ahead(self, early: _Cluster, late: _Cluster) -> bool:
        """Whether everything that `late` reads comes no later than `early`."""
        bases = (self.reach(x).base for x in late.reads)
        return all(self.home[base].index <= early.index for base in bases if base in self.home)

    def _join(self, early: _Cluster, late: _Cluster) -> _Cluster:
        """Take `early` into `late`, in the place of one of them."""
        if not self._moves_back(early, late):
            late.index = early.index
        early.into = late
        for node in early.roles:
            self.home[node] = late
        late.roles = {**early.roles, **late.roles}
        late.reads = {x for x in early.reads | late.reads if self.reach(x).base not in late.roles}
        if self._scalars is early:
            self._scalars = late
        return late

    # -- the outcome ---------------------------------------------------------------------------

    def groups(self) -> Groups:
        results = set(self._results)
        for node, cluster in self.home.items():
            for x in node.inputs:
                base = self.reach(x).base
                if self.home.get(base, cluster) is not cluster:
                    results.add(base)
        alive = [cluster for cluster in self.clusters if cluster.into is None]
        return Groups(
            self.graph,
            tuple(
                Group(
                    cluster.kind,
                    cluster.space,
                    tuple(cluster.roles),
                    tuple(node for node in cluster.roles if node in results),
                    frozenset(node for node, role in cluster.roles.items() if role == "row"),
                )
                for cluster in sorted(alive, key=lambda cluster: cluster.index)
            ),
        )


def _is_source(node: Node) -> bool:
    return node.op in (Op.INPUT, Op.CONST)


def _is_normal(node: Node) -> bool:
    """Whether a node is a reduction in one of the forms of passes/decompose.py, over something."""
    if node.op not in REDUCTIONS or node.inputs[0].tensor.size == 0:
        return False
    rank, axes = len(node.inputs[0].shape), node.attr("axes")
    return (rank, axes) in ((1, (0,)), (2, (1,)), (3, (1,)))


def _may_share(node: Node, found: Reach) -> bool:
    """Whether `node` might be computed in the kernel that computes what it reads."""
    base = found.base
    if found.repeat == 0 or not (is_pointwise(node) or _is_normal(node)):
        return False
    if base.op is Op.DOT:
        return is_pointwise(node) and found.repeat == 1
    if not (is_pointwise(base) or _is_normal(base)):
        return False
    if _is_normal(base):
        return _alone(base)[0] == "rows"
    return found.repeat == 1 or base.tensor.size > 1


def _alone(node: Node) -> tuple[str, Ints, str]:
    """Kind, space and role of a node in a cluster of its own."""
    if node.op is Op.DOT and node.tensor.size:
        return "dot", (node.tensor.size,), "lane"
    if is_pointwise(node):
        return "map", (node.tensor.size,), "lane"
    if not _is_normal(node):
        return "single", (node.tensor.size,), "total"
    shape = node.inputs[0].shape
    if len(shape) == 3:
        return "columns", shape, "total"
    if len(shape) == 2:
        return "rows", shape, "row"
    (n,) = shape
    return ("rows", (1, n), "row") if n <= 2 * ROW_BLOCK else ("blocks", (n,), "total")


def _role(cluster: _Cluster, node: Node, operands: list[tuple[Node, Reach]]) -> str | None:
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
        return _role_of_lane(cluster, inside)
    if cluster.kind in ("rows", "bands") and node.tensor.size == cluster.space[0] and inside:
        rows = all(cluster.roles[found.base] == "row" and found.repeat == 1 for found in inside)
        return "row" if rows else None
    if cluster.kind == "map" and inside and _widens_to_rows(cluster, node, inside):
        return "lane"
    return None


def _role_in_dot(cluster: _Cluster, node: Node, operands: list[tuple[Node, Reach]]) -> str | None:
    """Elementwise nodes join the dot they read, in its own shape."""
    shape = next(iter(cluster.roles)).shape
    direct = [x for x, _ in operands if x in cluster.roles]
    inside = [x for x, found in operands if found.base in cluster.roles]
    same = is_pointwise(node) and node.shape == shape
    return "lane" if same and direct and len(direct) == len(inside) else None


def _role_of_lane(cluster: _Cluster, inside: list[Reach]) -> str | None:
    for found in inside:
        row = cluster.roles[found.base] == "row"
        if found.repeat != (cluster.space[-1] if row else 1):
            return None
        if row and cluster.space[-1] > MAX_ROW:
            return None
    return "lane"


def _role_of_reduction(cluster: _Cluster, node: Node, inside: list[Reach]) -> str | None:
    """Reductions join a cluster over their operand's elements, if that is split the same way."""
    kind, space, role = _alone(node)
    if any(cluster.roles[found.base] != "lane" or found.repeat != 1 for found in inside):
        return None
    if cluster.kind == "map":
        return role if cluster.size == prod(space) and _stays_parallel(kind, space) else None
    if cluster.kind in ("rows", "bands"):
        if (kind, space) == ("rows", cluster.space):
            return "row"
        return "total" if _adds_up_in_bands(cluster, space) else None
    return role if (cluster.kind, cluster.space) == (kind, space) else None


def _adds_up_in_bands(cluster: _Cluster, space: Ints) -> bool:
    """Whether bands of rows can give the partial results of a reduction over columns or over all.

    For all elements that takes rows that fill blocks of the canonical order evenly.
    """
    rows, n = cluster.space
    if cluster.size > ALONE and -(-rows // COLUMN_BLOCK) < PARALLEL:
        return False
    if len(space) == 3:
        return space == (1, rows, n)
    return prod(space) == cluster.size and n % PARTIALS == 0 and ROW_BLOCK % n == 0


def _stays_parallel(kind: str, space: Ints) -> bool:
    """Whether a map may be computed with a reduction of that kind."""
    if prod(space) <= ALONE or kind == "blocks":
        return True
    if kind == "rows":
        return space[0] >= PARALLEL
    outer, rows, columns = space
    return outer * -(-rows // COLUMN_BLOCK) * -(-columns // COLUMN_CHUNK) >= PARALLEL


def _widens_to_rows(cluster: _Cluster, node: Node, inside: list[Reach]) -> bool:
    """Whether a map over R elements can become rows [R, n], of which it computes one value each."""
    repeats = {found.repeat for found in inside}
    n = node.tensor.size // max(cluster.size, 1)
    return (
        cluster.size > 1
        and repeats == {n}
        and n <= MAX_ROW
        and (node.tensor.size <= ALONE or cluster.size >= PARALLEL)
    )


def _reshape_cluster(cluster: _Cluster, node: Node, role: str) -> None:
    """Give a map the index space that its new member asks for."""
    if cluster.kind == "rows" and role == "total":
        cluster.kind = "bands"
    if cluster.kind != "map" or not cluster.roles:
        return
    if node.op in REDUCTIONS:
        cluster.kind, cluster.space, _ = _alone(node)
    elif node.tensor.size != cluster.size:
        cluster.kind = "rows"
        cluster.space = (cluster.size, node.tensor.size // cluster.size)
        cluster.roles = dict.fromkeys(cluster.roles, "row")
