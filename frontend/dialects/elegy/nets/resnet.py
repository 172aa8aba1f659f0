"""Residual networks for images [N, H, W, C] (He et al., 2016)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from einkorn.dialects.elegy.modules import Module
from einkorn.dialects.elegy.nn import BatchNormalization, Conv2D, Linear, MaxPool
from einkorn.functions.elementwise import relu
from einkorn.functions.statistical import mean
from einkorn.initializers import Zeros
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import EinkornError
from einkorn.tensor import Tensor

CLASSES = 1000
MSG_WEIGHTS = "{name}: weights is None or a file that `save` wrote, got {given!r}"


class ResNetBlock(Module):
    """Two convolutions and what they are added to: [N, H, W, C] -> [N, H', W', n_filters]."""

    expansion = 1

    def __init__(
        self,
        n_filters: int,
        strides: tuple[int, int] = (1, 1),
        name: str | None = None,
        dtype: Any = float32,
    ) -> None:
        super().__init__(name, dtype)
        self.n_filters, self.strides = n_filters, strides

    def call(self, x: Any) -> Tensor:
        y = relu(self._normed(x, self.n_filters, 3, self.strides))
        return self._joined(x, self._normed(y, self.n_filters, 3))

    def _normed(
        self, x: Any, filters: int, size: int, strides: Any = (1, 1), scale_init: Any = None
    ) -> Any:
        convolution = Conv2D(filters, (size, size), strides, with_bias=False, dtype=self.dtype)
        y = convolution(x)
        return BatchNormalization(
            decay_rate=0.9, eps=1e-5, scale_init=scale_init, dtype=self.dtype
        )(y)

    def _joined(self, x: Any, y: Any) -> Tensor:
        """The sum with the input, which is projected where its shape is another."""
        if x.shape != y.shape:
            x = self._normed(x, self.n_filters * self.expansion, 1, self.strides)
        return relu(x + y)


class BottleneckResNetBlock(ResNetBlock):
    """A convolution between two of size 1, which has four times as many filters as it."""

    expansion = 4

    def call(self, x: Any) -> Tensor:
        y = relu(self._normed(x, self.n_filters, 1))
        y = relu(self._normed(y, self.n_filters, 3, self.strides))
        return self._joined(x, self._normed(y, self.n_filters * 4, 1, scale_init=Zeros))


class ResNet(Module):
    """[N, H, W, C] -> [N, 1000].

    Args:
        stages: how many blocks each has.
        block_type: ResNetBlock or BottleneckResNetBlock.
        lowres: a first convolution of size 3 without a stride, for images such as 32 x 32.
        weights: a file that `save` wrote; None for first values.
    """

    def __init__(
        self,
        stages: Sequence[int],
        block_type: type[ResNetBlock],
        lowres: bool = False,
        weights: str | os.PathLike[str] | None = None,
        dtype: Any = float32,
        name: str | None = None,
    ) -> None:
        super().__init__(name, dtype)
        self.stages, self.block_type, self.lowres = tuple(stages), block_type, lowres
        if weights is not None:
            if not os.path.isfile(weights):
                raise EinkornError(MSG_WEIGHTS.format(name=type(self).__name__, given=weights))
            self.init(np.zeros((1, 64, 64, 3), np.float32))
            self.load(weights)

    def call(self, x: Any) -> Tensor:
        size, stride = (3, 1) if self.lowres else (7, 2)
        x = Conv2D(64, (size, size), stride, with_bias=False, dtype=self.dtype)(x)
        x = relu(BatchNormalization(decay_rate=0.9, eps=1e-5, dtype=self.dtype)(x))
        if not self.lowres:
            x = MaxPool((3, 3, 1), (2, 2, 1), "SAME")(x)
        for stage, blocks in enumerate(self.stages):
            for k in range(blocks):
                strides = (2, 2) if stage and not k else (1, 1)
                x = self.block_type(64 * 2**stage, strides, dtype=self.dtype)(x)
        return Linear(CLASSES, dtype=self.dtype)(mean(x, axis=(1, 2)))


class _Known(ResNet):
    depths: tuple[int, ...] = ()
    block: type[ResNetBlock] = ResNetBlock

    def __init__(
        self,
        lowres: bool = False,
        weights: str | os.PathLike[str] | None = None,
        dtype: Any = float32,
        name: str | None = None,
    ) -> None:
        super().__init__(self.depths, self.block, lowres, weights, dtype, name)


class ResNet18(_Known):
    """17 convolutions and a product."""

    depths = (2, 2, 2, 2)


class ResNet34(_Known):
    """33 convolutions and a product."""

    depths = (3, 4, 6, 3)


class ResNet50(_Known):
    """49 convolutions and a product."""

    depths, block = (3, 4, 6, 3), BottleneckResNetBlock


class ResNet101(_Known):
    """100 convolutions and a product."""

    depths, block = (3, 4, 23, 3), BottleneckResNetBlock


class ResNet152(_Known):
    """151 convolutions and a product."""

    depths, block = (3, 8, 36, 3), BottleneckResNetBlock


class ResNet200(_Known):
    """199 convolutions and a product."""

    depths, block = (3, 24, 36, 3), BottleneckResNetBlock
