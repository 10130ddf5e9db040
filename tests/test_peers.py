"""The paths of the optimizers against those of PyTorch, Optax and the authors' packages."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest

import kerasopt.optimizers as ours
from tests.test_first_order import RATE, Problem, distance, flat, travel

pytestmark = pytest.mark.peers

PROBLEM = Problem()
UNITS = Problem(((3, 3, 2, 4), (4, 3, 2), (6, 5), (7,), ()))
DTYPE, CLOSE = ("float64", 1e-9) if keras.backend.backend() == "tensorflow" else ("float32", 1e-5)

Make = Callable[..., keras.optimizers.Optimizer]


def peers(*table: Any) -> pytest.MarkDecorator:
    """Run a test for each pair of an optimizer and its peer."""
    return pytest.mark.parametrize(("make", "peer"), table)


def torch_path(optimizer: Any, weights: list[Any]) -> np.ndarray:
    """Return where an optimizer of PyTorch has all weights after each of 50 steps."""
    gradients, rows = [gradient for _, gradient in PROBLEM.weights()], []
    for _ in range(50):
        for w, gradient in zip(weights, gradients, strict=True):
            w.grad = w.new_tensor(gradient(w.numpy(force=True)))
        optimizer.step()
        rows.append(flat([w.numpy(force=True) for w in weights]))
    return np.stack(rows)


def torch_weights() -> list[Any]:
    torch = pytest.importorskip("torch")
    return [torch.nn.Parameter(torch.tensor(w)) for w, _ in PROBLEM.weights()]


def optax_path(transformation: Any, problem: Problem) -> np.ndarray:
    """Return where Optax, in float64, has all weights after each of 50 steps."""
    optax, jax = pytest.importorskip("optax"), pytest.importorskip("jax")
    weights, gradients = zip(*problem.weights(), strict=True)
    with jax.enable_x64(True):
        state, rows = transformation.init(weights), []
        for _ in range(50):
            pairs = zip(gradients, weights, strict=True)
            slopes = tuple(np.asarray(gradient(np.asarray(w))) for gradient, w in pairs)
            updates, state = transformation.update(slopes, state, weights)
            weights = optax.apply_updates(weights, updates)
            rows.append(flat([np.asarray(w) for w in weights]))
    return np.stack(rows)


@peers(
    pytest.param(
        partial(ours.RectifiedAdam, RATE, epsilon=1e-8),
        lambda torch, weights: torch.optim.RAdam(weights, RATE),
        id="RectifiedAdam",
    ),
    pytest.param(
        partial(ours.RectifiedAdam, RATE, beta_2=0.9, epsilon=1e-8),
        lambda torch, weights: torch.optim.RAdam(weights, RATE, (0.9, 0.9)),
        id="RectifiedAdam, short memory",
    ),
    pytest.param(
        partial(ours.Rprop, RATE),
        lambda torch, weights: torch.optim.Rprop(weights, RATE),
        id="Rprop",
        marks=pytest.mark.tensorflow,  # in float32 rounding decides on signs
    ),
)
def test_torch(make: Make, peer: Callable[[ModuleType, list[Any]], Any]) -> None:
    weights = torch_weights()
    reference = torch_path(peer(pytest.importorskip("torch"), weights), weights)
    assert distance(travel(make(), PROBLEM, 50, dtype=DTYPE), reference) <= CLOSE


@peers(
    pytest.param(partial(ours.Adan, RATE), {"lr": RATE}, id="Adan"),
    pytest.param(
        partial(ours.Adan, RATE, 0.9, 0.8, 0.95, weight_decay=0.5),
        {"lr": RATE, "betas": (0.9, 0.8, 0.95), "weight_decay": 0.5, "weight_decouple": True},
        id="decay",
    ),
)
def test_adan(make: Make, peer: dict[str, Any]) -> None:
    weights, package = torch_weights(), pytest.importorskip("pytorch_optimizer")
    reference = torch_path(package.Adan(weights, **peer), weights)
    assert distance(travel(make(), PROBLEM, 50, dtype=DTYPE), reference) <= CLOSE


@pytest.mark.tensorflow  # the distance to the first weights is lost in float32
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"use_bias_correction": True, "growth_rate": 1.1, "weight_decay": 0.01},
        {"safeguard_warmup": True, "d_coef": 0.5},
    ],
    ids=["default", "bias correction", "safeguard"],
)
def test_prodigy(arguments: dict[str, Any]) -> None:
    weights, package = torch_weights(), pytest.importorskip("prodigyopt")
    arguments = {"d0": 2.0**-10, **arguments}
    reference = torch_path(package.Prodigy(weights, **arguments), weights)
    path = travel(ours.Prodigy(**arguments), PROBLEM, 50, dtype=DTYPE)
    assert distance(path, reference) <= CLOSE


@peers(
    pytest.param(
        lambda: ours.SGD(0.25, 0.8),
        lambda package, weights: package.SGDScheduleFree(weights, 0.25, 0.8),
        id="SGD",
    ),
    pytest.param(
        lambda: ours.AdamW(RATE, weight_decay=0.02, epsilon=1e-12),
        lambda package, weights: package.AdamWScheduleFree(
            weights, RATE, weight_decay=0.02, eps=1e-12, r=2.0
        ),
        id="AdamW",
    ),
)
def test_schedule_free(make: Make, peer: Callable[[ModuleType, list[Any]], Any]) -> None:
    weights, package = torch_weights(), pytest.importorskip("schedulefree")
    own = [keras.Variable(w, dtype=DTYPE) for w, _ in PROBLEM.weights()]
    reference = peer(package, weights)
    optimizer = ours.ScheduleFree(make(), r=reference.defaults["r"])
    close = max(CLOSE, 1e-7)  # the weight of the average is a float32
    reference.train()
    path = travel(optimizer, PROBLEM, 50, own, DTYPE)
    assert distance(path, torch_path(reference, weights)) <= close
    reference.eval()
    optimizer.finalize_variable_values(own)
    assert distance(flat(own), flat([w.numpy(force=True) for w in weights])) <= close


@peers(
    pytest.param(
        partial(ours.AdaBelief, RATE),
        lambda optax: optax.adabelief(RATE, eps=1e-16, eps_root=1e-16),
        id="AdaBelief",
    ),
    pytest.param(
        partial(ours.LARS, RATE, trust_coefficient=0.25),
        lambda optax: optax.lars(RATE, trust_coefficient=0.25),
        id="LARS",
    ),
    pytest.param(
        partial(ours.LARS, RATE, trust_coefficient=0.25, nesterov=True),
        lambda optax: optax.lars(RATE, trust_coefficient=0.25, nesterov=True),
        id="LARS, Nesterov",
    ),
)
def test_optax(make: Make, peer: Callable[[ModuleType], Any]) -> None:
    reference = optax_path(peer(pytest.importorskip("optax")), PROBLEM)
    assert distance(travel(make(), PROBLEM, 50, dtype=DTYPE), reference) <= CLOSE


@pytest.mark.parametrize("threshold", [0.01, 0.5])
def test_adaptive_clipping(threshold: float) -> None:
    optax = pytest.importorskip("optax")
    peer = optax.chain(optax.adaptive_grad_clip(threshold), optax.sgd(0.25))
    sgd = keras.optimizers.SGD(0.25)
    clipping = ours.GradientClipping(sgd, method="adaptive", threshold=threshold)
    path = travel(clipping, UNITS, 50, dtype=DTYPE)
    assert distance(path, optax_path(peer, UNITS)) <= CLOSE
