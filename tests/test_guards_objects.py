"""Conditions of a trace: attributes, descriptors, modules of Python and its containers."""

import array
import collections
import contextvars
import functools
import os
import threading
import types
from collections.abc import Callable
from types import SimpleNamespace as Space
from typing import Any

import guarded_names
import numpy as np
import pytest
from guard_cases import Case, check, setting
from guarded_names import rate

SETTINGS = Space(rate=1.0)
RATE = 1.0
LOCAL = threading.local()
VARIABLE = contextvars.ContextVar("variable", default=1.0)
CASES: list[Callable[[], Case]] = []


def case(fn: Callable[[], Case]) -> Callable[[], Case]:
    CASES.append(fn)
    return fn


def binding(name: str, value: Any) -> Callable[[], None]:
    """What binds a global of this file when it is called."""
    return lambda: globals().__setitem__(name, value)


class Base:
    def __init__(self) -> None:
        self.rate = 1.0

    def r(self) -> float:
        return self.rate

    @property
    def p(self) -> float:
        return self.rate


class Sub(Base):
    def r(self) -> float:
        return super().r() * 1.0

    def f(self, x: Any) -> Any:
        return x * self.r()

    def g(self, x: Any) -> Any:
        return x * super().p


@case
def method_through_super() -> Case:
    s = Sub()
    return (s.f, setting(s, "rate", 2.0))


@case
def property_through_super() -> Case:
    s = Sub()
    return (s.g, setting(s, "rate", 2.0))


@case
def thread_local() -> Case:
    LOCAL.rate = 1.0
    return (lambda x: x * LOCAL.rate, setting(LOCAL, "rate", 2.0))


@case
def context_variable() -> Case:
    return (lambda x: x * VARIABLE.get(), lambda: VARIABLE.set(2.0))


@case
def deque() -> Case:
    d = collections.deque([1.0])
    return (lambda x: x * d[0], lambda: d.__setitem__(0, 2.0))


@case
def user_dict() -> Case:
    d = collections.UserDict(a=1.0)
    return (lambda x: x * d["a"], lambda: d.__setitem__("a", 2.0))


@case
def chain_map() -> Case:
    d = collections.ChainMap({}, {"a": 1.0})
    return (lambda x: x * d["a"], lambda: d.__setitem__("a", 2.0))


@case
def mapping_proxy() -> Case:
    e = {"a": 1.0}
    d = types.MappingProxyType(e)
    return (lambda x: x * d["a"], lambda: e.__setitem__("a", 2.0))


@case
def array_of_python() -> Case:
    d = array.array("d", [1.0])
    return (lambda x: x * d[0], lambda: d.__setitem__(0, 2.0))


@case
def environment_variable() -> Case:
    os.environ["RT"] = "1"
    return (lambda x: x * float(os.environ["RT"]), lambda: os.environ.__setitem__("RT", "2"))


@case
def float_of_an_item() -> Case:
    d = np.array([1.0])
    return (lambda x: x * float(d[0]), lambda: d.__setitem__(0, 2.0))


@case
def item_of_an_array() -> Case:
    d = np.array([1.0], "float32")
    return (lambda x: x * d[0], lambda: d.__setitem__(0, 2.0))


@case
def branch_on_an_item() -> Case:
    d = np.array([1.0], "float32")
    return (lambda x: x * (2.0 if d[0] > 1.5 else 1.0), lambda: d.__setitem__(0, 2.0))


@case
def sum_of_an_array_in_a_list() -> Case:
    items = [np.array([1.0], "float32")]
    return (lambda x: x * items[0].sum(), lambda: items[0].__setitem__(0, 2.0))


@case
def other_mod_get() -> Case:
    guarded_names.SETTINGS.rate = 1.0
    return (lambda x: x * guarded_names.get().rate, setting(guarded_names.SETTINGS, "rate", 2.0))


@case
def other_mod_global() -> Case:
    guarded_names.RATE = 1.0
    return (lambda x: x * rate(), setting(guarded_names, "RATE", 2.0))


@case
def other_mod_from_obj() -> Case:
    guarded_names.Settings.rate = 1.0
    guarded_names.SETTINGS.__dict__.clear()
    return (lambda x: x * guarded_names.SETTINGS.rate, setting(guarded_names.Settings, "rate", 2.0))


@case
def import_inside() -> Case:
    guarded_names.RATE = 1.0

    def f(x):
        import guarded_names as o

        return x * o.RATE

    return (f, setting(guarded_names, "RATE", 2.0))


@case
def from_import_inside() -> Case:
    guarded_names.RATE = 1.0

    def f(x):
        from guarded_names import RATE as r

        return x * r

    return (f, setting(guarded_names, "RATE", 2.0))


@case
def import_inside_helper() -> Case:
    guarded_names.RATE = 1.0

    def f(x):
        from guarded_names import rate

        return x * rate()

    return (f, setting(guarded_names, "RATE", 2.0))


