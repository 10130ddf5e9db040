"""`kerasopt.strategies.DataParallel` on logical CPUs."""

from typing import Any

import keras
import numpy as np
import pytest

import kerasopt
from tests.contract.cases import dense_model


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ([], r"`devices` must name at least one of \['/device:CPU:0'"),
        ("CPU:0", r"`devices` must be a list of device names .* Received: devices='CPU:0'"),
        (2, "`devices` must be a list of device names"),
        (["CPU:0", 1], "`devices` must hold names such as 'GPU:0'. Received: 1"),
        (["CPU:0", "first"], "`devices` must hold names such as 'GPU:0'. Received: 'first'"),
        (["CPU:0", "cpu:0"], "`devices` must name each device once. Received"),
        (["CPU:0", "CPU:9"], r"`devices` must be devices of this machine.*'/device:CPU:9'\] are"),
        (["GPU:0"], "`devices` must be devices of this machine"),
    ],
)
def test_bad_devices(devices: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        kerasopt.strategies.DataParallel(devices)


@pytest.mark.tensorflow
def test_mixed_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    named = [tf.config.LogicalDevice(f"/device:{kind}:0", kind) for kind in ("CPU", "GPU")]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: named)
    with pytest.raises(ValueError, match="`devices` must all be of one kind"):
        kerasopt.strategies.DataParallel(["CPU:0", "GPU:0"])


@pytest.mark.tensorflow
def test_all_devices_by_default() -> None:
    strategy = kerasopt.strategies.DataParallel()
    assert strategy.num_replicas_in_sync == 4
    assert strategy.extended.worker_devices[0].endswith("CPU:0")


@pytest.mark.tensorflow
def test_several_sizes_in_one_process(digits: tuple) -> None:
    for names in (["CPU:0"], ["CPU:0", "CPU:1"], ["cpu:1", "/device:CPU:2", "CPU:3"], ["CPU:3"]):
        with kerasopt.strategies.DataParallel(names).scope():
            model = dense_model(keras.optimizers.SGD(0.1))
        images, labels = (part[:120] for part in digits)
        losses = model.fit(images, labels, batch_size=12, epochs=2, verbose=0).history["loss"]
        assert losses[1] < losses[0]


@pytest.mark.tensorflow
def test_saved_model_opens_without_a_strategy(digits: tuple, tmp_path: Any) -> None:
    with kerasopt.strategies.DataParallel(["CPU:0", "CPU:1"]).scope():
        model = dense_model(kerasopt.optimizers.Momentum(0.1))
    model.fit(*digits, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.predict(digits[0], verbose=0), model.predict(digits[0], verbose=0), atol=1e-6
    )


def test_other_backends_are_refused() -> None:
    if keras.backend.backend() == "tensorflow":
        pytest.skip("for the other backends")
    with pytest.raises(RuntimeError, match="`DataParallel` needs Keras' TensorFlow backend"):
        kerasopt.strategies.DataParallel()
