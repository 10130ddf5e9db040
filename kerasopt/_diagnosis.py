"""What learning curves say, in words."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kerasopt._histories import History, finite, read_history
from kerasopt._validation import check_number

LEAST = 5  # epochs

# Chosen by looking at real runs, as tests/diagnosis says. Shares of the error at the start (scale),
# of the error at the end (level), or of what else is said.
ABSURD = 10.0  # times the error before training: no training should come there
HIGH = 0.2  # of scale: the error rests high
ROUGH = 0.1  # of level: how far the error oscillates
ROSE, RISE = 1.08, 0.03  # times the lowest error, and of scale: it rose again
SLOW = 0.17  # of the epochs: when half the fall is done, if it is slow
STRAIGHT = 0.9  # correlation of the error with the epoch
STAYED = 0.05  # of the first of these errors
NOTHING, NOTHING_FIT = (
    0.7,
    0.85,
)  # of scale: the error of a classifier, or else, that learnt nothing
TURNED, GAP = 0.1, 0.25  # of the lowest, of scale: how far validation is above
SMALL_GAP, TIMES = 0.18, 3.0  # of scale, of the training error: the same where that is small
JUMPS, JUMPS_LEVEL = 3.0, 0.075  # times the roughness of training, of level
BELOW, BELOW_SCALE = 0.3, 0.05  # of the training error, of scale

# The most important first.
ADVICE = {
    "diverged": "Lower the rate tenfold (`callbacks.LearningRateFinder` finds one), or cut the "
    "gradient: `optimizers.GradientClipping`.",
    "rate_too_high": "Lower the rate, by 3 or 10, or let `callbacks.AdaptiveLearningRate` do it.",
    "noisy_validation": "Validate on more samples, or look at a moving average: `smooth` of "
    "`callbacks.LearningCurve` and `callbacks.EarlyStopping`.",
    "leak": "With dropout, noise or penalties that act in training alone this is as it should be: "
    "compare with `model.evaluate` on the training set. Else look for samples in both sets.",
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


def diagnose(history: History, start: float | None = None) -> Diagnosis:
    """Say what learning curves show: underfitting, overfitting, a wrong rate, and so on.

    Of 96 real runs with a known fault, on tasks that no threshold was chosen on, 87 have it as the
    first finding (`tests/diagnosis`); of 337 on the tasks of the thresholds, 320. Where it is not,
    a network too small, one that does not move and a rate too low are taken for one another, or
    for overfitting where validation is harder by the luck of the split. With `"accuracy"` in the
    history, and `start`, it is seen better whether anything was learnt.

    Args:
        history: What `fit` returned, a `LearningCurve`, a dictionary of lists with `"loss"` and, if
            there was validation, `"val_loss"`; or the path of a CSV file that
            `keras.callbacks.CSVLogger` wrote. At least five epochs.
        start: The error of the first batch, before any update, > 0, which says whether the first
            epoch learnt or went astray; `LearningCurve` takes it in. None where it is not known.
            Defaults to None.

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
        TypeError: `history` is nothing of these, or `start` no number.
        ValueError: It has no `"loss"`, or fewer than five epochs; or `start` is not above 0.

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
    known = None if start is None else check_number("start", start, "(0, inf)")
    found = _findings(epochs, values, known)
    return Diagnosis(tuple(Finding(code, evidence, ADVICE[code]) for code, evidence in found))


def _findings(
    epochs: list[int], values: dict[str, list[float]], start: float | None
) -> Iterator[tuple[str, str]]:
    """Yield code and evidence of what is found."""
    every, t = finite(epochs, values["loss"])
    val_epochs, v = finite(epochs, values.get("val_loss", [np.nan] * len(epochs)))
    if len(t) < len(epochs):
        first = next(epoch for epoch in epochs if epoch not in every)
        yield "diverged", f"the error of epoch {first} is not a number."
        return
    accuracy = _accuracy(t, values)
    scale = max(abs(t[0]), *abs(v[:1]), 1e-12)
    limit = ABSURD * (start or (1.0 if accuracy is not None else np.inf))  # to guess costs near 1
    if start:
        scale = min(scale, 2 * start)  # a first epoch may have gone astray, and come back
    elif level(t) > t[0] and level(t) - t.min() > 2 * scale:
        yield "diverged", f"the error rose from {t.min():.3g} to {level(t):.3g}."
        return
    if level(t) > limit:
        yield "diverged", f"the error came to {level(t):.3g}; it should stay below {limit:.3g}."
        return
    validated = len(v) >= LEAST
    found = dict(_of_validation(t, v, val_epochs, scale)) if validated else {}
    val_rough = 0.0 if "leak" in found else roughness(v) if validated else np.inf
    found |= dict(_of_training(t, limit, scale, accuracy, val_rough))
    if validated and level(t) < v.min() / 2 and level(v) > 2 * v.min():
        found.pop("rate_too_high", None)  # it rises from little, and validation from much more
    if not found:
        yield "converged", f"the error came to rest at {level(t):.3g}, from {t[0]:.3g}."
    yield from ((code, found[code]) for code in ADVICE if code in found)


