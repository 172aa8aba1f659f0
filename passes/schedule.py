"""Pass `schedule`: order the launches so that nothing that can refuse comes after a write to state.

The commit point stands right behind the last launch that can refuse. State is written behind it, as
soon as all that its new value needs is there, so that gradients do not wait in memory for one
another; unless something that can refuse depends on new state: that is written to fresh storage.
Says which updates may overwrite the old value in place. Changes the order only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from einkorn.ir.graph import Graph
from einkorn.passes.launches import Buffer, Launch, Launches
from einkorn.passes.replace import Touch, touches


def schedule(launches: Launches) -> Launches:
    """The launches in their final order, with the commit point and the updates done in place."""
    steps = launches.steps
    needs = dependencies(launches.graph, steps)
    late = _late(steps, needs)
    last = max((k for k, launch in enumerate(steps) if launch.refuses), default=-1)
    order = _order(steps, needs, late, last)
    arranged = [steps[k] for k in order]
    commit = order.index(last) + 1 if last >= 0 else 0
    in_place = _in_place(launches.graph, arranged, commit)
    return replace(launches, steps=arranged, commit=commit, in_place=in_place)


def dependencies(graph: Graph, steps: Sequence[Launch | None]) -> list[set[int]]:
    """For each launch the earlier ones that must be finished before it starts.

    What these need in turn is not repeated: who reads needs the last writer, who writes also the
    readers since. The new value of a leaf may be written over the old one, whose readers come
    first. It is no other operand's memory: storage that anything else can see is lent, and lent
    storage is never written. A commit point (None) needs all before it, and all behind it need it.
    """
    writer: dict[Buffer, int] = {}
    readers: dict[Buffer, list[int]] = {}
    readers_of_old: dict[int, list[int]] = {}
    capture_of = _updated_captures(graph)
    updated = set(capture_of.values())
    needs: list[set[int]] = []
    commit: tuple[int, ...] = ()
    for k, launch in enumerate(steps):
        need = set(commit)
        needs.append(need)
        if launch is None:
            need.update(range(k))
            commit = (k,)
            continue
        for buffer, _ in launch.reads:
            if buffer in writer:
                need.add(writer[buffer])
            if buffer.role == "capture" and buffer.index in updated:
                readers_of_old.setdefault(buffer.index, []).append(k)
            elif buffer.role != "capture":
                readers.setdefault(buffer, []).append(k)
        for buffer, _ in launch.writes:
            if buffer in writer:
                need.add(writer[buffer])
            need.update(readers.pop(buffer, ()))
            if buffer.role == "update" and buffer.index in capture_of:
                need.update(readers_of_old.get(capture_of[buffer.index], ()))
            writer[buffer] = k
        need.discard(k)
    return needs


def _updated_captures(graph: Graph) -> dict[int, int]:
    """For each update of a captured leaf the number of the capture."""
    numbers = {node: k for k, node in enumerate(graph.captures)}
    rows = enumerate(graph.updates)
    return {index: numbers[leaf] for index, (leaf, _) in rows if leaf in numbers}


def _late(steps: Sequence[Launch], needs: Sequence[set[int]]) -> set[int]:
    """The launches that run behind the commit point: those that write state and what needs them."""
    late: set[int] = set()
    for k, launch in enumerate(steps):
        writes_state = any(buffer.role == "update" for buffer, _ in launch.writes)
        if writes_state or not late.isdisjoint(needs[k]):
            late.add(k)
    stack = [k for k in late if steps[k].refuses]
    while stack:  # what refuses comes first, and everything it needs with it
        k = stack.pop()
        if k in late:
            late.discard(k)
            stack.extend(needs[k])
    return late


def _order(
    steps: Sequence[Launch], needs: Sequence[set[int]], late: set[int], last: int
) -> list[int]:
    """The launches in their final order.

    Late launches, and those that only late ones need, move: each that writes a result to the first
    place where it can run, behind number `last`, with the others that it needs right before it. Of
    several the one comes first whose chain of such needs is the shortest: gradients in the order in
    which backward finds them.
    """
    moves = _only_for(late, steps, needs)
    places, depths = list(range(len(steps))), [0] * len(steps)
    for k in sorted(moves):
        ready = max((places[need] for need in needs[k]), default=-1)
        places[k] = max(last, ready) if k in late else ready
        depths[k] = 1 + max((depths[need] for need in needs[k]), default=0)
    needed = {need for k in moves for need in needs[k]}
    ends = {k for k in late if k not in needed or _writes_result(steps[k])}
    waiting = sorted(ends, key=lambda k: (places[k], depths[k], k), reverse=True)
    order: list[int] = []
    done: set[int] = set()
    for staying in (-1, *(k for k in range(len(steps)) if k not in moves)):
        stack = [staying] if staying >= 0 else []
        while stack or (waiting and places[waiting[-1]] <= staying):
            k = stack[-1] if stack else waiting.pop()
            missing = [need for need in needs[k] if need not in done]
            if not stack:
                stack.append(k)
            if missing:
                stack.extend(sorted(missing, reverse=True))
                continue
            stack.pop()
            if k not in done:
                done.add(k)
                order.append(k)
    return order


def _only_for(late: set[int], steps: Sequence[Launch], needs: Sequence[set[int]]) -> set[int]:
    """The late launches and those that nothing but late ones needs."""
    users: dict[int, set[int]] = {}
    for k, need in enumerate(needs):
        for other in need:
            users.setdefault(other, set()).add(k)
    found: set[int] = set()
    for k in reversed(range(len(steps))):
        alone = k in users and users[k] <= found and not steps[k].refuses
        if k in late or (alone and not _writes_result(steps[k])):
            found.add(k)
    return found


def _writes_result(launch: Launch) -> bool:
    return any(buffer.role != "arena" for buffer, _ in launch.writes)


def _in_place(graph: Graph, steps: Sequence[Launch], commit: int) -> frozenset[int]:
    """The updates of captured leaves that may be written over the old value.

    Each is written by one launch behind the commit point that reads the old value, if at all, only
    at the element it writes, and nothing after it reads the old value.
    """
    last_reader: dict[int, int] = {}
    old: dict[int, Buffer] = {}
    writers: dict[int, list[tuple[int, Buffer]]] = {}
    alike: dict[int, dict[Buffer, Touch]] = {}
    for k, launch in enumerate(steps):
        for buffer, _ in launch.reads:
            if buffer.role == "capture":
                last_reader[buffer.index], old[buffer.index] = k, buffer
        for buffer, _ in launch.writes:
            if buffer.role == "update":
                writers.setdefault(buffer.index, []).append((k, buffer))
                alike[k] = alike.get(k) or touches(launch)

    def may_overwrite(index: int, capture: int) -> bool:
        if len(writers.get(index, ())) != 1 or writers[index][0][0] < commit:
            return False
        ((writer, new),) = writers[index]
        reader = last_reader.get(capture, -1)
        if reader != writer:
            return reader < writer
        touch = alike[writer].get(old[capture])
        return touch is not None and touch == alike[writer].get(new)

    rows = _updated_captures(graph).items()
    return frozenset(index for index, capture in rows if may_overwrite(index, capture))
