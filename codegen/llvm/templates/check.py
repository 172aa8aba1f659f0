"""Conditions that a step is made for."""

from __future__ import annotations

from einkorn.codegen.llvm.text import Writer
from einkorn.codegen.llvm.vectors import param, pointer, signature
from einkorn.ir.loops import Check
from einkorn.ir.program import STATUS_CHECK


def check(kernel: Check, lanes: int) -> str:
    """LLVM text of Check.

    out[0] = x[0]
    if x[0] != params[0]: status |= STATUS_CHECK
    """
    w = Writer()
    with w.function("kernel", signature()) as (pointers, params, _, _, status):
        value = w.load("i8", pointer(w, pointers, 0))
        w.store(value, pointer(w, pointers, 1))
        with w.if_(w.icmp("ne", w.cast("zext", value, "i64"), param(w, params, 0))):
            w.emit("i64", f"atomicrmw or {status}, i64 {STATUS_CHECK} monotonic, align 8")
    return w.module()