def _of_training(
    t: np.ndarray, limit: float, scale: float, accuracy: np.ndarray | None, val_rough: float
) -> Iterator[tuple[str, str]]:
    """Yield what the training curve shows; dropout makes it rough, but not that of validation.

    Whatever it is, the error rests high; only an error above the limit at first may come back.
    """
    rest, rough, lowest, third = level(t), roughness(t), smooth(t).min(), max(4, len(t) // 3)
    high, falls = rest > HIGH * scale, np.mean(np.diff(t) < 0)
    chance = accuracy is not None and knows_nothing(rest, accuracy)
    if t[0] > limit:
        yield "rate_too_high", f"the error was {t[0]:.3g} at first; above {limit:.3g} is absurd."
    elif high and (half := halfway(t)) > SLOW and straight(t):
        fell = f"the error fell in {falls:.0%} of the epochs, from {t[0]:.4g} to {t[-1]:.4g}"
        yield "rate_too_low", f"{fell}, and took {half:.0%} of them for half of it."
    elif high and stays(t[2:third]) and rest < (1 - 2 * STAYED) * t[third]:
        yield "plateau", f"the error stayed near {t[third]:.4g} for the first {third} epochs."
    elif high and rough > ROUGH * rest and val_rough > rough / 2:
        yield "rate_too_high", f"the error oscillates by {rough:.2g} around {rest:.3g}."
    elif high and rest > ROSE * lowest + RISE * scale:
        yield "rate_too_high", f"the error rose again, from {lowest:.3g} to {rest:.3g}."
    elif chance and stays(t[third:]) and rest > NOTHING * scale:
        yield "plateau", f"the error came to {rest:.4g}, where nothing is learnt."
    elif chance and stays(t[third:]) and not grows(accuracy):
        yield "rate_too_high", f"from {scale:.3g} it went where nothing is learnt, {rest:.4g}."
    elif accuracy is None and stays(t[2:]) and rest > NOTHING_FIT * scale:
        yield "plateau", f"the error stayed between {t[2:].min():.4g} and {t[2:].max():.4g}."
    elif high:
        yield "underfitting", f"the error came to rest at {rest:.3g}, from {t[0]:.3g}."


def _of_validation(
    t: np.ndarray, v: np.ndarray, epochs: np.ndarray, scale: float
) -> Iterator[tuple[str, str]]:
    """Yield what the validation curve shows."""
    rest, training, rough = level(v), level(t), roughness(v)
    lowest, epoch = smooth(v).min(), epochs[np.argmin(v)]
    ends = f"ended at {rest:.3g}, that of training at {training:.3g}."
    gap, small = rest - training, training < rest / TIMES
    turned = rest - lowest > max(TURNED * lowest, 0.02 * scale)
    if turned or gap > (SMALL_GAP if small else GAP) * scale:
        least = f"the error of the validation set was lowest, {v.min():.3g}, in epoch {epoch:.0f}"
        yield "overfitting", f"{least}, and {ends}"
    if rough > max(JUMPS * roughness(t), JUMPS_LEVEL * rest):
        jumps = f"the error of the validation set jumps by {rough:.2g} from epoch to epoch"
        yield "noisy_validation", f"{jumps}, that of training by {roughness(t):.2g}."
    if -gap > max(BELOW * training, BELOW_SCALE * scale):
        yield "leak", f"the error of the validation set {ends}"


def _accuracy(t: np.ndarray, values: dict[str, list[float]]) -> np.ndarray | None:
    """Return which share of the samples was classified right, if t is a cross-entropy.

    That is at least log 2 for a sample that is classified wrong.
    """
    names = [n for n in values if "acc" in n and not n.startswith(("val_", "top"))]
    if not names or np.any(t < np.log(2) * (1 - np.array(values[names[0]])) - 1e-3):
        return None
    return np.array(values[names[0]])


def knows_nothing(entropy: float, accuracy: np.ndarray) -> bool:
    """Return whether a classifier says no more than which class is frequent.

    To say the same of all, where a share a is of the most frequent class, costs h(a) or more: h(a)
    with two classes. With n of them a is near 1 / n, which is exp(-entropy).
    """
    a = min(max(level(accuracy), 1e-3), 1 - 1e-3)
    least = -a * np.log(a) - (1 - a) * np.log(1 - a)
    near = a * np.exp(entropy)
    return bool((entropy > 0.99 * least and near < 1.25) or (entropy > 1.5 * least and near < 1.4))


def grows(accuracy: np.ndarray | None) -> bool:
    """Return whether it is better at the end than in the second epoch."""
    return accuracy is not None and level(accuracy) > accuracy[1] + 0.02


def halfway(values: np.ndarray) -> float:
    """Return after what share of the epochs half of the fall was done."""
    return float(np.argmax(values <= (values[0] + level(values)) / 2) / len(values))


def stays(values: np.ndarray) -> bool:
    """Return whether the values hardly differ."""
    return bool(np.ptp(values) < STAYED * values[0])


def straight(values: np.ndarray) -> bool:
    """Return whether the values fall along a line, more or less."""
    return bool(np.corrcoef(values, np.arange(len(values)))[0, 1] < -STRAIGHT)


def level(values: np.ndarray) -> float:
    """Return where the values are at the end: the mean of the last eighth."""
    return float(np.mean(values[-max(2, len(values) // 8) :]))


def smooth(values: np.ndarray) -> np.ndarray:
    """Return the means of three neighbours."""
    return np.convolve(values, np.ones(3) / 3, "valid")


def roughness(values: np.ndarray) -> float:
    """Return by how much values of the last half differ from the mean of their neighbours."""
    tail = values[-max(5, len(values) // 2) :]
    return float(np.mean(np.abs(tail[1:-1] - (tail[:-2] + tail[2:]) / 2)))
