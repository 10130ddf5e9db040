"""Predicts what each form of parallelism would take for a model, and says which to use."""

from os import PathLike
from typing import Any

import keras

from kerasopt._validation import check_count, check_number
from kerasopt.callbacks._curve_figure import check_picture
from kerasopt.strategies._costs import model_costs
from kerasopt.strategies._device import read_device
from kerasopt.strategies._link import read_link
from kerasopt.strategies._plan_figure import draw_plan
from kerasopt.strategies._step_time import Machine, Prediction, grid, parameter_server

FORMS = ("data", "columns", "hybrid", "parameter server")
CLOSE = 1.05  # predictions this near each other are taken as equal
HEAD = "| form | devices | step, ms | speed-up | communication | MB received | memory, GB |"


class Plan:
    """What `plan` has predicted; printed, it is a table and the recommendation.

    Attributes:
        batch_size: Samples in a step of all devices together.
        predictions: All of them, the one for a single device first: tuples of `form`, `devices`,
            `grid` (replicas, columns), `step_time` in seconds, `communication_share`,
            `bytes_per_step` that a device receives, and `memory` in bytes of a device.
        recommended: The one to use.
        reason: Why, in words.
    """

    def __init__(self, predictions: list[Prediction], batch_size: int, memory: float) -> None:
        self.predictions, self.batch_size = predictions, batch_size
        self._memory = memory
        self.recommended = self._choose()
        self.reason = self._explain()

    def best(self, form: str, devices: int | None = None) -> Prediction | None:
        """Return the fastest prediction of a form, or None if there is none.

        Past its number of devices the speed-up of this form falls.

        Args:
            form: `"data"`, `"columns"`, `"hybrid"` or `"parameter server"`.
            devices: A number of devices, or None for any. Defaults to None.
        """
        counts = {devices} if devices else {each.devices for each in self.predictions}
        of_form = [p for p in self.predictions if p.form == form and p.devices in counts]
        return min(of_form, key=lambda each: each.step_time, default=None)

    def speedup(self, prediction: Prediction) -> float:
        """Return how many times faster than one device a prediction is.

        Args:
            prediction: One of `predictions`.
        """
        return self.predictions[0].step_time / prediction.step_time

    def draw(self, path: str | PathLike[str]) -> None:
        """Draw the speed-up and the step time by the number of devices.

        Args:
            path: File to draw to: `.png`, `.svg` or `.pdf`.
        """
        draw_plan(check_picture(path), self, FORMS)

    def __str__(self) -> str:
        """Return the table of one, two, four … and all devices, and the recommendation."""
        last = self.predictions[-1].devices
        shown = [
            each
            for each in self.predictions
            if each.devices in (last, self.recommended.devices) or _is_power_of_two(each.devices)
        ]
        rule = "|---|" + "---:|" * (HEAD.count("|") - 2)
        return "\n".join([HEAD, rule, *map(self._row, shown), "", self.reason])

    def _row(self, each: Prediction) -> str:
        mark = " ←" if each is self.recommended else ""
        full = " (too much)" if each.memory > self._memory else ""
        return (
            f"| {_name(each)}{mark} | {each.devices} | {1000 * each.step_time:.4g} "
            f"| {self.speedup(each):.2f} | {100 * each.communication_share:.0f} % "
            f"| {each.bytes_per_step / 1e6:.4g} | {each.memory / 1e9:.3g}{full} |"
        )

    def _choose(self) -> Prediction:
        """Take the fastest that waits for all gradients and fits; of equal ones the simplest."""
        fit = [each for each in self.predictions if each.memory <= self._memory]
        fit = [each for each in fit if each.form != "parameter server"]
        if not fit:
            return min(self.predictions, key=lambda each: each.memory)
        fastest = min(each.step_time for each in fit)
        close = [each for each in fit if each.step_time <= CLOSE * fastest]
        return min(close, key=lambda each: (each.devices, each.grid[1]))

    def _explain(self) -> str:
        chosen = self.recommended
        place = f" on {chosen.devices} devices" if chosen.devices > 1 else ""
        text = [f"Use {_name(chosen)}{place}:"]
        if chosen.memory > self._memory:
            text[:] = [
                f"Nothing fits: every form needs more than the {self._memory / 1e9:.3g} GB of a "
                f"device. {_name(chosen).capitalize()} on {chosen.devices} needs least:"
            ]
        text.append(
            f"{self.speedup(chosen):.2f} times as fast as one device, of which "
            f"{100 * chosen.communication_share:.0f} % of each step is communication."
        )
        text += [self._compare(form) for form in FORMS if form != chosen.form and self.best(form)]
        most = self.predictions[-1].devices
        if 1 < chosen.devices < most:
            text.append(
                f"More than {chosen.devices} of the {most} devices would not make it faster."
            )
        return " ".join(text)

    def _compare(self, form: str) -> str:
        """Say in a sentence why a form was not chosen."""
        other = self.best(form)
        assert other is not None
        share = f"{100 * other.communication_share:.0f} % communication"
        text = f"{_name(other).capitalize()} on {other.devices}: {self.speedup(other):.2f}, {share}"
        if form == "parameter server":
            return f"{text}, with gradients of old weights."
        return f"{text}{', more memory than there is' if other.memory > self._memory else ''}."


