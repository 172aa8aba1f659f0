"""Conditions of a trace: classes, functions as objects, and modules."""

import functools
from collections.abc import Callable
from types import SimpleNamespace as Space
from typing import Any

import numpy as np
import pytest
from guard_cases import Case, check, setting

import einkorn as ek

SETTINGS = Space(rate=1.0)
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
def classmethod_of_a_class() -> Case:

    class A:
        rate = 1.0

        @classmethod
        def r(cls):
            return cls.rate

    return (lambda x: x * A.r(), setting(A, "rate", 2.0))


@case
def staticmethod_of_a_class() -> Case:
    binding("RATE", 1.0)()

    class A:
        @staticmethod
        def r():
            return RATE

    return (lambda x: x * A.r(), binding("RATE", 2.0))


@case
def metaclass_attr() -> Case:

    class M(type):
        rate = 1.0

    class A(metaclass=M):
        pass

    return (lambda x: x * A.rate, setting(M, "rate", 2.0))


@case
def type_of_self() -> Case:

    class A:
        rate = 1.0

        def f(s, x):
            return x * type(s).rate

    a = A()
    return (a.f, setting(A, "rate", 2.0))


@case
def class_of_self() -> Case:

    class A:
        rate = 1.0

        def f(s, x):
            return x * s.__class__.rate

    a = A()
    return (a.f, setting(A, "rate", 2.0))


@case
def attribute_of_a_function_inside_it() -> Case:

    def h():
        return h.rate

    h.rate = 1.0
    return (lambda x: x * h(), setting(h, "rate", 2.0))


@case
def attribute_of_a_function() -> Case:

    def h():
        return 1.0

    h.rate = 1.0
    return (lambda x: x * h.rate, setting(h, "rate", 2.0))


@case
def default_that_is_a_list() -> Case:

    def h(a=[1.0]):  # noqa: B006
        return a[0]

    return (lambda x: x * h(), lambda: h.__defaults__[0].__setitem__(0, 2.0))


@case
def default_that_is_an_object() -> Case:

    def h(a=SETTINGS):
        return a.rate

    SETTINGS.rate = 1.0
    return (lambda x: x * h(), setting(SETTINGS, "rate", 2.0))


@case
def code_of_a_function() -> Case:

    def h():
        return 1.0

    def k():
        return 2.0

    return (lambda x: x * h(), setting(h, "__code__", k.__code__))


@case
def decorator_function() -> Case:
    binding("RATE", 1.0)()

    def deco(fn):

        def w(*a):
            return fn(*a)

        return w

    @deco
    def h():
        return RATE

    return (lambda x: x * h(), binding("RATE", 2.0))


@case
def decorator_object() -> Case:
    binding("RATE", 1.0)()

    class deco:
        def __init__(s, fn):
            s.fn = fn

        def __call__(s, *a):
            return s.fn(*a)

    @deco
    def h():
        return RATE

    return (lambda x: x * h(), binding("RATE", 2.0))


@case
def item_of_a_set() -> Case:
    s = {1.0}

    def m():
        s.clear()
        s.add(2.0)

    return (lambda x: x * next(iter(s)), m)


@case
def object_in_a_module() -> Case:

    class M(ek.nn.Module):
        def __init__(s):
            s.c = SETTINGS
            s.lst = [1.0]
            s.d = {"k": Space(v=1.0)}

        def forward(s, x):
            return x * s.c.rate

    SETTINGS.rate = 1.0
    m = M()
    return (m, setting(SETTINGS, "rate", 2.0))


@case
def module_list() -> Case:

    class M(ek.nn.Module):
        def __init__(s):
            s.lst = [1.0]

        def forward(s, x):
            return x * s.lst[0]

    m = M()
    return (m, lambda: m.lst.__setitem__(0, 2.0))


@case
def module_list_outer() -> Case:
    items = [1.0]

    class M(ek.nn.Module):
        def __init__(s):
            s.lst = items

        def forward(s, x):
            return x * s.lst[0]

    m = M()
    return (m, lambda: items.__setitem__(0, 2.0))


