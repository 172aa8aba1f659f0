"""The einkorn namespace against the Python array API standard, version 2024.12.

Written from the standard's text: its functions and their signatures, the dtypes, the tables of type
promotion, and the special cases of elementwise functions, for which NumPy, which follows the
standard, is the reference. docs/array_api.md lists what is left out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from function_checks import both

import einkorn as ek
from einkorn.ir.dtypes import COMPLEX, FLOATS, SIGNED, UNSIGNED, DType, bool_

Array = np.ndarray[Any, Any]

# Signature -> the functions that have it.
SIGNATURES = {
    "(x, /)": (
        "abs acos acosh asin asinh atan atanh bitwise_invert ceil conj cos cosh exp expm1 "
        "floor imag isfinite isinf isnan log log10 log1p log2 logical_not matrix_transpose "
        "negative nonzero positive real reciprocal round sign signbit sin sinh sqrt square "
        "tan tanh trunc unique_all unique_counts unique_inverse unique_values"
    ),
    "(x1, x2, /)": (
        "add atan2 bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor "
        "copysign divide equal floor_divide greater greater_equal hypot less less_equal "
        "logaddexp logical_and logical_or logical_xor matmul maximum minimum multiply "
        "nextafter not_equal pow remainder subtract"
    ),
    "(x, /, *, axis=None, keepdims=False)": "all any argmax argmin count_nonzero max mean min",
    "(shape, *, dtype=None, device=None)": "empty ones zeros",
    "(x, /, *, dtype=None, device=None)": "empty_like ones_like zeros_like",
    "(x, /, *, axis=-1, descending=False, stable=True)": "argsort sort",
    "(arrays, /, *, axis=0)": "concat stack",
    "(x, /, *, axis=None, dtype=None, include_initial=False)": "cumulative_prod cumulative_sum",
    "(x, /, *, axis=0)": "expand_dims unstack",
    "(type, /)": "finfo iinfo",
    "(x, /, *, axis=None, dtype=None, keepdims=False)": "prod sum",
    "(x, /, *, axis=None, correction=0.0, keepdims=False)": "std var",
    "(x, /, *, k=0)": "tril triu",
    "()": "__array_namespace_info__",
    "(start, /, stop=None, step=1, *, dtype=None, device=None)": "arange",
    "(obj, /, *, dtype=None, device=None, copy=None)": "asarray",
    "(x, dtype, /, *, copy=True, device=None)": "astype",
    "(*arrays)": "broadcast_arrays",
    "(x, /, shape)": "broadcast_to",
    "(from_, to, /)": "can_cast",
    "(x, /, min=None, max=None)": "clip",
    "(x, /, *, axis=-1, n=1, prepend=None, append=None)": "diff",
    "(n_rows, n_cols=None, /, *, k=0, dtype=None, device=None)": "eye",
    "(x, /, *, axis=None)": "flip",
    "(x, /, *, device=None, copy=None)": "from_dlpack",
    "(shape, fill_value, *, dtype=None, device=None)": "full",
    "(x, /, fill_value, *, dtype=None, device=None)": "full_like",
    "(dtype, kind)": "isdtype",
    "(start, stop, /, num, *, dtype=None, device=None, endpoint=True)": "linspace",
    "(*arrays, indexing='xy')": "meshgrid",
    "(x, source, destination, /)": "moveaxis",
    "(x, /, axes)": "permute_dims",
    "(x, repeats, /, *, axis=None)": "repeat",
    "(x, /, shape, *, copy=None)": "reshape",
    "(*arrays_and_dtypes)": "result_type",
    "(x, /, shift, *, axis=None)": "roll",
    "(x1, x2, /, *, side='left', sorter=None)": "searchsorted",
    "(x, /, axis)": "squeeze",
    "(x, indices, /, *, axis=None)": "take",
    "(x, indices, /, *, axis=-1)": "take_along_axis",
    "(x1, x2, /, *, axes=2)": "tensordot",
    "(x, repetitions, /)": "tile",
    "(x1, x2, /, *, axis=-1)": "vecdot",
    "(condition, x1, x2, /)": "where",
}  # fmt: skip

LINALG = {
    "(x, /, *, upper=False)": "cholesky",
    "(x1, x2, /, *, axis=-1)": "cross vecdot",
    "(x, /)": "det eigh eigvalsh inv matrix_transpose slogdet svdvals",
    "(x, /, *, offset=0)": "diagonal",
    "(x1, x2, /)": "matmul outer solve",
    "(x, /, *, keepdims=False, ord='fro')": "matrix_norm",
    "(x, n, /)": "matrix_power",
    "(x, /, *, rtol=None)": "matrix_rank pinv",
    "(x, /, *, mode='reduced')": "qr",
    "(x, /, *, full_matrices=True)": "svd",
    "(x1, x2, /, *, axes=2)": "tensordot",
    "(x, /, *, offset=0, dtype=None)": "trace",
    "(x, /, *, axis=None, keepdims=False, ord=2)": "vector_norm",
}
FFT = {
    "(x, /, *, n=None, axis=-1, norm='backward')": "fft ifft rfft irfft hfft ihfft",
    "(x, /, *, s=None, axes=None, norm='backward')": "fftn ifftn rfftn irfftn",
    "(n, /, *, d=1.0, dtype=None, device=None)": "fftfreq rfftfreq",
    "(x, /, *, axes=None)": "fftshift ifftshift",
}

EXTENSIONS = [
    (module, name, text)
    for module, table in (("linalg", LINALG), ("fft", FFT))
    for text, names in table.items()
    for name in names.split()
]
FUNCTIONS = [(name, text) for text, names in SIGNATURES.items() for name in names.split()]
STANDARD = [x for x in (bool_, *SIGNED, *UNSIGNED, *FLOATS) if x.itemsize != 2 or not x.is_float]
STANDARD += COMPLEX


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "signature"), FUNCTIONS, ids=[name for name, _ in FUNCTIONS])
def test_functions_have_the_names_and_signatures_of_the_standard(name: str, signature: str) -> None:
    assert name in ek.__all__
    assert _signature(getattr(ek, name)) == signature


@pytest.mark.parametrize(("module", "name", "signature"), EXTENSIONS)
def test_extensions_have_the_names_and_signatures_of_the_standard(
    module: str, name: str, signature: str
) -> None:
    assert module in ek.__all__
    assert name in getattr(ek, module).__all__
    assert _signature(getattr(getattr(ek, module), name)) == signature


def _signature(function: Callable[..., Any]) -> str:
    got = inspect.signature(function)
    plain = [x.replace(annotation=inspect.Parameter.empty) for x in got.parameters.values()]
    return str(inspect.Signature(plain))


def test_every_function_is_listed_once() -> None:
    assert len(FUNCTIONS) == len({name for name, _ in FUNCTIONS}) == 134
    assert [sum(x[0] == module for x in EXTENSIONS) for module in ("linalg", "fft")] == [23, 14]


def test_constants_and_dtypes() -> None:
    assert (ek.e, ek.pi, ek.inf, ek.newaxis) == (np.e, np.pi, np.inf, None)
    assert np.isnan(ek.nan)
    assert ek.__array_api_version__ == "2024.12"
    names = ("bool", *(f"{kind}{n}" for kind in ("int", "uint") for n in (8, 16, 32, 64)))
    for name in (*names, "float32", "float64", "complex64", "complex128"):
        dtype = getattr(ek, name)
        assert dtype.name == name
        assert dtype == getattr(ek, name)
        assert ek.zeros(2, dtype=dtype).dtype == dtype


def test_attributes_of_the_array_object() -> None:
    x = ek.asarray([[1.0, 2.0, 3.0]])
    assert (x.dtype, x.device, x.ndim, x.shape, x.size) == (ek.float32, "cpu", 2, (1, 3), 3)
    assert x.T.shape == x.mT.shape == (3, 1)
    assert x.to_device("cpu").device == "cpu"
    assert x.__dlpack_device__() == (1, 0)
    for version in (None, "2021.12", "2022.12", "2023.12", "2024.12"):
        assert x.__array_namespace__(api_version=version) is ek
    with pytest.raises(ek.StateError, match=r"array API version '2020.1' is not there"):
        x.__array_namespace__(api_version="2020.1")
    with pytest.raises(ek.DTypeError, match="device 'gpu'"):
        x.to_device("gpu")
    assert (bool(x[0, 0]), int(x[0, 1]), float(x[0, 2]), complex(x[0, 2])) == (True, 2, 3.0, 3 + 0j)
    assert [10, 20][ek.asarray(1).__index__()] == 20


OPERATORS = (
    "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split()
)  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_there_reflected_and_in_place(name: str) -> None:
    whole = name in ("and", "or", "xor", "lshift", "rshift")
    x = ek.asarray([5, 6, 7]) if whole else ek.asarray([5.0, 6.0, 7.0])
    forward, reflected = (getattr(ek.Tensor, f"__{r}{name}__") for r in ("", "r"))
    assert np.array_equal(forward(x, x), reflected(x, x))
    # There is no __iadd__: `x += y` binds the name to a new tensor, since tensors are immutable.
    assert not hasattr(ek.Tensor, f"__i{name}__")
    assert forward(x, "text") is NotImplemented


# -- inspection ------------------------------------------------------------------------------------


def test_inspection() -> None:
    info = ek.__array_namespace_info__()
    assert info.capabilities() == {
        "boolean indexing": True,
        "data-dependent shapes": True,
        "max dimensions": 32,
    }
    assert info.devices() == [info.default_device()] == ["cpu"]
    defaults = info.default_dtypes(device="cpu")
    assert defaults["real floating"] is ek.zeros(1).dtype
    assert defaults["complex floating"] is ek.asarray(1j).dtype
    assert defaults["integral"] is ek.arange(1).dtype
    assert defaults["indexing"] is ek.argsort([1.0]).dtype
    assert set(info.dtypes().values()) == set(STANDARD)
    assert all(info.dtypes()[name].name == name for name in info.dtypes())
    assert list(info.dtypes(kind="bool")) == ["bool"]
    assert set(info.dtypes(kind=("real floating", "bool"))) == {"bool", "float32", "float64"}
    assert set(info.dtypes(kind="complex floating").values()) == set(COMPLEX)
    assert set(info.dtypes(kind="integral").values()) == {*SIGNED, *UNSIGNED}
    with pytest.raises(ek.DTypeError, match="device"):
        info.dtypes(device="cuda")


def test_limits_and_kinds() -> None:
    for dtype in STANDARD:
        array = ek.zeros((), dtype=dtype)
        if dtype.is_float:
            limits, want = ek.finfo(dtype), np.finfo(dtype.numpy)
            assert limits == ek.finfo(array)
            names = ("bits", "eps", "max", "min", "smallest_normal")
            assert all(getattr(limits, name) == getattr(want, name) for name in names)
            assert isinstance(limits.eps, float)
        elif dtype.is_complex:
            continue  # tests/test_complex.py
        elif dtype.is_integer:
            limits, want = ek.iinfo(dtype), np.iinfo(dtype.numpy)
            assert limits == ek.iinfo(array)
            assert (limits.bits, limits.max, limits.min) == (want.bits, want.max, want.min)
        if dtype is not bool_:
            assert limits.dtype is dtype  # pyright: ignore[reportPossiblyUnboundVariable]
    for dtype, kind in product(
        STANDARD,
        (
            "bool",
            "signed integer",
            "unsigned integer",
            "integral",
            "real floating",
            "complex floating",
            "numeric",
        ),
    ):
        want = np.isdtype(dtype.numpy, kind)
        assert ek.isdtype(dtype, kind) is bool(want)
    assert ek.isdtype(ek.int8, (ek.int16, "signed integer"))
    assert not ek.isdtype(ek.int8, ())


# -- type promotion --------------------------------------------------------------------------------


def _promoted(a: DType, b: DType) -> DType | None:
    """The standard's tables; None where it leaves the result open."""
    if a is b:
        return a
    if bool_ in (a, b) or a.is_inexact != b.is_inexact:
        return None
    if a.is_complex or b.is_complex:
        return max(a.complex, b.complex, key=lambda x: x.itemsize)
    if a.kind == b.kind:
        return max(a, b, key=lambda x: x.itemsize)
    unsigned, signed = (a, b) if a.kind == "u" else (b, a)
    return next(
        (x for x in SIGNED if x.itemsize > unsigned.itemsize and x.bits >= signed.bits), None
    )


