"""A graph as a page of HTML: all of it is there, no box over another, no other file needed."""

from __future__ import annotations

import re
from itertools import pairwise
from random import Random
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from random_graphs import random_graph

import einkorn as ek
from einkorn.ir.graph import Graph

SVG = "{http://www.w3.org/2000/svg}"
X = np.ones((64, 8), "float32")


def drawn(page: str) -> tuple[Any, list[list[float]]]:
    """The drawing of a page, and the boxes in it: left, top, width and height."""
    found = re.findall(r"<svg.*</svg>", page, re.DOTALL)
    assert len(found) == 1
    svg = ElementTree.fromstring(found[0])
    rects = [rect.attrib for group in svg.iter(f"{SVG}g") for rect in group.iter(f"{SVG}rect")]
    return svg, [[float(r[name]) for name in ("x", "y", "width", "height")] for r in rects]


def check_drawing(graph: Graph) -> None:
    """A box for each node, none over another, and a line down from each operand."""
    page = graph.to_html()
    assert re.findall(r"<(?:script|link|img)|url\(|@import", page) == []
    assert re.findall(r"https?://[^\"]*", page) == ["http://www.w3.org/2000/svg"]
    svg, boxes = drawn(page)
    nodes = list(dict.fromkeys((*graph.params, *graph.nodes)))
    assert len(boxes) == len(nodes)
    width, height = float(svg.get("width")), float(svg.get("height"))
    rows: dict[float, list[tuple[float, float]]] = {}
    for left, top, wide, high in boxes:
        assert 0 <= left <= left + wide <= width
        assert 0 <= top <= top + high <= height
        rows.setdefault(top, []).append((left, left + wide))
    for row in rows.values():
        assert all(a[1] < b[0] for a, b in pairwise(sorted(row)))
    lines = [
        [float(x) for x in re.findall(r"-?[\d.]+", path.attrib["d"])]
        for path in svg.iter(f"{SVG}path")
    ]
    assert len(lines) == sum(len(set(node.inputs)) for node in nodes)
    middles = [(left + wide / 2, top, top + high) for left, top, wide, high in boxes]
    for start_x, start_y, *_, end_x, end_y in lines:
        assert start_y < end_y
        assert any(abs(x - start_x) < 0.2 and bottom == start_y for x, _, bottom in middles)
        assert any(abs(x - end_x) < 0.2 and top == end_y for x, top, _ in middles)


@pytest.mark.parametrize("seed", range(12))
def test_a_drawing_has_all_nodes_and_no_box_over_another(seed: int) -> None:
    check_drawing(random_graph(Random(seed)))


def test_a_drawing_shows_names_types_and_places() -> None:
    model = ek.nn.Sequential(ek.nn.Linear(8, 3), ek.nn.Tanh())

    @ek.compile
    def step(x: Any) -> Any:
        loss, grads = ek.value_and_grad(lambda: (model(x) ** 2).sum(), model)()
        model.v = model.v - grads * 0.1
        return loss

    graph = step.lower(X).stages["dce"]
    check_drawing(graph)
    page = graph.to_html(mark="submodules/v1")
    assert page.count('class="input"') == 1
    assert page.count('class="capture"') == 2
    assert "submodules.v0.w &lt;-" in page
    assert "returned [0]" in page
    there = [graph.origins[x] for x in graph.nodes if x in graph.origins]
    inside = [origin for origin in there if origin.module == "sequential/submodules/v1"]
    assert page.count(" marked") == len(inside) > 0
    assert "test_picture.py:" in page
    assert graph.to_html(mark="submodules/v1") == page
    bare = graph.to_html(types=False, names=False)
    assert "f32" not in bare
    assert "submodules.v0.w" not in bare


def test_an_empty_graph_and_a_result_that_is_an_input() -> None:
    check_drawing(Graph("nothing", (), (), ()))
    check_drawing(ek.compile(lambda x, y: x).lower(X, X).stages["dce"])


def test_text_is_escaped() -> None:
    leaf = ek.tensor([1.0], name="<b>&")
    page = ek.compile(lambda: leaf * 2).lower().stages["dce"].to_html()
    assert "&lt;b&gt;&amp;" in page
    assert "<b>" not in page
    drawn(page)
