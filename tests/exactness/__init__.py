"""The table of exactness: a model trained on one device and on R replicas, compared.

`python -m tests.exactness` prints it for R = 2, 3 and 4, in float32.
"""
