"""Gradients of linear algebra, written with the functions themselves.

g, gU, ... are cotangents, A^H the adjoint (the transpose of real matrices). The formulas are those
of M. Giles, "Collected matrix derivative results for forward and reverse mode algorithmic
differentiation", 2008, for inverse, determinant and solve; of M. Seeger et al., "Auto-
differentiating linear algebra", 2017, for cholesky, qr and eigh; of J. Townsend, "Differentiating
the singular value decomposition", 2016; of H.-J. Liao et al., "Differentiable programming tensor
networks", 2019, for qr of wide matrices; of G. Golub, V. Pereyra, "The differentiation of pseudo-
inverses and nonlinear least squares problems", 1973; of R. Mathias, "A chain rule for matrix
functions and applications", 1996, for expm; and of C. Boeddeker et al., "On the computation of
complex-valued gradients with application to statistically optimum beamforming", 2017, for eig.

Where eigenvalues or singular values repeat, vectors have no derivative: differences of equal values
are divided by, and the gradient is infinite or NaN. That of the values alone is right there, too.
"""

from __future__ import annotations

from einkorn.ir.dtypes import DType
from einkorn.ir.errors import StateError
from einkorn.ir.node import Node, make, project
from einkorn.ir.ops import Op
from einkorn.passes.build import add, div, filled, mul, neg, sub, times, zeros
from einkorn.passes.gradients.matrices import (
    adjoint,
    antihermitian,
    columns,
    conj,
    diagonal,
    diagonal_matrix,
    first_columns,
    first_rows,
    hermitian,
    host,
    host_parts,
    last_columns,
    like,
    lower,
    off_diagonal,
    product,
    real,
    rows,
    upper,
    where,
)
from einkorn.passes.gradients.rule import Contributions, HostRule, Results

MSG_COMPLETE = (
    "qr with mode='complete' has no gradient for matrices with more rows than columns, because the "
    "added columns of q are not determined; use mode='reduced'"
)


def _part(node: Node, index: int) -> Node:
    return project(node, index)


def _spread(x: Node, over: Node) -> Node:
    """One number for each matrix, everywhere in it."""
    return rows(rows(x, over.shape[-2]), over.shape[-1])


def _as_complex(x: Node, dtype: DType) -> Node:
    return x if x.dtype is dtype else make(Op.CAST, x, dtype=dtype)


# -- equations and determinants --------------------------------------------------------------------


def _solve(node: Node, g: Results) -> Contributions:
    """gB = A^-H g,  gA = -gB X^H"""
    a = node.inputs[0]
    b = host("solve", adjoint(a), g[0])
    return neg(product(b, adjoint(node))), b


def _inv(node: Node, g: Results) -> Contributions:
    """-Y^H g Y^H"""
    turned = adjoint(node)
    return (neg(product(turned, g[0], turned)),)


def _det(node: Node, g: Results) -> Contributions:
    """g conj(det) A^-H: of a singular matrix there is no inverse, and LinAlgError is raised."""
    (a,) = node.inputs
    scale = mul(g[0], conj(node))
    return (mul(_spread(scale, a), adjoint(host("inv", a))),)


def _slogdet(node: Node, g: Results) -> Contributions:
    """(g + i Im(conj(sign) gSign)) A^-H; the sign of a real determinant does not move."""
    (a,) = node.inputs
    scale = zeros(_part(node, 1).tensor) if 1 not in g else g[1]
    scale = _as_complex(scale, a.dtype)
    if 0 in g and a.dtype.is_complex:
        turn = host("imag", mul(conj(_part(node, 0)), g[0]))
        scale = add(scale, host("complex", zeros(turn.tensor), turn))
    return (mul(_spread(scale, a), adjoint(host("inv", a))),)


def _pinv(node: Node, g: Results) -> Contributions:
    """-P^H g P^H + (I - A P) g^H P P^H + P^H P g^H (I - P A)"""
    a, _ = node.inputs
    p, turned, back = node, adjoint(node), adjoint(g[0])
    first = neg(product(turned, g[0], turned))
    left = product(back, p, turned)
    right = product(turned, p, back)
    second = sub(left, product(a, p, left))
    third = sub(right, product(right, p, a))
    return add(first, add(second, third)), None


