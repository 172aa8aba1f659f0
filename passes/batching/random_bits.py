"""Batching of `random_bits`: a key or counter for each example, with the bits of a draw of its own.

The op takes one key. For many, Philox4x32-10 is stated with ops on integers, as ir/numpy_rules.py
states it with NumPy: word i of an example is word i mod 4 of block (key, draw, i // 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from einkorn.ir.dtypes import uint32, uint64
from einkorn.ir.node import Node, make
from einkorn.ir.ops import Op
from einkorn.passes.batching.rule import Rule, everywhere
from einkorn.passes.build import add, broadcast, filled, mul, reshape, slice_axis

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_STEPS = 0x9E3779B9, 0xBB67AE85
_LOW, _HALF, _ROUNDS = 0xFFFFFFFF, 32, 10


def _xor(*parts: Node) -> Node:
    first, *rest = parts
    for part in rest:
        first = make(Op.XOR, first, part)
    return first


def _low(x: Node) -> Node:
    return make(Op.AND, x, filled(x.tensor, _LOW))


def _high(x: Node) -> Node:
    return make(Op.SHIFT_RIGHT, x, filled(x.tensor, _HALF))


def random_bits(node: Node, operands: Sequence[Node], batched: Sequence[bool], size: int) -> Node:
    """Each example's draw, its words as 64-bit integers below 2**32 until the end."""
    count = prod(node.shape)
    blocks = -(-count // 4)
    shape = (size, blocks)
    key, draw = (
        broadcast(reshape(x, (size, 1)), shape) for x in everywhere(operands, batched, size)
    )
    block = broadcast(make(Op.IOTA, size=blocks, dtype=uint64), shape)
    words = [_low(block), _high(block), _low(draw), _high(draw)]
    keys = [_low(key), _high(key)]
    for _ in range(_ROUNDS):
        even, odd = (mul(words[k], filled(key.tensor, m)) for k, m in zip((0, 2), _MULTIPLIERS))
        words = [
            _xor(_high(odd), words[1], keys[0]),
            _low(odd),
            _xor(_high(even), words[3], keys[1]),
            _low(even),
        ]
        keys = [_low(add(k, filled(k.tensor, step))) for k, step in zip(keys, _STEPS)]
    lanes = (reshape(make(Op.CAST, x, dtype=uint32), (*shape, 1)) for x in words)
    flat = reshape(make(Op.CONCAT, *lanes, axis=2), (size, 4 * blocks))
    return reshape(slice_axis(flat, 1, 0, count), (size, *node.shape))


RULES: dict[Op, Rule] = {Op.RANDOM_BITS: random_bits}
