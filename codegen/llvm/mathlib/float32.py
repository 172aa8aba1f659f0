"""Constants of the 32-bit format.

The polynomials are minimax fits: Remez exchange in 50 digits, then rounded coefficient by
coefficient, fitting the remaining ones again after each (Brisebarre and Chevillard 2007).
"""

from __future__ import annotations

from einkorn.codegen.llvm.mathlib.formats import Format

FLOAT32 = Format(
    element="float",
    integer="i32",
    mantissa=23,
    bias=127,
    ln2_high=0.693145751953125,
    ln2_low=1.4286068e-06,
    half_pi=(1.5707964, -4.371139e-08, -1.7151245e-15),
    two_thirds=(0.6666667, -1.9868216e-08),
    exp_least=-104.5,
    exp_most=89.0,
    expm1_least=-18.0,
    silu_least=-110.0,
    tanh_most=10.0,
    erf_most=4.0,
    gelu_most=14.5,
    reduce_most=100000.0,
    exp=(
        0.49999994,
        0.16666514,
        0.04166806,
        0.008369549,
        0.0013843762,
    ),
    log=(
        0.3333331,
        -0.25000313,
        0.20002505,
        -0.16651605,
        0.14197803,
        -0.1267606,
        0.12318302,
        -0.10264164,
        0.041012455,
    ),
    sine=(
        -0.16666667,
        0.00833338,
        -0.0001985347,
        2.8366837e-06,
    ),
    cosine=(
        0.041666668,
        -0.0013888981,
        2.4822451e-05,
        -2.891886e-07,
    ),
    erf=(
        0.12837917,
        -0.37612626,
        0.11283579,
        -0.026853347,
        0.005187162,
        -0.0007997853,
        7.806903e-05,
    ),
    power=(
        0.39999998,
        0.28571972,
        0.22179729,
        0.19556412,
    ),
    tail_shift=3.0,
    tail_centre=0.1875,
    tail_first_low=1.620485e-08,
    tail=(
        0.79643375,
        3.413771,
        8.878631,
        8.854045,
        -18.808071,
        -45.82195,
        84.13257,
        203.68687,
        -597.35016,
        -643.35254,
        3352.1,
    ),
)
