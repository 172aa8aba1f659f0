"""`ek.compile(buckets=...)`: which axes of which arguments vary from call to call, and how far.

    buckets={"x": {0: "pow2"}, "y": {0: "pow2"}}

A parameter is named as in printed IR: "x"; "batch" for every array in a nested argument, "batch.x"
or "batch.0" for one. Each axis has sizes: "pow2"; a number, for its multiples; or the sizes
themselves. In a call an axis is padded to the next of them, and one trace serves all sizes from
one to the next. Sizes up to EXACT, whose sums have another order, and those beyond the last have
traces of their own, without padding.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

from einkorn.arguments import Arguments
from einkorn.convert import as_int
from einkorn.ir.errors import EinkornError, ShapeError, SizeError
from einkorn.ir.sizes import Length, OpenQuestion, size_of
from einkorn.ir.types import TensorType
from einkorn.lengths import RunTimeSize
from einkorn.padded_arguments import PaddedArguments, Plan

MAX_PLANS = 256  # kinds of arguments for which a plan is kept
MAX_CUTS = 32  # of one length; a function that needs more asks for the number itself
EXACT = 4  # the order of sums depends on whether an axis has 1 element, and on whether it has 4

MSG_FORM = (
    "compile: buckets is like {{'x': {{0: 'pow2'}}}}: for each argument the axes that vary, and "
    "for each of them 'pow2', a number, for its multiples, or the sizes to pad to; got {got!r}"
)
MSG_NAME = "compile: buckets names {name!r}, but {function} has the parameters {known}"
MSG_ARRAY = "{function}: buckets names {name}, which is {what} and no array with an axis {axis}"

Sizes = str | int | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Buckets:
    """What was declared.

    Attributes:
        axes: for each named argument its axes, and the sizes of each.
        cuts: for each length, by name, the last sizes in front of which a bucket was cut.
        plans: for kinds of arguments how they are padded; None for those that are not.
    """

    axes: Mapping[str, Mapping[int, Sizes]]
    cuts: dict[str, frozenset[int]] = field(default_factory=dict[str, "frozenset[int]"])
    plans: dict[Any, Plan | None] = field(default_factory=dict[Any, "Plan | None"])

    def run(self, given: Arguments, names: Sequence[str], use: Callable[[Arguments], Any]) -> Any:
        """What `use` gives for padded arguments; a trace that it makes may cut their bucket."""
        while True:
            arguments = self.pad(given, names)
            try:
                return use(arguments)
            except SizeError as error:  # of tracing: nothing was run
                if not self.cut(error, arguments):
                    raise

    def cut(self, error: SizeError, arguments: Arguments) -> bool:
        """Cut a bucket where a comparison in the trace comes out differently; whether it helps."""
        question: OpenQuestion | None = error.open
        if question is None or not isinstance(arguments, PaddedArguments):
            return False
        if not all(length in arguments.lengths for length in question.lengths):
            return False  # a size that was kept from another trace
        found = question.range_around(arguments.lengths)
        cuts = self.cuts.get(found.name, frozenset()) | {found.low - 1, found.high}
        self.cuts[found.name] = cuts
        self.plans.clear()
        return len(cuts) <= MAX_CUTS

    def pad(self, arguments: Arguments, names: Sequence[str]) -> Arguments:
        """The arguments of a call, padded; as they are when no axis needs it."""
        key = arguments.structure, tuple(arguments.kinds)
        try:
            plan = self.plans[key]
        except KeyError:
            if len(self.plans) >= MAX_PLANS:
                self.plans.clear()
            plan = self.plans[key] = self._plan(arguments, names)
        return arguments if plan is None else PaddedArguments.of(arguments, plan)

    def _plan(self, arguments: Arguments, names: Sequence[str]) -> Plan | None:
        """How arguments are padded.

        Equal sizes of one call are one length of its trace, and different ones are different.
        """
        found: dict[int, tuple[str, int, int]] = {}
        places: dict[int, set[int]] = {}
        labels = arguments.labels(names)
        for name, axes in self.axes.items():
            for k, label in enumerate(labels):
                if label == name or label.startswith(f"{name}."):
                    axes_of_end = self._varying(arguments, k, label, axes, found)
                    places.setdefault(k, set()).update(axes_of_end)
        ranges = {n: self._between_cuts(n, *row) for n, row in found.items()}
        lengths = {n: x for n, x in ranges.items() if x.low < x.high}
        sizes = {n: size_of(length, RunTimeSize) for n, length in lengths.items()}
        kinds = list(arguments.kinds)
        for k, axes in places.items():
            if not axes:
                continue
            rows = enumerate(kinds[k].shape)
            shape = [sizes.get(n, n) if axis in axes else n for axis, n in rows]
            kinds[k] = TensorType(kinds[k].dtype, tuple(shape))
        return Plan(kinds, {x: n for n, x in lengths.items()}) if lengths else None

    def _between_cuts(self, n: int, name: str, low: int, high: int) -> Length:
        """The part of a bucket in which a size lies."""
        cuts = self.cuts.get(name, ())
        low = max([low, *(cut + 1 for cut in cuts if cut < n)])
        return Length(name, low, min([high, *(cut for cut in cuts if cut >= n)]))

    def _varying(
        self,
        arguments: Arguments,
        position: int,
        label: str,
        axes: Mapping[int, Sizes],
        found: dict[int, tuple[str, int, int]],
    ) -> Iterable[int]:
        """The axes of one argument to pad; notes the range of each size."""
        kind = arguments.kinds[position]
        if not isinstance(kind, TensorType):
            if arguments.ends[position] is None:
                return
            what = f"{type(arguments.ends[position]).__name__}"
            raise self._no_array(arguments.name, label, what, next(iter(axes)))
        for axis, sizes in axes.items():
            if not -kind.rank <= axis < kind.rank:
                raise self._no_array(arguments.name, label, str(kind), axis)
            n = kind.shape[axis]
            bounds = bucket(sizes, n)
            if bounds is not None:
                axis %= kind.rank
                name, low, high = found.get(n, (f"{label}.shape[{axis}]", *bounds))
                found[n] = name, max(low, bounds[0]), min(high, bounds[1])
                yield axis

    @staticmethod
    def _no_array(function: str, name: str, what: str, axis: int) -> EinkornError:
        return ShapeError(MSG_ARRAY.format(function=function, name=name, what=what, axis=axis))


def bucket(sizes: Sizes, n: int) -> tuple[int, int] | None:
    """The least and the largest size that share the trace of `n`; None: it has one of its own."""
    if n <= EXACT:
        return None
    if isinstance(sizes, tuple):
        place = bisect_left(sizes, n)
        if place == len(sizes):
            return None
        low, high = sizes[place - 1] + 1 if place else 1, sizes[place]
    elif isinstance(sizes, str):
        high = 1 << (n - 1).bit_length()
        low = high // 2 + 1
    else:
        high = -(-n // sizes) * sizes
        low = high - sizes + 1
    low = max(low, EXACT + 1)
    return (low, high) if low < high else None


def as_buckets(option: Any, function: str, parameters: Sequence[str]) -> Buckets | None:
    """The option as it is used; EinkornError for what makes no sense.

    Args:
        function: for messages.
        parameters: the names that there are; none when they are not known.
    """
    if option is None:
        return None
    if not isinstance(option, Mapping):
        raise EinkornError(MSG_FORM.format(got=option))
    axes: dict[str, dict[int, Sizes]] = {}
    for name, rows in cast("Mapping[Any, Any]", option).items():
        if not isinstance(name, str) or not isinstance(rows, Mapping) or not rows:
            raise EinkornError(MSG_FORM.format(got=option))
        anything = not parameters or any(x.startswith("**") for x in parameters)
        if not anything and name.partition(".")[0] not in [x.lstrip("*") for x in parameters]:
            known = ", ".join(parameters)
            raise EinkornError(MSG_NAME.format(name=name, function=function, known=known))
        named = cast("Mapping[Any, Any]", rows).items()
        axes[name] = {as_int("compile", k, "an axis is an integer"): _sizes(x) for k, x in named}
    return Buckets(axes)


def _sizes(spec: Any) -> Sizes:
    """The sizes of one axis."""
    if isinstance(spec, str):
        if spec == "pow2":
            return spec
    elif isinstance(spec, (list, tuple)):
        listed = tuple(as_int("compile", n, "a size is an integer") for n in cast("Any", spec))
        if listed and listed[0] > 0 and all(a < b for a, b in pairwise(listed)):
            return listed
    elif not isinstance(spec, (bool, float)) and as_int("compile", spec, "sizes are integers") > 0:
        return as_int("compile", spec)
    raise EinkornError(
        f"compile: the sizes of a bucket are 'pow2', a number of at least 1, or increasing sizes, "
        f"got {spec!r}"
    )
