"""Measures the errors of codegen/llvm/mathlib and prints docs/math.md.

    python tests/mathlib_errors.py 17 > docs/math.md

The argument is the stride through the 2^32 float32 numbers. Also holds what the tests share:
compiled functions, reference values and the error in ulps.
"""

from __future__ import annotations

import ctypes
import functools
import math
import sys
import time
from collections.abc import Callable, Iterator

import llvmlite.binding as llvm
import mpmath
import numpy as np

from einkorn.codegen.llvm.mathlib import MATH, polygamma
from einkorn.codegen.llvm.objects import host_features
from einkorn.codegen.llvm.text import Value, Writer, vector
from einkorn.ir import special_rules

AVX2 = "+sse4.2,+avx,+avx2,+fma,+bmi,+bmi2,+lzcnt,+popcnt"
AVX512 = AVX2 + ",+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512cd"
RUNNABLE = (AVX512, AVX2) if host_features().lanes == 16 else (AVX2,)  # on this machine
ELEMENTS = {"float": np.float32, "double": np.float64}
NAMES = {"float": "float32", "double": "float64"}
BINARY = ("pow", "atan2")
POSITIVE = ("log", "log2", "log10", "rsqrt", "pow", "lgamma", "digamma")
"""Tested in float64 for positive arguments; lgamma and digamma have zeros among the others."""
BOUNDED = ("asin", "acos", "atanh", "erfinv")
"""Defined on [-1, 1]."""
SPARSE = ("erfinv", "lgamma", "digamma")
"""Their float64 references are slow: fewer points in the document."""


def write_kernel(name: str, element: str, lanes: int) -> str:
    """LLVM text of `f(x, [y,] out, n)`: out[i] = name(x[i] [, y[i]]), n a multiple of lanes."""
    return _kernel(MATH[name], ["x", "y"] if name in BINARY else ["x"], element, lanes)


def _kernel(function: Callable[..., Value], inputs: list[str], element: str, lanes: int) -> str:
    w = Writer()
    type = vector(lanes, element)
    params = [("ptr", label) for label in [*inputs, "out"]] + [("i64", "n")]
    with w.function("f", params) as (*pointers, n):
        with w.loop(w.i64(0), n, step=lanes) as loop:
            at = [w.gep(element, pointer, loop.index) for pointer in pointers]
            values = [w.load(type, pointer) for pointer in at[:-1]]
            w.store(function(w, *values), at[-1])
    return w.module()


@functools.cache
def machine(features: str) -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(
        cpu="x86-64", features=features, opt=2, reloc="pic", jit=True
    )


