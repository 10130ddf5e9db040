"""Derivatives of functions of a list of tensors, on any backend."""

import keras

if keras.backend.backend() == "tensorflow":
    from kerasopt import _tensorflow_autodiff as _backend
else:
    from kerasopt import _jax_autodiff as _backend  # type: ignore[no-redef]

each = _backend.each
gauss_newton = _backend.gauss_newton
hessian = _backend.hessian
value_and_gradient = _backend.value_and_gradient
