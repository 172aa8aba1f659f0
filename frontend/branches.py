"""Python branches on tensor values, as in `if t:`, while a function is traced.

The value is computed from what was recorded so far and the arguments of the call. The trace goes on
with that outcome, and its program checks it before it changes any state; with another outcome
another trace is used, or made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from einkorn.ir.errors import TraceError
from einkorn.ir.graph import Origin
from einkorn.ir.node import Node, make
from einkorn.ir.ops import Op

MAX_BRANCHES = 16  # outcomes of branches for which one kind of call keeps traces
MAX_TAKEN = 256  # branches of one trace

MSG_ABSTRACT = (
    "{name} branches on a tensor at {where}, and nothing is run to decide it; say how it goes, "
    "such as {name}.lower(..., branches=[True]), in the order of the branches"
)
MSG_LONG = (
    "{name} branches on tensors more than {most} times in one call, last at {where}. Write the "
    "loop as ek.while_loop, ek.fori_loop or ek.scan, and choices as ek.where or ek.cond"
)
MSG_MANY = (
    "{name} has branched in {most} ways on the values of tensors and would need another trace, at "
    "{where}. Write the choice as ek.where(condition, a, b) or ek.cond(condition, f, g), and a "
    "loop as ek.while_loop, ek.fori_loop or ek.scan"
)


@dataclass(frozen=True, slots=True)
class Taken:
    """One branch that a trace took: the node that checks it, the outcome, and the user's line."""

    check: Node
    outcome: bool
    origin: Origin | None

    def __str__(self) -> str:
        return f"the branch at {self.origin or 'an unknown place'} was {self.outcome}"


@dataclass(eq=False)
class Branches:
    """The branches of a trace.

    Attributes:
        name: of the function.
        value: computes the value of a node for the arguments of this call.
        given: outcomes to use instead, when nothing can be computed.
        taken: those so far.
    """

    name: str
    value: Callable[[Node], Any] | None = None
    given: Iterator[bool] = field(default_factory=lambda: iter(()))
    taken: list[Taken] = field(default_factory=list[Taken])

    def decide(self, condition: Node, origin: Origin | None, expected: bool | None = None) -> bool:
        """The outcome of a branch on `condition`, a bool scalar.

        Args:
            condition: what is decided.
            origin: the user's line.
            expected: the outcome where nothing can be computed.
        """
        where = origin or "an unknown place"
        if len(self.taken) >= MAX_TAKEN:
            raise TraceError(MSG_LONG.format(name=self.name, most=MAX_TAKEN, where=where))
        if self.value is not None:
            outcome = bool(self.value(condition))
        elif expected is not None:
            outcome = expected
        else:
            found = next(self.given, None)
            if found is None:
                raise TraceError(MSG_ABSTRACT.format(name=self.name, where=where))
            outcome = found
        check = make(Op.CHECK, condition, expected=outcome)
        self.taken.append(Taken(check, outcome, origin))
        return outcome


def too_many(name: str, taken: Sequence[Taken]) -> TraceError:
    """The error of a function that branches in more ways than are kept."""
    places = ", ".join(dict.fromkeys(str(branch.origin) for branch in taken))
    return TraceError(MSG_MANY.format(name=name, most=MAX_BRANCHES, where=places))
