"""Race all optimizers, tuned alike, on three tasks: a table and a picture.

    python examples/race.py
    python examples/race.py --tasks quadratic digits --seed 1

The tasks are a quadratic of condition 10,000, the 1,437 training images of `digits` and 6,000 of
fashion_mnist, which is left out unless it is prepared in TFDS_DATA_DIR. Every optimizer runs at
0.01, 0.1, 1, 10 and 100 times the default learning rate of its class, or of the class that it
wraps. All else is at its default, but SGD within a wrapper has a momentum of 0.9. The best of the
five runs counts: the one with the fewest steps, or with the lowest training loss after the last
epoch. So the race tells how fast an error falls, not how well a network generalises; and where the
best rate is 100 times the default, a larger one may be better still. The output folder gets race.md
and race.png. Seconds are those of the fastest epoch after the first, times the epochs.

Measured on two CPU cores with seed 0, in a quarter of an hour beside other work. The quadratic:
Newton needs 1 step, NewtonCG 7, LBFGS 98 evaluations; LARS 707, Sophia 768, Adan 970, Shampoo
1,012; Adam 1,716, SGD with momentum 1,886, without 18,977; StochasticDiagonalLM, whose diagonal
does not see turned axes, does not get there in 30,000. Digits, the loss after 8 epochs:
ScheduleFree(AdamW) 0.0082, Adan 0.018, Shampoo 0.023, NewtonCG 0.042; Keras' SGD with momentum
0.054, Keras' Adam 0.067. fashion_mnist: Shampoo and ScheduleFree(AdamW) 0.27, RMSprop 0.29; Keras'
Adam 0.32, NewtonCG 0.43, Keras' SGD with momentum 0.48. Rprop, which is for full batches, is tenth
on the quadratic and the last on the images (0.46 and 2.3, which is guessing); LARS, for very large
ones, is the last but one (0.19 and 0.56); DeltaBarDelta, also for full batches, reaches 0.12 and
0.43. Newton, for few weights, and LBFGS, for all the data at once, run on the quadratic only.
"""

import argparse
import inspect
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import kerasopt
import kerasopt.data  # registers the dataset `digits`

CONDITION, DIMENSIONS, GOAL = 1e4, 20, 1e-6  # of the quadratic
TILT, VALLEY_CONDITION = math.radians(25), 30  # of the one in the picture
WALKERS = ("SGD", "Keras SGD 0.9", "Adam", "DeltaBarDelta", "NewtonCG")  # its paths
FULL = {
    "multiples": (0.01, 0.1, 1.0, 10.0, 100.0),
    "steps": 30_000,
    "images": 6_000,
    "epochs": 8,
    "every": 1,
}
QUICK = {"multiples": (1.0,), "steps": 1_000, "images": 128, "epochs": 2, "every": 3}
# Okabe and Ito's palette, which colour-blind people can tell apart; its yellow is too light.
# Four optimizers share a colour: their lines are solid, dashed, dotted and both.
COLOURS = {
    "#0072B2": ("Shampoo", "AdamW", "GradientClipping(SGD)", "LBFGS"),
    "#D55E00": ("Prodigy", "Keras SGD 0.9", "Momentum", "AdaHessian"),
    "#009E73": ("Adan", "Adam", "Lookahead(SGD)", "Newton"),
    "#CC79A7": ("ScheduleFree(AdamW)", "LARS", "DeltaBarDelta", "StochasticDiagonalLM"),
    "#E69F00": ("RMSprop", "AdaBelief", "RectifiedAdam", "Sophia"),
    "#56B4E9": ("ScheduleFree(SGD)", "Rprop", "SAM(SGD)"),
    "#000000": ("NewtonCG", "SGD", "Keras Adam"),
}
NAMED = 7  # lines of a panel; the others are grey


class Contender(NamedTuple):
    """How an optimizer is made from a rate, which rate it has by default, and its tasks."""

    make: Callable[[float], Any]
    default: float
    tasks: Sequence[str]


