"""Optimizer steps on a network of 5 million weights, on 200 small ones, and within `fit`."""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from benchmarks._race import Row, compare, race
from kerasopt import optimizers as ours

theirs = keras.optimizers
Shapes: TypeAlias = list[tuple[int, ...]]
# Kernels, scales and offsets of a residual network: 59 variables, 5.2 million weights.
LARGE: Shapes = [
    shape
    for channels, count in ((64, 6), (128, 6), (256, 7))
    for _ in range(count)
    for shape in ((3, 3, channels, channels), (channels,), (channels,))
] + [(256, 10), (10,)]
SMALL: Shapes = [(32, 32), (32,)] * 100
RATE = 1e-6  # so that no weight runs away

# Ours, and the optimizer of Keras that has as many variables for each weight, or the next fewer.
PAIRS: list[tuple[str, Callable[[], Any], str, Callable[[], Any]]] = [
    ("Adam", lambda: ours.Adam(RATE), "Adam", lambda: theirs.Adam(RATE)),
    ("AdamW", lambda: ours.AdamW(RATE), "AdamW", lambda: theirs.AdamW(RATE)),
    ("SGD", lambda: ours.SGD(RATE), "SGD", lambda: theirs.SGD(RATE)),
    ("SGD(0.9)", lambda: ours.SGD(RATE, 0.9), "SGD(0.9)", lambda: theirs.SGD(RATE, 0.9)),
    ("RMSprop", lambda: ours.RMSprop(RATE), "RMSprop", lambda: theirs.RMSprop(RATE)),
    ("Momentum", lambda: ours.Momentum(RATE), "SGD(0.9)", lambda: theirs.SGD(RATE, 0.9)),
    ("LARS", lambda: ours.LARS(RATE), "SGD(0.9)", lambda: theirs.SGD(RATE, 0.9)),
    ("DeltaBarDelta", lambda: ours.DeltaBarDelta(RATE), "Adam", lambda: theirs.Adam(RATE)),
    ("Rprop", lambda: ours.Rprop(RATE, step_sizes=(1e-9, RATE)), "Adam", lambda: theirs.Adam(RATE)),
    ("RectifiedAdam", lambda: ours.RectifiedAdam(RATE), "Adam", lambda: theirs.Adam(RATE)),
    ("AdaBelief", lambda: ours.AdaBelief(RATE), "Adam", lambda: theirs.Adam(RATE)),
    ("Adan", lambda: ours.Adan(RATE), "Adam(amsgrad)", lambda: theirs.Adam(RATE, amsgrad=True)),
    (
        "Prodigy",
        lambda: ours.Prodigy(RATE),
        "Adam(amsgrad)",
        lambda: theirs.Adam(RATE, amsgrad=True),
    ),
    (
        "Lookahead(SGD)",
        lambda: ours.Lookahead(ours.SGD(RATE)),
        "SGD(0.9)",
        lambda: theirs.SGD(RATE, 0.9),
    ),
    (
        "ScheduleFree(AdamW)",
        lambda: ours.ScheduleFree(ours.AdamW(RATE)),
        "ScheduleFreeAdamW",
        lambda: theirs.ScheduleFreeAdamW(RATE),
    ),
    (
        "GradientClipping(Adam)",
        lambda: ours.GradientClipping(ours.Adam(RATE)),
        "Adam(global_clipnorm=1)",
        lambda: theirs.Adam(RATE, global_clipnorm=1.0),
    ),
    ("Shampoo", lambda: ours.Shampoo(RATE), "Muon", lambda: theirs.Muon(RATE)),
]


def stepper(
    optimizer: keras.optimizers.Optimizer, shapes: Shapes, jit_compile: bool = False, steps: int = 1
) -> Callable[[], Any]:
    """Return a function that takes some steps."""
    random = np.random.default_rng(0)
    weights = [keras.Variable(random.normal(0, 0.05, s), dtype="float32") for s in shapes]
    gradients = [tf.constant(random.normal(0, 0.01, s), "float32") for s in shapes]
    optimizer.build(weights)

    def apply() -> None:
        optimizer.apply(gradients, weights)

    def loop() -> None:
        for _ in tf.range(steps):
            optimizer.apply(gradients, weights)

    return tf.function(loop if steps > 1 else apply, jit_compile=jit_compile)


def first_call(make: Callable[[], Any]) -> Callable[[], float]:
    """Return a function that measures the first step on the small weights, which traces it."""

    def measure() -> float:
        optimizer, start = make(), time.perf_counter()
        stepper(optimizer, SMALL)()
        return 1000 * (time.perf_counter() - start)

    return measure


def trainer(optimizer: keras.optimizers.Optimizer) -> Callable[[], Any]:
    """Return a function that trains a perceptron of 4.5 million weights by `fit`."""
    layers = keras.layers
    hidden = [layers.Dense(1024, "relu") for _ in range(4)]
    model = keras.Sequential([keras.Input((1024,)), *hidden, layers.Dense(256)])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    random = np.random.default_rng(0)
    x, y = random.normal(size=(960, 1024)).astype("float32"), random.integers(0, 256, 960)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32).cache()
    return lambda: model.fit(data, verbose=0)


def rows() -> Iterator[Row]:
    """Compare each optimizer with Keras' own of the same state."""
    for name, make, peer, make_peer in PAIRS:
        task = f"`{name}` step, 5 M weights, graph"
        yield race(task, f"Keras' `{peer}`", stepper(make(), LARGE), stepper(make_peer(), LARGE))
    adam, peer_adam = PAIRS[0][1], PAIRS[0][3]
    for shapes, text in ((LARGE, "5 M weights"), (SMALL, "200 small variables")):
        steps = stepper(adam(), shapes, True), stepper(peer_adam(), shapes, True)
        yield race(f"`Adam` step, {text}, XLA", "Keras' `Adam`", *steps)
    steps = stepper(adam(), SMALL), stepper(peer_adam(), SMALL)
    yield race("`Adam` step, 200 small variables, graph", "Keras' `Adam`", *steps)
    steps = stepper(adam(), SMALL, steps=20), stepper(peer_adam(), SMALL, steps=20)
    yield race("`Adam`, 20 steps in a loop, 200 small variables", "Keras' `Adam`", *steps)
    firsts = first_call(adam), first_call(peer_adam)
    yield compare("`Adam`, first call, 200 small variables", "Keras' `Adam`", *firsts, 3)
    fits = trainer(adam()), trainer(peer_adam())
    yield race("`fit` with `Adam`, 30 steps, 4.5 M weights, batch 32", "Keras' `Adam`", *fits, 31)
