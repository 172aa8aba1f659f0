"""`ivy.Module`: when it makes its variables, what can be asked of it, and its older helpers."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compile_checks import traces
from same_bits import assert_same_bits

import einkorn as ek
from einkorn.dialects import ivy
from einkorn.ir.errors import DTypeError, EinkornError, StateError, TraceError

X = np.linspace(-1, 1, 6, dtype="float32").reshape(2, 3)


class Affine(ivy.Module):
    """x @ w + b for a width that is known, or that of the first input."""

    def __init__(self, *args: Any, out: int = 2, **settings: Any) -> None:
        self.out = out
        self.width: int | None = None
        ivy.Module.__init__(self, *args, **settings)

    def _build(self, x: Any = 3) -> bool:
        self.width = x if isinstance(x, int) else x.shape[-1]
        return True

    def _create_variables(self, device: Any, dtype: Any = None) -> Any:
        assert device == "cpu"
        w = ivy.random_uniform(shape=(self.width, self.out), dev=device, dtype=dtype)
        return {"w": w, "b": ek.zeros(self.out, dtype=dtype)}

    def _forward(self, x: Any) -> Any:
        return x @ self.v.w + self.v.b

    def _extra_repr(self) -> str:
        return f"out={self.out}"


class Net(ivy.Module):
    """Two layers in a list and one more, the first of them a list deeper."""

    def __init__(self, **settings: Any) -> None:
        self.layers = [ivy.Sequential(Affine(out=4), ivy.Tanh()), ivy.Linear(4, 5)]
        self.last = ivy.Linear(5, 1)
        ivy.Module.__init__(self, **settings)

    def _forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return self.last(x)


def test_on_init_arguments_go_to_build() -> None:
    assert Affine(5).v.w.shape == (5, 2)
    assert Affine(x=4).v.w.shape == (4, 2)
    module = Affine(None, {"w": ek.ones((3, 2)), "b": ek.ones(2)})  # the older way: (dev, v)
    assert (module.build_mode, module.built, module.device) == ("on_init", True, "cpu")
    assert module.v.w.shape == (3, 2)
    np.testing.assert_allclose(module(X).numpy(), X.sum(1, keepdims=True) + np.ones(2), rtol=1e-6)
    assert repr(module) == "Affine(out=2)"
    with pytest.raises(EinkornError, match="are those of _build, which Net does not define; got x"):
        Net(x=3)
    with pytest.raises(EinkornError, match="Module does not define; got 3, 4"):
        ivy.Module(3, 4)


def test_explicit_means_by_build() -> None:
    module = Affine(build_mode="explicit", dtype="float64")
    assert not module.built
    with pytest.raises(StateError, match="has build_mode='explicit' and is not built; call its"):
        module(X)
    with pytest.raises(StateError, match="is not built"):
        module(X, v={"w": ek.ones((3, 2)), "b": ek.ones(2)})
    with pytest.raises(StateError, match="the parameters of Affine are asked for"):
        _ = module.v
    v = module.build(4)
    assert module.built
    assert v.w.shape == (4, 2)
    assert v.w.dtype == module.dtype == ek.float64
    w = module.v.w
    module.build(7)  # once
    assert module.v.w is w


def test_on_call_takes_width_and_dtype_from_the_first_call() -> None:
    module, other = Affine(build_mode="on_call"), Affine(build_mode="on_call")
    assert module.dtype is None
    out = module(X.astype("float64"))
    assert out.dtype == module.dtype == ek.float64
    assert other.build(X).w.shape == (3, 2)
    assert other.dtype == ek.float32

    class Outer(ivy.Module):
        def _build(self, *args: Any) -> bool:
            self.first = Affine(build_mode="on_call", out=4)
            self.second = Affine(build_mode="on_call")
            return False

        def _forward(self, x: Any) -> Any:
            return self.second(self.first(x))

    outer = Outer()
    assert not outer.built
    assert outer.build() is None
    outer(X)
    assert outer.built
    assert outer.v.key_chains() == ["first/b", "first/w", "second/b", "second/w"]
    once = Outer(build_mode="on_call")
    assert once.build(X).shapes.to_dict()["second"]["w"] == (4, 2)


def test_a_first_call_that_compiles_gives_the_bits_of_an_eager_one() -> None:
    def first(compiled: bool) -> Any:
        ek.random.seed(3)
        module = Affine(build_mode="on_call")
        run = ek.compile(lambda x: module(x)) if compiled else module
        return run(X), run(X * 2), module.v.w

    for a, b in zip(first(True), first(False)):
        assert_same_bits(a, b)


def test_a_build_that_fails_leaves_nothing_and_can_be_repeated() -> None:
    module = Affine(build_mode="on_call", v={"w": ek.ones((3, 2)), "b": ek.ones(3)})
    for call in (module, ek.compile(lambda x: module(x))):
        with pytest.raises(EinkornError, match=r"'b': leaf .*holds f32\[2\], got f32\[3\]"):
            call(X)
        assert not module.built
        assert "w" not in vars(module)
    given = Affine(build_mode="on_call", v={"w": ek.ones((3, 2)), "b": ek.ones(2)})
    assert given(X).shape == (2, 2)
    assert given.v.b.tolist() == [1.0, 1.0]


def test_variables_that_are_not_stored_come_with_each_call() -> None:
    module = Affine(build_mode="explicit", store_vars=False)
    v = module.build(3)
    assert module.v.key_chains() == []
    with pytest.raises(StateError, match="has store_vars=False: its variables come with each call"):
        module(X)
    assert_same_bits(module(X, v=v * 2), (X @ v.w * 2 + v.b * 2))
    outer = ivy.Sequential(module, ivy.Linear(2, 1))
    values = outer.v.copy()
    assert outer(X, v=values).shape == (2, 1)


def test_what_the_constructor_is_given() -> None:
    module = ivy.Linear(2, 2, v={"w": ek.eye(2), "b": ek.zeros(2)})
    assert module.v.w.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    with pytest.raises(EinkornError, match=r"Linear\(v=\.\.\.\): the structures differ at 'b'"):
        ivy.Linear(2, 2, v={"w": ek.eye(2)})
    with pytest.raises(EinkornError, match="'c'"):
        Affine(v={"c": ek.zeros(2)}, with_partial_v=True)

    class Counted(ivy.Module):
        def __init__(self, **settings: Any) -> None:
            self.count = ek.tensor(0.0, trainable=False)
            ivy.Module.__init__(self, **settings)

    counted = Counted(buffers={"count": 3.0, "mean": np.zeros(2, "float32")}, training=False)
    assert counted.buffers.to_dict()["count"].item() == 3.0
    assert counted.mean.shape == (2,)
    assert not counted.training
    with pytest.raises(EinkornError, match="there is no buffer 'a/b'"):
        Counted(buffers={"a/b": 1.0})
    for wrong, message in (
        ({"build_mode": "later"}, "build_mode is one of on_init, explicit, on_call, got 'later'"),
        ({"device": "gpu:0"}, "device 'gpu:0' is not available"),
        ({"dev": "gpu:0"}, "device 'gpu:0' is not available"),
    ):
        with pytest.raises(EinkornError, match=message):
            Net(**wrong)


def test_a_constructor_that_forgets_the_base_is_named() -> None:
    class Forgetful(ivy.Module):
        def __init__(self) -> None:
            self.linear = ivy.Linear(3, 1)

        def _forward(self, x: Any) -> Any:
            return self.linear(x)

    module = Forgetful()
    for run in (lambda: module(X), module.build):
        with pytest.raises(StateError, match=r"Forgetful\.__init__ did not call ivy\.Module"):
            run()


@pytest.mark.parametrize("definition", ["dev", "device", "dtype", "both", "keywords", "none"])
def test_create_variables_takes_what_it_names(definition: str) -> None:
    seen: list[Any] = []
    methods: dict[str, Any] = {
        "dev": lambda self, dev: seen.append(dev) or {},
        "device": lambda self, device: seen.append(device) or {},
        "dtype": lambda self, dtype: seen.append(str(dtype)) or {},
        "both": lambda self, dev, dtype, scale=3: seen.extend([dev, str(dtype), scale]) or {},
        "keywords": lambda self, *, device=None, dtype=None: (
            seen.extend([device, str(dtype)]) or {}
        ),
        "none": lambda self, **named: seen.extend(sorted(named)) or {},
    }
    kind = type("Kind", (ivy.Module,), {"_create_variables": methods[definition]})
    kind(dtype="float64")
    want: dict[str, list[Any]] = {
        "dev": ["cpu"],
        "device": ["cpu"],
        "dtype": ["float64"],
        "both": ["cpu", "float64", 3],
        "keywords": ["cpu", "float64"],
        "none": ["device", "dtype"],
    }
    assert seen == want[definition]


def test_registering_modes_and_devices() -> None:
    net = Net()
    net.register_parameter("scale", ek.ones(2))
    net.register_buffer("seen", ek.zeros(1))
    assert net.v.scale.trainable
    assert net.buffers.key_chains() == ["seen"]
    with pytest.raises(StateError, match="already has an attribute 'scale'"):
        net.register_parameter("scale", ek.ones(2))
    net.train(False)
    assert not net.last.training
    assert net.eval() is net
    assert net.train() is net
    assert net.to_device("cpu") is net
    with pytest.raises(DTypeError, match="to_device: device 'gpu' is not available"):
        net.to_device("gpu")
    net.extra = ivy.Linear(1, 1)
    assert "extra/w" in net.v
    del net.extra
    assert "extra/w" not in net.v


def test_states_and_modules_by_name(tmp_path: Path) -> None:
    net = Net()
    net.register_buffer("seen", ek.zeros(1))
    state = net.state_dict
    assert state.key_chains() == sorted(net.v.key_chains() + ["seen"])
    assert state.last.w is net.last.v.w
    dotted = [path.replace("/", ".") for path in net.v.key_chains()]
    assert [x.name for x in net.parameters()] == dotted
    assert list(net.state_dict()) == [*dotted, "seen"]
    assert net.module_dict.last is net.last
    assert net.module_dict.layers.v0.submodules.v1 is net.layers[0][1]
    other = Net()
    other.register_buffer("seen", ek.ones(1))
    net.save(tmp_path / "all")
    other.load(tmp_path / "all")
    assert other.v.identical(net.v)
    assert other.seen.tolist() == [0.0]
    net.save_weights(tmp_path / "new" / "weights")
    assert Net(v=ivy.Container.load(tmp_path / "new" / "weights")).v.identical(net.v)


def test_a_name_in_the_current_folder_can_be_saved_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Net().save_weights("weights")
    assert (tmp_path / "weights").exists()


def test_trace_graph_compiles_the_calls() -> None:
    net, eager = Net(), Net()
    eager.v = net.v
    net.trace_graph()
    run = vars(net)["_ek_call"]
    for scale in (1, 2, 3):
        assert_same_bits(net(X * scale), eager(X * scale))
    assert traces(run) == 1
    net.v = net.v * 0.5
    eager.v = net.v
    assert_same_bits(net(X), eager(X))
    assert_same_bits(net(X, v=net.v * 2), eager(X, v=eager.v * 2))
    net.trace_graph(args=(X,))
    assert traces(vars(net)["_ek_call"]) <= 1
    grad, want = (ek.grad(lambda m=m: (m(X) ** 2).sum(), m)() for m in (net, eager))
    assert grad.identical(want)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert_same_bits(twin(X), eager(X))


def test_a_graph_as_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    page = net.show_graph(X)
    assert "last.w" in page
    assert "marked" not in page.partition("<svg")[2]
    plain = net.show_graph(X, with_edge_labels=False, with_arg_labels=False)
    assert "last.w" not in plain
    assert "f32[" not in plain
    assert 'class="node result marked"' in net.show_graph(X, highlight_subgraph="last")
    monkeypatch.chdir(tmp_path)
    assert net.show_graph(X, save_to_disk=True) == Path("graph.html")
    assert Path("graph.html").read_text(encoding="utf-8") == page
    assert net.show_graph(X, fname=tmp_path / "net.html").exists()
    assert net.show_graph(X, notebook=True)._repr_html_().startswith("<iframe srcdoc=")


def test_with_grads_decides_whether_anything_is_recorded() -> None:
    net = Net()
    net(X, with_grads=True).sum().backward()
    assert net.last.v.w.grad is not None
    with pytest.raises(EinkornError):
        net(X, with_grads=False).sum().backward()


def test_older_helpers_about_places(capsys: pytest.CaptureFixture[str]) -> None:
    net = Net()
    affine = net.layers[0][0]
    assert affine.top_mod() is net
    assert affine.top_mod(1) is net.layers[0]
    assert affine.top_mod(0) is affine
    assert affine.top_v(1).identical(net.layers[0].v)
    assert affine.top_v(flatten_key_chains=True).identical(net.v.flatten_key_chains())
    assert [m.mod_depth() for m in (net, net.layers[0], affine)] == [0, 1, 2]
    assert [m.mod_height() for m in (net, net.layers[0], affine)] == [2, 1, 0]
    assert affine.get_mod_key() == "layers/v0/submodules/v0"
    assert affine.get_mod_key(net.layers[0]) == "submodules/v0"
    with pytest.raises(EinkornError, match="Linear is not above this module"):
        affine.get_mod_key(net.last)
    names = ["Net", "layers/v0", "submodules/v0"]
    assert affine.mod_with_top_mod_key_chain() == names
    assert affine.mod_with_top_mod_key_chain(1, flatten_key_chain=True) == (
        "Sequential__submodules/v0"
    )
    there = affine.v_with_top_v_key_chains()
    assert there.key_chains() == ["layers/v0/submodules/v0/b", "layers/v0/submodules/v0/w"]
    assert affine.v_with_top_v_key_chains(0).identical(affine.v)
    net.show_structure()
    assert capsys.readouterr().out == net.tree() + "\n"
    affine.show_mod_in_top_mod()
    marked = [line for line in capsys.readouterr().out.splitlines() if line.startswith(">")]
    assert len(marked) == 1
    assert "Affine" in marked[0]
    affine.show_v_in_top_v()
    assert "submodules" in capsys.readouterr().out
    net.show_v_in_top_v()
    assert capsys.readouterr().out.strip() == repr(net.v)


def test_sub_mods_nests_variables_by_modules() -> None:
    net = Net()
    assert net.sub_mods().last.identical(net.last.v)
    assert net.sub_mods(depth=1).layers.v0.identical(net.layers[0].v)
    assert net.sub_mods(depth=0).identical(net.v)
    assert net.sub_mods(show_v=False).to_dict() == {
        "last": "",
        "layers": {"v0": {"submodules": {"v0": "", "v1": ""}}, "v1": ""},
    }
    assert list(net.sub_mods(depth=1, flatten_key_chains=True))[:2] == ["last__b", "last__w"]


def test_returns_of_modules_inside_are_kept_and_compared() -> None:
    net = Net()
    out = net(X, track_submod_rets=True)
    order = ["layers/v0/submodules/v0", "layers/v0/submodules/v1", "layers/v0", "layers/v1", "last"]
    assert net.submod_call_order == order
    rets = net.submod_rets
    assert_same_bits(rets["last"], out)
    net(X, track_submod_rets=True, submod_depth=1)
    assert net.submod_call_order == ["layers/v0", "layers/v1", "last"]
    net(X, track_submod_call_order=True, submods_to_track=[net.last])
    assert net.submod_call_order == ["last"]
    assert_same_bits(net(X, expected_submod_rets=rets), out)
    wrong = {"layers/v1": rets["layers/v1"] + 1e-3}
    with pytest.raises(
        AssertionError, match="Net: what layers/v1 returned is not what is expected"
    ):
        net(X, expected_submod_rets=wrong)
    net(X, expected_submod_rets={"layers/v1": {"val": wrong["layers/v1"], "atol": 1e-2}})
    with pytest.raises(TraceError, match="return them: out, outputs = model"):
        ek.compile(lambda x: net(x, track_submod_rets=True))(X)
    assert net.v.key_chains() == Net().v.key_chains()  # what was kept holds no variables


def test_a_sequential_has_the_parts_of_a_list() -> None:
    net = ivy.Sequential(ivy.Linear(3, 4), ivy.ReLU(), ivy.Linear(4, 1))
    assert (len(net), net[1]) == (3, list(net)[1])
    part = net[1:]
    assert isinstance(part, ivy.Sequential)
    assert part.v.key_chains() == ["submodules/v1/b", "submodules/v1/w"]
    assert part[1] is net[2]