class Run(NamedTuple):
    """How the loss fell at one rate: after every step of a quadratic, or every epoch."""

    rate: float
    losses: Sequence[float] | np.ndarray
    pace: float  # seconds a step, or an epoch
    path: Any = None  # the weights after every step, two axes

    @property
    def order(self) -> tuple[float, float]:
        """What is compared: the length of the run, then its last loss; divergence comes last."""
        last = float(self.losses[-1])
        return (len(self.losses), last) if math.isfinite(last) else (math.inf, math.inf)


Race: TypeAlias = Callable[[Contender], Iterator[Run]]


ANY = ("quadratic", "digits", "fashion_mnist")


def alone(constructor: Callable[..., Any], tasks: Sequence[str] = ANY) -> Contender:
    """Return an optimizer that gets the rate itself."""
    rate = inspect.signature(constructor).parameters["learning_rate"]
    return Contender(constructor, rate.default, tasks)


def within(wrapper: Callable[..., Any], optimizer: Callable[..., Any]) -> Contender:
    """Return a wrapper around an optimizer, which gets the rate."""
    return Contender(lambda rate: wrapper(optimizer(rate)), alone(optimizer).default, ANY)


def contenders() -> dict[str, Contender]:
    """Return all that race, by name."""
    names = "SGD Momentum Adam AdamW RMSprop DeltaBarDelta Rprop RectifiedAdam AdaBelief Adan LARS"
    names += " Prodigy Shampoo StochasticDiagonalLM AdaHessian Sophia NewtonCG"
    optimizers = kerasopt.optimizers
    heavy_ball = partial(optimizers.SGD, momentum=0.9)
    return {
        **{name: alone(getattr(optimizers, name)) for name in names.split()},
        "Lookahead(SGD)": within(optimizers.Lookahead, heavy_ball),
        "ScheduleFree(SGD)": within(optimizers.ScheduleFree, heavy_ball),
        "ScheduleFree(AdamW)": within(optimizers.ScheduleFree, optimizers.AdamW),
        "GradientClipping(SGD)": within(optimizers.GradientClipping, heavy_ball),
        "SAM(SGD)": within(optimizers.SAM, heavy_ball),
        # One for few weights, one for batches that are all the data.
        **{name: alone(getattr(optimizers, name), ["quadratic"]) for name in ("Newton", "LBFGS")},
        "Keras SGD 0.9": alone(partial(keras.optimizers.SGD, momentum=0.9)),
        "Keras Adam": alone(keras.optimizers.Adam),
    }


class Quadratic(NamedTuple):
    """½ (w - minimum)ᵀ A (w - minimum), and where the descent starts."""

    matrix: np.ndarray
    minimum: np.ndarray
    start: np.ndarray

    def losses(self, path: np.ndarray) -> np.ndarray:
        """Return the loss of every point over that of the start."""
        away = path - self.minimum
        with np.errstate(all="ignore"):
            losses = np.einsum("ti,ti->t", away @ self.matrix, away)
            return losses / losses[0]


def quadratic(seed: int) -> Quadratic:
    """Turn the axes at random, and start one unit away from the minimum along each of them."""
    generator = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(generator.normal(size=(DIMENSIONS, DIMENSIONS)))
    curvatures = np.geomspace(CONDITION**-0.5, CONDITION**0.5, DIMENSIONS)
    minimum = generator.normal(size=DIMENSIONS)
    return Quadratic(axes * curvatures @ axes.T, minimum, minimum + axes.sum(axis=1))


def valley() -> Quadratic:
    """Return a quadratic of two dimensions, whose valley is tilted."""
    axes = np.array([[math.cos(TILT), -math.sin(TILT)], [math.sin(TILT), math.cos(TILT)]])
    curvatures = np.array([VALLEY_CONDITION**-0.5, VALLEY_CONDITION**0.5])
    return Quadratic(axes * curvatures @ axes.T, np.zeros(2), axes @ [-2.0, 0.6])


