"""The values of a loop nest while its code is written: addresses, loads, steps and reductions."""

from __future__ import annotations

from collections.abc import Sequence

from einkorn.codegen.llvm.expressions import evaluate_step
from einkorn.codegen.llvm.text import Value, Writer, vector
from einkorn.codegen.llvm.vectors import (
    accumulator,
    combine,
    divmod_,
    element,
    join,
    load,
    load_lanes,
    neutral,
    param,
    register,
    round_down,
    round_to,
    storage,
    store_lanes,
    to_register,
    to_storage,
)
from einkorn.ir.dtypes import DType
from einkorn.ir.loops import PARTIALS, Access, Expr, LoopKernel, levels
from einkorn.ir.ops import Op

_INDICES = vector(PARTIALS, "i64")


class Nest:
    """The parameters of one kernel, loaded once, and the vector loads and stores on them."""

    def __init__(
        self, w: Writer, kernel: LoopKernel, params: Value, bases: Sequence[Value]
    ) -> None:
        self.w, self.kernel, self.bases = w, kernel, list(bases)
        rank = kernel.rank
        self.accesses: list[Access] = [*kernel.loads, *(access for access, _ in kernel.stores)]
        self.extents = [param(w, params, axis) for axis in range(rank)]
        self.strides = [
            [param(w, params, rank * (k + 1) + axis) for axis in range(rank)]
            for k in range(len(self.accesses))
        ]
        self.levels = levels(kernel)
        rounded = round_down(w, w.add(self.extents[-1], w.i64(PARTIALS - 1)), PARTIALS)
        self.scratch = {k: w.alloca(register(kernel.dtype_of(k)), rounded) for k in kernel.kept}

    def at(self, number: Value, axes: Sequence[int]) -> list[Value]:
        """The address of every access at the flattened index `number` over `axes`, last fastest."""
        w = self.w
        offsets = [w.i64(0)] * len(self.accesses)
        for position, axis in reversed(list(enumerate(axes))):
            if position:
                number, index = divmod_(w, number, self.extents[axis])
            else:
                index = number
            offsets = [
                w.add(offset, w.mul(index, strides[axis]))
                for offset, strides in zip(offsets, self.strides)
            ]
        return self.moved(self.bases, offsets)

    def moved(self, bases: Sequence[Value], offsets: Sequence[Value]) -> list[Value]:
        rows = zip(self.accesses, bases, offsets)
        return [element(self.w, access.dtype, base, offset) for access, base, offset in rows]

    def read(self, k: int, base: Value, index: Value, mask: Value | None) -> Value:
        """PARTIALS elements of load `k` along the last axis."""
        w, access = self.w, self.accesses[k]
        if access.inner == "unit":
            return load_lanes(w, access.dtype, element(w, access.dtype, base, index), mask)
        addresses = self._addresses(k, base, index)
        type = vector(PARTIALS, storage(access.dtype))
        return to_register(w, access.dtype, w.gather(type, addresses, self._mask(mask)))

    def write(self, k: int, base: Value, index: Value, mask: Value | None, value: Value) -> None:
        """Store PARTIALS elements along the last axis."""
        w, access = self.w, self.accesses[k]
        if access.inner == "unit":
            store_lanes(w, access.dtype, value, element(w, access.dtype, base, index), mask)
        else:
            addresses = self._addresses(k, base, index)
            w.scatter(to_storage(w, access.dtype, value), addresses, self._mask(mask))

    # -- reductions ----------------------------------------------------------------------------

    def operand(self, number: int) -> int:
        """The value number that a reduction reduces."""
        return self.kernel.body[number - len(self.kernel.loads)].inputs[0]

    def store_of(self, number: int) -> int:
        """The access that a value is stored through."""
        values = [value for _, value in self.kernel.stores]
        return len(self.kernel.loads) + values.index(number)

    def _accumulates(self, number: int) -> tuple[Op, DType]:
        """The op of a reduction, and the dtype in which it accumulates."""
        op = self.kernel.body[number - len(self.kernel.loads)].op
        return op, accumulator(self.kernel.dtype_of(self.operand(number)))

    def neutral(self, number: int) -> Value:
        """The neutral element of a reduction in every lane."""
        op, dtype = self._accumulates(number)
        return self.w.const(vector(PARTIALS, register(dtype)), neutral(op, dtype))

    def scalar_neutral(self, number: int) -> Value:
        op, dtype = self._accumulates(number)
        return self.w.const(register(dtype), neutral(op, dtype))

    def combined(self, number: int, a: Value, b: Value) -> Value:
        """a op b, for vectors or scalars."""
        return combine(self.w, *self._accumulates(number), a, b)

    def joined(self, number: int, partials: Value) -> Value:
        """The partials of a reduction as one scalar."""
        return join(self.w, *self._accumulates(number), partials)

    def rounded(self, number: int, value: Value) -> Value:
        """A finished total in the dtype of its step."""
        return round_to(self.w, self.kernel.dtype_of(number), value)

    def _addresses(self, k: int, base: Value, index: Value) -> Value:
        w = self.w
        lanes = w.add(w.splat(index, PARTIALS), w.lanes(_INDICES, range(PARTIALS)))
        offsets = w.mul(lanes, w.splat(self.strides[k][-1], PARTIALS))
        return w.geps(storage(self.accesses[k].dtype), base, offsets)

    def _mask(self, mask: Value | None) -> Value:
        return mask if mask is not None else self.w.const(vector(PARTIALS, "i1"), True)


