"""Optimizers for `model.compile`."""

from kerasopt.optimizers._momentum import Momentum as Momentum
