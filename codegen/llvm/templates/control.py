"""Loops and branches over nested programs: they say where each step finds its buffers, and run it.

A nested program has a block of its own (einkorn.ir.program), whose slots these kernels fill in.
Its steps run in the calling thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from einkorn.codegen.llvm.text import Value, Writer
from einkorn.codegen.llvm.vectors import param, pointer, signature
from einkorn.ir import program
from einkorn.ir.loops import Branch, ScanLoop, WhileLoop

WORD = 8  # bytes that are copied at once


@dataclass(frozen=True, slots=True)
class _Kernel:
    """What the three kernels are written with."""

    w: Writer
    pointers: Value
    params: Value
    status: Value

    def param(self, index: int | Value) -> Value:
        """A parameter, also one whose number is known at run time."""
        if isinstance(index, int):
            return param(self.w, self.params, index)
        return self.w.load("i64", self.w.gep("i64", self.params, index))

    def buffer(self, first: Value, index: Value) -> Value:
        """The address of buffer `first + index`."""
        return self.w.load("ptr", self.w.gep("ptr", self.pointers, self.w.add(first, index)))

    def nested(self, number: int | Value) -> _Nested:
        """A nested program, by its number."""
        w = self.w
        at = w.i64(number) if isinstance(number, int) else number
        words = w.gep("i64", self.params, w.add(w.mul(at, w.i64(program.NESTED_WORDS)), w.i64(1)))
        block, slots = (w.load("ptr", w.gep("ptr", words, w.i64(k))) for k in (0, 1))
        every, few = (w.load("i64", w.gep("i64", words, w.i64(k))) for k in (2, 3))
        return _Nested(self, block, slots, every, few)

    def sums(self, *counts: Value) -> list[Value]:
        """Where each of several ranges that follow each other starts, and where the last ends."""
        found = [self.w.i64(0)]
        for count in counts:
            found.append(self.w.add(found[-1], count))
        return found

    def refused(self) -> Value:
        """Whether the step has refused: what operands hold may then be anything."""
        w = self.w
        found = w.emit("i64", f"load atomic i64, {self.status} monotonic, align 8")
        return w.icmp("ne", found, w.i64(0))

    def each(self, count: Value, body: Callable[[Value], None]) -> None:
        """Write `body(k)` for k in range(count)."""
        with self.w.loop(self.w.i64(0), count) as loop:
            body(loop.index)


@dataclass(frozen=True, slots=True)
class _Nested:
    """The block of a nested program, its slots, and how many binds it has and changes."""

    kernel: _Kernel
    block: Value
    slots: Value
    every: Value
    few: Value

    def bind(self, slot: Value, address: Value) -> None:
        """Put an address into a slot; those of the nested graph's operands start at 1."""
        w = self.kernel.w
        place = w.add(slot, w.i64(1 + program.ARENA))
        w.store(address, w.gep("ptr", self.slots, place))

    def run(self, is_first: Value | None = None) -> Value:
        """Run the program; gives whether it refused nothing."""
        w = self.kernel.w
        if is_first is not None:
            binds = w.select(is_first, self.every, self.few)
            w.store(binds, w.gep("i64", self.block, w.i64(program.BINDS)))
        driver = pointer(w, self.kernel.params, 0)
        found = w.call_pointer(driver, "i64", self.block)
        w.emit("i64", f"atomicrmw or {self.kernel.status}, {found} monotonic, align 8")
        return w.icmp("eq", found, w.i64(0))


def scan_loop(kernel: ScanLoop, lanes: int) -> str:
    """LLVM text of ScanLoop.

    for step in range(length):
        at = length - 1 - step if reverse else step
        out, other = (last, spare) if (length - 1 - step) % 2 == 0 else (spare, last)
        carries from `first` for step 0, else from `other`, to `out`
        rows from columns[at], to results[at]
        if status or run(block): break
    """
    w = Writer()
    with w.function("kernel", signature()) as (pointers, params, _, _, status):
        k = _Kernel(w, pointers, params, status)
        length, reverse, consts, carries, columns, results = (k.param(5 + n) for n in range(6))
        nested = k.nested(0)
        _, at_first, at_columns, at_last, at_results, at_spare = k.sums(
            consts, carries, columns, carries, results
        )
        to_carries = at_last  # slots of a nested program: operands as they come, then results
        k.each(consts, lambda n: nested.bind(n, k.buffer(w.i64(0), n)))
        turn = w.alloca("i64", align=8)
        w.store(w.i64(0), turn)
        with w.while_() as loop:
            step = w.load("i64", turn)
            loop.leave_unless(w.icmp("slt", step, length))
            w.store(w.add(step, w.i64(1)), turn)
            left = w.sub(w.sub(length, w.i64(1)), step)
            at = w.select(w.icmp("ne", reverse, w.i64(0)), left, step)
            is_first = w.icmp("eq", step, w.i64(0))
            even = w.icmp("eq", w.and_(left, w.i64(1)), w.i64(0))

            def carry(n: Value) -> None:
                last, spare = k.buffer(at_last, n), k.buffer(at_spare, n)
                before = w.select(is_first, k.buffer(at_first, n), w.select(even, spare, last))
                nested.bind(w.add(at_first, n), before)
                nested.bind(w.add(to_carries, n), w.select(even, last, spare))

            def rows(base: Value, n: Value, strides: Value) -> None:
                stride = k.param(w.add(w.add(strides, n), w.i64(11)))
                nested.bind(w.add(base, n), w.gep("i8", k.buffer(base, n), w.mul(at, stride)))

            loop.leave_unless(w.not_(k.refused()))
            k.each(carries, carry)
            k.each(columns, lambda n: rows(at_columns, n, w.i64(0)))
            k.each(results, lambda n: rows(at_results, n, columns))
            loop.leave_unless(nested.run(is_first))
    return w.module()


