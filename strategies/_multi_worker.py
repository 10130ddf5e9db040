"""Data parallelism on several machines, or in several processes of one."""

import contextlib
import functools
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasopt._validation import check_choice, check_number
from kerasopt.strategies._buckets import LIMIT
from kerasopt.strategies._cluster import meet, read_cluster
from kerasopt.strategies._exact import EXACT, ExactReplicas, check_backend
from kerasopt.strategies._messages import Messages
from kerasopt.strategies._shard import SUM, first_tensor, timed

LOST = (tf.errors.UnavailableError, tf.errors.DeadlineExceededError, tf.errors.AbortedError)
OTHER_DATA = (
    "All workers must read the same batches, of which the strategy gives each its rows. Seed what "
    "shuffles the data, make the dataset under `strategy.scope()` or after it, and do not shard it."
)


class WorkerLostError(RuntimeError):
    """Another worker of the cluster has gone, or has not answered in time.

    Training cannot go on without it: all workers have to be started again, and
    `kerasopt.callbacks.BackupAndRestore` takes up where the last backup was made.

    Reference:
        Dean et al., Large scale distributed deep networks, 2012, on the loss of machines.

    Example:
        >>> import kerasopt
        >>> issubclass(kerasopt.strategies.WorkerLostError, RuntimeError)
        True
    """


