"""Graph -> pipeline -> target -> executable, found again in memory by structure."""

from __future__ import annotations

import itertools
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from einkorn.codegen import reference
from einkorn.codegen.target import target_named
from einkorn.ir.errors import EinkornError
from einkorn.ir.graph import Graph
from einkorn.ir.loops import Kernel
from einkorn.ir.ops import Op
from einkorn.ir.program import Program
from einkorn.ir.rewrite import Fuel, always
from einkorn.ir.verify import verify
from einkorn.passes.autodiff import expand
from einkorn.passes.cost_report import cost_report
from einkorn.passes.memory_report import memory_report
from einkorn.passes.pipeline import run_pipeline, stage_names
from einkorn.runtime import settings
from einkorn.runtime.executable import Executable
from einkorn.runtime.locks import LOCKS

Array = np.ndarray[Any, Any]

CACHED_INSTRUCTIONS = 1 << 16  # of all programs that are kept; measured: 2 to 3 KB for each

_cache: OrderedDict[tuple[str, str], Executable] = OrderedDict()
_weights: dict[tuple[str, str], int] = {}  # the instructions of each program
_dumped = itertools.count(1)

Observer = Callable[[str, Any], None]


def build_program(graph: Graph, backend: str, observe: Observer | None = None) -> Program:
    """Run the pipeline under the settings in force: dumps, verification and fuel."""
    chosen = settings.current()
    observers = [observe] if observe else []
    if chosen.verify:
        observers.append(_verify_stage)
    if chosen.dump or chosen.dump_after:
        observers.append(_dumper(graph, chosen, backend))

    def tell(name: str, result: Any) -> None:
        for observer in observers:
            observer(name, result)

    return run_pipeline(
        graph,
        target_named(backend).machine,
        tell,
        always if chosen.fuel is None else Fuel(chosen.fuel),
    )


def kernel_sources(program: Program, backend: str) -> str:
    """The source of every distinct kernel of a program, under what it computes."""
    return _listing(program, target_named(backend).text, ";")


def kernel_assembly(program: Program, backend: str) -> str:
    """The machine code of every distinct kernel of a program, under what it computes."""
    return _listing(program, target_named(backend).assembly, "#")


def _listing(program: Program, text: Callable[[Kernel], str], comment: str) -> str:
    """The text of each kernel under the labels of the instructions that run it."""
    uses: dict[Kernel, list[str]] = {kernel: [] for kernel in program.kernels}
    for number, row in program.walk():
        if row.kernel is not None:
            uses[row.kernel].append(f"{comment}   {number}: {row.label}")
    parts: list[str] = []
    for position, (kernel, labels) in enumerate(uses.items()):
        head = f"{comment} kernel {position}, {type(kernel).__name__}, of these instructions:"
        parts.append("\n".join([head, *labels, text(kernel)]))
    return "\n".join(parts)


def _verify_stage(name: str, result: Any) -> None:
    if isinstance(result, Graph):
        try:
            verify(result)
        except Exception as error:
            error.add_note(f"after the pass {name}")
            raise


def _dumper(graph: Graph, chosen: settings.Settings, backend: str) -> Observer:
    """Write each stage and each report as it is made, or only the one that was asked for.

    Into files of the folder `chosen.dump`, numbered in order; to stderr without a folder.
    """
    names = (*stage_names(), *REPORTS)
    wanted = chosen.dump_after
    if wanted and wanted not in names:
        known = ", ".join(names)
        raise EinkornError(f"EINKORN_DUMP_AFTER={wanted!r} is no stage; there are {known}")
    prefix = f"{next(_dumped):03d}-{graph.name}"
    made: dict[str, Any] = {}

    def write(name: str, text: str, suffix: str = "txt") -> None:
        if chosen.dump:
            folder = Path(chosen.dump)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{prefix}-{names.index(name):02d}-{name}.{suffix}"
            path.write_text(f"{text}\n", encoding="utf-8")
        else:
            sys.stderr.write(f"# {prefix}, {name}\n{text}\n")

    def dump(name: str, result: Any) -> None:
        made[name] = result
        if wanted in ("", name):
            write(name, str(result))
        if isinstance(result, Program):
            for report, (suffix, text) in REPORTS.items():
                if wanted in ("", report):
                    write(report, text(made, backend), suffix)

    return dump


# What is dumped behind the stages: a file's suffix, and its text from the stages' results.
REPORTS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "kernels": ("ll", lambda made, backend: kernel_sources(made["plan-memory"], backend)),
    "memory": ("txt", lambda made, _: str(memory_report(made["schedule"], made["plan-memory"]))),
    "cost": ("txt", lambda made, _: str(cost_report(made["plan-memory"]))),
}


def compile_graph(graph: Graph, backend: str = "llvm") -> Executable:
    """The executable of a graph; graphs of one structure share it."""
    key = (backend, graph.key)
    with LOCKS.programs:
        known = _cache.get(key)
        if known is not None:
            _cache.move_to_end(key)
            return known
    made = Executable(build_program(graph, backend), target_named(backend))
    if any(node.op is Op.CALLBACK for node in graph.nodes):
        return made  # the functions of users go with their traces
    with LOCKS.programs:
        _cache[key], _weights[key] = made, 1 + sum(1 for _ in made.program.walk())
        excess = sum(_weights.values()) - CACHED_INSTRUCTIONS if len(_cache) > 1 else 0
        while excess > 0 and len(_cache) > 1:
            excess -= _weights.pop(_cache.popitem(last=False)[0])
    return made


def run_reference(graph: Graph, arrays: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """The outputs and the new values of updates by the NumPy reference, op by op.

    Args:
        graph: a traced graph; `grad` and `call` in it are expanded first.
        arrays: the values of its inputs, then of its captures.
    """
    outputs, updates = reference.run(expand(graph), arrays)
    return list(outputs), list(updates)


def clear_caches() -> None:
    """Forget every compiled program; kernels stay loaded."""
    with LOCKS.programs:
        _cache.clear()
        _weights.clear()
