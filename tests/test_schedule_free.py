"""`ScheduleFree` in `fit`: trains at y, shows the average x."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kerasopt.optimizers import SGD, AdamW, ScheduleFree
from tests.contract.cases import dense_model


class Averages(keras.callbacks.Callback):
    """Notes the weights that callbacks see at the end of each epoch, and predictions at them."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note them."""
        self.model.jax_state_sync() if hasattr(self.model, "jax_state_sync") else None
        self.seen.append([w.numpy() for w in self.model.weights])

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start anew."""
        self.seen: list[list[np.ndarray]] = []


def average_by_hand(digits: tuple, epochs: int) -> list[list[np.ndarray]]:
    """Return x after every epoch of full-batch descent, by gradients of a model that holds y."""
    model = dense_model(keras.optimizers.SGD(1.0))  # a step at rate 1 shows the gradient
    y = [w.numpy().astype("float64") for w in model.weights]
    x, z, averages = y, y, []
    for count in range(1, epochs + 1):
        model.set_weights([w.astype("float32") for w in y])
        model.fit(*digits, batch_size=len(digits[0]), verbose=0)
        g = [w - new for w, new in zip(y, model.get_weights(), strict=True)]
        z = [w - 0.5 * slope for w, slope in zip(z, g, strict=True)]
        x = [a + (w - a) / count for a, w in zip(x, z, strict=True)]
        y = [0.9 * a + 0.1 * w for a, w in zip(x, z, strict=True)]
        averages.append(x)
    return averages


def test_fit_trains_at_y_and_shows_the_average(digits: tuple) -> None:
    model, callback = dense_model(ScheduleFree(SGD(0.5))), Averages()
    history = model.fit(
        *digits,
        batch_size=len(digits[0]),
        validation_data=digits,
        epochs=8,
        verbose=0,
        callbacks=[callback],
    ).history
    expected = average_by_hand(digits, 8)
    for seen, average in zip(callback.seen, expected, strict=True):
        for ours, theirs in zip(seen, average, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-6)
    judge = dense_model(keras.optimizers.SGD())
    for average, loss in zip(expected, history["val_loss"], strict=True):
        judge.set_weights(average)
        np.testing.assert_allclose(loss, judge.evaluate(*digits, verbose=0)[0], rtol=1e-5)


@pytest.mark.slow
def test_saved_and_predicted_at_the_average(digits: tuple, tmp_path: Path) -> None:
    model = dense_model(ScheduleFree(AdamW(0.01)))
    path = tmp_path / "{epoch}.keras"
    history = model.fit(
        *digits,
        validation_data=digits,
        epochs=3,
        verbose=0,
        callbacks=[keras.callbacks.ModelCheckpoint(path)],
    ).history
    for epoch in (1, 2, 3):
        loaded = keras.saving.load_model(tmp_path / f"{epoch}.keras")
        loss = loaded.evaluate(*digits, verbose=0)[0]
        np.testing.assert_allclose(loss, history["val_loss"][epoch - 1], rtol=1e-5)
    np.testing.assert_array_equal(
        model.predict(digits[0], verbose=0), loaded.predict(digits[0], verbose=0)
    )


def test_two_fits_are_one(digits: tuple) -> None:
    losses = []
    for epochs in ([4], [1, 3]):
        model = dense_model(ScheduleFree(SGD(0.1)))
        runs = [model.fit(*digits, epochs=n, shuffle=False, verbose=0) for n in epochs]
        losses.append([loss for run in runs for loss in run.history["loss"]])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


@pytest.mark.parametrize(("inner", "momentum"), [(SGD(0.1), 0.9), (AdamW(beta_1=0.8), 0.8)])
def test_takes_the_momentum_of_the_optimizer(inner: Any, momentum: float) -> None:
    optimizer = ScheduleFree(inner)
    assert optimizer.momentum == momentum
    assert not any(getattr(optimizer.optimizer, name, 0) for name in ("beta_1", "momentum"))
    assert ScheduleFree.from_config(optimizer.get_config()).momentum == momentum


def test_optimizer_that_was_built() -> None:
    inner = SGD(0.1, momentum=0.9)
    inner.build([keras.Variable(1.0)])
    with pytest.raises(ValueError, match="`optimizer` must be new: its momentum is switched off"):
        ScheduleFree(inner)
