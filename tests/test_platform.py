"""Defects of TensorFlow and Keras that kerasopt works around: is each still there?

A failure is good news: the platform has changed, and what works around it may go.
"""

import keras
import numpy as np
import pytest

from tests.contract.cases import dense_model

pytestmark = pytest.mark.tensorflow

GONE = "the platform has changed: this defect is gone"


@pytest.fixture
def scope() -> object:
    import tensorflow as tf

    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=reduction).scope


def one_weight(optimizer: keras.optimizers.Optimizer) -> keras.Model:
    """Return a model of one weight, which starts at 0 and is pulled to the targets."""
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((1,)), dense])
    model.compile(optimizer, "mse")
    return model


def learned(model: keras.Model, targets: list[float], batch_size: int) -> float:
    """Return the weight after one pass over the targets."""
    y = np.array(targets, "float32")[:, None]
    model.fit(np.ones_like(y), y, batch_size=batch_size, shuffle=False, verbose=0)
    return float(model.get_weights()[0][0, 0])


def test_uneven_batches_are_weighed_wrongly(scope: object) -> None:
    targets = [1.0, 2.0, 3.0, 4.0, 9.0, 0.0, 0.0]  # the second batch has three
    alone = learned(one_weight(keras.optimizers.SGD(0.1)), targets, 4)
    with scope():
        model = one_weight(keras.optimizers.SGD(0.1))
    assert abs(learned(model, targets, 4) - alone) > 0.1, GONE


def test_clipping_acts_before_the_sum(scope: object) -> None:
    targets = [100.0, 100.0, -90.0, -90.0]
    assert learned(one_weight(keras.optimizers.SGD(1.0, clipvalue=1.0)), targets, 4) == 1
    with scope():
        model = one_weight(keras.optimizers.SGD(1.0, clipvalue=1.0))
    assert learned(model, targets, 4) == 0, GONE


def test_replicas_draw_the_same_noise(scope: object) -> None:
    import tensorflow as tf

    with scope():
        strategy, noise = tf.distribute.get_strategy(), keras.layers.GaussianNoise(1.0)
        drawn = strategy.run(lambda: noise(tf.zeros((1, 5)), training=True))
    first, second = strategy.experimental_local_results(drawn)
    np.testing.assert_array_equal(first, second, err_msg=GONE)


def test_gradient_accumulation_fails(scope: object, digits: tuple) -> None:
    with scope():
        model = dense_model(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    with pytest.raises(RuntimeError, match="merge_call"):
        model.fit(*digits, verbose=0)


def test_hierarchical_reduction_loses_one_of_three() -> None:
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1", "CPU:2"], cross_device_ops=tf.distribute.HierarchicalCopyAllReduce()
    )

    @tf.function
    def count() -> object:
        context = tf.distribute.get_replica_context
        return strategy.run(lambda: context().all_reduce("SUM", tf.ones(())))

    counted = strategy.experimental_local_results(count())[0]
    assert float(counted) == 2, GONE
