"""Products of the Hessian and of the Gauss-Newton matrix with a vector."""

from typing import Any

from kerasopt.curvature._curvature import curvature_of


def hvp(model: Any, v: Any, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
    """Return H v, the product of the Hessian of the loss with a vector.

    It says how the gradient changes along v, and costs about as much as two gradients, whatever the
    number of weights.

        H v = ∂/∂α ∇J(w + α v) at α = 0

    Args:
        model: A Keras model; or a `Curvature`, which has the data and options already.
        v: The vector: a list of arrays of the shapes of the weights, or one vector of n numbers.
        x: Data, as `Curvature` takes them.
        y: Targets, of arrays. Defaults to None.
        kwargs: Further arguments of `Curvature`, such as `loss` and `layer`.

    Returns:
        The product as NumPy arrays, in the form of `v`.

    Raises:
        TypeError: As of `Curvature`.
        ValueError: As of `Curvature`; `v` is of another shape.

    Reference:
        Pearlmutter, Fast exact multiplication by the Hessian, 1994.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.zeros((2, 1))
        >>> kerasopt.curvature.hvp(model, np.array([1.0, 1.0]), x, y, loss="mse").round(3).tolist()
        [1.0, 4.0]
    """
    return _product("hessian", model, v, x, y, kwargs)


def ggnvp(model: Any, v: Any, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
    """Return G v, the product of the generalised Gauss-Newton matrix with a vector.

    G is the part of the Hessian that does not come from the curvature of the model: it is positive
    semi-definite where the loss is convex in the outputs, and equal to H where the model is linear.

        G = 1/N Σ_i J_iᵀ ∇²l_i J_i + ∇²R              J_i = ∂z_i/∂w of the outputs z_i

    Args:
        model: A Keras model; or a `Curvature`, which has the data and options already.
        v: The vector: a list of arrays of the shapes of the weights, or one vector of n numbers.
        x: Data, as `Curvature` takes them.
        y: Targets, of arrays. Defaults to None.
        kwargs: Further arguments of `Curvature`, such as `loss` and `layer`.

    Returns:
        The product as NumPy arrays, in the form of `v`.

    Raises:
        TypeError: As of `Curvature`.
        ValueError: As of `Curvature`; `v` is of another shape.

    Reference:
        Schraudolph, Fast curvature matrix-vector products for second-order gradient descent, 2002.

    Example:
        >>> import keras, kerasopt, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.zeros((2, 1))
        >>> kerasopt.curvature.ggnvp(model, np.array([1.0, 1.0]), x, y, loss="mse").tolist()
        [1.0, 4.0]
    """
    return _product("gauss_newton", model, v, x, y, kwargs)


def _product(kind: str, model: Any, v: Any, x: Any, y: Any, options: dict[str, Any]) -> Any:
    curvature = curvature_of(model, x, y, **options)
    product = curvature.products(curvature.join(v)[None], kind)[0]
    return curvature.split(product) if isinstance(v, list | tuple) else product
