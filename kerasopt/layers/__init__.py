"""Layers for `keras.Sequential`, functional and subclassed models, and for `tf.data`."""

from kerasopt.layers._column import Column as Column
from kerasopt.layers._cross_connection import CrossConnection as CrossConnection
from kerasopt.layers._dropout import Dropout as Dropout
from kerasopt.layers._gaussian_dropout import GaussianDropout as GaussianDropout
from kerasopt.layers._gaussian_noise import GaussianNoise as GaussianNoise
from kerasopt.layers._random_affine import RandomAffine as RandomAffine
from kerasopt.layers._random_gaussian_noise import RandomGaussianNoise as RandomGaussianNoise
from kerasopt.layers._spatial_dropout_2d import SpatialDropout2D as SpatialDropout2D
from kerasopt.layers._split_columns import split_columns as split_columns
from kerasopt.layers._standardize import Standardize as Standardize
from kerasopt.layers._whitening import Whitening as Whitening
