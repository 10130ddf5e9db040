"""Starts the workers of a script on this machine, and keeps watch over them."""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

GRACE = 5.0  # seconds between asking a worker to end and ending it
# On Linux a worker asks to be killed when the launcher dies (prctl's PR_SET_PDEATHSIG is 1).
BOUND = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of `kerasopt launch`."""
    main = argparse.ArgumentParser(prog="kerasopt", description="Tools of kerasopt.")
    commands = main.add_subparsers(required=True, metavar="command")
    launch = commands.add_parser(
        "launch",
        help="start the workers of a script",
        description="Start the workers of a script that trains under "
        "kerasopt.strategies.MultiWorker: all of one machine, or one of many; or, with "
        "--parameter-servers, under kerasopt.strategies.ParameterServer, on one machine.",
    )
    add = launch.add_argument
    add("--workers", type=int, help="processes to start on this machine (2)")
    add("--max-restarts", type=int, default=0, help="times to start all again on a failure (0)")
    servers_help = "also start a coordinator and so many servers; a worker is restarted alone (0)"
    add("--parameter-servers", type=int, default=0, help=servers_help)
    add("--pin", action="store_true", help="give each worker processor cores of its own")
    add("--hosts", help="host1:port,host2:port,... of all workers, on machines of their own")
    add("--index", type=int, help="with --hosts: which of them this machine is, from 0")
    add("script", nargs="?", help="what to run; with --hosts, none prints the setting")
    add("arguments", nargs=argparse.REMAINDER, help="of the script")
    launch.set_defaults(error=launch.error)
    return main


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = parser().parse_args(arguments)
    check(options)
    if options.script is None:
        print(f"export TF_CONFIG='{config(options.hosts.split(','), options.index)}'")
        return 0
    return Group(options).run()


def check(options: argparse.Namespace) -> None:
    """Refuse, with exit status 2, what cannot be started."""
    received = f"Received: --hosts {options.hosts} --index {options.index}"
    if options.hosts is not None:
        hosts = options.hosts.split(",")
        if not all(host and port.isdigit() for host, _, port in (h.rpartition(":") for h in hosts)):
            options.error(f"--hosts must have the form host1:port,host2:port. {received}")
        if options.index is None or not 0 <= options.index < len(hosts):
            options.error(f"--index must be 0 to {len(hosts) - 1}, a place in --hosts. {received}")
        if options.workers is not None:
            options.error("--workers starts workers of one machine; it does not go with --hosts")
        options.workers = 1
    elif options.index is not None or options.script is None:
        options.error(f"a script, and --hosts with --index, must be given. {received}")
    options.workers = 2 if options.workers is None else options.workers
    if options.workers < 1 or min(options.max_restarts, options.parameter_servers) < 0:
        counts = "--max-restarts and --parameter-servers at least 0"
        options.error(f"--workers must be at least 1, {counts}")
    if options.parameter_servers and options.hosts is not None:
        options.error("--parameter-servers does not go with --hosts: set TF_CONFIG on each machine")
    if options.script is not None and not Path(options.script).is_file():
        options.error(f"there is no script {options.script}")
    if options.pin:
        check_cores(options)


def check_cores(options: argparse.Namespace) -> None:
    """Refuse to pin where that cannot be."""
    if not hasattr(os, "sched_setaffinity"):
        options.error("--pin: this system cannot pin processes to cores")
    if (there := len(os.sched_getaffinity(0))) < options.workers:
        options.error(
            f"--pin needs a core for each of {options.workers} workers; {there} are there"
        )


def config(hosts: list[str], index: int) -> str:
    """Return the value of TF_CONFIG for one worker."""
    return json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}})


def tasks(options: argparse.Namespace) -> dict[str, str]:
    """Return the names of the processes of this machine, and their values of TF_CONFIG."""
    if options.hosts:
        hosts = options.hosts.split(",")
        return {f"worker {options.index}": config(hosts, options.index)}
    if not options.parameter_servers:
        hosts = free_hosts(options.workers)
        return {f"worker {i}": config(hosts, i) for i in range(options.workers)}
    counts = {"chief": 1, "worker": options.workers, "ps": options.parameter_servers}
    free = iter(free_hosts(sum(counts.values())))
    cluster = {kind: [next(free) for _ in range(count)] for kind, count in counts.items()}
    return {
        f"{kind} {i}": json.dumps({"cluster": cluster, "task": {"type": kind, "index": i}})
        for kind, count in counts.items()
        for i in range(count)
    }


def free_hosts(count: int) -> list[str]:
    """Return addresses on this machine whose ports are free."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


