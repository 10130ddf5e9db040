"""The command `kerasopt plan`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from kerasopt.strategies._device import DEVICES
from kerasopt.strategies._link import LINKS
from kerasopt.strategies._plan import plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    add = parser.add_argument
    add("model", type=Path, help="a saved model, .keras")
    add("--batch-size", type=int, default=256, help="samples a step of all devices together (256)")
    add("--devices", type=int, default=8, help="largest number of devices (8)")
    add("--gpu", default="a100", help=f"{', '.join(DEVICES)}, or operations a second (a100)")
    add("--link", default="nvlink", help=f"{', '.join(LINKS)}, or bytes a second (nvlink)")
    add("--variation", type=float, default=0.0, help="of the devices' times, logarithmic (0)")
    add("--output", type=Path, default=Path("plan.png"), help="picture to write (plan.png)")
    parser.set_defaults(run=run, error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Print the table of a saved model and write the picture; return the exit status."""
    import keras

    try:
        model = keras.saving.load_model(options.model)
        result = plan(
            model,
            options.batch_size,
            options.devices,
            _name_or_number(options.link),
            _name_or_number(options.gpu),
            options.variation,
        )
        result.draw(options.output)
    except (ValueError, TypeError, OSError) as error:
        options.error(str(error))
    sys.stdout.write(f"{result}\n\nPicture: {options.output}\n")
    return 0


def _name_or_number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
