"""Datasets for TensorFlow Datasets; importing this module registers them."""

from kerasopt.data._digits import Digits as Digits