class Row:
    """The values of one row: what is the same along it, and how to compute the rest at an index.

    Attributes:
        bases: the address of each access at the start of the row.
        known: values that are the same along the row, in every lane.
    """

    def __init__(self, nest: Nest, bases: Sequence[Value]) -> None:
        self.nest, self.bases = nest, bases
        self.known: dict[int, Value] = {}
        kernel, w = nest.kernel, nest.w
        for k, access in enumerate(kernel.loads):
            if access.inner == "zero":
                self.known[k] = w.splat(load(w, access.dtype, bases[k]), PARTIALS)
        self.settle()

    def settle(self) -> None:
        """Compute every step that is the same along the row and whose operands are known."""
        kernel, loads = self.nest.kernel, len(self.nest.kernel.loads)
        for number, step in enumerate(kernel.body, loads):
            ready = all(k in self.known for k in step.inputs)
            if ready and not self.nest.levels[number].varies and step.over is None:
                if number not in self.known:
                    self.known[number] = self.computed(step, [self.known[k] for k in step.inputs])

    def computed(self, step: Expr, args: list[Value], index: Value | None = None) -> Value:
        """The value of a step, given its operands."""
        kernel = self.nest.kernel
        kind = kernel.dtype_of(step.inputs[0]) if step.inputs else step.dtype
        lanes = index if index is not None else self.nest.w.const(_INDICES, 0)
        return evaluate_step(self.nest.w, step, kind, args, _INDICES, lanes)


class Lanes:
    """Values at PARTIALS indices of a row, each computed when it is first asked for."""

    def __init__(self, row: Row, index: Value, mask: Value | None, stage: int) -> None:
        self._row, self._index, self._mask, self._stage = row, index, mask, stage
        self._found = dict(row.known)

    def value(self, number: int) -> Value:
        """Value `number`, after those it depends on (without recursion: bodies may be long)."""
        pending = [number]
        while pending:
            k = pending[-1]
            if k in self._found:
                pending.pop()
                continue
            missing = [x for x in self._operands(k) if x not in self._found]
            if missing:
                pending.extend(missing)
            else:
                self._found[k] = self._computed(k)
                pending.pop()
        return self._found[number]

    def keep(self, number: int) -> None:
        """Leave a value for later passes over the row."""
        self.nest.w.store(self.value(number), self._place(number))

    @property
    def nest(self) -> Nest:
        return self._row.nest

    def _is_kept(self, k: int) -> bool:
        return k in self.nest.scratch and self.nest.levels[k].stage < self._stage

    def _operands(self, k: int) -> Sequence[int]:
        loads = len(self.nest.kernel.loads)
        return () if k < loads or self._is_kept(k) else self.nest.kernel.body[k - loads].inputs

    def _computed(self, k: int) -> Value:
        nest, w = self.nest, self.nest.w
        loads = len(nest.kernel.loads)
        if self._is_kept(k):
            type = register(nest.kernel.dtype_of(k))
            return w.load(vector(PARTIALS, type), self._place(k))
        if k < loads:
            return nest.read(k, self._row.bases[k], self._index, self._mask)
        step = nest.kernel.body[k - loads]
        lanes = w.add(w.splat(self._index, PARTIALS), w.lanes(_INDICES, range(PARTIALS)))
        return self._row.computed(step, [self._found[x] for x in step.inputs], lanes)

    def _place(self, k: int) -> Value:
        w = self.nest.w
        return w.gep(register(self.nest.kernel.dtype_of(k)), self.nest.scratch[k], self._index)