def descent(
    task: Quadratic, optimizer: Any, weights: keras.Variable, steps: int
) -> Callable[[], tf.Tensor]:
    """Return a compiled loop, which returns the weights after every step."""
    root, minimum = (
        np.linalg.cholesky(task.matrix).T.astype("float32"),
        tf.constant(task.minimum, "float32"),
    )

    def outputs() -> tf.Tensor:
        return tf.linalg.matvec(root, weights.value - minimum)[None]

    def step(before: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        with kerasopt.Objective(lambda z: tf.reduce_sum(z * z) / 2, [weights], outputs) as shown:
            loss, gradient = shown.loss_and_gradient()
            optimizer.scale_loss(loss)
            optimizer.apply(gradient, [weights])
        return tf.identity(weights.value)

    @tf.function(jit_compile=True, autograph=False)
    def descend() -> tf.Tensor:
        return tf.scan(step, tf.range(steps), tf.identity(weights.value))

    return descend


def race_on_quadratic(task: Quadratic, options: argparse.Namespace) -> Race:
    """Prepare the race to `GOAL` times the loss of the start, with all gradients exact."""

    def race(contender: Contender) -> Iterator[Run]:
        keras.utils.set_random_seed(options.seed)
        weights = keras.Variable(task.start, dtype="float32")
        optimizer = contender.make(contender.default)
        optimizer.build([weights])
        fresh = [(each, each.numpy()) for each in (weights, *optimizer.variables)]
        descend = descent(task, optimizer, weights, options.steps)
        descend()  # compiles it, once for all rates
        for multiple in options.multiples:
            for variable, value in fresh:
                variable.assign(value)
            optimizer.learning_rate = rate = multiple * contender.default
            begun = time.perf_counter()
            path = np.vstack([task.start, descend().numpy()])
            pace = (time.perf_counter() - begun) / options.steps
            losses = task.losses(path)
            end = next(iter(np.flatnonzero(losses < GOAL)), len(losses)) + 1
            yield Run(rate, losses[:end], pace, path[:end])

    return race


def multilayer_perceptron() -> keras.Model:
    """Return the network for the digits."""
    layers = keras.layers
    return keras.Sequential(
        [layers.Flatten(), layers.Dense(32, activation="relu"), layers.Dense(10)]
    )


def convolutional_network() -> keras.Model:
    """Return the network for the clothes."""
    layers = keras.layers
    convolution = partial(layers.Conv2D, kernel_size=3, strides=2, activation="relu")
    return keras.Sequential([convolution(8), convolution(16), layers.Flatten(), layers.Dense(10)])


class Clock(keras.callbacks.Callback):
    """The seconds that each epoch took."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Look at the clock."""
        self.begun = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Look again."""
        self.seconds.append(time.perf_counter() - self.begun)


def images(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first training images of a TFDS dataset, in 0-1, and their classes."""
    builder = tfds.builder(name)
    if name == "digits":  # needs no network
        builder.download_and_prepare()
    count = min(count, builder.info.splits["train"].num_examples)
    data = builder.as_dataset(split=f"train[:{count}]", as_supervised=True, batch_size=-1)
    pixels, labels = tfds.as_numpy(data)
    return pixels.astype("float32") / 255, labels


def race_on_images(
    name: str, network: Callable[[], keras.Model], batch_size: int, options: argparse.Namespace
) -> Race:
    """Prepare the race to the lowest training loss of the last epoch."""
    x, y = images(name, options.images)

    def race(contender: Contender) -> Iterator[Run]:
        for multiple in options.multiples:
            keras.backend.clear_session()
            keras.utils.set_random_seed(options.seed)
            model, rate = kerasopt.prepare(network()), multiple * contender.default
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(contender.make(rate), loss)
            callbacks = [keras.callbacks.TerminateOnNaN(), clock := Clock()]
            fit = partial(model.fit, batch_size=batch_size, epochs=options.epochs, verbose=0)
            losses = fit(x, y, callbacks=callbacks).history["loss"]
            pace = min(clock.seconds[1:] or clock.seconds)  # the first one compiles
            yield Run(rate, losses, pace)

    return race


class Task(NamedTuple):
    """A race, and how it is reported."""

    prepare: Callable[[argparse.Namespace], Race]
    unit: str
    words: str


TASKS = {
    "quadratic": Task(
        lambda options: race_on_quadratic(quadratic(options.seed), options),
        "steps",
        f"A quadratic of {DIMENSIONS} dimensions, condition {CONDITION:,.0f} and turned axes: "
        f"steps until the loss is {GOAL:g} of that of the start, at most {{steps:,}}. The "
        "losses are fractions of that of the start.",
    ),
    "digits": Task(
        partial(race_on_images, "digits", multilayer_perceptron, 32),
        "epochs",
        "Handwritten digits, a network of one hidden layer, batches of 32: the mean training loss "
        "of the last epoch.",
    ),
    "fashion_mnist": Task(
        partial(race_on_images, "fashion_mnist", convolutional_network, 64),
        "epochs",
        "{images:,} images of fashion_mnist, a network of two convolutions, batches of 64: the "
        "mean training loss of the last epoch.",
    ),
}


class Result(NamedTuple):
    """The best of the runs of an optimizer on a task."""

    best: Run
    default: float
    diverged: int
    runs: int

    def cells(self) -> list[str]:
        """Return the cells of the table: rate, length, last loss, seconds, divergence."""
        run, diverged = self.best, f"{self.diverged} of {self.runs}"
        if self.diverged == self.runs:
            return ["-", "-", "diverged", "-", diverged]
        steps = len(run.losses) - (run.path is not None)
        rate = f"{run.rate:g} (×{run.rate / self.default:g})"
        return [rate, f"{steps:,}", f"{run.losses[-1]:.2g}", f"{steps * run.pace:.2g}", diverged]


def compete(name: str, options: argparse.Namespace) -> dict[str, Result]:
    """Let all race on a task; return their results, the best first."""
    race, results = TASKS[name].prepare(options), {}
    field = {contender: how for contender, how in contenders().items() if name in how.tasks}
    for contender, how in [*field.items()][:: options.every]:
        runs = list(race(how))
        ended = [run for run in runs if math.isfinite(run.order[0])]
        pace = min((run.pace for run in ended), default=math.nan)  # when the machine did least else
        best = min(runs, key=lambda run: run.order)._replace(pace=pace)
        results[contender] = Result(best, how.default, len(runs) - len(ended), len(runs))
        rate, steps, loss, seconds, _ = results[contender].cells()
        print(
            f"{name}: {contender} at {rate}: {steps} {TASKS[name].unit}, loss {loss}, {seconds} s",
            flush=True,
        )
    return dict(sorted(results.items(), key=lambda item: item[1].best.order))


def table(name: str, results: dict[str, Result], options: argparse.Namespace) -> str:
    """Return what happened on a task, in Markdown."""
    heads = ["optimizer", "best rate", TASKS[name].unit, "last loss", "seconds", "rates diverged"]
    rows = [heads, ["---"] * len(heads), *([key, *each.cells()] for key, each in results.items())]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"## {name}", "", TASKS[name].words.format(**vars(options)), "", *lines, ""])


