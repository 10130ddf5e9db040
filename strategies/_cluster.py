"""Who takes part in training on several machines, and how they find each other."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from kerasopt._validation import check_count

EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)


@dataclass(frozen=True)
class Cluster:
    """The workers of a cluster, the chief first, and which of them this process is."""

    addresses: list[str]
    index: int
    resolver: Any


def read_cluster(cluster: Any) -> Cluster:
    """Read `cluster`, or the variable TF_CONFIG; raise if it is malformed."""
    resolvers = tf.distribute.cluster_resolver
    if isinstance(cluster, resolvers.ClusterResolver):
        resolver = cluster
    elif cluster is None:
        _check_config(*_read_environment())
        resolver = resolvers.TFConfigClusterResolver()
    elif isinstance(cluster, dict):
        _check_config(cluster, f"Received: cluster={cluster!r}")
        gpus = len(tf.config.list_physical_devices("GPU"))
        resolver = resolvers.SimpleClusterResolver(
            tf.train.ClusterSpec(cluster["cluster"]),
            task_type=cluster["task"]["type"],
            task_id=cluster["task"]["index"],
            num_accelerators={"GPU": gpus},
            rpc_layer="grpc",
        )
    else:
        raise TypeError(
            "`cluster` must be None, to read TF_CONFIG, a dictionary of the same form, or a "
            f"`tf.distribute.cluster_resolver.ClusterResolver`. Received: cluster={cluster!r}"
        )
    jobs = resolver.cluster_spec().as_dict()
    if not jobs:
        return Cluster([], 0, resolver)
    if resolver.task_type is None or resolver.task_id is None:
        raise ValueError(
            "`cluster` must say which worker this process is: set `task_type` and `task_id` of the "
            f"resolver. Received: cluster={cluster!r}"
        )
    addresses = [*jobs.get("chief", []), *jobs.get("worker", [])]
    first = len(jobs.get("chief", [])) if resolver.task_type == "worker" else 0
    return Cluster(addresses, first + resolver.task_id, resolver)


def _read_environment() -> tuple[Any, str]:
    text = os.environ.get("TF_CONFIG", "{}")
    try:
        return json.loads(text), f"Received: TF_CONFIG={text}"
    except json.JSONDecodeError as error:
        raise ValueError(
            f"TF_CONFIG must be JSON such as {EXAMPLE} ({error}). Received: TF_CONFIG={text}"
        ) from None


def _check_config(config: Any, received: str) -> None:
    """Raise unless `config` has the form of TF_CONFIG; no cluster at all is one worker."""
    if config == {}:
        return
    try:
        jobs, task = config["cluster"], config["task"]
        kind, index = task["type"], check_count("index", task["index"], least=0)
        if unknown := set(jobs) - {"chief", "worker"}:
            raise ValueError(f"it has tasks of the kind {sorted(unknown)}")
        addresses = [address for job in jobs.values() for address in job]
        if len(set(addresses)) < len(addresses):
            raise ValueError("an address is there twice")
        for address in addresses:
            _split(address)
        jobs[kind][index]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"The cluster must have the form {EXAMPLE}, with 'chief' and 'worker' only. It fails "
            f"by {error!r}. {received}"
        ) from None


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is not host:port")
    return host.strip("[]"), int(port)


def meet(cluster: Cluster, timeout: float) -> None:
    """Wait until all workers are there; raise what names those that are not.

    TensorFlow itself waits without an end, and does not say for whom.
    """
    deadline = time.monotonic() + timeout
    missing = dict(enumerate(cluster.addresses))
    del missing[cluster.index]
    with _listening(cluster):
        while missing:
            missing = {i: each for i, each in missing.items() if not _answers(each)}
            if missing and time.monotonic() > deadline:
                absent = ", ".join(f"worker {i} at {each}" for i, each in missing.items())
                raise TimeoutError(
                    f"All {len(cluster.addresses)} workers must be there within "
                    f"`timeout`={timeout:g} seconds. Worker {cluster.index} has waited in vain "
                    f"for: {absent}. Start them, see that their addresses can be reached from "
                    "here, or set `timeout`."
                )
            time.sleep(0.05 if missing else 0)


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(_split(address), timeout=1):
        return True
    return False


@contextlib.contextmanager
def _listening(cluster: Cluster) -> Iterator[None]:
    """Accept connections at this worker's port, which TensorFlow takes over afterwards."""
    address = cluster.addresses[cluster.index]
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        listener = socket.create_server(
            ("", _split(address)[1]), family=family, dualstack_ipv6=both
        )
    except OSError as error:
        raise OSError(
            f"The port of each worker must be free. Received: {address} for worker "
            f"{cluster.index}: {error}. Choose another port, or end the process that has it."
        ) from None
    with listener:
        yield
