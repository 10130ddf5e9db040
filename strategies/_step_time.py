"""How long a training step takes in each form of parallelism, and what it moves and holds.

A step takes the time to compute its share of the work, stretched by waiting for the slowest device,
and then the time to exchange; frameworks that overlap the two are faster by up to half. With b
samples, P bytes of gradients, A bytes that cross between columns for a sample:

    data                2 (n-1)/n P                in 2 (n-1) messages: a ring
    columns             2 (c-1)/c A b              in 2 (c-1) messages for each crossing
    hybrid, r × c       2 (r-1)/r P/c + 2 (c-1)/c A b/r
    parameter server    2 P for each worker, n P each way at s servers

bytes are received by each device. All-reduce is as in Patarasuk and Yuan, Bandwidth optimal
all-reduce algorithms for clusters of workstations, 2009. Columns gather the maps of all others,
once each way, as in Dean et al., Large scale distributed deep networks, 2012; hybrid parallelism is
that of Yadan et al., Multi-GPU training of ConvNets, 2014.
"""

from typing import NamedTuple

from kerasopt.strategies._costs import Costs
from kerasopt.strategies._device import Device
from kerasopt.strategies._link import Link
from kerasopt.strategies._stragglers import straggler_factor

BACK_AND_FORTH = 2


class Prediction(NamedTuple):
    """What one way to train on so many devices takes.

    Attributes:
        form: `"one device"`, `"data"`, `"columns"`, `"hybrid"` or `"parameter server"`.
        devices: Number of devices, or of workers.
        grid: Replicas and columns; their product is `devices`.
        step_time: Seconds in which the batch is trained on.
        communication_share: Share of the step in which a device exchanges or waits for a server.
        bytes_per_step: Bytes that each device receives in a step.
        memory: Bytes that each device holds: weights, gradients, slots, activations.
    """

    form: str
    devices: int
    grid: tuple[int, int]
    step_time: float
    communication_share: float
    bytes_per_step: float
    memory: float


class Machine(NamedTuple):
    """Devices of one kind, and what connects them.

    Attributes:
        device: One of them.
        link: What connects them.
        variation: Standard deviation of the logarithm of their times for the same work.
    """

    device: Device
    link: Link
    variation: float = 0.0


def grid(costs: Costs, batch: int, machine: Machine, replicas: int, columns: int) -> Prediction:
    """Predict training on replicas of columns; one of either is no replica, or no column."""
    devices = replicas * columns
    compute = _compute(costs, batch, machine, devices)
    all_reduced = BACK_AND_FORTH * (replicas - 1) / replicas * costs.gradients / columns
    messages = float(BACK_AND_FORTH * (replicas - 1))
    crossing = 0.0
    for each in costs.crossings if columns > 1 else ():
        size, count = each.among(columns)
        crossing += BACK_AND_FORTH * size * batch / replicas
        messages += BACK_AND_FORTH * count
    received = all_reduced + crossing
    exchange = machine.link.seconds(devices, received, messages)
    many = {(True, False): "data", (False, True): "columns", (True, True): "hybrid"}
    return Prediction(
        form=many.get((replicas > 1, columns > 1), "one device"),
        devices=devices,
        grid=(replicas, columns),
        step_time=compute + exchange,
        communication_share=exchange / (compute + exchange),
        bytes_per_step=received,
        memory=costs.state / columns + costs.activations * batch / devices,
    )


def parameter_server(
    costs: Costs, batch: int, machine: Machine, workers: int, servers: int
) -> Prediction:
    """Predict workers that fetch weights and push gradients without waiting for each other.

    Each trains on its share of the batch. It goes on as fast as one worker alone, or as fast as the
    servers' links let all of them: the bounds of Denning and Buzen, The operational analysis of
    queueing network models, 1978. Nobody waits for the slowest, but gradients are of old weights.
    """
    device, link = machine.device, machine.link
    compute = device.seconds(costs.work * batch / workers)
    weights = costs.gradients
    if link.shared:  # the server is the host: what is fetched and pushed goes over the bus once
        alone, served = link.seconds(1, weights, 2), link.seconds(workers, weights, 0)
    else:
        alone = link.seconds(1, BACK_AND_FORTH * weights, 2)
        served = link.seconds(workers, workers * weights / servers, 0)
    step = max(compute + alone, served)
    return Prediction(
        form="parameter server",
        devices=workers,
        grid=(workers, 1),
        step_time=step,
        communication_share=1 - compute / step,
        bytes_per_step=BACK_AND_FORTH * weights,
        memory=costs.state + costs.activations * batch / workers,
    )


def _compute(costs: Costs, batch: int, machine: Machine, devices: int) -> float:
    stretch = straggler_factor(devices, machine.variation)
    return machine.device.seconds(costs.work * batch / devices, stretch)
