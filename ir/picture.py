"""A graph as a page of HTML: one box for each node, the operands of a node above it.

The page needs nothing else: no script, no font, no file beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from html import escape
from typing import TYPE_CHECKING, Any

from einkorn.ir.node import Node
from einkorn.ir.ops import Op
from einkorn.ir.text import const_text

if TYPE_CHECKING:
    from einkorn.ir.graph import Graph

CHARACTER, HEIGHT, GAP, ROW = 7.2, 42, 18, 78  # sizes in pixels
SWEEPS = 4

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #222; --paper: #fff; --box: #eef1f5; --line: #9aa4b1;
  --input: #d9f2e3; --capture: #dbe8fb; --const: #f6f0dc; --mark: #e06c2b; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #eee; --paper: #16181c; --box: #2b3038;
  --line: #77808c; --input: #1f4a33; --capture: #24406b; --const: #4a4223; }} }}
body {{ margin: 1rem; background: var(--paper); color: var(--ink); font: 12px/1.4 monospace; }}
text {{ fill: var(--ink); text-anchor: middle; font: 12px monospace; }}
rect {{ fill: var(--box); stroke: var(--line); rx: 6px; }}
.input rect {{ fill: var(--input); }} .capture rect {{ fill: var(--capture); }}
.const rect {{ fill: var(--const); }} .result rect {{ stroke: var(--ink); stroke-width: 2px; }}
.marked rect {{ stroke: var(--mark); stroke-width: 3px; }}
path {{ fill: none; stroke: var(--line); }}
</style>
</head>
<body>
<p>{title}: {count} nodes. Inputs are green, captures blue, constants yellow; results have a dark
edge. The line and module of a node show when the pointer rests on it.</p>
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"
 viewBox="0 0 {width} {height}">
{body}
</svg>
</body>
</html>
"""


@dataclass
class Box:
    """Where a node is drawn: its row, the middle of it from the left, and its lines of text."""

    node: Node
    lines: list[str]
    row: int
    x: float = 0.0
    above: list[Box] = field(default_factory=list["Box"])
    below: list[Box] = field(default_factory=list["Box"])

    @property
    def width(self) -> float:
        return 16 + CHARACTER * max(map(len, self.lines))


def draw_graph(graph: Graph, *, types: bool = True, names: bool = True, mark: str = "") -> str:
    """The page.

    Args:
        types: whether boxes show shapes and dtypes.
        names: whether inputs, captures and results show what they are.
        mark: a pattern of module paths, such as "encoder/*", whose nodes are marked.
    """
    boxes = _boxes(graph, types, names)
    rows = _rows(boxes)
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            row.sort(key=lambda box: _wanted(box, sweep % 2 == 0))
            _place(row)
    left = min(box.x - box.width / 2 for box in boxes.values()) if boxes else 0.0
    for box in boxes.values():
        box.x += GAP - left
    parts = [*map(_edges, boxes.values()), *(_box(graph, box, mark) for box in boxes.values())]
    width = max((box.x + box.width / 2 for box in boxes.values()), default=0.0) + GAP
    return PAGE.format(
        title=escape(graph.name),
        count=len(boxes),
        width=round(width),
        height=ROW * len(rows) + GAP,
        body="\n".join(filter(None, parts)),
    )


def _boxes(graph: Graph, types: bool, names: bool) -> dict[Node, Box]:
    """A box for each node, in a row below those of its operands."""
    boxes: dict[Node, Box] = {}
    for node in dict.fromkeys((*graph.params, *graph.nodes)):
        above = [boxes[x] for x in dict.fromkeys(node.inputs)]
        row = 1 + max((box.row for box in above), default=-1)
        boxes[node] = box = Box(node, _lines(graph, node, types, names), row, above=above)
        for outer in above:
            outer.below.append(box)
    for box in reversed(boxes.values()):
        # What has no operands, or one such operand as a broadcast has, comes above its first use.
        if box.below and len(box.above) <= 1 and not any(outer.above for outer in box.above):
            box.row = min(inner.row for inner in box.below) - 1
    return boxes


def _lines(graph: Graph, node: Node, types: bool, names: bool) -> list[str]:
    """What stands in a box."""
    head = node.op.name.lower()
    if node.op is Op.CONST:
        head = const_text(node.dtype, dict(node.attrs)["bits"])
    elif names and node in graph.params:
        head = graph.name_of(node) or head
    ends = [f"returned [{k}]" for k, out in enumerate(graph.outputs) if out is node]
    ends += [f"{graph.name_of(leaf)} <-" for leaf, value in graph.updates if value is node]
    return [", ".join([head, *ends]) if names else head, str(node.type) if types else ""]


def _rows(boxes: dict[Node, Box]) -> list[list[Box]]:
    """The boxes by rows, numbered without gaps."""
    used = {row: k for k, row in enumerate(sorted({box.row for box in boxes.values()}))}
    rows: list[list[Box]] = [[] for _ in used]
    for box in boxes.values():
        box.row = used[box.row]
        rows[box.row].append(box)
    for row in rows:
        _place(row)
    return rows


def _wanted(box: Box, down: bool) -> float:
    """Where a box would be if it stood under its operands, or above its uses."""
    near = box.above if down else box.below
    return sum(other.x for other in near) / len(near) if near else box.x


def _place(row: list[Box]) -> None:
    """Put the boxes of a row side by side, around 0."""
    x = -sum(box.width + GAP for box in row) / 2
    for box in row:
        box.x = x + (box.width + GAP) / 2
        x += box.width + GAP


def _edges(box: Box) -> str:
    """The lines from the operands of a box to it."""
    y, lines = box.row * ROW + GAP, list[str]()
    for other in box.above:
        start, half = other.row * ROW + GAP + HEIGHT, (ROW - HEIGHT) / 2
        lines.append(
            f'<path d="M{other.x:.1f} {start} C{other.x:.1f} {start + half:.1f} '
            f'{box.x:.1f} {y - half:.1f} {box.x:.1f} {y}"/>'
        )
    return "\n".join(lines)


def _box(graph: Graph, box: Box, mark: str) -> str:
    """A box with its text, and what shows when the pointer rests on it."""
    node, top, left = box.node, box.row * ROW + GAP, box.x - box.width / 2
    origin: Any = graph.origins.get(node)
    plain = node.op in (Op.CONST, Op.INPUT)
    attrs = "" if plain else ", ".join(f"{key}={x}" for key, x in node.attrs if key != "id")
    title = "\n".join(filter(None, [f"{node.op.name.lower()} {attrs}", str(origin or "")]))
    kinds = [*_kinds(graph, node), *["marked"] * _is_marked(origin, mark)]
    texts = "".join(
        f'<text x="{box.x:.1f}" y="{top + 17 + 15 * k}">{escape(line)}</text>'
        for k, line in enumerate(box.lines)
    )
    return (
        f'<g class="{" ".join(kinds)}"><title>{escape(title)}</title>'
        f'<rect x="{left:.1f}" y="{top}" width="{box.width:.1f}" height="{HEIGHT}"/>{texts}</g>'
    )


def _kinds(graph: Graph, node: Node) -> list[str]:
    kind = "input" if node in graph.inputs else "capture" if node in graph.captures else "node"
    kind = "const" if node.op is Op.CONST else kind
    return [kind, "result"] if node in graph.results else [kind]


def _is_marked(origin: Any, mark: str) -> bool:
    """Whether a node comes from a module that a pattern names, or from one inside of it."""
    if not mark or origin is None:
        return False
    parts = origin.module.split("/")
    return any(fnmatchcase("/".join(parts[1:k]), mark) for k in range(2, len(parts) + 1))
