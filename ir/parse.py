"""`parse`: SSA text back to a graph, the inverse of `einkorn.ir.text.print_graph`.

Line breaks do not matter, except that a comment belongs to the node before it on its line.
Graphs may call those that stand before them; the last one is the result.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from einkorn.ir.dtypes import ALL, COMPLEX
from einkorn.ir.errors import EinkornError, IRError
from einkorn.ir.graph import Graph, Origin
from einkorn.ir.node import Node, alias, make, make_region, placeholder
from einkorn.ir.ops import CONTROL, Op
from einkorn.ir.text import KEYWORDS, const_bits
from einkorn.ir.types import TensorType, TupleType, Type

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    | (?P<comment>\#[^\n]*)
    | (?P<value>%\d+)
    | (?P<string>"(?:[^"\\\n]|\\.)*")
    | (?P<number>-?(?:0x[0-9a-fA-F]+|\d+(?:\.\d*)?(?:e[+-]?\d+)?)|-inf\b)
    | (?P<word>[A-Za-z_][\w.]*)
    | (?P<mark><-|[(){}\[\],:=@])""",
    re.VERBOSE | re.ASCII,
)
_ORIGIN = re.compile(r"#\s*(?:(?P<module>.*?)  )?(?P<file>.*):(?P<line>\d+)\s*")
_DTYPES = {dtype.short: dtype for dtype in (*ALL, *COMPLEX)}
_OPS = {op.name.lower(): op for op in Op}


def parse(text: str) -> Graph:
    """The last graph of the text; IRError names the line and what was expected there."""
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] # users call this
        raise IRError(f"parse reads the text of a graph, got {type(text).__name__}")
    parser = _Parser(_tokens(text))
    graph = parser.graph()
    while parser.next.kind != "end":
        graph = parser.graph()
    return graph


# -- tokens ----------------------------------------------------------------------------------------


class _Token(NamedTuple):
    """A piece of the text. `kind` is a group of _TOKEN, or "end"."""

    kind: str
    text: str
    line: int

    def __str__(self) -> str:
        return "the end of the text" if self.kind == "end" else f"`{self.text}`"


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    line, position = 1, 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise IRError(f"line {line}: expected a token of the SSA text, got {text[position]!r}")
        kind = match.lastgroup or ""
        if kind != "space":
            tokens.append(_Token(kind, match.group(), line))
        line += match.group().count("\n")
        position = match.end()
    return [*tokens, _Token("end", "", line)]


# -- grammar ---------------------------------------------------------------------------------------


@dataclass
class _Scope:
    """What one graph has defined so far."""

    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    names: dict[Node, str] = field(default_factory=dict[Node, str])
    origins: dict[Node, Origin] = field(default_factory=dict[Node, Origin])


