"""`kerasopt.callbacks.LearningCurve` in a real `fit`."""

import json
import sys
import xml.etree.ElementTree
from math import isnan
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
from matplotlib.image import imread

from kerasopt._acting import ActingCallback
from kerasopt.callbacks import GrowingBatchSize, LearningCurve, compare, plot_history
from kerasopt.callbacks._curve_figure import CurveFigure, Look, fitted, smoothed
from tests.contract.cases import dense_model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return dense_model(keras.optimizers.SGD(0.1))


@pytest.fixture
def fit(model: keras.Model, digits: tuple) -> Any:
    """Fit with validation; the arguments of `fit` can be changed."""

    def run(curve: LearningCurve, *others: keras.callbacks.Callback, **arguments: Any) -> Any:
        arguments = {"validation_split": 0.25, "epochs": 3, "verbose": 0, **arguments}
        return model.fit(*digits, callbacks=[*others, curve], **arguments)

    return run


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_draws_in_the_format_of_the_suffix(fit: Any, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / "folder" / f"curves{suffix}"
    fit(LearningCurve(path))
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    if suffix == ".png":
        assert np.ptp(imread(path)) > 0.5
    elif suffix == ".svg":
        assert xml.etree.ElementTree.parse(path).getroot().tag.endswith("svg")
    else:
        assert path.read_bytes().startswith(b"%PDF")
        assert path.read_bytes().rstrip().endswith(b"%%EOF")


def test_shows_what_fit_logged(fit: Any, tmp_path: Path) -> None:
    curve = LearningCurve(tmp_path / "c.png")
    history = fit(curve).history
    assert curve.epochs == [1, 2, 3]
    history["learning_rate"] = [0.1] * 3
    assert curve.history == {name: pytest.approx(values) for name, values in history.items()}
    assert list(curve._figure.panels) == ["loss", "accuracy"]
    for metric, panel in curve._figure.panels.items():
        for label, name in (("training", metric), ("validation", f"val_{metric}")):
            epochs, values = panel.lines[label].get_data()
            np.testing.assert_allclose(values, history[name])
            np.testing.assert_allclose(epochs, [1, 2, 3])


def test_one_panel_a_metric(tmp_path: Path) -> None:
    names = ["loss", "a", "b", "c", "d"]
    figure = CurveFigure({name: {"training": {}} for name in names}, None, Look())
    curve = np.array([4.0, 5.0]), np.array([2.0, 1.0])
    figure.draw({name: {"training": curve} for name in names})
    assert [axes.get_title("left") for axes in figure.figure.axes] == names
    assert figure.figure.axes[0].get_xlim()[0] > 3.5


@pytest.mark.parametrize(("monitor", "choose"), [("val_loss", np.argmin), ("loss", np.argmin),
                                                 ("val_accuracy", np.argmax)])  # fmt: skip
def test_marks_the_best_epoch(fit: Any, tmp_path: Path, monitor: str, choose: Any) -> None:
    curve = LearningCurve(tmp_path / "c.png", monitor=monitor)
    history = fit(curve).history
    assert curve.best == choose(history[monitor])
    assert f"best epoch {curve.best + 1}:" in curve._figure.panels["loss"].best_label.get_text()


def test_file_is_whole_after_each_epoch(fit: Any, tmp_path: Path) -> None:
    path, shapes = tmp_path / "c.png", []
    look = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: shapes.append(epoch and imread(path).shape)
    )
    fit(LearningCurve(path), look)
    assert shapes == [0, shapes[1], shapes[1]]
    assert shapes[1][2] == 4  # red, green, blue, opacity


def test_every(fit: Any, tmp_path: Path) -> None:
    path, there = tmp_path / "c.png", []
    look = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: there.append(path.exists())
    )
    fit(LearningCurve(path, every=2), look, epochs=3)
    assert there == [False, False, True]


def test_validation_every_second_epoch(fit: Any, tmp_path: Path) -> None:
    curve = LearningCurve(tmp_path / "c.png", every=2)
    fit(curve, validation_freq=2, epochs=4)
    assert [isnan(value) for value in curve.history["val_loss"]] == [True, False, True, False]
    assert curve.best in (1, 3)


def test_epochs_count_on(fit: Any, tmp_path: Path) -> None:
    curve = LearningCurve(tmp_path / "c.png")
    fit(curve, epochs=2)
    fit(curve, epochs=4, initial_epoch=2)
    fit(curve, epochs=2)
    assert curve.epochs == [1, 2, 3, 4, 5, 6]


