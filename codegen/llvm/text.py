"""A small typed writer of LLVM text, with context-managed control flow.

A `Value` is the text of an operand beside its LLVM type; the writer checks types as it writes, so
a mistake shows at the line that makes it and not in LLVM's parser. Types are LLVM's own spelling:
"i64", "float", "<16 x float>", "ptr".

    w = Writer()
    with w.function("k", [("ptr", "x"), ("i64", "n")]) as (x, n):
        with w.loop(w.i64(0), n) as loop:
            p = w.gep("float", x, loop.index)
            w.store(w.fneg(w.load("float", p)), p)
    text = w.module()
"""

from __future__ import annotations

import re
import struct
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

_VECTOR = re.compile(r"<(\d+) x (\w+)>")
# The short names that LLVM mangles into overloaded intrinsics: llvm.fma.v16f32.
_MANGLED = {"half": "f16", "bfloat": "bf16", "float": "f32", "double": "f64", "ptr": "p0"}
_ATTRIBUTES = 'nounwind "probe-stack"="inline-asm"'  # a stack too small is a clean fault
FLOAT_BITS = {"half": 16, "bfloat": 16, "float": 32, "double": 64}


@dataclass(frozen=True, slots=True)
class Value:
    """An operand: its text ("%7", "5", "splat (float 0x3FF0000000000000)") and its type."""

    text: str
    type: str

    def __str__(self) -> str:
        return f"{self.type} {self.text}"


@dataclass(slots=True)
class Loop:
    """What the body of `Writer.loop` sees: the index, and the values carried between iterations.

    The body sets `next` to the carried values of the following iteration; after the loop `results`
    holds the last ones.
    """

    index: Value
    carried: list[Value]
    next: list[Value] = field(default_factory=list[Value])
    results: list[Value] = field(default_factory=list[Value])


def vector(lanes: int, element: str) -> str:
    """The vector type of `lanes` elements; the element type itself for one lane."""
    return element if lanes == 1 else f"<{lanes} x {element}>"


def element_of(type: str) -> str:
    """The element type of a vector type; a scalar type is its own element."""
    match = _VECTOR.fullmatch(type)
    return match[2] if match else type


def lanes_of(type: str) -> int:
    """The number of lanes of a vector type; 1 for a scalar type."""
    match = _VECTOR.fullmatch(type)
    return int(match[1]) if match else 1


def like(type: str, element: str) -> str:
    """The type with the lanes of `type` and the given element."""
    return vector(lanes_of(type), element)


def is_float(type: str) -> bool:
    """Whether the elements of `type` are floating-point numbers."""
    return element_of(type) in FLOAT_BITS


def _mangle(type: str) -> str:
    element = element_of(type)
    short = _MANGLED.get(element, element)
    lanes = lanes_of(type)
    return short if lanes == 1 else f"v{lanes}{short}"


def _round_trip(element: str, number: float) -> float:
    if element == "float":
        return struct.unpack("<f", struct.pack("<f", number))[0]
    return number


def literal(element: str, number: float | int | bool) -> str:
    """The LLVM text of a scalar constant, exact to the bit; floats are rounded to `element`."""
    if element == "i1":
        return "true" if number else "false"
    if element == "half":
        return f"0xH{struct.unpack('<H', struct.pack('<e', number))[0]:04X}"
    if element in ("float", "double"):
        value = _round_trip(element, float(number))
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    bits = int(element[1:])
    whole = int(number) & ((1 << bits) - 1)
    return str(whole - (1 << bits) if whole >> (bits - 1) else whole)


