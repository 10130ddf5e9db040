"""Train under Ray Train with two workers on this machine.

    pip install 'kerasopt[ray]'
    python examples/ray_train.py

Ray's `TensorflowTrainer` starts the workers and sets TF_CONFIG for each; `MultiWorker` does the
rest. The chief reports the model, which Ray keeps.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

WORKERS = 2


def train(config: dict[str, Any]) -> None:
    """Train one worker's part; Ray runs this in each worker."""
    import keras
    from ray import train
    from sklearn.datasets import load_digits

    import kerasopt

    keras.utils.set_random_seed(config["seed"])
    strategy = kerasopt.strategies.MultiWorker()  # before anything else of TensorFlow
    digits = load_digits()
    x, y = (digits.images[..., None] / 16).astype("float32"), digits.target
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(32, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dropout(0.3),
                keras.layers.Dense(10),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(kerasopt.optimizers.Momentum(0.3), loss, metrics=["accuracy"])
    history = model.fit(x, y, validation_split=0.2, epochs=config["epochs"], verbose=0).history
    result = {name: values[-1] for name, values in history.items()}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if strategy.is_chief:
            model.save(Path(folder, "model.keras"))
            checkpoint = train.Checkpoint.from_directory(folder)
        metrics = {**result, "replicas": strategy.num_replicas_in_sync}
        train.report(metrics, checkpoint=checkpoint)


def main() -> int:
    """Run the trainer; print what the chief reports."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.tensorflow import TensorflowTrainer

    # Without a GPU Ray hides the devices by a variable that TensorFlow complains about.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with tempfile.TemporaryDirectory() as folder:
        trainer = TensorflowTrainer(
            train,
            train_loop_config={"seed": 0, "epochs": 15},
            scaling_config=ScalingConfig(num_workers=WORKERS, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(storage_path=folder),
        )
        metrics = trainer.fit().metrics
    print(", ".join(f"{name} {metrics[name]:.4g}" for name in ("replicas", "loss", "val_loss")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
