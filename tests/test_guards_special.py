"""Conditions of a trace: the methods that Python's operators and statements call."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from guard_cases import Case, X, check, setting
from same_bits import assert_same_bits

import einkorn as ek


class Special:
    """Every way in which Python calls the methods of a class by itself."""

    def __init__(self) -> None:
        self.rate = 1.0
        self.items = {"rate": 1.0}

    def __getitem__(self, name: str) -> float:
        return self.items[name]

    def __iter__(self) -> Any:
        return iter([self.rate])

    def __len__(self) -> int:
        return int(self.rate)

    def __bool__(self) -> bool:
        return self.rate > 1.5

    def __float__(self) -> float:
        return self.rate

    def __mul__(self, other: Any) -> Any:
        return other * self.rate

    __rmul__ = __mul__

    def __call__(self) -> float:
        return self.rate

    def __enter__(self) -> float:
        return self.rate

    def __exit__(self, *args: object) -> None:
        pass

    def __contains__(self, item: Any) -> bool:
        return self.rate > 1.5

    def __eq__(self, other: object) -> bool:
        return self.rate > 1.5

    __hash__ = None  # type: ignore[assignment]

    def __neg__(self) -> float:
        return -self.rate

    def __getattr__(self, name: str) -> float:
        if name == "computed":
            return self.rate
        raise AttributeError(name)


def within(x: Any, special: Any) -> Any:
    with special as rate:
        return x * rate


SPECIAL: dict[str, Callable[[Any, Any], Any]] = {
    "item": lambda x, special: x * special["rate"],
    "sum": lambda x, special: x * sum(special),
    "loop": lambda x, special: x * list(special)[0],  # noqa: RUF015
    "length": lambda x, special: x * len(special),
    "truth": lambda x, special: x * (2 if special else 1),
    "float": lambda x, special: x * float(special),
    "product": lambda x, special: (2.0 * special) * x,
    "call": lambda x, special: special() * x,
    "membership": lambda x, special: x * (2 if 3 in special else 1),
    "equality": lambda x, special: x * (2 if special == 3 else 1),
    "negative": lambda x, special: x * -special,
    "attribute": lambda x, special: x * special.computed,
    "with": within,
}


@pytest.mark.parametrize("way", SPECIAL)
def test_special_methods(way: str) -> None:
    def program() -> Case:
        special, use = Special(), SPECIAL[way]

        def change() -> None:
            special.rate = special.items["rate"] = 2.0

        return lambda x: use(x, special), change

    check(program)


class Unit:
    rate = 1.0


class Config:
    rate = 1.0


def test_implementations_of_a_single_dispatch() -> None:
    def program() -> Case:
        unit, config = Unit(), Config()

        @functools.singledispatch
        def scaled(value: object, x: Any) -> Any:
            return x

        @scaled.register
        def _(value: Unit, x: Any) -> Any:
            return x * config.rate

        return lambda x: scaled(unit, x), setting(config, "rate", 2.0)

    check(program)


def test_an_implementation_that_is_registered_later() -> None:
    def program() -> Case:
        unit = Unit()

        @functools.singledispatch
        def scaled(value: object, x: Any) -> Any:
            return x

        def change() -> None:
            scaled.register(Unit, lambda value, x: x * 2)

        return lambda x: scaled(unit, x), change

    check(program)


def test_implementations_of_a_method_of_single_dispatch() -> None:
    def program() -> Case:
        unit, config = Unit(), Config()

        class Scale:
            @functools.singledispatchmethod
            def by(self, value: Any, x: Any) -> Any:
                return x

            @by.register
            def _(self, value: Unit, x: Any) -> Any:
                return x * config.rate

        scale = Scale()
        return lambda x: scale.by(unit, x), setting(config, "rate", 2.0)

    check(program)


class Meta(type):
    @property
    def doubled(cls) -> float:
        return cls.rate * 2  # type: ignore[attr-defined] # of the classes

    def __getitem__(cls, factor: float) -> float:
        return cls.rate * factor  # type: ignore[attr-defined] # of the classes

    def tripled(cls) -> float:
        return cls.rate * 3  # type: ignore[attr-defined] # of the classes


CLASSES: dict[str, Callable[[Any, Any], Any]] = {
    "property": lambda x, kind: x * kind.doubled,
    "item": lambda x, kind: x * kind[3],
    "method": lambda x, kind: x * kind.tripled(),
}


@pytest.mark.parametrize("way", CLASSES)
def test_methods_of_a_metaclass(way: str) -> None:
    def program() -> Case:
        use = CLASSES[way]

        class Model(metaclass=Meta):
            rate = 1.0

        return lambda x: use(x, Model), setting(Model, "rate", 2.0)

    check(program)


class Keys(dict[str, Any]):
    """A dict whose keys are attributes: what is not there is a KeyError."""

    def __getattr__(self, name: str) -> Any:
        return self[name]

    __setattr__ = dict.__setitem__


class Asked:
    """An object in slots that counts how often it was asked for what it has not."""

    __slots__ = ("count", "rate", "unset")

    def __init__(self) -> None:
        self.count, self.rate = 0, 1.0

    def __getattr__(self, name: str) -> Any:
        self.count += 1
        raise RuntimeError(f"asked for {name}")


@pytest.mark.parametrize("make", [lambda: Keys(rate=1.0), Asked])
def test_an_object_is_asked_for_nothing_but_what_the_code_reads(make: Callable[[], Any]) -> None:
    def program() -> Case:
        config = make()
        return lambda x: x * config.rate, setting(config, "rate", 2.0)

    check(program)
    asked = Asked()
    ek.compile(lambda x, config: x * config.rate)(X, asked)
    assert asked.count == 0


ITERATORS: dict[str, Callable[[], Any]] = {
    "count": itertools.count,
    "cycle": lambda: itertools.cycle([1.0, 2.0]),
    "zip": lambda: map(sum, zip([1, 2, 3], [4, 5, 6])),
    "islice": lambda: itertools.islice(range(10), 3, None),
    "list": lambda: iter([1.0, 2.0, 3.0]),
}


@pytest.mark.parametrize("kind", ITERATORS)
def test_an_iterator_gives_another_value_each_time(kind: str) -> None:
    compiled, eager = ITERATORS[kind](), ITERATORS[kind]()
    step = ek.compile(lambda x: x * next(compiled), on_retrace="allow")
    for _ in range(3):
        assert_same_bits(np.asarray(step(X)), X * np.float32(next(eager)))


def test_bytes_that_change_in_place() -> None:
    def program() -> Case:
        levels = bytearray(b"\1\2")
        return lambda x: x * levels[0], lambda: levels.__setitem__(0, 5)

    check(program)


class Base:
    def __call__(self, x: Any) -> Any:
        return x


def test_a_call_method_that_a_class_gets_later() -> None:
    def program() -> Case:
        class Derived(Base):
            pass

        derived = Derived()
        return lambda x: derived(x), setting(Derived, "__call__", lambda self, x: x * 2)

    check(program)


def test_a_call_method_that_a_module_gets_later() -> None:
    def program() -> Case:
        class Net(ek.nn.Module):
            def forward(self, x: Any) -> Any:
                return x * 3

        net = Net()
        return lambda x: net(x), setting(Net, "__call__", lambda self, x: x * 2)

    check(program)


def test_attributes_that_a_module_computes() -> None:
    def program() -> Case:
        config = Config()

        class Net(ek.nn.Module):
            def __getattr__(self, name: str) -> float:
                if name != "rate":
                    raise AttributeError(name)
                return config.rate

            def forward(self, x: Any) -> Any:
                return x * self.rate

        return Net(), setting(config, "rate", 2.0)

    check(program)


def test_a_module_that_looks_up_its_attributes_itself() -> None:
    def program() -> Case:
        config = Config()

        class Net(ek.nn.Module):
            def __init__(self) -> None:
                self.rate = 1.0

            def __getattribute__(self, name: str) -> Any:
                found = super().__getattribute__(name)
                return found * config.rate if name == "rate" else found

            def forward(self, x: Any) -> Any:
                return x * self.rate

        return Net(), setting(config, "rate", 2.0)

    check(program)
