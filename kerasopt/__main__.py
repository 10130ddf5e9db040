"""The command `kerasopt`, also `python -m kerasopt`."""

import sys

from kerasopt._launch import main

if __name__ == "__main__":
    sys.exit(main())