@case
def module_nest() -> Case:

    class M(ek.nn.Module):
        def __init__(s):
            s.d = {"k": Space(v=1.0)}

        def forward(s, x):
            return x * s.d["k"].v

    m = M()
    return (m, setting(m.d["k"], "v", 2.0))


@case
def module_method_helper() -> Case:

    class M(ek.nn.Module):
        def __init__(s):
            s.c = Space(v=1.0)

        def h(s):
            return s.c.v

        def forward(s, x):
            return x * s.h()

    m = M()
    return (m, setting(m.c, "v", 2.0))


@case
def module_in_list() -> Case:

    class M(ek.nn.Module):
        def __init__(s):
            s.c = Space(v=1.0)

        def h(s):
            return s.c.v

        def forward(s, x):
            return x * s.h()

    ms = [M(), M()]

    def f(x):
        for _, m in enumerate(ms):
            x = m(x)
        return x

    return (f, setting(ms[1].c, "v", 2.0))


@case
def module_in_module_seq() -> Case:

    class M(ek.nn.Module):
        def __init__(s):
            s.c = Space(v=1.0)

        def h(s):
            return s.c.v

        def forward(s, x):
            return x * s.h()

    ms = ek.nn.Sequential(M(), M())
    return (ms, setting(ms[1].c, "v", 2.0))


@case
def modules_in_reduce() -> Case:

    class M(ek.nn.Module):
        def __init__(s):
            s.c = Space(v=1.0)

        def h(s):
            return s.c.v

        def forward(s, x):
            return x * s.h()

    ms = [M(), M()]
    return (lambda x: functools.reduce(lambda a, m: m(a), ms, x), setting(ms[1].c, "v", 2.0))


@case
def body_of_a_scan() -> Case:
    SETTINGS.rate = 1.0

    def body(c, x):
        return (c * get().rate, x)

    return (
        lambda x: ek.scan(body, ek.asarray(x) + 0, ek.asarray(x))[0],
        setting(SETTINGS, "rate", 2.0),
    )


@case
def other_leaf() -> Case:
    c = Space(w=ek.Parameter(np.ones(3, "float32")))
    return (lambda x: x * c.w, lambda: setattr(c, "w", ek.Parameter(np.full(3, 2, "float32"))))


@case
def other_leaf_behind_a_call() -> Case:
    c = Space(w=ek.Parameter(np.ones(3, "float32")))

    def g():
        return c

    return (lambda x: x * g().w, lambda: setattr(c, "w", ek.Parameter(np.full(3, 2, "float32"))))


@case
def other_array_behind_a_call() -> Case:
    c = Space(w=np.ones(3, "float32"))

    def g():
        return c

    return (lambda x: x * g().w, lambda: setattr(c, "w", np.full(3, 2, "float32")))


@case
def array_written_behind_a_call() -> Case:
    c = Space(w=np.ones(3, "float32"))

    def g():
        return c

    return (lambda x: x * g().w, lambda: c.w.fill(2))


@case
def same_code_closures() -> Case:
    cs = [Space(rate=1.0), Space(rate=1.0)]

    def mkf(c):
        return lambda x: x * c.rate

    fs = [mkf(c) for c in cs]

    def pick(i):
        return fs[i]

    return (lambda x: pick(1)(pick(0)(x)), setting(cs[1], "rate", 2.0))


@case
def same_code_methods() -> Case:

    class A:
        def __init__(s):
            s.rate = 1.0

        def f(s, x):
            return x * s.rate

    o = [A(), A()]

    def pick(i):
        return o[i]

    return (lambda x: pick(1).f(pick(0).f(x)), setting(o[1], "rate", 2.0))


@pytest.mark.parametrize("program", CASES, ids=lambda fn: fn.__name__)
def test_what_changed_is_seen(program: Callable[[], Case]) -> None:
    check(program)
