"""What can be seen of a compiled step: Python text, networkx, kernels, cost, memory, dumps."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from random import Random
from typing import Any, get_args

import numpy as np
import pytest
from op_samples import SAMPLES, Sample
from random_graphs import random_arrays, random_graph
from same_bits import assert_same_bits
from test_readme import ROOT, block, run

import einkorn as ek
from einkorn.ir import loops
from einkorn.ir.dtypes import bfloat16, float32
from einkorn.ir.errors import BoundsError, IRError
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, constant, make, make_call, placeholder, project
from einkorn.ir.ops import CONTROL, OPS, Op
from einkorn.ir.python import CONTROL_FORMS, FORMS, FUNCTIONS
from einkorn.ir.types import TensorType
from einkorn.ir.work import WORK, work_of
from einkorn.lowered import Lowered
from einkorn.passes.pipeline import stage_names
from einkorn.passes.tables import amount, duration
from einkorn.runtime.compiler import compile_graph
from einkorn.runtime.eager import run_arrays
from einkorn.runtime.evaluate import evaluate

Array = np.ndarray[Any, Any]
X = np.linspace(-1, 1, 64 * 8, dtype=np.float32).reshape(64, 8)
Y = np.zeros((64, 3), np.float32)
BEFORE_FUSION = stage_names()[1 : stage_names().index("fuse")]


def run_python(graph: Graph, arrays: list[Array]) -> tuple[list[Array], dict[str, Array]]:
    """The outputs and updates that the Python text of a graph gives."""
    space: dict[str, Any] = {}
    exec(graph.to_python(), space)
    function = [value for name, value in space.items() if name.startswith(graph.name)][-1]
    outputs, updates = function(*arrays)
    return [x.numpy() for x in outputs], {name: x.numpy() for name, x in updates.items()}


def training_step() -> tuple[Any, list[Any]]:
    """A compiled step, and the leaves that it assigns."""
    w = ek.Parameter(np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8), name="w")
    b = ek.Parameter(np.zeros(3, np.float32), name="layer.b")

    @ek.compile
    def train_step(x: Any, y: Any, lr: Any) -> Any:
        def loss_of() -> Any:
            return ek.nn.mse_loss(ek.tanh(x @ w.T + b), y)

        loss, grads = ek.value_and_grad(loss_of, [w, b])()
        for leaf, grad in zip((w, b), grads):
            leaf.value = leaf - lr * grad
        return loss

    return train_step, [w, b]


@pytest.fixture(scope="module")
def low() -> Lowered:
    return training_step()[0].lower(X, Y, 0.1)


# -- Python text -----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_python_text_of_random_graphs_has_their_bits(first: int) -> None:
    for seed in range(first, first + 100):
        rng = Random(seed)
        graph = random_graph(rng, rng.randint(1, 30))
        arrays = random_arrays(rng, graph)
        try:
            want = evaluate(graph.results, dict(zip(graph.params, arrays)))
        except BoundsError:
            with pytest.raises(BoundsError):
                run_python(graph, arrays)
            continue
        outputs, updates = run_python(graph, arrays)
        for x, y in zip([*outputs, *updates.values()], want, strict=True):
            assert_same_bits(x, y, f"seed {seed}\n{graph}\n{graph.to_python()}")


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_python_text_of_each_op_has_its_bits(sample: Sample) -> None:
    for dtype in sample.dtypes:
        arrays = sample.arrays(dtype)
        node, inputs = sample.build(arrays)
        graph = Graph("one", tuple(inputs), (), (node,))
        want = run_arrays(compile_graph(graph), arrays, [node.tensor], "one")[0]
        assert_same_bits(run_python(graph, arrays)[0][0], want, graph.to_python())


def test_every_op_has_python_text_or_is_a_region() -> None:
    assert set(FUNCTIONS).isdisjoint(FORMS)
    others = {Op.INPUT, Op.SIZE, Op.CALLBACK, Op.CALL, Op.GRAD, *CONTROL}
    assert {*FUNCTIONS, *FORMS} == set(OPS) - others
    assert CONTROL_FORMS.keys() == CONTROL


@pytest.mark.parametrize("stage", BEFORE_FUSION)
def test_python_text_of_each_stage_of_a_step_has_the_bits_of_the_step(stage: str) -> None:
    step, leaves = training_step()
    graph = step.lower(X, Y, 0.1).stages[stage]
    before = [leaf.numpy().copy() for leaf in leaves]
    loss = step(X, Y, 0.1)
    (output,), updates = run_python(graph, [X, Y, np.float64(0.1), *before])
    assert_same_bits(output, loss.numpy())
    for name, leaf in zip(("w", "b"), leaves, strict=True):
        assert_same_bits(updates[name], leaf.numpy())


def test_python_text_shows_the_lines_of_the_user() -> None:
    graph = ek.trace(lambda x: ek.exp(x))(X)
    here = Path(__file__).name
    assert graph.to_python().splitlines() == [
        "import einkorn as ek",
        "",
        "",
        "def compiled(x):",
        "    x = ek.asarray(x, dtype=ek.float32)  # [64,8]",
        f"    t0 = ek.exp(x)  # {here}:{graph.origins[graph.outputs[0]].line}",
        "    return (t0,), {}",
    ]


@pytest.mark.parametrize("name", ["lambda", "ek", "np", "t0", "_", "1", "f", "inner", "été", ""])
def test_any_name_becomes_one_that_python_accepts(name: str) -> None:
    a, b = (placeholder(TensorType(float32, (2,))) for _ in range(2))
    called = Graph("f", (a,), (), (make(Op.NEG, a),), names={a: name})
    call = project(make_call(called, [b]), 0)
    graph = Graph("f", (b,), (), (make(Op.ADD, b, call),), ((b, call),), names={b: name})
    (output,), updates = run_python(graph, [np.ones(2, np.float32)])
    assert output.tolist() == [0, 0]
    assert [x.tolist() for x in updates.values()] == [[-1, -1]]


@pytest.mark.parametrize("bits", [0x8000, 0x7FC1, 0x7F80, 0xFF80, 0x3F80, 0x0001])
def test_constants_keep_their_bits(bits: int) -> None:
    node = make(Op.CONST, bits=bits, dtype=bfloat16)
    (output,), _ = run_python(Graph("c", (), (), (node,)), [])
    assert int(output.view(np.uint16)) == bits


def test_a_grad_has_no_python_text(low: Lowered) -> None:
    with pytest.raises(IRError, match="expand-autodiff"):
        low.graph.to_python()


def test_an_unbound_input_is_an_error() -> None:
    x = placeholder(TensorType(float32, ()))
    with pytest.raises(IRError, match="neither"):
        Graph("f", (), (), (make(Op.NEG, x),)).to_python()


# -- networkx --------------------------------------------------------------------------------------


def test_networkx_holds_nodes_edges_and_results(low: Lowered) -> None:
    graph = low.stages["dce"]
    found = graph.to_networkx()
    assert set(found) == {*graph.params, *graph.nodes}
    assert found.number_of_edges() == sum(len(node.inputs) for node in graph.nodes)
    dot = next(node for node in graph.nodes if node.op is Op.DOT)
    assert found.nodes[dot]["op"] == "dot"
    assert Path(__file__).name in found.nodes[dot]["origin"]
    assert found.nodes[graph.captures[1]]["name"] == "layer.b"
    edges = found.get_edge_data(dot.inputs[1], dot)
    assert [data["position"] for data in edges.values()] == [1]
    assert found.graph["outputs"] == graph.outputs
    assert found.graph["updates"] == graph.updates


# -- stages and code -------------------------------------------------------------------------------


def test_stages_print_and_differ(low: Lowered) -> None:
    assert tuple(low.stages) == stage_names()
    assert str(low) == low.ir() == low.ir("trace") == str(low.graph)
    assert low.diff("dce", "dce") == ""
    assert re.search(r"^-.* = grad\(", low.diff("trace", "expand-autodiff"), re.M)
    for name in low.stages:
        assert low.ir(name) == str(low.stages[name])
    with pytest.raises(ek.EinkornError, match=r"no stage 'fusion'.*trace.*plan-memory"):
        low.ir("fusion")


def test_llvm_text_and_assembly_say_what_each_kernel_computes(low: Lowered) -> None:
    for text, mark in ((low.llvm_ir(), ";"), (low.asm(), "#")):
        heads = re.findall(rf"^{mark} kernel (\d+), (\w+), of these instructions:$", text, re.M)
        wanted = [(str(k), type(kernel).__name__) for k, kernel in enumerate(low.kernels)]
        assert heads == wanted
        labels = re.findall(rf"^{mark}   (\d+): (.*)$", text, re.M)
        rows = low.program.instructions
        assert sorted(labels, key=lambda row: int(row[0])) == [
            (str(k), row.label) for k, row in enumerate(rows) if row.kernel is not None
        ]
        assert re.search(rf"^{mark}   \d+: .*\btanh\b.*  {Path(__file__).name}:\d+$", text, re.M)
    assert low.llvm_ir().count("define void @kernel(") == len(low.kernels)
    assert len(re.findall(r"^kernel:", low.asm(), re.M)) == len(low.kernels)


def test_sources_by_target(low: Lowered) -> None:
    assert low.source("llvm") == low.llvm_ir()
    assert low.source("reference") == low.stages["dce"].to_python()
    with pytest.raises(ek.EinkornError, match=r"'metal'.*llvm.*reference"):
        low.source("metal")


def test_the_reference_backend_lowers_too() -> None:
    low = ek.compile(lambda x: x * 2, backend="reference").lower(X)
    assert "define" in low.llvm_ir()
    assert "ek.multiply" in low.source("reference")


# -- cost ------------------------------------------------------------------------------------------


def cost_of(fn: Any, *args: Any) -> Any:
    return ek.compile(fn).lower(*args).cost


@pytest.mark.parametrize(
    ("fn", "args", "flops", "nbytes"),
    [
        (lambda x: x + x, (X,), 512, 4 * 1024),
        (lambda x: ek.exp(x) * 2 - 1, (X,), 3 * 512, 4 * 1024),
        (lambda x: ek.sum(x), (X,), 512, 4 * 512 + 4),
        (lambda x: ek.sum(x, axis=0), (X,), 512, 4 * 512 + 4 * 8),
        (lambda x: ek.nn.softmax(x), (X,), 5 * 512, 4 * 1024),
        (lambda x: ek.cumulative_sum(x, axis=1), (X,), 512, 4 * 1024),
        (lambda x: ek.argmax(x, axis=1), (X,), 512, 4 * 512 + 8 * 64),
        (lambda x, i: ek.take(x, i, axis=0), (X, np.array([1, 2])), 0, 2 * 2 * 32 + 16),
        (lambda x: x @ x.T, (X[:3],), 2 * 3 * 3 * 8, 4 * (2 * 24 + 9)),
    ],
)  # fmt: skip
def test_operations_and_bytes_of_one_op(fn: Any, args: Any, flops: int, nbytes: int) -> None:
    cost = cost_of(fn, *args)
    assert (cost.flops, cost.bytes) == (flops, nbytes)
    assert cost.intensity == flops / nbytes


def test_operations_of_a_packed_product() -> None:
    a, b = np.zeros((50, 70), np.float32), np.zeros((70, 90), np.float32)
    cost = cost_of(lambda a, b: a @ b, a, b)
    assert cost.flops == 2 * 50 * 70 * 90
    # Panels are written and read again; they may be wider than the matrices.
    assert cost.bytes >= 4 * (50 * 70 + 70 * 90 + 50 * 90)


def test_cost_has_a_row_for_each_instruction(low: Lowered) -> None:
    cost = low.cost
    rows = low.program.instructions
    assert [row.number for row in cost.rows] == list(range(len(rows)))
    assert [row.nanoseconds for row in cost.rows] == [row.cost for row in rows]
    assert sum(row.share for row in cost.rows) == pytest.approx(1)
    assert cost.flops == sum(row.flops for row in cost.rows) >= 2 * 2 * 64 * 3 * 8
    lines = str(cost).splitlines()
    assert len(lines) == 2 + len(rows)
    assert lines[0].startswith("cost of train_step: ")
    assert any(f"{Path(__file__).name}:" in line for line in lines)


def test_a_commit_point_costs_nothing() -> None:
    w = ek.Parameter(np.zeros((5, 2), np.float32), name="w")

    def step(i: Any) -> None:
        w.value = w - ek.take(w, i, axis=0).sum()

    cost = cost_of(step, np.array([1, 2]))
    (commit,) = [row for row in cost.rows if row.kernel == "commit"]
    assert (commit.flops, commit.bytes, commit.intensity) == (0, 0, 0.0)


def test_an_empty_step_has_a_cost() -> None:
    cost = cost_of(lambda x: x, np.zeros((0,), np.float32))
    assert (cost.rows, cost.flops, cost.bytes, cost.intensity) == ((), 0, 0, 0.0)
    assert "0 FLOPs" in str(cost)


def test_the_work_of_every_kernel_is_known() -> None:
    classes = {loops.LoopKernel, loops.HostCall, *get_args(loops.Template)}
    assert set(WORK) == classes, "ir/work.py has one row for each kernel class of ir/loops.py"


def test_repeated_elements_are_read_once() -> None:
    bias = np.zeros(8, np.float32)
    assert cost_of(lambda x, b: x + b, X, bias).bytes == 4 * (512 + 8 + 512)
    epilogue = loops.Epilogue((), (), ((loops.Access(float32, "unit"), 0),))
    kernel = loops.SkinnyDot(float32, float32, 2, 16, "k", False, epilogue)
    shared = work_of(kernel, (1, 5, 3, 10, 0, 0, 10, 1, 0, 30, 10, 1, 0, 6, 3, 1))
    assert shared.read == 4 * 10 * (2 + 5 * 3)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00k"), (999_499, "999k"), (123_456_789, "123M")],
)
def test_amounts_have_three_digits(number: int, text: str) -> None:
    assert amount(number) == text


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(15.2, "15 ns"), (1500, "1.50 us"), (2.5e6, "2.50 ms"), (3e9, "3.00 s")],
)
def test_durations_have_a_unit(nanoseconds: float, text: str) -> None:
    assert duration(nanoseconds) == text


# -- memory ----------------------------------------------------------------------------------------


def plans() -> list[Any]:
    """Memory reports of a step and of random graphs."""
    reports = [training_step()[0].lower(X, Y, 0.1).memory]
    for seed in range(40):
        graph = random_graph(Random(seed), 30)
        reports.append(Lowered(graph, "llvm").memory)
    return reports


def test_temporaries_that_are_needed_together_lie_apart() -> None:
    for report in plans():
        rows = report.temporaries
        for k, a in enumerate(rows):
            assert a.offset >= 0
            assert a.offset + a.nbytes <= report.arena_bytes
            for number, b in enumerate(rows[:k]):
                together = a.first <= b.last and b.first <= a.last
                meet = a.offset < b.offset + b.nbytes and b.offset < a.offset + a.nbytes
                assert not (together and meet and a.nbytes) or a.over == number, str(report)


def test_the_peak_is_between_the_largest_temporary_and_the_arena() -> None:
    for report in plans():
        largest = max((row.nbytes for row in report.temporaries), default=0)
        assert largest <= report.peak_bytes <= report.arena_bytes
        assert (report.peak_at is None) == (report.peak_bytes == 0)


def test_memory_prints_every_temporary_and_update(low: Lowered) -> None:
    memory = low.memory
    assert memory.arena_bytes == low.program.arena_bytes
    text = str(memory)
    assert text.startswith("memory of train_step: arena ")
    assert [(row.name, row.nbytes, row.in_place) for row in memory.updates] == [
        ("w", 96, True),
        ("layer.b", 12, True),
    ]
    assert text.count("in place") == 2
    assert memory.spare_bytes == 0
    for k, row in enumerate(memory.temporaries):
        assert re.search(rf"^ *t{k} +{row.offset} .*{row.first}\.\.{row.last} ", text, re.M)


def test_memory_says_why_an_update_is_not_in_place() -> None:
    w = ek.Parameter(np.zeros((5, 5), np.float32), name="w")

    @ek.compile
    def turned(x: Any) -> None:
        w.value = w.T + x

    memory = turned.lower(np.float32(1)).memory
    (update,) = memory.updates
    assert not update.in_place
    assert "reads other elements" in update.reason
    assert memory.spare_bytes == 100
    assert update.reason in str(memory)


def test_memory_names_an_update_that_comes_before_the_commit_point() -> None:
    w = ek.Parameter(np.zeros((5, 5), np.float32), name="w")

    @ek.compile
    def looked_up(x: Any, i: Any) -> Any:
        w.value = w + x
        return ek.take(w, i, axis=0)

    (update,) = looked_up.lower(np.float32(1), np.array([0, 1])).memory.updates
    assert not update.in_place
    assert "commit point" in update.reason


# -- explain ---------------------------------------------------------------------------------------


def test_explain_tells_why_how_often_and_what_it_cost() -> None:
    step, _ = training_step()
    for rows in (64, 64, 32):
        step(X[:rows], Y[:rows], 0.1)
    text = str(step.explain())
    assert text.startswith("train_step: 2 traces\n")
    assert re.search(r"because: first call \(\d+ nodes, called 2 times\)", text)
    assert re.search(r"because: new kinds of arguments: .*f32\[32,8\].*called 1 times", text)
    assert len(re.findall(r"made in: [\d.]+ ms of tracing, [\d.]+ ms of compiling", text)) == 2
    program = step.lower(X, Y, 0.1).program
    assert (
        f"program: {len(program.instructions)} instructions of {len(program.kernels)} kernels, "
        f"an arena of {program.arena_bytes} bytes" in text
    )


def test_explain_of_the_reference_has_no_program() -> None:
    step = ek.compile(lambda x: x + 1, backend="reference")
    step(X)
    assert "made in" in str(step.explain())
    assert "program:" not in str(step.explain())


# -- settings --------------------------------------------------------------------------------------


def test_a_dump_holds_every_stage_and_report(tmp_path: Path) -> None:
    step, _ = training_step()
    with ek.settings(dump=str(tmp_path / "new" / "folder")):
        low = step.lower(X, Y, 0.1)
        texts = {name: low.ir(name) for name in low.stages}
    texts |= {"kernels": low.llvm_ir(), "memory": str(low.memory), "cost": str(low.cost)}
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert [re.sub(r"^\d+-", "", path.name) for path in files] == [
        f"train_step-{k:02d}-{name}.{'ll' if name == 'kernels' else 'txt'}"
        for k, name in enumerate(texts)
    ]
    for path, text in zip(files, texts.values(), strict=True):
        assert path.read_text(encoding="utf-8") == f"{text}\n"


@pytest.mark.parametrize("name", ["simplify", "plan-memory", "kernels", "cost"])
def test_a_dump_of_one_stage(tmp_path: Path, name: str) -> None:
    with ek.settings(dump=str(tmp_path), dump_after=name):
        assert training_step()[0].lower(X, Y, 0.1).stages
    (path,) = tmp_path.iterdir()
    assert f"-{name}." in path.name


def test_one_stage_without_a_folder_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with ek.settings(dump_after="dce"):
        low = training_step()[0].lower(X, Y, 0.1)
        text = low.ir("dce")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(rf"# \d+-train_step, dce\n{re.escape(text)}\n", printed.err)


def test_a_dump_of_an_unknown_stage_names_those_there_are(tmp_path: Path) -> None:
    with ek.settings(dump=str(tmp_path), dump_after="fusing"):
        with pytest.raises(ek.EinkornError, match=r"EINKORN_DUMP_AFTER='fusing'.*simplify.*cost"):
            assert training_step()[0].lower(X, Y, 0.1).stages
    assert not list(tmp_path.iterdir())


def test_verification_names_the_pass_behind_which_a_graph_is_broken() -> None:
    x = placeholder(TensorType(float32, (4,)))
    broken = Node(Op.NEG, (x,), (), TensorType(float32, (5,)))
    with ek.settings(verify=True), pytest.raises(IRError) as caught:
        compile_graph(Graph("broken", (x,), (), (broken, constant(float32, 1))))
    assert caught.value.__notes__[-1:] == ["after the pass trace"]


# -- the document ----------------------------------------------------------------------------------


def test_the_example_of_the_document_prints_such_tables(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "inspection.md").read_text(encoding="utf-8")
    script = tmp_path / "step.py"
    script.write_text(block(text, "example", "python"), encoding="utf-8")
    printed = [line.split() for line in run(sys.executable, script, cwd=tmp_path).splitlines()]
    for title in ("# FLOPs bytes", "offset bytes used", "bytes update written", "96 w in place"):
        (shown,) = [line for line in text.splitlines() if " ".join(line.split()).startswith(title)]
        assert shown.split() in printed
