"""Trains rows of the table as one worker of a cluster: worker.py FOLDER FLOATX [ROW]..."""

import sys
from pathlib import Path

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

import kerasopt
from tests.exactness.compare import train
from tests.exactness.rows import ROWS

folder, floatx, *names = sys.argv[1:]
strategy = kerasopt.strategies.MultiWorker()
keras.config.set_floatx(floatx)
keras.config.set_dtype_policy(floatx)
for number, row in enumerate(ROWS):
    if row.name in names or not names:
        path = Path(folder, f"{number}-{strategy.cluster.index}.npz")
        np.savez(path, **train(row, strategy))
