"""The tables: a row is a constructor, its arguments, and what its errors say."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pytest

import kerasopt


@dataclass(frozen=True)
class Case:
    """One row; `bad` maps arguments that are refused to the text of the error.

    `resumes`: a callback that has `get_state` and `set_state`. `validated`: it needs validation
    data. `acts`: it changes the training.
    `scale`: by what the learning rate is multiplied. `close`: how far rounding leads apart two runs
    of an optimizer which divides by what was rounded.
    `inner`: an optimizer that is wrapped; it takes the arguments that the constructor does not.
    `objective`: it asks for the loss function. `refuses`: arguments and types that it refuses.
    `count`: in how many steps it minimises; `last`: by what the rate is multiplied in the last
    third. `repeat`: how many gradients make one of its steps. `units`: of the network.
    """

    constructor: Callable[..., Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    bad: tuple[tuple[dict[str, Any], str], ...] = ()
    resumes: bool = False
    validated: bool = False
    acts: bool = False
    scale: float = 1.0
    close: float = 1e-6
    inner: Callable[..., Any] | None = None
    objective: bool = False
    refuses: tuple[str, ...] = ()
    count: int = 9000
    last: float = 0.1
    units: int = 16
    repeat: int = 1

    def make(self, **arguments: Any) -> Any:
        """Construct the object of this row."""
        arguments = {**self.arguments, **arguments}
        if self.inner:
            own = inspect.signature(self.constructor).parameters
            inner = {name: arguments.pop(name) for name in [*arguments] if name not in own}
            arguments = {"optimizer": self.inner(**inner), **arguments}
        return self.constructor(**arguments)

    def model(self, **compile_arguments: Any) -> keras.Model:
        """Return a small compiled classifier, prepared if it has to be."""
        return dense_model(self.make(), self.objective, self.units, **compile_arguments)


def SGD(learning_rate: Any = 0.002, momentum: float = 0.9, **kwargs: Any) -> Any:  # noqa: N802
    """Return the optimizer that wrappers are tested around."""
    return keras.optimizers.SGD(learning_rate, momentum, **kwargs)


# A rule, one that takes part in the step, a wrapper and one that asks for the loss.
A_FEW = ("Adam", "GradientClipping", "ScheduleFree", "NewtonCG")


def rows(*cases: Case, quick: Sequence[str] | None = None) -> pytest.MarkDecorator:
    """Run a test for each row; those that are not named in `quick` count as slow, if it is given.

    What holds for each optimizer on TensorFlow is tested quickly for a few on other backends.
    """
    if keras.backend.backend() != "tensorflow" and cases[0] in OPTIMIZERS:
        quick = A_FEW
    names = [case.constructor.__name__ for case in cases]
    marks = [[] if quick is None or name in quick else [pytest.mark.slow] for name in names]
    table = zip(cases, names, marks, strict=True)
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=name, marks=marks) for case, name, marks in table]
    )


def bad_rows(*cases: Case) -> pytest.MarkDecorator:
    """Run a test for each refused argument of each row."""
    table = [(case, arguments, message) for case in cases for arguments, message in case.bad]
    return pytest.mark.parametrize(
        ("case", "arguments", "message"),
        table,
        ids=[f"{case.constructor.__name__}-{[*arguments]}" for case, arguments, _ in table],
    )


RATE = ({"learning_rate": -0.1}, r"`learning_rate` must be a number in \[0, inf\)\. Received")
BETAS = (
    ({"beta_1": 1.0}, r"`beta_1` must be a number in \[0, 1\)\. Received: beta_1=1.0"),
    ({"beta_2": -0.1}, r"`beta_2` must be a number in \[0, 1\)"),
)
INNER = (
    {"optimizer": 3},
    "`optimizer` must be a Keras optimizer, or the name of one. Received: .*=3",
)
ACCUMULATION = (
    {"gradient_accumulation_steps": 2},
    "`gradient_accumulation_steps` must be None: `.*` looks at the loss of one batch",
)
EVERY = (
    {"update_every": 0},
    "`update_every` must be an integer ≥ 1. Received: update_every=0",
)
ESTIMATOR = ({"estimator": "exact"}, r"`estimator` must be one of \['gauss_newton', 'hutchinson")
EPSILON = ({"epsilon": -1.0}, r"`epsilon` must be a number in \[0, inf\)")

COARSE = ("bfloat16", "mixed_bfloat16", "mixed_float16")
LBFGS_REFUSES = (
    *("use_ema", "weight_decay", "clipnorm", "clipvalue", "global_clipnorm"),
    "gradient_accumulation_steps",
)

OPTIMIZERS = (
    Case(
        kerasopt.optimizers.Momentum,
        {"learning_rate": 0.02},
        bad=(
            RATE,
            ({"learning_rate": "fast"}, "`learning_rate` should be float"),
            ({"momentum": 1.0}, r"`momentum` must be a number in \[0, 1\)\. Received: momentum=1"),
            ({"momentum": -0.1}, r"`momentum` must be a number in \[0, 1\)"),
            ({"momentum": float("nan")}, r"`momentum` must be a number in \[0, 1\)"),
            ({"momentum": "0.9"}, r"`momentum` must be a number .* Received: momentum='0.9'"),
        ),
    ),
    Case(kerasopt.optimizers.SGD, {"learning_rate": 0.002, "momentum": 0.9}),
    Case(kerasopt.optimizers.Adam, {"learning_rate": 0.01}),
    Case(kerasopt.optimizers.AdamW, {"learning_rate": 0.01, "weight_decay": 1e-6}),
    Case(kerasopt.optimizers.RMSprop, {"learning_rate": 0.001, "momentum": 0.9}),
    Case(
        kerasopt.optimizers.DeltaBarDelta,
        {"learning_rate": 0.001},
        bad=(
            RATE,
            ({"kappa": -1}, r"`kappa` must be a number in \[0, inf\)"),
            ({"phi": 1.0}, r"`phi` must be a number in \[0, 1\)"),
            ({"theta": 1.0}, r"`theta` must be a number in \[0, 1\)"),
            ({"min_gain": -1}, r"`min_gain` must be a number in \[0, inf\)"),
            ({"min_gain": 2, "max_gain": 1}, r"`max_gain` must be a number in \[2.0, inf\]"),
            ({"momentum": 1.0}, r"`momentum` must be a number in \[0, 1\)"),
        ),
    ),
    Case(
        kerasopt.optimizers.Rprop,
        {"learning_rate": 0.01},
        bad=(
            RATE,
            ({"etas": 0.5}, r"`etas` must be a pair \(low, high\)"),
            ({"etas": (1.1, 1.2)}, "`etas` must be a pair 0 < η⁻ < 1 < η⁺. Received"),
            ({"step_sizes": (1, 0.1)}, "`step_sizes` must be a pair low ≤ high"),
            ({"step_sizes": (0, 1)}, r"`step_sizes` must be a number in \(0, inf\)"),
        ),
    ),
    Case(
        kerasopt.optimizers.RectifiedAdam,
        {"learning_rate": 0.005},
        bad=(
            RATE,
            *BETAS,
            EPSILON,
            ({"threshold": 3}, r"`threshold` must be a number in \[4, inf"),
        ),
    ),
    Case(kerasopt.optimizers.AdaBelief, {"learning_rate": 0.02}, bad=(RATE, *BETAS, EPSILON)),
    Case(
        kerasopt.optimizers.Adan,
        {"learning_rate": 0.02},
        bad=(RATE, *BETAS, EPSILON, ({"beta_3": 2}, r"`beta_3` must be a number in \[0, 1\)")),
    ),
    Case(
        kerasopt.optimizers.LARS,
        {"learning_rate": 0.05, "trust_coefficient": 0.02},
        bad=(
            RATE,
            ({"momentum": 1.0}, r"`momentum` must be a number in \[0, 1\)"),
            ({"trust_coefficient": 0}, r"`trust_coefficient` must be a number in \(0, inf\)"),
            ({"nesterov": 1}, "`nesterov` must be True or False. Received: nesterov=1"),
            EPSILON,
        ),
    ),
    Case(
        kerasopt.optimizers.Prodigy,
        {"d0": 0.01},
        scale=0.01,
        close=3e-5,
        bad=(
            RATE,
            *BETAS,
            EPSILON,
            ({"beta_3": 1}, r"`beta_3` must be a number in \[0, 1\)"),
            ({"d0": 0}, r"`d0` must be a number in \(0, inf\)"),
            ({"d_coef": 0}, r"`d_coef` must be a number in \(0, inf\)"),
            ({"growth_rate": 0.9}, r"`growth_rate` must be a number in \[1, inf\]"),
            ({"use_bias_correction": 0}, "`use_bias_correction` must be True or False"),
            ({"safeguard_warmup": 0}, "`safeguard_warmup` must be True or False"),
        ),
    ),
    Case(
        kerasopt.optimizers.Shampoo,
        {"learning_rate": 0.02, "epsilon": 0.01},
        close=1e-5,
        bad=(
            RATE,
            *BETAS,
            ({"epsilon": 0}, r"`epsilon` must be a number in \(0, inf\)"),
            ({"block_size": 0}, "`block_size` must be an integer ≥ 1"),
            ({"update_every": 0}, "`update_every` must be an integer ≥ 1"),
            ({"grafting": "lion"}, r"`grafting` must be one of \['adam', 'sgd', None\]"),
        ),
    ),
    Case(
        kerasopt.optimizers.Lookahead,
        inner=SGD,
        bad=(
            INNER,
            ({"sync_period": 0}, "`sync_period` must be an integer ≥ 1"),
            ({"slow_step_size": 0}, r"`slow_step_size` must be a number in \(0, 1\]"),
        ),
    ),
    Case(
        kerasopt.optimizers.GradientClipping,
        {"threshold": 1e6},
        inner=SGD,
        bad=(
            INNER,
            ({"method": "length"}, r"`method` must be one of \['norm', 'value', 'adaptive', 'perc"),
            ({"threshold": 0}, r"`threshold` must be a number in \(0, inf\)"),
            ({"method": "percentile", "threshold": 1}, "`threshold` must be None where `method`"),
            ({"percentile": 0}, r"`percentile` must be a number in \(0, 100\]"),
            ({"window": 0}, "`window` must be an integer ≥ 1"),
            ({"epsilon": 0}, r"`epsilon` must be a number in \(0, inf\)"),
            ({"history": "no"}, "`history` must be True or False"),
            ({"max_skipped": 0}, "`max_skipped` must be an integer ≥ 1"),
            (
                {"optimizer": keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())},
                r"wrap the optimizer within, as in `LossScaleOptimizer\(GradientClipping",
            ),
            (
                {"optimizer": kerasopt.optimizers.SAM("sgd")},
                r"the gradient that is clipped.* `SAM\(GradientClipping\(…\)\)`\. Received: SAM",
            ),
        ),
    ),
    Case(
        kerasopt.optimizers.LayerwiseLearningRate,
        inner=SGD,
        bad=(
            INNER,
            ({"multipliers": 2.0}, "`multipliers` must map regular expressions or layers"),
            ({"multipliers": {3: 2.0}}, "`multipliers` must have regular expressions or layers as"),
            ({"multipliers": {"(": 2.0}}, "`multipliers` must have regular expressions as keys: "),
            ({"multipliers": {"a": -1}}, r"`multipliers` must be a number in \[0, inf\)"),
            ({"layer_decay": 0}, r"`layer_decay` must be a number in \(0, 1\]"),
            ({"rule": "depth"}, r"`rule` must be one of \[None, 'fan_in', 'curvature'\]"),
        ),
    ),
    Case(
        kerasopt.optimizers.ScheduleFree,
        {"learning_rate": 0.005, "r": 6.0},
        inner=SGD,
        bad=(
            INNER,
            ({"momentum": 1.0}, r"`momentum` must be a number in \(0, 1\)"),
            ({"r": -1}, r"`r` must be a number in \[0, inf\)"),
            ({"weight_lr_power": -1}, r"`weight_lr_power` must be a number in \[0, inf\)"),
            ({"use_ema": True}, "`optimizer` must not average the weights itself. Received"),
        ),
    ),
    Case(
        kerasopt.optimizers.SAM,
        {"rho": 0.001},
        inner=SGD,
        objective=True,
        refuses=("gradient_accumulation_steps", "mixed_float16"),
        bad=(
            INNER,
            ({"rho": -1}, r"`rho` must be a number in \[0, inf\)"),
            ({"adaptive": 1}, "`adaptive` must be True or False"),
            ACCUMULATION,
        ),
    ),
    Case(
        kerasopt.optimizers.StochasticDiagonalLM,
        {"learning_rate": 1.0, "mu": 500.0, "update_every": 3, "seed": 1},
        objective=True,
        refuses=("gradient_accumulation_steps", "mixed_float16"),
        close=1e-5,
        bad=(
            RATE,
            EVERY,
            ESTIMATOR,
            ACCUMULATION,
            ({"mu": 0}, r"`mu` must be a number in \(0, inf\)"),
            ({"decay": 1}, r"`decay` must be a number in \[0, 1\)"),
            ({"seed": -1}, "`seed` must be an integer ≥ 0"),
        ),
    ),
    Case(
        kerasopt.optimizers.AdaHessian,
        {"learning_rate": 0.3, "epsilon": 0.01, "seed": 1},
        objective=True,
        refuses=("gradient_accumulation_steps", "mixed_float16"),
        close=1e-4,
        bad=(
            RATE,
            *BETAS,
            EVERY,
            ESTIMATOR,
            ACCUMULATION,
            ({"epsilon": -1.0}, r"`epsilon` must be a number in \[0, inf\)"),
            ({"hessian_power": 2}, r"`hessian_power` must be a number in \[0, 1\]"),
            ({"spatial_averaging": 0}, "`spatial_averaging` must be True or False"),
        ),
    ),
    Case(
        kerasopt.optimizers.Sophia,
        {"learning_rate": 0.003, "seed": 1},
        objective=True,
        refuses=("gradient_accumulation_steps", "mixed_float16"),
        close=1e-5,
        bad=(
            RATE,
            *BETAS,
            EVERY,
            ESTIMATOR,
            ACCUMULATION,
            ({"gamma": 0}, r"`gamma` must be a number in \(0, inf\)"),
            ({"epsilon": 0}, r"`epsilon` must be a number in \(0, inf\)"),
        ),
    ),
    Case(
        kerasopt.optimizers.Newton,
        {"damping": 1.0, "saddle_free": True},
        objective=True,
        units=2,
        refuses=("gradient_accumulation_steps", *COARSE),
        count=300,
        last=1.0,
        close=1e-4,
        bad=(
            RATE,
            ACCUMULATION,
            ({"damping": -1}, r"`damping` must be a number in \[0, inf\)"),
            ({"saddle_free": 1}, "`saddle_free` must be True or False"),
        ),
    ),
    Case(
        kerasopt.optimizers.NewtonCG,
        {"curvature": "hessian", "damping": 10.0, "cg_iterations": 3, "cg_tolerance": 0.0},
        objective=True,
        refuses=("gradient_accumulation_steps", *COARSE),
        count=180,
        last=1.0,
        close=1e-4,
        bad=(
            RATE,
            ACCUMULATION,
            ({"curvature": "fisher"}, r"`curvature` must be one of \['gauss_newton', 'hessian'\]"),
            ({"damping": -1}, r"`damping` must be a number in \[0, inf\)"),
            ({"cg_iterations": 0}, "`cg_iterations` must be an integer ≥ 1"),
            ({"cg_tolerance": 1}, r"`cg_tolerance` must be a number in \[0, 1\)"),
            ({"preconditioner": "full"}, r"`preconditioner` must be one of \[None, 'diagonal'\]"),
            (
                {"preconditioner": "diagonal", "damping": 0.0},
                "`damping` must be a number > 0 with a `preconditioner`.* Received: damping=0.0",
            ),
            ({"warm_start": 1}, r"`warm_start` must be a number in \[0, 1\)"),
            ({"seed": 0.5}, "`seed` must be an integer ≥ 0"),
        ),
    ),
    Case(
        kerasopt.optimizers.LBFGS,
        {"steps_per_evaluation": 4},
        objective=True,
        refuses=(*LBFGS_REFUSES, *COARSE, "schedule"),
        count=360,
        last=1.0,
        repeat=4,
        close=1e-4,
        bad=(
            RATE,
            *(({name: 2}, f"`{name}` must be None: `LBFGS` goes by") for name in LBFGS_REFUSES[1:]),
            ({"use_ema": True}, "`use_ema` must be False: `LBFGS` leaves the best point"),
            ({"history_size": 0}, "`history_size` must be an integer ≥ 1"),
            (
                {"line_search": "wolfe"},
                r"`line_search` must be one of \['strong_wolfe', 'armijo",
            ),
            ({"steps_per_evaluation": 0}, "`steps_per_evaluation` must be an integer ≥ 1"),
        ),
    ),
)

LAYERS = (
    Case(
        kerasopt.layers.RandomAffine,
        {"rotation": 0.1, "translation": 0.2, "scale": 0.2, "shear": 0.1, "flip": "horizontal"},
        bad=(
            ({"rotation": (0.2, 0.1)}, "`rotation` must be a pair low ≤ high. Received"),
            ({"rotation": -0.1}, r"`rotation` must be a number in \[0, 1\]. Received"),
            ({"rotation": ((0, 0.1), (0, 0.1))}, r"`rotation` must be a number in \[-1, 1\]"),
            ({"rotation": "0.1"}, r"`rotation` must be a pair \(low, high\). Received"),
            ({"translation": (-1.5, 0)}, r"`translation` must be a number in \[-1, 1\]"),
            ({"translation": ((0, 0.1), (0.2, 0.1))}, "`translation` must be a pair low ≤ high"),
            ({"translation": ((0, 0.1), 0.1, 0.1)}, r"`translation` must be a pair of pairs"),
            ({"scale": 1.0}, r"`scale` must be a number in \[0, 1\). Received: scale=1.0"),
            ({"scale": (-1, 0)}, r"`scale` must be a number in \(-1, 1\]. Received: scale=-1"),
            ({"shear": (0, 1)}, r"`shear` must be a number in \(-1, 1\). Received: shear=1"),
            ({"flip": "diagonal"}, r"`flip` must be one of \[None, 'horizontal', 'vertical', 'hor"),
            ({"fill_mode": "mirror"}, r"`fill_mode` must be one of \['reflect', 'constant', 'ne"),
            ({"fill_value": None}, r"`fill_value` must be a number in \(-inf, inf\)"),
            ({"interpolation": "cubic"}, r"`interpolation` must be one of \['bilinear', 'near"),
            ({"probability": 1.5}, r"`probability` must be a number in \[0, 1\]"),
            ({"seed": 0.5}, "`seed`|Argument `seed`"),
            ({"data_format": "HWC"}, "data_format"),
        ),
    ),
    Case(
        kerasopt.layers.RandomGaussianNoise,
        {"stddev": (0.1, 0.2)},
        bad=(
            ({"stddev": (0.2, 0.1)}, "`stddev` must be a pair low ≤ high. Received"),
            ({"stddev": -0.1}, r"`stddev` must be a number in \[0, inf\)"),
            ({"stddev": "0.1"}, r"`stddev` must be a number in \[0, inf\)"),
            ({"stddev": (0.1, 0.2, 0.3)}, r"`stddev` must be a pair \(low, high\)"),
            ({"clip": 1.0}, r"`clip` must be a pair \(low, high\). Received: clip=1.0"),
            ({"clip": (1, 0)}, "`clip` must be a pair low ≤ high"),
            ({"probability": 1.5}, r"`probability` must be a number in \[0, 1\]"),
            ({"per_channel": "yes"}, "`per_channel` must be True or False. Received"),
            ({"seed": 0.5}, "`seed`|Argument `seed`"),
            ({"data_format": "HWC"}, "data_format"),
        ),
    ),
)

RATE_OF_DROPOUT = (
    ({"rate": 1.5}, r"`rate` must be a number in \[0, 1.\. Received: rate=1.5"),
    ({"rate": "0.5"}, r"`rate` must be a number in \[0, 1.\. Received: rate='0.5'"),
    ({"seed": 0.5}, "Argument `seed` must be an integer. Received: seed=0.5"),
)


def Column(column: int = 1, seed: int | None = None, **kwargs: Any) -> Any:  # noqa: N802
    """Return a column that draws random numbers."""
    return kerasopt.layers.Column(
        kerasopt.layers.Dropout(0.4, seed=seed, **kwargs), column, **kwargs
    )


REGULARIZATION = (
    Case(
        kerasopt.layers.Dropout,
        {"rate": 0.4},
        bad=(
            *RATE_OF_DROPOUT,
            ({"noise_shape": "rows"}, "`noise_shape`. Expected a tuple or list of integers"),
            ({"noise_shape": (None, 0)}, "`noise_shape`. Expected all dimensions to be positive"),
        ),
    ),
    Case(
        kerasopt.layers.GaussianDropout,
        {"rate": 0.4},
        bad=(
            *RATE_OF_DROPOUT,
            ({"rate": 1.0}, r"`rate` must be a number in \[0, 1\)\. Received: rate=1.0"),
        ),
    ),
    Case(
        kerasopt.layers.GaussianNoise,
        {"stddev": 0.4},
        bad=(({"stddev": -0.1}, r"`stddev` must be a number in \[0, 1\]\. Received: stddev=-0.1"),),
    ),
    Case(
        kerasopt.layers.SpatialDropout2D,
        {"rate": 0.4},
        bad=(*RATE_OF_DROPOUT, ({"data_format": "HWC"}, "data_format")),
    ),
    Case(
        Column,
        bad=(
            ({"column": -1}, "`column` must be an integer ≥ 0. Received: column=-1"),
            ({"column": "left"}, "`column` must be an integer ≥ 0. Received: column='left'"),
        ),
    ),
)


CALLBACKS = (
    Case(
        kerasopt.callbacks.LearningCurve,
        bad=(
            (
                {"path": "curves.gif"},
                r"`path` must end in one of .*\.png.* Received: path='curves.gif'",
            ),
            ({"every": 0}, "`every` must be an integer ≥ 1. Received: every=0"),
            ({"every": 2.0}, "`every` must be an integer ≥ 1. Received: every=2.0"),
            ({"mode": "best"}, r"`mode` must be one of \['auto', 'min', 'max'\]. Received"),
            ({"monitor": "val_f"}, "`mode` must be 'min' or 'max' where .* monitor='val_f'"),
            ({"metrics": "loss"}, r"`metrics` must be a list of names. Received: metrics='loss'"),
        ),
        resumes=True,
        validated=True,
    ),
    Case(
        kerasopt.callbacks.BackupAndRestore,
        {"backup_dir": "backup"},
        bad=(
            ({"backup_dir": ""}, "Empty `backup_dir` argument"),
            ({"save_freq": "batch"}, "`save_freq`. Received: save_freq=batch"),
        ),
    ),
    Case(
        kerasopt.callbacks.Resume,
        {"directory": "runs"},
        bad=(
            ({"every": 0}, "`every` must be an integer ≥ 1. Received: every=0"),
            ({"every": 2.5}, "`every` must be an integer ≥ 1. Received: every=2.5"),
            ({"every": "batch"}, "`every` must be 'epoch' or a number of steps. Received: .*batch"),
            ({"keep": 0}, "`keep` must be an integer ≥ 1. Received: keep=0"),
        ),
    ),
    Case(kerasopt.callbacks.ThroughputMonitor),
    Case(
        kerasopt.callbacks.CurvatureMonitor,
        {"every": 2},
        bad=(
            ({"every": 0}, "`every` must be an integer ≥ 1. Received: every=0"),
            ({"k": 0}, "`k` must be an integer ≥ 1. Received: k=0"),
            ({"kind": "H"}, r"`kind` must be one of \['hessian', 'gauss_newton'\]"),
            ({"probes": 0}, "`probes` must be an integer ≥ 1"),
            ({"verbose": -1}, "`verbose` must be an integer ≥ 0"),
            ({"seed": -1}, "`seed` must be an integer ≥ 0"),
        ),
        resumes=True,
    ),
    Case(
        kerasopt.callbacks.EarlyStopping,
        {"patience": 5},
        bad=(
            ({"min_delta": "1"}, r"`min_delta` must be a number in \(-inf, inf\)"),
            ({"baseline": "1"}, "`baseline` must be a number in"),
            ({"patience": -1}, "`patience` must be an integer ≥ 0. Received: patience=-1"),
            ({"mode": "best"}, r"`mode` must be one of \['auto', 'min', 'max'\]. Received"),
            ({"restore_best_weights": 1}, "`restore_best_weights` must be True or False"),
            ({"start_from_epoch": -1}, "`start_from_epoch` must be an integer ≥ 0"),
            ({"smooth": 1}, r"`smooth` must be a number in \[0, 1\). Received: smooth=1"),
            ({"relative": 1}, "`relative` must be True or False"),
            ({"relative": True}, "`min_delta` must be > 0 with `relative`. Received: min_delta=0"),
            ({"criterion": "up"}, r"`criterion` must be one of \['patience', 'GL', 'PQ', 'UP'\]"),
            ({"alpha": 0, "criterion": "GL"}, r"`alpha` must be a number in \(0, inf\)"),
            ({"alpha": 2}, r"`alpha` must be None where `criterion` is not one of \['GL', 'PQ'\]"),
            (
                {"baseline": 1, "criterion": "UP"},
                "`baseline` must be None where `criterion` is not 'patience'. .* criterion='UP'",
            ),
            ({"stopping_threshold": "0"}, "`stopping_threshold` must be a number in"),
            ({"divergence_threshold": "9"}, "`divergence_threshold` must be a number in"),
            ({"check_finite": None}, "`check_finite` must be True or False"),
            ({"every_batches": 0}, "`every_batches` must be an integer ≥ 1"),
            ({"restore_optimizer": True}, "`restore_optimizer` needs `restore_best_weights=True`"),
        ),
        resumes=True,
        validated=True,
    ),
    Case(
        kerasopt.callbacks.EvaluateEvery,
        {"n_batches": 2, "data": (np.zeros((4, 8, 8, 1)), np.zeros(4))},
        bad=(
            ({"n_batches": 0}, "`n_batches` must be an integer ≥ 1. Received: n_batches=0"),
            ({"batch_size": 2.0}, "`batch_size` must be an integer ≥ 1. Received: batch_size=2.0"),
        ),
        resumes=True,
    ),
    Case(
        kerasopt.callbacks.GradientMonitor,
        {"every": 2},
        bad=(
            ({"every": 0}, "`every` must be an integer ≥ 1. Received: every=0"),
            ({"statistics": "norm"}, "`statistics` must be a list of names"),
            ({"statistics": ["length"]}, r"`statistics` must be of .*; \['length'\] are not"),
            ({"histograms": 1}, "`histograms` must be True or False"),
            ({"path": "norms.gif"}, r"`path` must end in one of .*\.png.* path='norms.gif'"),
            (
                {"path": "n.png", "statistics": ["std"]},
                "`statistics` must have 'norm' where `path`",
            ),
        ),
        resumes=True,
    ),
    Case(
        kerasopt.callbacks.JacobianMonitor,
        {"x": np.zeros((4, 8, 8, 1)), "every": 2},
        bad=(
            ({"every": 0}, "`every` must be an integer ≥ 1. Received: every=0"),
            ({"samples": 0}, "`samples` must be an integer ≥ 1. Received: samples=0"),
            ({"samples": 2.0}, "`samples` must be an integer ≥ 1. Received: samples=2.0"),
        ),
        resumes=True,
    ),
    Case(
        kerasopt.callbacks.StopOnGradientNorm,
        {"threshold": 1e-9},
        bad=(
            ({"threshold": 0}, r"`threshold` must be a number in \(0, inf\)"),
            ({"threshold": "low"}, r"`threshold` must be a number in .* Received: threshold='low'"),
        ),
    ),
    Case(
        kerasopt.callbacks.AdaptiveLearningRate,
        bad=(
            (
                {"mode": "both"},
                r"`mode` must be one of \['weights', 'loss'\]. Received: mode='both'",
            ),
            (
                {"mode": "loss", "per_layer": True},
                "`mode` must be 'weights' where `per_layer` is True",
            ),
            ({"up": 1.0}, r"`up` must be a number in \(1, inf\)"),
            ({"down": 1.0}, r"`down` must be a number in \(0, 1\)"),
            ({"acceleration": 0}, "`acceleration` must be an integer ≥ 1"),
            ({"cosines": 0.5}, r"`cosines` must be a pair \(low, high\)"),
            ({"cosines": (0.5, 2)}, r"`cosines` must be a number in \[-1, 1\]"),
            ({"every": 0}, "`every` must be an integer ≥ 1"),
            ({"per_layer": 1}, "`per_layer` must be True or False"),
            ({"tolerance": -1}, r"`tolerance` must be a number in \[0, inf\)"),
            ({"min_learning_rate": -1}, r"`min_learning_rate` must be a number in \[0, inf\)"),
            (
                {"min_learning_rate": 1, "max_learning_rate": 0.5},
                r"`max_learning_rate` must be a number in \[1.0, inf\]",
            ),
            ({"verbose": -1}, "`verbose` must be an integer ≥ 0"),
        ),
        resumes=True,
        acts=True,
    ),
    Case(
        kerasopt.callbacks.GrowingBatchSize,
        {"start": 64, "every": 1},
        bad=(
            ({"start": 0}, "`start` must be an integer ≥ 1"),
            ({"factor": 1.5}, "`factor` must be an integer ≥ 2. Received: factor=1.5"),
            ({"every": 0}, "`every` must be an integer ≥ 1"),
            ({"max_size": 16}, "`max_size` must be an integer ≥ 64. Received: max_size=16"),
            (
                {"trigger": "time"},
                r"`trigger` must be one of \['epoch', 'plateau', 'gradient_noise'\]",
            ),
            ({"min_delta": -1}, r"`min_delta` must be a number in \[0, inf\)"),
            ({"scale_learning_rate": 2}, r"`scale_learning_rate` must be one of \[None, 'linear'"),
        ),
        resumes=True,
        acts=True,
    ),
    Case(
        kerasopt.callbacks.LearningRateFinder,
        {"x": np.zeros((32, 8, 8, 1)), "y": np.zeros(32), "steps": 3},
        bad=(
            ({"min_learning_rate": 0}, r"`min_learning_rate` must be a number in \(0, inf\)"),
            (
                {"max_learning_rate": 1e-7},
                r"`max_learning_rate` must be a number in \(1e-07, inf\)",
            ),
            ({"steps": 1}, "`steps` must be an integer ≥ 2"),
            ({"batch_size": 0}, "`batch_size` must be an integer ≥ 1"),
            (
                {"suggest": "best"},
                r"`suggest` must be one of \['valley', 'steepest', 'curvature'\]",
            ),
            ({"smooth": 1}, r"`smooth` must be a number in \[0, 1\)"),
            (
                {"path": "rates.gif"},
                r"`path` must end in one of .*\.png.* Received: path='rates.gif'",
            ),
            ({"seed": -1}, "`seed` must be an integer ≥ 0"),
        ),
        resumes=True,
        acts=True,
    ),
    Case(
        kerasopt.callbacks.LearningCurve,
        {"every_batches": 2},
        bad=(({"every_batches": 0}, "`every_batches` must be an integer ≥ 1"),),
        resumes=True,
        validated=True,
    ),
    Case(
        kerasopt.callbacks.Unfreeze,
        {"schedule": {0: 1}},
        bad=(
            ({"schedule": ["head"]}, r"`schedule` must map epochs to layers. .*=\['head'\]"),
            ({"schedule": {}}, "`schedule` must have at least one epoch"),
            (
                {"schedule": {-1: "head"}},
                "`schedule` must be an integer ≥ 0. Received: schedule=-1",
            ),
            ({"schedule": {"1": "head"}}, "`schedule` must be an integer ≥ 0. .* schedule='1'"),
            ({"schedule": {1: ["head", 0]}}, "`schedule` must be an integer ≥ 1. .* schedule=0"),
            ({"schedule": {1: 2.5}}, "`schedule` must have layers, names .* Received: 2.5"),
            ({"schedule": {1: "("}}, r"valid regular expressions: .* Received: '\('"),
        ),
    ),
)


def dense_model(
    optimizer: keras.optimizers.Optimizer,
    prepared: bool = False,
    units: int = 16,
    **compile_arguments: Any,
) -> keras.Model:
    """Return a small compiled classifier of 8×8 images, the same at every call."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = (kerasopt if prepared else keras).Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(units, activation="tanh"),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, **{"loss": loss, "metrics": ["accuracy"], **compile_arguments})
    return model
