"""Pass `batch`: the updates of many tensors by one rule, as one launch.

An optimizer runs the same map kernel on every parameter. Together they are one instruction, whose
work is spread over threads as a whole. Only maps of rank 1 that write nothing but state take part;
they move to the place of the last of them. Changes the order only.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

from einkorn.ir.loops import BATCH_CHUNK, Batched, LoopKernel
from einkorn.passes.costs import grain_of
from einkorn.passes.launches import Buffer, Launch, Launches


def batch(launches: Launches) -> Launches:
    """The launches with equal updates joined."""
    steps = launches.steps
    sets: dict[LoopKernel, list[int]] = {}
    for k, launch in enumerate(steps):
        if _is_update(launch) and isinstance(launch.kernel, LoopKernel):
            sets.setdefault(launch.kernel, []).append(k)
    touched = _last_touch(steps)
    place: dict[int, Launch | None] = {}
    for numbers in sets.values():
        last = numbers[-1]
        alone = [k for k in numbers if all(touched[b] <= k for b, _ in steps[k].writes)]
        if len(alone) > 1 and last in alone:
            place.update(dict.fromkeys(alone))
            place[last] = _joined([steps[k] for k in alone])
    found = [place.get(k, launch) for k, launch in enumerate(steps)]
    return replace(launches, steps=[launch for launch in found if launch is not None])


def _is_update(launch: Launch) -> bool:
    kernel = launch.kernel
    is_map = isinstance(kernel, LoopKernel) and kernel.rank == 1 and kernel.reduction is None
    return is_map and all(buffer.role == "update" for buffer, _ in launch.writes)


def _last_touch(steps: list[Launch]) -> dict[Buffer, int]:
    """The last launch that reads or writes each buffer."""
    return {
        buffer: k for k, launch in enumerate(steps) for buffer, _ in (*launch.reads, *launch.writes)
    }


def _joined(parts: list[Launch]) -> Launch:
    """One launch of several."""
    kernel = parts[0].kernel
    assert isinstance(kernel, LoopKernel)
    chunks = [-(-part.params[0] // BATCH_CHUNK) for part in parts]
    starts = list(accumulate(chunks, initial=0))
    cost = sum(part.cost for part in parts)
    readers: dict[Buffer, int] = {}
    for part in parts:
        for buffer in {buffer for buffer, _ in part.reads}:
            readers[buffer] = readers.get(buffer, 0) + 1
    in_step = {buffer for part in parts for buffer in part.in_step if readers[buffer] == 1}
    return Launch(
        Batched(kernel),
        tuple(operand for part in parts for operand in part.reads),
        tuple(operand for part in parts for operand in part.writes),
        (len(parts), *starts, *(n for part in parts for n in part.params)),
        starts[-1],
        grain_of(starts[-1], cost),
        cost,
        f"{len(parts)} x {parts[0].label}",
        in_step=frozenset(in_step),
    )
