"""Optimizers, callbacks, data layers and strategies for training deep Keras models.

`kerasopt.optimizers`, `kerasopt.layers` and `kerasopt.callbacks` run on Keras' TensorFlow and JAX
backends. `kerasopt.strategies` and `kerasopt.data` are imported when first used: they stand on
TensorFlow and TensorFlow Datasets.
"""

import importlib
from types import ModuleType

from kerasopt import callbacks as callbacks
from kerasopt import curvature as curvature
from kerasopt import layers as layers
from kerasopt import optimizers as optimizers
from kerasopt._diagnosis import diagnose as diagnose
from kerasopt._models import Model as Model
from kerasopt._models import Sequential as Sequential
from kerasopt._objective import Objective as Objective
from kerasopt._objective import objective as objective
from kerasopt._predict_ensemble import predict_ensemble as predict_ensemble
from kerasopt._pretrain import pretrain as pretrain
from kerasopt._train_step import prepare as prepare

__version__ = "0.1.0"

_LAZY = ("data", "strategies")


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        return importlib.import_module(f"kerasopt.{name}")
    raise AttributeError(f"module 'kerasopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_LAZY]
