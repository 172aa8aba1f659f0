"""Random nests of lists, tuples, dicts, modules and shared parts, against a second walk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from compile_checks import traces
from same_bits import assert_same_bits

import einkorn as ek
from einkorn import nn

X = np.linspace(-1, 1, 3, dtype=np.float32)
NESTS = (list, tuple, dict)


class Node(nn.Module):
    """Adds up what it holds, each thing as often as it is held."""

    def __init__(self, items: dict[str, Any]) -> None:
        self.names = tuple(items)
        for name, item in items.items():
            setattr(self, name, item)

    def forward(self, x: Any) -> Any:
        total = x * 1.0
        for name in self.names:
            total = total + 0.5 * amount(getattr(self, name, None), x)
        return ek.sin(total)


def amount(item: Any, x: Any) -> Any:
    """What an item adds."""
    if isinstance(item, nn.Module):
        return item(x)
    if isinstance(item, ek.Tensor):
        return item.astype("float32") * x
    found = item.values() if isinstance(item, dict) else item or ()
    return sum((amount(part, x) for part in found), start=ek.zeros(3))


class Maker:
    """Makes random nests; some parts are held again, and so shared."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.made: list[Any] = []
        self.count = 0

    def value(self, *shape: int) -> Any:
        return self.rng.normal(size=shape).astype(np.float32)

    def item(self, depth: int) -> Any:
        if self.made and self.rng.random() < 0.25:
            return self.made[self.rng.integers(len(self.made))]
        kinds: list[Callable[[], Any]] = [
            lambda: ek.Parameter(self.value(3)),
            lambda: ek.tensor(self.value(3)),
            lambda: ek.tensor(int(self.rng.integers(5)), trainable=False),
            lambda: nn.Linear(3, 3, bool(self.rng.integers(2))),
            lambda: None,
        ]
        if depth:
            kinds += [
                lambda: [self.item(depth - 1) for _ in range(self.rng.integers(4))],
                lambda: tuple(self.item(depth - 1) for _ in range(self.rng.integers(4))),
                lambda: {self.key(): self.item(depth - 1) for _ in range(self.rng.integers(4))},
                lambda: Node({self.name(): self.item(depth - 1) for _ in range(3)}),
            ]
        found = kinds[self.rng.integers(len(kinds))]()
        if found is not None:
            self.made.append(found)
        return found

    def name(self) -> str:
        self.count += 1
        return f"{'_' * self.rng.integers(3)}a{self.count}"

    def key(self) -> Any:
        self.count += 1
        return [self.count, f"k{self.count}", f"_k{self.count}"][self.rng.integers(3)]


def made(seed: int) -> Node:
    ek.random.seed(seed)
    maker = Maker(seed)
    return Node({maker.name(): maker.item(3) for _ in range(5)})


# -- the second walk -------------------------------------------------------------------------------


def inside(holder: Any) -> Iterator[tuple[str, Any]]:
    """The keys and items of a module or nest, as the guide to modules says."""
    if isinstance(holder, nn.Module):
        names = holder.names if isinstance(holder, Node) else ("w", "b")
        items = vars(holder).items()
        yield from ((name.lstrip("_"), item) for name, item in items if name in names)
    elif isinstance(holder, dict):
        yield from ((str(key).lstrip("_"), item) for key, item in holder.items())
    else:
        yield from ((f"v{k}", item) for k, item in enumerate(holder))


