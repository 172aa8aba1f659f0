"""The dialect `elegy`: the snippets of its page on modules, and what they must give."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compile_checks import assert_same_nest, traces

import einkorn as ek
from einkorn.dialects import elegy
from einkorn.dialects.elegy import jax
from einkorn.dialects.elegy.jax import numpy as jnp
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError

PAGE = Path(__file__).parents[2] / "shared/seeds/elegy_module_system.md"
IMPORTS = (
    "import numpy as np\nfrom einkorn.dialects import elegy\n"
    "from einkorn.dialects.elegy import jax\nfrom einkorn.dialects.elegy.jax import numpy as jnp\n"
)
OBJECT_STYLE, FUNCTIONAL, SWAPPED, DECLARED, REFERENCES, LOOP = 0, 1, 4, 5, 6, 7
X = np.linspace(-1, 1, 12).reshape(4, 3)


def blocks() -> list[str]:
    """The code of each snippet, without typos."""
    if not PAGE.exists():
        pytest.skip("the page is not beside the repository")
    found = re.findall(r"```python.*?\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    in_init = "[x.shape[-1], self.n_out]"  # there are neither in __init__
    found[OBJECT_STYLE] = found[OBJECT_STYLE].replace(in_init, "[n_in, n_out]")
    return [code.replace("elegy.nn.Linear(48, [3, 3])", "elegy.nn.Linear(48)") for code in found]


def run(codes: dict[int, str], names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run snippets one after the other; gives their names."""
    known: dict[str, Any] = {} if names is None else names
    exec(IMPORTS, known)
    for k, code in codes.items():
        exec(compile(code, f"snippet_{k}.py", "exec"), known)
    return known


def page(*numbers: int) -> dict[str, Any]:
    found = blocks()
    return run({k: found[k] for k in numbers})


def bits_of(module: Any) -> list[bytes]:
    return [leaf.numpy().tobytes() for leaf in module.parameters()]


# -- the page --------------------------------------------------------------------------------------


def test_every_snippet_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    ek.random.seed(0)
    np.random.seed(0)  # the page draws from NumPy
    names: dict[str, Any] = {}
    found = blocks()
    assert len(found) == 12
    for k, code in enumerate(found[:-1]):
        run({k: code}, names)
        if k == OBJECT_STYLE:
            model = names["MLP"](3)
            assert model(X).shape == (4, 1)
            chains = [f"linear{n}/{leaf}" for n in (1, 2, 3) for leaf in ("w", "b")]
            assert model.get_parameters().key_chains() == chains
            assert model.linear2.w.shape == (64, 32)
        if k == REFERENCES:
            assert names["y_pred"].shape == (15, 1)
            assert list(names["mlp"].submodules) == ["linear", "linear_1", "linear_2"]
            assert names["mlp"].linear_1.w.shape == (64, 32)
    steps = [line.split(" ", 1) for line in capsys.readouterr().out.splitlines()]
    assert [int(step) for step, _ in steps] == [*range(1000), *range(1000)]
    losses = [float(re.findall(r"Tensor\((.*), dtype=float32\)", text)[0]) for _, text in steps]
    assert losses[-1] <= losses[999] < losses[0]
    assert traces(names["update_jit"]) == 1


