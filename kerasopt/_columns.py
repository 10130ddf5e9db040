"""Where the columns of a model are: on devices that a strategy of TensorFlow's says, or on one."""

import keras

if keras.backend.backend() == "tensorflow":
    from kerasopt import _tensorflow_columns as _backend
else:
    from kerasopt import _one_column as _backend  # type: ignore[no-redef]

bring = _backend.bring
building = _backend.building
device_of = _backend.device_of
misplaced = _backend.misplaced
running = _backend.running