class MultiWorker(ExactReplicas, tf.distribute.MultiWorkerMirroredStrategy):
    """Trains one model in several processes, on one machine or many, as one device would.

    Every process runs the same script and is a worker: it keeps a copy of the weights and computes
    the gradient of its rows of each batch, on all its GPUs or on its CPU. The rest is as with
    `kerasopt.strategies.DataParallel`, whose promise holds across the workers: losses, metrics and
    weights are those of one device on the same batches, to the rounding of sums.

        g = Σ_r ∂J(batch)/∂w through the rows of replica r,   w ← w - η g   in every worker

    `tf.distribute.MultiWorkerMirroredStrategy`, which this class extends, does the communication;
    Keras' `fit` fails under it. `kerasopt launch` starts the workers of one machine. Make the
    strategy before anything else of TensorFlow runs.

    What has to be known:

    - Every worker reads the whole dataset, in the same order, and keeps its rows of every batch
      (TensorFlow's policy `DATA`; other policies are refused). `batch_size` is that of all workers
      together. Where the random state of Python differs between workers, all are seeded alike, by
      a number that the first worker, the chief, draws.
    - Only the chief is to write files. `path` leads what the others write to a place that is
      removed.
    - A worker that is lost ends the others within about ten seconds, one that hangs within
      `timeout`, by a `WorkerLostError`.

    Args:
        cluster: Who takes part: a `tf.distribute.cluster_resolver.ClusterResolver` such as
            `SlurmClusterResolver()`, a dictionary that has the form of TF_CONFIG, or None for the
            environment variable TF_CONFIG, without which there is one worker. Defaults to None.
        timeout: Seconds, greater than 0, to wait for all workers at the start, and later for what
            another worker has to send. Must be longer than the longest that one worker does alone,
            such as saving. Defaults to 60.
        communication: How workers talk: `"ring"` (by gRPC), `"nccl"` (GPUs), or `"auto"`:
            TensorFlow's choice. Defaults to `"auto"`.

    Raises:
        RuntimeError: Keras runs on another backend than TensorFlow.
        TypeError: `cluster` is of another type; later, as with `DataParallel`.
        ValueError: `cluster` or TF_CONFIG is malformed or does not say which worker this is;
            `timeout` or `communication` is invalid; later, as with `DataParallel`, and when
            workers read different batches or a dataset has another sharding policy.
        OSError: The port of this worker is in use.
        TimeoutError: A worker did not appear within `timeout`; the message names it.

    Reference:
        Goyal et al., Accurate, large minibatch SGD: training ImageNet in 1 hour, 2017, section 3.

    Example:
        >>> import keras, kerasopt
        >>> strategy = kerasopt.strategies.MultiWorker()  # one worker, without TF_CONFIG
        >>> with strategy.scope():
        ...     model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        ...     model.compile("sgd", "mse")
        >>> strategy.is_chief
        True
    """

    def __init__(
        self, cluster: Any = None, timeout: float = 60.0, communication: str = "auto"
    ) -> None:
        check_backend("MultiWorker")
        check_choice("communication", communication, ["auto", "ring", "nccl"])
        self.timeout = check_number("timeout", timeout, "(0, inf)")
        self.cluster = read_cluster(cluster)
        if len(self.cluster.addresses) > 1:
            meet(self.cluster, self.timeout)
        kinds = tf.distribute.experimental.CommunicationImplementation
        options = tf.distribute.experimental.CommunicationOptions(
            implementation=kinds[communication.upper()]
        )
        super().__init__(self.cluster.resolver, options)
        self._messages = Messages(self, self.timeout)
        if len(self.cluster.addresses) > 1:
            self._messages.watch()
        self.communication = communication
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._seed_alike()

    @property
    def is_chief(self) -> bool:
        """Whether this is the first worker, which writes files."""
        return self.cluster.index == 0

    def path(self, path: str | Path) -> Path:
        """Return `path` in the chief, and in the others a place of their own, removed at the end.

        Args:
            path: A file or folder to write to, such as that of a callback.
        """
        if self.is_chief:
            return Path(path)
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix=f"worker-{self.cluster.index}-")
        absolute = Path(path).resolve()
        own = Path(self._scratch.name, absolute.relative_to(absolute.anchor))
        own.parent.mkdir(parents=True, exist_ok=True)
        return own

    def worker_values(self, value: Any) -> np.ndarray:
        """Return the values of all workers, in their order; all have to call this."""
        if len(self.cluster.addresses) < 2:
            return super().worker_values(value)
        return self.gather(tf.convert_to_tensor(value)[None], axis=0).numpy()

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Print the workers, their devices and what is reduced how.

        Args:
            print_fn: Function that takes the text, line by line. Defaults to `print`.
        """
        for index, address in enumerate(self.cluster.addresses or ["this process"]):
            marks = [" (chief)"] * (index == 0) + [" (this one)"] * (index == self.cluster.index)
            print_fn(f"worker {index} at {address}{''.join(marks)}")
        devices = len(self.extended.worker_devices)
        print_fn(f"replicas: {self.num_replicas_in_sync}, {devices} in each worker")
        print_fn(
            f"gradients: summed by {self.communication!r} collectives in buckets of "
            f"{LIMIT >> 20} MiB, waiting at most {self.timeout:g} s"
        )
        print_fn(EXACT)

    def experimental_distribute_dataset(self, dataset: Any, options: Any = None) -> Any:
        """Return `dataset` for `fit`, `evaluate` and `predict`, which cut its batches."""
        policies = tf.data.experimental.AutoShardPolicy
        policy = dataset.options().experimental_distribute.auto_shard_policy
        if policy not in (policies.AUTO, policies.DATA):
            raise ValueError(
                "The dataset's `auto_shard_policy` must be DATA or AUTO: every worker takes its "
                f"rows of the same batches. Received: {policy.name}"
            )
        return super().experimental_distribute_dataset(dataset, options)

    def reduce(self, reduce_op: Any, value: Any, axis: int | None) -> Any:
        """Reduce `value`; logs, which Keras reduces once more, are those of all workers already."""
        if axis == 0 and tf.is_tensor(value) and value.shape.rank == 0:
            return value
        with self.explaining():
            return super().reduce(reduce_op, value, axis)

    def gather(self, value: Any, axis: int) -> Any:
        """Gather `value` from all replicas."""
        with self.explaining():
            return super().gather(value, axis)

    def _step(self, model: keras.Model, training: bool, data: Any) -> dict[str, Any]:
        """Run a step; see that the workers read the same batch, and say so when one is lost."""
        self._watch(model)
        with self._messages.working():
            if len(self.cluster.addresses) > 1:
                self._check_alike(data)
            return super()._step(model, training, data)

    def prepare(self, model: keras.Model) -> None:
        """Watch the functions of a model that is about to be trained or tested."""
        model.make_train_function()
        model.make_test_function()
        self._watch(model)

    def _watch(self, model: keras.Model) -> None:
        for name in ("train_function", "test_function"):
            function = getattr(model, name)
            if function is not None and not isinstance(function, _Watched):
                setattr(model, name, _Watched(function, self))

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Say in words what it means when the body fails."""
        try:
            with self._messages.waiting():
                yield
        except LOST as error:
            raise WorkerLostError(
                f"Worker {self.cluster.index} has lost another worker, which ended or did not "
                f"answer within `timeout`={self.timeout:g} seconds. Start all workers again, as "
                "`kerasopt launch --max-restarts` does; a `BackupAndRestore` callback takes up the "
                f"training. TensorFlow says: {error.message}"
            ) from error
        except tf.errors.InvalidArgumentError as error:
            if OTHER_DATA in error.message:
                raise ValueError(OTHER_DATA) from error
            raise

    def _check_alike(self, data: Any) -> None:
        """Compare the workers' batches by a sum of the targets that depends on their order."""
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        tensor = first_tensor(x if y is None else y)
        if tensor.dtype == tf.string:
            return
        rows = tf.reshape(tf.cast(tensor, tf.float64), [tf.shape(tensor)[0], -1])
        rows = tf.reduce_sum(rows, axis=1)
        own = tf.reduce_sum(rows * tf.range(1.0, tf.size(rows) + 1, dtype=tf.float64))
        total = timed(self, functools.partial(self.reduce, SUM, axis=None), own)
        apart = tf.abs(total / len(self.cluster.addresses) - own) > 1e-6 * (1 + tf.abs(own))
        tf.debugging.Assert(tf.logical_not(apart), [OTHER_DATA])  # not-a-number passes

    def _seed_alike(self) -> None:
        """Seed all workers by the chief's number, unless their random states are the same."""
        state = random.getstate()
        draws = self.worker_values(random.getrandbits(31))
        random.setstate(state)
        if any(draws != draws[0]):
            keras.utils.set_random_seed(int(draws[0]))


class _Watched:
    """A step function of a model, watched by the strategy."""

    def __init__(self, function: Callable[[Any], Any], strategy: MultiWorker) -> None:
        self.function, self.strategy = function, strategy

    def __call__(self, iterator: Any) -> Any:
        """Run the function."""
        with self.strategy.explaining():
            return self.function(iterator)
