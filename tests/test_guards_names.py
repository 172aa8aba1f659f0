"""Conditions of a trace: objects that come out of calls, containers and expressions."""

import contextlib
import operator
from collections.abc import Callable
from types import SimpleNamespace as Space
from typing import Any

import pytest
from guard_cases import Case, check, setting

SETTINGS = Space(rate=1.0)
NAME = "rate"
PAIR = [Space(rate=1.0), Space(rate=1.0)]
OTHER = Space(rate=1.0)
FLAG = True
RATE = 1.0
CASES: list[Callable[[], Case]] = []


def case(fn: Callable[[], Case]) -> Callable[[], Case]:
    CASES.append(fn)
    return fn


def binding(name: str, value: Any) -> Callable[[], None]:
    """What binds a global of this file when it is called."""
    return lambda: globals().__setitem__(name, value)


def get() -> Any:
    return SETTINGS


@case
def attribute_of_what_a_call_gives() -> Case:
    SETTINGS.rate = 1.0
    return (lambda x: x * get().rate, setting(SETTINGS, "rate", 2.0))


@case
def the_same_in_a_local_after_an_op() -> Case:
    SETTINGS.rate = 1.0

    def f(x):
        y = x + 1
        c = get()
        return y * c.rate

    return (f, setting(SETTINGS, "rate", 2.0))


@case
def getattr_by_name() -> Case:
    SETTINGS.rate = 1.0
    return (lambda x: x * getattr(SETTINGS, NAME), setting(SETTINGS, "rate", 2.0))


@case
def vars_of_an_object() -> Case:
    SETTINGS.rate = 1.0
    return (lambda x: x * vars(SETTINGS)["rate"], setting(SETTINGS, "rate", 2.0))


@case
def dict_of_an_object() -> Case:
    SETTINGS.rate = 1.0
    return (lambda x: x * SETTINGS.__dict__["rate"], setting(SETTINGS, "rate", 2.0))


@case
def entry_of_globals() -> Case:
    binding("RATE", 1.0)()
    return (lambda x: x * globals()["RATE"], binding("RATE", 2.0))


@case
def operator_attrgetter() -> Case:
    SETTINGS.rate = 1.0
    g = operator.attrgetter("rate")
    return (lambda x: x * g(SETTINGS), setting(SETTINGS, "rate", 2.0))


@case
def conditional_expression() -> Case:
    SETTINGS.rate = 1.0
    return (lambda x: x * (SETTINGS if FLAG else OTHER).rate, setting(SETTINGS, "rate", 2.0))


@case
def or_of_objects() -> Case:
    SETTINGS.rate = 1.0
    return (lambda x: x * (SETTINGS or OTHER).rate, setting(SETTINGS, "rate", 2.0))


@case
def items_of_enumerate() -> Case:
    PAIR[1].rate = 1.0

    def f(x):
        for _, c in enumerate(PAIR):
            x = x * c.rate
        return x

    return (f, setting(PAIR[1], "rate", 2.0))


@case
def items_of_a_loop() -> Case:
    PAIR[1].rate = 1.0

    def f(x):
        for c in PAIR:
            x = x * c.rate
        return x

    return (f, setting(PAIR[1], "rate", 2.0))


@case
def items_of_zip() -> Case:
    PAIR[1].rate = 1.0

    def f(x):
        for c, _ in zip(PAIR, PAIR):
            x = x * c.rate
        return x

    return (f, setting(PAIR[1], "rate", 2.0))


@case
def generator_expression() -> Case:
    PAIR[1].rate = 1.0
    return (lambda x: x * sum(c.rate for c in PAIR), setting(PAIR[1], "rate", 2.0))


@case
def reversed_items() -> Case:
    PAIR[1].rate = 1.0
    return (lambda x: x * sum(c.rate for c in reversed(PAIR)), setting(PAIR[1], "rate", 2.0))


@case
def key_function() -> Case:
    PAIR[1].rate = 1.0
    return (lambda x: x * max(PAIR, key=lambda c: c.rate).rate, setting(PAIR[1], "rate", 2.0))


