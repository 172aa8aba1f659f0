"""Draws that reject: words in rounds, one set for each element, until every element has accepted.

Round r takes the words of (key of the draw, r). An element that has accepted does not change any
more, so what it becomes depends on its own words alone.
"""

from __future__ import annotations

from typing import Any

from einkorn.control import while_loop
from einkorn.functions import elementwise as ew
from einkorn.functions.statistical import any as any_of
from einkorn.ir.dtypes import uint64
from einkorn.recording import scalar
from einkorn.tensor import Tensor

ROUNDS = 64  # each is accepted with a probability above 0.7: 64 fail with one below 1e-33
APART = 1 << 32  # the first counter that rounds do not reach


def in_rounds(propose: Any, word: Tensor, first: Tensor, done: Tensor) -> Tensor:
    """For each element the first proposal that it accepts.

    Args:
        propose: takes (key, round) and gives (value, whether it is accepted).
        word: the key of the rounds.
        first: the values of those that are done from the start.
        done: which these are.
    """

    def goes_on(state: Any) -> Tensor:
        count, _, done = state
        return ew.bitwise_and(any_of(ew.bitwise_invert(done)), ew.less(count, ROUNDS))

    def step(state: Any) -> Any:
        count, value, done = state
        proposal, accepted = propose((word, count))
        value = ew.where(ew.bitwise_or(done, ew.bitwise_invert(accepted)), value, proposal)
        return ew.add(count, 1), value, ew.bitwise_or(done, accepted)

    return while_loop(goes_on, step, (scalar(uint64, 0), first, done))[1]
