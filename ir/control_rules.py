"""Shape rules of control flow: the types of `cond`, `while` and `scan` from their closed graphs.

A closed graph takes its operands as inputs; it has no captures and no updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from einkorn.ir.dtypes import bool_, int64
from einkorn.ir.errors import IRError, ShapeError
from einkorn.ir.types import TensorType, TupleType, Type


def cond(
    index: TensorType, *operands: TensorType, branches: tuple[Any, ...], id: int = 0
) -> TupleType:
    """The results of branch `index`; an index outside is taken as the first or the last."""
    if index != TensorType(int64, ()):
        raise ShapeError(f"the index must be i64[], got {index}")
    if not branches:
        raise IRError("needs at least one branch")
    wanted = _closed(branches[0], operands)
    for branch in branches[1:]:
        if _closed(branch, operands) != wanted:
            got = TupleType(tuple(node.tensor for node in branch.outputs))
            raise ShapeError(f"branches must agree, got {TupleType(wanted)} and {got}")
    return TupleType(wanted)


def while_loop(
    *operands: TensorType, condition: Any, body: Any, consts: int, id: int = 0
) -> TupleType:
    """The carries when the condition no longer holds."""
    carries = operands[consts:]
    found = _closed(condition, operands)
    if found != (TensorType(bool_, ()),):
        raise ShapeError(f"the condition must give bool[], got {TupleType(found)}")
    _check_carries(body, _closed(body, operands), carries)
    return TupleType(carries)


def scan(
    *operands: TensorType,
    body: Any,
    consts: int,
    carries: int,
    length: int,
    reverse: int,
    id: int = 0,
) -> TupleType:
    """The last carries, then what each step gives, stacked along a new first axis."""
    split = consts + carries
    before, columns = operands[:split], operands[split:]
    if min(consts, carries, length) < 0 or split > len(operands) or reverse not in (0, 1):
        raise IRError(
            f"consts={consts} carries={carries} length={length} reverse={reverse} do not fit "
            f"{len(operands)} operands"
        )
    for type in columns:
        if type.rank == 0 or type.shape[0] != length:
            raise ShapeError(f"{type} has no first axis of {length} elements to scan over")
    rows = tuple(type.with_shape(type.shape[1:]) for type in columns)
    found = _closed(body, (*before, *rows))
    _check_carries(body, found[:carries], before[consts:])
    stacked = tuple(type.with_shape((length, *type.shape)) for type in found[carries:])
    return TupleType((*found[:carries], *stacked))


def _closed(graph: Any, operands: Sequence[Type]) -> tuple[TensorType, ...]:
    """The types of a closed graph's outputs; ShapeError when it does not take the operands."""
    if graph.captures or graph.updates:
        raise IRError(f"{graph.name} must be closed: it has captures or updates")
    wanted = tuple(node.type for node in graph.inputs)
    if tuple(operands) != wanted:
        got, want = (", ".join(map(str, types)) for types in (operands, wanted))
        raise ShapeError(f"{graph.name} takes ({want}), got ({got})")
    return tuple(node.tensor for node in graph.outputs)


def _check_carries(graph: Any, found: Sequence[TensorType], carries: Sequence[TensorType]) -> None:
    if tuple(found) != tuple(carries):
        raise ShapeError(
            f"{graph.name} must give carries of the types it takes, {TupleType(tuple(carries))}, "
            f"got {TupleType(tuple(found))}"
        )
