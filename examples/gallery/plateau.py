"""6. Momentum across a plateau.

The lecture: error surfaces often have plateaus, where the error depends only weakly on any weight.
A fraction α of the previous step in each step, w(m+1) = w(m) + (1-α) Δw_bp + α Δw(m-1), lets the
network learn more quickly there.

Seen: the digits' error under gradient descent with all samples in a batch; a network of three
sigmoid layers begins on a plateau. At the same rate momentum as the lecture writes it gains
nothing, as 1-α takes from each new step what α keeps of the old ones. It gains because it bears
larger rates: what swings from step to step cancels, and what is steady, as on a plateau, adds up.
On the right the steps to an error of 1 against the rate; there is no point where that was not
reached in 500 steps. So the claim holds for the best rate of each, not at equal rates.
"""

import keras
import numpy as np
from _gallery import BLUE, INK, RED, Shown, digits, legend, panels, show

import kerasopt

STEPS, LEFT, ALPHA = 500, 1.0, 0.9
RATES = {0.0: (1.0, 2.0, 4.0, 8.0), ALPHA: (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)}


# page: begin
def descend(learning_rate: float, momentum: float) -> list[float]:
    """Return the error before each step, until it has left the plateau."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(32, "sigmoid") for _ in range(3)]
    model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(kerasopt.optimizers.Momentum(learning_rate, momentum), loss)
    (x, y), _ = digits()
    losses = [np.inf]
    while losses[-1] > LEFT and len(losses) <= STEPS:
        losses.append(float(model.train_on_batch(x, y)))
    return losses[1:]


# page: end


def make() -> Shown:
    """Try all rates with and without momentum."""
    figure, (left, right) = panels(["the plateau", f"steps to an error of {LEFT:g}"])
    rows: list[list[object]] = [["rate", "α", "steps", "error at the last of them"]]
    runs = {(rate, a): descend(rate, a) for a, rates in RATES.items() for rate in rates}
    steps = {run: len(losses) for run, losses in runs.items() if losses[-1] <= LEFT}
    rows += [[*run, steps.get(run, f"> {STEPS}"), losses[-1]] for run, losses in runs.items()]
    best = {a: min((s, r) for (r, alpha), s in steps.items() if alpha == a) for a in RATES}
    for a, colour, name in ((0.0, RED, "without"), (ALPHA, BLUE, f"α = {ALPHA}")):
        rate = best[a][1]
        left.plot(runs[rate, a], color=colour, label=f"{name}, rate {rate:g}")
        found = [(r, s) for (r, alpha), s in steps.items() if alpha == a]
        right.loglog(*zip(*found, strict=True), "o-", color=colour, label=name)
    same = best[0.0][1]
    left.plot(runs[same, ALPHA], color=INK, linewidth=1, label=f"α = {ALPHA}, rate {same:g}")
    left.set(xlabel="step", ylabel="average error per pattern")
    right.set(xlabel="learning rate")
    legend(left, loc="upper right")
    legend(right, loc="upper right")
    gain = best[0.0][0] / best[ALPHA][0]
    rows.append(["", "", "steps, best rates: without / with", float(gain)])
    assert gain > 1.5
    assert best[ALPHA][1] > best[0.0][1]
    return Shown(figure, rows)


if __name__ == "__main__":
    show(make)