def test_the_loop_of_the_page_gives_the_same_bits_eagerly(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = blocks()
    codes = {FUNCTIONAL: found[FUNCTIONAL], LOOP: found[LOOP].replace("range(1000)", "range(30)")}
    results = []
    for eager in (True, False):
        ek.random.seed(1)
        np.random.seed(1)
        with ek.settings(compile=not eager):
            names = run(codes)
        results.append((bits_of(names["mlp"]), capsys.readouterr().out))
        assert traces(names["update_jit"]) == (0 if eager else 1)  # the MLP was never called before
    assert results[0] == results[1]
    assert len(results[0][1].splitlines()) == 30


def layer_of(code: str) -> Any:
    """A module whose `call` is that of a snippet."""
    return type("Swapped", (elegy.Module,), {"call": run({0: code})["call"]})()


def test_modules_in_another_order_are_refused_with_both_lines() -> None:
    found = blocks()
    model = layer_of(found[SWAPPED])
    model(np.ones((6, 8, 8, 3)))
    message = (
        r"forward made Conv2D\(32, \[3, 3\]\) at snippet_0.py:3 before, and now makes Linear\(48\) "
        r"at snippet_0.py:6"
    )
    with pytest.raises(elegy.ModuleOrderError, match=message):
        model(np.ones((5, 8, 8, 3)))
    for size in (6, 5):
        assert layer_of(found[DECLARED])(np.ones((size, 8, 8, 3))).shape[-1] == 48 - 16 * (size < 6)
    model = layer_of(found[DECLARED])
    model(np.ones((6, 8, 8, 3)))
    with pytest.raises(ShapeError, match=r"swapped/linear: Linear\(32, 48\) takes 32 features"):
        model(np.ones((5, 8, 8, 3)))


def test_a_list_in_the_place_of_with_bias_is_refused() -> None:
    with pytest.raises(EinkornError, match=r"Linear: with_bias is True or False, got \[3, 3\]"):
        elegy.nn.Linear(48, [3, 3])  # type: ignore[arg-type]


# -- modules ---------------------------------------------------------------------------------------


class Norm(elegy.Module):
    """Counts its calls and keeps a mean, both as parameters that do not train."""

    def call(self, x: Any) -> Any:
        scale = self.add_parameter("scale", [x.shape[-1]], initializer=jnp.ones)
        mean = self.add_parameter("mean", [x.shape[-1]], trainable=False)
        self.update_parameter("mean", 0.5 * mean + 0.5 * x.mean(axis=0))
        return elegy.nn.Linear(2, name="out")(scale * (x - self.mean))


class Net(elegy.Module):
    def call(self, x: Any) -> Any:
        x = jax.nn.relu(elegy.nn.Linear(5)(x))
        return Norm()(elegy.nn.Dropout(0.2)(x))


def test_names_of_modules_and_parameters() -> None:
    net = Net(name="whole")
    assert (net.name, Norm().name, elegy.nn.Conv2D(3, 2).name) == ("whole", "norm", "conv2d")
    net(X)
    assert list(net.submodules) == ["linear", "norm", "dropout"]
    assert list(net.norm.submodules) == ["out"]
    trained = ["linear/w", "linear/b", "norm/scale", "norm/out/w", "norm/out/b"]
    assert net.get_parameters(trainable=True).key_chains() == trained
    assert net.get_parameters(trainable=False).key_chains() == ["norm/mean"]
    assert set(net.get_parameters().key_chains()) == {*trained, "norm/mean"}
    assert (net.parameters_size(), net.states_size()) == (20 + 5 + 5 + 12, 5)
    assert (net.parameters_bytes(), net.states_bytes()) == (42 * 4, 20)
    assert net.norm.parameters_size(include_submodules=False) == 10
    assert net.norm.mean.numpy().any()


def test_init_makes_everything_and_changes_nothing() -> None:
    ek.random.seed(2)
    net, other = Net(), Net()
    assert not net.initialized
    net.init(X)
    assert net.initialized
    assert net.norm.initialized
    assert not net.norm.mean.numpy().any()
    ek.random.seed(2)
    other.init_jit(X)
    assert bits_of(net) == bits_of(other)
    ek.random.seed(3)
    a = net(X)
    ek.random.seed(3)
    assert_same_nest(other.jit(X), a)
    assert other.jit is other.jit
    twin = copy.deepcopy(other)
    assert twin.jit is not other.jit
    assert bits_of(twin) == bits_of(net)


def test_parameters_are_set_by_name() -> None:
    net = Net()
    net(X)
    values = ek.tree_map(lambda x: x * 0.0 + 1.0, net.get_parameters())
    net.set_parameters(values)
    assert all((leaf.numpy() == 1.0).all() for leaf in net.parameters())
    net.set_parameters({"norm": {"mean": np.full(5, 2.0)}})
    assert net.norm.mean.tolist() == [2.0] * 5
    with pytest.raises(ShapeError):
        net.set_parameters({"norm": {"scale": np.zeros(5), "mean": np.zeros(4)}})
    assert net.norm.scale.tolist() == [1.0] * 5
    with pytest.raises(EinkornError, match="absent"):
        net.set_parameters({"norm": {"absent": np.zeros(4)}})
    with pytest.raises(EinkornError, match="'norm' is not one parameter"):
        net.set_parameters({"norm": np.zeros(4)})


def test_a_part_that_does_not_train() -> None:
    net = Net()
    net.trainable = False
    net(X)
    assert net.get_parameters(trainable=True).key_chains() == []
    net.norm.trainable = True
    assert net.get_parameters(True).key_chains() == ["norm/scale", "norm/out/w", "norm/out/b"]
    assert not net.trainable
    assert net.norm.out.trainable
    step = elegy.jit(lambda x: elegy.value_and_grad(lambda x: net(x).sum(), modules=net)(x)[1])
    assert step(X).key_chains() == ["norm/scale", "norm/out/w", "norm/out/b"]
    net.trainable = True
    assert "norm/mean" not in step(X).key_chains()
    assert "linear/w" in step(X).key_chains()


def test_parameters_in_init_and_values_as_initializers() -> None:
    class Plain(elegy.Module):
        def __init__(self, size: int) -> None:  # without super().__init__()
            self.w = self.add_parameter("w", [size], initializer=np.arange(3.0))

        def call(self, x: Any) -> Any:
            return x * self.w + self.add_parameter("b", dtype="float64")

    model = Plain(7)
    assert model(np.float32(1)).tolist() == [0.0, 1.0, 2.0]
    assert model.name == "plain"
    assert (str(model.w.dtype), str(model.b.dtype)) == ("float32", "float64")
    with pytest.raises(EinkornError, match="Empty has no call method: define"):
        type("Empty", (elegy.Module,), {})()(X)


def test_functions_as_modules() -> None:
    @elegy.to_module
    def two_layers(x: Any, size: int = 4) -> Any:
        return elegy.nn.Linear(2)(elegy.nn.Linear(size)(x))

    model, other = two_layers(), two_layers(name="mine")
    assert model(X, size=3).shape == (4, 2)
    assert model.linear_1.w.shape == (3, 3)
    assert (model.name, other.name) == ("two_layers", "mine")
    pair = elegy.nn.Sequential(lambda: [two_layers(), jax.nn.relu, two_layers(name="last")])
    pair(X)
    assert list(pair.submodules) == ["two_layers", "last"]
    with pytest.raises(EinkornError, match="Sequential takes a function that makes the layers"):
        elegy.nn.Sequential([elegy.nn.Linear(2)])  # type: ignore[arg-type]


# -- transforms ------------------------------------------------------------------------------------


def test_gradients_by_lists_of_modules_and_chosen_parameters() -> None:
    ek.random.seed(4)
    first, second = elegy.nn.Linear(4), elegy.nn.Linear(1)

    def loss_fn(x: Any) -> Any:
        y = second(jax.nn.relu(first(x)))
        return jnp.mean(y**2), {"y": y}

    (loss, found), grads = elegy.value_and_grad(loss_fn, modules=[first, second])(X)
    assert [g.key_chains() for g in grads] == [["w", "b"], ["w", "b"]]
    assert found["y"].shape == (4, 1)
    (again, _), weights = elegy.value_and_grad(
        loss_fn,
        modules=[first, second],
        parameters_fn=lambda modules: [
            m.get_parameters().filter(lambda x: x.ndim > 1) for m in modules
        ],
    )(X)
    assert again.item() == loss.item()
    assert [g.key_chains() for g in weights] == [["w"], ["w"]]
    np.testing.assert_array_equal(weights[0].w.numpy(), grads[0].w.numpy())
    total = elegy.nn.Sequential(lambda: [elegy.nn.Linear(1), jnp.sum])
    out, own = elegy.value_and_grad(total)(X)
    assert out.shape == ()
    np.testing.assert_allclose(own.linear.w.numpy(), [X.sum(axis=0)], atol=1e-6)
    late = [elegy.nn.Linear(2), elegy.nn.Linear(1)]  # which have no parameters yet
    gradients = elegy.value_and_grad(
        lambda x: late[1](late[0](x)).sum(),
        modules=late,
        parameters_fn=lambda modules: [modules[1].get_parameters()],
    )
    assert [g.key_chains() for g in gradients(X)[1]] == [["w", "b"]]
    with pytest.raises(EinkornError, match="needs modules="):
        elegy.value_and_grad(lambda x: x)
    with pytest.raises(EinkornError, match="modules is a Module or a list of them, got 3"):
        elegy.jit(loss_fn, modules=3)


def test_static_arguments_of_jit() -> None:
    net = elegy.nn.Linear(2)

    def repeated(x: Any, count: int) -> Any:
        for _ in range(count):
            x = x + net(x).sum()
        return x

    step = elegy.jit(repeated, modules=[net], static_argnums=1)
    for count in (1, 2, 1):
        np.testing.assert_array_equal(
            step(X, count).numpy(), repeated(np.float32(X), count).numpy()
        )
    assert traces(step) == 2
    with pytest.raises(EinkornError, match=r"static_argnums 2 is not among .*repeated\(x, count\)"):
        elegy.jit(repeated, static_argnums=(2,))


def test_arrays_of_64_bits_come_in_as_those_of_32() -> None:
    net = elegy.nn.Linear(2)
    assert str(net(X).dtype) == "float32"
    assert str(elegy.jit(lambda x, y: x + y)(X, {"a": (X,)}["a"][0]).dtype) == "float32"
    assert str(elegy.jit(lambda nest: nest["a"][0] * 2)({"a": [X]}).dtype) == "float32"
    assert str(jnp.square(X).dtype) == str(jnp.asarray(np.float64(2)).dtype) == "float32"
    with pytest.raises(DTypeError, match="cast the input"):
        net(ek.asarray(X))  # whoever makes a tensor of float64 wants it


# -- what stands beside Elegy ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3,), (3,)),
        ((4, 3), (3,)),
        ((4, 3), (3, 2)),
        ((), (3,)),
        ((2, 4, 3), (5, 3, 2)),
        ((2, 3), (5, 3, 2)),
        ((2, 4, 3), (3,)),
    ],
)
def test_dot_is_that_of_numpy(a: Any, b: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=size).astype("float32") for size in (a, b))
    np.testing.assert_allclose(np.asarray(jnp.dot(x, y)), np.dot(x, y), rtol=1e-5, atol=1e-6)