class Compiled:
    """A function of MATH over arrays."""

    def __init__(self, text: str, inputs: int, features: str) -> None:
        module = llvm.parse_assembly(text)
        module.verify()
        image = machine(features).emit_object(module)
        self._jit = llvm.create_lljit_compiler(machine(features), suppress_errors=True)
        builder = llvm.JITLibraryBuilder().add_object_img(image).export_symbol("f")
        self._library = builder.link(self._jit, "math")
        signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (inputs + 1), ctypes.c_int64)
        self._entry = signature(self._library["f"])

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        size = arrays[0].size
        # Whole vectors only: repeat values up to a multiple of the widest one.
        padded = [np.resize(np.ascontiguousarray(a), -(-size // 16) * 16) for a in arrays]
        out = np.empty_like(padded[0])
        self.bound(*padded, out)()
        return out[:size]

    def bound(self, *arrays: np.ndarray) -> Callable[[], None]:
        """The call that reads the inputs and writes the last of the arrays."""
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in arrays]
        return functools.partial(self._entry, *pointers, ctypes.c_int64(arrays[-1].size))


@functools.cache
def compiled(name: str, element: str, lanes: int = 16, features: str = RUNNABLE[0]) -> Compiled:
    return Compiled(write_kernel(name, element, lanes), 2 if name in BINARY else 1, features)


def polygamma_kernel(order: int, element: str, lanes: int) -> Compiled:
    """The polygamma function of one order."""
    text = _kernel(functools.partial(polygamma, order=order), ["x"], element, lanes)
    return Compiled(text, 1, RUNNABLE[0])


# -- reference values ------------------------------------------------------------------------------


def _gelu(x: np.ndarray) -> np.ndarray:
    tail = np.array([math.erfc(v) for v in -x / math.sqrt(2)])
    return 0.5 * x * tail


def _silu(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, x * np.exp(np.minimum(x, 0)), x) / (1 + np.exp(-abs(x)))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, np.exp(np.minimum(x, 0)), 1) / (1 + np.exp(-abs(x)))


REFERENCE: dict[str, Callable[..., np.ndarray]] = {
    "exp": np.exp,
    "log": np.log,
    "expm1": np.expm1,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "tanh": np.tanh,
    "erf": lambda x: np.array([math.erf(v) for v in x]),
    "sigmoid": _sigmoid,
    "silu": _silu,
    "gelu": _gelu,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-abs(x))),
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "pow": np.power,
    "log2": np.log2,
    "log10": np.log10,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan2": np.arctan2,
    "erfc": special_rules.erfc,
    "erfinv": special_rules.erfinv,
    "ndtr": special_rules.normal_cdf,
    "lgamma": special_rules.lgamma,
    "digamma": special_rules.digamma,
}
"""Float64 arithmetic, exact enough for float32 results."""