@pytest.mark.parametrize("a", STANDARD, ids=repr)
@pytest.mark.parametrize("b", STANDARD, ids=repr)
def test_promotion(a: DType, b: DType) -> None:
    want = _promoted(a, b)
    if want is None:
        return
    x, y = ek.ones(2, dtype=a), ek.ones(2, dtype=b)
    assert ek.result_type(a, b) is ek.result_type(x, b) is ek.result_type(b, a) is want
    assert ek.can_cast(a, want)
    assert ek.can_cast(x, b) is (want is b)
    assert ek.where(x == x, x, y).dtype is want
    assert ek.equal(x, y).dtype is bool_
    assert ek.concat([x, y]).dtype is want
    functions = [ek.bitwise_and] if not want.is_inexact else []
    if want is not bool_:
        functions += [ek.add, ek.multiply, ek.vecdot, ek.matmul]
        functions += [] if want.is_complex else [ek.maximum, ek.remainder]
    for function in functions:
        assert function(x, y).dtype is want


@pytest.mark.parametrize("dtype", STANDARD, ids=repr)
def test_python_scalars_take_the_dtype_of_the_array(dtype: DType) -> None:
    x = ek.ones(2, dtype=dtype)
    scalars: list[Any] = [True] if dtype is bool_ else [1, 1.0][: 1 + dtype.is_inexact]
    scalars += [1j] if dtype.is_complex else []
    for scalar in scalars:
        assert ek.where(x == x, x, scalar).dtype is ek.result_type(x, scalar) is dtype
        if dtype is not bool_:
            assert (x + scalar).dtype is (scalar - x).dtype is ek.add(scalar, x).dtype is dtype
            assert dtype.is_complex or ek.clip(x, scalar, scalar).dtype is dtype
    if dtype is bool_:
        assert (x & True).dtype is dtype


