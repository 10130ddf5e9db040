"""The objective of the whole batch, over two real worker processes."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import kerasopt
from tests.workers import launch

pytestmark = [pytest.mark.tensorflow, pytest.mark.alone, pytest.mark.slow]

TRAIN = """
ours = kerasopt.optimizers

def ends(scope):
    found = {}
    for name, make in {
        "SAM": lambda: ours.SAM(keras.optimizers.SGD(0.1)),
        "NewtonCG": lambda: ours.NewtonCG(damping=1.0, cg_iterations=4, cg_tolerance=0.0),
        "StochasticDiagonalLM": lambda: ours.StochasticDiagonalLM(0.01, 1.0, seed=1),
        "LBFGS": lambda: ours.LBFGS(steps_per_evaluation=3),
    }.items():
        keras.utils.set_random_seed(0)
        with scope():
            layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(8, "tanh")]
            layers += [keras.layers.BatchNormalization(), keras.layers.Dense(10)]
            model = kerasopt.Sequential(layers)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(make(), loss)
        model.fit(x[:75], y[:75], batch_size=25, epochs=3, shuffle=False, verbose=0)
        found[name] = np.concatenate([w.numpy().ravel() for w in model.weights]).tolist()
    return found
"""
RUN = """
strategy = kerasopt.strategies.MultiWorker()
found = ends(strategy.scope)
if strategy.is_chief:
    (here / "ends.json").write_text(json.dumps(found))
"""


def test_workers_equal_one_process(tmp_path: Path, digits: tuple) -> None:
    import contextlib

    status, printed = launch(tmp_path, TRAIN + RUN)
    assert status == 0, printed
    together = json.loads((tmp_path / "ends.json").read_text())
    names = {"keras": keras, "kerasopt": kerasopt, "np": np, "x": digits[0], "y": digits[1]}
    exec(TRAIN, names)
    for name, end in names["ends"](contextlib.nullcontext).items():
        np.testing.assert_allclose(together[name], end, atol=1e-5, err_msg=name)
