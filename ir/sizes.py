"""Sizes of axes that are known when a step runs: polynomials of the lengths that calls bring.

One trace may serve axes of several sizes (`ek.compile(buckets=...)`). The size of such an axis, and
what is computed from it, is a `Size`, which stands in shapes and attributes in the place of an int:
so the types say which axes are padded, and an axis that happens to be as long as the padding is not
mistaken for one of them. Comparisons are decided when they come out the same for every length of
the bucket; what needs the number itself raises a SizeError. The pass `passes/padding` puts ints in
the place of all of them; stages behind it know none.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from einkorn.ir.errors import SizeError

MSG_NUMBER = (
    "{what} needs the number that {size} is, but this trace is for every size from {low} to {high} "
    "(buckets). Compute with shapes instead: ek functions take {size}, and so do x + {size} and "
    "x / {size}; or leave this axis out of buckets, so that each of its sizes has a trace"
)
MSG_OPEN = (
    "whether {left} {relation} {right} is not the same for every size of this trace, which is made "
    "for {bounds} (buckets). Declare every argument that has this axis, choose sizes in buckets "
    "that lie closer together, or leave this axis out of buckets"
)


@dataclass(frozen=True, slots=True, order=True)
class Length:
    """A number that each call brings: how long an axis is in front of its padding.

    Different lengths of one trace are different numbers in every call of it.

    Attributes:
        name: for people: "x.shape[0]".
        low, high: the least it can be, and the most, which is how long the axis is with padding.
    """

    name: str
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A comparison of a size whose outcome depends on the length.

    Attributes:
        left: a size.
        relation: one of `RELATIONS`.
        right: a size or number.
    """

    left: Size
    relation: str
    right: Any

    @property
    def lengths(self) -> list[Length]:
        """The lengths that decide it, sorted."""
        other = self.right.lengths if isinstance(self.right, Size) else ()
        return sorted({*self.left.lengths, *other})

    def range_around(self, values: Mapping[Length, int]) -> Length:
        """The lengths around that of a call for which the outcome is that of this call.

        Where several lengths decide, the last of them alone; the next question is about fewer.
        """
        *more, length = self.lengths
        if more:
            n = values[length]
            return Length(length.name, n, n)
        holds = [self._holds(length, n) for n in range(length.low, length.high + 1)]
        low = high = values[length] - length.low
        while low > 0 and holds[low - 1] == holds[low]:
            low -= 1
        while high < len(holds) - 1 and holds[high + 1] == holds[high]:
            high += 1
        return Length(length.name, length.low + low, length.low + high)

    def _holds(self, length: Length, n: int) -> bool:
        right = self.right.at({length: n}) if isinstance(self.right, Size) else self.right
        return RELATIONS[self.relation](self.left.at({length: n}), right)


RELATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "equals": operator.eq,
    "is less than": operator.lt,
    "is at most": operator.le,
    "is more than": operator.gt,
    "is at least": operator.ge,
}

Monomial = tuple[Length, ...]
Term = tuple[Monomial, int]
Terms = tuple[Term, ...]

if TYPE_CHECKING:
    _Base = int  # where an int is wanted, a size may stand
else:
    _Base = object  # an int has no way to refuse `range(n)`


