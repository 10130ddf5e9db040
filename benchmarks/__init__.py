"""Speed against the peers: `python -m benchmarks` prints the table of the README."""

import contextlib

with contextlib.suppress(ImportError):
    import triton  # noqa: F401  # PyTorch loads it late; then its LLVM clashes with that of XLA
