"""What a worker and a parameter server do: they serve the coordinator until it has gone."""

import time

import tensorflow as tf

from kerasopt.strategies._cluster import Tasks, answers, listening, wait_for

GONE = 3.0  # seconds without an answer


def serve(tasks: Tasks, timeout: float) -> None:
    """Serve the coordinator; return when it has gone. TensorFlow's `join` would never return."""
    with listening(tasks.addresses[tasks.name], tasks.name):
        pass  # so the port is free
    server = tf.distribute.Server(
        tasks.resolver.cluster_spec(),
        job_name=tasks.kind,
        task_index=tasks.index,
        protocol=tasks.resolver.rpc_layer or "grpc",
    )
    coordinator = tasks.addresses["chief"]
    wait_for({"chief": coordinator}, timeout, tasks.name)
    seen = time.monotonic()
    while time.monotonic() - seen < GONE:
        time.sleep(0.3)
        if answers(coordinator):
            seen = time.monotonic()
    del server  # it has served till here