def _expm(node: Node, g: Results) -> Contributions:
    """The upper right block of exp([[A^H, g], [0, A^H]])"""
    (a,) = node.inputs
    n, rank = a.shape[-1], len(a.shape)
    turned = adjoint(a)
    top = make(Op.CONCAT, turned, g[0], axis=rank - 1)
    bottom = make(Op.CONCAT, zeros(a.tensor), turned, axis=rank - 1)
    both = host("expm", make(Op.CONCAT, top, bottom, axis=rank - 2))
    return (last_columns(first_rows(both, n), n),)


# -- factors ---------------------------------------------------------------------------------------


def _cholesky(node: Node, g: Results) -> Contributions:
    """(S + S^H) / 2 with S = L^-H P(L^H gL) L^-1, P(X) the lower triangle, its diagonal halved"""
    inverse = host("inv", node)
    inner = lower(product(adjoint(node), lower(g[0])))
    inner = sub(inner, times(where(Op.EQ, inner), 0.5))
    return (hermitian(product(adjoint(inverse), inner, inverse)),)


def _qr(node: Node, g: Results) -> Contributions:
    """A tall matrix has one formula; a wide one is [X Y] = Q [U V] with X = Q U and V = Q^H Y."""
    (a,) = node.inputs
    *_, m, n = a.shape
    q, r = _part(node, 0), _part(node, 1)
    if q.shape[-1] > min(m, n):
        raise StateError(MSG_COMPLETE)
    g_q = g.get(0) or zeros(q.tensor)
    g_r = g.get(1) or zeros(r.tensor)
    if m >= n:
        return (_tall_qr(q, r, g_q, g_r),)
    y, g_v = last_columns(a, m), last_columns(g_r, m)
    g_q = add(g_q, product(y, adjoint(g_v)))
    g_x = _tall_qr(q, first_columns(r, m), g_q, first_columns(g_r, m))
    return (make(Op.CONCAT, g_x, product(q, g_v), axis=len(a.shape) - 1),)


def _tall_qr(q: Node, r: Node, g_q: Node, g_r: Node) -> Node:
    """(gQ + Q sym(gR R^H - Q^H gQ)) R^-H, sym(X) the Hermitian matrix with the upper part of X"""
    inner = upper(sub(product(g_r, adjoint(r)), product(adjoint(q), g_q)))
    inner = hermitian(sub(times(inner, 2), where(Op.EQ, inner)))
    outer = add(g_q, product(q, inner))
    return adjoint(host("solve", r, adjoint(outer)))


# -- eigenvalues -----------------------------------------------------------------------------------


def _differences(values: Node) -> Node:
    """E[i, j] = values[j] - values[i], and 1 on the diagonal."""
    n = values.shape[-1]
    found = sub(columns(values, n), rows(values, n))
    return add(off_diagonal(found), where(Op.EQ, filled(found.tensor, 1)))


def _eigh(node: Node, g: Results) -> Contributions:
    """V (diag(gw) + (V^H gV) / E) V^H, its Hermitian part"""
    (a,) = node.inputs
    values, vectors = _part(node, 0), _part(node, 1)
    inner = zeros(a.tensor)
    if 1 in g:
        gaps = _as_complex(_differences(values), a.dtype)
        inner = div(off_diagonal(product(adjoint(vectors), g[1])), gaps)
    if 0 in g:
        inner = add(inner, diagonal_matrix(_as_complex(g[0], a.dtype)))
    return (hermitian(product(vectors, inner, adjoint(vectors))),)


def _eigvalsh(node: Node, g: Results) -> Contributions:
    """V diag(g) V^H"""
    (a,) = node.inputs
    _, vectors = host_parts("eigh", a)
    scale = columns(_as_complex(g[0], a.dtype), a.shape[-1])
    return (hermitian(product(mul(vectors, scale), adjoint(vectors))),)


