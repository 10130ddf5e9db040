"""Curvature: eigenvalues beside PyHessian and curvlinops, products beside gradients, the monitor.

The peers are timed where they are installed: `pip install pyhessian curvlinops-for-pytorch`.
"""

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import keras
import numpy as np
from scipy.sparse.linalg import eigsh

import kerasopt
from benchmarks._race import Row, compare, race
from benchmarks.callbacks import trainer
from benchmarks.second_order import CLASSES, ENTROPY, IMAGES, perceptron

TOP, TOLERANCE = 5, 1e-3  # the eigenvalues, and the tolerance of all; that of PyHessian by default


def trained() -> keras.Model:
    """Return the network 64-128-10 after some epochs."""
    model = perceptron(0)
    model.compile(keras.optimizers.Adam(1e-3), ENTROPY)
    model.fit(IMAGES, CLASSES, epochs=10, verbose=0)
    return model


def in_torch(model: keras.Model) -> tuple[Any, Any, Any]:
    """Return the same network in PyTorch, with the data."""
    import torch

    torch.set_num_threads(2)
    linear = torch.nn.Linear
    net = torch.nn.Sequential(linear(64, 128), torch.nn.Tanh(), linear(128, 10))
    weights = [torch.tensor(w.T.copy()) for w in model.get_weights()]
    with torch.no_grad():
        for parameter, weight in zip(net.parameters(), weights, strict=True):
            parameter.copy_(weight)
    return net, torch.tensor(IMAGES), torch.tensor(CLASSES).long()


def pyhessian(model: keras.Model) -> Callable[[], Any]:
    """Return a function that has PyHessian compute the eigenvalues."""
    import torch

    hessian = importlib.import_module("pyhessian").hessian
    net, x, y = in_torch(model)
    operator = hessian(net, torch.nn.CrossEntropyLoss(), data=(x, y), cuda=False)
    return lambda: operator.eigenvalues(maxIter=100, tol=TOLERANCE, top_n=TOP)[0]


def curvlinops(model: keras.Model) -> Callable[[], Any]:
    """Return a function that has SciPy compute the eigenvalues of curvlinops' operator."""
    import torch

    make = importlib.import_module("curvlinops").HessianLinearOperator
    net, x, y = in_torch(model)
    parameters = list(net.parameters())
    loss = torch.nn.CrossEntropyLoss()
    operator = make(net, loss, parameters, [(x, y)], check_deterministic=False)
    options = {"k": TOP, "which": "LA", "tol": TOLERANCE, "return_eigenvectors": False}
    return lambda: eigsh(operator.to_scipy(), **options)[::-1]


def rows() -> Iterator[Row]:
    """Yield all."""
    warnings.filterwarnings("ignore", module="torch")
    model = trained()
    curvature = kerasopt.curvature.Curvature(model, IMAGES, CLASSES)

    def ours(tolerance: float = TOLERANCE) -> np.ndarray:
        return kerasopt.curvature.eigenvalues(curvature, k=TOP, tolerance=tolerance).values

    exact = ours(1e-10)

    def off(values: np.ndarray) -> str:
        return f"off by {np.abs(np.sort(values)[::-1] / exact - 1).max():.0e}"

    task = f"top {TOP} eigenvalues, digits 64-128-10, {off(ours())}"
    for name, peer in (("pyhessian", pyhessian), ("curvlinops", curvlinops)):
        if importlib.util.find_spec(name):
            theirs = peer(model)
            yield race(task, f"{name}, {off(theirs())}", ours, theirs, 15)
    scipy = kerasopt.curvature.linear_operator(curvature)
    options = {"k": TOP, "which": "LA", "tol": TOLERANCE, "return_eigenvectors": False}
    peer_task = f"SciPy's `eigsh` on our products, {off(eigsh(scipy, **options))}"
    yield race(task, peer_task, ours, lambda: eigsh(scipy, **options), 15)
    wide = kerasopt.curvature.Curvature(perceptron(0, 512), IMAGES, CLASSES, ENTROPY)
    v = np.random.default_rng(0).normal(size=(16, wide.size)).astype("float32")
    gradient = "one gradient"
    yield race("`hvp`, digits 64-512-10", gradient, lambda: wide.products(v[:1]), wide.gradient)
    yield race("16 of them at once", gradient, lambda: wide.products(v), wide.gradient)
    monitor = kerasopt.callbacks.CurvatureMonitor(every=100)
    task = "`CurvatureMonitor(every=100)` in `fit`, 200 steps of about 2 ms"
    fit = trainer()
    yield compare(task, "no callback", partial(fit, [monitor]), partial(fit, []), 15)
