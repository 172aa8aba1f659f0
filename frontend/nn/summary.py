"""`Module.summary`: what each module returns, holds, computes, and how long that takes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import Any

from einkorn.compile import Compiled
from einkorn.ir.errors import EinkornError
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, placeholder, substitute
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType
from einkorn.lowered import Lowered
from einkorn.nn.building import outside
from einkorn.nn.calling import captured
from einkorn.nn.describing import check_depth, children
from einkorn.nn.summary_table import Summary, SummaryRow
from einkorn.passes.autodiff import expand
from einkorn.random.generator import default_generator
from einkorn.recording import Value, no_grad
from einkorn.tree import flatten

CALLS, SECONDS = 5, 0.2  # of one measurement, at most


def summary(
    module: Any, inputs: tuple[Any, ...], named: dict[str, Any], depth: int | None, measure: bool
) -> Summary:
    """The summary of a module for a call with these inputs; see `Module.summary`."""
    check_depth("summary", depth)
    outputs: dict[str, Any] = {}

    def run(*args: Any, **kwargs: Any) -> Any:
        out, collector = captured(module, args, kwargs)
        found = {"": out, **collector.outputs}
        outputs.update((path, _types_of(value)) for path, value in found.items())
        return out

    with outside():
        step = Compiled(run, name=type(module).__name__.lower())
        flops = _flops(expand(step.graph_of(inputs, named)))
        times = _times(module, inputs, named, depth) if measure else {}
    return Summary(tuple(_rows(module, depth, outputs, flops, times)))


def _rows(
    module: Any,
    depth: int | None,
    outputs: dict[str, tuple[str, ...]],
    flops: dict[str, int],
    times: dict[str, float],
) -> Generator[SummaryRow]:
    found = module._ek_found()
    parameters, buffers = (list(x.flat_items()) for x in (found.v, found.buffers))
    for path, level, part, same_as in _modules(module, depth):
        layer = type(part).__name__
        if same_as is not None:
            yield SummaryRow(path, layer, level, same_as=same_as)
            continue
        calls = [key for key in outputs if _is_call(key, path)] if path else [""]
        own = [leaf for key, leaf in parameters if _is_below(key, path)]
        others = [leaf for key, leaf in buffers if _is_below(key, path)]
        yield SummaryRow(
            path,
            layer,
            level,
            outputs.get(path, ()),
            len(calls) if path in outputs else 0,
            sum(leaf.size for leaf in own),
            sum(leaf.size for leaf in own if leaf.trainable),
            sum(leaf._type.nbytes for leaf in (*own, *others)),
            sum(n for key, n in flops.items() if key == path or _is_below(key, path)),
            times.get(path),
        )


def _modules(
    module: Any, depth: int | None
) -> Generator[tuple[str, int, Any, str | None], None, None]:
    """A module and those inside: path, level, module, and the path where it came before."""
    seen: dict[int, str] = {}
    waiting: list[tuple[str, int, Any]] = [("", 0, module)]
    while waiting:
        path, level, part = waiting.pop()
        yield path, level, part, seen.get(id(part))
        if id(part) in seen or (depth is not None and level >= depth):
            seen.setdefault(id(part), path)
            continue
        seen[id(part)] = path
        inside = [
            (f"{path}/{name}" if path else name, level + 1, child) for name, child in children(part)
        ]
        waiting.extend(reversed(inside))


def _is_call(key: str, path: str) -> bool:
    """Whether a captured output, "hidden" or "hidden#2", is of the module at a path."""
    return key == path or key.startswith(f"{path}#")


def _is_below(key: str, path: str) -> bool:
    return not path or key.startswith(f"{path}/")


def _types_of(value: Any) -> tuple[str, ...]:
    return tuple(str(x._type) for x in flatten(value)[0] if isinstance(x, Value))


# -- operations ------------------------------------------------------------------------------------


def _flops(graph: Graph) -> dict[str, int]:
    """The operations that each module does itself, by its path below the outermost one."""
    owners: dict[Node, str] = {}
    for node in graph.nodes:
        origin = graph.origins.get(node)
        if origin is not None:
            owners[node] = origin.module.partition("/")[2]
        elif node.op is Op.PROJECT and node.inputs[0] in owners:  # a result of a loop
            owners[node] = owners[node.inputs[0]]
    paths = dict.fromkeys(owners.values())
    return {path: _flops_of(graph, owners, path) for path in paths}


def _flops_of(graph: Graph, owners: dict[Node, str], path: str) -> int:
    """The operations of one module's nodes, by the cost model of the compiler."""
    own = {node for node, owner in owners.items() if owner == path}
    others = [node for node in (*owners, *graph.params) if node not in own]
    known = {node: placeholder(node.type) for node in others if isinstance(node.type, TensorType)}
    inside = {x for node in own for x in node.inputs}
    used = {x for node in graph.nodes if node not in own for x in node.inputs}
    used.update(graph.outputs, (value for _, value in graph.updates))
    roots = [
        node
        for node in graph.nodes
        if node in own
        and isinstance(node.type, TensorType)
        and (node in used or node not in inside)
    ]
    if not roots:
        return 0
    inputs = tuple(known.values())
    part = Graph("part", inputs, (), tuple(substitute(roots, known)))
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
        for path, _, part, same_as in _modules(module, depth):
            if path in given and same_as is None:
                args, kwargs = given[path]
                with suppress(EinkornError):  # what returns a generator, say, is no step by itself
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
    """Within the block leaves, attributes and the generator may change; then they are as before."""
    generator = default_generator()
    leaves = [generator.key, generator.draw, generator.draw_apart]
    found = module._ek_found()
    leaves += [*found.v.to_flat_list(), *found.buffers.to_flat_list()]
    old = [(leaf, leaf.numpy().copy()) for leaf in leaves]
    attributes = [(part, dict(vars(part))) for part in found.modules.values()]
    try:
        yield
    finally:
        for leaf, value in old:
            leaf.value = value
        for part, before in attributes:
            _set_back(part, before)


def _set_back(module: Any, before: dict[str, Any]) -> None:
    """Give a module the attributes that it had; what einkorn notes itself stays."""
    now = {name: x for name, x in vars(module).items() if not name.startswith("_ek_")}
    for name in now.keys() - before.keys():
        delattr(module, name)
    for name in now.keys() & before.keys():
        if now[name] is not before[name]:
            setattr(module, name, before[name])
