"""Conditions of a trace: what code passes to other code."""

import dataclasses
import json
from collections.abc import Callable
from types import SimpleNamespace as Space
from typing import Any

import pytest
from guard_cases import Case, check, setting

SETTINGS = Space(rate=1.0)
RATE = 1.0
CASES: list[Callable[[], Case]] = []


def case(fn: Callable[[], Case]) -> Callable[[], Case]:
    CASES.append(fn)
    return fn


def binding(name: str, value: Any) -> Callable[[], None]:
    """What binds a global of this file when it is called."""
    return lambda: globals().__setitem__(name, value)


@case
def object_passed_to_a_function() -> Case:
    SETTINGS.rate = 1.0

    def h(c):
        return c.rate

    return (lambda x: x * h(SETTINGS), setting(SETTINGS, "rate", 2.0))


@case
def object_passed_twice() -> Case:
    SETTINGS.rate = 1.0

    def k(c):
        return c.rate

    def h(c):
        return k(c)

    return (lambda x: x * h(SETTINGS), setting(SETTINGS, "rate", 2.0))


@case
def arg_pass_list() -> Case:

    def h(c):
        return c[0].rate

    c = [Space(rate=1.0)]
    return (lambda x: x * h(c), setting(c[0], "rate", 2.0))


@case
def arg_pass_list_item() -> Case:

    def h(c):
        return c[0]

    c = [1.0]
    return (lambda x: x * h(c), lambda: c.__setitem__(0, 2.0))


@case
def arg_nested_list_item() -> Case:

    def h(c):
        return c[0][0]

    c = [[1.0]]
    return (lambda x: x * h(c), lambda: c[0].__setitem__(0, 2.0))


@case
def arguments_unpacked() -> Case:
    c = [1.0]

    def h(*a):
        return sum(a)

    return (lambda x: x * h(*c), lambda: c.__setitem__(0, 2.0))


@case
def keywords_unpacked() -> Case:
    c = {"a": 1.0}

    def h(a):
        return a

    return (lambda x: x * h(**c), lambda: c.__setitem__("a", 2.0))


@case
def copy_list() -> Case:
    c = [[1.0]]
    return (lambda x: x * tuple(c)[-1][0], lambda: c[0].__setitem__(0, 2.0))


@case
def slice_list() -> Case:
    c = [[1.0]]
    return (lambda x: x * c[:1][0][0], lambda: c[0].__setitem__(0, 2.0))


@case
def through_json() -> Case:
    c = {"a": {"b": 1.0}}
    return (lambda x: x * json.loads(json.dumps(c))["a"]["b"], lambda: c["a"].__setitem__("b", 2.0))


@case
def sum_nested() -> Case:
    c = [[1.0]]
    return (lambda x: x * sum(map(sum, c)), lambda: c[0].__setitem__(0, 2.0))


@case
def dataclass_replace() -> Case:

    @dataclasses.dataclass
    class D:
        a: float = 1.0

    d = D()
    return (lambda x: x * dataclasses.replace(d).a, setting(d, "a", 2.0))


@case
def dataclass_asdict() -> Case:

    @dataclasses.dataclass
    class D:
        a: float = 1.0

    d = D()
    return (lambda x: x * dataclasses.asdict(d)["a"], setting(d, "a", 2.0))


@case
def dataclass_astuple() -> Case:

    @dataclasses.dataclass
    class D:
        a: float = 1.0

    d = D()

    def f(x):
        (a,) = dataclasses.astuple(d)
        return x * a

    return (f, setting(d, "a", 2.0))


@case
def dataclass_equality() -> Case:

    @dataclasses.dataclass
    class D:
        a: float = 1.0

    d = D()
    e = D()
    return (lambda x: x * (1 if d == e else 2), setting(d, "a", 2.0))


@case
def match_by_position() -> Case:

    class P:
        __match_args__ = ("a",)

        def __init__(s):
            s.a = 1.0

    p = P()

    def f(x):
        match p:
            case P(a):
                return x * a

    return (f, setting(p, "a", 2.0))


@case
def match_by_keyword() -> Case:
    p = Space(a=1.0)

    def f(x):
        match p:
            case Space(a=v):
                return x * v

    return (f, setting(p, "a", 2.0))


@case
def fstring() -> Case:
    SETTINGS.rate = 1.0
    return (lambda x: x * float(f"{SETTINGS.rate}"), setting(SETTINGS, "rate", 2.0))


@case
def text_of_an_object() -> Case:

    class S:
        def __str__(s):
            return str(s.a)

    s = S()
    s.a = 1.0
    return (lambda x: x * float(f"{s}"), setting(s, "a", 2.0))


@case
def generator_function() -> Case:
    SETTINGS.rate = 1.0

    def h():
        yield SETTINGS.rate

    return (lambda x: x * next(h()), setting(SETTINGS, "rate", 2.0))


@case
def chain_of_thirteen_attributes() -> Case:
    r = Space(v=1.0)
    o = r
    for _ in range(12):
        o = Space(n=o)
    return (lambda x: x * o.n.n.n.n.n.n.n.n.n.n.n.n.v, setting(r, "v", 2.0))


@case
def the_ninetieth_item() -> Case:
    items = [Space(v=1.0) for _ in range(100)]
    return (lambda x: x * sum(c.v for c in items), setting(items[90], "v", 2.0))


@case
def the_eightieth_function() -> Case:
    items = [lambda: 1.0 for _ in range(80)]

    def h():
        return RATE

    binding("RATE", 1.0)()
    items.append(h)
    return (lambda x: x * items[-1](), binding("RATE", 2.0))


@case
def function_that_a_call_gives() -> Case:
    binding("RATE", 1.0)()

    def h():
        return RATE

    def pick():
        return h

    return (lambda x: x * pick()(), binding("RATE", 2.0))


@case
def function_in_dicts() -> Case:
    binding("RATE", 1.0)()
    d = {"a": {"b": lambda: RATE}}
    return (lambda x: x * d["a"]["b"](), binding("RATE", 2.0))


@case
def function_in_tuples() -> Case:
    binding("RATE", 1.0)()
    d = ((lambda: RATE,),)
    return (lambda x: x * d[0][0](), binding("RATE", 2.0))


@case
def coroutine_stepped_by_hand() -> Case:
    SETTINGS.rate = 1.0

    async def h():
        return SETTINGS.rate

    def f(x):
        c = h()
        try:
            c.send(None)
        except StopIteration as e:
            return x * e.value

    return (f, setting(SETTINGS, "rate", 2.0))


@pytest.mark.parametrize("program", CASES, ids=lambda fn: fn.__name__)
def test_what_changed_is_seen(program: Callable[[], Case]) -> None:
    check(program)
