"""Linear algebra: the extension `linalg` of the Python array API standard, and some more.

Functions of matrices take stacks of them: the last two axes are the matrix, those before count
examples. They are computed by LAPACK, in float32, float64 or complex dtypes; docs/linalg.md tells
what that costs, and about gradients.
"""

from einkorn.functions.equations import (
    cross,
    det,
    diagonal,
    expm,
    inv,
    lstsq,
    matrix_power,
    slogdet,
    solve,
    solve_triangular,
    trace,
)
from einkorn.functions.factors import (
    EighResult,
    EigResult,
    QRResult,
    SlogdetResult,
    SVDResult,
    cholesky,
    eig,
    eigh,
    eigvals,
    eigvalsh,
    matrix_rank,
    pinv,
    qr,
    svd,
    svdvals,
)
from einkorn.functions.linear_algebra import matmul, outer, tensordot, vecdot
from einkorn.functions.manipulation import matrix_transpose
from einkorn.functions.norms import matrix_norm, vector_norm

__all__ = [
    "EigResult",
    "EighResult",
    "QRResult",
    "SVDResult",
    "SlogdetResult",
    "cholesky",
    "cross",
    "det",
    "diagonal",
    "eig",
    "eigh",
    "eigvals",
    "eigvalsh",
    "expm",
    "inv",
    "lstsq",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "matrix_transpose",
    "outer",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_triangular",
    "svd",
    "svdvals",
    "tensordot",
    "trace",
    "vecdot",
    "vector_norm",
]