class Group:
    """The processes of one script; they start, fail and end together.

    With parameter servers a worker that fails starts again by itself, and all end with the chief.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.tasks: dict[str, str] = {}
        self.restarts = 0
        self.workers: list[subprocess.Popen[str]] = []
        self.printers: list[threading.Thread] = []
        self.interruptions = 0
        self.launched = time.strftime("%Y%m%d-%H%M%S")  # for scripts to name their output by

    def run(self) -> int:
        """Run the script to its end, restarting the workers if asked; return its status."""
        with self._signals():
            while True:
                self.tasks = tasks(self.options)
                try:
                    for place in range(len(self.tasks)):
                        self.workers.append(self._start(place))
                    failed, status = self._wait()
                finally:
                    self._end()
                if failed is None or not self._may_restart(failed, status, "all start"):
                    return status

    def _may_restart(self, failed: str, status: int, who: str) -> bool:
        """Count a restart, if one is left."""
        if self.interruptions or self.restarts == self.options.max_restarts:
            return False
        self.restarts += 1
        print(
            f"kerasopt launch: {failed} ended with status {status}; {who} again "
            f"({self.restarts} of {self.options.max_restarts})",
            file=sys.stderr,
            flush=True,
        )
        return True

    def _start(self, place: int) -> subprocess.Popen[str]:
        name, setting = list(self.tasks.items())[place]
        bound = ["-c", BOUND] if sys.platform == "linux" else []
        environment = {
            "PYTHONUNBUFFERED": "1",
            "TF_CONFIG": setting,
            "KERASOPT_LAUNCHED": self.launched,
        }
        process = subprocess.Popen(
            [sys.executable, *bound, self.options.script, *self.options.arguments],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C comes through us
        )
        if self.options.pin and name.startswith("worker"):
            os.sched_setaffinity(process.pid, self._cores(name))
        for source, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
            thread = threading.Thread(target=_prefix, args=(name, source, target), daemon=True)
            thread.start()
            self.printers.append(thread)
        return process

    def _cores(self, name: str) -> list[int]:
        """Return the share of a worker in the cores of this machine."""
        cores = sorted(os.sched_getaffinity(0))
        share = len(cores) // self.options.workers
        first = 0 if self.options.hosts else int(name.split()[1]) * share
        return cores[first : first + share]

    def _wait(self) -> tuple[str | None, int]:
        """Wait until all have ended, or one has failed; return which, and its status."""
        names, asynchronous = list(self.tasks), self.options.parameter_servers > 0
        while True:
            statuses = [worker.poll() for worker in self.workers]
            codes = [128 - status if status and status < 0 else status for status in statuses]
            failures = [(i, status) for i, status in enumerate(codes) if status]
            if asynchronous and codes[0] is not None:
                return (names[0] if codes[0] else None), codes[0]
            for place, status in failures if asynchronous else []:
                name = names[place]
                if name.startswith("worker") and self._may_restart(name, status, "it starts"):
                    self.workers[place] = self._start(place)
                    failures.remove((place, status))
            if failures and not (self.interruptions and None in statuses):
                place, status = failures[0]
                return names[place], status
            if None not in statuses:
                return None, 0
            time.sleep(0.05)

    def _send(self, number: int) -> None:
        # The chief alone says what an interruption means to its servers.
        alone = self.options.parameter_servers and number == signal.SIGINT
        for worker in self.workers[:1] if alone else self.workers:
            if worker.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.pid, number)

    def _end(self) -> None:
        """See that no worker is left, nor anything that a worker started."""
        self._send(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for worker in self.workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(max(0.0, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        for printer in self.printers:
            printer.join(timeout=1)
        self.workers, self.printers = [], []

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Pass Ctrl-C on to the workers; a second one, or SIGTERM, ends them."""

        def forward(number: int, frame: Any) -> None:
            self.interruptions += 1
            ends = number == signal.SIGTERM or self.interruptions > 1
            self._send(signal.SIGKILL if ends else number)

        before = {n: signal.signal(n, forward) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _prefix(name: str, source: IO[str], target: IO[str]) -> None:
    """Print the lines of a process with its name."""
    with source:
        for line in source:
            target.write(f"[{name}] {line}")
            target.flush()
