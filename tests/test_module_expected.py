"""Calls of a Module with outputs to expect, and what is told about the first that differs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from module_checks import X, net, same

import einkorn as ek
from einkorn import nn
from einkorn.ir.errors import EinkornError, TraceError


def test_what_is_expected_is_returned_as_before() -> None:
    model = net()
    out, golden = model(X, capture=True)
    same(model(X, expected=golden)["out"], out["out"])
    model(X, expected={"first#2": golden["first#2"]})
    moved = {path: np.asarray(x) + np.float32(1e-3) for path, x in golden.items()}
    model(X, expected=moved, atol=2e-3)
    _, found = model(X, expected=moved, atol=2e-3, capture="first/act")
    assert list(found) == ["first/act", "first/act#2"]
    with pytest.raises(nn.MismatchError, match=r"^Net: what first/linear returned"):
        model(X, expected=moved)


def test_the_first_difference_is_named_with_its_worst_element() -> None:
    model = net()
    golden = {path: np.asarray(x).copy() for path, x in model(X, capture=True)[1].items()}
    golden["first/act"][1, 2] += 1.0
    golden["first/act"][2, 0] += 0.25
    golden["first#2"][0, 0] = np.nan
    with pytest.raises(
        nn.MismatchError,
        match=r"^Net: what first/act returned is not what is expected: 2 of 12 elements differ by "
        r"more than 1e-08 \+ 1e-05 \* \|expected\|, most at \[1, 2\]: got",
    ):
        model(X, expected=golden)
    del golden["first/act"]
    with pytest.raises(AssertionError, match=r"first#2 returned .* \[0, 0\].*expected nan"):
        model(X, expected=golden)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"first": np.zeros((3, 5))}, r"first returned .* its shape is \(3, 4\), expected is"),
        ({"first": [np.zeros((3, 4))]}, r"first returned .*: it is .*, expected is"),
        ({"first": None}, r"first returned .*: it is .*, expected is None"),
    ],
)
def test_outputs_of_another_form(expected: Any, message: str) -> None:
    with pytest.raises(nn.MismatchError, match=message):
        net()(X, expected=expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expected": {"head": 0}}, "'head' is expected to be called, but was not; .* first/lin"),
        ({"expected": 3}, "expected outputs are a dict by path, got 3"),
        ({"expected": {}, "rtol": -1.0}, "rtol is a number that is not negative"),
        ({"expected": {}, "atol": "x"}, "atol is a number that is not negative"),
        ({"expected": {}, "atol": float("nan")}, "atol is a number that is not negative"),
        ({"rtol": 1.0}, "rtol and atol belong to expected="),
    ],
)
def test_bad_expectations(options: Any, message: str) -> None:
    with pytest.raises(EinkornError, match=message):
        net()(X, **options)


def test_nothing_is_compared_while_tracing() -> None:
    model = net()
    golden = model(X, capture=True)[1]
    with pytest.raises(TraceError, match=r"expected=\) compares values.*nn.check_outputs"):
        ek.compile(lambda x: model(x, expected=golden))(X)
    _, found = ek.compile(lambda x: model(x, capture=True))(X)
    nn.check_outputs(found, golden, rtol=0, atol=0)
    golden["first"] = golden["first"] + 1.0
    with pytest.raises(nn.MismatchError, match=r"^check_outputs: what first returned"):
        nn.check_outputs(found, golden)
    assert int(model.calls) == 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float64", "complex64", "int64", "bool"])
def test_any_dtype_is_compared(dtype: str) -> None:
    class Same(nn.Module):
        def forward(self, x: Any) -> Any:
            return x

    x = np.asarray(ek.asarray([0, 1, 1, 0], dtype=dtype))
    other = np.asarray(ek.asarray([0, 1, 0, 0], dtype=dtype))
    nn.Sequential(Same())(x, expected={"submodules/v0": x})
    with pytest.raises(nn.MismatchError, match=r"1 of 4 elements .* at \[2\]"):
        nn.Sequential(Same())(x, expected={"submodules/v0": other})


def test_infinities_and_nans_are_equal_to_themselves() -> None:
    x = np.float32([np.inf, -np.inf, np.nan, 0.0])
    model = nn.Sequential(nn.Identity())
    model(x, expected={"submodules/v0": x})
    with pytest.raises(nn.MismatchError, match="4 of 4 elements"):
        model(x, expected={"submodules/v0": x[[1, 3, 0, 1]]})
