"""einsum: two operands at a time, each pair as one `dot` between transposes and reshapes.

Labels that only one operand has and the result does not are summed first. Which pair comes next is
decided by sizes alone, so eager and compiled code do the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import prod
from typing import TYPE_CHECKING, Any

from einkorn.autocast import low_precision
from einkorn.convert import meet
from einkorn.functions.elementwise import multiply
from einkorn.functions.manipulation import expand_dims, reorder, squeeze, to_shape
from einkorn.functions.statistical import sum as total
from einkorn.ir.dtypes import bool_
from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.ops import Op
from einkorn.recording import apply

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

Labels = tuple[str, ...]
Term = tuple["Tensor", Labels]  # an operand and the label of each of its axes

MSG_FORM = (
    "einsum: {subscripts!r}: subscripts are letters for axes, with ',' between operands, '...' for "
    "axes that broadcast, and '->' before the labels of the result, as in 'bij,bjk->bik'"
)


@low_precision
def einsum(subscripts: str, /, *operands: Any) -> Tensor:
    """The sum of products that the subscripts describe, as in Einstein's notation.

    `ek.einsum("bij,bjk->bik", a, b)` is a product of matrices for each b. Labels that the result
    lacks are summed over; a label that an operand has twice is its diagonal. Without "->" the
    result has the labels that occur once, in alphabetical order.
    """
    if not operands:
        raise ShapeError("einsum: needs at least one operand")
    tensors = meet("einsum", *operands)
    if tensors[0].dtype is bool_:
        raise DTypeError("einsum: bool has no arithmetic; cast with .astype('float32')")
    inputs, output = _parsed(subscripts, tensors)
    sizes = _sizes(subscripts, tensors, inputs)
    terms = [_reduced(tensor, labels, sizes) for tensor, labels in zip(tensors, inputs)]
    terms = [_summed(terms, k, output) for k in range(len(terms))]
    while len(terms) > 1:
        first, second = _next_pair(terms, output, sizes)
        rest = [term for k, term in enumerate(terms) if k not in (first, second)]
        needed = {*output, *(label for _, labels in rest for label in labels)}
        terms = [*rest, _product(terms[first], terms[second], needed, sizes)]
    tensor, labels = terms[0]
    tensor = reorder(tensor, tuple(labels.index(label) for label in output if label in labels))
    missing = tuple(k for k, label in enumerate(output) if label not in labels)
    return expand_dims(tensor, axis=missing) if missing else tensor


# -- subscripts ------------------------------------------------------------------------------------


def _parsed(subscripts: str, tensors: Sequence[Tensor]) -> tuple[list[Labels], Labels]:
    """The labels of every operand and of the result; axes of '...' are labelled by numbers."""
    if not isinstance(subscripts, str):
        raise DTypeError(MSG_FORM.format(subscripts=subscripts))
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(tensors):
        raise ShapeError(
            f"einsum: {subscripts!r} names {len(parts)} operands, but {len(tensors)} are given"
        )
    inputs = [_labels(subscripts, part, x.ndim) for part, x in zip(parts, tensors)]
    flat = [label for labels in inputs for label in labels]
    # "-1" is the last of the axes that '...' stands for, "-2" the one before.
    shared = tuple(sorted({x for x in flat if not x.isalpha()}, key=int))
    if not arrow:
        once = sorted(label for label in set(flat) if label.isalpha() and flat.count(label) == 1)
        return inputs, (*shared, *once)
    if "..." not in right and shared:
        raise ShapeError(f"einsum: {subscripts!r}: the result must have the '...' of the operands")
    output = _labels(subscripts, right, len(right.replace("...", "")) + len(shared))
    unknown = [label for label in output if label not in flat]
    if unknown or len(set(output)) != len(output):
        raise ShapeError(
            f"einsum: {subscripts!r}: every label of the result must be one of an operand and "
            "occur once"
        )
    return inputs, output


def _labels(subscripts: str, part: str, rank: int) -> Labels:
    """The labels of the axes of one operand."""
    before, dots, after = part.partition("...")
    named = before + after
    if not all(label.isascii() and label.isalpha() for label in named):
        raise ShapeError(MSG_FORM.format(subscripts=subscripts))
    extra = rank - len(named)
    if extra < 0 or (extra and not dots):
        raise ShapeError(
            f"einsum: {subscripts!r}: {part!r} labels {len(named)} axes of an operand with {rank}"
        )
    return (*before, *(str(k - extra) for k in range(extra)), *after)


def _sizes(subscripts: str, tensors: Sequence[Tensor], inputs: Sequence[Labels]) -> dict[str, int]:
    """The size of each label; an axis of one element broadcasts."""
    sizes: dict[str, int] = {}
    for tensor, labels in zip(tensors, inputs):
        for label, size in zip(labels, tensor.shape):
            known = sizes.get(label, 1)
            if size != known and 1 not in (size, known):
                got = " and ".join(str(x._type) for x in tensors)
                what = f"label {label!r}" if label.isalpha() else "an axis of '...'"
                raise ShapeError(
                    f"einsum: {subscripts!r}: {what} has {known} and {size} elements in {got}"
                )
            sizes[label] = size if known == 1 else known
    return sizes


# -- one operand -----------------------------------------------------------------------------------


def _reduced(x: Tensor, labels: Labels, sizes: dict[str, int]) -> Term:
    """`x` with diagonals taken, and without axes of one element that broadcast."""
    slim = tuple(k for k, n in enumerate(x.shape) if n == 1 and sizes[labels[k]] != 1)
    x = squeeze(x, slim) if slim else x
    labels = tuple(label for k, label in enumerate(labels) if k not in slim)
    while len(set(labels)) < len(labels):
        second = next(k for k, label in enumerate(labels) if label in labels[:k])
        x, labels = _diagonal(x, labels, labels.index(labels[second]), second)
    return x, labels


def _diagonal(x: Tensor, labels: Labels, first: int, second: int) -> Term:
    """The elements whose indices on two axes are equal, on a new last axis."""
    n = x.shape[first]
    rest = tuple(k for k in range(x.ndim) if k not in (first, second))
    shape = (*(x.shape[k] for k in rest), n * n)
    flat = to_shape(reorder(x, (*rest, first, second)), shape)
    steps = (*(1 for _ in rest), n + 1)
    diagonal = apply(Op.SLICE, flat, starts=(0,) * len(shape), stops=shape, steps=steps)
    return diagonal, (*(labels[k] for k in rest), labels[first])


def _summed(terms: Sequence[Term], k: int, output: Labels) -> Term:
    """Term `k`, summed over the labels that only it has."""
    tensor, labels = terms[k]
    others = {*output, *(label for j, (_, row) in enumerate(terms) if j != k for label in row)}
    axes = tuple(axis for axis, label in enumerate(labels) if label not in others)
    if not axes:
        return tensor, labels
    kept = tuple(label for label in labels if label in others)
    return total(tensor, axis=axes, dtype=tensor.dtype), kept


# -- two operands ----------------------------------------------------------------------------------


def _next_pair(terms: Sequence[Term], output: Labels, sizes: dict[str, int]) -> tuple[int, int]:
    """The pair whose product is smallest against what it replaces; the first of equals."""

    def growth(pair: tuple[int, int]) -> int:
        (_, a), (_, b) = (terms[k] for k in pair)
        others = {label for k, (_, labels) in enumerate(terms) if k not in pair for label in labels}
        kept = {*a, *b} & {*output, *others}
        size = [prod(sizes[label] for label in labels) for labels in (kept, a, b)]
        return size[0] - size[1] - size[2]

    return min(combinations(range(len(terms)), 2), key=growth)


def _product(left: Term, right: Term, needed: set[str], sizes: dict[str, int]) -> Term:
    """Two terms multiplied, summed over the labels that both have and nobody needs."""
    (a, row), (b, column) = left, right
    shared = tuple(label for label in row if label in column)
    batch = tuple(label for label in shared if label in needed)
    over = tuple(label for label in shared if label not in needed)
    rows = tuple(label for label in row if label not in shared)
    columns = tuple(label for label in column if label not in shared)
    result = (*batch, *rows, *columns)
    if not over:
        x = _laid(a, row, (*batch, *rows, *("" for _ in columns)))
        y = _laid(b, column, (*batch, *("" for _ in rows), *columns))
        return multiply(x, y), result
    count = [prod(sizes[label] for label in labels) for labels in (batch, rows, columns, over)]
    x = to_shape(_laid(a, row, (*batch, *rows, *over)), (count[0], count[1], count[3]))
    y = to_shape(_laid(b, column, (*batch, *over, *columns)), (count[0], count[3], count[2]))
    product = apply(Op.DOT, x, y, contract=(2, 1))
    return to_shape(product, tuple(sizes[label] for label in result)), result


def _laid(x: Tensor, labels: Labels, wanted: Labels) -> Tensor:
    """`x` with its axes in another order; the label "" stands for a new axis of one element."""
    moved = reorder(x, tuple(labels.index(label) for label in wanted if label))
    new = tuple(k for k, label in enumerate(wanted) if not label)
    return expand_dims(moved, axis=new) if new else moved
