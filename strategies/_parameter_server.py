"""Asynchronous data parallelism, with parameter servers."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasopt._train_step import acts_on_gradients_alone
from kerasopt._validation import check_count, check_number
from kerasopt.callbacks._position import beginning
from kerasopt.strategies._cluster import listening, read_tasks, wait_for
from kerasopt.strategies._downpour import Downpour, example_batch
from kerasopt.strategies._exact import check_backend
from kerasopt.strategies._multi_worker import LOST, WorkerLostError
from kerasopt.strategies._serve import serve
from kerasopt.strategies._worker_data import WorkerData


class ParameterServer(tf.distribute.ParameterServerStrategy):
    """Trains one model in workers that do not wait for each other: Downpour SGD.

    The weights and the state of the optimizer are kept by parameter servers. A worker fetches the
    weights w, computes the gradient of a batch of its own, and pushes it to the servers, where the
    optimizer acts on it; meanwhile other workers have done the same. Use it where workers differ in
    speed or may be lost: a slow one delays nobody. Otherwise `MultiWorker` is the better choice,
    whose result does not depend on chance.

        every `fetch_every` steps:   v ← w,                 a worker's copy of the weights
        in each step:                g = ∂J(batch)/∂v,  a ← a + g,  v ← v - η g
        every `push_every` steps:    w ← optimizer(w, a),  a ← 0,       on the servers

    The staleness of a push is the number of pushes of other workers since the last fetch. With one
    step between them it is at most about the number of workers less one, unless some are faster
    than others. The logs of every epoch have its mean, `staleness`, and `max_staleness`.
    Stale gradients are those of old weights: the more workers, the smaller the learning rate has to
    be.

    All processes run the same script; TF_CONFIG says which of them one is. In a worker and in a
    server the constructor does not return: the process serves the coordinator, the task `chief`,
    and ends, with status 0, a few seconds after it. `kerasopt launch --parameter-servers 1` starts
    all of them on one machine. Build and compile the model, and make the optimizer, under
    `scope()`; train it by `fit` of the strategy, outside. `model.evaluate` and `model.predict` run
    in the coordinator.

    What has to be known:

    - A worker that is lost is not missed but for its speed: what it was doing is done by another,
      and pushes that it had done do not count twice. Started again, it takes part again. If it dies
      in the middle of a push, some weights, or the optimizer's counter, can have made that step
      twice.
    - Pushes are applied one at a time, so that no update is lost, and counters are right.
    - Metrics of training are those of the weights with which the workers computed.
    - Averages such as those of `BatchNormalization` get the changes of all workers.
    - No two workers draw the same random numbers, as in dropout.
    - A server that is lost ends the training by a `WorkerLostError`; use `BackupAndRestore`.

    Args:
        cluster: Who takes part: None for the environment variable TF_CONFIG, a dictionary of the
            same form, or a `tf.distribute.cluster_resolver.ClusterResolver`, with one `chief`, and
            at least one `worker` and one `ps`. Defaults to None.
        fetch_every: Steps of a worker, at least 1, after which it fetches the weights: n_fetch of
            the paper. Defaults to 1.
        push_every: Steps of a worker, at least 1, after which it pushes the sum of its gradients:
            n_push of the paper. The graph of a worker has as many steps as the least common
            multiple of both. Defaults to 1.
        timeout: Seconds, greater than 0, to wait for all processes at the start. Defaults to 60.

    Raises:
        RuntimeError: Keras runs on another backend than TensorFlow; `model.fit` is called.
        TypeError: `cluster` is of another type, or a number is not of its type.
        ValueError: TF_CONFIG or `cluster` is missing, is malformed, or lacks a chief, a worker or a
            server; a number is outside its range.
        OSError: The port of this process is in use.
        TimeoutError: A process did not appear within `timeout`; the message names it.

    Reference:
        Dean et al., Large scale distributed deep networks, 2012, section 4.1 and algorithm 7.1.

    Example:
        >>> import kerasopt
        >>> try:  # TF_CONFIG is not set: see `kerasopt launch`
        ...     kerasopt.strategies.ParameterServer()
        ... except ValueError as error:
        ...     print(str(error)[:47])
        The cluster must have one 'chief', the coordina
    """

    def __init__(
        self,
        cluster: Any = None,
        fetch_every: int = 1,
        push_every: int = 1,
        timeout: float = 60.0,
    ) -> None:
        check_backend("ParameterServer")
        self.fetch_every = check_count("fetch_every", fetch_every)
        self.push_every = check_count("push_every", push_every)
        self.timeout = check_number("timeout", timeout, "(0, inf)")
        self.cluster = read_tasks(cluster)
        if self.cluster.kind != "chief":
            serve(self.cluster, self.timeout)
            raise SystemExit
        others = dict(self.cluster.addresses)
        with listening(others.pop("chief"), "chief"):
            wait_for(others, self.timeout, "chief")
        os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")  # else lost workers are waited for
        super().__init__(self.cluster.resolver)
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(self)

    def fit(
        self,
        model: keras.Model,
        dataset_fn: Callable[..., tf.data.Dataset],
        epochs: int = 1,
        steps_per_epoch: int | None = None,
        validation_data: Any = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        verbose: int | str = "auto",
        initial_epoch: int = 0,
        validation_batch_size: int | None = None,
    ) -> keras.callbacks.History:
        """Train a model in all workers, as `model.fit` does in one process.

        Callbacks run in the coordinator. Those of batches are called in the order in which steps
        were given out, `stop_training` acts at the end of the epoch.

        Args:
            model: A model that was built and compiled under `scope()`.
            dataset_fn: Function that returns a `tf.data.Dataset` of batches. It runs in every
                worker, as a graph. A function without arguments returns all data, whose batches the
                workers deal out among themselves; one of an argument gets a
                `tf.distribute.InputContext` and returns the share of that worker, for example by
                `shard(context.num_input_pipelines, context.input_pipeline_id)`. The data are
                repeated without end. What it takes from the script is sent to all workers: read
                large data from files.
            epochs: Number of the last epoch, at least 1. Defaults to 1.
            steps_per_epoch: Steps of all workers together in an epoch, at least 1. Defaults to
                None: the number of batches of the data.
            validation_data: What `model.evaluate` takes: a tuple of arrays or a dataset of batches,
                for the coordinator to evaluate after every epoch. Defaults to None.
            callbacks: Keras callbacks. Defaults to None.
            verbose: 0, 1 or 2, or `"auto"`, as in `model.fit`. Defaults to `"auto"`.
            initial_epoch: Epoch to begin with, at least 0. Defaults to 0.
            validation_batch_size: Rows in a batch of validation arrays. Defaults to None, for 32.

        Returns:
            The history of the training, as `model.fit` returns it.

        Raises:
            RuntimeError: It is called within `scope()`.
            TypeError: `model` is no Keras model or overrides `train_step`; `dataset_fn` is not a
                function, or does not return a dataset.
            ValueError: The model is not compiled, or was built or has its optimizer made outside
                of `scope()`; it is compiled with `jit_compile=True`, `run_eagerly=True`,
                `steps_per_execution` > 1 or an optimizer that needs more than the gradient; the
                data do not give batches, or their number is not known.
            WorkerLostError: A parameter server has gone.
        """
        check_count("epochs", epochs)
        check_count("initial_epoch", initial_epoch, least=0)
        self._check_model(model)
        data = WorkerData(dataset_fn, self.cluster.of_kind("worker"))
        steps = data.steps(steps_per_epoch)
        self._build(model, data.element_spec)
        work = Downpour(self, model, steps)
        batches = iter(self._coordinator.create_per_worker_dataset(data.of_this_worker))
        listeners = keras.callbacks.CallbackList(
            callbacks,
            add_history=True,
            add_progbar=verbose != 0,
            verbose=verbose,
            epochs=epochs,
            steps=steps,
            model=model,
        )
        model.stop_training = False
        listeners.on_train_begin()
        logs: dict[str, float] = {}
        for epoch in range(beginning(model, initial_epoch), epochs):
            with self._explaining():
                listeners.on_epoch_begin(epoch)
                logs = self._epoch(work, batches, epoch, listeners)
                if validation_data is not None:
                    logs |= _validate(model, validation_data, validation_batch_size, listeners)
                listeners.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        model.optimizer.finalize_variable_values(model.trainable_weights)
        listeners.on_train_end(logs)
        return next(e for e in listeners.callbacks if isinstance(e, keras.callbacks.History))

    def _epoch(
        self, work: Downpour, batches: Any, epoch: int, listeners: keras.callbacks.CallbackList
    ) -> dict[str, float]:
        """Let the workers take the steps of an epoch; return its logs."""
        schedule = self._coordinator.schedule
        calls = [(size, schedule(work.call, (batches, *rest))) for size, rest in work.calls(epoch)]
        done, logs = 0, {}
        for size, call in calls:
            listeners.on_train_batch_begin(done)
            call.fetch()
            logs = work.logs()
            done += size
            listeners.on_train_batch_end(done - 1, logs)
        return logs | work.end_epoch()

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        """Say in words what it means when a server has gone."""
        try:
            yield
        except Exception as error:
            with contextlib.suppress(Exception):
                self._coordinator.join()  # which forgets the error
            if isinstance(error, LOST):
                raise WorkerLostError(
                    "The coordinator has lost a parameter server, and its weights. Start all "
                    "processes again, as `kerasopt launch --max-restarts` does; a "
                    "`BackupAndRestore` callback takes up the training. TensorFlow says: "
                    f"{error.message}"
                ) from error
            raise

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Print the processes and when they fetch and push.

        Args:
            print_fn: Function that takes the text, line by line. Defaults to `print`.
        """
        for name, address in self.cluster.addresses.items():
            print_fn(f"{name} at {address}")
        print_fn(f"weights: fetched every {self.fetch_every} steps of a worker")
        print_fn(f"gradients: pushed every {self.push_every} steps, applied one at a time")

    def run(self, fn: Any, args: Any = (), kwargs: Any = None, options: Any = None) -> Any:
        """Run `fn` in a worker; the steps of `evaluate` and `predict` in the coordinator."""
        name = getattr(fn, "__name__", "")
        if isinstance(getattr(fn, "__self__", None), keras.Model) and name == "train_step":
            raise RuntimeError(
                "`fit` of the strategy must be called in place of that of the model, which does "
                "not know of workers: `strategy.fit(model, dataset_fn, epochs=…)`. "
                "Received: a call of `model.fit`"
            )
        if name in ("test_step", "one_step_on_data"):  # the latter is the closure of `predict`
            return fn(*args)
        return super().run(fn, args=args, kwargs=kwargs, options=options)

    def experimental_distribute_dataset(self, dataset: Any, options: Any = None) -> Any:
        """Return `dataset`, which `evaluate` and `predict` read in the coordinator."""
        return dataset

    def _check_model(self, model: Any) -> None:
        """Refuse what workers cannot train."""
        if not isinstance(model, keras.Model):
            raise TypeError(f"`model` must be a Keras model. Received: model={model!r}")
        kind = type(model).__name__
        if type(model).train_step is not keras.Model.train_step:
            raise TypeError(
                "`model` must keep Keras' `train_step`, in whose place workers run one that "
                "fetches and pushes. Override `compute_loss` or `compute_metrics` instead. "
                f"Received: {kind}, which overrides `train_step`"
            )
        if tf.distribute.in_cross_replica_context():
            raise RuntimeError(
                "`fit` must be called outside of `with strategy.scope():`; only build and compile "
                f"the model within. Received: a call for {kind} within."
            )
        on_servers = all("/job:ps" in v.value.device for v in model.variables)
        if model.distribute_strategy is not self or not on_servers:
            raise ValueError(
                "`model` must be built and compiled within `with strategy.scope():`, so that the "
                f"servers have its weights. Received: {kind}, which was built outside"
            )
        if refused := next(_refused(model), None):
            argument, rule = refused
            raise ValueError(
                f"`{argument}` {rule}. Received: {kind} compiled with "
                f"{argument}={getattr(model, argument)!r}"
            )

    def _build(self, model: keras.Model, element_spec: Any) -> None:
        """Create all that the first step would, on the servers."""
        with self.scope():
            model.test_step(example_batch(element_spec))
            try:
                model.optimizer.build(model.trainable_variables)
            except RuntimeError as error:
                raise ValueError(
                    "`optimizer` must be made within `with strategy.scope():`, so that the servers "
                    f"have its state. Received: {model.optimizer!r}, which was made outside"
                ) from error
        model.reset_metrics()


def _refused(model: keras.Model) -> Iterator[tuple[str, str]]:
    """Yield the arguments of `compile` that do not go with workers, and what they must be."""
    if model.optimizer is None:
        yield "optimizer", "must be given: call `compile` within `with strategy.scope():`"
    if model.jit_compile:
        yield "jit_compile", "must be False or 'auto': the weights are in other processes"
    if model.run_eagerly:
        yield "run_eagerly", "must be False: workers run graphs"
    if model.steps_per_execution > 1:
        yield "steps_per_execution", "must be 1: use `fetch_every` and `push_every`"
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        yield "optimizer", "must not scale the loss: train in 'mixed_bfloat16', or in float32"
    if not acts_on_gradients_alone(model.optimizer):
        yield "optimizer", "must act on the gradient alone, without a part in the step of the model"


def _validate(
    model: keras.Model, data: Any, batch_size: int | None, listeners: keras.callbacks.CallbackList
) -> dict[str, float]:
    """Evaluate the model; return the logs with their prefix."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    values = model.evaluate(
        x, y, batch_size, sample_weight=weights, callbacks=listeners, return_dict=True
    )
    return {f"val_{name}": value for name, value in values.items()}
