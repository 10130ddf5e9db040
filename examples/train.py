"""Train a small convolutional network on the images of a TFDS dataset, with kerasopt's parts.

    python examples/train.py
    python examples/train.py --dataset fashion_mnist --optimizer adam --devices 2
    kerasopt launch --workers 2 examples/train.py --strategy multiworker

The default, `digits`, needs no network. Any image-classification dataset of TensorFlow Datasets
does as well; one that is not in the data folder yet is downloaded first. The output folder gets the
learning curves (curves.png), every epoch in numbers (history.csv), the best model (model.keras) and
a report (report.md). Ctrl-C ends training early and keeps all of these.
"""

import argparse
import contextlib
import inspect
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import keras
import tensorflow as tf
import tensorflow_datasets as tfds

import kerasopt
import kerasopt.data  # registers the dataset `digits`
from kerasopt.strategies import DataParallel, MultiWorker

LARGEST_SIDE = 96  # larger images, and images of several sizes, are resized to this
RATES = {"momentum": 0.5}  # where an optimizer's default is not what this network needs


class RefusedError(Exception):
    """What was asked cannot be done; the message says why, in a line."""


class Parser(argparse.ArgumentParser):
    """A parser that refuses in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message without the usage, and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def default_rate(optimizer: Any) -> Any:
    """Return the default of the argument `learning_rate`, or None."""
    rate = inspect.signature(optimizer).parameters.get("learning_rate")
    return rate.default if rate else None


def optimizers() -> dict[str, Callable[..., Any]]:
    """Return kerasopt's and Keras' optimizers that have a default learning rate, by name."""
    members = {**vars(keras.optimizers), **vars(kerasopt.optimizers)}
    classes = {name.lower(): member for name, member in members.items() if inspect.isclass(member)}
    del classes["objectiveoptimizer"]  # a base
    return {name: each for name, each in classes.items() if isinstance(default_rate(each), float)}


def above_zero(kind: type) -> Callable[[str], Any]:
    """Return a converter for argparse to numbers greater than zero."""

    def convert(text: str) -> Any:
        if not 0 < (value := kind(text)) < math.inf:
            raise argparse.ArgumentTypeError(f"must be greater than 0. Received: {text}")
        return value

    convert.__name__ = kind.__name__  # argparse shows it where the text is no number
    return convert


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--dataset", default="digits", help="a TFDS image-classification dataset (digits)")
    add("--data-dir", help="TFDS data folder (TFDS_DATA_DIR, or ~/tensorflow_datasets)")
    add("--epochs", type=above_zero(int), help="at most (50, fewer for large datasets)")
    add("--batch-size", type=above_zero(int), default=64, help="samples a step (64)")
    add("--optimizer", choices=sorted(optimizers()), default="momentum", help="(momentum)")
    add("--learning-rate", type=above_zero(float), help="at the start; decays to 0 along a cosine")
    add("--strategy", choices=list(STRATEGIES), default="data", help="who shares a batch (data)")
    add("--devices", type=above_zero(int), help="GPUs, or logical CPUs (all GPUs, or 1 CPU)")
    add("--output", type=Path, help="a new or empty folder (runs/DATASET-TIME)")
    add("--seed", type=int, default=0, help="of weights, order and augmentation (0)")
    options = parser.parse_args(arguments)
    if options.devices and options.strategy != "data":
        parser.error("argument --devices: to be chosen with --strategy data only")
    chosen = optimizers()[options.optimizer]
    options.learning_rate = (
        options.learning_rate or RATES.get(options.optimizer) or default_rate(chosen)
    )
    begun = os.environ.get("KERASOPT_LAUNCHED", time.strftime("%Y%m%d-%H%M%S"))
    run = f"{options.dataset.replace('/', '-')}-{begun}"
    options.output = options.output or Path("runs", run)
    return options


def claim(folder: Path) -> None:
    """Make the output folder, and see that it is empty, or to go on with, and can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / "backup").is_dir():
            raise RefusedError(f"--output {folder} is not empty; name a new folder")
        if not folder.stat().st_mode & 0o222:  # which does not stop an administrator
            raise PermissionError("it is read-only")
        (folder / "history.csv").touch()
    except OSError as error:
        raise RefusedError(f"--output {folder} cannot be written: {error}") from error


