"""einkorn: a tracing compiler for machine-learning training steps.

Eager, stateful Python in; one native call out; the same bits both ways.

    import einkorn as ek
"""

from einkorn import nn, optim, random
from einkorn import initializers as initializers
from einkorn.compile import Compiled, compile, eager, trace
from einkorn.container import Container
from einkorn.differentiation import grad, value_and_grad
from einkorn.functions.creation import (
    arange,
    asarray,
    empty,
    empty_like,
    eye,
    from_dlpack,
    full,
    full_like,
    linspace,
    meshgrid,
    ones,
    ones_like,
    tril,
    triu,
    zeros,
    zeros_like,
)
from einkorn.functions.elementwise import (
    abs,
    add,
    astype,
    bitwise_and,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    ceil,
    clip,
    cos,
    divide,
    equal,
    erf,
    exp,
    expm1,
    floor,
    floor_divide,
    greater,
    greater_equal,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    log,
    log1p,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    positive,
    pow,
    reciprocal,
    remainder,
    round,
    rsqrt,
    sign,
    sin,
    sqrt,
    square,
    subtract,
    tan,
    tanh,
    trunc,
    where,
)
from einkorn.functions.indexing import take, take_along_axis
from einkorn.functions.linear_algebra import matmul, outer, tensordot, vecdot
from einkorn.functions.manipulation import (
    broadcast_arrays,
    broadcast_to,
    concat,
    expand_dims,
    flatten,
    flip,
    matrix_transpose,
    moveaxis,
    pad,
    permute_dims,
    repeat,
    reshape,
    roll,
    squeeze,
    split,
    stack,
    swapaxes,
    tile,
    unstack,
)
from einkorn.functions.losses import one_hot
from einkorn.functions.searching import nonzero
from einkorn.functions.statistical import (
    all,
    any,
    argmax,
    argmin,
    cumulative_sum,
    logsumexp,
    max,
    mean,
    min,
    prod,
    std,
    sum,
    var,
)
from einkorn.ir.dtypes import (
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from einkorn.ir.errors import (
    BoundsError,
    DTypeError,
    EinkornError,
    IRError,
    ShapeError,
    StateError,
    TraceError,
)
from einkorn.ir.parse import parse
from einkorn.leaf import Leaf, Parameter, tensor
from einkorn.nn.module import Module
from einkorn.recording import no_grad
from einkorn.runtime.compiler import clear_caches
from einkorn.runtime.settings import override as settings
from einkorn.tensor import Tensor
from einkorn.tree import tree_leaves, tree_map

__version__ = "0.1.0"
__array_api_version__ = "2024.12"

bool = bool_
