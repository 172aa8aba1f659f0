"""Graph -> pipeline -> target -> executable, found again in memory by structure."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from einkorn.codegen import reference
from einkorn.codegen.target import target_named
from einkorn.ir.graph import Graph
from einkorn.ir.program import Program
from einkorn.ir.rewrite import Fuel, always
from einkorn.ir.verify import verify
from einkorn.passes.autodiff import expand
from einkorn.passes.pipeline import run_pipeline
from einkorn.runtime import settings
from einkorn.runtime.executable import Executable
from einkorn.runtime.locks import LOCKS

Array = np.ndarray[Any, Any]

CACHED_PROGRAMS = 4096

_cache: OrderedDict[tuple[str, str], Executable] = OrderedDict()
_dumped = itertools.count(1)

Observer = Callable[[str, Any], None]


def build_program(graph: Graph, backend: str, observe: Observer | None = None) -> Program:
    """Run the pipeline under the settings in force: dumps, verification and fuel."""
    chosen = settings.current()
    observers = [observe] if observe else []
    if chosen.verify:
        observers.append(_verify_stage)
    if chosen.dump:
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
    """The source of every distinct kernel of a program, in the order of first use."""
    target = target_named(backend)
    return "\n".join(f"; {kernel}\n{target.text(kernel)}" for kernel in program.kernels)


def _verify_stage(name: str, result: Any) -> None:
    if isinstance(result, Graph):
        try:
            verify(result)
        except Exception as error:
            error.add_note(f"after the pass {name}")
            raise


def _dumper(graph: Graph, chosen: settings.Settings, backend: str) -> Observer:
    """Write each stage, and behind the program the source of its kernels."""
    folder = Path(chosen.dump)
    folder.mkdir(parents=True, exist_ok=True)
    prefix = f"{next(_dumped):03d}-{graph.name}"
    position = itertools.count()

    def dump(name: str, result: Any) -> None:
        number = next(position)
        if chosen.dump_after in ("", name):
            path = folder / f"{prefix}-{number}-{name}.txt"
            path.write_text(f"{result}\n", encoding="utf-8")
        if isinstance(result, Program) and chosen.dump_after in ("", "kernels"):
            path = folder / f"{prefix}-{number + 1}-kernels.ll"
            path.write_text(kernel_sources(result, backend), encoding="utf-8")

    return dump


def compile_graph(graph: Graph, backend: str = "llvm") -> Executable:
    """The executable of a graph; graphs of one structure share it."""
    key = (backend, graph.key)
    with LOCKS.programs:
        known = _cache.get(key)
        if known is not None:
            _cache.move_to_end(key)
            return known
    made = Executable(build_program(graph, backend), target_named(backend))
    with LOCKS.programs:
        _cache[key] = made
        while len(_cache) > CACHED_PROGRAMS:
            _cache.popitem(last=False)
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
