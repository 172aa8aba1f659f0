"""The table of all ops in docs/ops.md: no cell is empty without a reason, and the page is true.

`python tests/test_op_table.py --bless` writes the table anew. A cell names what was found: the
reference of an op, the order to which finite differences check the gradient of its samples, its
batching rule, and the kernels that a sample becomes. Other tests run every sample on every target
(tests/test_targets.py), differentiate it (tests/test_gradients.py), batch it (tests/test_vmap.py).
"""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from op_samples import SAMPLES, Sample

from einkorn.ir.graph import Graph
from einkorn.ir.loops import Kernel, LoopKernel
from einkorn.ir.machine import Machine
from einkorn.ir.ops import CONTROL, OPS, Op
from einkorn.ir.rewrite import always
from einkorn.ir.types import TensorType
from einkorn.passes.batching import BATCHING, NOT_BATCHED
from einkorn.passes.gradients import GRADIENTS, NOT_DIFFERENTIABLE
from einkorn.passes.pipeline import stages

PAGE = Path(__file__).parents[1] / "docs" / "ops.md"
START, END = "<!-- table -->\n", "<!-- end of table -->\n"
HEADER = ("op", "reference", "gradient", "batching", "llvm")
ORDER = 2  # of the derivatives that are checked
SHOWN = 12  # samples of an op whose kernels are listed
MACHINE = Machine(lanes=8, registers=16)  # one for all, so that the page is one

SOURCE = "bound at a call"
WITHOUT_KERNEL = {  # ops that no sample shows on a target, and why
    Op.INPUT: SOURCE,
    Op.SIZE: "padding comes before",
    Op.CALLBACK: "`HostCall`",
    Op.PROJECT: "names a result of another op",
    Op.GRAD: "expanded before",
    Op.CALL: "pasted in before",
    **dict.fromkeys(CONTROL, "`Control`: nested programs"),
}
WITHOUT_REFERENCE = {
    Op.INPUT: SOURCE,
    Op.SIZE: "padding comes before",
    Op.PROJECT: "an element of a tuple",
    Op.GRAD: "expanded before",
    Op.CALL: "evaluates the called graph",
    **dict.fromkeys(CONTROL, "evaluates the closed graphs step by step"),
}
ZERO_GRADIENT = {Op.STOP_GRADIENT: "zero, by definition"}


@lru_cache
def samples(op: Op) -> list[Sample]:
    """The samples of an op, those with elements in their result."""
    return [row for row in SAMPLES if row.op is op and _result(row).size]


def _result(sample: Sample) -> TensorType:
    return sample.build(sample.arrays(sample.dtypes[-1]))[0].tensor


def reference(op: Op) -> str:
    return WITHOUT_REFERENCE.get(op, "") if OPS[op].numpy is None else "NumPy"


def gradient(op: Op) -> str:
    if op not in GRADIENTS:
        return NOT_DIFFERENTIABLE.get(op, "")
    if op in ZERO_GRADIENT:
        return ZERO_GRADIENT[op]
    checked = max((row.grad_order for row in samples(op)), default=0)
    return f"to order {checked}" if checked == ORDER else ""


def batching(op: Op) -> str:
    if op not in BATCHING:
        return NOT_BATCHED.get(op, "")
    return f"`{BATCHING[op].__name__.lstrip('_')}`"


def kernels(op: Op) -> str:
    """The kinds of kernels that the op's first samples become, on one kind of machine."""
    found: dict[str, None] = {}
    for sample in samples(op)[:SHOWN]:
        node, inputs = sample.build(sample.arrays(sample.dtypes[-1]))
        stage: Any = Graph("f", tuple(inputs), (), (node,))
        for _, run in stages(MACHINE, always):
            stage = run(stage)
        found |= {_kind(kernel): None for kernel in stage.kernels}
    return ", ".join(sorted(found)) or WITHOUT_KERNEL.get(op, "")


def _kind(kernel: Kernel) -> str:
    if not isinstance(kernel, LoopKernel):
        return f"`{type(kernel).__name__}`"
    return "loop" if kernel.body else "copy"


CELLS = {"reference": reference, "gradient": gradient, "batching": batching, "llvm": kernels}


def table() -> str:
    rows = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    for op in Op:
        cells = [find(op) for find in CELLS.values()]
        rows.append(f"| `{op.name.lower()}` | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("column", CELLS)
def test_no_cell_is_empty(column: str) -> None:
    empty = [op.name for op in Op if not CELLS[column](op)]
    assert not empty


def test_reasons_are_given_only_where_something_is_missing() -> None:
    assert {op for op in Op if OPS[op].numpy is None} == WITHOUT_REFERENCE.keys()
    assert {op for op in Op if not samples(op)} == WITHOUT_KERNEL.keys()
    assert ZERO_GRADIENT.keys() == {
        op for op in GRADIENTS if not any(row.grad_order for row in samples(op))
    }
    assert not BATCHING.keys() & NOT_BATCHED.keys()


def test_a_missing_rule_empties_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(GRADIENTS, Op.EXP)
    monkeypatch.delitem(BATCHING, Op.EXP)
    assert gradient(Op.EXP) == batching(Op.EXP) == ""


def test_the_page_is_up_to_date() -> None:
    shown = PAGE.read_text(encoding="utf-8").split(START)[1].split(END)[0]
    assert shown == table(), "run python tests/test_op_table.py --bless"


def bless() -> None:
    """Write the table into the page."""
    head, rest = PAGE.read_text(encoding="utf-8").split(START)
    PAGE.write_text(head + START + table() + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--bless"]:
        raise SystemExit("usage: python tests/test_op_table.py --bless")
    bless()