def _softplus_mp(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.log1p(mpmath.exp(x)) if x < 0 else x + mpmath.log1p(mpmath.exp(-x))


def _within(x: mpmath.mpf) -> mpmath.mpf:
    """x inside of [-1000, 1000]: mpmath cannot take erfc of the largest numbers."""
    return min(max(x, mpmath.mpf(-1000)), mpmath.mpf(1000))


def _gelu_mp(x: mpmath.mpf) -> mpmath.mpf:
    if abs(x) > 100:  # mpmath cannot take erfc of the largest numbers
        return max(x, mpmath.mpf(0))
    return x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2


EXACT: dict[str, Callable[..., mpmath.mpf]] = {
    "exp": mpmath.exp,
    "log": mpmath.log,
    "expm1": mpmath.expm1,
    "log1p": mpmath.log1p,
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "tan": mpmath.tan,
    "tanh": mpmath.tanh,
    "erf": mpmath.erf,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "gelu": _gelu_mp,
    "softplus": _softplus_mp,
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "pow": mpmath.power,
    "log2": lambda x: mpmath.log(x) / mpmath.ln2,
    "log10": lambda x: mpmath.log(x) / mpmath.ln10,
    "sinh": mpmath.sinh,
    "cosh": mpmath.cosh,
    "asinh": mpmath.asinh,
    "acosh": mpmath.acosh,
    "atanh": mpmath.atanh,
    "asin": mpmath.asin,
    "acos": mpmath.acos,
    "atan2": mpmath.atan2,
    "erfc": lambda x: mpmath.erfc(_within(x)),
    "erfinv": mpmath.erfinv,
    "ndtr": lambda x: mpmath.ncdf(_within(x)),
    "lgamma": lambda x: mpmath.loggamma(x).real,
    "digamma": mpmath.digamma,
}


def errors32(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The error of float32 results in units of the last place of `exact`, given in float64.

    Where `exact` rounds to infinity, so must the result; NaN must meet NaN.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        exponent = np.frexp(exact)[1] - 1
        unit = np.ldexp(1.0, np.clip(exponent, -126, 127) - 23)
        error = abs(got.astype(np.float64) - exact) / unit
        overflow = abs(exact) >= 2.0**128 - 2.0**103
        same = (got == exact.astype(np.float32)) | (np.isnan(got) & np.isnan(exact))
    error = np.where(np.isnan(error) | np.isinf(error), 2.0**30, error)
    return np.where(same, np.where(overflow | ~np.isfinite(exact), 0, np.minimum(error, 1)), error)


def error64(got: float, exact: mpmath.mpf) -> float:
    """The error of a float64 result in units of the last place of `exact`."""
    if exact == 0:
        return 0.0 if got == 0 else math.inf
    exponent = max(int(mpmath.floor(mpmath.log(abs(exact), 2))), -1022)
    if abs(exact) >= mpmath.mpf(2) ** 1024 - mpmath.mpf(2) ** 970:
        return 0.0 if math.isinf(got) else math.inf
    if not math.isfinite(got):
        return math.inf
    return float(abs(mpmath.mpf(got) - exact) / mpmath.mpf(2) ** (exponent - 52))


# -- inputs ----------------------------------------------------------------------------------------


def float32_slices(stride: int, name: str, size: int = 1 << 20) -> Iterator[list[np.ndarray]]:
    """Every stride-th float32, in slices; functions of two have another number beside each."""
    for start in range(0, 2**32, stride * size):
        numbers = np.arange(start, min(start + stride * size, 2**32), stride, dtype=np.uint64)
        x = numbers.astype(np.uint32).view(np.float32)
        yield [x, *_seconds(name, x, np.random.default_rng(start))]


def _seconds(name: str, x: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """The second operands of functions of two."""
    if name == "pow":
        return [_powers(x, 128.5 if x.dtype == np.float32 else 1023.9, rng)]
    if name == "atan2":
        with np.errstate(all="ignore"):
            near = x * rng.choice([-1, 1], x.size) * np.exp(rng.normal(0, 3, x.size))
            return [near.astype(x.dtype)]
    return []


def _powers(x: np.ndarray, most: float, rng: np.random.Generator) -> np.ndarray:
    """Exponents y for which |x|^y mostly lies in the range of x's format."""
    with np.errstate(all="ignore"):
        logarithm = np.log2(abs(x.astype(np.float64)))
        y = (rng.uniform(-most * 1.18, most, x.size) / logarithm).astype(x.dtype)
    whole = np.round(np.clip(np.nan_to_num(y), -1e6, 1e6))
    return np.where((x < 0) & (rng.random(x.size) < 0.9), whole, y).astype(x.dtype)


def float64_inputs(name: str, count: int, seed: int) -> list[np.ndarray]:
    """About `count` finite float64 inputs in the domain of the function, many in hard ranges."""
    rng = np.random.default_rng(seed)
    part = count // 6
    sign = rng.choice([-1.0, 1.0], part)
    parts = [
        rng.integers(0, 0x7FF << 52, part).view(np.float64) * sign,
        np.exp(rng.uniform(-45, 5, part)) * sign,
        1 + rng.uniform(-0.4, 0.5, part),
        *(rng.uniform(-most, most, part) for most in (2.5, 40.0, 760.0)),
    ]
    if name in ("sin", "cos", "tan"):
        parts.append(rng.integers(1, 10**8, part) * (math.pi / 2))
        parts.append(rng.integers(1, 2**52, part) * (math.pi / 2))
        parts.append(rng.uniform(-2e8, 2e8, part))
    if name in ("erfc", "ndtr"):
        tail = rng.uniform(0, 28, 2 * part)
        parts.append(tail if name == "erfc" else -tail)
    x = np.concatenate(parts)
    if name in POSITIVE:
        x = abs(x)
    if name == "log1p":
        x = np.where(x <= -1, -x, x)
    if name == "acosh":
        x = np.where(abs(x) < 1, 1 + abs(x), abs(x))
    if name in BOUNDED:
        x = np.where(abs(x) > 1, 1 / x, x)
    return [x, *_seconds(name, x, rng)]


# -- the document ----------------------------------------------------------------------------------


def worst32(name: str, stride: int) -> tuple[float, str]:
    """The greatest error over a sweep of the float32 numbers, and where it is."""
    worst, where = 0.0, ""
    for arrays in float32_slices(stride, name):
        with np.errstate(all="ignore"):
            exact = REFERENCE[name](*[a.astype(np.float64) for a in arrays])
        errors = errors32(compiled(name, "float")(*arrays), exact)
        at = int(errors.argmax())
        if errors[at] > worst:
            worst, where = float(errors[at]), ", ".join(f"{a[at]:.9g}" for a in arrays)
    return worst, where


def worst64(name: str, count: int, seed: int = 0) -> tuple[float, str]:
    """The greatest error over samples of the float64 numbers, and where it is."""
    arrays = float64_inputs(name, count, seed)
    got = compiled(name, "double", 8)(*arrays)
    with mpmath.workprec(140):
        errors = [
            error64(float(result), EXACT[name](*map(mpmath.mpf, map(float, at))))
            for result, *at in zip(got, *arrays)
        ]
    index = int(np.argmax(errors))
    return errors[index], ", ".join(f"{a[index]:.17g}" for a in arrays)


def nanoseconds(name: str, element: str) -> float:
    """The time per element over arrays in cache."""
    low, high = (0.01 if name in POSITIVE else -4.0), 4.0
    if name in BOUNDED:
        low, high = -1.0, 1.0
    if name == "acosh":
        low = 1.0
    x = np.random.default_rng(0).uniform(low, high, 4096).astype(ELEMENTS[element])
    out = np.empty_like(x)
    function = compiled(name, element, 16 if element == "float" else 8)
    call = function.bound(*[x] * (2 if name in BINARY else 1), out)
    best = math.inf
    for _ in range(50):
        start = time.perf_counter()
        for _ in range(20):
            call()
        best = min(best, time.perf_counter() - start)
    return best / 20 / x.size * 1e9


HEADER = """# Math functions: errors

Written by `python tests/mathlib_errors.py {stride} > docs/math.md`.

The greatest error found, in units of the last place of the exact result (0.5 is correct rounding).
float32: every {stride}th of the 2^32 bit patterns, {points} points a function ({sparse}
a sixteenth of that), against float64 arithmetic; `pow` takes for each x one y, chosen so that the
result is mostly finite, and `atan2` one of similar size. float64: {count} points or more a
function, random bit patterns and hard ranges (results near overflow and underflow, arguments near
0, near 1 and near multiples of pi/2), against mpmath. Subnormal results and arguments of every
size are included. Special cases are those of C99, tested in tests/test_mathlib.py; so is that a
lane's bits do not depend on the vector width or on the instruction set.

Time is nanoseconds per element on one core with 512-bit vectors, {cpu},
arguments between -4 and 4, those of them for which the function is defined, data in cache.

`lgamma` and `digamma` have zeros between the poles of the negative axis: float64 was measured for
positive arguments, and for negative ones against 2 units of the last place of the larger of
|result|, log|gamma(|x|)| or log|x|, and 1, in tests/test_mathlib.py.

| function | float32 ulp | at | float64 ulp | at | float32 ns | float64 ns |
|---|---|---|---|---|---|---|"""


def _processor() -> str:
    with open("/proc/cpuinfo") as lines:
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def main(stride: int, count: int = 30_000) -> None:
    points = f"{-(-(2**32) // stride):,}"
    text = {"stride": stride, "points": points, "count": f"{count:,}", "sparse": ", ".join(SPARSE)}
    header = HEADER.format(**text, cpu=_processor())
    sys.stdout.write(header + "\n")
    for name in MATH:
        steps = stride * 16 if name in SPARSE else stride
        (error32, at32), (error_64, at64) = worst32(name, steps), worst64(name, count)
        times = " | ".join(f"{nanoseconds(name, element):.2f}" for element in ELEMENTS)
        row = f"| {name} | {error32:.3f} | {at32} | {error_64:.3f} | {at64} | {times} |"
        sys.stdout.write(row + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
