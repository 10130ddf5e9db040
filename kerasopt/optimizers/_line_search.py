"""Line searches that ask for one value of the loss and its slope at a time.

A search is a dictionary of scalars: at `step` along the direction the loss is asked for; `f0` and
`slope0` are those at step 0. `advance` takes the loss f and its slope there, and returns the search
with the next step, whether the step just taken is accepted, and whether the search is to be given
up, with `best`, the best step seen, and `f_best`.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from keras import ops

Search: TypeAlias = dict[str, Any]

DECREASE, CURVATURE, CLOSE = 1e-3, 0.9, 0.1  # as in L-BFGS-B
LONGEST = 1e10
NAMES = (
    *("step", "f0", "slope0", "best", "f_best", "slope_best"),
    *("other", "f_other", "slope_other", "low", "high", "width", "width_before"),
    *("bracketed", "second_stage", "tries"),
)


def started(f: Any, slope: Any, step: Any) -> Search:
    """Return a search that has not asked yet."""
    zero = ops.zeros_like(f)
    return {
        "step": step,
        "f0": f,
        "slope0": slope,
        **{"best": zero, "f_best": f, "slope_best": slope},
        **{"other": zero, "f_other": f, "slope_other": slope},
        **{"low": zero, "high": 5 * step},
        **{"width": zero + LONGEST, "width_before": zero + 2 * LONGEST},
        **{"bracketed": zero, "second_stage": zero, "tries": zero},
    }


def none(search: Search, f: Any, slope: Any) -> tuple[Search, Any, Any]:
    """Accept the first step, if the loss is finite."""
    fine = ops.isfinite(f)
    return search, fine, ops.logical_not(fine)


def armijo(search: Search, f: Any, slope: Any) -> tuple[Search, Any, Any]:
    """Accept what falls by a part of what the slope promises; else go back by a parabola.

    Armijo 1966; the parabola through f0, slope0 and f: Nocedal & Wright 2006, equation 3.58.
    """
    step, f0, slope0 = (search[name] for name in ("step", "f0", "slope0"))
    accepted = ops.logical_and(ops.isfinite(f), f <= f0 + DECREASE * step * slope0)
    parabola = -slope0 * step * step / (2 * (f - f0 - slope0 * step))
    shorter = ops.where(ops.isfinite(f), ops.clip(parabola, step / 10, step / 2), step / 10)
    return {**search, "step": shorter}, accepted, ops.zeros_like(accepted)


def strong_wolfe(search: Search, f: Any, slope: Any) -> tuple[Search, Any, Any]:
    """Accept what falls enough and is flat enough: the strong Wolfe conditions.

    Moré & Thuente, Line search algorithms with guaranteed sufficient decrease, 1994: an interval is
    found and made shorter by cubic and quadratic interpolation; it is that of L-BFGS-B.
    """
    s = search
    step, gentle = s["step"], DECREASE * s["slope0"]
    enough = s["f0"] + step * gentle
    finite = ops.logical_and(ops.isfinite(f), ops.isfinite(slope))
    falls = ops.logical_and(finite, f <= enough)
    accepted = ops.logical_and(falls, ops.abs(slope) <= -CURVATURE * s["slope0"])
    second = ops.logical_or(s["second_stage"] > 0, ops.logical_and(falls, slope >= 0))
    bracketed = s["bracketed"] > 0
    outside = ops.logical_or(step <= s["low"], step >= s["high"])
    narrow = s["high"] - s["low"] <= CLOSE * s["high"]
    failed = ops.logical_and(bracketed, ops.logical_or(outside, narrow))

    # In the first stage, where the loss has fallen, but not enough, a tilted loss has a minimum.
    tilted = ops.logical_and(ops.logical_not(second), f > enough)
    tilt = ops.where(ops.logical_and(tilted, f <= s["f_best"]), gentle, 0.0)
    best = (s["best"], s["f_best"] - s["best"] * tilt, s["slope_best"] - tilt)
    other = (s["other"], s["f_other"] - s["other"] * tilt, s["slope_other"] - tilt)
    here = (step, f - step * tilt, slope - tilt)
    trial, bracketed, best, other = _interval(best, other, here, bracketed, s["low"], s["high"])
    renewed = {
        **dict(zip(("best", "f_best", "slope_best"), _tilted(best, tilt), strict=True)),
        **dict(zip(("other", "f_other", "slope_other"), _tilted(other, tilt), strict=True)),
        **_trial(s, trial, bracketed, best[0], other[0]),
        "bracketed": ops.cast(bracketed, f.dtype),
        "second_stage": ops.cast(second, f.dtype),
    }
    back = s["best"] + 0.1 * (step - s["best"])  # from where the loss is no number
    kept = {name: ops.where(finite, value, s[name]) for name, value in renewed.items()}
    return {**s, **kept, "step": ops.where(finite, renewed["step"], back)}, accepted, failed


def _tilted(point: "Point", tilt: Any) -> "Point":
    """Undo the tilt of a point."""
    return point[0], point[1] + point[0] * tilt, point[2] + tilt


def _trial(s: Search, trial: Any, bracketed: Any, best: Any, other: Any) -> Search:
    """Return the next step: the middle where the interval shrinks slowly, within its bounds."""
    width = ops.abs(other - best)
    slow = ops.logical_and(bracketed, width >= 0.66 * s["width_before"])
    trial = ops.where(slow, best + 0.5 * (other - best), trial)
    low = ops.where(bracketed, ops.minimum(best, other), trial + 1.1 * (trial - best))
    high = ops.where(bracketed, ops.maximum(best, other), trial + 4.0 * (trial - best))
    trial = ops.clip(trial, 0.0, LONGEST)
    outside = ops.logical_or(trial <= low, trial >= high)
    stuck = ops.logical_and(bracketed, ops.logical_or(outside, high - low <= CLOSE * high))
    return {
        "step": ops.where(stuck, best, trial),
        "low": low,
        "high": high,
        "width": ops.where(bracketed, width, s["width"]),
        "width_before": ops.where(bracketed, s["width"], s["width_before"]),
    }


SEARCHES: dict[str | None, Callable[[Search, Any, Any], tuple[Search, Any, Any]]] = {
    "strong_wolfe": strong_wolfe,
    "armijo": armijo,
    None: none,
}

Point: TypeAlias = tuple[Any, Any, Any]  # a step, the loss and its slope


def _interval(
    best: Point, other: Point, here: Point, bracketed: Any, low: Any, high: Any
) -> tuple[Any, Any, Point, Point]:
    """Return the next step, whether a minimum is bracketed, and the ends of the interval.

    The four cases are those of Moré & Thuente, section 4.
    """
    (x, f_x, d_x), (y, *_), (t, f_t, d_t) = best, other, here
    higher = f_t > f_x
    turned = d_t * ops.sign(d_x) < 0
    flatter = ops.abs(d_t) < ops.abs(d_x)
    to_end = ops.where(t > x, high, low)
    secant = t + d_t / (d_t - d_x) * (x - t)

    cubic, _ = _cubic(best, here)
    parabola = x + d_x / ((f_x - f_t) / (t - x) + d_x) / 2 * (t - x)
    middle = cubic + (parabola - cubic) / 2
    case_1 = ops.where(ops.abs(cubic - x) <= ops.abs(parabola - x), cubic, middle)

    cubic, inside = _cubic(here, best)
    farther = ops.abs(cubic - t) > ops.abs(secant - t)
    case_2 = ops.where(farther, cubic, secant)

    cubic = ops.where(inside, cubic, to_end)
    nearer = ops.where(ops.abs(cubic - t) < ops.abs(secant - t), cubic, secant)
    limit = t + 0.66 * (y - t)
    nearer = ops.where(t > x, ops.minimum(limit, nearer), ops.maximum(limit, nearer))
    farther = ops.where(ops.abs(cubic - t) > ops.abs(secant - t), cubic, secant)
    case_3 = ops.where(bracketed, nearer, ops.clip(farther, low, high))

    case_4 = ops.where(bracketed, _cubic(here, other)[0], to_end)

    flat = ops.where(flatter, case_3, case_4)
    trial = ops.where(higher, case_1, ops.where(turned, case_2, flat))
    bracketed = ops.logical_or(bracketed, ops.logical_or(higher, turned))
    end = _chosen(higher, here, _chosen(turned, best, other))
    return trial, bracketed, _chosen(higher, best, here), end


def _chosen(condition: Any, a: Point, b: Point) -> Point:
    one, two, three = (ops.where(condition, *pair) for pair in zip(a, b, strict=True))
    return one, two, three


def _cubic(a: Point, b: Point) -> tuple[Any, Any]:
    """Return the minimum of the cubic through two points, and whether it lies on the side of b."""
    (x, f_x, d_x), (y, f_y, d_y) = a, b
    theta = 3 * (f_x - f_y) / (y - x) + d_x + d_y
    scale = ops.maximum(ops.abs(theta), ops.maximum(ops.abs(d_x), ops.abs(d_y)))
    square = (theta / scale) ** 2 - (d_x / scale) * (d_y / scale)
    gamma = scale * ops.sqrt(ops.maximum(square, 0.0)) * ops.sign(y - x)
    ratio = ((gamma - d_x) + theta) / (((gamma - d_x) + gamma) + d_y)
    return x + ratio * (y - x), ops.logical_and(ratio < 0, gamma != 0)
