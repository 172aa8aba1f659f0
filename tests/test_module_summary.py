"""What a Module shows: its summary, its tree, where it is, its graph."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits

import einkorn as ek
from einkorn import nn
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.ir.ops import Op
from einkorn.random.generator import default_generator

X = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)


class Block(nn.Module):
    def __init__(self) -> None:
        self.linear = nn.Linear(16, 16)
        self.act = nn.GELU()

    def forward(self, x: Any) -> Any:
        return self.act(self.linear(x))


class Net(nn.Module):
    """Shared and unused modules, modules made in forward, a nest of results, buffers, draws."""

    def __init__(self) -> None:
        self.conv = nn.Conv2D(3, 8, 3, padding="same")
        self.norm = nn.BatchNorm(8)
        self.block = Block()
        self.blocks = [Block(), self.block]
        self.drop = nn.Dropout(0.5)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Any) -> Any:
        x = nn.Linear(16)(ek.mean(nn.relu(self.norm(self.conv(x))), axis=(1, 2)))
        for block in (self.block, *self.blocks):
            x = block(x)
        x = self.drop(x)
        return {"logits": nn.Linear(3)(x), "rest": (x, x.sum(), "text")}


def net() -> Net:
    ek.random.seed(0)
    return Net()


def drawn() -> list[int]:
    """Where the global generator stands."""
    generator = default_generator()
    return [int(leaf) for leaf in (generator.key, generator.draw, generator.draw_apart)]


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


# -- the summary as data ---------------------------------------------------------------------------


def test_every_module_has_a_row() -> None:
    found = net().summary(X, measure=False)
    assert [(row.depth, row.path, row.layer, row.calls) for row in found.rows] == [
        (0, "", "Net", 1),
        (1, "conv", "Conv2D", 1),
        (1, "norm", "BatchNorm", 1),
        (1, "block", "Block", 2),
        (2, "block/linear", "Linear", 2),
        (2, "block/act", "GELU", 2),
        (1, "blocks/v0", "Block", 1),
        (2, "blocks/v0/linear", "Linear", 1),
        (2, "blocks/v0/act", "GELU", 1),
        (1, "blocks/v1", "Block", 0),
        (1, "drop", "Dropout", 1),
        (1, "unused", "Linear", 0),
        (1, "linear", "Linear", 1),
        (1, "linear_1", "Linear", 1),
    ]
    assert [row.path for row in found.rows if row.same_as is not None] == ["blocks/v1"]
    assert found["blocks/v1"].same_as == "block"
    assert found[""].output == ("f32[2,3]", "f32[2,16]", "f32[]")
    assert found["conv"].output == ("f32[2,8,8,8]",)
    assert found["unused"].output == ()
    assert all(row.milliseconds is None for row in found.rows)


def test_parameters_and_bytes_count_once() -> None:
    model = net()
    model.tied = model.blocks[0].linear.w
    model.scale = ek.Parameter(1.0, "float64")
    found = model.summary(X, measure=False)
    assert found.parameters == sum(leaf.size for leaf in model.parameters())
    leaves = [*model.parameters(), *model.buffers.to_flat_list()]
    assert found[""].bytes == sum(leaf.numpy().nbytes for leaf in leaves)
    assert found["norm"].bytes == 4 * 8 * 4  # with the running statistics
    assert found["norm"].parameters == 16
    children = [row for row in found.rows if row.depth == 1]
    assert sum(row.parameters for row in children) == found.parameters - 1
    assert found["blocks/v1"].parameters == found["blocks/v1"].bytes == 0
    assert all(row.trainable == row.parameters for row in found.rows)
    model.freeze("conv/*")
    model.freeze("block/linear/b")
    found = model.summary(X, measure=False)
    assert found["conv"].trainable == 0
    assert found["block"].parameters - found["block"].trainable == 16
    assert found[""].parameters - found[""].trainable == 224 + 16


def test_operations_are_those_of_the_compilers_cost_model() -> None:
    model = net().eval()
    found = model.summary(X, measure=False)
    products = 2 * 2 * 8 * 8 * 8 * 27
    assert products <= found["conv"].flops <= 1.2 * products
    linear = 2 * 2 * 16 * 16
    assert 2 * linear <= found["block/linear"].flops <= 2.5 * linear  # of both calls
    assert found["blocks/v0"].flops * 2 == found["block"].flops
    assert found["drop"].flops == 0  # in eval mode
    children = [row for row in found.rows if row.depth == 1]
    own = found.flops - sum(row.flops for row in children)
    assert 2 * 2 * 8 * 8 * 8 <= own <= 4 * 2 * 8 * 8 * 8  # relu and the mean
    whole = ek.compile(model).lower(X).cost.flops
    assert abs(found.flops - whole) < 0.1 * whole  # what is fused is a little less


def test_loops_are_counted() -> None:
    x = np.ones((2, 5, 4), np.float32)
    layer = nn.LSTM(4, 3)
    found = layer.summary(x, measure=False)
    assert found.flops > 5 * 2 * 2 * 12 * 3 + 2 * 10 * 12 * 4
    stack = nn.Sequential(layer, nn.Linear(3, 2)).summary(x, measure=False)
    assert stack["submodules/v0"].flops == found.flops
    assert 2 * 10 * 3 * 2 <= stack["submodules/v1"].flops < 2 * 2 * 10 * 3 * 2


def test_each_part_is_timed_with_the_inputs_that_it_gets() -> None:
    found = net().summary(X)
    for row in found.rows:
        known = row.milliseconds is not None
        assert known is (row.calls > 0)
        assert not known or 0 < row.milliseconds < 1000
    assert found[""].milliseconds >= 0.2 * found["conv"].milliseconds


def test_a_part_that_is_no_step_by_itself_has_no_time() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Any) -> Any:
            return (self.layer(row) for row in x)

    class Whole(nn.Module):
        def __init__(self) -> None:
            self.rows = Rows()

        def forward(self, x: Any) -> Any:
            return sum(self.rows(x))

    found = Whole().summary(np.ones((4, 3), np.float32))
    assert found["rows"].milliseconds is None
    assert found["rows/layer"].calls == 0  # the generator runs when the module has returned
    assert found[""].milliseconds > 0
    assert found.flops >= 4 * 2 * 3 * 2


def test_parts_that_are_compiled_and_branches_have_their_rows() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            self.part, self.other = Block(), nn.Linear(16, 16)
            self.run = ek.compile(self.part)

        def forward(self, x: Any) -> Any:
            return self.run(x) if x.sum() > 0 else self.other(x)

    x = np.ones((2, 16), np.float32)
    for sign, called in ((1, "part/linear"), (-1, "other")):
        found = Holder().summary(sign * x)
        assert [path for path in ("part/linear", "other") if found[path].calls] == [called]
        assert found[called].flops >= 2 * 2 * 16 * 16


def test_no_state_changes() -> None:
    class Moving(nn.Module):
        """Writes a parameter, a buffer, and draws."""

        def __init__(self) -> None:
            self.table = nn.Embedding(5, 3, max_norm=0.01)
            self.norm = nn.BatchNorm(3)
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Any) -> Any:
            ek.add_loss("size", ek.sum(self.table.w**2))
            return self.drop(self.norm(self.table(x)))

    model = Moving()
    before, draws = model.state_dict(), drawn()
    with nn.collect() as found:
        model.summary(np.array([1, 2, 2]))
    assert not found.losses
    for key, value in model.state_dict().items():
        assert_same_bits(value, before[key], key)
    assert drawn() == draws
    assert model.training
    assert all(leaf.grad is None for leaf in model.parameters())


def test_depth_and_bad_arguments() -> None:
    model = net()
    assert [row.depth for row in model.summary(X, depth=0, measure=False).rows] == [0]
    assert max(row.depth for row in model.summary(X, depth=1, measure=False).rows) == 1
    for what in (model.tree, model.sub_mods, lambda depth: model.summary(X, depth=depth)):
        for depth in (-1, 1.5, True, "1"):
            with pytest.raises(EinkornError, match="depth is a number of levels, got"):
                what(depth)
    with pytest.raises(EinkornError, match=r"no module 'blok', but block"):
        model.summary(X, measure=False)["blok"]
    with pytest.raises(ShapeError, match="net/conv"):
        model.summary(X[..., :2])
    assert [leaf.trainable for leaf in net().parameters()]


def test_a_summary_of_a_model() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            self.layer, self.drop = nn.Linear(2), nn.Dropout(0.5)

        def forward(self, a: Any, b: Any, training: bool) -> Any:
            return self.drop(self.layer(a + b)) if not training else None

    model = ek.Model(Named(), loss=nn.MSELoss())
    x = np.ones((4, 3), np.float64).astype(np.float32)
    found = model.summary((x, x), depth=1)
    assert str(found).startswith("Named: 8 parameters, 32 bytes\n")
    assert found["layer"].output == ("f32[4,2]",)
    assert found["drop"].flops == 0
    assert model.module.training
    named = model.summary({"a": x, "b": x}, measure=False)
    assert [row.path for row in named.rows] == ["", "layer", "drop"]
    assert ek.Model(net()).summary(X, measure=False)["conv"].calls == 1


# -- the summary as a table ------------------------------------------------------------------------

TABLE = """\
Net: 985 parameters (761 trained), 4.00k bytes
layer                           output        params  bytes  FLOPs  ms
──────────────────────────────────────────────────────────────────────
Net                             f32[2,3]         985  4.00k  70.6k   -
                                f32[2,16]
                                f32[]
  conv: Conv2D, frozen          f32[2,8,8,8]     224    896  56.3k   -
  norm: BatchNorm               f32[2,8,8,8]      16    128  7.28k   -
  block: Block x2               f32[2,16]        272  1.09k  2.18k   -
    linear: Linear x2           f32[2,16]        272  1.09k  2.11k   -
    act: GELU x2                f32[2,16]          -      -     64   -
  blocks/v0: Block              f32[2,16]        272  1.09k  1.09k   -
    linear: Linear              f32[2,16]        272  1.09k  1.06k   -
    act: GELU                   f32[2,16]          -      -     32   -
  blocks/v1: the same as block  -                  -      -      -   -
  drop: Dropout                 f32[2,16]          -      -     99   -
  unused: Linear                -                  6     24      -   -
  linear: Linear                f32[2,16]        144    576    544   -
  linear_1: Linear              f32[2,3]          51    204    198   -"""


def test_the_table() -> None:
    model = net().freeze("conv/*")
    found = model.summary(X, measure=False)
    lines, wanted = str(found).splitlines(), TABLE.splitlines()
    assert [line.split()[:3] for line in lines] == [line.split()[:3] for line in wanted]
    numbers = [[x for x in line.split() if "k" not in x] for line in lines]
    assert numbers == [[x for x in line.split() if "k" not in x] for line in wanted]
    assert repr(found) == str(found)


def test_the_table_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Transformer(64, 4, 2, 2)
    x = np.ones((2, 6, 64), np.float32)
    found = model.summary(x, x)
    for columns in (40, 80, 100, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        text = str(found)
        assert max(map(len, text.splitlines())) <= max(columns, 80)
        assert "…" not in text
        for row in found.rows:
            if row.parameters:
                assert f"{row.parameters:,}" in text
        assert "MultiHeadAttention" in text
    deep: Any = nn.TransformerEncoderBlock(64, 4)
    for _ in range(5):
        deep = nn.Sequential(deep)
    monkeypatch.setenv("COLUMNS", "80")
    lines = str(deep.summary(x)).splitlines()
    place = next(k for k, line in enumerate(lines) if line.split()[0] == "attention:")
    assert lines[place + 1].strip() == "MultiHeadAttention"
    assert lines[place].split()[1] == "f32[2,6,64]"
    assert max(map(len, lines)) <= 80


def test_rich_prints_it() -> None:
    from rich.console import Console

    console = Console(width=80, record=True, color_system=None)
    with console.capture() as capture:
        console.print(nn.Linear(3, 2).summary(np.ones((1, 3), np.float32), measure=False))
    assert capture.get().splitlines()[-1].split() == ["Linear", "f32[1,2]", "8", "32", "14", "-"]


def test_names_that_look_like_markup() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            self.parts = {"[bold]": nn.Linear(2, 2), "[red": nn.ReLU()}

        def forward(self, x: Any) -> Any:
            for part in self.parts.values():
                x = part(x)
            return x

    text = str(Odd().summary(np.ones((1, 2), np.float32), measure=False))
    assert "  [bold]: Linear" in text
    assert "  [red: ReLU" in text


# -- the tree, and where a module is ---------------------------------------------------------------


def test_the_tree() -> None:
    model = net()
    assert model.tree().splitlines() == [
        "Net()  790",
        "├─ conv: Conv2D(3, 8, (3, 3), padding='same')  224",
        "├─ norm: BatchNorm(8)  16",
        "├─ block: Block()  272",
        "│  ├─ linear: Linear(16, 16)  272",
        "│  └─ act: GELU()  0",
        "├─ blocks/v0: Block()  272",
        "│  ├─ linear: Linear(16, 16)  272",
        "│  └─ act: GELU()  0",
        "├─ blocks/v1: Block, the same as block",
        "├─ drop: Dropout(0.5)  0",
        "└─ unused: Linear(2, 2)  6",
    ]
    assert model.tree(depth=0) == "Net()  790"
    assert len(model.tree(depth=1).splitlines()) == 8
    marked = model.tree(mark=model.blocks[0]).splitlines()
    assert [line[0] for line in marked] == [" "] * 6 + [">"] * 3 + [" "] * 3


def test_places() -> None:
    model = net()
    inner = model.blocks[0].linear
    assert (inner.path, inner.parent, inner.root) == ("blocks/v0/linear", model.blocks[0], model)
    assert (model.path, model.parent, model.root) == ("", None, model)
    assert model.block.parent is model
    assert list(model.sub_mods(depth=1)) == [
        "conv", "norm", "block", "blocks/v0", "drop", "unused"
    ]  # fmt: skip
    assert model.sub_mods()["blocks/v0/act"] is model.blocks[0].act
    assert [path for path, _ in model.named_modules()] == ["", *model.sub_mods()][:1] + [
        "conv", "norm", "block", "block/linear", "block/act",
        "blocks/v0", "blocks/v0/linear", "blocks/v0/act", "drop", "unused",
    ]  # fmt: skip
    assert len(model.modules()) == 11
    taken = model.blocks.pop(0)
    assert taken.parent is None
    assert taken.linear.path == "linear"
    outer = nn.Sequential(model)
    assert model.block.linear.path == "submodules/v0/block/linear"
    assert outer.tree(depth=1).splitlines()[1].startswith("└─ submodules/v0: Net()")


def test_a_users_own_parent_and_path_win() -> None:
    class Node(nn.Module):
        def __init__(self) -> None:
            self.parent, self.path, self.tree = "mother", "/tmp", 3

        def forward(self, x: Any) -> Any:
            return x

    node = Node()
    assert (node.parent, node.path, node.tree) == ("mother", "/tmp", 3)
    assert nn.Sequential(node).tree().splitlines()[1] == "└─ submodules/v0: Node()  0"


def test_the_graph_of_a_call() -> None:
    model = net()
    before = model.state_dict()
    graph = model.graph(X)
    assert len(before) < len(model.state_dict())  # modules of forward were made
    assert any(node.op is Op.DOT for node in graph.nodes)
    assert {origin.module.partition("/")[2] for origin in graph.origins.values()} >= {
        "conv", "norm", "block/linear", "blocks/v0/act", "drop", "linear_1"
    }  # fmt: skip
    for key, value in before.items():
        assert_same_bits(model.state_dict()[key], value)


# -- copies and dtypes -----------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_have_state_of_their_own(copied: Any) -> None:
    model = net().eval()
    out = model(X)["logits"]
    model.freeze("conv/*")
    twin = copied(model)
    assert twin.block is twin.blocks[1]
    assert_same_bits(twin(X)["logits"], out)
    assert not twin.training
    assert not twin.conv.w.trainable
    twin.v = twin.v * 0.0
    assert_same_bits(model(X)["logits"], out)
    assert not np.asarray(twin(X)["logits"]).any()
    assert twin.block.linear.path == "block/linear"
    assert twin.block.linear.root is twin


def test_another_dtype_keeps_names_sharing_and_what_is_frozen() -> None:
    model = net().eval()
    out = np.asarray(model(X)["logits"])
    model.freeze("conv/*")
    model.again = model.conv.w
    assert model.to("float64") is model
    assert {str(leaf.dtype) for leaf in model.parameters()} == {"float64"}
    assert model.again is model.conv.w
    assert model.block is model.blocks[1]
    assert not model.conv.w.trainable
    assert model.norm.w.trainable
    wide = model(X.astype(np.float64))["logits"]
    np.testing.assert_allclose(np.asarray(wide), out, rtol=1e-4, atol=1e-5)
    run = ek.compile(lambda x: model(x)["logits"])
    assert_same_bits(run(X.astype(np.float64)), wide)
    model.to("float32")
    assert_same_bits(run(X), out)
    assert_same_bits(model(X)["logits"], out)
