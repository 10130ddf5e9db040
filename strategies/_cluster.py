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
ASYNCHRONOUS = (
    '{"cluster": {"chief": ["host1:2222"], "worker": ["host2:2222", "host3:2222"], "ps": '
    '["host4:2222"]}, "task": {"type": "worker", "index": 0}}'
)


@dataclass(frozen=True)
class Cluster:
    """The workers of a cluster, the chief first, and which of them this process is."""

    addresses: list[str]
    index: int
    resolver: Any


@dataclass(frozen=True)
class Tasks:
    """The addresses of a cluster with parameter servers by name, and which this process is.

    The names are those of TensorFlow: `"chief"`, the coordinator, `"worker 0"`, `"ps 0"` ….
    """

    addresses: dict[str, str]
    kind: str
    index: int
    resolver: Any

    @property
    def name(self) -> str:
        """The name of this process."""
        return name_of(self.kind, self.index)

    def of_kind(self, kind: str) -> int:
        """Return the number of tasks of a kind."""
        return sum(name.split()[0] == kind for name in self.addresses)


def name_of(kind: str, index: int) -> str:
    """Return the name of a task; there is one chief."""
    return kind if kind == "chief" else f"{kind} {index}"


def read_tasks(cluster: Any) -> Tasks:
    """Read `cluster`, or the variable TF_CONFIG, of parameter servers; raise if malformed."""
    resolver = _read_resolver(cluster, ASYNCHRONOUS, ("chief", "worker", "ps"))
    jobs = resolver.cluster_spec().as_dict()
    missing = [kind for kind in ("chief", "worker", "ps") if not jobs.get(kind)]
    if missing or len(jobs["chief"]) > 1 or resolver.task_type is None or resolver.task_id is None:
        raise ValueError(
            "The cluster must have one 'chief', the coordinator, which runs `fit`, at least one "
            "'worker' and one 'ps', a parameter server, and must say which of them this process "
            f"is. Received: {jobs}, task {resolver.task_type} {resolver.task_id}. Run the script "
            "by `kerasopt launch --parameter-servers 1`, or set TF_CONFIG for each process, such "
            f"as {ASYNCHRONOUS}"
        )
    addresses = {
        name_of(kind, i): each
        for kind in ("chief", "worker", "ps")
        for i, each in enumerate(jobs[kind])
    }
    return Tasks(addresses, resolver.task_type, resolver.task_id, resolver)


def read_cluster(cluster: Any) -> Cluster:
    """Read `cluster`, or the variable TF_CONFIG; raise if it is malformed."""
    resolver = _read_resolver(cluster, EXAMPLE, ("chief", "worker"))
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


def _read_resolver(cluster: Any, example: str, kinds: tuple[str, ...]) -> Any:
    """Return the resolver of a cluster, of tasks of these kinds."""
    resolvers = tf.distribute.cluster_resolver
    if isinstance(cluster, resolvers.ClusterResolver):
        resolver = cluster
    elif cluster is None:
        _check_config(*_read_environment(example), example, kinds)
        resolver = resolvers.TFConfigClusterResolver()
    elif isinstance(cluster, dict):
        _check_config(cluster, f"Received: cluster={cluster!r}", example, kinds)
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
    return resolver


def _read_environment(example: str) -> tuple[Any, str]:
    text = os.environ.get("TF_CONFIG", "{}")
    try:
        return json.loads(text), f"Received: TF_CONFIG={text}"
    except json.JSONDecodeError as error:
        raise ValueError(
            f"TF_CONFIG must be JSON such as {example} ({error}). Received: TF_CONFIG={text}"
        ) from None


def _check_config(config: Any, received: str, example: str, kinds: tuple[str, ...]) -> None:
    """Raise unless `config` has the form of TF_CONFIG, or is empty."""
    if config == {}:
        return
    try:
        jobs, task = config["cluster"], config["task"]
        kind, index = task["type"], check_count("index", task["index"], least=0)
        if unknown := set(jobs) - {*kinds}:
            raise ValueError(f"it has tasks of the kind {sorted(unknown)}")
        addresses = [address for job in jobs.values() for address in job]
        if len(set(addresses)) < len(addresses):
            raise ValueError("an address is there twice")
        for address in addresses:
            _split(address)
        jobs[kind][index]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"The cluster must have the form {example}, with {' and '.join(map(repr, kinds))} "
            f"only. It fails by {error!r}. {received}"
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
    names = [f"worker {i}" for i in range(len(cluster.addresses))]
    others = dict(zip(names, cluster.addresses, strict=True))
    me = names[cluster.index]
    with listening(others.pop(me), me):
        wait_for(others, timeout, me)


def wait_for(missing: dict[str, str], timeout: float, me: str) -> None:
    """Wait until the tasks of these names and addresses answer; raise what names others."""
    deadline = time.monotonic() + timeout
    while missing:
        missing = {name: each for name, each in missing.items() if not answers(each)}
        if missing and time.monotonic() > deadline:
            absent = ", ".join(f"{name} at {each}" for name, each in missing.items())
            raise TimeoutError(
                f"All processes must be there within `timeout`={timeout:g} seconds. "
                f"{me.capitalize()} has waited in vain for: {absent}. Start them, see that their "
                "addresses can be reached from here, or set `timeout`."
            )
        time.sleep(0.05 if missing else 0)


def answers(address: str) -> bool:
    """Return whether somebody listens at an address."""
    with contextlib.suppress(OSError), socket.create_connection(_split(address), timeout=1):
        return True
    return False


@contextlib.contextmanager
def listening(address: str, me: str) -> Iterator[None]:
    """Accept connections at the port of this process, which TensorFlow takes over afterwards."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        listener = socket.create_server(
            ("", _split(address)[1]), family=family, dualstack_ipv6=both
        )
    except OSError as error:
        raise OSError(
            f"The port of each process must be free. Received: {address} for {me}: {error}. Choose "
            "another port, or end the process that has it."
        ) from None
    with listener:
        yield