def _eig(node: Node, g: Results) -> Contributions:
    """V^-H (diag(gw) + (V^H gV - V^H V diag(Re(V^H gV))) / E^*) V^H"""
    (a,) = node.inputs
    values, vectors = _part(node, 0), _part(node, 1)
    inner = zeros(vectors.tensor)
    if 1 in g:
        moved = product(adjoint(vectors), g[1])
        length = _as_complex(real(diagonal(moved)), vectors.dtype)
        spread = mul(vectors, columns(length, a.shape[-1]))
        moved = sub(moved, product(adjoint(vectors), spread))
        inner = div(off_diagonal(moved), conj(_differences(values)))
    if 0 in g:
        inner = add(inner, diagonal_matrix(g[0]))
    found = host("solve", adjoint(vectors), product(inner, adjoint(vectors)))
    return (like(found, a),)


def _eigvals(node: Node, g: Results) -> Contributions:
    """V^-H diag(g) V^H"""
    (a,) = node.inputs
    _, vectors = host_parts("eig", a)
    inner = mul(rows(g[0], a.shape[-1]), adjoint(vectors))
    return (like(host("solve", adjoint(vectors), inner), a),)


# -- singular values -------------------------------------------------------------------------------


def _svd(node: Node, g: Results) -> Contributions:
    """U (skew(U^H gU) / E S + S skew(V^H gV) / E + diag(gS)) V^H, and what leaves their spans.

    E[i, j] = s[j]^2 - s[i]^2. Of full matrices, columns beyond the smaller side have none.
    """
    (a,) = node.inputs
    *_, m, n = a.shape
    k = min(m, n)
    u = first_columns(_part(node, 0), k)
    s, vh = _part(node, 1), first_rows(_part(node, 2), k)
    v = adjoint(vh)
    wide = _as_complex(s, a.dtype)
    across, down = columns(wide, k), rows(wide, k)
    gaps = _differences(mul(wide, wide))
    inner, beyond = zeros(gaps.tensor), None
    if 0 in g:
        g_u = first_columns(g[0], k)
        inside = product(adjoint(u), g_u)
        inner = mul(div(off_diagonal(antihermitian(inside)), gaps), across)
        if a.dtype.is_complex:
            inner = add(inner, _phase(inside, wide))
        if m > k:
            beyond = product(div(sub(g_u, product(u, inside)), columns(wide, m)), vh)
    if 2 in g:
        g_v = adjoint(first_rows(g[2], k))
        inside = product(vh, g_v)
        inner = add(inner, mul(down, div(off_diagonal(antihermitian(inside)), gaps)))
        if n > k:
            rest = div(adjoint(sub(g_v, product(v, inside))), rows(wide, n))
            beyond = product(u, rest) if beyond is None else add(beyond, product(u, rest))
    if 1 in g:
        inner = add(inner, diagonal_matrix(_as_complex(g[1], a.dtype)))
    found = product(u, inner, vh)
    return (found if beyond is None else add(found, beyond),)


def _phase(inside: Node, s: Node) -> Node:
    """i Im(diag(U^H gU)) / s: what turns a vector of U by a phase and leaves V."""
    turn = host("imag", diagonal(inside))
    return diagonal_matrix(div(host("complex", zeros(turn.tensor), turn), s))


def _svdvals(node: Node, g: Results) -> Contributions:
    """U diag(g) V^H"""
    (a,) = node.inputs
    u, _, vh = host_parts("svd", a, (0,))
    return (product(mul(u, columns(_as_complex(g[0], a.dtype), a.shape[-2])), vh),)


RULES: dict[str, HostRule] = {
    "cholesky": _cholesky,
    "det": _det,
    "eig": _eig,
    "eigh": _eigh,
    "eigvals": _eigvals,
    "eigvalsh": _eigvalsh,
    "expm": _expm,
    "inv": _inv,
    "pinv": _pinv,
    "qr": _qr,
    "slogdet": _slogdet,
    "solve": _solve,
    "svd": _svd,
    "svdvals": _svdvals,
}
