"""Calls of the host: one call of a function whose address is a parameter."""

from __future__ import annotations

from einkorn.codegen.llvm.text import Value, Writer
from einkorn.codegen.llvm.vectors import signature
from einkorn.ir import program
from einkorn.ir.loops import HostCall


def host_call(kernel: HostCall, lanes: int) -> str:
    """LLVM text of HostCall.

    if status: return                # what the operands hold may be anything
    params[DONE] = 0
    params[CALL](pointers, params)
    if params[DONE] != 1: status |= STATUS_HOST
    """
    w = Writer()
    with w.function("kernel", signature()) as (pointers, params, _, _, status):
        before = w.emit("i64", f"load atomic i64, {status} monotonic, align 8")
        with w.if_(w.icmp("eq", before, w.i64(0))):
            done = w.gep("i64", params, w.i64(program.DONE))
            w.store(w.i64(0), done)
            call = w.load("ptr", w.gep("i64", params, w.i64(program.CALL)))
            w.call_pointer(call, "void", pointers, params)
            with w.if_(w.icmp("ne", w.load("i64", done), w.i64(1))):
                refused = Value(str(program.STATUS_HOST), "i64")
                w.emit("i64", f"atomicrmw or {status}, {refused} monotonic, align 8")
    return w.module()