def test_results_of_default_dtypes() -> None:
    for dtype in (*SIGNED, *UNSIGNED):
        wide = ek.uint64 if dtype.kind == "u" else ek.int64
        x = ek.ones((2, 2), dtype=dtype)
        for function in (ek.sum, ek.prod):
            assert function(x).dtype is wide
            assert function(x, dtype=dtype).dtype is dtype
        assert ek.cumulative_sum(x, axis=0).dtype is ek.cumulative_prod(x, axis=0).dtype is wide
    for function in (ek.argmax, ek.argmin, ek.argsort, ek.count_nonzero):
        assert function(ek.ones(2)).dtype is ek.int64


# -- special cases ---------------------------------------------------------------------------------

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, 2.5, -3.5]
UNARY = [
    "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh", "exp", "expm1",
    "floor", "isfinite", "isinf", "isnan", "log", "log10", "log1p", "log2", "negative", "positive",
    "reciprocal", "round", "sign", "signbit", "sin", "sinh", "sqrt", "square", "tan", "tanh",
    "trunc",
]  # fmt: skip
BINARY = [
    "add", "atan2", "copysign", "divide", "equal", "greater", "greater_equal", "hypot", "less",
    "less_equal", "logaddexp", "multiply", "nextafter", "not_equal", "pow", "subtract",
    "floor_divide", "remainder",
]  # fmt: skip