def test_names_of_numpy_and_jax() -> None:
    assert jnp.zeros([2, 3], "int32").dtype == ek.int32
    assert jnp.full((2,), 3, "float64").tolist() == [3.0, 3.0]
    assert jnp.array([1, 2], jnp.float32).dtype == ek.float32
    assert jnp.transpose(np.ones((2, 3, 4))).shape == (4, 3, 2)
    assert jnp.concatenate([X, X]).shape == (8, 3)
    assert jnp.dot is jnp.dot
    assert jnp.zeros is jnp.zeros
    with pytest.raises(TypeError):
        jnp.zeros((2,), "float32", 3)
    for place, name in ((jnp, "no_such"), (jax.nn, "no_such"), (jax.nn, "Linear"), (elegy, "nope")):
        assert not hasattr(place, name)
    assert jax.nn.swish(X).dtype == ek.float32
    assert jax.tree_multimap(lambda a, b: a + b, {"x": [1]}, {"x": [2]}) == {"x": [3]}
    value, grads = jax.value_and_grad(lambda x, y: (x * y).sum(), argnums=(0, 1))(X, X)
    np.testing.assert_array_equal(
        grads[0].numpy(), jax.grad(lambda x: (x * x).sum() / 2)(X).numpy()
    )
    assert value.item() > 0


def test_keys_come_from_one_stream_and_are_never_repeated() -> None:
    def draws() -> Any:
        key = elegy.next_rng_key()
        one, two = jax.random.split(key)
        return [
            jax.random.uniform(key, (3,), minval=-1.0, maxval=1.0),
            jax.random.uniform(one, (3,)),
            jax.random.normal(two, (3,)),
            jax.random.truncated_normal(one, -1.0, 1.0, (3,)),
            jax.random.bernoulli(two, 0.5, (40,)),
            jax.random.randint(one, (40,), 0, 9),
            jax.random.categorical(two, np.zeros((40, 7))),
            jax.random.permutation(one, 20),
            jax.random.uniform(jax.random.PRNGKey(3), (3,)),
        ]

    ek.random.seed(5)
    eager = [draws() for _ in range(2)]
    ek.random.seed(5)
    compiled = elegy.jit(draws)
    assert_same_nest([compiled(), compiled()], eager)
    last = eager[0].pop().numpy(), eager[1].pop().numpy()
    np.testing.assert_array_equal(*last)
    seen = [x.numpy().tobytes() for x in (*eager[0], *eager[1])]
    assert len(set(seen)) == len(seen)
