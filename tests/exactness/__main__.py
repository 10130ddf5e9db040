"""Print the table, or the rows that are named."""

import sys

import tensorflow as tf

from tests.exactness.compare import differences, train
from tests.exactness.rows import ROWS

COLUMNS = ("loss", "weights", "history", "evaluate", "predict")

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)

print("| case | R |", " | ".join(COLUMNS), "|")
print("|---|---|" + "---|" * len(COLUMNS))
for row in ROWS:
    if sys.argv[1:] and row.name not in sys.argv[1:]:
        continue
    alone = train(row)
    for replicas in (2, 3, 4):
        largest = differences(alone, row, replicas)
        print(f"| {row.name} | {replicas} |", end=" ")
        print(*(f"{largest[name]:.1e}" for name in COLUMNS), sep=" | ", end=" |\n", flush=True)