class _Parser:
    """A recursive-descent parser; each method reads one phrase and returns what it stands for."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._position = 0
        self._graphs: dict[str, Graph] = {}
        self._skip_comments()

    @property
    def next(self) -> _Token:
        """The token to be read next."""
        return self._tokens[self._position]

    def graph(self) -> Graph:
        """graph NAME(param, ...) captures(param, ...) { node... return ... }"""
        self._take("graph")
        name = self._take_kind("word", "the name of the graph")
        if name.text in self._graphs:
            raise _error(name, "a graph name that is not defined yet")
        scope = _Scope()
        inputs, captures = self._params(scope), ()
        if self._accept("captures"):
            captures = self._params(scope)
        self._take("{")
        while self.next.kind == "value":
            self._statement(scope)
        outputs, updates = self._results(scope)
        self._take("}")
        graph = Graph(name.text, inputs, captures, outputs, updates, scope.names, scope.origins)
        self._graphs[name.text] = graph
        return graph

    def _params(self, scope: _Scope) -> tuple[Node, ...]:
        """(NAME: type = readable.name, ...)"""
        params: list[Node] = []
        self._take("(")
        while not self._accept(")"):
            token = self._take_kind("word", "the name of a parameter or `)`")
            self._take(":")
            node = placeholder(self._tensor_type())
            scope.names[node] = self._readable() if self._accept("=") else token.text
            self._define(scope, token, node)
            params.append(node)
            if not self._accept(","):
                self._take(")")
                break
        return tuple(params)

    def _readable(self) -> str:
        if self.next.kind == "string":
            token = self._advance()
            try:
                return str(json.loads(token.text))
            except ValueError:
                raise _error(token, "a string with JSON escapes") from None
        return self._take_kind("word", "a dotted name or a string").text

    def _statement(self, scope: _Scope) -> None:
        """%N: type = op(operand, ...) attribute=value ...  # origin"""
        target = self._advance()
        self._take(":")
        type = self._type()
        self._take("=")
        word = self._take_kind("word", "an op")
        op = _OPS.get(word.text)
        if op is None or op is Op.INPUT:
            raise _error(word, "an op")
        node = self._constant(type) if op is Op.CONST else self._application(op, word, scope)
        if node.type != type:
            raise IRError(f"line {word.line}: expected a node of type {type}, got {node.type}")
        self._define(scope, target, node)
        match = _ORIGIN.fullmatch(self._comment(target.line))
        if match:
            place = (match["file"], int(match["line"]), match["module"] or "")
            scope.origins.setdefault(node, Origin(*place))

    def _constant(self, type: Type) -> Node:
        token = self._advance()
        if not isinstance(type, TensorType) or type.shape:
            raise IRError(f"line {token.line}: expected a scalar type for a const, got {type}")
        try:
            bits = const_bits(type.dtype, token.text)
        except ValueError as error:
            raise _error(token, f"a constant of {type.dtype} ({error})") from None
        return make(Op.CONST, dtype=type.dtype, bits=bits)

    def _application(self, op: Op, word: _Token, scope: _Scope) -> Node:
        operands: list[Node] = []
        self._take("(")
        while not self._accept(")"):
            operands.append(self._operand(scope))
            if not self._accept(","):
                self._take(")")
                break
        attrs: dict[str, Any] = {}
        while self._at_attribute():
            name = self._advance()
            self._take("=")
            attrs[name.text] = self._attribute()
        try:
            if op is Op.ALIAS:
                return alias(*operands)
            if op is Op.CALL or op in CONTROL:
                return make_region(op, operands, **attrs)
            return make(op, *operands, **attrs)
        except (EinkornError, TypeError, AttributeError, IndexError) as error:
            # Shape rules trust their callers in the number of operands and the attributes' names.
            raise IRError(f"line {word.line}: {error}") from error

    def _attribute(self) -> Any:
        """NUMBER, (value,...), dtype, @graph or a name"""
        token = self._advance()
        if token.kind == "number" and token.text.lstrip("-").isdigit():
            return int(token.text)
        if token.kind == "word":
            return _DTYPES.get(token.text, token.text)
        if token.text == "@" and self.next.text in self._graphs:
            return self._graphs[self._advance().text]
        if token.text != "(":
            raise _error(token, "a number, a dtype, a tuple of them or a graph defined before")
        items: list[Any] = []
        while not self._accept(")"):
            items.append(self._attribute())
            if not self._accept(","):
                self._take(")")
                break
        return tuple(items)

    def _results(self, scope: _Scope) -> tuple[tuple[Node, ...], tuple[tuple[Node, Node], ...]]:
        """return operand, ...  update leaf <- operand, ..."""
        outputs: list[Node] = []
        updates: list[tuple[Node, Node]] = []
        token = self._take("return", "a node or `return`")
        while self.next.text not in ("}", "update"):
            outputs.append(self._operand(scope))
            if not self._accept(","):
                break
        if self._accept("update"):
            while self.next.text != "}":
                leaf = self._operand(scope)
                self._take("<-")
                updates.append((leaf, self._operand(scope)))
                if not self._accept(","):
                    break
        if self.next.text != "}":
            raise _error(self.next, f"`}}` after the `return` of line {token.line}")
        return tuple(outputs), tuple(updates)

    def _operand(self, scope: _Scope) -> Node:
        token = self._advance()
        if token.text not in scope.nodes:
            raise _error(token, "a parameter or a node defined before")
        return scope.nodes[token.text]

    def _define(self, scope: _Scope, token: _Token, node: Node) -> None:
        if token.text in scope.nodes or token.text in KEYWORDS:
            raise _error(token, "a name that is neither defined yet nor a keyword")
        scope.nodes[token.text] = node

    def _type(self) -> Type:
        """dtype[size,...] or (type, ...)"""
        if not self._accept("("):
            return self._tensor_type()
        items: list[TensorType] = []
        while not self._accept(")"):
            items.append(self._tensor_type())
            if not self._accept(","):
                self._take(")")
                break
        return TupleType(tuple(items))

    def _tensor_type(self) -> TensorType:
        token = self._advance()
        if token.text not in _DTYPES:
            raise _error(token, "a type such as f32[2,3]")
        shape: list[int] = []
        self._take("[")
        while not self._accept("]"):
            size = self._take_kind("number", "a size")
            if not size.text.isdigit():
                raise _error(size, "a size")
            shape.append(int(size.text))
            if not self._accept(","):
                self._take("]")
                break
        return TensorType(_DTYPES[token.text], tuple(shape))

    # -- tokens --

    def _advance(self) -> _Token:
        token = self.next
        if token.kind != "end":
            self._position += 1
            self._skip_comments()
        return token

    def _skip_comments(self) -> None:
        while self._tokens[self._position].kind == "comment":
            self._position += 1

    def _comment(self, line: int) -> str:
        """The comment on `line` among those just skipped; empty when there is none."""
        position, found = self._position - 1, ""
        while self._tokens[position].kind == "comment":
            if self._tokens[position].line == line:
                found = self._tokens[position].text
            position -= 1
        return found

    def _at_attribute(self) -> bool:
        """Whether NAME = follows; `graph` and `update` may also open something else."""
        return self.next.kind == "word" and self._tokens[self._position + 1].text == "="

    def _accept(self, text: str) -> bool:
        if self.next.text != text:
            return False
        self._advance()
        return True

    def _take(self, text: str, wanted: str = "") -> _Token:
        if self.next.text != text:
            raise _error(self.next, wanted or f"`{text}`")
        return self._advance()

    def _take_kind(self, kind: str, wanted: str) -> _Token:
        if self.next.kind != kind:
            raise _error(self.next, wanted)
        return self._advance()


def _error(token: _Token, wanted: str) -> IRError:
    return IRError(f"line {token.line}: expected {wanted}, got {token}")