def devices_of_this_machine(options: argparse.Namespace) -> DataParallel:
    """Return the strategy that trains on the GPUs of this machine, or on logical CPUs."""
    gpus = tf.config.list_physical_devices("GPU")
    options.devices = options.devices or len(gpus) or 1
    if gpus and options.devices > len(gpus):
        raise RefusedError(f"--devices {options.devices}: this machine has {len(gpus)} GPUs")
    if not gpus:
        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * options.devices
        tf.config.set_logical_device_configuration(cpu, logical)
    kind = "GPU" if gpus else "CPU"
    return DataParallel([f"{kind}:{i}" for i in range(options.devices)])


def workers(options: argparse.Namespace) -> MultiWorker:
    """Return the strategy that trains with the other workers of `kerasopt launch`."""
    return MultiWorker(timeout=600)  # the chief may download for minutes


STRATEGIES: dict[str, Callable[[argparse.Namespace], Any]] = {
    "none": lambda options: None,
    "data": devices_of_this_machine,
    "multiworker": workers,
}


def prepare(options: argparse.Namespace) -> tfds.core.DatasetBuilder:
    """Open the dataset; download and prepare it if that has not been done."""
    refused = f"--dataset {options.dataset}"
    try:
        builder = tfds.builder(options.dataset, data_dir=options.data_dir)
    except (ValueError, ImportError, AssertionError) as error:
        raise RefusedError(f"{refused}: {str(error).splitlines()[0]}") from error
    keys = builder.info.supervised_keys or ()
    kinds = [type(builder.info.features[key]) for key in keys if isinstance(key, str)]
    if kinds != [tfds.features.Image, tfds.features.ClassLabel]:
        raise RefusedError(f"{refused} is not a dataset of images with one class each")
    try:
        builder.download_and_prepare()
    except (OSError, ImportError) as error:
        raise RefusedError(f"{refused} could not be prepared: {error}") from error
    return builder


class Data(NamedTuple):
    """The three parts of a dataset, in batches of (image, label), and what they hold."""

    train: tf.data.Dataset
    validation: tf.data.Dataset
    test: tf.data.Dataset
    sizes: list[int]
    shape: tuple[int, int, int]
    classes: int


def split(sizes: dict[str, int], batch_size: int) -> list[str]:
    """Name the training, validation and test parts; the training parts come in whole batches."""
    held_out = next((name for name in ("test", "validation") if name in sizes), None)
    end = sizes["train"] if held_out else int(0.8 * sizes["train"])
    wanted = min(0.1 * end + 128, 0.2 * end)  # enough to tell the best epoch by
    validation = max(1, round(wanted / batch_size)) * batch_size
    if end < validation + batch_size:
        raise RefusedError(f"--batch-size {batch_size} is too large for {end} training images")
    start = end - validation
    return [f"train[:{start}]", f"train[{start}:{end}]", held_out or f"train[{end}:]"]


