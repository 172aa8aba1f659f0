"""The dialect `pygrad`: the snippets of its page on modules, and the values that they must give."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einkorn as ek
from einkorn.dialects import pygrad
from einkorn.dialects.pygrad.tensor import Tensor
from einkorn.ir.errors import EinkornError

PAGE = Path(__file__).parents[2] / "shared/seeds/pygrad_modules.rst"
TYPOS = {  # what the page means where its text cannot run
    "n_iters = 1000": "n_iters = 100",  # the printed values are those of 100 steps
    "kernel = np.ones((1, 1, 3, kH=5, kW=5))": "kernel = Tensor(np.ones((1, 1, 3, 5, 5)))",
    "y = x @ np.ones((1,20,30))": "y = x @ np.ones((1,30,20))",
    "model(**kwargs)": "model(x=Tensor(np.ones((2, 1, 28, 28)), leaf=True))",
}
WEIGHTS_KEEP_THEIR_SHAPE = "((1, 100, 10), (1, 100, 10))"


def blocks() -> list[str]:
    """The code of each snippet."""
    if not PAGE.exists():
        pytest.skip("the page is not beside the repository")
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"\.\. code-block:: Python\n\n((?: +.*\n|\n)+)", text)
    return [textwrap.dedent(body) for body in found]


def mended(code: str) -> str:
    """The code with other imports, and without typos."""
    for wrong, right in TYPOS.items():
        code = code.replace(wrong, right)
    return re.sub(r"^from pygrad", "from einkorn.dialects.pygrad", code, flags=re.MULTILINE)


def run(code: str, names: dict[str, Any]) -> list[tuple[str, str]]:
    """Run a snippet; for each line `# -> text` what the line before gave, and that text."""
    lines, pairs = code.split("\n"), []
    for statement in ast.parse(code).body:
        source = ast.unparse(statement)
        following = lines[statement.end_lineno] if statement.end_lineno < len(lines) else ""
        wanted = re.match(r"\s*# -> (.*)", following)
        if not wanted:
            exec(compile(source, "snippet", "exec"), names)
            continue
        assert isinstance(statement, ast.Expr)
        if source.startswith("print("):
            source = f"str().join(str(x) + ' ' for x in ({source[6:-1]},))"
        found = eval(source, names)
        pairs.append((found if isinstance(found, str) else repr(found), wanted.group(1)))
    return pairs


def numbers(text: str) -> list[float]:
    return [float(x) for x in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)]


def test_every_snippet_of_the_page_runs_and_gives_what_it_says() -> None:
    ek.random.seed(0)
    np.random.seed(0)  # the page draws from NumPy
    names: dict[str, Any] = {"np": np, **{k: getattr(pygrad, k) for k in pygrad.__all__}}
    pairs = [pair for code in blocks() for pair in run(mended(code), names)]
    assert len(pairs) == 10
    for found, wanted in pairs:
        if "batch_size" in wanted:  # weights have one shape, also of a model without Module
            assert found == WEIGHTS_KEEP_THEIR_SHAPE
        elif wanted.startswith("array"):  # which two of the four are dropped is random
            assert sorted(numbers(found)) == sorted(numbers(wanted))
        elif "..." in wanted:
            cut = [float(f"{x:.4f}") for x in numbers(found)]
            np.testing.assert_allclose(cut, numbers(wanted), atol=1.1e-4)
        else:
            np.testing.assert_allclose(numbers(found), numbers(wanted), rtol=5e-9)
    assert np.isfinite(names["loss"].value).all()
    assert names["optim"].iter_num == 25
    assert names["model"].dense2.W.shape == (1, 100, 10)


# -- tensors and graphs ----------------------------------------------------------------------------


def test_gradients_of_intermediate_tensors_are_sent_on_again() -> None:
    x = Tensor(value=1, label="x")
    y = x**2 + x + 1
    topo, weights = y.create_graph()
    assert [float(t.value) for t in topo] == [1.0, 1.0, 2.0, 3.0]
    assert [w.label for w in weights] == ["x"]
    assert topo[0] is x
    assert topo[-1] is y
    grads = []
    for options in ({}, {}, {"reset_grad": False}):
        y.backward(**options)
        grads.append(float(x.grad))
    assert grads == [3.0, 3.0, 11.0]
    y.backward()
    y.backward(reset_grad=False, accumulate="leaf")
    assert float(x.grad) == 6.0
    with pytest.raises(EinkornError, match="'all' or 'leaf'"):
        y.backward(accumulate="some")


def test_golden_values() -> None:
    x = Tensor(1)
    for _ in range(100):
        loss = (x - 1.5) ** 2
        loss.backward(reset_grad=True)
        x.value = x.value - 0.01 * x.grad
    np.testing.assert_allclose([x.value, loss.value], [1.433690222, 0.00457829], rtol=1e-6)
    x = Tensor(1)
    loss = ((x**3 + x**2 + x + 1) - 1) ** 2
    loss.backward()
    assert float(x.grad) == 36.0
    x = Tensor(1)
    y = x**2 + 1
    y.backward()
    assert (float(y.grad), float(x.grad)) == (1.0, 2.0)
    a, b = Tensor(1), Tensor(2)
    c = a * b
    assert (c.leaf, a.leaf, a.topo) == (True, False, None)
    c.backward()
    assert (float(a.grad), float(b.grad)) == (2.0, 1.0)
    assert c.topo is not None
    assert all(x is y for x, y in zip(c.topo, [a, b, c], strict=True))
    dropped = Tensor(np.ones(4))
    out = pygrad.Dropout(0.5)(dropped)
    out.backward()
    np.testing.assert_array_equal(out.value, dropped.grad)
    assert sorted(out.value) == [0, 0, 1, 1]
    assert pygrad.Dropout(0.5)(dropped, training=False) is dropped
    layer = pygrad.Linear(2, 1)
    layer(Tensor(np.ones((5, 3, 2)), leaf=True)).sum().backward()
    assert layer.W.grad.shape == (1, 2, 1)
    assert layer.B is not None
    assert layer.B.grad.shape == (1, 1, 1)


NEW = np.random.default_rng(0).normal(size=(2, 3, 4))
FUNCTIONS: dict[str, Any] = {
    "arithmetic": lambda x: (2 * x - x / 2 + 3 - x) * x / (1 + x * x) + (1 - x) - 2 / (x * x + 1),
    "numpy": lambda x: np.ones((2, 3, 4)) * x + np.ones(4) - x,
    "neg": lambda x: -x,
    "pow": lambda x: (x * x + 1) ** 1.5 + 2 ** (0.1 * x) + (x * x + 1) ** x,
    "matmul": lambda x: x @ np.ones((1, 4, 2)) + np.ones((2, 3, 3)) @ x @ np.ones((4, 2)),
    "matmul self": lambda x: x @ x.T,
    "sum": lambda x: x.sum(axis=0) * 2 + x.sum() + x.sum(axis=(0, 1, 2)),
    "mean": lambda x: x.mean() + x.mean(axis=0, keepdims=False) + x.mean(axis=None),
    "std": lambda x: x.std() + x.std(axis=1),
    "transpose": lambda x: x.transpose() @ x.transpose((0, 2, 1)).reshape((1, 2, 12)),
    "T": lambda x: x.T.reshape(6, -1),
    "slices": lambda x: x[0] * x[:, 1, 2:3].sum() + x[np.array([1, 0]), :, 0].sum(),
    "mask": lambda x: x.mask_idcs(([0, 1], [2, 0]), value=-7.0).softmax(),
    "relu": lambda x: x.relu(),
    "tanh": lambda x: x.tanh(),
    "log": lambda x: (x * x + 0.5).log(),
    "sigmoid": lambda x: x.sigmoid(),
    "softmax": lambda x: x.softmax() * x.softmax_log(),
    "conv": lambda x: Tensor(np.ones((1, 2, 1, 2, 2)) * 0.3).conv2D(x.reshape((2, 1, 3, 4))),
    "AddNorm": lambda x: pygrad.AddNorm(0.5, 0.1)(x, x * x),
    "BCELoss": lambda x: pygrad.BCELoss()(x.sigmoid(), Tensor(NEW > 0, learnable=False)),
    "CCELoss": lambda x: pygrad.CCELoss()(x, Tensor(np.eye(4)[[[0, 1, 2], [3, 2, 0]]], leaf=True)),
    "CCELoss mask": lambda x: pygrad.CCELoss()(
        x, Tensor(np.eye(4)[[[1, 0, 2], [3, 2, 1]]], learnable=False), mask=True
    ),
}


@pytest.mark.parametrize("fn", FUNCTIONS.values(), ids=FUNCTIONS)
def test_gradients_are_those_of_finite_differences(fn: Any) -> None:
    x = Tensor(NEW, label="x")
    out = fn(x)
    assert isinstance(out, Tensor)
    out.backward()
    assert x.grad.shape == NEW.shape
    rng = np.random.default_rng(1)
    for _ in range(3):
        along = rng.normal(size=NEW.shape)
        high, low = (fn(Tensor(NEW + h * along)).value.sum() for h in (1e-6, -1e-6))
        np.testing.assert_allclose((x.grad * along).sum(), (high - low) / 2e-6, 1e-6, 1e-8)


def test_where_other_libraries_of_this_kind_fail() -> None:
    large = Tensor(1000.0)
    large.tanh().backward()
    assert float(large.grad) == 0.0
    x = Tensor(np.ones((2, 3)))
    y = x.mask_idcs(([0], [1]), value=-1e9)
    (y * y).backward()
    assert float(x.grad[0, 1]) == 0.0
    assert [w.label for w in (x @ np.ones((3, 2))).create_graph()[1]] == [""]
    zero = Tensor(np.zeros((1, 1, 1)))
    loss = pygrad.BCELoss()(zero, Tensor(np.ones((1, 1, 1)), learnable=False))
    assert float(loss.value) == 100.0
    deep = x = Tensor(1.0)
    for _ in range(1500):
        deep = deep + 0.0
    deep.backward()
    assert float(x.grad) == 1.0
    assert np.isfinite(Tensor(np.ones((3, 1))).std(axis=1).value).all()


def test_tensors_have_what_the_page_lists() -> None:
    x = Tensor([2], label="two", dtype=np.float32)
    assert (x.shape, x.label, x.dtype, x.learnable, x.leaf, x._prev) == (
        (1,),
        "two",
        np.float32,
        True,
        False,
        (),
    )
    assert repr(x) == "Tensor(name=two, shape=(1,), dtype=float32)"
    assert repr(Tensor(1)) == "Tensor(value=1.0, shape=(), dtype=float64)"
    x.grad = [3.0]
    x.new_value([1.0, 2.0])
    assert x.grad.tolist() == [0.0, 0.0]
    x.new_value([5, 6])
    assert x.value.tolist() == [5.0, 6.0]
    constant = pygrad.array([1.0, 2.0])
    y = x * constant
    y.backward()
    assert y.create_graph()[0] == [x, y]
    assert constant.grad.tolist() == [0.0, 0.0]
    x.requires_grad = False
    assert not x.learnable
    assert pygrad.PRECISION is np.float64
    pygrad.set_default_dtype("float32")
    try:
        assert Tensor(1).dtype is np.float32
    finally:
        pygrad.set_default_dtype(np.float64)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda: Tensor(1, dtype=np.int64), "a tensor holds floats"),
        (lambda: Tensor("one"), "Tensor holds real numbers, got str"),
        (lambda: Tensor(1 + 2j), "holds real numbers, got complex"),
        (lambda: Tensor(1, learnable=1), "learnable and leaf are bools"),  # type: ignore[arg-type]
        (lambda: setattr(Tensor([1.0], "w"), "value", 1.0), r"w.value has shape \(1,\), got \(\)"),
        (lambda: Tensor(np.ones((10, 20, 30))) @ np.ones((1, 20, 30)), "matmul"),
        (lambda: Tensor(1.0).T, "T exchanges the last two axes"),
        (lambda: Tensor(np.ones(3)).conv2D(np.ones((1, 1, 5, 5))), "a kernel \\[O, C, kH, kW\\]"),
        (lambda: pygrad.Linear(0, 3), "Linear: i_dim is a whole number of at least 1"),
        (lambda: pygrad.Linear(2, 3)(Tensor(np.ones((1, 2)))), r"x is \[B, n, 2\], got \(1, 2\)"),
        (lambda: pygrad.Dropout(2), "rate is from 0 to 1"),
        (lambda: pygrad.AddNorm()(Tensor([1.0]), Tensor(1.0)), "x and skip have one shape"),
        (lambda: pygrad.BCELoss()(Tensor([1.0]), Tensor([1.0])), "pred and target have one shape"),
        (lambda: pygrad.SGD([1.0]), "SGD needs the weights"),  # type: ignore[list-item]
    ],
)
def test_refusals(fn: Any, message: str) -> None:
    with pytest.raises(EinkornError, match=message):
        fn()


# -- layers, models, optimizers --------------------------------------------------------------------


class Network(pygrad.Module):
    def __init__(self) -> None:
        self.layers = [pygrad.Linear(4, 5), pygrad.Linear(5, 2, bias=False, label="out")]
        self.relu = pygrad.ReLU()
        super().__init__(x=Tensor(np.ones((1, 1, 4)), leaf=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[1](self.relu(self.layers[0](x)))


def batch(k: int, size: int) -> Tensor:
    return Tensor(np.random.default_rng(k).normal(size=(size, 1, 4)), leaf=True)


def test_a_model_has_the_gradient_of_each_example() -> None:
    ek.random.seed(1)
    model = Network()
    assert [w.label for w in model.weights] == ["W_Linear", "b_Linear", "W_out"]
    with pytest.raises(EinkornError, match="there was none"):
        model.copy  # noqa: B018
    x = batch(0, 3)
    out = model(x)
    assert model.layers[0].tensor is not None
    ((out - 1.0) ** 2).mean(axis=None, keepdims=False).backward()
    weight = model.layers[0].W
    whole = np.array(weight.grad)
    seen = model.copy.layers[0].W
    assert seen.shape == seen.value.shape == seen.grad.shape == (3, 4, 5)
    np.testing.assert_allclose(seen.grad.sum(axis=0, keepdims=True), whole, rtol=1e-12)
    single = seen.grad
    assert [w.shape for w in model.model_copy.weights] == [(3, 4, 5), (3, 1, 5), (3, 5, 2)]
    for k in range(3):
        out = model(x=Tensor(x.value[k : k + 1], leaf=True))
        ((out - 1.0) ** 2 * (1 / 6)).backward()
        np.testing.assert_allclose(weight.grad[0], single[k], rtol=1e-12)
    model.model_reset()
    assert not weight.grad.any()
    assert model.call_slow(x=x).shape == (3, 1, 2)
    assert weight.shape == (1, 4, 5)
    with pytest.raises(EinkornError, match="the input x is a weight"):
        model(x=Tensor(np.ones((1, 1, 4))))


def test_a_convolutional_model() -> None:
    layer = pygrad.Conv2D(3, 2, 2, 3, label="c")
    images = np.random.default_rng(0).normal(size=(4, 2, 5, 6))
    out = layer(Tensor(images, leaf=True))
    assert out.shape == (4, 3, 4, 4)
    expected = (images[1, :, 2:4, 1:4] * layer.kw.value[0, 2]).sum() + layer.kb.value[0, 2, 0, 0]
    np.testing.assert_allclose(out.value[1, 2, 2, 1], expected, rtol=1e-12)
    assert [w.label for w in layer.parameters()] == ["ConvW_c", "ConvB_c"]
    assert repr(pygrad.Conv2D(1, 1, 2, 2, bias=False)) == (
        "Conv2D(name=Conv2D, ConvW_Conv2D (1, 1, 1, 2, 2))"
    )


def formula(kind: str, w: Any, g: Any, s: dict[str, Any], t: int) -> Any:
    if kind == "SGD":
        return w - 0.1 * g
    s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g
    if kind == "SGD_Momentum":
        return w - 0.1 * s["m"]
    beta = 0.999 if kind == "Adam" else 0.9
    s["v"] = beta * s.get("v", 0.0) + (1 - beta) * g * g
    if kind == "RMSProp":
        return w - 0.1 * g / (np.sqrt(s["v"]) + 1e-8)
    m, v = s["m"] / (1 - 0.9**t), s["v"] / (1 - beta**t)
    return w - 0.1 * m / (np.sqrt(v) + 1e-8)


@pytest.mark.parametrize("kind", ["SGD", "SGD_Momentum", "RMSProp", "Adam"])
def test_optimizers_step_at_once_and_one_by_one(kind: str) -> None:
    xs = np.random.default_rng(0).normal(size=(5, 4))
    w, single = Tensor(np.ones(()), "w"), Tensor(np.ones(()), "w")
    made = getattr(pygrad, kind)
    one, two = made([w], lr=0.1), made([single], lr=0.1)
    expected, state = np.ones(()), {}
    for t, row in enumerate(xs, 1):
        one.zero_grad()
        loss = ((w * row - 1.0) ** 2).mean(axis=None, keepdims=False)
        loss.backward()
        one.step(loss) if t % 2 else one.step()
        for x in row:
            part = (single * x - 1.0) ** 2
            part.backward()
            two.step_single(part, 4)
        two.step_single(None, 4, modify=True)
        grad = (2 * row * (expected * row - 1.0)).mean()
        expected = formula(kind, expected, grad, state, t)
        np.testing.assert_allclose([w.value, single.value], [expected] * 2, rtol=1e-10)
    assert one.iter_num == two.iter_num == 5
    for name in ("zero_momentums", "zero_vs", "zero_adam"):
        if hasattr(type(one), name):
            getattr(one, name)()
            state = one.state_dict()
            assert not any(state[key].any() for key in state if key.startswith(("m.", "v.")))
    with pytest.raises(EinkornError, match="the loss has no gradients yet"):
        one.step(w * 2.0)
    with pytest.raises(EinkornError, match=r"call loss\.backward"):
        one.step(3.0)
    w.new_value([1.0, 2.0])
    with pytest.raises(EinkornError, match="w was given another shape"):
        one.step()


def test_batches_are_averaged_twice_on_request() -> None:
    results = []
    for compat in (False, True):
        ek.random.seed(2)
        model = Network()
        before = np.array(model.weights[0].value)
        optimizer = pygrad.SGD(model.weights, lr=0.1, pygrad_compat=compat)
        loss = (model(x=batch(0, 4)) ** 2).mean(axis=None, keepdims=False)
        loss.backward()
        optimizer.step(loss)
        results.append(np.array(model.weights[0].value) - before)
    np.testing.assert_allclose(results[0], 4 * results[1], rtol=1e-6)
    optimizer = pygrad.SGD_Momentum([Tensor(1.0)], beta=0.5)
    optimizer.beta = 0.25
    assert optimizer.momentum == optimizer.beta == 0.25
    other = pygrad.RMSProp([Tensor(1.0)])
    other.beta = 0.5
    assert other.alpha == other.beta == 0.5


def test_a_training_step_compiles_with_the_same_bits() -> None:
    results = []
    for compiled in (False, True):
        ek.random.seed(3)
        model = Network()
        optimizer = pygrad.Adam(model.weights, lr=0.01)

        def step(x: Any) -> Any:
            optimizer.zero_grad()  # noqa: B023
            out = model.forward(Tensor(x, leaf=True))  # noqa: B023
            loss = ((out - 1.0) ** 2).mean(axis=None, keepdims=False)
            loss.backward()
            optimizer.step(loss)  # noqa: B023
            return loss.value

        run_step = ek.compile(step) if compiled else step
        losses = [np.asarray(run_step(batch(k, 4).value)).tobytes() for k in range(4)]
        state = [w.value.tobytes() + w.grad.tobytes() for w in model.weights]
        results.append((losses, state))
    assert results[0] == results[1]


def test_a_model_trains_compiled_as_the_page_trains_it() -> None:
    results = []
    for compiled in (False, True):
        ek.random.seed(4)
        model = Network()
        optimizer = pygrad.SGD(model.weights, lr=0.05)

        def step(x: Any) -> Any:
            x = Tensor(x, leaf=True)
            model.model_reset()  # noqa: B023
            optimizer.zero_grad()  # noqa: B023
            loss = ((model(x=x) - 1.0) ** 2).sum(axis=-1).mean(axis=0, keepdims=False)  # noqa: B023
            loss.backward()
            optimizer.step(loss)  # noqa: B023
            return loss.value

        run_step = ek.compile(step) if compiled else step
        sizes = (4, 4, 2, 4, 4, 4, 4, 4)
        losses = [np.asarray(run_step(batch(k, size).value)) for k, size in enumerate(sizes)]
        results.append([x.tobytes() for x in losses] + [w.value.tobytes() for w in model.weights])
        assert np.isfinite(losses).all()
    assert results[0] == results[1]
    with pytest.raises(EinkornError, match="while step was being traced"):
        model.copy.layers[0].W.grad  # noqa: B018
    assert model(x=batch(0, 3)).shape == (3, 1, 2)


def test_the_step_of_pygrad_is_smaller_by_the_size_of_the_batch() -> None:
    def last_loss(**settings: Any) -> float:
        ek.random.seed(0)
        rng = np.random.default_rng(0)
        layers = [pygrad.Flatten(), pygrad.Linear(784, 100), pygrad.ReLU(), pygrad.Linear(100, 10)]

        class Dense(pygrad.Module):
            def __init__(self) -> None:
                super().__init__(x=Tensor(np.ones((1, 1, 28, 28)), leaf=True))

            def forward(self, x: Tensor) -> Tensor:
                for layer in layers:
                    x = layer(x)
                return x

        model = Dense()
        optimizer = pygrad.SGD(model.weights, **settings)
        for _ in range(25):
            model.model_reset()
            out = model(x=Tensor(rng.uniform(0, 1, (4, 28, 28)), leaf=True))
            loss = ((out - 1.0) ** 2).sum(axis=-1).mean(axis=0, keepdims=False)
            loss.backward()
            optimizer.step(loss)
        return loss.value.item()

    assert last_loss(lr=0.1, pygrad_compat=True) == pytest.approx(last_loss(lr=0.025), rel=1e-9)
    assert last_loss(lr=0.025) < 2.0  # the page's lr=0.1 is for steps that are divided once more
