"""What a code object names: globals, cells and locals, and the attributes and items on the way.

The instructions are read once, in their order, with a stack of what each place may show. Loops and
branches need no care: what is read on any path counts, and what is not understood is unknown.
"""

from __future__ import annotations

import dis
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple

from einkorn.ir.graph import Origin

ITEM = "[]"  # the step from a list, tuple, set or dict to any of its items
DEEPEST = 32  # steps of a path
ALIASES = 64  # values that one local variable may have


class Read(NamedTuple):
    """Something that code reads.

    Attributes:
        root: "global", "cell", "local", or "module" (of an import statement).
        name: of the variable.
        path: the attributes, and ITEM, that lead from its value to what is read.
    """

    root: str
    name: str
    path: tuple[str, ...] = ()

    def step(self, name: str) -> Read:
        return self._replace(path=(*self.path, name))

    def __str__(self) -> str:
        return self.name + "".join(x if x == ITEM else f".{x}" for x in self.path)


Reads = tuple[Read, ...]
_UNKNOWN: Reads = ()

_GLOBALS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_ITEMS = frozenset({"GET_ITER", "FOR_ITER", "UNPACK_SEQUENCE", "IMPORT_NAME", "IMPORT_FROM"})
_ITEMS |= {"BINARY_SUBSCR", "STORE_SUBSCR", "DELETE_SUBSCR"}
PUTS = frozenset({"append", "extend", "insert", "add", "update", "clear", "discard", "setdefault"})
_LOOKS = frozenset({"id", "isinstance", "issubclass", "callable"})
_CALL = "PRECALL" if "PRECALL" in dis.opmap else "CALL"  # what takes the arguments off the stack
_STORES = frozenset({"STORE_ATTR", "STORE_SUBSCR", "STORE_GLOBAL", "STORE_NAME", "STORE_DEREF"})
_CELLS = frozenset({"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"})


class Store(NamedTuple):
    """A line that writes to something outside of the local variables.

    Attributes:
        owner: how the code reads what it writes to, such as "self.cache in Net.forward"; "" for a
            global.
        name: of the attribute or variable; None for an item of a list, set or dict.
        function: in which it stands.
        origin: the line.
    """

    owner: str
    name: str | None
    function: str
    origin: Origin


class CodeReads(NamedTuple):
    """Everything that code, and the functions written inside it, read by name.

    Attributes:
        used: for each read whether more is done with it than to put something in, as in
            log.append(x).
        escaped: reads whose values go where names do not lead: into a call, out of the function.
        words: every name and text in the code: what other code may read of such values.
        texts: the texts alone, which may be names for `getattr`.
        stores: the lines that write somewhere.
    """

    used: Mapping[Read, bool]
    escaped: frozenset[Read]
    words: frozenset[str]
    texts: frozenset[str]
    stores: tuple[Store, ...] = ()


@lru_cache(maxsize=4096)
def reads_of(code: CodeType) -> CodeReads:
    """What `code` reads."""
    reader = _Reader(code)
    for instruction in dis.get_instructions(code):
        reader.take(instruction)
    reader.end()
    if "super" in code.co_names and code.co_argcount:
        itself = Read("local", code.co_varnames[0])
        reader.found[itself] += 1
        reader.escaped.add(itself)
    used = {read: count > reader.written[read] for read, count in reader.found.items()}
    escaped, texts = set(reader.escaped), set(_texts(code.co_consts))
    words = {*code.co_names, *texts}
    stores = reader.stores
    for inner in (x for x in code.co_consts if isinstance(x, CodeType)):
        below = reads_of(inner)
        words |= below.words
        texts |= below.texts
        stores += below.stores
        outside = _outside(code, inner)
        for read, is_used in below.used.items():
            seen = outside(read)
            if seen is not None:
                used[seen] = used.get(seen, False) or is_used
        escaped.update(x for x in map(outside, below.escaped) if x is not None)
    return CodeReads(used, frozenset(escaped), frozenset(words), frozenset(texts), tuple(stores))


def _outside(code: CodeType, inner: CodeType) -> Callable[[Read], Read | None]:
    """How a read of an inner function looks in the one around it; None for its own variables."""
    free, own = set(inner.co_freevars), set(code.co_freevars)

    def seen(read: Read) -> Read | None:
        if read.root == "cell" and read.name in free and read.name not in own:
            return read._replace(root="local")
        return read if read.root != "local" or read.name in free else None

    return seen


def _texts(constants: Iterable[Any]) -> Iterator[str]:
    """The texts among constants, and in tuples and sets of them."""
    for constant in constants:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, (tuple, frozenset)):
            yield from _texts(constant)


