"""Layers for `keras.Sequential`, functional and subclassed models, and for `tf.data`."""

from kerasopt.layers._random_affine import RandomAffine as RandomAffine
from kerasopt.layers._random_gaussian_noise import RandomGaussianNoise as RandomGaussianNoise
from kerasopt.layers._standardize import Standardize as Standardize
from kerasopt.layers._whitening import Whitening as Whitening
