"""Optimizers for `model.compile`."""

from kerasopt.optimizers._ada_belief import AdaBelief as AdaBelief
from kerasopt.optimizers._ada_hessian import AdaHessian as AdaHessian
from kerasopt.optimizers._adam import Adam as Adam
from kerasopt.optimizers._adam import AdamW as AdamW
from kerasopt.optimizers._adan import Adan as Adan
from kerasopt.optimizers._delta_bar_delta import DeltaBarDelta as DeltaBarDelta
from kerasopt.optimizers._gradient_clipping import GradientClipping as GradientClipping
from kerasopt.optimizers._lars import LARS as LARS
from kerasopt.optimizers._layerwise_learning_rate import (
    LayerwiseLearningRate as LayerwiseLearningRate,
)
from kerasopt.optimizers._lbfgs import LBFGS as LBFGS
from kerasopt.optimizers._lookahead import Lookahead as Lookahead
from kerasopt.optimizers._momentum import Momentum as Momentum
from kerasopt.optimizers._newton import Newton as Newton
from kerasopt.optimizers._newton_cg import NewtonCG as NewtonCG
from kerasopt.optimizers._objective_optimizer import ObjectiveOptimizer as ObjectiveOptimizer
from kerasopt.optimizers._prodigy import Prodigy as Prodigy
from kerasopt.optimizers._rectified_adam import RectifiedAdam as RectifiedAdam
from kerasopt.optimizers._rmsprop import RMSprop as RMSprop
from kerasopt.optimizers._rprop import Rprop as Rprop
from kerasopt.optimizers._sam import SAM as SAM
from kerasopt.optimizers._schedule_free import ScheduleFree as ScheduleFree
from kerasopt.optimizers._sgd import SGD as SGD
from kerasopt.optimizers._shampoo import Shampoo as Shampoo
from kerasopt.optimizers._sophia import Sophia as Sophia
from kerasopt.optimizers._stochastic_diagonal_lm import StochasticDiagonalLM as StochasticDiagonalLM
