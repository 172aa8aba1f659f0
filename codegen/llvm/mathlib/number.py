"""Operators over the values of a `Writer`, so that a formula reads as one.

`Number(w, x) * 2.0 + y` writes an fmul and an fadd for whatever vector type `x` has. Python numbers
become constants of the other operand's type. Nothing is fused or reassociated: what is written is
what is rounded, and `fma` is the only contraction.
"""

from __future__ import annotations

from collections.abc import Sequence

from einkorn.codegen.llvm.text import Value, Writer, is_float, lanes_of


class Number:
    """A scalar or vector value with arithmetic; comparisons give masks of i1."""

    __slots__ = ("value", "w")

    def __init__(self, w: Writer, value: Value) -> None:
        self.w = w
        self.value = value

    @property
    def type(self) -> str:
        return self.value.type

    def constant(self, number: float | int | bool) -> Number:
        """The same constant in every lane of this number's type."""
        return Number(self.w, self.w.const(self.type, number))

    def _operand(self, other: Number | float) -> Value:
        if isinstance(other, Number):
            return other.value
        return self.w.const(self.type, other)

    # -- arithmetic ----------------------------------------------------------------------------

    def __add__(self, other: Number | float) -> Number:
        return Number(self.w, self.w.add(self.value, self._operand(other)))

    def __radd__(self, other: float) -> Number:
        return self + other

    def __sub__(self, other: Number | float) -> Number:
        return Number(self.w, self.w.sub(self.value, self._operand(other)))

    def __rsub__(self, other: float) -> Number:
        return Number(self.w, self.w.sub(self._operand(other), self.value))

    def __mul__(self, other: Number | float) -> Number:
        return Number(self.w, self.w.mul(self.value, self._operand(other)))

    def __rmul__(self, other: float) -> Number:
        return self * other

    def __truediv__(self, other: Number | float) -> Number:
        return Number(self.w, self.w.fdiv(self.value, self._operand(other)))

    def __rtruediv__(self, other: float) -> Number:
        return Number(self.w, self.w.fdiv(self._operand(other), self.value))

    def __neg__(self) -> Number:
        return Number(self.w, self.w.fneg(self.value)) if is_float(self.type) else 0 - self

    def __abs__(self) -> Number:
        return Number(self.w, self.w.intrinsic("llvm.fabs", self.type, self.value))

    def fma(self, factor: Number | float, addend: Number | float) -> Number:
        """self * factor + addend with one rounding."""
        return Number(self.w, self.w.fma(self.value, self._operand(factor), self._operand(addend)))

    def copysign(self, sign: Number) -> Number:
        return Number(self.w, self.w.intrinsic("llvm.copysign", self.type, self.value, sign.value))

    def truncated(self) -> Number:
        """The nearest integer towards zero."""
        return Number(self.w, self.w.intrinsic("llvm.trunc", self.type, self.value))

    def rounded(self) -> Number:
        """The nearest integer, halves to the even one."""
        return Number(self.w, self.w.intrinsic("llvm.roundeven", self.type, self.value))

    def root(self) -> Number:
        """The square root, correctly rounded."""
        return Number(self.w, self.w.intrinsic("llvm.sqrt", self.type, self.value))

    # -- bits ----------------------------------------------------------------------------------

    def __and__(self, other: Number | int) -> Number:
        return Number(self.w, self.w.and_(self.value, self._operand(other)))

    def __or__(self, other: Number | int) -> Number:
        return Number(self.w, self.w.or_(self.value, self._operand(other)))

    def __xor__(self, other: Number | int) -> Number:
        return Number(self.w, self.w.xor(self.value, self._operand(other)))

    def __lshift__(self, other: Number | int) -> Number:
        return Number(self.w, self.w.shl(self.value, self._operand(other)))

    def __rshift__(self, other: Number | int) -> Number:
        """Logical shift: zeros come in from the left."""
        return Number(self.w, self.w.lshr(self.value, self._operand(other)))

    def __invert__(self) -> Number:
        return Number(self.w, self.w.not_(self.value))

    def cast(self, opcode: str, element: str) -> Number:
        """Convert to `element` by an LLVM opcode: fpext, fptrunc, zext, bitcast, ..."""
        return Number(self.w, self.w.cast(opcode, self.value, element))

    # -- comparisons ---------------------------------------------------------------------------

    def _compare(self, ordered: str, unsigned: str, other: Number | float) -> Number:
        write, predicate = (
            (self.w.fcmp, ordered) if is_float(self.type) else (self.w.icmp, unsigned)
        )
        return Number(self.w, write(predicate, self.value, self._operand(other)))

    def less(self, other: Number | float) -> Number:
        """self < other: false for NaN; integers compare as unsigned."""
        return self._compare("olt", "ult", other)

    def greater(self, other: Number | float) -> Number:
        """self > other: false for NaN; integers compare as unsigned."""
        return self._compare("ogt", "ugt", other)

    def equal(self, other: Number | float) -> Number:
        """self == other: false for NaN."""
        return self._compare("oeq", "eq", other)

    def differs(self, other: Number | float) -> Number:
        """self != other: true for NaN."""
        return self._compare("une", "ne", other)

    def where(self, yes: Number | float, no: Number | float) -> Number:
        """`yes` in the lanes of this mask and `no` in the others; one of them is a Number."""
        sample = yes if isinstance(yes, Number) else no
        if not isinstance(sample, Number):
            raise TypeError("where: one choice must be a Number")
        chosen = self.w.select(self.value, sample._operand(yes), sample._operand(no))
        return Number(self.w, chosen)

    def any_lane(self) -> Value:
        """Whether a mask has a lane set, as an i1."""
        lanes = lanes_of(self.type)
        if lanes == 1:
            return self.value
        packed = self.w.bitcast(self.value, f"i{lanes}")
        return self.w.icmp("ne", packed, self.w.const(packed.type, 0))


def minimum(x: Number, bound: float) -> Number:
    """x, at most `bound`; NaN stays NaN."""
    return x.greater(bound).where(bound, x)


def maximum(x: Number, bound: float) -> Number:
    """x, at least `bound`; NaN stays NaN."""
    return x.less(bound).where(bound, x)


def horner(x: Number, coefficients: Sequence[float]) -> Number:
    """The polynomial with the given coefficients, lowest power first, in Horner's order."""
    result = x.constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result.fma(x, coefficient)
    return result


def fast_two_sum(a: Number, b: Number) -> tuple[Number, Number]:
    """a + b and its rounding error, for |a| >= |b| or a = 0 (Dekker 1971)."""
    total = a + b
    return total, (a - total) + b


def two_sum(a: Number, b: Number) -> tuple[Number, Number]:
    """a + b and its rounding error, in any order (Knuth 1969)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def two_product(a: Number, b: Number) -> tuple[Number, Number]:
    """a * b and its rounding error."""
    product = a * b
    return product, a.fma(b, -product)
