"""SSA text of a graph: how every stage prints, and what `einkorn.ir.parse` restores.

    graph step(x: f32[4]) captures(w: f32[4] = model.w) {
      %0: f32[4] = mul(x, w)  # model  train.py:7
      return %0  update w <- %0
    }

Graphs that are called stand before their callers and are named `graph=@name`. The text holds
structure only: printing is deterministic across processes, and `parse` gives a graph that prints
the same and has the same key. Works on graphs that verification would refuse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from einkorn.ir.dtypes import DType
from einkorn.ir.node import Node
from einkorn.ir.ops import Op

if TYPE_CHECKING:
    from einkorn.ir.graph import Graph

KEYWORDS: tuple[str, ...] = ("captures", "graph", "return", "update")
PLAIN_NAME = re.compile(r"[A-Za-z_][\w.]*", re.ASCII)

_WIDTH = 100
_COMMENT_COLUMN = 72  # comments are aligned, but no further right than this


def print_graph(graph: Graph) -> str:
    """The SSA text of a graph, after the graphs that it calls."""
    regions = graph.regions
    names = graph_names(graph, regions)
    return "\n\n".join("\n".join(_lines(region, names)[0]) for region in regions)


def print_around(graph: Graph, node: Node | None, context: int = 10) -> str:
    """The lines of `graph` up to `context` lines before and after `node`, which is marked.

    Without a node, or for one that has no line, the first lines.
    """
    lines, where = _lines(graph, graph_names(graph, graph.regions))
    marked = where.get(node, -1) if node is not None else -1
    center = max(marked, 0)
    first, last = max(center - context, 0), min(center + context + 1, len(lines))
    rows = [f"{'>' if k == marked else ' '} {lines[k]}" for k in range(first, last)]
    above = ["  ..."] if first > 0 else []
    below = ["  ..."] if last < len(lines) else []
    return "\n".join([*above, *rows, *below])


def const_text(dtype: DType, bits: int) -> str:
    """A decimal that `const_bits` reads back to the bit, else the bits ("0x7fc00001")."""
    if dtype.kind == "b" and bits < 2:
        return ("false", "true")[bits]
    if dtype.is_integer:
        negative = dtype.kind == "i" and bits >> (dtype.bits - 1)
        return str(bits - (1 << dtype.bits) if negative else bits)
    if dtype.is_float:
        value = np.frombuffer(bits.to_bytes(dtype.itemsize, "little"), dtype.numpy)[0]
        for text in (str(value), repr(float(value))):
            if const_bits(dtype, text) == bits:
                return text
    return f"{bits:#0{2 + 2 * dtype.itemsize}x}"


def const_bits(dtype: DType, text: str) -> int:
    """The bits that `const_text` printed; ValueError when `text` is no constant of that dtype."""
    if text.startswith("0x"):
        bits = int(text, 16)
        if bits >= 1 << dtype.bits:
            raise ValueError(f"{text} does not fit the {dtype.bits} bits of {dtype}")
        return bits
    if dtype.kind == "b":
        if text not in ("false", "true"):
            raise ValueError(f"{text} is not a bool; write true or false")
        return int(text == "true")
    if dtype.is_integer:
        value = int(text)
        low = -(1 << (dtype.bits - 1)) if dtype.kind == "i" else 0
        if not low <= value < low + (1 << dtype.bits):
            raise ValueError(f"{text} does not fit {dtype}")
        return value % (1 << dtype.bits)
    number = float(text)
    with np.errstate(all="ignore"):
        stored = np.asarray(number).astype(dtype.numpy)
    if np.isinf(stored.astype(np.float64)) and not np.isinf(number):
        raise ValueError(f"{text} does not fit {dtype}")
    return int.from_bytes(stored.tobytes(), "little")


# -- names -----------------------------------------------------------------------------------------


def unique_name(name: str, taken: dict[str, int], default: str) -> str:
    """An identifier made of the last part of a dotted name, different from every one `taken`.

    `taken` counts, for each identifier, the suffixes that were tried with it.
    """
    base = re.sub(r"\W", "_", name.rsplit(".", 1)[-1], flags=re.ASCII) or default
    if base[0].isdigit():
        base = f"_{base}"
    result = base
    while result in taken:
        taken[base] += 1
        result = f"{base}_{taken[base]}"
    taken[result] = 0
    return result


def graph_names(
    graph: Graph, regions: Iterable[Graph], taken: Iterable[str] = ()
) -> dict[Graph, str]:
    """An identifier for each graph, `graph` first, different from each other and those `taken`."""
    used = dict.fromkeys(taken, 0)
    names = {graph: unique_name(graph.name, used, "graph")}
    for region in regions:
        if region not in names:
            names[region] = unique_name(region.name, used, "graph")
    return names


# -- lines -----------------------------------------------------------------------------------------


def _lines(graph: Graph, graphs: dict[Graph, str]) -> tuple[list[str], dict[Node, int]]:
    """The lines of one graph, and which of them holds each node."""
    names: dict[Node, str] = {}
    taken = {keyword: 0 for keyword in KEYWORDS}
    params: list[str] = []
    for node in graph.params:
        name = graph.name_of(node)
        identifier = unique_name(name, taken, "x")
        names.setdefault(node, identifier)
        readable = name if PLAIN_NAME.fullmatch(name) else json.dumps(name)
        origin = "" if name in ("", identifier) else f" = {readable}"
        params.append(f"{identifier}: {node.type}{origin}")
    split = len(graph.inputs)
    lines = _header(graphs[graph], params[:split], params[split:])
    body = [node for node in graph.nodes if node not in names]
    names.update((node, f"%{k}") for k, node in enumerate(body))
    where = {node: len(lines) + k for k, node in enumerate(body)}
    texts = [_node_text(node, names, graphs) for node in body]
    lines += _commented(texts, [str(graph.origins.get(node, "")) for node in body])
    return [*lines, *_results(graph, names), "}"], where


def _header(name: str, inputs: Sequence[str], captures: Sequence[str]) -> list[str]:
    middle = f") captures({', '.join(captures)}" if captures else ""
    line = f"graph {name}({', '.join(inputs)}{middle}) {{"
    if len(line) <= _WIDTH:
        return [line]
    rows = [f"graph {name}(", *(f"  {text}," for text in inputs)]
    if not captures:
        return [*rows, ") {"]
    opening = [*rows, ") captures("] if inputs else [f"{rows[0]}) captures("]
    return [*opening, *(f"  {text}," for text in captures), ") {"]


def _node_text(node: Node, names: dict[Node, str], graphs: dict[Graph, str]) -> str:
    head = f"  {names[node]}: {node.type} = {node.op.name.lower()}"
    if node.op is Op.CONST:
        return f"{head} {const_text(node.attr('dtype'), node.attr('bits'))}"
    # Ids tell nodes apart within one process; the text does that by their numbers.
    attrs = [(name, _attr_text(value, graphs)) for name, value in node.attrs if name != "id"]
    operands = ", ".join(names[x] for x in node.inputs)
    return f"{head}({operands}){''.join(f' {name}={text}' for name, text in attrs)}"


def _attr_text(value: Any, graphs: dict[Graph, str]) -> str:
    if isinstance(value, tuple):
        items = cast(tuple[Any, ...], value)
        return f"({','.join(_attr_text(item, graphs) for item in items)})"
    if isinstance(value, DType):
        return value.short
    return f"@{graphs[value]}" if value in graphs else str(value)


def _commented(texts: list[str], comments: list[str]) -> list[str]:
    lengths = [len(text) for text, comment in zip(texts, comments) if comment]
    column = min(max(lengths, default=0), _COMMENT_COLUMN)
    return [
        f"{text:<{column}}  # {comment}" if comment else text
        for text, comment in zip(texts, comments)
    ]


def _results(graph: Graph, names: dict[Node, str]) -> list[str]:
    outputs = ", ".join(names[node] for node in graph.outputs)
    returned = f"  return {outputs}".rstrip()
    if not graph.updates:
        return [returned]
    pairs = [f"{names.get(leaf, '?')} <- {names[value]}" for leaf, value in graph.updates]
    line = f"{returned}  update {', '.join(pairs)}"
    if len(line) <= _WIDTH:
        return [line]
    commas = [f"{pair}," for pair in pairs[:-1]] + pairs[-1:]
    return [returned, f"  update {commas[0]}", *(f"         {pair}" for pair in commas[1:])]
