"""Which nodes are computed on the host, and how one of them is: by the op's NumPy reference.

These are the op `host`, and every op that computes with complex numbers; movement and indexing of
complex elements is done by the same kernels as of any other. All modes call `call_host`, with
dense operands that have exactly the types of the node, so they have the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from einkorn.ir.errors import EinkornError, HostError, LinAlgError
from einkorn.ir.node import Node
from einkorn.ir.ops import ON_HOST, OPS, Op
from einkorn.ir.types import TensorType, TupleType, Type

Array = np.ndarray[Any, Any]

# Ops that only move elements, or add them part by part, and never look into a complex number.
MOVES = frozenset(
    {Op.INPUT, Op.CONST, Op.PAD, Op.CONCAT, Op.GATHER, Op.SCATTER_ADD, Op.SCATTER_SET}
    | {Op.PROJECT, Op.GRAD, Op.CALL, Op.COND, Op.WHILE, Op.SCAN}
    | {op for op, row in OPS.items() if row.view}
)


def is_complex(type: Type) -> bool:
    """Whether a type has a complex dtype."""
    return isinstance(type, TensorType) and type.dtype.is_complex


def on_host(op: Op, types: Iterable[TensorType]) -> bool:
    """Whether an op on operands, or with a result, of these types is computed on the host."""
    for type in types:  # asked for every op that runs eagerly
        if type.dtype.kind == "c":
            return op not in MOVES
    return op in ON_HOST


def is_host_node(node: Node) -> bool:
    """Whether a node is computed on the host."""
    if node.op in MOVES:
        return False
    if node.op in ON_HOST or is_complex(node.type):
        return True
    for x in node.inputs:  # asked often while kernels are chosen
        if is_complex(x.type):
            return True
    return False


def host_name(op: Op, attrs: Mapping[str, Any]) -> str:
    """What a node is called in messages: by the host function, else by the op."""
    if op is Op.CALLBACK:
        return str(attrs["callback"].name)
    return str(attrs["function"]) if op is Op.HOST else op.name.lower()


def result_types(type: Type) -> tuple[TensorType, ...]:
    """The types of the results, one or several."""
    return type.items if isinstance(type, TupleType) else (type,)


def call_host(
    op: Op, attrs: Mapping[str, Any], arrays: Sequence[Array], results: Sequence[TensorType]
) -> list[Array]:
    """The results of one node, from dense operands; HostError when its function fails.

    Args:
        op: what is computed.
        attrs: its attributes.
        arrays: an array of exactly the type of each operand.
        results: the types of the results.
    """
    rule = OPS[op].numpy
    assert rule is not None, f"{op.name.lower()} has no reference"
    dense = [x if x.flags.c_contiguous else x.copy(order="C") for x in arrays]
    try:
        with np.errstate(all="ignore"):
            found: Any = rule(*dense, **attrs)
    except np.linalg.LinAlgError as error:
        raise LinAlgError(f"{host_name(op, attrs)}: {_reason(error)}") from None
    except EinkornError:
        raise
    except Exception as error:
        if op is Op.CALLBACK:  # it is the user's own
            raise
        text = f"{host_name(op, attrs)}: {type(error).__name__}: {error}"
        raise HostError(text) from error
    made: list[Array] = [np.asarray(x) for x in (found if len(results) > 1 else (found,))]
    for k, (x, wanted) in enumerate(zip(made, results, strict=True)):
        if x.shape != wanted.shape or x.dtype != wanted.dtype.numpy:
            got = f"{x.dtype}{list(x.shape)}"
            raise HostError(f"{host_name(op, attrs)}: gave {got} instead of {wanted}")
        # Results are arrays of their own: an operand's memory may be written later.
        if not (x.flags.owndata and x.flags.c_contiguous) or any(x is y for y in dense):
            made[k] = x.copy(order="C")
    return made


def _reason(error: Exception) -> str:
    """NumPy's reason, with what to do about it where that is known."""
    text = str(error)
    if "Singular" in text:
        return "the matrix is singular; use ek.linalg.pinv or ek.linalg.lstsq"
    if "positive definite" in text:
        return (
            "the matrix is not positive definite; add a multiple of ek.eye(n) to it, or use "
            "ek.linalg.eigh"
        )
    if "converge" in text:
        return f"{text}; look for NaN and infinity in the matrix"
    return text
