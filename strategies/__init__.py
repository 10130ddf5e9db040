"""Strategies for training on several devices, for `with strategy.scope():`."""

from kerasopt.strategies._data_parallel import DataParallel as DataParallel