class Writer:
    """Writes the functions of one LLVM module."""

    def __init__(self) -> None:
        self._functions: list[str] = []
        self._lines: list[str] = []
        self._declared: dict[str, str] = {}
        self._globals: list[str] = []
        self._count = 0
        self._block = "entry"

    # -- module and functions ------------------------------------------------------------------

    def module(self) -> str:
        """The text of the whole module."""
        parts = [*self._globals, *self._functions, *self._declared.values()]
        return "\n".join(parts) + "\n"

    @contextmanager
    def function(
        self, name: str, params: Sequence[tuple[str, str]], returns: str = "void"
    ) -> Generator[list[Value]]:
        """Write `define returns @name(params)`; the body must end with `ret` unless void."""
        self._lines, self._count, self._block = [], 0, "entry"
        yield [Value(f"%{label}", type) for type, label in params]
        if returns == "void":
            self._lines.append("  ret void")
        signature = ", ".join(f"{type} %{label}" for type, label in params)
        body = "\n".join(self._lines)
        head = f"define {returns} @{name}({signature}) {_ATTRIBUTES}"
        self._functions.append(f"{head} {{\nentry:\n{body}\n}}")

    def ret(self, value: Value) -> None:
        """Return `value`; the last thing in a function that is not void."""
        self._lines.append(f"  ret {value}")

    def line(self, text: str) -> None:
        """Write one instruction that has no result."""
        self._lines.append(f"  {text}")

    def comment(self, text: str) -> None:
        """Write a comment line into the LLVM text."""
        self._lines.append(f"  ; {text}")

    def emit(self, type: str, text: str) -> Value:
        """Write one instruction with a result of `type`."""
        self._count += 1
        name = f"%v{self._count}"
        self._lines.append(f"  {name} = {text}")
        return Value(name, type)

    def table(self, element: str, numbers: Iterable[float | int]) -> Value:
        """A constant array in the module; the pointer to its first element."""
        entries = [f"{element} {literal(element, number)}" for number in numbers]
        name = f"@table{len(self._globals)}"
        self._globals.append(
            f"{name} = private unnamed_addr constant [{len(entries)} x {element}] "
            f"[{', '.join(entries)}], align 64"
        )
        return Value(name, "ptr")

    # -- constants -----------------------------------------------------------------------------

    def const(self, type: str, number: float | int | bool) -> Value:
        """A constant of `type`; the same number in every lane of a vector."""
        element = element_of(type)
        text = literal(element, number)
        return Value(text if lanes_of(type) == 1 else f"splat ({element} {text})", type)

    def i64(self, number: int) -> Value:
        return Value(str(number), "i64")

    def lanes(self, type: str, numbers: Sequence[float | int | bool]) -> Value:
        """A vector constant with the given numbers, one a lane."""
        element = element_of(type)
        entries = ", ".join(f"{element} {literal(element, number)}" for number in numbers)
        return Value(f"<{entries}>", type)

    # -- arithmetic ----------------------------------------------------------------------------

    def binary(self, opcode: str, a: Value, b: Value) -> Value:
        """`opcode a, b` for operands of one type: add, fadd, and, shl, ..."""
        if a.type != b.type:
            raise TypeError(f"{opcode}: operands are {a.type} and {b.type}")
        return self.emit(a.type, f"{opcode} {a}, {b.text}")

    def add(self, a: Value, b: Value) -> Value:
        return self.binary("fadd" if is_float(a.type) else "add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        return self.binary("fsub" if is_float(a.type) else "sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        return self.binary("fmul" if is_float(a.type) else "mul", a, b)

    def fdiv(self, a: Value, b: Value) -> Value:
        return self.binary("fdiv", a, b)

    def fneg(self, a: Value) -> Value:
        return self.emit(a.type, f"fneg {a}")

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c with one rounding."""
        return self.intrinsic("llvm.fma", a.type, a, b, c)

    def and_(self, a: Value, b: Value) -> Value:
        return self.binary("and", a, b)

    def or_(self, a: Value, b: Value) -> Value:
        return self.binary("or", a, b)

    def xor(self, a: Value, b: Value) -> Value:
        return self.binary("xor", a, b)

    def shl(self, a: Value, b: Value) -> Value:
        return self.binary("shl", a, b)

    def lshr(self, a: Value, b: Value) -> Value:
        return self.binary("lshr", a, b)

    def ashr(self, a: Value, b: Value) -> Value:
        return self.binary("ashr", a, b)

    def not_(self, a: Value) -> Value:
        return self.xor(a, self.const(a.type, -1 if element_of(a.type) != "i1" else True))

    def icmp(self, predicate: str, a: Value, b: Value) -> Value:
        """Compare integers or pointers: eq ne slt sle sgt sge ult ule ugt uge."""
        if a.type != b.type:
            raise TypeError(f"icmp: operands are {a.type} and {b.type}")
        return self.emit(like(a.type, "i1"), f"icmp {predicate} {a}, {b.text}")

    def fcmp(self, predicate: str, a: Value, b: Value) -> Value:
        """Compare floats: oeq une olt ole ogt oge uno ord ult ..."""
        if a.type != b.type:
            raise TypeError(f"fcmp: operands are {a.type} and {b.type}")
        return self.emit(like(a.type, "i1"), f"fcmp {predicate} {a}, {b.text}")

    def select(self, condition: Value, yes: Value, no: Value) -> Value:
        if yes.type != no.type:
            raise TypeError(f"select: choices are {yes.type} and {no.type}")
        return self.emit(yes.type, f"select {condition}, {yes}, {no}")

    def cast(self, opcode: str, value: Value, element: str) -> Value:
        """Convert lane by lane to `element`: fpext fptrunc sitofp fptosi zext sext trunc ..."""
        to = like(value.type, element)
        return self.emit(to, f"{opcode} {value} to {to}")

    def bitcast(self, value: Value, type: str) -> Value:
        return self.emit(type, f"bitcast {value} to {type}")

    def intrinsic(self, name: str, returns: str, *args: Value, suffix: str | None = None) -> Value:
        """Call the LLVM intrinsic `name`, overloaded on its first argument's type."""
        mangled = f"{name}.{suffix if suffix is not None else _mangle(args[0].type)}"
        return self.call(mangled, returns, *args)

    def call(self, name: str, returns: str, *args: Value) -> Value:
        """Call the declared function `@name`."""
        types = ", ".join(a.type for a in args)
        self._declared.setdefault(name, f"declare {returns} @{name}({types})")
        listed = ", ".join(map(str, args))
        if returns == "void":
            self.line(f"call void @{name}({listed})")
            return Value("", "void")
        return self.emit(returns, f"call {returns} @{name}({listed})")

    def call_pointer(self, pointer: Value, returns: str, *args: Value) -> Value:
        """Call through a function pointer."""
        listed = ", ".join(map(str, args))
        if returns == "void":
            self.line(f"call void {pointer.text}({listed})")
            return Value("", "void")
        return self.emit(returns, f"call {returns} {pointer.text}({listed})")

    # -- vectors -------------------------------------------------------------------------------

    def splat(self, value: Value, lanes: int) -> Value:
        """The scalar `value` in every lane."""
        if lanes == 1:
            return value
        type = vector(lanes, value.type)
        first = self.emit(type, f"insertelement {type} poison, {value}, i64 0")
        return self.emit(
            type, f"shufflevector {first}, {type} poison, <{lanes} x i32> zeroinitializer"
        )

    def extract(self, value: Value, lane: int | Value) -> Value:
        index = lane if isinstance(lane, Value) else self.i64(lane)
        return self.emit(element_of(value.type), f"extractelement {value}, {index}")

    def insert(self, into: Value, value: Value, lane: int | Value) -> Value:
        index = lane if isinstance(lane, Value) else self.i64(lane)
        return self.emit(into.type, f"insertelement {into}, {value}, {index}")

    def shuffle(self, a: Value, b: Value | None, order: Sequence[int]) -> Value:
        """Lanes `order` of the concatenation of a and b (b may be absent)."""
        second = b if b is not None else Value("poison", a.type)
        mask = ", ".join(f"i32 {i}" for i in order)
        type = vector(len(order), element_of(a.type))
        return self.emit(type, f"shufflevector {a}, {second}, <{len(order)} x i32> <{mask}>")

    def tail_mask(self, remaining: Value, lanes: int) -> Value:
        """<lanes x i1>: lane i is set when i < remaining (an i64)."""
        iota = self.lanes(vector(lanes, "i64"), range(lanes))
        return self.icmp("slt", iota, self.splat(remaining, lanes))

    # -- memory --------------------------------------------------------------------------------

    def gep(self, element: str, pointer: Value, index: Value) -> Value:
        """The address of element `index` (an i64) counted from `pointer`."""
        return self.emit("ptr", f"getelementptr {element}, {pointer}, {index}")

    def load(self, type: str, pointer: Value, align: int | None = None) -> Value:
        """Load a scalar or a vector; the default alignment is that of one element."""
        return self.emit(type, f"load {type}, {pointer}, align {align or self._align(type)}")

    def store(self, value: Value, pointer: Value, align: int | None = None) -> None:
        self.line(f"store {value}, {pointer}, align {align or self._align(value.type)}")

    def masked_load(self, type: str, pointer: Value, mask: Value) -> Value:
        """Load the lanes of `mask`, zero in the others; the others are not touched in memory."""
        name = f"llvm.masked.load.{_mangle(type)}.p0"
        self._declared.setdefault(name, f"declare {type} @{name}(ptr, {mask.type}, {type})")
        pointer_text = f"ptr align {self._align(type)} {pointer.text}"
        return self.emit(
            type, f"call {type} @{name}({pointer_text}, {mask}, {type} zeroinitializer)"
        )

    def masked_store(self, value: Value, pointer: Value, mask: Value) -> None:
        name = f"llvm.masked.store.{_mangle(value.type)}.p0"
        self._declared.setdefault(name, f"declare void @{name}({value.type}, ptr, {mask.type})")
        pointer_text = f"ptr align {self._align(value.type)} {pointer.text}"
        self.line(f"call void @{name}({value}, {pointer_text}, {mask})")

    def geps(self, element: str, pointer: Value, indices: Value) -> Value:
        """The addresses of several elements: a vector of pointers for a vector of i64."""
        type = like(indices.type, "ptr")
        return self.emit(type, f"getelementptr {element}, {pointer}, {indices}")

    def gather(self, type: str, addresses: Value, mask: Value) -> Value:
        """Load one element from each address of `mask`, zero in the other lanes."""
        name = f"llvm.masked.gather.{_mangle(type)}.{_mangle(addresses.type)}"
        declared = f"declare {type} @{name}({addresses.type}, {mask.type}, {type})"
        self._declared.setdefault(name, declared)
        where = f"{addresses.type} align {self._align(type)} {addresses.text}"
        return self.emit(type, f"call {type} @{name}({where}, {mask}, {type} zeroinitializer)")

    def scatter(self, value: Value, addresses: Value, mask: Value) -> None:
        """Store each lane of `mask` to its address, in lane order."""
        name = f"llvm.masked.scatter.{_mangle(value.type)}.{_mangle(addresses.type)}"
        declared = f"declare void @{name}({value.type}, {addresses.type}, {mask.type})"
        self._declared.setdefault(name, declared)
        where = f"{addresses.type} align {self._align(value.type)} {addresses.text}"
        self.line(f"call void @{name}({value}, {where}, {mask})")

    def alloca(self, type: str, count: int | Value = 1, align: int = 64) -> Value:
        """Stack space; call it before any loop."""
        size = count if isinstance(count, Value) else self.i64(count)
        return self.emit("ptr", f"alloca {type}, {size}, align {align}")

    @staticmethod
    def _align(type: str) -> int:
        element = element_of(type)
        if element == "ptr":
            return 8
        bits = FLOAT_BITS.get(element) or int(element[1:])
        return max(1, bits // 8)

    # -- control flow --------------------------------------------------------------------------

    @contextmanager
    def loop(
        self, start: Value, stop: Value, step: int = 1, carried: Sequence[Value] = ()
    ) -> Generator[Loop]:
        """`for index in range(start, stop, step)`, signed i64, with loop-carried values.

        The body must set `loop.next` when there are carried values; `loop.results` are their last
        values (their first ones when the body never ran).
        """
        self._count += 1
        tag = self._count
        head, body, latch, done = (f"{part}{tag}" for part in ("head", "body", "latch", "done"))
        before = self._block
        index = Value(f"%i{tag}", "i64")
        phis = [Value(f"%c{tag}_{k}", value.type) for k, value in enumerate(carried)]
        self.line(f"br label %{head}")
        at = len(self._lines)
        self.open_block(body)
        loop = Loop(index, phis, results=phis)
        yield loop
        if len(loop.next) != len(carried):
            raise ValueError(f"loop carries {len(carried)} values, body gave {len(loop.next)}")
        self.line(f"br label %{latch}")
        self.open_block(latch)
        self.line(f"%n{tag} = add i64 {index.text}, {step}")
        self.line(f"br label %{head}")
        self._lines[at:at] = self._loop_head(
            tag, before, start, stop, list(zip(phis, carried, loop.next))
        )
        self.open_block(done)

    @staticmethod
    def _loop_head(
        tag: int, before: str, start: Value, stop: Value, phis: list[tuple[Value, Value, Value]]
    ) -> list[str]:
        rows = [
            f"head{tag}:",
            f"  %i{tag} = phi i64 [{start.text}, %{before}], [%n{tag}, %latch{tag}]",
        ]
        for phi, first, following in phis:
            if first.type != following.type:
                raise TypeError(f"loop carries {first.type}, body gave {following.type}")
            rows.append(
                f"  {phi.text} = phi {phi.type} [{first.text}, %{before}], "
                f"[{following.text}, %latch{tag}]"
            )
        rows.append(f"  %t{tag} = icmp slt i64 %i{tag}, {stop.text}")
        rows.append(f"  br i1 %t{tag}, label %body{tag}, label %done{tag}")
        return rows

    @contextmanager
    def if_(self, condition: Value) -> Generator[None]:
        """Run the body when `condition` (an i1) holds. Values leave through memory or `choose`."""
        self._count += 1
        yes, done = f"yes{self._count}", f"end{self._count}"
        self.line(f"br {condition}, label %{yes}, label %{done}")
        self.open_block(yes)
        yield
        self.line(f"br label %{done}")
        self.open_block(done)

    @contextmanager
    def if_else(self, condition: Value) -> Generator[_Branches]:
        """Two branches: the body is the first; `with branches.otherwise():` starts the second."""
        self._count += 1
        branches = _Branches(self, str(self._count))
        self.line(f"br {condition}, label %yes{self._count}, label %no{self._count}")
        self.open_block(branches.yes)
        yield branches
        branches.close()

    @contextmanager
    def while_(self) -> Generator[_While]:
        """Loop until `loop.leave_unless(condition)` fails; state lives in memory."""
        self._count += 1
        state = _While(self, str(self._count))
        self.line(f"br label %{state.head}")
        self.open_block(state.head)
        yield state
        self.line(f"br label %{state.head}")
        self.open_block(state.done)

    def open_block(self, label: str) -> None:
        self._lines.append(f"{label}:")
        self._block = label


class _Branches:
    """The open halves of `Writer.if_else`."""

    def __init__(self, writer: Writer, tag: str) -> None:
        self._writer = writer
        self.yes, self.no, self.end = f"yes{tag}", f"no{tag}", f"end{tag}"
        self._second = False

    def otherwise(self) -> None:
        """End the first branch and begin the second."""
        self._second = True
        self._writer.line(f"br label %{self.end}")
        self._writer.open_block(self.no)

    def close(self) -> None:
        if not self._second:
            self.otherwise()
        self._writer.line(f"br label %{self.end}")
        self._writer.open_block(self.end)


class _While:
    """The labels of `Writer.while_`."""

    def __init__(self, writer: Writer, tag: str) -> None:
        self._writer, self._tag = writer, tag
        self._exits = 0
        self.head, self.done = f"while{tag}", f"finished{tag}"

    def leave_unless(self, condition: Value) -> None:
        """Go on when `condition` (an i1) holds, else leave the loop."""
        self._exits += 1
        stay = f"stay{self._tag}_{self._exits}"
        self._writer.line(f"br {condition}, label %{stay}, label %{self.done}")
        self._writer.open_block(stay)
