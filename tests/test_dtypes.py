"""The walk over dtypes: every function of tensors, what it accepts and what it refuses.

The reference is the same function in float64 (int64 for integers), rounded once; that the float64
functions are right is tested against NumPy elsewhere. Each function is walked in both half types,
float64, bool and two of the integer dtypes, and compiled in two of them.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from dtype_cases import CALLS, listed
from same_bits import assert_same_bits

import einkorn as ek

Array = np.ndarray[Any, Any]

HALVES = ("float16", "bfloat16")
FLOATS = (*HALVES, "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
EPS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}

# Which dtypes a function refuses, all with a DTypeError; the rest accept all.
NO_BOOL = (
    "abs negative sign signbit square add floor_divide multiply remainder subtract pow diff "
    "matmul tensordot vecdot outer einsum linalg.cross nn.prelu nn.conv nn.max_pool "
    "nn.segment_sum nn.segment_mean nn.segment_max nn.segment_prod nn.hardshrink"
)
ONLY_FLOATS = (
    "nn.layer_norm nn.rms_norm nn.batch_statistics nn.group_norm nn.cross_entropy nn.nll_loss "
    "nn.attention nn.rotary_embedding nn.binary_cross_entropy nn.cosine_similarity nn.hinge_loss "
    "nn.huber_loss nn.kl_div nn.l1_loss nn.log_cosh_loss nn.mse_loss nn.poisson_nll_loss "
    "nn.smooth_l1_loss nn.soft_margin_loss nn.binary_cross_entropy_with_logits"
)
REFUSES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(NO_BOOL.split(), ("bool",)),
    **dict.fromkeys(ONLY_FLOATS.split(), (*INTEGERS, "bool")),
    **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_invert"), FLOATS),
    **dict.fromkeys(("bitwise_left_shift", "bitwise_right_shift"), (*FLOATS, "bool")),
    **dict.fromkeys(("linalg.matrix_norm", "linalg.matrix_power", "linalg.det"), HALVES),
    "at add": ("bool",),
    "pow whole": ("bool",),
    "pow negative": (*INTEGERS, "bool"),
}

# Functions of several ops that lose digits by the formula that defines them, in float32.
DIGITS_LOST = {
    "nn.tanhshrink": 16, "nn.layer_norm": 32, "nn.rotary_embedding": 16, "nn.group_norm": 8,
    "linalg.cross": 16, "linalg.matrix_power": 8, "linalg.det": 16,
}  # fmt: skip


def sample(dtype: str) -> Any:
    random = np.random.default_rng(0)
    floats, whole = random.uniform(0.1, 0.9, (3, 4)), random.integers(1, 6, (3, 4))
    if dtype == "bool":
        return ek.asarray(whole > 3)
    return ek.asarray(floats if dtype in FLOATS else whole).astype(dtype)


def check_value(name: str, got: Array, want: Array) -> None:
    """One rounding of the reference; integers are equal as far as they do not wrap around."""
    dtype = got.dtype.name
    if dtype in EPS:
        a, b = got.astype("float64"), want.astype("float64")
        assert (np.isnan(a) == np.isnan(b)).all()
        assert (np.isinf(a) == np.isinf(b)).all()
        # Half an ulp in half types, with what float32 loses before; a few ulp in float32.
        limit = 1.02 * 2 if dtype in HALVES else 4 * DIGITS_LOST.get(name, 1)
        usable = np.isfinite(b)
        error = abs(a[usable] - b[usable])
        assert (error <= limit * EPS[dtype] * np.maximum(abs(b[usable]), 1e-2)).all(), name
    else:
        assert_same_bits(got, want.astype(got.dtype))


@pytest.mark.parametrize("name", CALLS)
def test_every_function_in_every_dtype(name: str) -> None:
    call, refused = CALLS[name], REFUSES.get(name, ())
    position = list(CALLS).index(name)
    some = [INTEGERS[(position + 3 * k) % 8] for k in range(2)]  # the others at other functions
    accepted = [dtype for dtype in (*HALVES, *some, "float64", "bool") if dtype not in refused]
    tensors = [sample(dtype) for dtype in accepted]
    eager = [listed(call(x)) for x in tensors]
    for x, found in zip(tensors, eager):
        wide = "bool" if x.dtype is ek.bool_ else "float64" if x.dtype.is_float else "int64"
        for got, want in zip(found, listed(call(x.astype(wide))), strict=True):
            assert got.shape == want.shape
            check_value(name, got, want)
    chosen = [position % 2, 2] if len(tensors) > 2 else [0]
    compiled = ek.compile(lambda xs: [call(x) for x in xs])([tensors[k] for k in chosen])
    for found, again in zip([eager[k] for k in chosen], compiled, strict=True):
        for got, want in zip(listed(again), found, strict=True):
            assert got.dtype == want.dtype
            assert_same_bits(got, want)
    for dtype in refused:
        with pytest.raises(ek.DTypeError) as error:
            call(sample(dtype))
        names = (dtype, sample(dtype).dtype.short, "an integer to the negative power")
        assert any(name in str(error.value) for name in names)


# -- every function is in the walk -----------------------------------------------------------------

MAKERS = "arange asarray empty eye full linspace ones tensor zeros from_dlpack"
CONTROL = (
    "associative_scan autocast checkpoint clear_caches compile cond custom_jvp custom_vjp eager "
    "fori_loop grad hessian hvp jacobian jvp map no_grad scan settings switch trace tree_map "
    "tree_map_with_path tree_reduce "
    "value_and_grad vjp vmap while_loop parse callback print"
)
HOOKS = "add_loss add_metric add_summary next_rng_key training training_context"
ABOUT_DTYPES = "can_cast finfo iinfo isdtype result_type __array_namespace_info__"
ELSEWHERE = {  # tested over dtypes where they are tested at all
    "one_hot": "integers only", "nonzero": "eager only", "unique_all": "eager only",
    "unique_counts": "eager only", "unique_inverse": "eager only", "unique_values": "eager only",
    "angle": "of complex numbers",
}  # fmt: skip


@pytest.mark.parametrize("module", [ek], ids=["einkorn"])
def test_every_function_of_the_namespace_is_walked(module: Any) -> None:
    known = {name.split(" ")[0] for name in CALLS}
    left_out = {*f"{MAKERS} {CONTROL} {HOOKS} {ABOUT_DTYPES}".split(), *ELSEWHERE}
    functions = [
        name
        for name in module.__all__
        if callable(getattr(module, name)) and not inspect.isclass(getattr(module, name))
    ]
    dtypes = {name for name in functions if isinstance(getattr(module, name), type(ek.float32))}
    missing = [name for name in functions if name not in known | left_out | dtypes]
    assert missing == []


# -- integers to the power of integers -------------------------------------------------------------


def test_integer_powers_multiply_and_wrap_around() -> None:
    for dtype in INTEGERS:
        x = np.array([0, 1, 2, 3, 5, 7], dtype)[:, None]
        n = np.array([0, 1, 2, 7, 40, 100], dtype)
        want = x**n
        for run in (ek.pow, ek.compile(ek.pow)):
            assert_same_bits(np.asarray(run(ek.asarray(x), ek.asarray(n))), want)
    signed = ek.asarray(np.array([-3, -1, 1, 2, 0], "int32"))
    assert ek.pow(signed, ek.asarray(np.int32(3))).tolist() == [-27, -1, 1, 8, 0]
    with pytest.raises(ek.DTypeError, match="negative power"):
        ek.pow(signed, ek.asarray(np.int32(-1)))
    later = ek.compile(ek.pow)(signed, ek.asarray(np.array([-3, -3, -4, -1, -1], "int32")))
    assert later.tolist() == [0, -1, 1, 0, 0]
    assert (2 ** ek.asarray([1, 2, 10])).tolist() == [2, 4, 1024]