@case
def instance_shadow() -> Case:

    class C:
        rate = 1.0

    c = C()
    return (lambda x: x * c.rate, setting(c, "rate", 2.0))


@case
def class_mid_insert() -> Case:

    class A:
        rate = 1.0

    class B(A):
        pass

    c = B()
    return (lambda x: x * c.rate, setting(B, "rate", 2.0))


@case
def method_shadow() -> Case:

    class A:
        def r(self):
            return 1.0

    class B(A):
        pass

    c = B()
    return (lambda x: x * c.r(), setting(B, "r", lambda self: 2.0))


@case
def method_inst_shadow() -> Case:

    class A:
        def r(self):
            return 1.0

    c = A()
    return (lambda x: x * c.r(), setting(c, "r", lambda: 2.0))


@case
def class_change() -> Case:

    class A:
        def r(self):
            return 1.0

    class B:
        def r(self):
            return 2.0

    c = A()
    return (lambda x: x * c.r(), setting(c, "__class__", B))


@case
def global_shadows_builtin() -> Case:
    globals().pop("len", None)
    return (lambda x: x * len([1]), binding("len", lambda a: 2))


@case
def hasattr_of_what_comes_later() -> Case:
    c = Space()
    return (lambda x: x * (2 if hasattr(c, "zz") else 1), setting(c, "zz", 1))


@case
def attribute_error() -> Case:
    c = Space()

    def f(x):
        try:
            return x * c.zz
        except AttributeError:
            return x

    return (f, setting(c, "zz", 2.0))


@case
def name_error() -> Case:
    globals().pop("NEWG", None)

    def f(x):
        try:
            return x * NEWG
        except NameError:
            return x

    return (f, binding("NEWG", 2.0))


@case
def getattr_default() -> Case:
    c = Space()
    return (lambda x: x * getattr(c, "zz", 1.0), setting(c, "zz", 2.0))


@case
def dict_get_missing() -> Case:
    d = {}
    return (lambda x: x * d.get("a", 1.0), lambda: d.__setitem__("a", 2.0))


@case
def slot_missing() -> Case:

    class S:
        __slots__ = ("a",)

    c = S()

    def f(x):
        try:
            return x * c.a
        except AttributeError:
            return x

    return (f, setting(c, "a", 2.0))


@case
def property_obj() -> Case:

    class S:
        def __init__(s):
            s._r = 1.0

        @property
        def r(s):
            return s._r

    c = S()
    return (lambda x: x * c.r, setting(c, "_r", 2.0))


@case
def descriptor() -> Case:

    class D:
        def __init__(s):
            s.v = 1.0

        def __get__(s, o, t):
            return s.v

    d = D()

    class S:
        r = d

    c = S()
    return (lambda x: x * c.r, setting(d, "v", 2.0))


@case
def data_descriptor() -> Case:

    class D:
        def __init__(s):
            s.v = {}

        def __get__(s, o, t):
            return s.v.get(id(o), 1.0)

        def __set__(s, o, v):
            s.v[id(o)] = v

    class S:
        r = D()

    c = S()
    return (lambda x: x * c.r, setting(c, "r", 2.0))


@case
def getattribute() -> Case:

    class S:
        def __getattribute__(s, n):
            return SETTINGS.rate

    SETTINGS.rate = 1.0
    c = S()
    return (lambda x: x * c.anything, setting(SETTINGS, "rate", 2.0))


@case
def cached_property() -> Case:

    class S:
        def __init__(s):
            s.a = 1.0

        @functools.cached_property
        def r(s):
            return s.a

    c = S()
    return (lambda x: x * c.r, lambda: c.__dict__.__setitem__("r", 2.0))


@case
def cached_property_del() -> Case:

    class S:
        def __init__(s):
            s.a = 1.0

        @functools.cached_property
        def r(s):
            return s.a

    c = S()

    def m():
        c.__dict__.pop("r")
        c.a = 2.0

    return (lambda x: x * c.r, m)


@case
def cached_function_cleared() -> Case:
    SETTINGS.rate = 1.0

    @functools.lru_cache
    def h():
        return SETTINGS.rate

    def m():
        SETTINGS.rate = 2.0
        h.cache_clear()

    return (lambda x: x * h(), m)


@case
def partial_of_an_object() -> Case:
    SETTINGS.rate = 1.0

    def h(a, b):
        return a.rate * b

    p = functools.partial(h, SETTINGS)
    return (lambda x: x * p(1.0), setting(SETTINGS, "rate", 2.0))


@case
def partial_with_keywords() -> Case:
    SETTINGS.rate = 1.0

    def h(a, b):
        return a.rate * b

    p = functools.partial(h, b=1.0, a=SETTINGS)
    return (lambda x: x * p(), setting(SETTINGS, "rate", 2.0))


@pytest.mark.parametrize("program", CASES, ids=lambda fn: fn.__name__)
def test_what_changed_is_seen(program: Callable[[], Case]) -> None:
    check(program)