def test_training_alone(fit: Any, tmp_path: Path) -> None:
    curve = LearningCurve(tmp_path / "c.png", monitor="loss")
    fit(curve, validation_split=0.0)
    assert list(curve.history) == ["accuracy", "loss", "learning_rate"]
    assert curve.path.exists()


def test_chosen_metrics_and_title(fit: Any, tmp_path: Path) -> None:
    curve = LearningCurve(tmp_path / "c.png", metrics=["accuracy"], title="digits")
    fit(curve)
    assert list(curve._figure.panels) == ["accuracy"]
    assert curve._figure.figure.get_suptitle() == "digits"


def test_training_that_diverges_is_drawn(digits: tuple, tmp_path: Path) -> None:
    model = dense_model(keras.optimizers.SGD(1e38))
    curve = LearningCurve(tmp_path / "c.png")
    model.fit(*digits, validation_split=0.2, epochs=4, verbose=0, callbacks=[curve])
    assert not np.isfinite(curve.history["val_loss"][-1])
    assert curve.path.exists()


def test_learning_rate_has_a_panel_once_it_changes(fit: Any, tmp_path: Path) -> None:
    rates = [0.1, 0.1, 0.01, 0.01]
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: rates[epoch])
    curve = LearningCurve(tmp_path / "c.png")
    fit(curve, schedule, epochs=2)
    assert "learning_rate" not in curve._figure.panels
    fit(curve, schedule, epochs=4, initial_epoch=2)
    _, values = curve._figure.panels["learning_rate"].lines["rate"].get_data()
    np.testing.assert_allclose(values, rates)


def test_events_of_other_callbacks_are_marked(fit: Any, tmp_path: Path) -> None:
    class Grower(ActingCallback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.note(epoch + 1, "batch × 2")

    curve, grower = LearningCurve(tmp_path / "c.png"), Grower()
    fit(curve, grower)
    fit(curve, grower, epochs=1)
    marks = curve._figure.panels["loss"].events["batch"]
    assert list(marks.get_xdata()) == [1, 2, 3, 4]
    assert marks.get_label() == "batch × 2 (4 times)"
    again = LearningCurve(tmp_path / "c.png")
    again.set_state(json.loads(json.dumps(curve.get_state())))
    assert again.get_state() == curve.get_state()


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("known", [True, False])
def test_error_of_batches(model: keras.Model, digits: tuple, tmp_path: Path, known: bool) -> None:
    def batches() -> Any:
        for start in range(0, 128, 16):
            yield tuple(part[start : start + 16] for part in digits)

    class Losses(keras.callbacks.Callback):
        seen: ClassVar[list[float]] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.seen.append((batch + 1) * logs["loss"])

    curve, losses = LearningCurve(tmp_path / "c.png", monitor="loss", every_batches=4), Losses()
    losses.seen = []
    data = {"x": digits[0], "y": digits[1], "batch_size": 16} if known else {"x": batches()}
    model.fit(**data, verbose=0, shuffle=False, callbacks=[losses, curve])
    first, second = losses.seen[3] / 4, (losses.seen[7] - losses.seen[3]) / 4
    epochs, means = curve._figure.panels["loss"].lines["batches"].get_data()
    np.testing.assert_allclose(means, [first, second])
    np.testing.assert_allclose(epochs, [0.5, 1.0])


def test_batches_stay_in_their_epochs(model: keras.Model, digits: tuple, tmp_path: Path) -> None:
    curve = LearningCurve(tmp_path / "c.png", monitor="loss", every_batches=2)
    for size in (16, 64):
        model.fit(*digits, batch_size=size, verbose=0, callbacks=[curve])
    grows = GrowingBatchSize(start=32, every=1)
    model.fit(grows.batches(*digits), epochs=2, verbose=0, callbacks=[grows, curve])
    epochs, _ = curve._figure.panels["loss"].lines["batches"].get_data()
    np.testing.assert_allclose(epochs, [0.25, 0.5, 0.75, 1.0, 2.0, 2.5, 3.0, 4.0])


def test_figures_of_layers_have_no_panels(fit: Any, tmp_path: Path) -> None:
    monitor = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update({"gradient_norm/dense": 1.0})
    )
    fit(curve := LearningCurve(tmp_path / "c.png"), monitor)
    assert curve.history["gradient_norm/dense"] == [1.0] * 3
    assert list(curve._figure.panels) == ["loss", "accuracy"]


def test_moving_average() -> None:
    np.testing.assert_allclose(smoothed(np.array([1.0, 2.0, 4.0]), 0.5), [1, 5 / 3, 3])
    assert smoothed(np.array([1.0]), 0.0) == [1.0]


