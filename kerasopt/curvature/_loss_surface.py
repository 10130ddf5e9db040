"""The loss along one or two directions from the weights."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from kerasopt._files import check_writable
from kerasopt._objective import of_batch, rows_of
from kerasopt._validation import check_count, check_range
from kerasopt.callbacks._curve_figure import check_picture
from kerasopt.curvature._data import data_pass
from kerasopt.curvature._directions import check_directions, random_direction
from kerasopt.curvature._first_call import first_call
from kerasopt.curvature._stateless import stateless
from kerasopt.curvature._surface import LossSurface


def loss_surface(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    directions: int | Sequence[Any] = 2,
    span: tuple[float, float] = (-1.0, 1.0),
    points: int = 25,
    batch_size: int = 256,
    seed: int = 0,
    verbose: int = 0,
    path: str | PathLike[str] | None = None,
) -> LossSurface:
    """Return the loss of a model on a line or a plane through its weights.

    Use it to see plateaus, cliffs and valleys, how sharp a minimum is, or what lies between two
    sets of weights. The loss is that of `compile`, with penalties, in inference (no dropout, moving
    statistics), as `model.evaluate` has it:

        L(a) = J(w + a d)          L(a, b) = J(w + a d₁ + b d₂)          a, b in `span`

    Random directions are normalised by filters: the part d_j that moves the weights w_j into one
    unit or feature map, the last axis of a kernel, has their norm, so that networks with weights of
    other scales can be compared; vectors, such as biases, stay.

        d_j ← ‖w_j‖ d_j / ‖d_j‖,   d_j ~ N(0, 1)

    The variables of the model are not touched: the loss is computed as a function of them.

    Args:
        model: A compiled and built model.
        x: Data as `fit` takes them: arrays, or a `tf.data.Dataset`, `PyDataset` or other iterable
            of batches with an end. They are read once.
        y: Targets, of arrays. Defaults to None.
        sample_weight: Weights of the samples, of arrays. Defaults to None.
        directions: 1 or 2 for so many random directions, or a list of one or two, each a list of
            arrays of the shapes of `model.trainable_variables` or one vector of all of them. They
            are taken as they are: to go from these weights to others, give the differences, and
            for eigenvectors scale them as you like. Defaults to 2.
        span: Pair (low, high) of the smallest and largest a and b. Defaults to (-1, 1).
        points: Number ≥ 2 of values of a and of b. Defaults to 25.
        batch_size: Rows ≥ 1 of a batch, of arrays. Defaults to 256.
        seed: Seed ≥ 0 of the random directions. Defaults to 0.
        verbose: 0: silent, 1: a progress bar. Defaults to 0.
        path: File to draw to, `.png`, `.svg` or `.pdf`, or None. Defaults to None.

    Returns:
        A `LossSurface`, with `coordinates`, `losses`, `directions` and the method
        `plot(path, log)`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The model is not compiled or not built, there are not one or two directions of
            the shapes of the weights, there are no data, or an argument is out of range.
        OSError: The file cannot be written.

    Reference:
        Li, Xu, Taylor, Studer and Goldstein, Visualizing the loss landscape of neural nets, 2018;
        Goodfellow, Vinyals and Saxe, Qualitatively characterizing neural network optimization
        problems, 2015 (the line between two sets of weights).

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        >>> model.compile("sgd", "mse")
        >>> model.set_weights([np.array([[2.0]])])
        >>> line = [[np.array([[1.0]])]]
        >>> found = kerasopt.curvature.loss_surface(
        ...     model, np.ones((4, 1)), 2 * np.ones((4, 1)), directions=line, points=3
        ... )
        >>> found.coordinates[0].tolist(), found.losses.tolist()
        ([-1.0, 0.0, 1.0], [1.0, 0.0, 1.0])
    """
    weights = _check_model(model).trainable_variables
    low, high = check_range("span", span)
    check_count("batch_size", batch_size)
    random = np.random.default_rng(check_count("seed", seed, least=0))
    if isinstance(directions, int):
        count = check_count("directions", directions)
        directions = [random_direction(weights, random) for _ in range(count)]
    ways = check_directions(directions, weights)
    coordinate = np.linspace(low, high, check_count("points", points, least=2))
    if path is not None:
        check_writable("path", check_picture(path))
    batches = data_pass(x, y, sample_weight, batch_size)
    losses = _losses(model, batches, ways, coordinate, check_count("verbose", verbose, least=0))
    found = LossSurface((coordinate,) * len(ways), losses, tuple(map(tuple, ways)))
    if path is not None:
        found.plot(path)
    return found


def _losses(
    model: keras.Model, batches: Any, ways: list[list[np.ndarray]], values: np.ndarray, verbose: int
) -> np.ndarray:
    """Return the mean loss over the rows of all batches, on the grid of the values."""
    losses, rows, done = np.zeros((len(values),) * len(ways)), 0, 0
    tensors = tree.map_structure(ops.convert_to_tensor, ways)
    bar = keras.utils.Progbar(None, verbose=verbose, unit_name="loss")
    loss = _loss_along(model)
    for batch in batches:
        if not rows:
            first_call(model, batch)
        batch_rows = int(rows_of(batch[0]))
        rows += batch_rows
        for index in np.ndindex(losses.shape):
            steps = values[[*index]].astype("float32")
            losses[index] += batch_rows * float(loss(batch, steps, tensors))
            bar.update(done := done + 1)
    if not rows:
        raise ValueError("`x` must have at least one batch. Received: none")
    bar.update(done, finalize=True)
    return losses / rows


def _loss_along(model: keras.Model) -> Callable[..., Any]:
    """Return the compiled loss of a batch, as a function of the steps along directions."""
    place = {id(variable): i for i, variable in enumerate(model.trainable_variables)}

    def loss(values: Any, batch: Any, steps: Any, ways: Any) -> Any:
        pairs = []
        for variable, value in zip(model.variables, values, strict=True):
            if id(variable) in place:
                moves = [way[place[id(variable)]] for way in ways]
                some = [ops.cast(steps[i], value.dtype) * move for i, move in enumerate(moves)]
                value = value + sum(some)
            pairs.append((variable, value))
        return of_batch(model, batch, [], pairs, training=False).loss()

    return stateless(model, loss)


def _check_model(model: Any) -> keras.Model:
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model. Received: model={model!r}")
    if not model.compiled or not model.built:
        raise ValueError(
            "`model` must be compiled, which gives it a loss, and built. Received: "
            f"compiled={model.compiled}, built={model.built}"
        )
    return model
