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
    "single"   any other op, alone; its projections are computed with it

Cost rule. Every node is computed once, in one group; what another group needs is stored. Joining a
group saves a pass over memory and a launch, so a node joins whenever it can, except where that
would take parallelism away or exceed what a kernel can hold (the limits in passes/fuse_rules.py).
Elementwise nodes that only make new state of a gradient (an optimizer's) do not join the dot that
computes the gradient: they read and write several arrays for each result, and passes/batch.py
makes one launch of the updates of all tensors.
"""

from __future__ import annotations

import heapq

from einkorn.ir.graph import Graph
from einkorn.ir.node import Node
from einkorn.ir.ops import OPS, Op
from einkorn.passes.fuse_rules import (
    MAX_BUFFERS,
    MAX_MEMBERS,
    Cluster,
    alone,
    is_normal,
    is_pointwise,
    is_source,
    maker,
    may_share,
    role_in,
    take_space,
    wastes_lanes,
)
from einkorn.passes.launches import Group, Groups
from einkorn.passes.views import Reach, reach, scalar_constant


def fuse(graph: Graph) -> Groups:
    """Choose what is computed together."""
    fusion = _Fusion(graph)
    for node in fusion.order():
        fusion.place(node)
    return fusion.groups()


class _Fusion:
    """The clusters of one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.clusters: list[Cluster] = []
        self.home: dict[Node, Cluster] = {}
        self.readers: dict[Node, list[Cluster]] = {}
        self._open: dict[Node, list[Cluster]] = {}
        self._reach: dict[Node, Reach] = {}
        self._scalars: Cluster | None = None
        self._parts: dict[Node, list[Node]] = {}  # what is projected from each node
        for node in graph.nodes:
            if node.op is Op.PROJECT:
                self._parts.setdefault(node.inputs[0], []).append(node)
        self._results = {self.reach(x).base for x in graph.results}
        self._stored = self._results | self._read_elsewhere()
        self._closing = self._closing_nodes()

    def reach(self, x: Node) -> Reach:
        """What stored or computed node `x` shows, and how."""
        if x not in self._reach:
            self._reach[x] = reach(x)
        return self._reach[x]

    def operands(self, node: Node) -> list[tuple[Node, Reach]]:
        """The operands that are not constants, each with what it shows."""
        return [(x, self.reach(x)) for x in node.inputs if scalar_constant(x) is None]

    def _read_elsewhere(self) -> set[Node]:
        """Nodes that some other kernel reads in any case."""
        nodes = [node for node in self.graph.nodes if not OPS[node.op].view]
        return {
            found.base
            for node in nodes
            for _, found in self.operands(node)
            if found.repeat == 0 or not (is_pointwise(node) or is_normal(node))
        }

    # -- the order of visits -------------------------------------------------------------------

    def order(self) -> list[Node]:
        """Nodes that compute something, by the kernels that must come before them; scalars first.

        What the scalars of a step give (a learning rate, a bias correction) is then ready before
        the kernels over many elements, which can take in what reads them. Closing nodes come last,
        so that what an optimizer does to its slots before it needs the gradient is no kernel.
        """
        nodes = [n for n in self.graph.nodes if not is_source(n) and not OPS[n.op].view]
        nodes = [n for n in nodes if n.op is not Op.PROJECT]
        place = {node: k for k, node in enumerate(nodes)}
        users: dict[Node, list[Node]] = {node: [] for node in nodes}
        waiting: dict[Node, int] = {}
        for node in nodes:
            bases = {maker(self.reach(x).base) for x in node.inputs} & place.keys()
            waiting[node] = len(bases)
            for base in bases:
                users[base].append(node)
        depth: dict[Node, int] = {}
        ready: list[tuple[bool, int, bool, int]] = []

        def visit(node: Node) -> None:
            depth[node] = max((self._depth(node, x, depth) for x in node.inputs), default=0)
            rank = node in self._closing, depth[node], node.type.size != 1, place[node]
            heapq.heappush(ready, rank)

        for node in nodes:
            if not waiting[node]:
                visit(node)
        found: list[Node] = []
        while ready:
            node = nodes[heapq.heappop(ready)[-1]]
            found.append(node)
            for user in users[node]:
                waiting[user] -= 1
                if not waiting[user]:
                    visit(user)
        return found

    def _depth(self, node: Node, x: Node, depth: dict[Node, int]) -> int:
        """The number of kernels that must come before `node` because of its operand `x`."""
        found = self.reach(x)
        before = depth.get(maker(found.base))
        if before is None:
            return 0
        return before if may_share(node, found) else before + 1

    def _closing_nodes(self) -> set[Node]:
        """Elementwise nodes of which only new state is made, without a further reduction or dot."""
        state = {value for _, value in self.graph.updates}
        outputs = set(self.graph.outputs)
        open_: set[Node] = set()  # nodes that something else needs
        found: set[Node] = set()
        for node in reversed(self.graph.nodes):
            moves = OPS[node.op].view
            closing = (node in found or node in state) and not (node in open_ or node in outputs)
            if closing and is_pointwise(node):
                found.add(node)
            for x in node.inputs:
                if closing and (moves or is_pointwise(node)):
                    found.add(x)
                else:
                    open_.add(x)
        return {node for node in found - open_ - outputs if is_pointwise(node)}

    # -- placing -------------------------------------------------------------------------------

    def place(self, node: Node) -> None:
        """Put a node into the first cluster that takes it, or into a new one."""
        operands = self.operands(node)
        self._join_sources(node, operands)
        for cluster in self._candidates(node, operands):
            role = role_in(cluster, node, operands)
            if role is not None and self._fits(cluster, node, operands):
                self._add(cluster, node, role, operands)
                return
        kind, space, role = alone(node)
        cluster = Cluster(len(self.clusters), kind, space)
        self.clusters.append(cluster)
        self._add(cluster, node, role, operands)

    def _candidates(self, node: Node, operands: list[tuple[Node, Reach]]) -> list[Cluster]:
        if node.type.size == 0 or not (is_pointwise(node) or is_normal(node)):
            return []
        closing = node in self._closing
        homes = [self.home[found.base] for _, found in operands if found.base in self.home]
        first = max((cluster.index for cluster in homes), default=0)
        near = {cluster.index: cluster for cluster in homes}
        for x, found in operands:
            if x.tensor.size == found.base.tensor.size > 1:
                near.update((c.index, c) for c in self._siblings(found.base))
        if node.tensor.size == 1 and self._scalars is not None:
            near[self._scalars.index] = self._scalars
        kinds = {index: near[index].kind for index in sorted(near) if index >= first}
        return [near[index] for index, kind in kinds.items() if not (closing and kind == "dot")]

    def _fits(self, cluster: Cluster, node: Node, operands: list[tuple[Node, Reach]]) -> bool:
        new = {x for x, found in operands if found.base not in cluster.roles} - cluster.reads
        return cluster.buffers + len(new) < MAX_BUFFERS and len(cluster.roles) < MAX_MEMBERS

    def _add(
        self, cluster: Cluster, node: Node, role: str, operands: list[tuple[Node, Reach]]
    ) -> None:
        take_space(cluster, node, role)
        inside = [found for _, found in operands if found.base in cluster.roles]
        cluster.stages[node] = cluster.stage_of(node, inside)
        cluster.roles[node] = role
        cluster.stored += node in self._stored
        self.home[node] = cluster
        self.home.update(dict.fromkeys(self._parts.get(node, ()), cluster))
        for x, found in operands:
            if found.base not in cluster.roles:
                cluster.reads.add(x)
            known = self.readers.setdefault(found.base, [])
            if not known or known[-1] is not cluster:
                known.append(cluster)
                self._open.setdefault(found.base, []).append(cluster)
        if cluster.kind == "map" and cluster.size == 1:
            self._scalars = cluster

    def _readers(self, base: Node) -> list[Cluster]:
        """The clusters that read a node, or those they were taken into."""
        return [_alive(cluster) for cluster in self.readers.get(base, ())]

    def _siblings(self, base: Node) -> list[Cluster]:
        """The clusters that read a node and can take in more; others are forgotten."""
        known = map(_alive, self._open.get(base, ()))
        found = [c for c in dict.fromkeys(known) if not (c.is_full or c.kind in ("dot", "single"))]
        self._open[base] = found
        return found

    # -- joining clusters ----------------------------------------------------------------------

    def _join_sources(self, node: Node, operands: list[tuple[Node, Reach]]) -> None:
        """Make one cluster of those that a node reads, where they compute one size side by side."""
        if not (is_pointwise(node) or is_normal(node)):
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
            if late.kind == "dot" and node in self._closing:
                return
            for early in reversed(near[:-1]):
                if early.kind == "map" and self._can_join(early, late):
                    late = self._join(early, late)

    def _can_join(self, early: Cluster, late: Cluster) -> bool:
        if late.kind == "single":
            return False
        if late.kind == "dot" and not self._is_epilogue(early, late):
            return False
        crossing = [self.reach(x) for x in late.reads if self.reach(x).base in early.roles]
        if any(found.repeat != 1 for found in crossing):
            return False
        reads = {x for x in early.reads | late.reads if self.reach(x).base not in early.roles}
        if len(reads) + early.stored + late.stored >= MAX_BUFFERS:
            return False
        if late.kind != "map" and wastes_lanes(late.space, early.roles):
            return False
        if len(early.roles) + len(late.roles) >= MAX_MEMBERS:
            return False
        return self._moves_back(early, late) or self._moves_ahead(early, late)

    def _is_epilogue(self, early: Cluster, late: Cluster) -> bool:
        """Whether a map may be computed with the finished elements of a dot that it is not for."""
        dot = next(iter(late.roles))
        if any(self.reach(x).base in early.roles for x in dot.inputs):
            return False
        return all(node.shape == dot.shape for node in early.roles)

    def _moves_back(self, early: Cluster, late: Cluster) -> bool:
        """Whether everything that reads `early` comes no earlier than `late`."""
        readers = (c for node in early.roles for c in self._readers(node))
        return all(c is early or c.index >= late.index for c in readers)

    def _moves_ahead(self, early: Cluster, late: Cluster) -> bool:
        """Whether everything that `late` reads comes no later than `early`."""
        bases = (self.reach(x).base for x in late.reads)
        return all(self.home[base].index <= early.index for base in bases if base in self.home)

    def _join(self, early: Cluster, late: Cluster) -> Cluster:
        """Take `early` into `late`, in the place of one of them."""
        if not self._moves_back(early, late):
            late.index = early.index
        early.into = late
        for node in early.roles:
            self.home[node] = late
        dot = [node for node in late.roles if late.kind == "dot"][:1]
        late.roles = {**dict.fromkeys(dot, "lane"), **early.roles, **late.roles}
        late.stages = {**early.stages, **late.stages}
        late.stored += early.stored
        late.reads = {x for x in early.reads | late.reads if self.reach(x).base not in late.roles}
        if self._scalars is early:
            self._scalars = late
        return late

    # -- the outcome ---------------------------------------------------------------------------

    def groups(self) -> Groups:
        results = set(self._results)
        for node, cluster in self.home.items():
            for x in node.inputs if node.op is not Op.PROJECT else ():
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


def _alive(cluster: Cluster) -> Cluster:
    """The cluster itself, or the one that took it in."""
    while cluster.into is not None:
        cluster = cluster.into
    return cluster
