"""Checkpoints: files that hold the state of a training, and what a model has of it."""

import hashlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasopt._files import replacing
from kerasopt._rate_factor import build_optimizer, scaled_schedules
from kerasopt._strategy import is_chief, worker_values
from kerasopt.callbacks._checks import check_built

PATTERN = "epoch-*.npz"
DIGEST = hashlib.sha256().digest_size  # the first bytes of a file; the rest is what NumPy saves


class Checkpoints:
    """The newest checkpoints of one training, in a folder of their own.

    A checkpoint is a dict of plain values, lists and arrays, with an "epoch" and a "step" in it. It
    is there whole or not at all. `argument` is what the user calls the folder
    in the constructor of `name`.
    """

    def __init__(self, name: str, argument: str, folder: str | Path, keep: int) -> None:
        self.name, self.argument, self.folder, self.keep = name, argument, Path(folder), keep
        self._received = f"Received: {argument}={str(folder)!r}"

    def check(self, model: keras.Model) -> None:
        """Raise unless checkpoints of `model` can be made here."""
        check_built(model, self.name)
        if is_chief(model):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=self.folder).close()
            except OSError as error:
                raise OSError(
                    f"`{self.argument}` must be a folder that can be written to. {self._received} "
                    f"({error})"
                ) from error

    def write(self, state: dict[str, Any]) -> None:
        """Write a checkpoint that lasts, then drop those that are no longer wanted."""
        for rest in self.folder.glob(f".part-{PATTERN}"):  # of a process that was killed
            rest.unlink()
        step = f"-step-{state['step']:09d}" if state["step"] else ""
        path = self.folder / f"epoch-{state['epoch']:06d}{step}.npz"
        try:
            with replacing(path) as part:
                _save(part, state)
            _sync_folder(self.folder)
        except OSError as error:
            raise OSError(
                f"`{self.argument}` must have room for a checkpoint. {self._received} ({error}). "
                "The checkpoints before are as they were: make room and run the script again."
            ) from error
        # What comes after it in order is left over from before: it could not be read.
        wanted = [each for each in self._paths() if each.stem <= path.stem][-self.keep :]
        for each in set(self._paths()).difference(wanted):
            each.unlink()

    def newest(self, model: keras.Model) -> dict[str, Any] | None:
        """Return the newest checkpoint that is not damaged, None if there is none at all.

        All workers have to find the same one.
        """
        found, damaged = None, []
        for path in reversed(self._paths()):
            if found := _load(path):
                break
            damaged.append(str(path))
        if damaged and not found:
            raise OSError(
                f"A checkpoint in `{self.argument}` must be readable. Received: {damaged}, all "
                "damaged. Delete the folder to begin anew."
            )
        if damaged:
            warnings.warn(
                f"Checkpoints are damaged: {damaged}. Training goes on from {str(path)!r}, the one "
                "before.",
                stacklevel=2,
            )
        place = [found["epoch"], found["step"]] if found else [0, 0]
        places = worker_values(model, np.array(place))
        if np.any(places != places[0]):
            raise ValueError(
                f"`{self.argument}` must be a folder that all workers share. {self._received}, "
                f"where the workers find checkpoints of the epochs {places[:, 0].tolist()}, steps "
                f"{places[:, 1].tolist()}"
            )
        return found

    def compare(self, part: str, kept: list[Any], variables: Sequence[keras.Variable]) -> None:
        """Raise unless `kept`, from a checkpoint, has the names and shapes of these variables."""
        before = [f"{name} {value.shape}" for name, value in kept]
        now = [f"{_plain_name(v)} {tuple(v.shape)}" for v in variables]
        for old, new in zip_longest(before, now, fillvalue="nothing"):
            if old != new:
                raise ValueError(
                    f"`{self.argument}` must hold checkpoints of the same model and optimizer. "
                    f"{self._received}, where {old} of the {part} is now {new}. Delete the folder "
                    "to begin anew."
                )

    def assign(self, model: keras.Model, state: dict[str, Any]) -> None:
        """Give the model and its optimizer the values of a checkpoint, if it is of theirs."""
        if model.optimizer is not None:
            build_optimizer(model)
        there = training_variables(model)
        for part, variables in there.items():
            self.compare(part, state[part], variables)
        for part, variables in there.items():
            for variable, (_, value) in zip(variables, state[part], strict=True):
                variable.assign(value)
        for schedule, factor in zip(scaled_schedules(model), state["factors"], strict=False):
            schedule.factor = factor  # none where the callback that scaled it is gone

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob(PATTERN), key=lambda path: path.stem)


def model_state(model: keras.Model) -> dict[str, Any]:
    """Return the values of the model, its random generators and its optimizer.

    The factors of schedules are not among the variables of the optimizer.
    """
    values, parts = keras.ops.convert_to_numpy, training_variables(model)
    named = {part: name_values(vs, map(values, vs)) for part, vs in parts.items()}
    return {**named, "factors": [schedule.factor for schedule in scaled_schedules(model)]}


def name_values(variables: Sequence[keras.Variable], values: Any) -> list[list[Any]]:
    """Return pairs of name and value, as `Checkpoints.compare` takes them."""
    return [[_plain_name(v), np.asarray(value)] for v, value in zip(variables, values, strict=True)]


def training_variables(model: keras.Model) -> dict[str, list[keras.Variable]]:
    """Return the variables of the model, its random generators and its optimizer."""
    metrics = {id(variable) for variable in model.metrics_variables}
    return {
        "model": [variable for variable in model.variables if id(variable) not in metrics],
        "optimizer": model.optimizer.variables if model.optimizer else [],
    }


def _plain_name(variable: keras.Variable) -> str:
    """Return the path without numbers: the second model in a process is "sequential_1"."""
    return re.sub(r"_\d+(?=[_/]|$)", "", variable.path)


def _save(path: Path, state: dict[str, Any]) -> None:
    arrays: list[np.ndarray] = []

    def refer(value: Any) -> Any:
        """Return what stands in the text for a value that JSON does not know."""
        if isinstance(value, np.generic):
            return value.item()
        if not isinstance(value, np.ndarray) or value.dtype == object:
            raise TypeError(
                "`get_state` of a callback must return plain values, lists and NumPy arrays. "
                f"Received: {value!r}"
            )
        # NumPy has no bfloat16 of its own; its values are among those of float32.
        arrays.append(value.astype("float32") if value.dtype.kind == "V" else value)
        return {"numpy array": len(arrays)}

    text = json.dumps(state, default=refer).encode()
    with path.open("wb+") as file:
        file.write(bytes(DIGEST))
        np.savez(file, np.frombuffer(text, "uint8"), *arrays)
        file.seek(DIGEST)
        digest = hashlib.file_digest(file, "sha256").digest()
        file.seek(0)
        file.write(digest)
        file.flush()
        os.fsync(file.fileno())


def _load(path: Path) -> dict[str, Any] | None:
    """Return a checkpoint, or None if the file is not what was written."""
    with path.open("rb") as file:
        if file.read(DIGEST) != hashlib.file_digest(file, "sha256").digest():
            return None
        file.seek(DIGEST)
        saved = np.load(file)
        text, *arrays = [saved[name] for name in saved.files]
    return json.loads(
        text.tobytes(),
        object_hook=lambda each: arrays[each["numpy array"] - 1] if "numpy array" in each else each,
    )


def _sync_folder(folder: Path) -> None:
    """Have the names of the files last."""
    if os.name == "nt":
        return  # Windows does it by itself, and cannot open folders
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
