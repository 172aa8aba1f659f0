"""Places in one piece of memory for temporaries whose lives are known.

Two orders are tried: by time, each in the gap that fits best, which is fast; and where that leaves
holes, by size, each as low as it fits. The smaller arena wins.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
HOLES = 1.03  # an arena that is larger than this times what it needs is worth a second try
MOST_BY_SIZE = 400  # temporaries; the time of that order grows with their square

Lives = Sequence[tuple[int, int, int]]  # of each temporary its bytes, first and last launch


def rounded(nbytes: int) -> int:
    """The bytes that a temporary takes."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def arrange(lives: Lives) -> tuple[list[int], int]:
    """An offset for each temporary, and the bytes of all."""
    offsets = _by_time(lives)
    size = _size(lives, offsets)
    if size > HOLES * _most_at_once(lives) and len(lives) <= MOST_BY_SIZE:
        other = _by_size(lives)
        if _size(lives, other) < size:
            offsets, size = other, _size(lives, other)
    return offsets, size


def _size(lives: Lives, offsets: Sequence[int]) -> int:
    return max((at + rounded(nbytes) for at, (nbytes, _, _) in zip(offsets, lives)), default=0)


def _events(lives: Lives) -> list[tuple[int, bool, int]]:
    """(launch, whether it is an end, temporary): all starts of a launch, then its ends."""
    starts = [(first, False, k) for k, (_, first, _) in enumerate(lives)]
    return sorted(starts + [(last, True, k) for k, (_, _, last) in enumerate(lives)])


def _most_at_once(lives: Lives) -> int:
    """The most bytes alive at the same time: no arrangement needs less."""
    now = most = 0
    for _, end, k in _events(lives):
        now += -rounded(lives[k][0]) if end else rounded(lives[k][0])
        most = max(most, now)
    return most


class _Gaps:
    """The free memory, by size and by place."""

    def __init__(self) -> None:
        self.end = 0
        self._sizes: list[tuple[int, int]] = []  # (bytes, offset), sorted
        self._starts: dict[int, int] = {}  # offset -> end
        self._ends: dict[int, int] = {}  # end -> offset

    def take(self, nbytes: int) -> int:
        """The smallest gap that is large enough, else the end of the memory, which grows."""
        position = bisect_left(self._sizes, (nbytes, 0))
        if position < len(self._sizes):
            size, offset = self._sizes[position]
            self._remove(offset, offset + size)
            if size > nbytes:
                self._add(offset + nbytes, offset + size)
            return offset
        offset = self._ends.get(self.end, self.end)
        if offset < self.end:
            self._remove(offset, self.end)
        self.end = offset + nbytes
        return offset

    def give(self, offset: int, nbytes: int) -> None:
        """Free memory, joined with the gaps beside it."""
        start, end = self._ends.get(offset, offset), offset + nbytes
        if start < offset:
            self._remove(start, offset)
        following = self._starts.get(end)
        if following is not None:
            self._remove(end, following)
            end = following
        self._add(start, end)

    def _add(self, start: int, end: int) -> None:
        insort(self._sizes, (end - start, start))
        self._starts[start], self._ends[end] = end, start

    def _remove(self, start: int, end: int) -> None:
        del self._sizes[bisect_left(self._sizes, (end - start, start))]
        del self._starts[start], self._ends[end]


def _by_time(lives: Lives) -> list[int]:
    gaps, offsets = _Gaps(), [0] * len(lives)
    for _, end, k in _events(lives):
        nbytes = rounded(lives[k][0])
        if nbytes and end:
            gaps.give(offsets[k], nbytes)
        elif nbytes:
            offsets[k] = gaps.take(nbytes)
    return offsets


def _by_size(lives: Lives) -> list[int]:
    """The largest first, each at the lowest offset that is free during its life."""
    offsets = [0] * len(lives)
    placed: list[tuple[int, int, int, int]] = []  # (offset, end, first, last), sorted
    for k in sorted(range(len(lives)), key=lambda k: (-lives[k][0], lives[k][1])):
        nbytes, first, last = lives[k]
        offset = 0
        for start, end, begin, until in placed:
            if begin <= last and first <= until:
                if start - offset >= nbytes:
                    break
                offset = max(offset, end)
        offsets[k] = offset
        if nbytes:
            insort(placed, (offset, offset + rounded(nbytes), first, last))
    return offsets
