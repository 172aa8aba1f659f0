"""`Module.summary`: what each module returns, holds, computes and takes, as a table and as data."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from einkorn.compile import Compiled
from einkorn.ir.errors import EinkornError
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, placeholder, substitute
from einkorn.ir.types import TensorType
from einkorn.lowered import Lowered
from einkorn.nn.building import outside
from einkorn.nn.calling import captured
from einkorn.nn.describing import children, own_leaves
from einkorn.passes.tables import amount
from einkorn.random.generator import default_generator
from einkorn.recording import Value, no_grad
from einkorn.tree import flatten

CALLS, SECONDS = 5, 0.2  # of one measurement, at most
WIDTH = 160  # of the printed table


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One module.

    Attributes:
        path: where it is; "" for the whole.
        layer: its class.
        depth: how many modules it is inside of.
        output: the shape and dtype of each tensor that it returns, in the first call.
        calls: how often it is called.
        parameters: how many numbers it trains or could train, those of modules inside included.
        trainable: how many of them are trained.
        bytes: what parameters and buffers take.
        flops: operations of one call of the whole, those of modules inside included.
        milliseconds: the time of one compiled call of the module alone; None where unknown.
        shared: whether its parameters are counted in a row above.
    """

    path: str
    layer: str
    depth: int
    output: tuple[str, ...]
    calls: int
    parameters: int
    trainable: int
    bytes: int
    flops: int
    milliseconds: float | None
    shared: bool


@dataclass(frozen=True)
class Summary:
    """A row for each module, the whole first; prints as a table.

    Attributes:
        rows: the modules, in the order of their attributes.
    """

    rows: tuple[SummaryRow, ...]

    def __getitem__(self, path: str) -> SummaryRow:
        """The row of a module."""
        for row in self.rows:
            if row.path == path:
                return row
        raise EinkornError(
            f"the summary has no module {path!r}; it has {', '.join(x.path for x in self.rows[1:])}"
        )

    @property
    def parameters(self) -> int:
        """How many numbers the whole trains or could train."""
        return self.rows[0].parameters

    @property
    def flops(self) -> int:
        """Operations of one call of the whole."""
        return self.rows[0].flops

    def __rich__(self) -> Any:
        from rich.table import Table  # loaded on first use: `import einkorn` stays quick

        whole = self.rows[0]
        table = Table(title=f"{whole.layer}: {whole.parameters:,} parameters", title_justify="left")
        table.add_column("layer", no_wrap=True)
        table.add_column("output", no_wrap=True)
        for title in ("parameters", "bytes", "FLOPs", "ms"):
            table.add_column(title, justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(*_cells(row))
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=WIDTH, color_system=None, force_terminal=False)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())

    __repr__ = __str__


def _cells(row: SummaryRow) -> tuple[str, ...]:
    name = f"{row.path.rpartition('/')[2]}: {row.layer}" if row.depth else row.layer
    times = f" x{row.calls}" if row.calls > 1 else ""
    shown = row.output[:2]
    more = ", ..." if len(row.output) > len(shown) else ""
    count = f"{row.parameters:,}" if row.parameters else "-"
    if row.shared:
        count = "shared"
    elif row.trainable < row.parameters:
        count += f" ({row.trainable:,} trained)"
    return (
        "  " * row.depth + name + times,
        ", ".join(shown) + more or "-",
        count,
        amount(row.bytes) if row.bytes and not row.shared else "-",
        amount(row.flops) if row.flops else "-",
        "-" if row.milliseconds is None else f"{row.milliseconds:.3f}",
    )


def summary(
    module: Any, inputs: tuple[Any, ...], named: dict[str, Any], depth: int | None, measure: bool
) -> Summary:
    """The summary of a module for a call with these inputs; see `Module.summary`."""
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int)):
        raise EinkornError(f"summary: depth is a number of levels, got {depth!r}")
    outputs: dict[str, Any] = {}

    def run(*args: Any, **kwargs: Any) -> Any:
        out, collector = captured(module, args, kwargs)
        found = {"": out, **collector.outputs}
        outputs.update((path, _types_of(value)) for path, value in found.items())
        return out

    with outside():
        graph = Compiled(run, name=type(module).__name__.lower()).trace(*inputs, **named)
        flops = _flops(graph)
        times = _times(module, inputs, named, depth) if measure else {}
    seen: set[int] = set()
    rows: list[SummaryRow] = []
    for path, level, part in _modules(module, "", 0, depth):
        calls = [key for key in outputs if _is_call(key, path)] if path else [""]
        rows.append(
            SummaryRow(
                path,
                type(part).__name__,
                level,
                outputs.get(path, ()),
                len(calls) if path in outputs else 0,
                sum(leaf.size for leaf in own_leaves(part)),
                sum(leaf.size for leaf in own_leaves(part) if leaf.trainable),
                _bytes(part),
                sum(n for key, n in flops.items() if key == path or _is_below(key, path)),
                times.get(path),
                id(part) in seen,
            )
        )
        seen.add(id(part))
    return Summary(tuple(rows))