def plan(
    model: keras.Model,
    batch_size: int,
    devices: int,
    interconnect: Any,
    throughput: Any,
    variation: float = 0.0,
    servers: int = 1,
) -> Plan:
    """Predict how a model trains on 1 to n devices in each form of parallelism; recommend one.

    Use it before renting machines or rewriting a script: it says in a second whether several
    devices pay, what limits them, and whether the model fits. Operations, bytes of weights and of
    activations, and what columns have to exchange are taken from the model. A step is

        t = f (overhead + W b / (n e r)) + m λ + s / B

    with W operations for a sample, forward and backward (three times the forward pass), b samples,
    n devices of r operations a second at an efficiency e, the factor f of waiting for the slowest
    (`kerasopt.strategies.straggler_factor`), and s bytes in m messages over links of B bytes a
    second and a latency λ:

        data parallelism      s = 2 (n-1)/n P              gradients of P bytes, by a ring
        c columns             s = 2 (c-1)/c A b            maps of A bytes, forward and backward
        r × c, hybrid         s = 2 (r-1)/r P/c + 2 (c-1)/c A b/r
        parameter server      t = max(overhead + W b / (n e r) + 2 P / B, n P / (servers B))

    Maps cross between columns wherever a layer needs all of those below: before each dense layer,
    each convolution but those with `groups=c`, and the loss; between `kerasopt.layers.Column`
    layers at `CrossConnection` alone. An optimizer's own work is not counted, and communication
    that goes on during computation is counted as if it came after. Layers that are not known are
    counted as zero, with a warning that names them.

    Args:
        model: A built model; its optimizer, if it is compiled, counts for the memory.
        batch_size: Samples in a step of all devices together, at least 1.
        devices: Largest number n of devices, at least 1.
        interconnect: What connects them: `"pcie2"` to `"pcie5"`, `"nvlink"`, `"nvlink4"`,
            `"ethernet"` (1 Gb/s), `"ethernet10"`, `"ethernet100"`, bytes a second in each
            direction, or a `kerasopt.strategies.Link`.
        throughput: What each device is: `"gtx670"`, `"titan"`, `"titanx"`, `"k40"`, `"k80"`,
            `"a100"`, `"h100"`, `"h200"`, operations a second that are reached, or a
            `kerasopt.strategies.Device`. `kerasopt.strategies.calibrate` measures both.
        variation: Standard deviation of the logarithm of the devices' times, in [0, 3]. Defaults
            to 0.
        servers: Parameter servers beside the workers, at least 1. Defaults to 1.

    Returns:
        A plan; `print` shows its table. It has `predictions`, `recommended`, the `reason` in words,
        `best(form)`, `speedup(prediction)` and `draw(path)`.

    Raises:
        TypeError: `model` is no Keras model; a number is not of its type.
        ValueError: The model is not built, or leaves the size of its inputs open; a name is
            unknown; a number is outside its range.

    Reference:
        Yadan et al., Multi-GPU training of ConvNets, 2014. Dean et al., Large scale distributed
        deep networks, 2012.

    Example:
        >>> import keras, kerasopt
        >>> model = keras.Sequential([keras.Input((4096,)), keras.layers.Dense(4096)])
        >>> kerasopt.strategies.plan(model, 256, 2, "pcie3", "titan").recommended.form
        'columns'
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model. Received: model={model!r}")
    check_count("batch_size", batch_size)
    check_count("devices", devices)
    check_count("servers", servers)
    check_number("variation", variation, "[0, 3]")
    costs = model_costs(model)
    device, link = read_device(throughput, costs.half), read_link(interconnect)
    machine = Machine(device, link, variation)
    predictions = [
        grid(costs, batch_size, machine, replicas, columns)
        for n in range(1, devices + 1)
        for columns in range(1, n + 1)
        if (replicas := n // columns) * columns == n and replicas <= batch_size
    ]
    predictions += [
        parameter_server(costs, batch_size, machine, n, servers)
        for n in range(2, min(devices, batch_size) + 1)
    ]
    predictions.sort(key=lambda each: each.devices)
    return Plan(predictions, batch_size, device.memory)


def _name(each: Prediction) -> str:
    replicas, columns = each.grid
    if each.form == "hybrid":
        return f"hybrid {replicas} × {columns}"
    return {"data": "data parallelism"}.get(each.form, each.form)


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0