def test_limits_leave_room_and_are_kept() -> None:
    limits = fitted(np.array([1.0, 2.0]), None)
    assert fitted(np.array([0.96, 2.0]), limits) == limits
    low, high = fitted(np.array([0.5, 2.0]), limits)
    assert (low, high) == (pytest.approx(0.5 - 0.35 * 1.5), pytest.approx(2.0 + 0.05 * 1.5))


def test_drawing_in_part_is_drawing_in_whole(fit: Any, tmp_path: Path) -> None:
    curve = LearningCurve(tmp_path / "c.png")
    fit(curve, epochs=4)
    kept = curve._figure.pixels().tobytes()
    curve._figure._background = None
    curve.draw()
    assert curve._figure.pixels().tobytes() == kept


def test_goes_on_with_a_history(fit: Any, tmp_path: Path) -> None:
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    first = fit(LearningCurve(tmp_path / "c.png"), log, epochs=2)
    for history in (first, first.history, tmp_path / "log.csv"):
        curve = LearningCurve(tmp_path / "c.png", history=history)
        assert curve.epochs == [1, 2]
        assert curve.history["val_loss"] == pytest.approx(first.history["val_loss"])
    fit(curve, epochs=3, initial_epoch=2)
    assert curve.epochs == [1, 2, 3]


def test_says_what_the_curves_show(fit: Any, tmp_path: Path, capsys: Any) -> None:
    curve = LearningCurve(tmp_path / "c.png")
    fit(curve, epochs=4, verbose=2)
    assert "Epoch 4/4" in capsys.readouterr().out.splitlines()[-2]  # too few
    fit(curve, epochs=2, verbose=2)
    assert capsys.readouterr().out.endswith(f"\n{curve.diagnosis()}\n")
    fit(curve, epochs=2)
    assert capsys.readouterr().out == ""


def test_history_of_a_training_that_has_ended(fit: Any, tmp_path: Path) -> None:
    history = fit(LearningCurve(tmp_path / "a.png"))
    plot_history(history, tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_compares_trainings(fit: Any, tmp_path: Path) -> None:
    runs = {name: fit(LearningCurve(tmp_path / "a.png"), epochs=2) for name in ("one", "two")}
    compare({**runs, "three": {"loss": [2.0, 1.0]}}, tmp_path / "b.svg", metrics=["loss"])
    text = (tmp_path / "b.svg").read_text()
    for label in ("one, training", "two", "three"):
        assert f"<!-- {label} -->" in text


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (({},), ValueError, r"`histories` must be 1 to 7 trainings.* Received: \[\]"),
        (({"a": 3},), TypeError, "`histories` must be what `fit` returned.* Received: histories=3"),
        (({"a": {"loss": []}},), ValueError, "`histories` must hold the values of one epoch"),
        (({"a": "missing.csv"},), FileNotFoundError, "`histories` must be a file. Received: .*csv"),
        (({"a": {"loss": [1]}}, "c.gif"), ValueError, "`path` must end in one of"),
        (({"a": {"loss": [1]}}, "c.png", ["auc"]), ValueError, r"`metrics` must be in all.*'loss'"),
    ],
)
def test_comparison_of_nothing(arguments: tuple, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        compare(*arguments)


def test_view_in_a_notebook(fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures: list[Any] = []
    shell = SimpleNamespace(kernel=None)
    shown = SimpleNamespace(update=pictures.append)
    display = SimpleNamespace(display=lambda *data, **how: shown)
    notebook = SimpleNamespace(get_ipython=lambda: shell, display=display)
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    fit(LearningCurve(tmp_path / "c.png"))
    assert [picture.size for picture in pictures] == [(1200, 438)] * 4


def test_unknown_metric(fit: Any, tmp_path: Path) -> None:
    curve = LearningCurve(tmp_path / "c.png", metrics=["loss", "auc"])
    with pytest.raises(ValueError, match=r"`metrics` .* \['auc'\] are not.*logged: .*'accuracy'"):
        fit(curve)


@pytest.mark.parametrize("path", ["/proc/curves.png", "file/curves.png", "folder.png"])
def test_unwritable_path_before_training(
    fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder.png").mkdir()
    begun: list[int] = []
    count = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: begun.append(1))
    with pytest.raises(OSError, match=f"`path` must be a file that can be written.*{path}"):
        fit(LearningCurve(path), count)
    assert not begun


def test_pyplot_is_left_alone(fit: Any, tmp_path: Path) -> None:
    from matplotlib import pyplot

    before = pyplot.get_backend(), pyplot.get_fignums()
    fit(LearningCurve(tmp_path / "c.png"), epochs=1)
    assert (pyplot.get_backend(), pyplot.get_fignums()) == before
