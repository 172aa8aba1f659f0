"""Estimates of time, in nanoseconds on one thread, and how finely work is split.

They choose how a step is spread over threads; they never change a result. The figures are for one
core with 16 float32 lanes, rounded from measurements of the kernels themselves.
"""

from __future__ import annotations

from einkorn.ir.loops import HostCall, LoopKernel, levels
from einkorn.ir.ops import Op
from einkorn.ir.work import host_flops

LAUNCH_NS = 15.0
HOST_NS = 15_000.0  # to take the GIL, make arrays and enter NumPy
HOST_FLOP_NS = 0.25  # an operation of LAPACK on matrices of moderate size
NESTED_NS = 20.0  # to start a nested program
WHILE_STEPS = 16  # of a loop of which nobody knows how long it runs
BYTE_NS = 0.03  # a byte read or written, in cache
SIMPLE_NS = 0.03  # an add, compare or select of one element
HANDOFF_NS = 3_000.0  # until a thread goes on with what another one has done
TEAM_NS = 2_000.0  # to open and close a job of the team
SPLIT_NS = 12_000.0  # below this a launch is not worth a second thread
PIECE_NS = 4_000.0  # a piece that is worth claiming
SCRATCH_BYTES = 48 * 1024  # stack memory for kept rows: in L1, and safe for threads' small stacks
PIECES = 16  # parts of a launch: enough that a late thread leaves little undone
LONG_PIECE_NS = 20_000.0  # no piece of a longer launch has to take longer

_SLOW = {
    Op.EXP: 0.4,
    Op.EXPM1: 0.8,
    Op.LOG: 0.6,
    Op.LOG1P: 0.8,
    Op.LOG2: 1.0,
    Op.LOG10: 1.0,
    Op.SIN: 1.0,
    Op.COS: 1.0,
    Op.TAN: 1.5,
    Op.ASIN: 0.6,
    Op.ACOS: 0.6,
    Op.ATAN2: 1.0,
    Op.SINH: 0.8,
    Op.COSH: 0.6,
    Op.TANH: 0.6,
    Op.ASINH: 1.0,
    Op.ACOSH: 1.0,
    Op.ATANH: 1.0,
    Op.ERF: 1.0,
    Op.ERFC: 1.5,
    Op.ERFINV: 4.0,
    Op.NDTR: 1.5,
    Op.LGAMMA: 8.0,
    Op.POLYGAMMA: 8.0,
    Op.SIGMOID: 0.6,
    Op.SILU: 0.7,
    Op.GELU: 1.5,
    Op.SOFTPLUS: 1.0,
    Op.POW: 3.0,
    Op.DIV: 0.2,
    Op.SQRT: 0.3,
    Op.RSQRT: 0.5,
    Op.FLOOR_DIV: 1.0,
    Op.REMAINDER: 1.0,
}


def op_cost(op: Op) -> float:
    """The time of an elementwise op for one element."""
    return _SLOW.get(op, SIMPLE_NS)


def host_cost(kernel: HostCall) -> float:
    """The time of a call of the host."""
    moved = sum(x.nbytes for x in (*kernel.operands, *kernel.results)) * BYTE_NS
    return HOST_NS + moved + HOST_FLOP_NS * host_flops(kernel)


def loop_cost(kernel: LoopKernel, elements: int) -> float:
    """The time of a loop nest over `elements` indices."""
    accesses = [*kernel.loads, *(access for access, _ in kernel.stores)]
    moved = sum(BYTE_NS * access.dtype.itemsize for access in accesses if access.inner != "zero")
    scattered = sum(access.inner == "any" for access in accesses)
    known = levels(kernel)[len(kernel.loads) :]
    work = sum(
        op_cost(step.op)
        for step, level in zip(kernel.body, known)
        if level.varies or step.over is not None
    )
    return LAUNCH_NS + elements * (moved + work + 0.5 * scattered)


def grain_of(work: int, cost: float, multiple: int = 1) -> int:
    """Work items claimed at once: all of a short launch, else what is worth claiming."""
    if cost < SPLIT_NS or work <= multiple:
        return work
    pieces = max(2, min(PIECES, int(cost / PIECE_NS)), int(cost / LONG_PIECE_NS))
    part = -(-work // pieces)
    return -(-part // multiple) * multiple
