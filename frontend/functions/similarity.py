"""Structural similarity of images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from einkorn.autocast import single_precision
from einkorn.convert import as_int, as_number
from einkorn.functions import elementwise as ew
from einkorn.functions.convolution import conv
from einkorn.functions.creation import asarray
from einkorn.functions.losses import reduced
from einkorn.functions.manipulation import broadcast_to, concat, moveaxis
from einkorn.functions.more_losses import same_floats
from einkorn.functions.statistical import mean
from einkorn.ir.errors import ShapeError

if TYPE_CHECKING:
    from einkorn.tensor import Tensor


@single_precision
def ssim_loss(
    pred: Any,
    target: Any,
    /,
    *,
    data_range: Any = 1.0,
    window: int = 11,
    sigma: Any = 1.5,
    k1: Any = 0.01,
    k2: Any = 0.03,
    data_format: str = "NHWC",
    reduction: str = "mean",
) -> Tensor:
    """1 - SSIM of pairs of images, one loss for each (Wang et al., 2004).

    With means m, variances v and the covariance c under a Gaussian window that moves over the
    images, each channel by itself, SSIM is the mean of

        (2 mx my + C1) (2 c + C2) / ((mx² + my² + C1) (vx + vy + C2)),  Ci = (ki data_range)²

    over the positions where the window lies inside of the image.

    Args:
        pred, target: (n, height, width, channels), of one shape.
        data_range: what lies between the least and the largest value that a pixel may have.
        window: the side of the window, at most that of the images.
        sigma: the standard deviation of the window, in pixels.
        data_format: "NHWC" or "NCHW".
        reduction: "none" for (n,), "sum" or "mean".
    """
    x, y = same_floats("ssim_loss", pred, target)
    side = as_int("ssim_loss", window)
    if data_format == "NCHW":
        x, y = moveaxis(x, 1, -1), moveaxis(y, 1, -1)
    elif data_format != "NHWC":
        raise ShapeError(f'ssim_loss: data_format is "NHWC" or "NCHW", got {data_format!r}')
    if x.ndim != 4 or not 1 <= side <= min(x.shape[1:3]):
        raise ShapeError(
            f"ssim_loss: a window of {side} needs images (n, height, width, channels) of that size "
            f"or more, got {x._type}; give window="
        )
    spread = as_number("ssim_loss", sigma, "sigma is a number")
    if not spread > 0:
        raise ShapeError(f"ssim_loss: sigma must be positive, got {sigma!r}")
    both = concat([x, y, ew.square(x), ew.square(y), ew.multiply(x, y)], axis=0)
    mx, my, xx, yy, xy = _parts(_blurred(both, _gaussian(side, spread)), x.shape[0])
    low, high = (ew.square(ew.multiply(asarray(k, dtype=x.dtype), data_range)) for k in (k1, k2))
    product, squares = ew.multiply(mx, my), ew.add(ew.square(mx), ew.square(my))
    above = ew.multiply(
        ew.add(ew.multiply(product, 2), low),
        ew.add(ew.multiply(ew.subtract(xy, product), 2), high),
    )
    below = ew.multiply(ew.add(squares, low), ew.add(ew.subtract(ew.add(xx, yy), squares), high))
    similarity = mean(ew.divide(above, below), axis=(1, 2, 3))
    return reduced("ssim_loss", ew.subtract(1, similarity), reduction)


def _gaussian(side: int, sigma: float) -> list[float]:
    """Weights of a window of one axis; their sum is 1."""
    weights = [math.exp(-((i - (side - 1) / 2) ** 2) / (2 * sigma**2)) for i in range(side)]
    return [weight / sum(weights) for weight in weights]


def _blurred(x: Tensor, weights: list[float]) -> Tensor:
    """The weighted means of windows, one axis after the other."""
    side, channels = len(weights), x.shape[-1]
    for window in ((side, 1), (1, side)):
        w = asarray(weights, dtype=x.dtype).reshape((1, *window, 1))
        x = conv(x, broadcast_to(w, (channels, *window, 1)), groups=channels)
    return x


def _parts(x: Tensor, size: int) -> list[Tensor]:
    return [x[first : first + size] for first in range(0, x.shape[0], size)]
