"""The pipeline: one literal list of stages, from a traced graph to a program.

    trace -> expand-autodiff -> decompose -> simplify -> fold -> dce -> fuse -> lower -> batch
          -> schedule -> plan-memory

Closed graphs that control flow applies go through the same stages, and become programs of their own
when the graph that applies them is lowered.

An observer sees every stage's result, which is how stages are printed, dumped, timed and verified;
passes themselves never read a setting.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from einkorn.ir.graph import Graph
from einkorn.ir.machine import Machine
from einkorn.ir.program import Program
from einkorn.ir.rewrite import Allow, always
from einkorn.passes.autodiff import expand
from einkorn.passes.batch import batch
from einkorn.passes.dce import dce
from einkorn.passes.decompose import decompose
from einkorn.passes.fold import fold
from einkorn.passes.fuse import fuse
from einkorn.passes.launches import Launches
from einkorn.passes.lower import Nested
from einkorn.passes.lower_tables import lower
from einkorn.passes.memory import plan_memory
from einkorn.passes.schedule import schedule
from einkorn.passes.simplify import simplify

Observer = Callable[[str, Any], None]


def stages(machine: Machine, allow: Allow) -> list[tuple[str, Callable[[Any], Any]]]:
    """Every stage: its name, and the pass that makes it from the stage before."""

    def launches(graph: Graph) -> Launches:
        return _until_schedule(graph, machine, allow)

    def program(launches: Launches) -> Program:
        return plan_memory(schedule(launches))

    nested = Nested(launches, program)
    return [
        ("expand-autodiff", expand),
        ("decompose", decompose),
        ("simplify", partial(simplify, allow=allow)),
        ("fold", partial(fold, allow=allow)),
        ("dce", dce),
        ("fuse", fuse),
        ("lower", partial(lower, machine=machine, nested=nested)),
        ("batch", batch),
        ("schedule", schedule),
        ("plan-memory", plan_memory),
    ]


def _until_schedule(graph: Graph, machine: Machine, allow: Allow) -> Launches:
    """The launches of a closed graph that control flow applies."""
    stage: Any = graph
    for name, run in stages(machine, allow):
        if name == "schedule":
            break
        stage = run(stage)
    return stage


def stage_names() -> tuple[str, ...]:
    """The name of every stage in order, the trace first."""
    return ("trace", *(name for name, _ in stages(Machine(1, 32), always)))


def _ignore(name: str, result: Any) -> None:
    """The observer that looks away."""


def run_pipeline(
    graph: Graph, machine: Machine, observe: Observer = _ignore, allow: Allow = always
) -> Program:
    """The program of `graph`.

    Args:
        graph: the traced function.
        machine: facts of the target.
        observe: called with each stage's name and result, the trace first.
        allow: asked before each rewrite with the rule's name; false leaves the node alone.
    """
    stage: Any = graph
    observe("trace", stage)
    for name, run in stages(machine, allow):
        stage = run(stage)
        observe(name, stage)
    return stage
