"""Print the table, or the rows that are named."""

import sys
import tempfile
from pathlib import Path

import tensorflow as tf

from tests.exactness.compare import differences, train, train_by_workers, train_on
from tests.exactness.rows import ROWS

COLUMNS = ("loss", "weights", "history", "evaluate", "predict")

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)

named = [row for row in ROWS if row.name in sys.argv[1:] or not sys.argv[1:]]
print("| case | on |", " | ".join(COLUMNS), "|")
print("|---|---|" + "---|" * len(COLUMNS))
with tempfile.TemporaryDirectory() as folder:
    by_workers = train_by_workers(Path(folder), [row.name for row in named])
    for row in named:
        alone = train(row)
        runs = [(f"{count} devices", train_on(count, row)) for count in (2, 3, 4)]
        runs += [(f"worker {i} of 2", results) for i, results in enumerate(by_workers(row))]
        for where, together in runs:
            largest = differences(alone, together)
            print(f"| {row.name} | {where} |", end=" ")
            print(*(f"{largest[name]:.1e}" for name in COLUMNS), sep=" | ", end=" |\n", flush=True)