def style(contender: str) -> dict[str, Any]:
    """Return the colour and the dashes that an optimizer has in all panels."""
    colour, names = next(item for item in COLOURS.items() if contender in item[1])
    dashes = ("-", "--", ":", "-.")[names.index(contender)]
    return {"color": colour, "linestyle": dashes, "linewidth": 1.6, "zorder": 3}


def adorn(axes: Axes, title: str, across: str, up: str) -> None:
    """Name a panel and its axes, and put the legend beside it."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)


def draw_paths(axes: Axes, options: argparse.Namespace) -> None:
    """Draw the ways of some optimizers to the bottom of the valley, each at its best rate."""
    task, field = valley(), contenders()
    race = race_on_quadratic(task, options)
    for name in WALKERS:
        best = min(race(field[name]), key=lambda run: run.order)
        label = f"{name} at {best.rate:g}: {len(best.losses) - 1:,} steps"
        axes.plot(*best.path.T, **style(name), marker=".", markersize=4, label=label)
    across, up = np.meshgrid(np.linspace(*axes.get_xlim(), 200), np.linspace(*axes.get_ylim(), 200))
    losses = task.losses(np.stack([task.start, *zip(across.flat, up.flat, strict=True)]))[1:]
    levels = np.geomspace(losses.max() / 1e4, losses.max(), 13)
    axes.contour(across, up, losses.reshape(across.shape), levels, colors="#BBBBBB", linewidths=0.7)
    axes.plot(*task.minimum, "+", color="#000000", markersize=12, zorder=4)
    title = f"valley of condition {VALLEY_CONDITION}: paths at the best rates"
    adorn(axes, title, "first weight", "second weight")


def draw_losses(axes: Axes, name: str, results: dict[str, Result]) -> None:
    """Draw the best run of every optimizer; the first few have colours and set the height."""
    descends = name == "quadratic"
    results = {key: each for key, each in results.items() if each.diverged < each.runs}
    for place, (contender, result) in enumerate(results.items()):
        losses, pace = result.best.losses, result.best.pace
        shown = style(contender) if place < NAMED else {"color": "#CCCCCC", "linewidth": 0.8}
        label = contender if place < NAMED else "the others" if place == NAMED else None
        steps = np.arange(len(losses)) if descends else pace * np.arange(1, len(losses) + 1)
        axes.plot(steps, losses, **shown, label=label)
    axes.set_yscale("log")
    axes.set_ylim(top=2 * max(max(each.best.losses) for each in [*results.values()][:NAMED]))
    if descends:
        axes.set_xscale("log")
    up = "loss / loss at the start" if descends else "mean training loss of an epoch"
    adorn(axes, name, "steps" if descends else "seconds", up)


def draw(path: Path, results: dict[str, dict[str, Result]], options: argparse.Namespace) -> None:
    """Draw the paths in the valley and one panel a task."""
    rows = math.ceil((1 + len(results)) / 2)
    figure = Figure(figsize=(14, 4.5 * rows), layout="constrained")
    panels = figure.subplots(rows, 2).ravel()
    draw_paths(panels[0], options)
    for axes, (name, result) in zip(panels[1:], results.items(), strict=False):
        draw_losses(axes, name, result)
    for axes in panels[1 + len(results) :]:
        axes.remove()
    figure.savefig(path, dpi=120)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--output", type=Path, default=Path("runs/race"), help="a folder (runs/race)")
    add("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), help="(all)")
    add("--seed", type=int, default=0, help="of weights, axes and order (0)")
    add("--epochs", type=int, help=f"at the images ({FULL['epochs']})")
    add("--quick", action="store_true", help="few optimizers, one rate, few images: a trial")
    parser.set_defaults(**FULL)
    if parser.parse_args(arguments).quick:
        parser.set_defaults(**QUICK)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the race; return the exit status."""
    options = parse(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    absent = {
        name
        for name in {"fashion_mnist"} & {*options.tasks}
        if not tfds.builder(name).is_prepared()
    }
    left_out = [f"{name} is left out: it is not in TFDS_DATA_DIR.\n" for name in absent]
    print(*left_out, sep="", end="")
    results = {name: compete(name, options) for name in options.tasks if name not in absent}
    tables = [table(name, result, options) for name, result in results.items()]
    (options.output / "race.md").write_text("\n".join(["# The race", "", *tables, *left_out]))
    draw(options.output / "race.png", results, options)
    print(f"See {options.output}/race.md and {options.output}/race.png.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
