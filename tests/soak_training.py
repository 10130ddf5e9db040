"""The training that `tests.soak` kills: `python -m tests.soak_training FOLDER EVERY`."""

import json
import sys
from pathlib import Path

import keras
import numpy as np

import kerasopt


def main(folder: Path, every: int | str) -> None:
    """Train, and write what came of it."""
    keras.utils.set_random_seed(1)
    random = np.random.default_rng(0)
    x = random.normal(size=(640, 8)).astype("float32")
    y = (x[:, :1] * x[:, 1:2] > 0).astype("float32")
    layers = [keras.layers.Dense(64, "relu"), keras.layers.Dropout(0.3), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["mae"])
    callbacks = [
        keras.callbacks.LambdaCallback(on_train_begin=lambda logs: (folder / "begun").touch()),
        kerasopt.callbacks.Resume(folder / "runs", every),
        keras.callbacks.EarlyStopping(patience=8, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau(patience=2, factor=0.5),
        kerasopt.callbacks.LearningCurve(folder / "curve.svg"),
    ]
    arguments = {"batch_size": 16, "validation_split": 0.25, "epochs": 20, "verbose": 0}
    history = model.fit(x, y, callbacks=callbacks, **arguments)
    variables = [*model.variables, *model.optimizer.variables]
    values = [keras.ops.convert_to_numpy(variable).tolist() for variable in variables]
    part = folder / "part.json"
    part.write_text(json.dumps([history.epoch, history.history, callbacks[-1].get_state(), values]))
    part.rename(folder / "result.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
