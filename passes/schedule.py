"""Pass `schedule`: order the launches so that nothing that can refuse comes after a write to state.

Launches that write new state move to the end, behind a commit point, with what depends on them;
unless something that can refuse depends on them, too: then their state is written to fresh storage.
Says which updates may overwrite the old value in place. Changes the order only.
"""

from __future__ import annotations

from dataclasses import replace

from einkorn.ir.graph import Graph
from einkorn.passes.launches import Buffer, Launch, Launches


def schedule(launches: Launches) -> Launches:
    """The launches in their final order, with the commit point and the updates done in place."""
    steps = launches.steps
    needs = dependencies(steps)
    early = _early(steps, needs)
    order = [k for k in range(len(steps)) if k in early] + [
        k for k in range(len(steps)) if k not in early
    ]
    arranged = [steps[k] for k in order]
    commit = len(early)
    in_place = frozenset(
        index
        for index in range(len(launches.graph.updates))
        if _may_overwrite(launches.graph, index, arranged, commit)
    )
    return replace(launches, steps=arranged, commit=commit, in_place=in_place)


def dependencies(steps: list[Launch]) -> list[set[int]]:
    """For each launch the earlier ones that wrote what it reads or writes."""
    writers: dict[Buffer, list[int]] = {}
    needs: list[set[int]] = []
    for k, launch in enumerate(steps):
        touched = [buffer for buffer, _ in (*launch.reads, *launch.writes)]
        needs.append({w for buffer in touched for w in writers.get(buffer, ())})
        for buffer, _ in launch.writes:
            writers.setdefault(buffer, []).append(k)
    return needs


def _early(steps: list[Launch], needs: list[set[int]]) -> set[int]:
    """The launches that run before the commit point."""
    late: set[int] = set()
    for k, launch in enumerate(steps):
        writes_state = any(buffer.role == "update" for buffer, _ in launch.writes)
        if writes_state or needs[k] & late:
            late.add(k)
    stack = [k for k in late if steps[k].refuses]
    while stack:  # what refuses comes first, and everything it needs with it
        k = stack.pop()
        if k in late:
            late.discard(k)
            stack.extend(needs[k])
    return {k for k in range(len(steps)) if k not in late}


def _may_overwrite(graph: Graph, index: int, steps: list[Launch], commit: int) -> bool:
    """Whether the new value of an update may be written over the old one.

    It may when it is written by one launch behind the commit point that reads the old value, if at
    all, only at the element it writes, and nothing after it reads the old value.
    """
    leaf, _ = graph.updates[index]
    number, inputs = graph.params.index(leaf), len(graph.inputs)
    role, position = ("input", number) if number < inputs else ("capture", number - inputs)
    writers = [
        k
        for k, launch in enumerate(steps)
        if any(buffer.role == "update" and buffer.index == index for buffer, _ in launch.writes)
    ]
    if len(writers) != 1 or writers[0] < commit or role == "input":
        return False
    for k, launch in enumerate(steps[writers[0] :]):
        for buffer, _ in launch.reads:
            old = buffer.role == role and buffer.index == position
            if old and (k > 0 or buffer not in launch.in_step):
                return False
    return True
