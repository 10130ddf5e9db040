"""What a worker and a parameter server do: they serve the coordinator until it has gone."""

import os
import time

import tensorflow as tf

from kerasopt.strategies._cluster import Tasks, answers, listening, wait_for

GONE = 3.0  # seconds without an answer
THREADS = 4  # a step waits for messages in some of them: with one, on one core, without an end


def serve(tasks: Tasks, timeout: float) -> None:
    """Serve the coordinator; return when it has gone. TensorFlow's `join` would never return."""
    with listening(tasks.addresses[tasks.name], tasks.name):
        pass  # so the port is free
    server = tf.distribute.Server(
        tasks.resolver.cluster_spec(),
        job_name=tasks.kind,
        task_index=tasks.index,
        protocol=tasks.resolver.rpc_layer or "grpc",
        config=_threads(),
    )
    coordinator = tasks.addresses["chief"]
    wait_for({"chief": coordinator}, timeout, tasks.name)
    seen = time.monotonic()
    while time.monotonic() - seen < GONE:
        time.sleep(0.3)
        if answers(coordinator):
            seen = time.monotonic()
    del server  # it has served till here


def _threads() -> tf.compat.v1.ConfigProto:
    """Return the numbers of threads, which a server does not take from `tf.config`."""
    threading = tf.config.threading
    inter = threading.get_inter_op_parallelism_threads() or os.cpu_count() or 1
    return tf.compat.v1.ConfigProto(
        inter_op_parallelism_threads=max(inter, THREADS),
        intra_op_parallelism_threads=threading.get_intra_op_parallelism_threads(),
    )