class Size(_Base):
    """A polynomial of lengths with whole coefficients; one without lengths is an int instead."""

    __slots__ = ("terms",)

    terms: Terms

    # -- its bounds ----------------------------------------------------------------------------

    @property
    def lengths(self) -> tuple[Length, ...]:
        """The lengths in it, sorted."""
        return tuple(sorted({x for monomial, _ in self.terms for x in monomial}))

    @property
    def padded(self) -> int:
        """Its value where every length is as long as its padding."""
        return self.at({x: x.high for x in self.lengths})

    def at(self, values: Mapping[Length, int]) -> int:
        """Its value for lengths that are known."""
        return sum(
            coefficient * prod(values[x] for x in monomial) for monomial, coefficient in self.terms
        )

    def bounds(self) -> tuple[int, int]:
        """Numbers between which it lies, in every call."""
        low = high = 0
        for monomial, coefficient in self.terms:
            ends = (prod(x.low for x in monomial), prod(x.high for x in monomial))
            low += coefficient * ends[coefficient < 0]
            high += coefficient * ends[coefficient > 0]
        return low, high

    # -- arithmetic ----------------------------------------------------------------------------

    def __add__(self, other: Any) -> Any:
        terms = _terms_of(other)
        return NotImplemented if terms is None else _sum(self, (*self.terms, *terms))

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        terms = _terms_of(other)
        if terms is None:
            return NotImplemented
        products = [(tuple(sorted((*a, *b))), m * n) for a, m in self.terms for b, n in terms]
        return _sum(self, products)

    __rmul__ = __mul__

    def __neg__(self) -> Any:
        return self * -1

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return self if self >= 0 else -self

    def __sub__(self, other: Any) -> Any:
        terms = _terms_of(other)
        return NotImplemented if terms is None else _sum(self, (*self.terms, *_negative(terms)))

    def __rsub__(self, other: Any) -> Any:
        terms = _terms_of(other)
        return NotImplemented if terms is None else _sum(self, (*terms, *_negative(self.terms)))

    def __divmod__(self, other: Any) -> Any:
        return _divided(self, self, other)

    def __rdivmod__(self, other: Any) -> Any:
        return _divided(self, other, self)

    def __floordiv__(self, other: Any) -> Any:
        return _part(_divided(self, self, other), 0)

    def __rfloordiv__(self, other: Any) -> Any:
        return _part(_divided(self, other, self), 0)

    def __mod__(self, other: Any) -> Any:
        return _part(_divided(self, self, other), 1)

    def __rmod__(self, other: Any) -> Any:
        return _part(_divided(self, other, self), 1)

    # -- comparison ----------------------------------------------------------------------------

    def equals(self, other: Any) -> bool | None:
        """Whether it is that size or number in every call, in none (False), or in some (None)."""
        other = _compared(other)
        terms = _terms_of(other)
        if terms is None:
            return False
        if self.terms == terms:
            return True
        if _is_length(self.terms) and _is_length(terms):  # different ones are different numbers
            return False
        low, high = _bounds(self - other)
        return None if low <= 0 <= high else False

    def __eq__(self, other: object) -> Any:
        """Whether it is that size or number; an open question when that differs from call to call.

        Tables of types ask only about sizes of one hash, which are equal in every call.
        """
        found = self.equals(other)
        if found is None:
            raise self.undecided("equals", other)
        return found

    def __ne__(self, other: object) -> Any:
        return not self.__eq__(other)

    def __hash__(self) -> int:
        return hash(self.terms)

    def __lt__(self, other: Any) -> Any:
        return _decided(self, other, "is less than", lambda low, high: (high < 0, low >= 0))

    def __le__(self, other: Any) -> Any:
        return _decided(self, other, "is at most", lambda low, high: (high <= 0, low > 0))

    def __gt__(self, other: Any) -> Any:
        return _decided(self, other, "is more than", lambda low, high: (low > 0, high <= 0))

    def __ge__(self, other: Any) -> Any:
        return _decided(self, other, "is at least", lambda low, high: (low >= 0, high < 0))

    def __bool__(self) -> bool:
        return bool(self != 0)

    # -- the number itself ---------------------------------------------------------------------

    def unknown(self, what: str) -> SizeError:
        """The error of `what`, which asks for the number."""
        low, high = self.bounds()
        return SizeError(MSG_NUMBER.format(what=what, size=self.text(), low=low, high=high))

    def undecided(self, relation: str, other: Any) -> SizeError:
        """The error of a comparison that does not come out the same in every call."""
        lengths = {*self.lengths, *(other.lengths if isinstance(other, Size) else ())}
        bounds = ", ".join(f"{x.name} from {x.low} to {x.high}" for x in sorted(lengths))
        left, right = self.text(), shown(other)
        error = SizeError(MSG_OPEN.format(left=left, relation=relation, right=right, bounds=bounds))
        error.open = OpenQuestion(self, relation, other)
        return error

    def __index__(self) -> int:
        raise self.unknown("Python or NumPy (a range, a list, an array)")

    def __int__(self) -> int:
        raise self.unknown("int(n)")

    def __float__(self) -> float:
        raise self.unknown("float(n)")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Arithmetic with integers of NumPy; nothing else of it."""
        compute = _ARITHMETIC.get(ufunc.__name__)
        if compute is None or method != "__call__" or any(_terms_of(x) is None for x in inputs):
            raise self.unknown(f"np.{ufunc.__name__}")
        return compute(*(x if isinstance(x, Size) else int(x) for x in inputs))

    def __round__(self, digits: Any = None) -> Any:
        return self

    def bit_length(self) -> int:
        """The bits of the largest number that it can be."""
        return max(abs(n) for n in self.bounds()).bit_length()

    def text(self) -> str:
        """The polynomial, for people."""
        parts: list[str] = []
        for monomial, coefficient in self.terms:
            factors = [x.name for x in monomial]
            if abs(coefficient) != 1 or not factors:
                factors.insert(0, str(abs(coefficient)))
            sign = "-" if coefficient < 0 else "+" if parts else ""
            parts.append(sign + "*".join(factors))
        return "".join(parts)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()

    def __format__(self, spec: str) -> str:
        if spec:
            raise self.unknown(f"the format {spec!r}")
        return str(self)


_ARITHMETIC = {"add": operator.add, "subtract": operator.sub, "multiply": operator.mul}


def size_of(length: Length, kind: type[Size] = Size) -> Any:
    """The size that is a length; an int when there is only one that it can be."""
    return length.low if length.low == length.high else _new(kind, (((length,), 1),))


def plain(value: Any, number: Callable[[Size], Any]) -> Any:
    """A shape, an attribute or a number with `number(size)` in the place of every size."""
    if isinstance(value, tuple):
        return tuple(plain(item, number) for item in cast(tuple[Any, ...], value))
    return number(value) if isinstance(value, Size) else value


def has_size(value: Any) -> bool:
    """Whether there is a size in a shape, an attribute or a number."""
    if isinstance(value, tuple):
        return any(map(has_size, cast(tuple[Any, ...], value)))
    return isinstance(value, Size)


# -- terms -----------------------------------------------------------------------------------------


def _terms_of(number: Any) -> Terms | None:
    """The terms of a size or whole number; None for anything else."""
    if isinstance(number, Size):
        return number.terms
    # What stands for an int when a step runs says that it is one: its type does not.
    if issubclass(type(number), (int, np.integer)):
        return (((), int(number)),) if number else ()
    return None


def _compared(number: Any) -> Any:
    """What a size is compared with: the whole number that a float is, if it is one."""
    return int(number) if type(number) is float and number.is_integer() else number


def _new(kind: type[Size], terms: Terms) -> Any:
    made: Any = object.__new__(kind)
    made.terms = terms
    return made


def _sum(like: Size, terms: Iterable[Term]) -> Any:
    """The sum of terms: an int when there is no length in it."""
    total: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        total[monomial] = total.get(monomial, 0) + coefficient
    kept = tuple(sorted((term for term in total.items() if term[1]), key=_order))
    if all(not monomial for monomial, _ in kept):
        return kept[0][1] if kept else 0
    return _new(type(like), kept)


def _negative(terms: Terms) -> Terms:
    return tuple((monomial, -coefficient) for monomial, coefficient in terms)


def _order(term: Term) -> tuple[int, Monomial]:
    """The highest powers first."""
    return -len(term[0]), term[0]


def _is_length(terms: Terms) -> bool:
    return len(terms) == 1 and len(terms[0][0]) == 1 and terms[0][1] == 1


def _decided(
    left: Size, right: Any, relation: str, outcomes: Callable[[float, float], tuple[bool, bool]]
) -> Any:
    """A comparison that comes out the same for every length; a SizeError when there is none.

    Args:
        outcomes: from the bounds of left - right to whether it always holds, and whether never.
    """
    if type(right) is float:
        low, high = left.bounds()
        always, never = outcomes(low - right, high - right)
    elif _terms_of(right) is None:
        return NotImplemented
    else:
        always, never = outcomes(*_bounds(left - right))
    if always or never:
        return always
    raise left.undecided(relation, right)


def _bounds(number: Any) -> tuple[int, int]:
    return number.bounds() if isinstance(number, Size) else (number, number)


def shown(number: Any) -> str:
    """A size or number in a message."""
    return number.text() if isinstance(number, Size) else str(number)


def _divided(like: Size, left: Any, right: Any) -> Any:
    """divmod(left, right) where it is the same polynomial for every length; else a SizeError."""
    above, below = _terms_of(left), _terms_of(right)
    if above is None or below is None:
        return NotImplemented
    if below and right > 0:
        whole, rest = 0, left
        while (found := _quotient(_terms_of(rest), below)) is not None:
            part = _sum(like, [found])
            whole, rest = whole + part, rest - part * right
        if _never_less(rest, 0) and _never_less(right, rest + 1):
            return whole, rest
    raise like.unknown(f"{shown(left)} // {shown(right)}")


def _never_less(number: Any, limit: Any) -> bool:
    """Whether a size or number is at least another one in every call."""
    return _bounds(number - limit)[0] >= 0


def _part(found: Any, index: int) -> Any:
    return found if found is NotImplemented else found[index]


def _quotient(terms: Terms | None, divisor: Terms) -> Term | None:
    """The first of some terms divided by the first of others; None when that leaves a rest."""
    if not terms:
        return None
    rest = list(terms[0][0])
    for length in divisor[0][0]:
        if length not in rest:
            return None
        rest.remove(length)
    whole, left = divmod(terms[0][1], divisor[0][1])
    return None if left else (tuple(rest), whole)
