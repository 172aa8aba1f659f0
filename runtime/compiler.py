"""Graph -> pipeline -> target -> executable, found again in memory by structure."""

from __future__ import annotations

import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from einkorn.codegen.target import Target, target_named
from einkorn.ir.graph import Graph
from einkorn.ir.program import Program
from einkorn.ir.rewrite import Fuel, always
from einkorn.ir.verify import verify
from einkorn.passes.pipeline import run_pipeline
from einkorn.runtime import settings
from einkorn.runtime.executable import Executable

CACHED_PROGRAMS = 4096

_cache: OrderedDict[tuple[str, str], Executable] = OrderedDict()
_lock = threading.RLock()
_dumped = itertools.count(1)

Observer = Callable[[str, Any], None]


def _release_in_child() -> None:
    """A lock that another thread held at a fork stays locked in the child: start with a new one."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)


def build_program(graph: Graph, backend: str, observe: Observer | None = None) -> Program:
    """Run the pipeline under the settings in force: dumps, verification and fuel."""
    chosen = settings.current()
    observers = [observe] if observe else []
    if chosen.verify:
        observers.append(_verify_stage)
    if chosen.dump:
        observers.append(_dumper(graph, chosen, target_named(backend)))

    def tell(name: str, result: Any) -> None:
        for observer in observers:
            observer(name, result)

    return run_pipeline(
        graph,
        target_named(backend).machine,
        tell,
        always if chosen.fuel is None else Fuel(chosen.fuel),
    )


def kernel_sources(program: Program, target: Target) -> str:
    """The source of every distinct kernel of a program, in the order of first use."""
    return "\n".join(f"; {kernel}\n{target.text(kernel)}" for kernel in program.kernels)


def _verify_stage(name: str, result: Any) -> None:
    if isinstance(result, Graph):
        try:
            verify(result)
        except Exception as error:
            error.add_note(f"after the pass {name}")
            raise


def _dumper(graph: Graph, chosen: settings.Settings, target: Target) -> Observer:
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
            path.write_text(kernel_sources(result, target), encoding="utf-8")

    return dump


def compile_graph(graph: Graph, backend: str = "llvm") -> Executable:
    """The executable of a graph; graphs of one structure share it."""
    key = (backend, graph.key)
    with _lock:
        known = _cache.get(key)
        if known is not None:
            _cache.move_to_end(key)
            return known
    made = Executable(build_program(graph, backend), target_named(backend))
    with _lock:
        _cache[key] = made
        while len(_cache) > CACHED_PROGRAMS:
            _cache.popitem(last=False)
    return made


def clear_caches() -> None:
    """Forget every compiled program; kernels stay loaded."""
    with _lock:
        _cache.clear()
