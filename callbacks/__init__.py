"""Callbacks for `model.fit`."""

from kerasopt.callbacks._adaptive_learning_rate import (
    AdaptiveLearningRate as AdaptiveLearningRate,
)
from kerasopt.callbacks._backup_and_restore import BackupAndRestore as BackupAndRestore
from kerasopt.callbacks._compare import compare as compare
from kerasopt.callbacks._compare import plot_history as plot_history
from kerasopt.callbacks._curvature_monitor import CurvatureMonitor as CurvatureMonitor
from kerasopt.callbacks._early_stopping import EarlyStopping as EarlyStopping
from kerasopt.callbacks._evaluate_every import EvaluateEvery as EvaluateEvery
from kerasopt.callbacks._gradient_monitor import GradientMonitor as GradientMonitor
from kerasopt.callbacks._growing_batch_size import GrowingBatchSize as GrowingBatchSize
from kerasopt.callbacks._jacobian_monitor import JacobianMonitor as JacobianMonitor
from kerasopt.callbacks._learning_curve import LearningCurve as LearningCurve
from kerasopt.callbacks._learning_rate_finder import LearningRateFinder as LearningRateFinder
from kerasopt.callbacks._learning_rate_finder import find_learning_rate as find_learning_rate
from kerasopt.callbacks._resume import Resume as Resume
from kerasopt.callbacks._stop_on_gradient_norm import StopOnGradientNorm as StopOnGradientNorm
from kerasopt.callbacks._throughput_monitor import ThroughputMonitor as ThroughputMonitor
from kerasopt.callbacks._unfreeze import Unfreeze as Unfreeze
