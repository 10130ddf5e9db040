"""Strategies for training on several devices, for `with strategy.scope():`, and what they gain."""

from kerasopt.strategies._calibrate import calibrate as calibrate
from kerasopt.strategies._data_parallel import DataParallel as DataParallel
from kerasopt.strategies._device import Device as Device
from kerasopt.strategies._hybrid_parallel import HybridParallel as HybridParallel
from kerasopt.strategies._link import Link as Link
from kerasopt.strategies._model_parallel_columns import ModelParallelColumns as ModelParallelColumns
from kerasopt.strategies._multi_worker import MultiWorker as MultiWorker
from kerasopt.strategies._multi_worker import WorkerLostError as WorkerLostError
from kerasopt.strategies._parameter_server import ParameterServer as ParameterServer
from kerasopt.strategies._plan import plan as plan
from kerasopt.strategies._stragglers import simulated_straggler_factor as simulated_straggler_factor
from kerasopt.strategies._stragglers import straggler_factor as straggler_factor