@case
def dict_values() -> Case:
    d = {"a": Space(rate=1.0), "b": Space(rate=1.0)}

    def f(x):
        for _, c in d.items():
            x = x * c.rate
        return x

    return (f, setting(d["b"], "rate", 2.0))


@case
def dict_get() -> Case:
    d = {"a": Space(rate=1.0), "b": Space(rate=1.0)}
    return (lambda x: x * d.get("b").rate, setting(d["b"], "rate", 2.0))


@case
def temp_object_method() -> Case:
    binding("RATE", 1.0)()

    class H:
        def r(self):
            return RATE

    return (lambda x: x * H().r(), binding("RATE", 2.0))


@case
def temp_object_local() -> Case:
    binding("RATE", 1.0)()

    class H:
        def r(self):
            return RATE

    def f(x):
        h = H()
        return x * h.r()

    return (f, binding("RATE", 2.0))


@case
def temp_object_init() -> Case:
    SETTINGS.rate = 1.0

    class H:
        def __init__(self, c):
            self.c = c

        def r(self):
            return self.c.rate

    def f(x):
        h = H(SETTINGS)
        return x * h.r()

    return (f, setting(SETTINGS, "rate", 2.0))


@case
def temp_object_late() -> Case:
    SETTINGS.rate = 1.0

    class H:
        def __init__(self, c):
            self.c = c

        def r(self):
            return self.c.rate

    def f(x):
        y = x + 1
        h = H(SETTINGS)
        return y * h.r()

    return (f, setting(SETTINGS, "rate", 2.0))


@case
def comprehension() -> Case:
    SETTINGS.rate = 1.0
    return (lambda x: x * [SETTINGS][0].rate, setting(SETTINGS, "rate", 2.0))


@case
def tuple_index() -> Case:
    SETTINGS.rate = 1.0
    return (lambda x: x * (SETTINGS, OTHER)[0].rate, setting(SETTINGS, "rate", 2.0))


@case
def two_assigned_at_once() -> Case:
    SETTINGS.rate = 1.0

    def f(x):
        _, b = (OTHER, SETTINGS)
        y = x + 1
        return y * b.rate

    return (f, setting(SETTINGS, "rate", 2.0))


@case
def four_assigned_at_once() -> Case:
    SETTINGS.rate = 1.0

    def f(x):
        _, _, c, _ = (OTHER, OTHER, SETTINGS, OTHER)
        y = x + 1
        return y * c.rate

    return (f, setting(SETTINGS, "rate", 2.0))


@case
def reassign_many() -> Case:
    SETTINGS.rate = 1.0
    cs = [Space(rate=1.0) for _ in range(12)]
    a, b, c, d, e, g, h, i, j, k = cs[:10]

    def f(x):
        q = a
        q = b
        q = c
        q = d
        q = e
        q = g
        q = h
        q = i
        q = j
        q = k
        y = x + 1
        return y * q.rate

    return (f, setting(k, "rate", 2.0))


@case
def object_in_an_exception() -> Case:
    SETTINGS.rate = 1.0

    class E(Exception):
        pass

    def f(x):
        try:
            raise E(SETTINGS)
        except E as e:
            return x * e.args[0].rate

    return (f, setting(SETTINGS, "rate", 2.0))


@case
def context_manager_function() -> Case:
    SETTINGS.rate = 1.0

    @contextlib.contextmanager
    def m():
        yield SETTINGS.rate

    def f(x):
        with m() as r:
            return x * r

    return (f, setting(SETTINGS, "rate", 2.0))


@case
def context_manager_object() -> Case:
    SETTINGS.rate = 1.0

    class M:
        def __enter__(s):
            return SETTINGS

        def __exit__(s, *a):
            pass

    def f(x):
        with M() as r:
            return x * r.rate

    return (f, setting(SETTINGS, "rate", 2.0))


@pytest.mark.parametrize("program", CASES, ids=lambda fn: fn.__name__)
def test_what_changed_is_seen(program: Callable[[], Case]) -> None:
    check(program)
