"""TensorFlow's fused updates: each reads and writes a weight and its state once, in place."""

import math
from typing import Any

import keras

if keras.backend.backend() == "tensorflow":
    from tensorflow import cast, raw_ops


def gradient_descent(w: Any, g: Any, learning_rate: Any) -> None:
    """Set w ← w - η g."""
    raw_ops.ResourceApplyGradientDescent(var=w.handle, alpha=learning_rate, delta=g)


def heavy_ball(
    w: Any, g: Any, learning_rate: Any, step: Any, momentum: float, nesterov: bool = False
) -> None:
    """Set Δw ← μ Δw - η g, then w ← w + Δw or, with `nesterov`, w ← w + μ Δw - η g."""
    raw_ops.ResourceApplyKerasMomentum(
        var=w.handle,
        accum=step.handle,
        lr=learning_rate,
        grad=g,
        momentum=momentum,
        use_nesterov=nesterov,
    )


def adam(
    w: Any, g: Any, rate: Any, m: Any, v: Any, beta_1: float, beta_2: float, epsilon: float
) -> None:
    """Set m ← m + (1 - β₁)(g - m), v ← v + (1 - β₂)(g² - v), w ← w - α m / (√v + ε).

    The kernel computes 1 - β in the type of the weights, where 1 - 0.999 is off by 1.3e-5 in
    float32. Means of that scale are made up for in the rate.
    """
    off_1, off_2 = ((1 - w.dtype.as_numpy_dtype(beta)) / (1 - beta) for beta in (beta_1, beta_2))
    raw_ops.ResourceApplyAdam(
        var=w.handle,
        m=m.handle,
        v=v.handle,
        beta1_power=cast(0, w.dtype),  # the bias is corrected in the rate
        beta2_power=cast(0, w.dtype),
        lr=rate * cast(math.sqrt(off_2) / off_1, w.dtype),
        beta1=beta_1,
        beta2=beta_2,
        epsilon=epsilon,
        grad=g,
    )


def rmsprop(
    w: Any,
    g: Any,
    learning_rate: Any,
    v: Any,
    step: Any,
    rho: float,
    momentum: float,
    epsilon: float,
) -> None:
    """Set v ← ρ v + (1 - ρ) g², Δw ← μ Δw + η g / √(v + ε), w ← w - Δw."""
    raw_ops.ResourceApplyRMSProp(
        var=w.handle,
        ms=v.handle,
        mom=step.handle,
        lr=learning_rate,
        rho=rho,
        momentum=momentum,
        epsilon=epsilon,
        grad=g,
    )