def _check_special(name: str, *operands: Array) -> None:
    with np.errstate(all="ignore"):
        want = getattr(np, name)(*operands)
    if name in ("floor_divide", "remainder"):
        # Open in the standard where an infinity is divided, or divides: NumPy follows Python.
        finite = np.isfinite(operands[0]) & np.isfinite(operands[1])
        operands, want = tuple(x[finite] for x in operands), want[finite]
    got = np.asarray(both(getattr(ek, name), *operands))
    assert got.dtype == want.dtype
    if got.dtype == bool:
        np.testing.assert_array_equal(got, want)
        return
    exact = ~np.isfinite(want) | (want == 0) | (np.abs(want) == 1)
    np.testing.assert_array_equal(got[exact], want[exact])
    zero = want == 0
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(want[zero]))
    limit = 8 * np.finfo(want.dtype).eps
    np.testing.assert_allclose(got[~exact], want[~exact], rtol=limit)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", UNARY)
def test_special_cases_of_one_operand(name: str, dtype: str) -> None:
    _check_special(name, np.array(SPECIAL, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", BINARY)
def test_special_cases_of_two_operands(name: str, dtype: str) -> None:
    pairs = np.array(list(product(SPECIAL, SPECIAL)), dtype)
    _check_special(name, pairs[:, 0].copy(), pairs[:, 1].copy())


NAN_WINS: list[Callable[..., Any]] = [ek.maximum, ek.minimum]


@pytest.mark.parametrize("function", NAN_WINS)
def test_nan_wins_in_extremes(function: Callable[..., Any]) -> None:
    for other in SPECIAL:
        assert np.isnan(float(function(ek.asarray(np.nan), other)))
        assert np.isnan(float(function(other, ek.asarray(np.nan))))
    assert np.isnan(float(ek.max(ek.asarray([1.0, np.nan]))))
    assert np.isnan(float(ek.min(ek.asarray([np.nan, 1.0]))))


def test_statistics_over_nothing() -> None:
    nothing = ek.zeros((0,))
    assert (float(ek.sum(nothing)), float(ek.prod(nothing))) == (0.0, 1.0)
    assert (bool(ek.any(nothing)), bool(ek.all(nothing))) == (False, True)
    for function in (ek.mean, ek.var, ek.std):
        assert np.isnan(float(function(nothing)))
