"""Data parallelism of models that are split into columns."""

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasopt._tensorflow_columns import column_in_building, devices_of
from kerasopt._train_step import asks_for_the_loss
from kerasopt._validation import check_count
from kerasopt.layers import Column
from kerasopt.strategies._data_parallel import check_devices, default_devices
from kerasopt.strategies._exact import EXACT, ExactReplicas, check_backend
from kerasopt.strategies._grid import Summed, following
from kerasopt.strategies._placement import Placement, measure, short
from kerasopt.strategies._shard import replica_index

ROWS = 32  # of the batch that `placement` makes up where `fit` leaves their number open


class HybridParallel(ExactReplicas, tf.distribute.MirroredStrategy):
    """Trains a model of columns on a grid of devices: rows share the batch, columns the model.

    A row of the grid is a replica, which holds the whole model: the weights of column c, their
    gradients and the state of the optimizer on device c of the row, and all that is in no
    `kerasopt.layers.Column` on the first. Use it where one device is too small or too slow for the
    model, and the batch is large enough to be split as well.

        g_c = Σ_r ∂J(batch)/∂w_c through row r,   w_c ← w_c - η g_c   on the devices of column c

    Between the columns of a row only what one takes from another is sent, each tensor once, and its
    gradient once; between rows, gradients only within their column. `placement` shows what ran
    where and what was sent.

    Losses, metrics and weights are those of one device on the same batches, to the rounding of
    sums, in the ways and with the limits that `kerasopt.strategies.DataParallel` names. Beside the
    states only scalars cross between columns, such as the learning rate and a global norm; but
    optimizers that join all weights, such as `LBFGS` and `Newton`, bring them to one device.

    The weights must be built under `scope()`: give the model inputs, or call its `build`.

    Args:
        grid: One row of device names for each replica, one device for each column: such as
            `[["GPU:0", "GPU:1"], ["GPU:2", "GPU:3"]]`. Rows of one device hold all columns.
        data: Number of rows, where `grid` is not given, of the first GPUs, or (logical) CPUs where
            there is none. Defaults to 1.
        model: Number of columns, where `grid` is not given. Defaults to 1.

    Raises:
        RuntimeError: Keras runs on another backend than TensorFlow; later, when `fit` is called
            within `scope()`.
        TypeError: `grid` is not a list of lists of names; later, when the model overrides
            `train_step` or `test_step`.
        ValueError: `grid` is empty, its rows are unequal, a device is there twice or not at all,
            or `data` or `model` stand beside it; this machine has fewer devices than `data` times
            `model`; later, when a column of the model is not in the grid, weights were built
            outside of `scope()`, or the model is compiled with `jit_compile=True`,
            `run_eagerly=True` or an optimizer that asks for the loss function, for several columns.

    Reference:
        Yadan, Adams, Taigman and Ranzato, Multi-GPU training of ConvNets, 2014.

    Example:
        >>> import keras, kerasopt
        >>> strategy = kerasopt.strategies.HybridParallel([["CPU:0"]])  # [["GPU:0", "GPU:1"], …]
        >>> with strategy.scope():
        ...     x, split = keras.Input((4,)), kerasopt.layers.split_columns
        ...     halves = [column(x) for column in split(keras.layers.Dense(8))]
        ...     model = keras.Model(x, keras.layers.Dense(1)(keras.layers.Concatenate()(halves)))
        ...     model.compile("sgd", "mse")
        >>> strategy.num_replicas_in_sync
        1
    """

    def __init__(
        self,
        grid: Sequence[Sequence[str]] | None = None,
        data: int | None = None,
        model: int | None = None,
    ) -> None:
        check_backend(type(self).__name__)
        names = _check_grid(grid, data, model)
        self.grid = [[_place(name) for name in row] for row in names]
        self._seen: weakref.WeakKeyDictionary[keras.Model, Any] = weakref.WeakKeyDictionary()
        one_device = tf.distribute.ReductionToOneDevice()
        super().__init__([row[0] for row in names], cross_device_ops=one_device)

    def column_device(self, column: int, replica: int) -> str:
        """Return the device of a column.

        Args:
            column: Number of the column.
            replica: Number of the row.
        """
        row = self.grid[replica]
        if column >= len(row) > 1:
            raise ValueError(
                f"`column` must be less than {len(row)}, the number of columns of the grid; only a "
                f"grid of one column holds all. Received: column={column}"
            )
        return row[column % len(row)]

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which a model is built and compiled."""
        return self._scope()

    @contextlib.contextmanager
    def _scope(self) -> Iterator[Any]:
        def create(next_creator: Callable[..., Any], **kwargs: Any) -> Any:
            """Create one copy of a variable: TensorFlow is about to do it on the first column."""
            column = column_in_building()
            if column is None:
                return next_creator(**kwargs)
            with tf.init_scope():
                here = tf.zeros(()).device
            replica = [row[0] for row in self.grid].index(here)
            with tf.device(self.column_device(column, replica)):
                return next_creator(**kwargs)

        with tf.variable_creator_scope(create), super().scope() as entered:
            yield entered

    def run(self, fn: Any, args: Any = (), kwargs: Any = None, options: Any = None) -> Any:
        """Run `fn` in all replicas; the steps of a Keras model exactly."""
        model = getattr(fn, "__self__", None)
        if isinstance(model, keras.Model) and len(self.grid[0]) > 1:
            self._check_model(model)
        return super().run(fn, args=args, kwargs=kwargs, options=options)

    def reduce(self, reduce_op: Any, value: Any, axis: int | None) -> Any:
        """Reduce a value of the replicas on the device where the first replica has it."""
        first = self.experimental_local_results(value)[0]
        there = getattr(first, "device", None) if tf.is_tensor(first) else None
        with tf.device(there) if there else contextlib.nullcontext():
            return super().reduce(reduce_op, value, axis)

    def placement(self, model: keras.Model, batch: Any = None) -> Placement:
        """Return what a training step of a model runs on which device, and what it sends.

        One step is run, and everything that it changes is put back. The result has `devices`, by
        name, each with `variables` (bytes by path, those of the optimizer too), `operations` and
        `peak_bytes`, and it has `transfers`; printed, it is a table.

        Args:
            model: A compiled model of this strategy.
            batch: What `train_step` gets, as arrays: x, (x, y) or (x, y, sample_weight). Defaults
                to zeros, as many and as large as in the last batch that `fit` has prepared a step
                for, or 32 rows where it has left their number open.
        """
        return measure(self, model, self._batch(model) if batch is None else batch)

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Print the replicas, the devices of their columns and what is reduced how.

        Args:
            print_fn: Function that takes the text, line by line. Defaults to `print`.
        """
        for index, row in enumerate(self.grid):
            columns = ", ".join(f"column {c} on {short(name)}" for c, name in enumerate(row))
            print_fn(f"replica {index}: {columns}")
        print_fn("gradients: summed within each column, on its first device")
        print_fn(EXACT)

    def place(self, variable: keras.Variable) -> tuple[str, ...]:
        """Return the devices of a weight, which its gradients do not leave."""
        return devices_of(variable)

    def acting(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the optimizer acts."""
        if len(self.grid[0]) == 1:
            return contextlib.nullcontext()
        return Summed(tf.distribute.get_strategy(), 0)

    def _batch(self, model: keras.Model) -> Any:
        """Return zeros like the batch that a step of the model was last prepared for."""
        if model not in self._seen:
            raise ValueError(
                "`batch` must be given for a model that has not been trained under this strategy. "
                "Received: batch=None"
            )

        def zeros(spec: Any) -> Any:
            if not isinstance(spec, tf.TensorSpec):
                return spec
            return tf.zeros([ROWS if n is None else n for n in spec.shape], spec.dtype)

        return keras.tree.map_structure(zeros, self._seen[model])

    def _run(self, function: Callable[..., Any], data: Any) -> Any:
        def placed(data: Any) -> Any:
            with self._following(replica_index()):
                return function(data)

        return super()._run(placed, data)

    def _step(self, model: keras.Model, training: bool, data: Any) -> dict[str, Any]:
        if training:
            self._seen[model] = keras.tree.map_structure(_spec, data)
        with self._following(0):
            return super()._step(model, training, data)

    def _following(self, replica: int) -> contextlib.AbstractContextManager[None]:
        eager = tf.executing_eagerly()
        return contextlib.nullcontext() if eager else following(self.grid[replica][0])

    def _check_model(self, model: keras.Model) -> None:
        """Refuse what cannot be kept in its column."""
        received = f"Received: {type(model).__name__} compiled with"
        if model.jit_compile is True:
            raise ValueError(
                "`jit_compile` must be False or 'auto' with several columns: XLA would compile all "
                f"of them for one device. {received} jit_compile=True"
            )
        if model.run_eagerly:
            raise ValueError(
                "`run_eagerly` must be False with several columns: gradients would be computed on "
                f"the first. To debug, train without the strategy. {received} run_eagerly=True"
            )
        if asks_for_the_loss(model.optimizer):
            raise ValueError(
                "`optimizer` must act on the gradient alone with several columns: the loss is not "
                f"shown as a function of the weights there. {received} {model.optimizer.name!r}"
            )
        for layer in model._flatten_layers():
            if isinstance(layer, Column):
                there = tuple(self.column_device(layer.column, r) for r in range(len(self.grid)))
                for variable in layer.variables:
                    self._check_place(variable, there)

    def _check_place(self, variable: Any, there: tuple[str, ...]) -> None:
        if (here := devices_of(variable)) != there:
            raise ValueError(
                "The weights of a `Column` must be built by it, within `with strategy.scope():`: "
                "give the model inputs or call its `build` there. Received: "
                f"{variable.path} on {[*map(short, here)]}, not on {[*map(short, there)]}"
            )


def _place(name: str) -> str:
    """Return the name under which tensors of a device say where they are."""
    with tf.init_scope(), tf.device(name):
        return tf.zeros(()).device


def _spec(value: Any) -> Any:
    return tf.TensorSpec(value.shape, value.dtype) if tf.is_tensor(value) else value


def _check_grid(grid: Any, data: int | None, model: int | None) -> list[list[str]]:
    if grid is None:
        rows, columns = (1 if n is None else n for n in (data, model))
        count = check_count("data", rows) * check_count("model", columns)
        there = default_devices()
        if count > len(there):
            raise ValueError(
                "`data` × `model` must be at most the number of devices. Received: "
                f"data={rows}, model={columns}, devices={there}"
            )
        return [there[i : i + columns] for i in range(0, count, columns)]
    received = f"Received: grid={grid!r}, data={data}, model={model}"
    if data is not None or model is not None:
        raise ValueError(f"`data` and `model` must be left out where `grid` is given. {received}")
    if isinstance(grid, str) or not isinstance(grid, Sequence):
        raise TypeError(f"`grid` must be a list of lists of device names. {received}")
    if any(isinstance(row, str) or not isinstance(row, Sequence) for row in grid):
        raise TypeError(f"`grid` must be a list of lists of device names. {received}")
    if len({len(row) for row in grid}) > 1:
        raise ValueError(f"`grid` must have rows of one length, a device a column. {received}")
    names = iter(check_devices([name for row in grid for name in row], "grid"))
    return [[next(names) for _ in row] for row in grid]
