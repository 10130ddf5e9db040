"""The command `kerasopt`, also `python -m kerasopt`."""

import argparse
import sys

from kerasopt import _launch


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="kerasopt", description="Tools of kerasopt.")
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    commands.add_parser("launch", add_help=False, help="start the workers of a script")
    plan = commands.add_parser("plan", help="predict how a saved model trains on several devices")
    if words[:1] == ["launch"]:
        return _launch.main(words)  # it does not wait for TensorFlow to be imported
    if words[:1] == ["plan"]:
        from kerasopt.strategies import _plan_command

        _plan_command.add_arguments(plan)
    options = parser.parse_args(words)
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
