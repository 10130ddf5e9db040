"""Derivatives of functions of a list of tensors, on any backend."""

import keras

if keras.backend.backend() == "tensorflow":
    from kerasopt import _tensorflow_autodiff as _backend
else:
    from kerasopt import _jax_autodiff as _backend  # type: ignore[no-redef]

gauss_newton_product = _backend.gauss_newton_product
hessian_product = _backend.hessian_product
value_and_gradient = _backend.value_and_gradient