def _modules(
    module: Any, path: str, level: int, depth: int | None, outer: tuple[int, ...] = ()
) -> Generator[tuple[str, int, Any]]:
    """A module and those inside with their paths and levels, under each path that leads to them."""
    yield path, level, module
    if depth is not None and level >= depth:
        return
    for name, child in children(module):
        if id(child) not in (*outer, id(module)):
            inner = f"{path}/{name}" if path else name
            yield from _modules(child, inner, level + 1, depth, (*outer, id(module)))


def _is_call(key: str, path: str) -> bool:
    """Whether a captured output, "hidden" or "hidden#2", is of the module at a path."""
    return key == path or key.startswith(f"{path}#")


def _is_below(key: str, path: str) -> bool:
    return not path or key.startswith(f"{path}/")


def _types_of(value: Any) -> tuple[str, ...]:
    return tuple(str(x._type) for x in flatten(value)[0] if isinstance(x, Value))


def _bytes(module: Any) -> int:
    found = module._ek_found()
    leaves = [*found.v.to_flat_list(), *found.buffers.to_flat_list()]
    return sum(leaf._type.nbytes for leaf in leaves)


# -- operations ------------------------------------------------------------------------------------


def _flops(graph: Graph) -> dict[str, int]:
    """The operations that each module does itself, by its path below the outermost one."""
    groups: dict[str, list[Node]] = {}
    for node in graph.nodes:
        origin = graph.origins.get(node)
        if origin is not None:
            path = origin.module.partition("/")[2]
            groups.setdefault(path, []).append(node)
    return {path: _flops_of(graph, nodes) for path, nodes in groups.items()}


def _flops_of(graph: Graph, nodes: Sequence[Node]) -> int:
    """The operations of some nodes of a graph, by the cost model of the compiler."""
    own = set(nodes)
    known = {
        node: placeholder(node.type)
        for node in graph.nodes
        if node not in own and node in graph.origins and isinstance(node.type, TensorType)
    }
    known.update((node, placeholder(node.tensor)) for node in graph.params)
    inside = {x for node in own for x in node.inputs}
    used = {x for node in graph.nodes if node not in own for x in node.inputs}
    ends = {*graph.outputs, *(value for _, value in graph.updates)}
    roots = [
        node
        for node in nodes
        if isinstance(node.type, TensorType)
        and (node in used or node in ends or node not in inside)
    ]
    if not roots:
        return 0
    made = substitute(roots, known)
    part = Graph("part", tuple(known.values()), (), tuple(made))
    return Lowered(part, "llvm").cost.flops


# -- time ------------------------------------------------------------------------------------------


def _times(
    module: Any, inputs: tuple[Any, ...], named: dict[str, Any], depth: int | None
) -> dict[str, float]:
    """The milliseconds of a compiled call of each module, with the inputs that it gets here."""
    with _unchanged(module), no_grad():
        _, collector = captured(module, inputs, named, inputs=True)
        given = {**(collector.inputs or {}), "": (inputs, named)}
        found: dict[str, float] = {}
        for path, _, part in _modules(module, "", 0, depth):
            if path in given:
                args, kwargs = given[path]
                found[path] = _milliseconds(part, args, kwargs)
        return found


def _milliseconds(part: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    step = Compiled(part)
    step(*args, **kwargs)
    best, start = float("inf"), perf_counter()
    for _ in range(CALLS):
        before = perf_counter()
        step(*args, **kwargs)
        best = min(best, perf_counter() - before)
        if perf_counter() - start > SECONDS:
            break
    return 1e3 * best


@contextmanager
def _unchanged(module: Any) -> Generator[None]:
    """Within the block state and the global generator may change; then they are as before."""
    generator = default_generator()
    leaves = [generator.key, generator.draw, generator.draw_apart]
    found = module._ek_found()
    leaves += found.buffers.to_flat_list()
    leaves += [leaf for leaf in found.v.to_flat_list() if not leaf.trainable]
    old = [(leaf, leaf.numpy().copy()) for leaf in leaves]
    try:
        yield
    finally:
        for leaf, value in old:
            leaf.value = value
