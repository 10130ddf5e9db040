"""What the planner knows of the connection between devices."""

from dataclasses import dataclass
from typing import Any

from kerasopt._validation import check_flag, check_number


@dataclass(frozen=True)
class Link:
    """What connects devices: how fast bytes go, and how long each message takes beside them.

    Use it for `kerasopt.strategies.plan` where no preset is what is there. With d devices that
    receive s bytes each, in m messages,

        t = m · latency + s / bandwidth           each device has a link of its own
        t = m · latency + 2 d s / bandwidth       `shared`

    Args:
        bandwidth: Bytes a second in one direction, greater than 0.
        latency: Seconds that a message takes beside its bytes, at least 0. Defaults to 0.
        shared: Whether all devices send through the memory of one host, over one bus: every byte
            goes up, then down, and the devices wait for each other. Defaults to False.

    Raises:
        TypeError: A number is no number, `shared` no truth value.
        ValueError: A number is outside its range.

    Reference:
        Hockney, The communication challenge for MPP, 1994: time is latency plus bytes / bandwidth.

    Example:
        >>> from kerasopt.strategies import Link
        >>> Link(bandwidth=1e9, latency=0.001).seconds(devices=2, received=4e6, messages=1)
        0.005
    """

    bandwidth: float
    latency: float = 0.0
    shared: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_number("bandwidth", self.bandwidth, "(0, inf)")
        check_number("latency", self.latency, "[0, inf)")
        check_flag("shared", self.shared)

    def seconds(self, devices: int, received: float, messages: float) -> float:
        """Return how long it takes until every device has what others sent.

        Args:
            devices: Number of devices that receive at the same time.
            received: Bytes for each.
            messages: Number of messages to each, one after the other.
        """
        load = 2 * devices if self.shared else 1
        return messages * self.latency + load * received / self.bandwidth


# Three quarters of the raw rate of one direction, an assumption, as the latencies are. Sources of
# the raw rates: the PCI Express base specifications 2.0 to 5.0 (16 lanes), the data sheets of
# NVIDIA's A100 and H100, IEEE 802.3. PCIe 2 and 3 are taken as on machines of their time, whose
# devices sent through the host.
LINKS = {
    "pcie2": Link(0.75 * 8.0e9, 10e-6, shared=True),
    "pcie3": Link(0.75 * 15.75e9, 10e-6, shared=True),
    "pcie4": Link(0.75 * 31.5e9, 10e-6),
    "pcie5": Link(0.75 * 63.0e9, 10e-6),
    "nvlink": Link(0.75 * 300e9, 5e-6),  # third generation, of the A100
    "nvlink4": Link(0.75 * 450e9, 5e-6),  # of the H100 and H200
    "ethernet": Link(0.75 * 0.125e9, 50e-6),
    "ethernet10": Link(0.75 * 1.25e9, 50e-6),
    "ethernet100": Link(0.75 * 12.5e9, 20e-6),
}


def read_link(interconnect: Any) -> Link:
    """Return what the argument `interconnect` names."""
    if isinstance(interconnect, str):
        if interconnect not in LINKS:
            raise ValueError(
                f"`interconnect` must be one of {sorted(LINKS)}, a number of bytes a second, or a "
                f"`kerasopt.strategies.Link`. Received: interconnect={interconnect!r}"
            )
        return LINKS[interconnect]
    if isinstance(interconnect, Link):
        return interconnect
    return Link(check_number("interconnect", interconnect, "(0, inf)"))
