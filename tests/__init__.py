"""The tests."""

import contextlib

with contextlib.suppress(ImportError):
    import triton  # noqa: F401  # PyTorch loads it late; then its LLVM clashes with that of XLA
