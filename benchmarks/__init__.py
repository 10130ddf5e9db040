"""Speed against the peers: `python -m benchmarks` prints the table of the README."""
