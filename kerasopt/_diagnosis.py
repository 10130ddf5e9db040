"""What learning curves say, in words."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kerasopt._histories import History, finite, read_history

LEAST = 5  # epochs

# Chosen on the runs of seed 0 of tests/diagnosis. All are shares: of the error at the start (scale)
# or of the error itself (level).
ROSE = 1.5  # an error that ends at so many times the first has diverged
ROUGH, ROUGH_LEVEL = 0.02, 0.06  # of scale, of level: how far the error oscillates
STILL_FALLING = 0.01  # of level: what the error loses in an epoch
STEADY = 0.9  # of the epochs
STAYED = 0.05  # of scale: the error has not moved
HIGH = 0.3  # of scale: the error rests high
TURNED, GAP = 0.15, 0.3  # of the lowest, of scale: how far validation is above
JUMPS, JUMPS_LEVEL = 4.0, 0.06  # times the training, of level
BELOW = 0.1  # of the training error

ADVICE = {
    "diverged": "Lower the rate tenfold (`callbacks.LearningRateFinder` finds one), or cut the "
    "gradient: `optimizers.GradientClipping`.",
    "rate_too_high": "Lower the rate, by 3 or 10, or let `callbacks.AdaptiveLearningRate` do it.",
    "rate_too_low": "Raise the rate tenfold (`callbacks.LearningRateFinder` finds one), let "
    "`callbacks.AdaptiveLearningRate` do it, or train longer.",
    "plateau": "Take an initialisation, activation or normalisation that keeps the gradient "
    "(`callbacks.GradientMonitor` shows it by layer), momentum (`optimizers.Momentum`), or rates "
    "of their own for the weights (`optimizers.Adam`).",
    "underfitting": "Take more units or layers, less of a penalty or dropout, or inputs that say "
    "more. It is not the rate, if another one (`callbacks.LearningRateFinder`) ends as high.",
    "overfitting": "Stop at the minimum (`callbacks.EarlyStopping`), take more samples or make "
    "some (`layers.RandomGaussianNoise`), dropout, a penalty of the weights, or a smaller network.",
    "noisy_validation": "Validate on more samples, or look at a moving average: `smooth` of "
    "`callbacks.LearningCurve` and `callbacks.EarlyStopping`.",
    "leak": "With dropout, noise or penalties that act in training alone this is as it should be: "
    "compare with `model.evaluate` on the training set. Else look for samples in both sets.",
    "converged": "More epochs will change little.",
}


class Finding(NamedTuple):
    """One thing that the curves show."""

    code: str
    evidence: str
    advice: str


class Diagnosis(NamedTuple):
    """What the curves of a training show, the most important first; `str` puts it in words."""

    findings: tuple[Finding, ...]

    @property
    def main(self) -> str:
        """The code of the first finding."""
        return self.findings[0].code

    def __str__(self) -> str:
        """Return one line for each finding."""
        lines = [f"- {code}: {evidence} {advice}" for code, evidence, advice in self.findings]
        return "\n".join(["What the curves show:", *lines])


def diagnose(history: History) -> Diagnosis:
    """Say what learning curves show: underfitting, overfitting, a wrong rate, and so on.

    Args:
        history: What `fit` returned, a `LearningCurve`, a dictionary of lists with `"loss"` and, if
            there was validation, `"val_loss"`; or the path of a CSV file that
            `keras.callbacks.CSVLogger` wrote. At least five epochs.

    Returns:
        The findings, the most important first, each with a `code`, the `evidence` in numbers, and
        `advice`: what to try. The codes:

        - `diverged`: the error is no number, or ends far above where it was.
        - `rate_too_high`: it oscillates.
        - `rate_too_low`: it falls steadily, and still fell when training ended.
        - `plateau`: it stays where it was, all the time or for the first third.
        - `underfitting`: it has come to rest at a high value.
        - `overfitting`: the error of the validation set has turned up, or is far above.
        - `noisy_validation`: the error of the validation set jumps, that of training does not.
        - `leak`: the error of the validation set is below that of training.
        - `converged`: none of these.

    Raises:
        TypeError: `history` is nothing of these.
        ValueError: It has no `"loss"`, or fewer than five epochs.

    Reference:
        X. Wang, Optimization for Training Deep Models, lecture, 2015, on learning curves.

    Example:
        >>> import kerasopt
        >>> falls, turns = [0.5**k for k in range(20)], [0.5 + 0.01 * k for k in range(20)]
        >>> kerasopt.diagnose({"loss": falls, "val_loss": turns}).main
        'overfitting'
    """
    epochs, values = read_history("history", history)
    if "loss" not in values or len(epochs) < LEAST:
        raise ValueError(
            f"`history` must hold 'loss' for at least {LEAST} epochs. "
            f"Received: {sorted(values)}, {len(epochs)} epochs"
        )
    found = [Finding(code, evidence, ADVICE[code]) for code, evidence in _findings(epochs, values)]
    return Diagnosis(tuple(found))


def _findings(epochs: list[int], values: dict[str, list[float]]) -> Iterator[tuple[str, str]]:
    """Yield code and evidence of what is found, the most important first."""
    every, t = finite(epochs, values["loss"])
    if len(t) < len(epochs):
        first = next(epoch for epoch in epochs if epoch not in every)
        yield "diverged", f"the error of epoch {first} is not a number."
        return
    val_epochs, v = finite(epochs, values.get("val_loss", [np.nan] * len(epochs)))
    scale = max(abs(t[0]), *abs(v[:1]), 1e-12)
    if t[-1] > ROSE * scale or t[-1] > 3 * t[0]:
        yield "diverged", f"the error rose from {t[0]:.3g} to {t[-1]:.3g}."
        return
    codes = [*_of_training(t, scale)]
    if len(v) >= LEAST:
        codes += _of_validation(t, v, val_epochs, scale)
    order = list(ADVICE)
    codes.sort(key=lambda each: order.index(each[0]))
    if not codes:
        yield "converged", f"the error came to rest at {level(t):.3g}, from {t[0]:.3g}."
    yield from codes


def _of_training(t: np.ndarray, scale: float) -> Iterator[tuple[str, str]]:
    """Yield what the training curve shows."""
    rest, rough = level(t), roughness(t)
    loss, steady = falling(t), float(np.mean(np.diff(t) < 0))
    if rough > ROUGH * scale and rough > ROUGH_LEVEL * rest:
        yield "rate_too_high", f"the error oscillates by {rough:.2g} around {rest:.3g}."
        return
    if loss > STILL_FALLING and steady >= STEADY and rest > HIGH / 3 * scale:
        yield (
            "rate_too_low",
            (
                f"the error fell in {steady:.0%} of the epochs, at the end by {loss:.1%} an epoch, "
                f"and is at {rest:.3g}, from {t[0]:.3g}."
            ),
        )
        return
    moved = t[0] - t
    if max(moved) < STAYED * scale:
        yield "plateau", f"the error stayed between {t.min():.4g} and {t.max():.4g}."
    elif rest > HIGH * scale and loss < STILL_FALLING:
        yield "underfitting", f"the error came to rest at {rest:.3g}, from {t[0]:.3g}."


def _of_validation(
    t: np.ndarray, v: np.ndarray, epochs: np.ndarray, scale: float
) -> Iterator[tuple[str, str]]:
    """Yield what the validation curve shows."""
    rest, above, lowest = level(v), level(v) - level(t), int(np.argmin(v))
    rise = rest - v[lowest]
    if (rise > TURNED * v[lowest] and rise > 0.02 * scale) or above > GAP * scale:
        yield (
            "overfitting",
            (
                f"the error of the validation set was lowest, {v[lowest]:.3g}, in epoch "
                f"{epochs[lowest]:.0f}, and ended at {rest:.3g}, that of training at "
                f"{level(t):.3g}."
            ),
        )
    rough = roughness(v)
    if rough > JUMPS * roughness(t) and rough > JUMPS_LEVEL * rest:
        yield (
            "noisy_validation",
            (
                f"from epoch to epoch the error of the validation set jumps by {rough:.2g}, that "
                f"of training by {roughness(t):.2g}."
            ),
        )
    if -above > BELOW * level(t):
        yield (
            "leak",
            (
                f"the error of the validation set, {rest:.3g}, is below that of training, "
                f"{level(t):.3g}."
            ),
        )


def level(values: np.ndarray) -> float:
    """Return where the values are at the end: the mean of the last eighth."""
    return float(np.mean(values[-max(2, len(values) // 8) :]))


def roughness(values: np.ndarray) -> float:
    """Return by how much values of the last half differ from the mean of their neighbours."""
    tail = values[-max(5, len(values) // 2) :]
    return float(np.mean(np.abs(tail[1:-1] - (tail[:-2] + tail[2:]) / 2)))


def falling(values: np.ndarray) -> float:
    """Return what share of itself the error loses in an epoch, over the last third."""
    tail = values[-max(4, len(values) // 3) :]
    half = len(tail) // 2
    before, after = tail[:half].mean(), tail[-half:].mean()
    return float((before - after) / (len(tail) - half) / max(abs(before), 1e-12))
