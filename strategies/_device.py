"""What the planner knows of a device."""

from dataclasses import dataclass, replace
from typing import Any

from kerasopt._validation import check_number


@dataclass(frozen=True)
class Device:
    """A processor that trains: how fast it is, and how much it holds.

    Use it for `kerasopt.strategies.plan` where no preset is what is there, or
    `kerasopt.strategies.calibrate`, which measures one. The work of W operations takes

        t = overhead + W / (efficiency · throughput)

    in which `overhead` is what a step costs however little it computes: small shares of a batch use
    a device badly.

    Args:
        throughput: Floating-point operations a second at best, greater than 0.
        memory: Bytes of memory, greater than 0. Defaults to infinity.
        efficiency: Share of `throughput` that training reaches, in (0, 1]. It differs much between
            models; measure it. Defaults to 0.35, an assumption.
        overhead: Seconds that every step takes beside the work, at least 0. Defaults to 0.
        half: Operations a second at best in float16 and bfloat16, greater than 0, or None for as
            many as `throughput`. Defaults to None.

    Raises:
        TypeError: An argument is no number.
        ValueError: A number is outside its range.

    Reference:
        Hockney and Jesshope, Parallel Computers, 1981, section 1.3.2, on rates that are reached by
        half.

    Example:
        >>> from kerasopt.strategies import Device
        >>> Device(throughput=1e12, efficiency=0.5, overhead=0.001).seconds(1e9)
        0.003
    """

    throughput: float
    memory: float = float("inf")
    efficiency: float = 0.35
    overhead: float = 0.0
    half: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_number("throughput", self.throughput, "(0, inf)")
        check_number("memory", self.memory, "(0, inf]")
        check_number("efficiency", self.efficiency, "(0, 1]")
        check_number("overhead", self.overhead, "[0, inf)")
        if self.half is not None:
            check_number("half", self.half, "(0, inf)")

    def seconds(self, work: float, stretch: float = 1.0) -> float:
        """Return how long so many operations take, where the slowest device takes `stretch` more.

        Args:
            work: Floating-point operations.
            stretch: Factor of the time, as `kerasopt.strategies.straggler_factor` gives it.
        """
        return stretch * (self.overhead + work / (self.efficiency * self.throughput))


# float32 is that of the cores: two operations a core at the base clock. From the A100 on it is
# that of TF32, which TensorFlow uses for float32 there; all without sparsity. Source: NVIDIA's data
# sheets; the memory of the first five also in X. Wang's lecture.
DEVICES = {
    "gtx670": Device(2.46e12, 2e9),
    "titan": Device(4.50e12, 6e9),
    "titanx": Device(6.14e12, 12e9),
    "k40": Device(4.29e12, 12e9),
    "k80": Device(2.80e12, 12e9),  # one of the two on a card
    "a100": Device(156e12, 80e9, half=312e12),
    "h100": Device(494e12, 80e9, half=989e12),
    "h200": Device(494e12, 141e9, half=989e12),
}


def read_device(throughput: Any, half: bool) -> Device:
    """Return what the argument `throughput` names, for a model that computes in 16 bits or not."""
    if isinstance(throughput, str):
        if throughput not in DEVICES:
            raise ValueError(
                f"`throughput` must be one of {sorted(DEVICES)}, a number of operations a second, "
                f"or a `kerasopt.strategies.Device`. Received: throughput={throughput!r}"
            )
        throughput = DEVICES[throughput]
    if not isinstance(throughput, Device):
        # A rate that is given is meant to be reached.
        return Device(check_number("throughput", throughput, "(0, inf)"), efficiency=1.0)
    if half and throughput.half:
        return replace(throughput, throughput=throughput.half)
    return throughput