def every_path(holder: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All paths to all leaves and modules, in the order in which they are found."""
    for key, item in inside(holder):
        here = f"{path}/{key}" if path else key
        if isinstance(item, (nn.Module, *NESTS)):
            if isinstance(item, nn.Module):
                yield here, item
            yield from every_path(item, here)
        elif item is not None:
            yield here, item


def firsts(pairs: Iterator[tuple[str, Any]]) -> list[tuple[str, Any]]:
    found: dict[int, tuple[str, Any]] = {}
    for path, item in pairs:
        found.setdefault(id(item), (path, item))
    return list(found.values())


def expected(model: Node) -> tuple[list[tuple[str, Any]], ...]:
    """Parameters, buffers and modules with the first path of each."""
    items = firsts(every_path(model))
    leaves = [(path, item) for path, item in items if not isinstance(item, nn.Module)]
    return (
        [(path, leaf) for path, leaf in leaves if leaf.trainable],
        [(path, leaf) for path, leaf in leaves if not leaf.trainable],
        [("", model), *((path, item) for path, item in items if isinstance(item, nn.Module))],
    )


def check_names(model: Node) -> None:
    parameters, buffers, modules = expected(model)
    for found, wanted in (
        (model.v.flat_items(), parameters),
        (model.buffers.flat_items(), buffers),
        (model.named_modules(), modules),
    ):
        pairs = list(found)
        assert [path for path, _ in pairs] == [path for path, _ in wanted]
        assert all(one is other for (_, one), (_, other) in zip(pairs, wanted, strict=True))
    for path, item in every_path(model):
        if not isinstance(item, nn.Module):
            assert (model.v if item.trainable else model.buffers)[path] is item
    for path, module in modules[1:]:
        assert module.path == path
        assert module.root is model
    assert model.v is model.v
    assert model.parameters() == [leaf for _, leaf in parameters]
    assert list(model.state_dict()) == [
        path.replace("/", ".") for path, _ in (*parameters, *buffers)
    ]


# -- the checks ------------------------------------------------------------------------------------


def gradient(model: Node) -> Callable[[Any], Any]:
    if not model.parameters():
        return lambda x: (model(x), [])
    return ek.value_and_grad(lambda x: ek.sum(model(x) ** 2), model)


def check_bits(run: Callable[[Any], Any], eager: Callable[[Any], Any]) -> None:
    pairs = zip(ek.tree_leaves(run(X)), ek.tree_leaves(eager(X)), strict=True)
    for one, other in pairs:
        assert_same_bits(one, other)


@pytest.mark.parametrize("seed", range(30))
def test_random_nests(seed: int) -> None:
    model = made(seed)
    check_names(model)
    values, parts = model.v, model.modules()
    eager = gradient(model)
    run = ek.compile(lambda x: eager(x))
    for _ in range(2):
        check_bits(run, eager)
    assert traces(run) == 1
    assert model.v is values
    twin = made(seed)
    for leaf in twin.parameters():
        leaf.value = np.zeros(leaf.shape, np.float32)
    twin.load_state_dict(model.state_dict())
    assert_same_bits(twin(X), model(X))
    other = model.v.map(lambda leaf: leaf.numpy() * np.float32(2))
    given = model(X, v=other)
    check_bits(ek.compile(lambda x: model(x, v=other)), lambda x: given)
    twin.v = other
    assert_same_bits(twin(X), given)
    assert model.modules() == parts
    assert len({id(part) for part in parts}) == len(parts)


def change(holder: Any, rng: np.random.Generator) -> None:
    """Change the structure in one of some ways."""
    new = ek.Parameter(rng.normal(size=3).astype(np.float32))
    way = int(rng.integers(3))
    if isinstance(holder, list):
        if way and holder:
            holder.pop()
        else:
            holder.insert(int(rng.integers(len(holder) + 1)), new)
    elif isinstance(holder, dict):
        holder.pop(next(iter(holder))) if way and holder else holder.update(new=[new])
    elif holder.names:
        name = holder.names[int(rng.integers(len(holder.names)))]
        if way == 2 and name in vars(holder):
            delattr(holder, name)
        else:
            setattr(holder, name, (new,) if way else nn.Linear(3, 3))


def _holders(holder: Any) -> Iterator[tuple[str, Any]]:
    for key, item in inside(holder):
        if isinstance(item, (Node, list, dict)):
            yield key, item
        if isinstance(item, (Node, *NESTS)):
            yield from _holders(item)


@pytest.mark.parametrize("seed", range(12))
def test_changes_of_the_structure_are_seen(seed: int) -> None:
    model = made(seed + 100)
    model.extra, model.more = [ek.Parameter(X)], {"a": ek.Parameter(X)}
    model.names += ("extra", "more")
    run = ek.compile(lambda x: model(x))
    check_bits(run, model)
    before = model.v
    rng, old = np.random.default_rng(seed), list(before.flat_items())
    for _ in range(5):
        holders = [model, *(item for _, item in firsts(_holders(model)))]
        change(holders[int(rng.integers(len(holders)))], rng)
        check_names(model)
        check_bits(run, model)
        assert list(before.flat_items()) == old  # what was handed out stays as it was
    model.extra = [ek.Parameter(X)]
    check_names(model)
    before = model.v
    model.extra.append(nn.Linear(3, 3))
    check_names(model)
    assert "extra/v1/w" in model.v
    assert "extra/v1/w" not in before
    check_bits(run, model)
