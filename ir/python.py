"""Python text of a graph: the same values from calls of einkorn's public functions.

    import einkorn as ek


    def step(x, w):
        x = ek.asarray(x, dtype=ek.float32)  # [4]
        w = ek.asarray(w, dtype=ek.float32)  # [4]
        t0 = ek.multiply(x, w)  # train.py:7
        return (t0,), {"w": t0}

A function takes the inputs, then the captures, and returns the outputs and the new value of each
parameter that is updated. One line stands for one node, so what it computes has the bits of the
graph. Graphs that are called stand before their callers. A `grad` has no such line: its meaning is
the ops that the stage "expand-autodiff" puts in its place.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from einkorn.ir.dtypes import DType
from einkorn.ir.errors import IRError
from einkorn.ir.node import Node
from einkorn.ir.ops import CONTROL, Op
from einkorn.ir.text import const_text, graph_names, unique_name

if TYPE_CHECKING:
    from einkorn.ir.graph import Graph

Names = Sequence[str]

MSG_GRAD = (
    "{name} has a grad, which has no Python text: it stands for the ops that autodiff puts in its "
    'place. Take a later stage: step.lower(...).stages["expand-autodiff"].to_python()'
)
_RESERVED = (*keyword.kwlist, "ek", "np", "_")
_WIDTH = 100
_LITERALS = {"inf": "ek.inf", "-inf": "-ek.inf", "nan": "ek.nan", "true": "True", "false": "False"}


def print_python(graph: Graph) -> str:
    """A module with one function for `graph`, after those of the graphs that it calls."""
    regions = graph.regions
    names = graph_names(graph, regions, taken=_RESERVED)
    body = [row for region in regions for row in ("", "", *_function(region, names))]
    uses_numpy = any("np." in row.partition("  #")[0] for row in body)
    imports = ["import numpy as np", "", "import einkorn as ek"] if uses_numpy else _IMPORTS
    return "\n".join([*imports, *body, ""])


_IMPORTS = ["import einkorn as ek"]


def _function(graph: Graph, graphs: Mapping[Graph, str]) -> list[str]:
    """The lines of one function."""
    taken = {name: 0 for name in (*_RESERVED, *graphs.values())}
    params = [unique_name(graph.name_of(node), taken, "x") for node in graph.params]
    rows = [_parameter(node, name) for node, name in zip(graph.params, params)]
    names = dict(zip(graph.params, params))
    for number, node in enumerate(node for node in graph.nodes if node not in names):
        names[node] = unique_name(f"t{number}", taken, "t")
        origin = graph.origins.get(node)
        comment = f"  # {origin}" if origin else ""
        rows.append(f"    {_statement(graph, node, names, graphs)}{comment}")
    outputs = _tuple([names[node] for node in graph.outputs])
    updates = ", ".join(f'"{names[leaf]}": {names[value]}' for leaf, value in graph.updates)
    return [*_header(graphs[graph], params), *rows, f"    return {outputs}, {{{updates}}}"]


def _header(name: str, params: Names) -> list[str]:
    line = f"def {name}({', '.join(params)}):"
    if len(line) <= _WIDTH:
        return [line]
    return [f"def {name}(", *(f"    {param}," for param in params), "):"]


def _parameter(node: Node, name: str) -> str:
    sizes = ",".join(map(str, node.shape))
    return f"    {name} = ek.asarray({name}, dtype={_dtype(node.dtype)})  # [{sizes}]"


def _statement(
    graph: Graph, node: Node, names: Mapping[Node, str], graphs: Mapping[Graph, str]
) -> str:
    """The line that computes one node."""
    operands = [names[x] for x in node.inputs]
    if node.op is Op.CALL:
        return f"{names[node]}, _ = {graphs[node.attr('graph')]}({', '.join(operands)})"
    if node.op in CONTROL:
        return f"{names[node]} = {CONTROL_FORMS[node.op](node, operands, graphs)}"
    if node.op is Op.GRAD:
        raise IRError(MSG_GRAD.format(name=graph.name))
    if node.op is Op.INPUT:
        raise IRError(f"{node!r} is neither an input nor a capture of {graph.name}")
    if node.op in FUNCTIONS:
        return f"{names[node]} = ek.{FUNCTIONS[node.op]}({', '.join(operands)})"
    return f"{names[node]} = {FORMS[node.op](node, operands)}"


def _tuple(items: Names) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def _dtype(dtype: DType) -> str:
    return f"ek.{dtype.name}"


# -- expressions of one node each ------------------------------------------------------------------


def _const(node: Node, _: Names) -> str:
    """`ek.asarray(0.5, dtype=ek.float32)`; a NaN of unusual bits by its bits."""
    dtype = node.dtype
    text = const_text(dtype, node.attr("bits"))
    if dtype.is_complex:
        raw = node.attr("bits").to_bytes(dtype.itemsize, "little").hex()
        value = f'np.frombuffer(bytes.fromhex("{raw}"), "{dtype.name}")[0]'
        return f"ek.asarray({value})"
    if text.startswith("0x"):
        return f'ek.asarray(np.array({text}, "uint{dtype.bits}").view({_dtype(dtype)}.numpy))'
    if dtype.is_float and text.lstrip("-").isdigit():
        text += ".0"  # -0 is an integer in Python
    return f"ek.asarray({_LITERALS.get(text, text)}, dtype={_dtype(dtype)})"


def _iota(node: Node, _: Names) -> str:
    return f"ek.astype(ek.arange({node.attr('size')}), {_dtype(node.dtype)})"


def _random_bits(node: Node, x: Names) -> str:
    return f"ek.random.bits({node.shape}, key=({x[0]}, {x[1]}))"


def _cast(node: Node, x: Names) -> str:
    return f"ek.astype({x[0]}, {_dtype(node.dtype)})"


def _integer_pow(node: Node, x: Names) -> str:
    return f"ek.pow({x[0]}, {node.attr('exponent')})"


def _polygamma(node: Node, x: Names) -> str:
    return f"ek.special.polygamma({node.attr('order')}, {x[0]})"


def _same(_: Node, x: Names) -> str:
    return x[0]


def _reshape(node: Node, x: Names) -> str:
    return f"ek.reshape({x[0]}, {node.shape})"


def _broadcast(node: Node, x: Names) -> str:
    return f"ek.broadcast_to({x[0]}, {node.shape})"


def _transpose(node: Node, x: Names) -> str:
    return f"ek.permute_dims({x[0]}, {node.attr('axes')})"


def _slice(node: Node, x: Names) -> str:
    rows = zip(*(node.attr(name) for name in ("starts", "stops", "steps")), node.inputs[0].shape)
    return f"{x[0]}[{', '.join(_range(*row) for row in rows) or '...'}]"


def _range(start: int, stop: int, step: int, size: int) -> str:
    bounds = ":" if (start, stop) == (0, size) else f"{start}:{stop}"
    return bounds if step == 1 else f"{bounds}:{step}"


def _flip(node: Node, x: Names) -> str:
    return f"ek.flip({x[0]}, axis={node.attr('axes')})"


def _pad(node: Node, x: Names) -> str:
    """`ek.pad`; with gaps between the elements they are put into a tensor filled with the value."""
    low, high, gaps = (node.attr(name) for name in ("low", "high", "interior"))
    if not low:
        return x[0]
    if not any(gaps):
        return f"ek.pad({x[0]}, {tuple(zip(low, high))}, value={x[1]})"
    rows = zip(node.inputs[0].shape, low, gaps, node.shape)
    part = (_range(a, a + max(n - 1, 0) * (gap + 1) + (n > 0), gap + 1, m) for n, a, gap, m in rows)
    return f"ek.broadcast_to({x[1]}, {node.shape}).at[{', '.join(part)}].set({x[0]})"


def _concat(node: Node, x: Names) -> str:
    return f"ek.concat([{', '.join(x)}], axis={node.attr('axis')})"


def _total(node: Node, x: Names) -> str:
    name = node.op.name.lower()
    return f"ek.{name}({x[0]}, axis={node.attr('axes')}, dtype={_dtype(node.dtype)})"


def _extreme(node: Node, x: Names) -> str:
    return f"ek.{node.op.name.lower()}({x[0]}, axis={node.attr('axes')})"


def _which(node: Node, x: Names) -> str:
    return f"ek.{node.op.name.lower()}({x[0]}, axis={node.attr('axis')})"


def _argsort(_: Node, x: Names) -> str:
    return f"ek.argsort({x[0]}, axis=-1)"


def _running_total(node: Node, x: Names) -> str:
    name = "sum" if node.op is Op.CUMSUM else "prod"
    return f"ek.cumulative_{name}({x[0]}, axis={node.attr('axis')}, dtype={_dtype(node.dtype)})"


def _running_extreme(node: Node, x: Names) -> str:
    name = "max" if node.op is Op.CUMMAX else "min"
    return f"ek.cumulative_{name}({x[0]}, axis={node.attr('axis')})"


def _logsumexp(_: Node, x: Names) -> str:
    return f"ek.logsumexp({x[0]}, axis=-1)"


def _gather(node: Node, x: Names) -> str:
    return f"ek.take({x[0]}, {x[1]}, axis={node.attr('axis')})"


def _scatter(node: Node, x: Names) -> str:
    place = ", ".join([":"] * node.attr("axis") + [x[1]])
    method = "add" if node.op is Op.SCATTER_ADD else "set"
    return f"{x[0]}.at[{place}].{method}({x[2]})"


def _check(node: Node, x: Names) -> str:
    return x[0]  # what is recorded has the outcome that is checked


def _dot(node: Node, x: Names) -> str:
    """`ek.matmul` of the operands with the contracted axes next to each other."""
    last = node.tensor.rank - 1
    ca, cb = node.attr("contract")
    return f"ek.matmul({x[0] if ca == last else x[0] + '.mT'}, {x[1] + '.mT' * (cb == last)})"


def _conv(node: Node, x: Names) -> str:
    """`ek.nn.conv`, or `ek.nn.conv_filter` with the window as its third argument."""
    window = f", {node.attr('window')}" if node.op is Op.CONV_FILTER else ""
    padding = tuple(zip(node.attr("low"), node.attr("high")))
    gaps = tuple(n + 1 for n in node.attr("interior"))
    options = f"stride={node.attr('strides')}, padding={padding}, dilation={node.attr('dilation')}"
    options += f", groups={node.attr('groups')}, input_dilation={gaps}"
    return f"ek.nn.{node.op.name.lower()}({x[0]}, {x[1]}{window}, {options})"


def _windows(node: Node, x: Names) -> str:
    """The primitives below pooling, with their attributes by name."""
    attrs = ", ".join(f"{name}={value}" for name, value in node.attrs)
    return f"ek.nn.{node.op.name.lower()}({', '.join(x)}, {attrs})"


def _host(node: Node, x: Names) -> str:
    """`ek.host.call` of the function by its name; a tuple for several results."""
    name, params = node.attr("function"), dict(node.attrs).get("params", ())
    return f"ek.host.call({', '.join([repr(name), *x, f'params={params}'])})"


def _project(node: Node, x: Names) -> str:
    return f"{x[0]}[{node.attr('index')}]"


# -- control flow: the function of a closed graph gives a tuple of outputs, and no updates ---------


def _cond(node: Node, x: Names, graphs: Mapping[Graph, str]) -> str:
    branches = [f"lambda *x: {graphs[graph]}(*x)[0]" for graph in node.attr("branches")]
    return f"ek.switch({', '.join([x[0], _tuple(branches), *x[1:]])})"


def _while(node: Node, x: Names, graphs: Mapping[Graph, str]) -> str:
    consts = "".join(f"{name}, " for name in x[: node.attr("consts")])
    condition = f"lambda c: {graphs[node.attr('condition')]}({consts}*c)[0][0]"
    body = f"lambda c: {graphs[node.attr('body')]}({consts}*c)[0]"
    return f"ek.while_loop({condition}, {body}, {_tuple(x[node.attr('consts') :])})"


def _scan(node: Node, x: Names, graphs: Mapping[Graph, str]) -> str:
    """`ek.scan`, whose two results become one tuple."""
    first, carries = node.attr("consts"), node.attr("carries")
    consts = "".join(f"{name}, " for name in x[:first])
    step = f"{graphs[node.attr('body')]}({consts}*c, *x)[0]"
    split = f"(lambda y: (y[:{carries}], y[{carries}:]))({step})"
    init, columns = _tuple(x[first : first + carries]), _tuple(x[first + carries :])
    options = f"length={node.attr('length')}, reverse={bool(node.attr('reverse'))}"
    return f"sum(ek.scan(lambda c, x: {split}, {init}, {columns}, {options}), ())"


CONTROL_FORMS: dict[Op, Callable[[Node, Names, Mapping[Graph, str]], str]] = {
    Op.COND: _cond,
    Op.WHILE: _while,
    Op.SCAN: _scan,
}


# Ops that are one function of their operands alone.
FUNCTIONS: dict[Op, str] = {
    op: op.name.lower()
    for op in (
        Op.ABS, Op.SIGN, Op.SQRT, Op.RSQRT, Op.EXP, Op.EXPM1, Op.LOG, Op.LOG1P, Op.SIN, Op.COS,
        Op.LOG2, Op.LOG10, Op.TAN, Op.ASIN, Op.ACOS, Op.ATAN2, Op.SINH, Op.COSH, Op.TANH, Op.ASINH,
        Op.ACOSH, Op.ATANH, Op.ERF, Op.NEXTAFTER, Op.FLOOR, Op.CEIL, Op.ROUND, Op.TRUNC,
        Op.ISFINITE, Op.ADD, Op.REMAINDER, Op.POW, Op.MAXIMUM, Op.MINIMUM, Op.STOP_GRADIENT,
    )
} | {
    Op.NEG: "negative",
    Op.NOT: "bitwise_invert",
    Op.SUB: "subtract",
    Op.MUL: "multiply",
    Op.DIV: "divide",
    Op.FLOOR_DIV: "floor_divide",
    Op.AND: "bitwise_and",
    Op.OR: "bitwise_or",
    Op.XOR: "bitwise_xor",
    Op.SHIFT_LEFT: "bitwise_left_shift",
    Op.SHIFT_RIGHT: "bitwise_right_shift",
    Op.EQ: "equal",
    Op.NE: "not_equal",
    Op.LT: "less",
    Op.LE: "less_equal",
    Op.GT: "greater",
    Op.GE: "greater_equal",
    Op.SELECT: "where",
    Op.SIGMOID: "nn.sigmoid",
    Op.SILU: "nn.silu",
    Op.GELU: "nn.gelu",
    Op.SOFTPLUS: "nn.softplus",
    Op.ERFC: "special.erfc",
    Op.ERFINV: "special.erfinv",
    Op.NDTR: "special.ndtr",
    Op.LGAMMA: "special.gammaln",
    Op.SOFTMAX: "nn.softmax",
    Op.LOG_SOFTMAX: "nn.log_softmax",
}  # fmt: skip

# Ops with attributes, which become arguments, slices or the place of an index.
FORMS: dict[Op, Callable[[Node, Names], str]] = {
    Op.CONST: _const,
    Op.IOTA: _iota,
    Op.RANDOM_BITS: _random_bits,
    Op.CAST: _cast,
    Op.INTEGER_POW: _integer_pow,
    Op.POLYGAMMA: _polygamma,
    Op.ALIAS: _same,
    Op.RESHAPE: _reshape,
    Op.BROADCAST: _broadcast,
    Op.TRANSPOSE: _transpose,
    Op.SLICE: _slice,
    Op.FLIP: _flip,
    Op.PAD: _pad,
    Op.CONCAT: _concat,
    Op.SUM: _total,
    Op.PROD: _total,
    Op.MAX: _extreme,
    Op.MIN: _extreme,
    Op.ARGMAX: _which,
    Op.ARGMIN: _which,
    Op.ARGSORT: _argsort,
    Op.CUMSUM: _running_total,
    Op.CUMPROD: _running_total,
    Op.CUMMAX: _running_extreme,
    Op.CUMMIN: _running_extreme,
    Op.LOGSUMEXP: _logsumexp,
    Op.GATHER: _gather,
    Op.SCATTER_ADD: _scatter,
    Op.SCATTER_SET: _scatter,
    Op.CHECK: _check,
    Op.DOT: _dot,
    Op.CONV: _conv,
    Op.CONV_FILTER: _conv,
    Op.WINDOW_PICK: _windows,
    Op.WINDOW_PLACE: _windows,
    Op.WINDOW_SUM: _windows,
    Op.HOST: _host,
    Op.PROJECT: _project,
}