def load(builder: tfds.core.DatasetBuilder, batch_size: int, seed: int) -> Data:
    """Split the dataset, bring its images to one size and batch them."""
    info = builder.info
    image, label = (info.features[key] for key in info.supervised_keys)
    names = split({name: part.num_examples for name, part in info.splits.items()}, batch_size)
    sizes = [info.splits[name].num_examples for name in names]
    height, width, channels = image.shape
    if resize := None in (height, width) or max(height, width) > LARGEST_SIDE:
        height = width = LARGEST_SIDE

    def fit_size(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return (tf.image.resize(image, (height, width), antialias=True) if resize else image), label

    train, validation, test = (
        builder.as_dataset(split=name, as_supervised=True)
        .map(fit_size, num_parallel_calls=tf.data.AUTOTUNE)
        .cache()
        for name in names
    )
    train = train.shuffle(min(sizes[0], 20_000), seed=seed).batch(batch_size, drop_remainder=True)
    return Data(
        train.prefetch(tf.data.AUTOTUNE),
        validation.batch(batch_size),
        test.batch(batch_size),
        sizes,
        (height, width, channels),
        label.num_classes,
    )


def build(data: Data) -> keras.Model:
    """Build the network: normalisation, augmentation, three convolutions, a linear classifier."""
    layers = keras.layers
    side = min(data.shape[:2])
    normalise = layers.Normalization(axis=-1)
    normalise.adapt(data.train.map(lambda images, labels: images))
    network = [
        keras.Input(data.shape),
        normalise,
        layers.RandomTranslation(1 / side, 1 / side, fill_mode="nearest"),  # by a pixel
        layers.RandomRotation(0.02, fill_mode="nearest"),
        layers.RandomZoom(0.05, fill_mode="nearest"),
        kerasopt.layers.RandomGaussianNoise(stddev=(0, 0.1)),
    ]
    for filters in (32, 64, 128):
        network.append(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        if side >= 8:
            network.append(layers.MaxPooling2D())
            side //= 2
    network += [layers.Flatten(), layers.Dropout(0.3), layers.Dense(data.classes)]
    return keras.Sequential(network)


def compile_model(model: keras.Model, options: argparse.Namespace, steps: int) -> None:
    """Compile with the optimizer that was asked for, its rate decaying over all steps."""
    rate = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)
    kerasopt.prepare(model).compile(  # which second-order optimizers need
        optimizer=optimizers()[options.optimizer](learning_rate=rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


class Interruption(keras.callbacks.Callback):
    """Ctrl-C ends training after the step in hand; a second one ends the script at once.

    TensorFlow can crash, and lose everything, when it is interrupted within a step. Several workers
    have to agree, which they do after the epoch.
    """

    def __init__(self, strategy: Any) -> None:
        super().__init__()
        self.came, self.strategy = False, strategy

    def __enter__(self) -> "Interruption":
        """Take over Ctrl-C."""
        self.before = signal.signal(signal.SIGINT, self.come)
        return self

    def come(self, number: int, frame: Any) -> None:
        """Ask the model to stop."""
        self.came = True
        if not isinstance(self.strategy, MultiWorker):
            self.model.stop_training = True
        signal.signal(signal.SIGINT, self.before)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Stop if any worker was asked to."""
        if isinstance(self.strategy, MultiWorker):
            self.came = bool(self.strategy.worker_values(float(self.came)).any())
            self.model.stop_training |= self.came

    def __exit__(self, *error: object) -> None:
        """Give Ctrl-C back."""
        signal.signal(signal.SIGINT, self.before)


def train(
    model: keras.Model, data: Data, options: argparse.Namespace, strategy: Any, folder: Path
) -> tuple[Any, bool]:
    """Fit, with the best weights in the model at the end; return the curves, and if it ended."""
    callbacks = [
        kerasopt.callbacks.EarlyStopping(patience=20, restore_best_weights=True),
        keras.callbacks.CSVLogger(folder / "history.csv", append=True),
        curve := kerasopt.callbacks.LearningCurve(folder / "curves.png", title=options.dataset),
        interruption := Interruption(strategy),
    ]
    if options.strategy == "multiworker":
        callbacks += [
            kerasopt.callbacks.BackupAndRestore(options.output / "backup"),
            kerasopt.callbacks.ThroughputMonitor(),
        ]
    shown = 1 if sys.stdout.isatty() else 2
    with interruption:
        model.fit(
            data.train,
            validation_data=data.validation,
            epochs=options.epochs,
            shuffle=False,  # the dataset does it
            callbacks=callbacks,
            verbose=shown if folder == options.output else 0,  # else it is another worker's
        )
    return curve, not interruption.came


def read_curves(curve: kerasopt.callbacks.LearningCurve) -> str:
    """Say what the learning curves show."""
    if curve.best is None:
        return "The validation error was never finite: training diverged. Lower the learning rate."
    training, validation = curve.history["loss"], curve.history["val_loss"]
    best, last = validation[curve.best], validation[-1]
    words = (
        f"The validation error was lowest, {best:.4f}, at epoch {curve.epochs[curve.best]} of "
        f"{curve.epochs[-1]}, where the training error was {training[curve.best]:.4f}. "
    )
    if last > 1.25 * best:
        return words + f"It has risen to {last:.4f} since; the model is that of the best epoch."
    if curve.best >= len(validation) - 2:
        return words + "It was still falling at the end: more epochs may lower it further."
    return words + "It has stayed near that since; the model is that of the best epoch."


def diagnose(curve: kerasopt.callbacks.LearningCurve) -> str:
    """Say what they show as a whole, if they are long enough to judge."""
    return str(curve.diagnosis()) if len(curve.epochs) >= 5 else ""


REPORT = """# {dataset}: test accuracy {accuracy:.2%}

{sizes[0]:,} training, {sizes[1]:,} validation and {sizes[2]:,} test images. Training {ended} after
{done} of {epochs} epochs. Test loss {loss:.4f}.

![Learning curves](curves.png)

## What the curves say

{words}

## Where the time went

| stage | seconds |
|---|---|
{times}

Training ran {steps:,} steps, {rate:,.0f} images a second.

## Settings

| option | value |
|---|---|
{settings}

## The model

```python
import keras, kerasopt

model = keras.saving.load_model("model.keras")
```
"""


class Stopwatch(dict[str, float]):
    """The seconds that each stage took."""

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the body."""
        start = time.perf_counter()
        yield
        self[stage] = time.perf_counter() - start


def table(rows: dict[str, Any]) -> str:
    """Return the rows of a Markdown table."""
    return "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def report_on(
    options: argparse.Namespace,
    data: Data,
    clock: Stopwatch,
    curve: kerasopt.callbacks.LearningCurve,
    steps: int,
    ended: bool,
    tested: dict[str, float],
) -> None:
    """Write the report."""
    report = REPORT.format(
        **vars(options),
        **tested,
        sizes=data.sizes,
        done=curve.epochs[-1],
        ended="ended" if ended else "was interrupted",
        words=f"{read_curves(curve)}\n\n{diagnose(curve)}",
        times=table({stage: f"{seconds:.1f}" for stage, seconds in clock.items()}),
        steps=steps,
        rate=steps * options.batch_size / clock["training"],
        settings=table(vars(options)),
    )
    (options.output / "report.md").write_text(report)


def run(options: argparse.Namespace) -> int:
    """Train, save, test and report; return the exit status."""
    clock = Stopwatch()
    keras.utils.set_random_seed(options.seed)
    strategy = STRATEGIES[options.strategy](options)
    chief = strategy is None or strategy.is_chief
    with clock("preparing the data"):
        if chief:
            builder = prepare(options)
            claim(options.output)
        if strategy:
            strategy.worker_values(0)  # the others wait, and find the data prepared
        if not chief:
            builder = prepare(options)
        data = load(builder, options.batch_size, options.seed)
    folder = strategy.path(options.output) if strategy else options.output
    folder.mkdir(exist_ok=True)
    steps = data.sizes[0] // options.batch_size
    options.epochs = options.epochs or min(50, max(8, round(600_000 / data.sizes[0])))
    with clock("building"), strategy.scope() if strategy else contextlib.nullcontext():
        model = build(data)
        compile_model(model, options, options.epochs * steps)
    with clock("training"):
        curve, ended = train(model, data, options, strategy, folder)
    if not chief:
        return 0 if ended else 130
    with clock("saving"):
        model.save(folder / "model.keras")
    with clock("testing"):  # what was saved, on one device
        saved = keras.saving.load_model(folder / "model.keras")
        tested = saved.evaluate(data.test, verbose=0, return_dict=True)
    taken = len(curve.epochs) * steps
    report_on(options, data, clock, curve, taken, ended, tested)
    if not ended:
        print(f"Interrupted: the best model so far and the curves are kept in {folder}.")
    print(
        f"Test accuracy {tested['accuracy']:.2%}. See {folder}/report.md and {folder}/curves.png."
    )
    return 0 if ended else 130


def main(arguments: list[str] | None = None) -> int:
    """Run the example; return the exit status."""
    options = parse(arguments)
    try:
        return run(options)
    except RefusedError as refusal:
        print(f"train.py: error: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted outside of training.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
