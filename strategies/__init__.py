"""Strategies for training on several devices, for `with strategy.scope():`."""

from kerasopt.strategies._data_parallel import DataParallel as DataParallel
from kerasopt.strategies._multi_worker import MultiWorker as MultiWorker
from kerasopt.strategies._multi_worker import WorkerLostError as WorkerLostError
