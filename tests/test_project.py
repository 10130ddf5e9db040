"""What holds of the project as a whole."""

import ast
import doctest
import importlib
import inspect
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import keras
import pytest

import kerasopt

ROOT = Path(__file__).parent.parent
PUBLIC = ("callbacks", "curvature", "data", "layers", "optimizers", "strategies")
SOURCES = [
    path
    for folder in ("kerasopt", "callbacks", "strategies", "examples", "tests", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def public_members() -> list[Any]:
    """Return (name, object) of all public classes and functions; none that this backend lacks."""
    modules = [importlib.import_module(f"kerasopt.{name}") for name in PUBLIC]
    return [
        pytest.param(member, id=f"{module.__name__}.{name}")
        for module in modules
        for name, member in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(member)
    ]


@pytest.mark.parametrize("member", public_members())
def test_public_member_is_documented(member: Any) -> None:
    text = inspect.getdoc(member)
    assert "Example:" in text
    assert "Reference:" in text
    own = inspect.signature(member).parameters if "__init__" in vars(member) else ()
    missing = [name for name in own if f"{name}: " not in text]
    assert not missing
    assert member.__module__.split(".")[-1].startswith("_")


FRONT = [
    kerasopt.Model,
    kerasopt.Sequential,
    kerasopt.Objective,
    kerasopt.prepare,
    kerasopt.predict_ensemble,
    kerasopt.pretrain,
]


@pytest.mark.parametrize("member", [*public_members(), *FRONT])
def test_example_of_docstring(member: Any) -> None:
    if keras.backend.backend() != "tensorflow" and "strategies" in member.__module__:
        pytest.skip("strategies need TensorFlow")
    runner, found = doctest.DocTestRunner(), doctest.DocTestFinder(recurse=False).find(member)
    results = [runner.run(test) for test in found]
    assert sum(result.attempted for result in results) > 0
    assert sum(result.failed for result in results) == 0


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 40, f"{node.name} has {lines} lines"


def test_every_package_is_in_the_wheel() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    on_disk = {f"kerasopt.{name}" for name in ("callbacks", "strategies")}
    for path in (ROOT / "kerasopt").rglob("__init__.py"):
        on_disk.add(".".join(path.parent.relative_to(ROOT).parts))
    assert set(setuptools["packages"]) == on_disk
    for package, folder in setuptools["package-dir"].items():
        assert (ROOT / package.replace(".", "/")).resolve() == ROOT / folder


PRIVATE = {
    "keras.src.layers.preprocessing.image_preprocessing.base_image_preprocessing_layer": {
        "BaseImagePreprocessingLayer": ["_USE_BASE_FACTOR", "_is_batched", "_get_seed_generator"]
    },
    "keras.optimizers": {
        "Optimizer": [
            "_get_variable_index",
            "_backend_update_step",
            "_apply_weight_decay",
            "_use_weight_decay",
        ]
    },
    "keras.callbacks": {"BackupAndRestore": ["_save_model"]},
    "keras.layers": {"Layer": ["_flatten_layers"], "BatchNormalization": ["_moments"]},
    "keras.src.backend.common.masking": {"get_keras_mask": [], "set_keras_mask": []},
    "keras.src.trainers.epoch_iterator": {
        "EpochIterator": ["_enumerate_iterator", "catch_stop_iteration", "num_batches"]
    },
    "keras.src.layers.preprocessing.data_layer": {"DataLayer": ["convert_weight"]},
    "keras.src.utils.backend_utils": {"DynamicBackend": ["set_backend"]},
}


@pytest.mark.parametrize("module", PRIVATE)
def test_private_names_of_keras_are_where_they_were(module: str) -> None:
    for name, attributes in PRIVATE[module].items():
        try:
            owner = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            pytest.fail(f"Keras {keras.__version__} has moved {module}.{name}, which kerasopt uses")
        gone = [attribute for attribute in attributes if not hasattr(owner, attribute)]
        assert not gone, (
            f"Keras {keras.__version__} has moved {gone} of {name}, which kerasopt uses"
        )


def test_private_attributes_of_keras_are_where_they_were() -> None:
    callback, optimizer = keras.callbacks.BackupAndRestore("folder"), keras.optimizers.SGD()
    optimizer.build([keras.Variable(1.0)])
    for owner, name, user in (
        (keras.Sequential(), "_initial_epoch", "callbacks/_position.py"),
        (callback, "_current_epoch", "BackupAndRestore"),
        (optimizer, "_variables", "optimizers/_wrapper.py"),
        (optimizer, "_trainable_variables", "optimizers/_wrapper.py"),
    ):
        message = f"Keras {keras.__version__} has moved {name}, which {user} uses"
        assert hasattr(owner, name), message


@pytest.mark.tensorflow
def test_private_names_of_tensorflow_are_where_they_were() -> None:
    import tensorflow as tf
    from tensorflow.python.eager import context

    extended = tf.distribute.MultiWorkerMirroredStrategy().extended
    launchers = [
        getattr(getattr(extended, name, None), "_launchers", [None])[0]
        for name in ("_cross_device_ops", "_host_cross_device_ops")
    ]
    message = f"TensorFlow {tf.__version__} has moved {{}}, which strategies/_messages.py uses"
    assert all(hasattr(each, "_next_instance_key") for each in launchers), message.format(launchers)
    assert hasattr(context.context(), "abort_collective_ops"), message.format("the abortion")
    built = getattr(keras.Model, "_maybe_symbolic_build", None)
    assert built, f"Keras {keras.__version__} has moved the build, which _batches.py uses"


IMPORT = """
import contextlib, io, json, sys, time
import keras
start, loaded = time.perf_counter(), set(sys.modules)
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
    import kerasopt
seconds = time.perf_counter() - start
new = {name.partition(".")[0] for name in set(sys.modules) - loaded}
try:
    kerasopt.nothing
except AttributeError as error:
    message = str(error)
print(json.dumps([seconds, out.getvalue(), sorted(new), "tensorflow" in sys.modules, message]))
"""


@pytest.mark.alone
@pytest.mark.tensorflow  # once is enough
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_import_is_cheap_and_silent(backend: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    seconds, printed, new, tensorflow, message = json.loads(done.stdout)
    assert printed == ""
    assert new == ["kerasopt"]
    assert seconds < 0.3
    assert tensorflow == (backend == "tensorflow")
    assert message == "module 'kerasopt' has no attribute 'nothing'"