class _Reader:
    """The stack while instructions are read.

    Attributes:
        found: what was read so far, and how often.
        written: how often of these something was put in.
        escaped: what was passed on.
        stores: the lines that write somewhere.
    """

    def __init__(self, code: CodeType) -> None:
        self.found: Counter[Read] = Counter()
        self.written: Counter[Read] = Counter()
        self.escaped: set[Read] = set()
        self.stores: list[Store] = []
        self._free = frozenset(code.co_freevars)  # the cells from outside; others are locals
        self._function, self._file = code.co_qualname, code.co_filename
        self._stack: list[Reads] = []
        self._locals: dict[str, Reads] = {}

    def take(self, instruction: dis.Instruction) -> None:
        """Follow one instruction."""
        name, argument = instruction.opname, instruction.argval
        effect = _effect(instruction)
        if name in _STORES:
            self._note_store(instruction)
        if name in _GLOBALS:
            self._load(effect, (Read("global", argument),))
        elif name in _CELLS and argument in self._free:
            self._load(effect, (Read("cell", argument),))
        elif name.startswith("LOAD_FAST") or name in _CELLS:
            for variable in argument if isinstance(argument, tuple) else (argument,):
                known = self._locals.get(variable, _UNKNOWN)
                self._push((*known, Read("local", variable)))
        elif name in ("LOAD_ATTR", "LOAD_METHOD"):
            owner = self._pop()
            if argument in PUTS:
                self.written.update(owner)
                self._store(instruction, owner, None)
            self._push(_stepped(owner, argument))
            self._push_unknown(effect)
        elif name in ("STORE_FAST", "STORE_DEREF"):
            self._locals[argument] = (*self._locals.get(argument, ()), *self._pop())[:ALIASES]
        elif name in ("COPY", "SWAP"):
            self._move(name, instruction.arg or 1)
        elif name == _CALL and self._looks_only(instruction.arg or 0):
            del self._stack[len(self._stack) - (instruction.arg or 0) :]
            self._skip(name, effect + (instruction.arg or 0))
        elif not self._item(instruction):
            self._skip(name, effect)

    def _note_store(self, instruction: dis.Instruction) -> None:
        name, argument = instruction.opname, instruction.argval
        if name == "STORE_ATTR":
            self._store(instruction, self._top(), argument)
        elif name == "STORE_SUBSCR":
            self._store(instruction, self._stack[-2] if len(self._stack) > 1 else (), None)
        elif name != "STORE_DEREF":
            self._store(instruction, (), argument)
        elif argument in self._free:
            self._store(instruction, (Read("cell", argument),), argument)

    def _store(self, instruction: dis.Instruction, owner: Reads, name: str | None) -> None:
        line = instruction.positions and instruction.positions.lineno
        place = f"{owner[-1]} in {self._function}" if owner else ""
        self.stores.append(Store(place, name, self._function, Origin(self._file, line or 0)))

    def end(self) -> None:
        """What is left belongs to branches that were not followed to their end."""
        while self._stack:
            self.escaped.update(self._pop())

    def _item(self, instruction: dis.Instruction) -> bool:
        """Follow an instruction that takes items out of a nest; whether it was one."""
        name = instruction.opname
        if name == "FOR_ITER":
            self._push(_stepped(self._top(), ITEM))
        elif name == "BINARY_SUBSCR":
            self._pop()
            self._push(_stepped(self._pop(), ITEM))
        elif name in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            self._pop()
            self.written.update(self._pop())
            if name == "STORE_SUBSCR":
                self.escaped.update(self._pop())
        elif name == "IMPORT_NAME":
            self._pop()
            self._pop()
            whole = str(instruction.argval)
            self._push(tuple(Read("module", x) for x in {whole, whole.split(".")[0]}))
        elif name == "IMPORT_FROM":
            self._push(_stepped(self._top(), instruction.argval))
        elif name == "UNPACK_SEQUENCE":
            item = _stepped(self._pop(), ITEM)
            for _ in range(instruction.arg or 0):
                self._push(item)
        return name in _ITEMS

    def _looks_only(self, count: int) -> bool:
        """Whether a call with `count` arguments is one of those that read nothing of them."""
        callee = self._stack[-count - 1] if count < len(self._stack) else _UNKNOWN
        return bool(callee) and all(x.root == "global" and x.name in _LOOKS for x in callee)

    def _load(self, effect: int, reads: Reads) -> None:
        self._push_unknown(effect - 1)  # a place for NULL comes before a function
        self._push(reads)

    def _push(self, reads: Reads) -> None:
        self.found.update(reads)
        self._stack.append(reads)

    def _push_unknown(self, count: int) -> None:
        self._stack.extend([_UNKNOWN] * count)

    def _pop(self) -> Reads:
        return self._stack.pop() if self._stack else _UNKNOWN

    def _top(self) -> Reads:
        return self._stack[-1] if self._stack else _UNKNOWN

    def _move(self, name: str, depth: int) -> None:
        if depth > len(self._stack):
            self._push_unknown(1 if name == "COPY" else 0)
        elif name == "COPY":
            self._stack.append(self._stack[-depth])
        else:
            stack = self._stack
            stack[-1], stack[-depth] = stack[-depth], stack[-1]

    def _skip(self, name: str, effect: int) -> None:
        """Any other instruction: what it leaves on the stack is unknown."""
        leaves = not name.startswith(("STORE_", "POP_", "DELETE_", "RETURN_", "RAISE_"))
        if effect > 0:
            self._push_unknown(effect)
            return
        changed = -effect + (1 if leaves and name != "NOP" and effect else 0)
        for _ in range(changed):
            passed = self._pop()
            if name != "POP_TOP":
                self.escaped.update(passed)
        if changed > -effect:
            self._push(_UNKNOWN)


def _stepped(reads: Reads, name: str) -> Reads:
    return tuple([read.step(name) for read in reads if len(read.path) < DEEPEST])


def _effect(instruction: dis.Instruction) -> int:
    takes = instruction.opcode >= dis.HAVE_ARGUMENT
    argument: Any = instruction.arg if takes else None
    try:
        return dis.stack_effect(instruction.opcode, argument, jump=False)
    except ValueError:
        return 0
