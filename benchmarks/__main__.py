"""Run all benchmarks, or those named; print one Markdown table."""

import sys

import tensorflow as tf

from benchmarks import callbacks, layers, optimizers, strategies, workers

if not sys.argv[1:] or "strategies" in sys.argv[1:]:  # two devices slow `fit` down
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

print("| task | peer | ours, ms | peer, ms | ours / peer |")
print("|---|---|---|---|---|")
for module in (optimizers, layers, callbacks, strategies, workers):
    if sys.argv[1:] and module.__name__.removeprefix("benchmarks.") not in sys.argv[1:]:
        continue
    for row in module.rows():
        print(
            f"| {row.task} | {row.peer} | {row.ours_ms:.1f} | {row.peer_ms:.1f} "
            f"| {row.ratio:.2f} |",
            flush=True,
        )