def while_loop(kernel: WhileLoop, lanes: int) -> str:
    """LLVM text of WhileLoop.

    for step in count():
        now = first for step 0, else the buffer that the step before wrote
        if status or run(condition) or not flag: break
        if run(body, from now, to last if step % 2 == 0 else spare): break
    copy now to last, unless it is there
    """
    w = Writer()
    with w.function("kernel", signature()) as (pointers, params, _, _, status):
        k = _Kernel(w, pointers, params, status)
        consts, carries = k.param(9), k.param(10)
        condition, body = k.nested(0), k.nested(1)
        _, at_first, at_last, at_spare, at_flag = k.sums(consts, carries, carries, carries)
        flag = k.buffer(at_flag, w.i64(0))
        condition.bind(at_last, flag)
        for nested in (condition, body):
            k.each(consts, lambda n, nested=nested: nested.bind(n, k.buffer(w.i64(0), n)))
        turn = w.alloca("i64", align=8)
        w.store(w.i64(0), turn)

        def now(step: Value, n: Value) -> Value:
            even = w.icmp("eq", w.and_(step, w.i64(1)), w.i64(0))
            written = w.select(even, k.buffer(at_spare, n), k.buffer(at_last, n))
            is_first = w.icmp("eq", step, w.i64(0))
            return w.select(is_first, k.buffer(at_first, n), written)

        with w.while_() as loop:
            step = w.load("i64", turn)
            even = w.icmp("eq", w.and_(step, w.i64(1)), w.i64(0))
            is_first = w.icmp("eq", step, w.i64(0))

            def carry(n: Value) -> None:
                place = w.add(at_first, n)
                before = now(step, n)
                condition.bind(place, before)
                body.bind(place, before)
                after = w.select(even, k.buffer(at_last, n), k.buffer(at_spare, n))
                body.bind(w.add(at_last, n), after)

            k.each(carries, carry)
            loop.leave_unless(w.not_(k.refused()))  # it might go on for ever
            loop.leave_unless(condition.run(is_first))
            loop.leave_unless(w.icmp("ne", w.load("i8", flag), w.const("i8", 0)))
            w.store(w.add(step, w.i64(1)), turn)
            loop.leave_unless(body.run(is_first))
        steps = w.load("i64", turn)
        elsewhere = w.icmp("eq", w.and_(steps, w.i64(1)), w.i64(0))
        with w.if_(elsewhere):
            k.each(
                carries,
                lambda n: _copy(
                    w, now(steps, n), k.buffer(at_last, n), k.param(w.add(n, w.i64(11)))
                ),
            )
    return w.module()


def branch(kernel: Branch, lanes: int) -> str:
    """LLVM text of Branch.

    if not status: run(block of min(max(index, 0), branches - 1))
    """
    w = Writer()
    with w.function("kernel", signature()) as (pointers, params, _, _, status):
        k = _Kernel(w, pointers, params, status)
        index, last = w.load("i64", pointer(w, pointers, 0)), w.i64(kernel.branches - 1)
        index = w.select(w.icmp("slt", index, last), index, last)
        index = w.select(w.icmp("sgt", index, w.i64(0)), index, w.i64(0))
        nested = k.nested(index)
        count = k.param(1 + program.NESTED_WORDS * kernel.branches)
        k.each(count, lambda n: nested.bind(n, k.buffer(w.i64(1), n)))
        with w.if_(w.not_(k.refused())):
            nested.run()
    return w.module()


def _copy(w: Writer, source: Value, target: Value, nbytes: Value) -> None:
    """Copy bytes between buffers, which do not overlap: words, then what is left."""
    words = w.lshr(nbytes, w.i64(WORD.bit_length() - 1))
    with w.loop(w.i64(0), words) as each:
        w.store(w.load("i64", w.gep("i64", source, each.index)), w.gep("i64", target, each.index))
    with w.loop(w.mul(words, w.i64(WORD)), nbytes) as each:
        w.store(w.load("i8", w.gep("i8", source, each.index)), w.gep("i8", target, each.index))
