"""What the loss and the model are like around the weights, and what follows from it."""

from kerasopt.curvature._condition_number import condition_number as condition_number
from kerasopt.curvature._critical_point import classify_critical_point as classify_critical_point
from kerasopt.curvature._curvature import Curvature as Curvature
from kerasopt.curvature._diagonal import diagonal as diagonal
from kerasopt.curvature._eigenvalues import eigenvalues as eigenvalues
from kerasopt.curvature._hessian import hessian as hessian
from kerasopt.curvature._jacobian import jacobian_singular_values as jacobian_singular_values
from kerasopt.curvature._linear_operator import linear_operator as linear_operator
from kerasopt.curvature._loss_surface import loss_surface as loss_surface
from kerasopt.curvature._optimal_learning_rate import (
    optimal_learning_rate as optimal_learning_rate,
)
from kerasopt.curvature._products import ggnvp as ggnvp
from kerasopt.curvature._products import hvp as hvp
from kerasopt.curvature._spectral_density import spectral_density as spectral_density
from kerasopt.curvature._trace import trace as trace
