"""Data for `fit`; and datasets for TensorFlow Datasets, which importing this module registers."""

from kerasopt.data._digits import Digits as Digits
from kerasopt.data._error_weighted_sampler import ErrorWeightedSampler as ErrorWeightedSampler
from kerasopt.data._interleave import interleave_classes as interleave_classes
