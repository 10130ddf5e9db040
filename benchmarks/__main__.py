"""Run all benchmarks, each in a process, or those named in this one; print one Markdown table."""

import subprocess
import sys
from importlib import import_module

HEAD = "| task | peer | ours, ms | peer, ms | ours / peer |\n|---|---|---|---|---|"
NAMES = (
    "optimizers",
    "second_order",
    "layers",
    "augmentation",
    "adapt",
    "data",
    "callbacks",
    "curvature",
    "strategies",
    "workers",
)

if names := sys.argv[1:]:
    for name in names:
        for row in import_module(f"benchmarks.{name}").rows():
            times = f"{row.ours_ms:.1f} | {row.peer_ms:.1f} | {row.ratio:.2f}"
            print(f"| {row.task} | {row.peer} | {times} |", flush=True)
else:
    print(HEAD, flush=True)
    for name in NAMES:
        subprocess.run([sys.executable, "-m", "benchmarks", name], check=True)
