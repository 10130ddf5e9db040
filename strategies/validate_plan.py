"""The planner against published tables: python -m kerasopt.strategies.validate_plan.

Two constants are fitted for each table; all else comes from the models, the presets and the
formulas of `kerasopt.strategies.plan`. Assumed are PCIe 2 through the host, 10 Gb/s Ethernet and 20
cores of 2012 in each machine.
"""

import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from kerasopt.strategies._costs import Costs, Crossing, model_costs
from kerasopt.strategies._device import DEVICES, Device
from kerasopt.strategies._link import LINKS
from kerasopt.strategies._step_time import Machine, grid

# Yadan et al.: 100 epochs of ImageNet's 1,281,167 images in batches of 256, on GPUs of 2013.
YADAN = {(1, 1): 10.5, (1, 2): 6.6, (2, 1): 7.0, (4, 1): 7.2, (2, 2): 4.8}  # grid: days
BATCH, DAY = 256, 86400.0
STEPS = 100 * 1_281_167 / BATCH

# Dean et al.: times faster than one machine. The paper says that 8 are fastest for the speech
# model, and "more than 12" of the images, where more machines go on to be faster.
SPEECH, IMAGES = {8: 2.2}, {81: 12.0}
SHOWN = (1, 2, 4, 8, 16, 32, 64, 81, 128)
CORES = 20  # at most, of each machine
MACHINE = Device(CORES * 2.6e9 * 8)  # 2.6 GHz, and 8 operations a cycle with SSE
EXAMPLES = 100  # in a mini-batch; the paper does not say, and the ratios hardly depend on it


class Row(NamedTuple):
    """A published number, if there is one, and ours."""

    name: str
    published: float | None
    ours: float

    @property
    def error(self) -> float:
        """Relative difference, 0 where nothing is published."""
        return 0.0 if self.published is None else self.ours / self.published - 1


def alexnet() -> keras.Model:
    """Return the network of Krizhevsky et al., 2012, as it was split over two GPUs."""
    maps = [(96, 11, 4, 1), (256, 5, 1, 2), (384, 3, 1, 1), (384, 3, 1, 2), (256, 3, 1, 2)]
    network: list[Any] = [keras.Input((227, 227, 3))]
    for i, (filters, size, strides, groups) in enumerate(maps):
        padding = "same" if i else "valid"
        convolution = {"strides": strides, "padding": padding, "groups": groups}
        network.append(layers.Conv2D(filters, size, activation="relu", **convolution, **ZEROS))
        if i in (0, 1, 4):
            network.append(layers.MaxPooling2D(3, 2))
    network.append(layers.Flatten())
    network += [layers.Dense(n, activation="relu", **ZEROS) for n in (4096, 4096)]
    return keras.Sequential([*network, layers.Dense(1000, **ZEROS)])


ZEROS = {"kernel_initializer": "zeros"}  # no time is spent on drawing weights


def yadan() -> tuple[list[Row], str]:
    """Return the table of Yadan et al., with ours, and the constants that were fitted.

    Time is linear in 1 / efficiency and in the overhead: least squares of the relative errors.
    """
    costs, titan, link = model_costs(alexnet()), DEVICES["titan"], LINKS["pcie2"]

    def days(replicas: int, columns: int, device: Device) -> float:
        machine = Machine(device, link)
        return STEPS / DAY * grid(costs, BATCH, machine, replicas, columns).step_time

    at_best = replace(titan, efficiency=1.0)
    published = np.array(list(YADAN.values()))
    exchange = np.array([days(*g, at_best) for g in YADAN])
    work = np.array([costs.work * BATCH / titan.throughput / math.prod(g) for g in YADAN])
    exchange -= STEPS / DAY * work
    slopes = STEPS / DAY * np.stack([work, np.ones(len(work))], axis=1)
    weighed = slopes / published[:, None], (published - exchange) / published
    (inverse, overhead), *_ = np.linalg.lstsq(*weighed)
    fitted = replace(titan, efficiency=1 / inverse, overhead=overhead)
    rows = [
        Row(
            f"{math.prod(g)} GPU{'s' * (math.prod(g) > 1)}, {_form(*g)}",
            days_published,
            days(*g, fitted),
        )
        for g, days_published in YADAN.items()
    ]
    return rows, f"efficiency {1 / inverse:.3f}, overhead {1000 * overhead:.0f} ms a step"


def _form(replicas: int, columns: int) -> str:
    return {(True, True): "hybrid", (True, False): "data", (False, True): "columns"}.get(
        (replicas > 1, columns > 1), "alone"
    )


def speech() -> Costs:
    """Return the costs of the speech model: 440 inputs, four layers of 2,560, 8,192 outputs."""
    hidden = [layers.Dense(2560, activation="sigmoid", **ZEROS) for _ in range(4)]
    network = [keras.Input((440,)), *hidden, layers.Dense(8192, **ZEROS)]
    return model_costs(keras.Sequential(network))


