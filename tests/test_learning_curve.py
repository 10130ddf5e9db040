"""`kerasopt.callbacks.LearningCurve` in a real `fit`."""

import xml.etree.ElementTree
from math import isnan
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from matplotlib.image import imread

from kerasopt.callbacks import LearningCurve
from kerasopt.callbacks._curve_figure import CurveFigure
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
    assert curve.history == {name: pytest.approx(values) for name, values in history.items()}
    panels = {panel.metric: panel for panel in curve._figure.panels}
    assert list(panels) == ["loss", "accuracy"]
    for metric, panel in panels.items():
        for line, name in zip(panel.axes.lines, (metric, f"val_{metric}"), strict=False):
            np.testing.assert_allclose(line.get_ydata(), history[name])
            np.testing.assert_allclose(line.get_xdata(), [1, 2, 3])


def test_one_panel_a_metric(tmp_path: Path) -> None:
    names = ["loss", "a", "b", "c", "d"]
    figure = CurveFigure(names)
    figure.draw([4, 5], {name: [2.0, 1.0] for name in names}, None)
    assert [axes.get_title("left") for axes in figure.figure.axes] == names
    assert figure.figure.axes[0].get_xlim()[0] > 3.5


@pytest.mark.parametrize(("monitor", "choose"), [("val_loss", np.argmin), ("loss", np.argmin),
                                                 ("val_accuracy", np.argmax)])  # fmt: skip
def test_marks_the_best_epoch(fit: Any, tmp_path: Path, monitor: str, choose: Any) -> None:
    curve = LearningCurve(tmp_path / "c.png", monitor=monitor)
    history = fit(curve).history
    assert curve.best == choose(history[monitor])
    assert f"best epoch {curve.best + 1}:" in curve._figure.panels[0].best_label.get_text()


def test_file_is_whole_after_each_epoch(fit: Any, tmp_path: Path) -> None:
    path, shapes = tmp_path / "c.png", []
    look = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: shapes.append(epoch and imread(path).shape)
    )
    fit(LearningCurve(path), look)
    assert shapes == [0, shapes[1], shapes[1]]
    assert len(shapes[1]) == 3


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
    assert list(curve.history) == ["accuracy", "loss"]
    assert curve.path.exists()


def test_chosen_metrics_and_title(fit: Any, tmp_path: Path) -> None:
    curve = LearningCurve(tmp_path / "c.png", metrics=["accuracy"], title="digits")
    fit(curve)
    assert [panel.metric for panel in curve._figure.panels] == ["accuracy"]
    assert curve._figure.figure.get_suptitle() == "digits"


def test_training_that_diverges_is_drawn(digits: tuple, tmp_path: Path) -> None:
    model = dense_model(keras.optimizers.SGD(1e38))
    curve = LearningCurve(tmp_path / "c.png")
    model.fit(*digits, validation_split=0.2, epochs=4, verbose=0, callbacks=[curve])
    assert not np.isfinite(curve.history["val_loss"][-1])
    assert curve.path.exists()


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
