"""What every optimizer keeps."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import kerasopt
from kerasopt.optimizers._devices import summed
from tests.contract.cases import A_FEW, OPTIMIZERS, Case, bad_rows, dense_model, rows

every_optimizer = rows(*OPTIMIZERS)
a_few_quickly = rows(*OPTIMIZERS, quick=A_FEW)
every_that_averages = rows(
    *(
        case
        for case in OPTIMIZERS
        if case.constructor is not kerasopt.optimizers.ScheduleFree
        and "use_ema" not in case.refuses
    )
)


def every_that_takes(argument: str) -> pytest.MarkDecorator:
    """Run a test for each optimizer that does not refuse an argument."""
    return rows(*(case for case in OPTIMIZERS if argument not in case.refuses))


def apply(
    case: Case, optimizer: keras.optimizers.Optimizer, gradients: list, weights: list
) -> None:
    """Take a step, if it is asked for with the loss Σ gᵀw + ½ ‖w - w₀‖², now at w₀."""
    if not case.objective:
        optimizer.apply(gradients, weights)
        return
    start = [ops.copy(w) for w in weights]

    def loss(z: list) -> Any:
        pairs = [(g, v - w) for g, v, w in zip(slopes, z, start, strict=True) if g is not None]
        return sum(ops.sum(ops.cast(g, v.dtype) * v + v * v / 2) for g, v in pairs)

    slopes = summed(gradients)  # dense
    with kerasopt.Objective(loss, weights, lambda: list(weights)) as objective:
        optimizer.scale_loss(objective.loss())
        optimizer.apply(gradients, weights)


def steps(
    case: Case,
    gradients: list[list[float]],
    optimizer: keras.optimizers.Optimizer | None = None,
    dtype: str = "float32",
    **arguments: Any,
) -> np.ndarray:
    """Apply one gradient after another to the weights (1, -2, 3); return where they end."""
    optimizer = optimizer or case.make(**arguments)
    w = keras.Variable([1.0, -2.0, 3.0], dtype=dtype)
    optimizer.build([w])
    for gradient in gradients * case.repeat:
        apply(case, optimizer, [ops.convert_to_tensor(gradient, dtype=dtype)], [w])
    optimizer.finalize_variable_values([w])
    return ops.convert_to_numpy(ops.cast(w, "float32"))


def minimise(
    optimizer: keras.optimizers.Optimizer,
    w: keras.Variable,
    gradient: Callable,
    count: int,
    last: float = 0.1,
    loss: Callable | None = None,
) -> np.ndarray:
    """Take some steps, the last third at another rate, with the loss if it is asked for."""
    optimizer.build([w])

    def step(scope: contextlib.ExitStack) -> list:
        if loss is not None:
            objective = kerasopt.Objective(lambda z: loss(z[0]), [w], lambda: [w + 0.0])
            optimizer.scale_loss(scope.enter_context(objective).loss())
        return [gradient(w.value)]

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function
        def run(steps: int) -> None:
            for _ in tf.range(steps):
                with contextlib.ExitStack() as scope:
                    optimizer.apply(step(scope), [w])

    else:
        import jax

        @jax.jit
        def update(weights: list, state: list) -> tuple[list, list]:
            with contextlib.ExitStack() as scope:
                with keras.StatelessScope([(w, weights[0])]):
                    gradients = step(scope)
                return optimizer.stateless_apply(state, gradients, weights)

        def run(steps: int) -> None:
            weights, state = [w.value], [v.value for v in optimizer.variables]
            for _ in range(steps):
                weights, state = update(weights, state)
            for variable, value in zip([w, *optimizer.variables], [*weights, *state], strict=True):
                variable.assign(value)

    run(count * 2 // 3)
    optimizer.learning_rate = last * float(optimizer.learning_rate)
    run(count // 3)
    optimizer.finalize_variable_values([w])
    return w.numpy()


def minimum(case: Case, start: list[float], loss: Callable, gradient: Callable) -> np.ndarray:
    """Return where the optimizer of a row ends."""
    shown = loss if case.objective else None
    return minimise(case.make(), keras.Variable(start), gradient, case.count, case.last, shown)


GRADIENTS = [[3.0, -4.0, 12.0], [1.0, 2.0, -2.0], [-30.0, 40.0, 0.0], [0.5, 0.5, 0.5]]


@every_optimizer
def test_config_round_trip_through_json(case: Case) -> None:
    more = {} if "clipnorm" in case.refuses else {"weight_decay": 0.1, "clipnorm": 2.0}
    optimizer = case.make(**more)
    config = json.loads(json.dumps(optimizer.get_config()))
    again = type(optimizer).from_config(config)
    assert again.get_config() == optimizer.get_config()
    serialized = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    assert keras.optimizers.deserialize(serialized).get_config() == optimizer.get_config()
    np.testing.assert_array_equal(steps(case, GRADIENTS, again), steps(case, GRADIENTS, optimizer))


@every_optimizer
def test_is_taken_by_instance(case: Case) -> None:
    optimizer = case.make()
    assert keras.optimizers.get(optimizer) is optimizer
    assert dense_model(optimizer).optimizer is optimizer


@every_optimizer
def test_goes_on_the_same_after_save_and_load(case: Case, digits: tuple, tmp_path: Path) -> None:
    model = case.model()
    model.fit(*digits, epochs=1, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(*digits, epochs=2, shuffle=False, verbose=0)
    for ours, theirs in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    for ours, theirs in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@every_optimizer
def test_minimises_a_quadratic(case: Case) -> None:
    curvature = np.array([1.0, 10.0], "float32")
    loss = lambda w: ops.sum(curvature * w * w) / 2  # noqa: E731
    end = minimum(case, [3.0, -2.0], loss, lambda w: curvature * w)
    assert np.abs(end).max() < 1e-4


@every_optimizer
def test_minimises_rosenbrock(case: Case) -> None:
    def gradient(w: Any) -> Any:
        x, y = w[0], w[1]
        return ops.stack([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])

    def loss(w: Any) -> Any:
        return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2

    x, y = minimum(case, [-1.2, 1.0], loss, gradient)
    assert (1 - x) ** 2 + 100 * (y - x * x) ** 2 < 1e-2  # it starts at 24.2


@every_optimizer
@pytest.mark.parametrize(("dtype", "close"), [("bfloat16", 0.1), ("float64", 1e-5)])
def test_keeps_the_type_of_the_weights(case: Case, dtype: str, close: float) -> None:
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 by default")
    if dtype in case.refuses:
        pytest.skip(f"{dtype} is refused")
    optimizer = case.make()
    reference, other = steps(case, GRADIENTS), steps(case, GRADIENTS, optimizer, dtype)
    np.testing.assert_allclose(other, reference, rtol=close, atol=close)
    slots = [v for v in optimizer.variables if v.shape == (3,)]
    assert all(keras.backend.standardize_dtype(v.dtype) == dtype for v in slots)


@every_optimizer
@pytest.mark.parametrize(
    "policy",
    [
        "mixed_float16",
        *(pytest.param(p, marks=pytest.mark.slow) for p in ("mixed_bfloat16", "bfloat16")),
    ],
)
def test_trains_in_reduced_precision(case: Case, digits: tuple, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    if policy in case.refuses:
        with pytest.raises(ValueError, match=r"too coarse for.* Received: layer '.*' of comp"):
            case.model().fit(*digits, verbose=0)
        return
    history = case.model().fit(*digits, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]


@every_that_takes("weight_decay")
def test_weight_decay(case: Case) -> None:
    zero = [[0.0, 0.0, 0.0]]
    shrink = 1 - 0.5 * case.scale * float(case.make().learning_rate)
    decayed = steps(case, zero, weight_decay=0.5)
    np.testing.assert_allclose(decayed, shrink * steps(case, zero), rtol=1e-6)


@every_that_averages
def test_moving_average_of_the_weights(case: Case) -> None:
    average = steps(case, GRADIENTS[:1])
    for count in range(2, len(GRADIENTS) + 1):
        average = 0.5 * average + 0.5 * steps(case, GRADIENTS[:count])
    averaged = steps(case, GRADIENTS, use_ema=True, ema_momentum=0.5)
    np.testing.assert_allclose(averaged, average, rtol=1e-5)


@every_that_takes("clipnorm")
@pytest.mark.parametrize("kind", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_clipping(case: Case, kind: str) -> None:
    def clip(gradient: list[float]) -> list[float]:
        if kind == "clipvalue":
            return list(np.clip(gradient, -2.0, 2.0))
        return list(np.array(gradient) * min(1.0, 2.0 / np.linalg.norm(gradient)))

    clipped = steps(case, GRADIENTS, **{kind: 2.0})
    np.testing.assert_allclose(clipped, steps(case, [clip(g) for g in GRADIENTS]), rtol=1e-5)


@every_that_takes("gradient_accumulation_steps")
def test_gradient_accumulation(case: Case) -> None:
    pairs = zip(GRADIENTS[::2], GRADIENTS[1::2], strict=True)
    means = [list(np.mean(pair, axis=0)) for pair in pairs]
    accumulated = steps(case, GRADIENTS, gradient_accumulation_steps=2)
    np.testing.assert_allclose(accumulated, steps(case, means), rtol=1e-6)


@every_that_takes("schedule")
def test_schedule_is_followed(case: Case) -> None:
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.1, 0.01])
    scheduled = steps(case, GRADIENTS, learning_rate=schedule)
    by_hand, w = case.make(learning_rate=0.1), keras.Variable([1.0, -2.0, 3.0])
    for count, gradient in enumerate(GRADIENTS * case.repeat):
        by_hand.learning_rate = 0.1 if count < 2 else 0.01
        apply(case, by_hand, [ops.convert_to_tensor(gradient)], [w])
    by_hand.finalize_variable_values([w])
    np.testing.assert_allclose(scheduled, w.numpy(), rtol=1e-6)
    assert not np.allclose(scheduled, steps(case, GRADIENTS, learning_rate=0.1))


@every_optimizer
@pytest.mark.tensorflow
def test_sparse_gradients_equal_dense_ones(case: Case) -> None:
    import tensorflow as tf

    sparse, dense = (keras.Variable(np.arange(12.0).reshape(4, 3)) for _ in range(2))
    rows = tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    slices = tf.IndexedSlices(rows, tf.constant([2, 0, 2]), tf.constant([4, 3]))
    ours, reference = case.make(), case.make()
    for _ in range(3 * case.repeat):
        apply(case, ours, [slices], [sparse])
        apply(case, reference, [tf.convert_to_tensor(slices)], [dense])
    np.testing.assert_allclose(sparse.numpy(), dense.numpy(), rtol=1e-6)


@a_few_quickly
def test_trains_an_embedding(case: Case) -> None:
    words = np.array([[0, 3], [1, 1], [2, 3], [0, 2]])
    layers = keras.layers
    model = keras.Sequential([layers.Embedding(4, 2), layers.Flatten(), layers.Dense(1)])
    kerasopt.prepare(model).compile(case.make(), "mse")
    losses = model.fit(words, np.array([0.0, 1.0, 2.0, 3.0]), epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@every_optimizer
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_weights_without_gradient_stay(case: Case) -> None:
    used, unused = keras.Variable([1.0]), keras.Variable([1.0, 1.0, 1.0])
    optimizer = case.make()
    for _ in range(2 * case.repeat):
        apply(case, optimizer, [ops.ones(1), None], [used, unused])
    assert used.numpy() != 1
    assert (unused.numpy() == 1).all()


@a_few_quickly
def test_frozen_layers_stay(case: Case, digits: tuple) -> None:
    model = case.model()
    frozen, trained = model.layers[1], model.layers[2]
    frozen.trainable = False
    model.compile(case.make(), loss=model.loss)
    before = [w.numpy() for w in (*frozen.weights, *trained.weights)]
    model.fit(*digits, epochs=case.repeat, verbose=0)
    changed = [not np.array_equal(a, w.numpy()) for a, w in zip(before, model.weights, strict=True)]
    assert changed == [False, False, True, True]


@a_few_quickly
@pytest.mark.tensorflow  # on JAX all is compiled
def test_compiled_and_not_agree(case: Case, digits: tuple) -> None:
    weights = []
    for jit_compile in (False, True):
        model = case.model(jit_compile=jit_compile)
        model.fit(*digits, epochs=3, shuffle=False, verbose=0)
        weights.append(np.concatenate([w.numpy().ravel() for w in model.weights]))
    np.testing.assert_allclose(weights[0], weights[1], atol=case.close)


@a_few_quickly
def test_second_step_does_not_trace_again(case: Case, digits: tuple) -> None:
    traces = []

    def loss(y: object, y_pred: object) -> object:
        traces.append(y_pred)
        return keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)

    model = case.model(loss=loss, metrics=[])
    model.train_on_batch(*digits)
    if hasattr(model.train_step, "attends"):  # an optimizer that takes part traces once more
        model.train_on_batch(*digits)
    first = len(traces)
    for _ in range(3):
        model.train_on_batch(*digits)
    assert len(traces) == first


@a_few_quickly
@pytest.mark.tensorflow
def test_same_path_under_strategies(case: Case, digits: tuple) -> None:
    import tensorflow as tf

    devices, reduction = ["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice()
    strategies = [tf.distribute.get_strategy(), kerasopt.strategies.DataParallel(devices)]
    if not case.objective or case.constructor is kerasopt.optimizers.LBFGS:
        strategies += [tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)]
    runs = []
    for strategy in strategies:
        with strategy.scope():
            model = case.model(metrics=[])
        model.fit(*digits, epochs=2, shuffle=False, verbose=0)  # even batches
        runs.append([w.numpy() for w in model.weights])
    for ours in runs[1:]:
        for weight, alone in zip(ours, runs[0], strict=True):
            np.testing.assert_allclose(weight, alone, atol=case.close)


@bad_rows(*OPTIMIZERS)
def test_bad_arguments(case: Case, arguments: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        case.make(**arguments)
