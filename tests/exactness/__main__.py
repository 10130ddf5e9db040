"""Print the table."""

import sys

import tensorflow as tf

from tests.exactness.compare import differences, train

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)

from tests.exactness.rows import ROWS  # noqa: E402

COLUMNS = ("loss", "weights", "history", "evaluate", "predict")
print("| row | R |", " | ".join(COLUMNS), "|")
print("|---|---|" + "---|" * len(COLUMNS))
for row in ROWS:
    if len(sys.argv) > 1 and row.name not in sys.argv[1:]:
        continue
    alone = train(row)
    for replicas in (2, 3, 4):
        largest = differences(alone, row, replicas)
        cells = (f"{largest[name]:.1e}" for name in COLUMNS)
        print(f"| {row.name} | {replicas} |", " | ".join(cells), "|", flush=True)
