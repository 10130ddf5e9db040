"""The mask that a layer leaves on its output, which slicing and most functions lose."""

from typing import Any

# Not public, yet the only way to it.
from keras.src.backend.common.masking import get_keras_mask as get_keras_mask
from keras.src.backend.common.masking import set_keras_mask as set_keras_mask


def with_mask(result: Any, source: Any, move: Any) -> Any:
    """Put the mask of `source`, moved likewise, on `result`."""
    mask = get_keras_mask(source)
    if mask is not None:
        set_keras_mask(result, move(mask))
    return result
