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
for row in ROWS:
    if row.name in names or not names:
        results = train(row, strategy)
        np.savez(Path(folder, f"{ROWS.index(row)}-{strategy.cluster.index}.npz"), **results)
