"""What the algorithms need to know of a floating-point format: layout, bounds and coefficients."""

from __future__ import annotations

from dataclasses import dataclass

Coefficients = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Format:
    """A binary format and the polynomials fitted to its precision, lowest power first.

    A sum of constants such as ln 2 = high + low or pi/2 = p0 + p1 + p2 is written in parts, the
    first of which leaves enough trailing zeros for its product with an exponent to be exact.
    """

    element: str
    integer: str
    mantissa: int
    bias: int
    ln2_high: float
    ln2_low: float
    half_pi: tuple[float, float, float]
    two_thirds: tuple[float, float]
    sqrt_two: tuple[float, float]
    inverse_ln2: tuple[float, float]
    inverse_ln10: tuple[float, float]
    log10_2: tuple[float, float]
    # Beyond these, exp, expm1, x * sigmoid(x), tanh and erf have reached their limits.
    exp_least: float
    exp_most: float
    expm1_least: float
    silu_least: float
    tanh_most: float
    erf_most: float
    gelu_most: float
    # sin, cos and tan reduce larger arguments by Payne and Hanek's method.
    reduce_most: float
    exp: Coefficients
    """(exp(r) - 1 - r) / r^2 on [-ln2/2, ln2/2]."""
    log: Coefficients
    """(log(1 + f) - f + f^2/2) / f^3 on [sqrt(1/2) - 1, sqrt(2) - 1]."""
    sine: Coefficients
    """(sin(r)/r - 1) / r^2 in powers of r^2, on [0, pi/4]."""
    cosine: Coefficients
    """(cos(r) - 1 + r^2/2) / r^4 in powers of r^2, on [0, pi/4]."""
    asin: Coefficients
    """(asin(s)/s - 1) / s^2 in powers of s^2, on [0, 1/2]."""
    atan: Coefficients
    """(atan(t)/t - 1) / t^2 in powers of t^2, on [0, tan(pi/8)]."""
    sinh: Coefficients
    """(sinh(x)/x - 1) / x^2 in powers of x^2, on [0, 1]."""
    erf: Coefficients
    """erf(x)/x - 1 in powers of x^2, on [0, 1]."""
    power: Coefficients
    """(2 atanh(s)/s - 2 - 2/3 s^2) / s^4 in powers of s^2, s up to 3 - sqrt(8)."""
    tail_shift: float
    tail_centre: float
    tail_first_low: float
    tail_slope: Coefficients
    """(d log(v G) / d log v - 1) / v in powers of v, to a tenth; G is the next polynomial."""
    tail: Coefficients
    """exp(a^2/2) Q(a) / v in powers of v - centre, where v = 1 / (a + shift) and Q is the upper
    tail of the normal distribution, for a in [0, gelu_most]. The first coefficient has a low part.
    """

    @property
    def width(self) -> int:
        """The number of bits of the format."""
        return int(self.integer[1:])

    @property
    def magic(self) -> float:
        """1.5 * 2^mantissa: adding it to a small number rounds that to an integer."""
        return 1.5 * 2.0**self.mantissa

    @property
    def one(self) -> int:
        """The bits of 1.0."""
        return self.bias << self.mantissa

    @property
    def sign(self) -> int:
        """The sign bit."""
        return 1 << (self.width - 1)

    @property
    def least_normal(self) -> float:
        return 2.0 ** (1 - self.bias)

    @property
    def tiny(self) -> float:
        """Below this, x^2 is lost beside x: 2^-(mantissa + 3)."""
        return 2.0 ** -(self.mantissa + 3)
