"""How launches are shared among threads: units that one thread runs, and what two threads gain.

A short launch that goes on with what the one before it left in cache is not worth handing to
another thread: the two become a unit, which one thread claims and runs as one. A launch that is
worth splitting is a unit of its own. Units that do not need each other run side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from einkorn.passes import costs
from einkorn.passes.launches import Launch


@dataclass(slots=True)
class Unit:
    """Launches that one thread runs one after the other, or one launch that is split.

    Attributes:
        first: the number of the first launch.
        count: how many launches.
        after: how many leading launches must be finished before it starts.
        cost: estimated nanoseconds on one thread.
        split: whether threads share its work.
    """

    first: int
    count: int
    after: int
    cost: float
    split: bool


def share(steps: Sequence[Launch | None], needs: Sequence[set[int]]) -> tuple[list[Unit], float]:
    """The units of scheduled launches, None being a commit point; and their time on two threads."""
    units: list[Unit] = []
    for k, launch in enumerate(steps):
        if launch is None:
            units.append(Unit(k, 1, k, 0.0, True))
            continue
        split = launch.grain < launch.work
        if split or not units or not _joins(units[-1], k, launch, needs[k]):
            units.append(Unit(k, 1, max(needs[k], default=-1) + 1, launch.cost, split))
            continue
        unit = units[-1]
        unit.after = max(unit.after, _outside(unit, needs[k]))
        unit.count += 1
        unit.cost += launch.cost
    return units, _time_of_two(units)


def _outside(unit: Unit, need: set[int]) -> int:
    """What must be finished before a launch that joins the unit, itself left out."""
    return max((other for other in need if other < unit.first), default=-1) + 1


def _joins(unit: Unit, k: int, launch: Launch, need: set[int]) -> bool:
    """Whether launch k runs on the thread that ran the unit before it."""
    if unit.split or costs.HANDOFF_NS == 0:
        return False
    long = unit.cost >= 4 * costs.HANDOFF_NS
    if long and _outside(unit, need) > unit.after:  # the unit would have to wait
        return False
    short = min(unit.cost, launch.cost) < costs.HANDOFF_NS
    return k - 1 in need or short


def _time_of_two(units: Sequence[Unit]) -> float:
    """The time on two threads, each unit on the one that can start it first."""
    free = [0.0, 0.0]
    finished: list[float] = [0.0]  # when that many leading launches are finished
    place: list[int] = [0]  # the thread that ran the last of them, or 2 for both
    for unit in units:
        ready, thread = finished[unit.after], place[unit.after]
        late = [0.0 if thread in (k, 2) else costs.HANDOFF_NS for k in (0, 1)]
        starts = [max(free[k], ready + late[k]) for k in (0, 1)]
        both = (sum(starts) + unit.cost) / 2 + costs.HANDOFF_NS
        if unit.split and both > max(starts):
            free, thread = [both, both], 2
        else:
            thread = 0 if starts[0] <= starts[1] else 1
            free[thread] = starts[thread] + unit.cost
        end = max(finished[-1], max(free) if thread == 2 else free[thread])
        finished.extend([end] * unit.count)
        place.extend([thread] * unit.count)
    return max(free) + costs.TEAM_NS
