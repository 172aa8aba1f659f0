"""The dialect `ivy`: the snippets of Ivy's page on its stateful API, and what they must give."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits

import einkorn as ek
from einkorn.dialects import ivy
from einkorn.ir.errors import EinkornError

PAGE = Path(__file__).parents[2] / "shared/seeds/ivy_stateful_api.rst"
IMPORTS = (
    "from einkorn.dialects import ivy\nfrom einkorn.dialects.ivy import GlorotUniform, Zeros\n"
)


def blocks() -> list[tuple[str, str]]:
    """The code of each snippet, and what the page says it prints."""
    if not PAGE.exists():
        pytest.skip("the page is not beside the repository")
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", text)
    pairs: list[tuple[str, str]] = []
    for body in map(textwrap.dedent, found):
        code, brace, printed = body.partition("\n{\n")
        pairs.append((code, (brace.lstrip("\n") + printed).strip()))
    return pairs


def shape_of(text: str) -> str:
    """A printed form without its numbers."""
    return re.sub(r"-?\d+\.\d*(e[-+]\d+)?", "N", text.strip())


def test_every_snippet_of_the_page_runs_and_prints_what_it_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ek.random.seed(0)
    names: dict[str, Any] = {}
    exec(IMPORTS, names)
    found = blocks()
    assert len(found) >= 17
    assert sum(bool(printed) for _, printed in found) >= 8
    for code, printed in found:
        if "model(" in code:  # the page never says which model; the last one has its sizes
            names["model"] = names["fc"]
            names["fc"].v = names["fc"].v * 0.1  # positive draws would saturate the sigmoid
            before = np.asarray(names["fc"](ivy.array([1.0, 2.0, 3.0]))).item()
        exec(code, names)
        assert shape_of(capsys.readouterr().out) == shape_of(printed)
        if "model(" in code:
            after = np.asarray(names["fc"](ivy.array([1.0, 2.0, 3.0]))).item()
            assert after < before  # the target is 0
    assert type(names["grads"]) is ivy.Container
    written, ours = names["Adam"](0.01), ivy.Adam(0.01)
    v, grads = names["fc"].v.copy(), names["grads"]
    for _ in range(3):
        v_written, v = written.step(v, grads), ours.step(v, grads)
        assert v_written.identical(v)
    assert written.state.mw.identical(ours.state.mw)
    compiled, v_compiled = names["Adam"](0.01), names["fc"].v.copy()
    step = ek.compile(compiled.step)
    for _ in range(3):
        v_compiled = step(v_compiled, grads)
    assert v_compiled.identical(v)
    assert compiled.state.mw.identical(ours.state.mw)


class Shared(ivy.Module):
    def __init__(self, **settings: Any) -> None:
        self.linear0 = ivy.Linear(3, 4)
        self.linear3 = ivy.Linear(4, 1)
        self.linear = [self.linear0, ivy.Linear(4, 4)]
        ivy.Module.__init__(self, **settings)

    def _forward(self, x: Any) -> Any:
        for layer in self.linear:
            x = layer(x)
        return self.linear3(x)


def test_a_shared_layer_counts_once_under_its_first_key_chain() -> None:
    net = Shared()
    chains = ["linear/v0/b", "linear/v0/w", "linear/v1/b", "linear/v1/w", "linear3/b", "linear3/w"]
    assert net.v.key_chains() == chains
    assert net.v.linear0.w is net.v.linear.v0.w
    x = ivy.array([1.0, 2.0, 3.0])
    loss, grads = ivy.execute_with_gradients(lambda v: ivy.reduce_mean(net(x, v=v))[0], net.v)
    assert grads.key_chains() == chains
    assert loss.shape == ()
    net.v = net.v - grads * 0.1
    assert net.linear0.v.w is net.v.linear.v0.w  # written through


def test_the_first_step_of_adam_is_the_listing() -> None:
    v, grads = ivy.Container(w=ivy.array([1.0, 1.0])), ivy.Container(w=ivy.array([0.5, -2.0]))
    adam = ivy.Adam(0.1)
    moved = (v - adam.step(v, grads)).w.numpy()
    np.testing.assert_allclose(moved, [0.0316228, -0.0316228], rtol=1e-4)
    assert adam.state.count == 1
    again = ivy.Adam(0.1)
    again.set_state(adam.state)
    assert again.step(v, grads).identical(adam.step(v, grads))


def test_optimizers_take_functions_and_partial_gradients() -> None:
    v = ivy.Container(a=ivy.array([1.0]), b=ivy.array([1.0]))
    sgd = ivy.SGD(lambda: 0.5)
    assert sgd.step(v, v.at_key_chains("b"), ignore_missing=True).b.tolist() == [0.5]
    with pytest.raises(EinkornError, match="structures differ at 'a'"):
        sgd.step(v, v.at_key_chains("b"))
    with pytest.raises(EinkornError, match="lr is a number, a schedule or a tensor"):
        ivy.Adam("fast")


def test_variables_can_be_given() -> None:
    values = Shared().v.copy()
    assert Shared(v=values).v.identical(values)
    part = values.at_key_chains("linear3")
    assert Shared(v=part, with_partial_v=True).v.linear3.identical(values.linear3)
    with pytest.raises(EinkornError, match="structures differ"):
        Shared(v=part)


def test_a_dict_of_variables_and_a_name_taken_twice() -> None:
    class Net(ivy.Module):
        def __init__(self, taken: bool) -> None:
            if taken:
                self.w = 3
            ivy.Module.__init__(self)

        def _create_variables(self, device: Any, dtype: Any) -> Any:
            return {"w": {"z": ek.ones(1, dtype=dtype), "a": ek.zeros(2)}}

    assert Net(False).v.key_chains() == ["w/a", "w/z"]
    with pytest.raises(EinkornError, match="'w' is also the name of an attribute"):
        Net(True)


def test_compiled_steps_give_the_bits_of_eager_ones() -> None:
    def train(compiled: bool) -> ivy.Container:
        ek.random.seed(3)
        net, x = Shared(), ivy.array([1.0, 2.0, 3.0])

        def step() -> Any:
            loss, grads = ivy.execute_with_gradients(
                lambda v: ivy.reduce_mean(net(x, v=v) ** 2)[0], net.v
            )
            net.v = net.v - grads * 0.01
            return loss

        run = ek.compile(step) if compiled else step
        for _ in range(3):
            run()
        return net.v.copy()

    assert train(True).identical(train(False))


class Reader(ivy.Module):
    """Layers with statistics and with masks, one of them made for the first input."""

    def _build(self) -> None:
        self.parts = {
            "conv": ivy.Conv2D(1, 3, [3, 3], 1, "SAME"),
            "norm": ivy.BatchNorm2D(3),
            "drop": ivy.Dropout(0.3),
        }
        self.last = ek.nn.Linear(4)

    def _forward(self, x: Any) -> Any:
        for part in self.parts.values():
            x = part(x)
        return ivy.softmax(self.last(ivy.reshape(ivy.relu(x), (x.shape[0], -1))))


def test_masks_statistics_and_first_calls_have_the_same_bits_too() -> None:
    x = np.random.default_rng(1).normal(size=(6, 5, 5, 1)).astype("float32")

    def train(compiled: bool) -> tuple[Any, ...]:
        ek.random.seed(3)
        net, optimizer = Reader(build_mode="on_call"), ivy.LAMB(0.01)
        net.build(x)

        def step(x: Any) -> Any:
            loss, grads = ivy.execute_with_gradients(
                lambda v: ivy.sparse_cross_entropy([0, 1, 2, 3, 0, 1], net(x, v=v)).mean(), net.v
            )
            net.v = optimizer.step(net.v, grads)
            return loss

        run = ek.compile(step) if compiled else step
        losses = [float(run(x)) for _ in range(4)]
        return losses, net.v.copy(), net.buffers.copy(), optimizer.state

    (losses, *state), (others, *other_state) = train(True), train(False)
    assert losses == others
    for a, b in zip(state, other_state, strict=True):
        assert a.identical(b)
    assert state[1].key_chains() == ["parts/norm/running_mean", "parts/norm/running_var"]


def test_old_reductions_keep_one_axis() -> None:
    x = ivy.array([[1.0, 2.0], [3.0, 4.0]])
    assert ivy.reduce_mean(x).tolist() == [2.5]
    assert ivy.reduce_sum(x, 0).tolist() == [4.0, 6.0]
    assert ivy.mean(x).shape == ()
    assert not hasattr(ivy, "no_such_name")


def test_initializers_are_those_of_einkorn_with_names_of_ivy() -> None:
    ek.random.seed(2)
    limits = {
        ivy.GlorotUniform(): (6 / 20) ** 0.5,
        ivy.FirstLayerSiren(): 1 / 5,
        ivy.Siren(w0=10): (6 / 5) ** 0.5 / 10,
        ivy.Uniform(3, "fan_avg", 2, 0.5): 0.5 * (3 / 10) ** 2,
    }
    for initializer, limit in limits.items():
        values = initializer.create_variables((400, 30), "cpu", 15, 5).numpy()
        assert 0.99 * limit < np.abs(values).max() < limit
        assert abs(values.mean()) < 0.02 * limit
    normal = ivy.KaimingNormal(mean=1.0, fan_mode="fan_out")
    values = normal.create_variables((300, 300), None, 8, 5, 1.0, "float64").numpy()
    assert values.dtype == np.float64
    np.testing.assert_allclose([values.mean(), values.std()], [1.0, 8**-0.5], rtol=0.02)
    seeded = ivy.RandomNormal(2.0, 0.5, seed=3)
    first, second = (seeded.create_variables((300, 300), device="cpu") for _ in range(2))
    assert_same_bits(first, second)
    np.testing.assert_allclose([first.numpy().mean(), first.numpy().std()], [2, 0.5], rtol=0.02)
    assert ivy.Ones().create_variables([2], fan_in=None).tolist() == [1.0, 1.0]
    # fans that are not given are those of the shape, as for the layers of einkorn
    assert np.abs(ivy.GlorotUniform()((30, 70)).numpy()).max() <= (6 / 100) ** 0.5
    assert ek.nn.Linear(2, 2, weight_initializer=ivy.Ones()).w.tolist() == [[1.0] * 2] * 2
    for wrong in (lambda: ivy.Uniform(1, "fan_all", 1, 1), lambda: ivy.KaimingNormal(0, "fan_all")):
        with pytest.raises(EinkornError, match="fan_in"):
            wrong()
    with pytest.raises(EinkornError, match="device 'gpu' is not available"):
        ivy.Zeros().create_variables((2,), "gpu")


class Halves(ivy.Initializer):
    def create_variables(self, var_shape: Any, dev: Any, *fans: Any, **more: Any) -> Any:
        return ek.full(var_shape, 0.5)


def test_an_initializer_of_ones_own_fills_layers() -> None:
    assert ivy.Linear(2, 1, weight_initializer=Halves()).v.w.tolist() == [[0.5, 0.5]]
    assert ek.nn.Linear(2, 1, weight_initializer=Halves()).w.tolist() == [[0.5, 0.5]]
