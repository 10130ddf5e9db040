"""Callbacks for `model.fit`."""

from kerasopt.callbacks._learning_curve import LearningCurve as LearningCurve
