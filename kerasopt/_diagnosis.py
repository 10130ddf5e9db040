"""What learning curves say, in words."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kerasopt._histories import History, finite, read_history

LEAST = 5  # epochs

# Chosen by looking at real runs, as tests/diagnosis says. Shares of the error at the start (scale),
# of the error at the end (level), or of what else is said.
ROSE = 1.08  # times the lowest error: it rose again
ROUGH, ROUGH_LEVEL = 0.03, 0.1  # of scale, of level: how far the error oscillates
STEADY = 0.6  # of the epochs: the error falls
BENT = 0.32  # of the fall in the first third: that in the last
STAYED = 0.04  # of the error of the third epoch
HIGH = 0.2  # of scale: the error rests high
FALLING = 0.009  # of level, in an epoch
TURNED, GAP = 0.1, 0.25  # of the lowest, of scale: how far validation is above
JUMPS, JUMPS_LEVEL = 4.0, 0.06  # times the roughness of training, of level
BELOW = 0.22  # of the training error

# The most important first.
ADVICE = {
    "diverged": "Lower the rate tenfold (`callbacks.LearningRateFinder` finds one), or cut the "
    "gradient: `optimizers.GradientClipping`.",
    "noisy_validation": "Validate on more samples, or look at a moving average: `smooth` of "
    "`callbacks.LearningCurve` and `callbacks.EarlyStopping`.",
    "leak": "With dropout, noise or penalties that act in training alone this is as it should be: "
    "compare with `model.evaluate` on the training set. Else look for samples in both sets.",
    "rate_too_high": "Lower the rate, by 3 or 10, or let `callbacks.AdaptiveLearningRate` do it.",
    "overfitting": "Stop at the minimum (`callbacks.EarlyStopping`), take more samples or make "
    "some (`layers.RandomGaussianNoise`), dropout, a penalty of the weights, or a smaller network.",
    "plateau": "Take an initialisation, activation or normalisation that keeps the gradient "
    "(`callbacks.GradientMonitor` shows it by layer), momentum (`optimizers.Momentum`), or rates "
    "of their own for the weights (`optimizers.Adam`).",
    "rate_too_low": "Raise the rate tenfold (`callbacks.LearningRateFinder` finds one), let "
    "`callbacks.AdaptiveLearningRate` do it, or train longer.",
    "underfitting": "Take more units or layers, less of a penalty or dropout, or inputs that say "
    "more. It is not the rate, if another one (`callbacks.LearningRateFinder`) ends as high.",
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

    Of 94 real runs with a known fault 81 have it as their first finding (`tests/diagnosis`). Where
    it is not, curves that come to rest are often those of a rate so high that units were switched
    off for good.

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
    """Yield code and evidence of what is found."""
    every, t = finite(epochs, values["loss"])
    val_epochs, v = finite(epochs, values.get("val_loss", [np.nan] * len(epochs)))
    if len(t) < len(epochs):
        first = next(epoch for epoch in epochs if epoch not in every)
        yield "diverged", f"the error of epoch {first} is not a number."
        return
    scale = max(abs(t[0]), *abs(v[:1]), 1e-12)
    if level(t) > 3 * t[0]:
        yield "diverged", f"the error rose from {t[0]:.3g} to {level(t):.3g}."
        return
    validated = len(v) >= LEAST
    found = dict(_of_training(t, scale))
    found |= dict(_of_validation(t, v, val_epochs, scale)) if validated else {}
    if not found:
        yield "converged", f"the error came to rest at {level(t):.3g}, from {t[0]:.3g}."
    yield from ((code, found[code]) for code in ADVICE if code in found)


def _of_training(t: np.ndarray, scale: float) -> Iterator[tuple[str, str]]:
    """Yield what the training curve shows."""
    rest, rough, lowest, third = level(t), roughness(t), t.min(), max(2, len(t) // 3)
    steady = float(np.mean(np.diff(t) < 0))
    early, late = t[1] - t[third], t[-third] - t[-1]
    slow = late > BENT * early or falling(t) > FALLING
    if rough > max(ROUGH * scale, ROUGH_LEVEL * rest):
        yield "rate_too_high", f"the error oscillates by {rough:.2g} around {rest:.3g}."
    elif rest > ROSE * lowest + ROUGH * scale:
        yield "rate_too_high", f"the error rose again, from {lowest:.3g} to {rest:.3g}."
    elif steady >= STEADY and slow and rest > HIGH * scale:
        fell = f"the error fell in {steady:.0%} of the epochs, from {t[0]:.4g} to {t[-1]:.4g}"
        yield "rate_too_low", f"{fell}, and at the end {late / early:.0%} as fast as at first."
    elif np.ptp(t[2:]) < STAYED * t[2]:
        yield "plateau", f"the error stayed between {t[2:].min():.4g} and {t[2:].max():.4g}."
    elif t[0] - t[third] < 0.1 * (t[0] - lowest):
        yield "plateau", f"the error stayed near {t[third]:.4g} for the first {third} epochs."
    elif rest > HIGH * scale:
        yield "underfitting", f"the error came to rest at {rest:.3g}, from {t[0]:.3g}."


def _of_validation(
    t: np.ndarray, v: np.ndarray, epochs: np.ndarray, scale: float
) -> Iterator[tuple[str, str]]:
    """Yield what the validation curve shows."""
    rest, training, rough = level(v), level(t), roughness(v)
    lowest, epoch = v.min(), epochs[np.argmin(v)]
    ends = f"ended at {rest:.3g}, that of training at {training:.3g}."
    if rest - lowest > max(TURNED * lowest, 0.02 * scale) or rest - training > GAP * scale:
        least = f"the error of the validation set was lowest, {lowest:.3g}, in epoch {epoch:.0f}"
        yield "overfitting", f"{least}, and {ends}"
    if rough > max(JUMPS * roughness(t), JUMPS_LEVEL * rest):
        jumps = f"the error of the validation set jumps by {rough:.2g} from epoch to epoch"
        yield "noisy_validation", f"{jumps}, that of training by {roughness(t):.2g}."
    if training - rest > BELOW * training:
        yield "leak", f"the error of the validation set {ends}"


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
