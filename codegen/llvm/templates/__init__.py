"""LLVM text of the templates of ir/loops.py: kernels that a loop nest cannot say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from einkorn.codegen.llvm.templates.batched import batched
from einkorn.codegen.llvm.templates.check import check
from einkorn.codegen.llvm.templates.control import branch, scan_loop, while_loop
from einkorn.codegen.llvm.templates.dot import tiled_dot
from einkorn.codegen.llvm.templates.host import host_call
from einkorn.codegen.llvm.templates.indexing import gather, scatter
from einkorn.codegen.llvm.templates.pack import pack
from einkorn.codegen.llvm.templates.random import random_bits
from einkorn.codegen.llvm.templates.scan import arg_reduce, scan
from einkorn.codegen.llvm.templates.sequence import sequence
from einkorn.codegen.llvm.templates.skinny import skinny_dot
from einkorn.codegen.llvm.templates.sort import arg_sort
from einkorn.codegen.llvm.templates.windows import window_pick, window_place, window_sum
from einkorn.ir.loops import (
    ArgReduce,
    ArgSort,
    Batched,
    Branch,
    Check,
    Gather,
    HostCall,
    Pack,
    RandomBits,
    Scan,
    ScanLoop,
    Scatter,
    Sequence,
    SkinnyDot,
    TiledDot,
    WhileLoop,
)
from einkorn.ir.windows import WindowPick, WindowPlace, WindowSum

# template class -> (kernel, lanes of float32 in a machine register) -> text of a module that
# defines `kernel`
TEMPLATES: dict[type, Callable[[Any, int], str]] = {
    Batched: batched,
    RandomBits: random_bits,
    Check: check,
    Sequence: sequence,
    Scan: scan,
    ArgReduce: arg_reduce,
    ArgSort: arg_sort,
    Gather: gather,
    Scatter: scatter,
    Pack: pack,
    TiledDot: tiled_dot,
    SkinnyDot: skinny_dot,
    WindowPick: window_pick,
    WindowPlace: window_place,
    WindowSum: window_sum,
    ScanLoop: scan_loop,
    WhileLoop: while_loop,
    Branch: branch,
    HostCall: host_call,
}