class Halo(NamedTuple):
    """What tiles of maps exchange where filters reach over their borders."""

    side: int
    reach: int
    maps: int

    def among(self, machines: int) -> tuple[float, float]:
        """Return the bytes that a machine receives of its eight neighbours."""
        tile = self.side / math.sqrt(machines)
        received = 4.0 * self.maps * ((tile + self.reach) ** 2 - tile**2)
        return min(received, 4.0 * self.maps * self.side**2 * (1 - 1 / machines)), 8.0


def images(maps: int = 36, stages: int = 3, classes: int = 21_000) -> Costs:
    """Return the costs of the image model: 100 × 100 pixels, filters of 10 × 10 without sharing.

    Each stage filters, pools and normalises over 5 × 5; the sizes that the paper leaves open, those
    of the windows and that the last pooling has a stride of 3, give it 1.7 G parameters.
    """
    side, below, weights = 100, 3, 0.0
    crossings: list[Any] = []
    for stage in range(stages):
        if stage:
            crossings.append(Halo(side, 9, maps))
        side -= 9
        weights += side**2 * maps * 100 * below
        below = maps
        for _ in range(2):  # pooling, normalising
            crossings.append(Halo(side, 4, maps))
        side = (side - 5) // (3 if stage == stages - 1 else 1) + 1
    outputs = maps * side**2
    crossings.append(Crossing(4.0 * outputs))
    weights += outputs * classes
    return Costs(6 * weights, 4 * weights, 8 * weights, 0.0, tuple(crossings))


def dean() -> tuple[dict[str, list[Row]], str]:
    """Return the speed-ups of Dean et al., with ours, and the constants that were fitted."""
    models = {"speech": (speech(), SPEECH), "images": (images(), IMAGES)}

    def speedup(costs: Costs, machines: int, latency: float, variation: float) -> float:
        machine = Machine(MACHINE, replace(LINKS["ethernet10"], latency=latency), variation)
        one, many = (grid(costs, EXAMPLES, machine, 1, n).step_time for n in (1, machines))
        return one / many

    def distance(latency: float, variation: float) -> float:
        """Return that of the two numbers, and of the top from 8: as much less at 6 as at 11."""
        errors = [
            math.log(speedup(costs, n, latency, variation) / value)
            for costs, published in models.values()
            for n, value in published.items()
        ]
        six, eleven = (speedup(models["speech"][0], n, latency, variation) for n in (6, 11))
        return sum(error**2 for error in [*errors, math.log(six / eleven)])

    latency, variation = _fit(distance, (1e-4, 1e-2), (0.0, 1.5))
    rows = {
        name: [
            Row(f"{n} machines", published.get(n), speedup(costs, n, latency, variation))
            for n in SHOWN
        ]
        for name, (costs, published) in models.items()
    }
    return rows, f"latency {1000 * latency:.2f} ms a message, variation {variation:.2f}"


def _fit(
    distance: Callable[[float, float], float], *ranges: tuple[float, float]
) -> tuple[float, float]:
    """Return the point of least distance, by grids that narrow."""
    for _ in range(6):
        axes = [np.linspace(low, high, 9) for low, high in ranges]
        best = min(itertools.product(*axes), key=lambda point: distance(*point))
        steps = [(high - low) / 8 for low, high in ranges]
        ranges = tuple(
            (max(low, x - step), min(high, x + step))
            for x, step, (low, high) in zip(best, steps, ranges, strict=True)
        )
    return best


def table(rows: list[Row], head: str) -> str:
    """Return rows as Markdown."""
    lines = [f"| {head} | published | planner | error |", "|---|---:|---:|---:|"]
    for row in rows:
        known = row.published is not None
        numbers = f"{row.published} | {row.ours:.2f} | {100 * row.error:+.0f} %"
        lines.append(f"| {row.name} | {numbers if known else f'| {row.ours:.2f} |'} |")
    return "\n".join(lines)


def main() -> int:
    """Print the tables; return 0 if all published numbers are met within the bounds, else 1."""
    days, constants = yadan()
    speedups, others = dean()
    sys.stdout.write(f"{table(days, 'days for 100 epochs, AlexNet (Yadan et al., 2014)')}\n\n")
    sys.stdout.write(f"fitted: {constants}; within 12 %\n\n")
    for name, rows in speedups.items():
        sys.stdout.write(f"{table(rows, f'speed-up, {name} (Dean et al., 2012)')}\n\n")
    sys.stdout.write(f"fitted: {others}; within 25 %\n")
    bounds = [
        *((row, 0.12) for row in days),
        *((row, 0.25) for r in speedups.values() for row in r),
    ]
    return int(any(abs(row.error) > bound for row, bound in bounds))


if __name__ == "__main__":
    sys.exit(main())
