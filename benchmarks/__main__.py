"""Run all benchmarks; print one Markdown table."""

from benchmarks import callbacks, layers, optimizers

print("| task | peer | ours, ms | peer, ms | ours / peer |")
print("|---|---|---|---|---|")
for module in (optimizers, layers, callbacks):
    for row in module.rows():
        print(
            f"| {row.task} | {row.peer} | {row.ours_ms:.1f} | {row.peer_ms:.1f} "
            f"| {row.ratio:.2f} |",
            flush=True,
        )
