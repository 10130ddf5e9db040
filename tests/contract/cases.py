"""The tables: a row is a constructor, its arguments, and what its errors say."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import pytest

import kerasopt


@dataclass(frozen=True)
class Case:
    """One row; `bad` maps arguments that are refused to the text of the error.

    `resumes`: a callback that has `get_state` and `set_state`, and needs validation data.
    """

    constructor: Callable[..., Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    bad: tuple[tuple[dict[str, Any], str], ...] = ()
    resumes: bool = False

    def make(self, **arguments: Any) -> Any:
        """Construct the object of this row."""
        return self.constructor(**{**self.arguments, **arguments})


def rows(*cases: Case) -> pytest.MarkDecorator:
    """Run a test for each row."""
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.constructor.__name__)


def bad_rows(*cases: Case) -> pytest.MarkDecorator:
    """Run a test for each refused argument of each row."""
    table = [(case, arguments, message) for case in cases for arguments, message in case.bad]
    return pytest.mark.parametrize(
        ("case", "arguments", "message"),
        table,
        ids=[f"{case.constructor.__name__}-{arguments}" for case, arguments, _ in table],
    )


OPTIMIZERS = (
    Case(
        kerasopt.optimizers.Momentum,
        {"learning_rate": 0.02},
        bad=(
            ({"learning_rate": -0.1}, r"`learning_rate` must be a number in \[0, inf\)\. Received"),
            ({"learning_rate": "fast"}, "`learning_rate` should be float"),
            ({"momentum": 1.0}, r"`momentum` must be a number in \[0, 1\)\. Received: momentum=1"),
            ({"momentum": -0.1}, r"`momentum` must be a number in \[0, 1\)"),
            ({"momentum": float("nan")}, r"`momentum` must be a number in \[0, 1\)"),
            ({"momentum": "0.9"}, r"`momentum` must be a number .* Received: momentum='0.9'"),
        ),
    ),
)

LAYERS = (
    Case(
        kerasopt.layers.RandomGaussianNoise,
        {"stddev": (0.1, 0.2)},
        bad=(
            ({"stddev": (0.2, 0.1)}, "`stddev` must be a pair low ≤ high. Received"),
            ({"stddev": -0.1}, r"`stddev` must be a number in \[0, inf\)"),
            ({"stddev": "0.1"}, r"`stddev` must be a number in \[0, inf\)"),
            ({"stddev": (0.1, 0.2, 0.3)}, r"`stddev` must be a pair \(low, high\)"),
            ({"clip": 1.0}, r"`clip` must be a pair \(low, high\). Received: clip=1.0"),
            ({"clip": (1, 0)}, "`clip` must be a pair low ≤ high"),
            ({"probability": 1.5}, r"`probability` must be a number in \[0, 1\]"),
            ({"per_channel": "yes"}, "`per_channel` must be True or False. Received"),
            ({"seed": 0.5}, "`seed`|Argument `seed`"),
            ({"data_format": "HWC"}, "data_format"),
        ),
    ),
)


CALLBACKS = (
    Case(
        kerasopt.callbacks.LearningCurve,
        bad=(
            (
                {"path": "curves.gif"},
                r"`path` must end in one of .*\.png.* Received: path='curves.gif'",
            ),
            ({"every": 0}, "`every` must be an integer ≥ 1. Received: every=0"),
            ({"every": 2.0}, "`every` must be an integer ≥ 1. Received: every=2.0"),
            ({"mode": "best"}, r"`mode` must be one of \['auto', 'min', 'max'\]. Received"),
            ({"monitor": "val_f"}, "`mode` must be 'min' or 'max' where .* monitor='val_f'"),
            ({"metrics": "loss"}, r"`metrics` must be a list of names. Received: metrics='loss'"),
        ),
        resumes=True,
    ),
    Case(
        kerasopt.callbacks.BackupAndRestore,
        {"backup_dir": "backup"},
        bad=(
            ({"backup_dir": ""}, "Empty `backup_dir` argument"),
            ({"save_freq": "batch"}, "`save_freq`. Received: save_freq=batch"),
        ),
    ),
    Case(kerasopt.callbacks.ThroughputMonitor),
)


def dense_model(optimizer: keras.optimizers.Optimizer, **compile_arguments: Any) -> keras.Model:
    """Return a small compiled classifier of 8×8 images, the same at every call."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(16, activation="tanh"),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, **{"loss": loss, "metrics": ["accuracy"], **compile_arguments})
    return model
