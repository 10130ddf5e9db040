"""Starts the workers of a script on this machine, and keeps watch over them."""

import argparse
import contextlib
import itertools
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
        "kerasopt.strategies.MultiWorker: all of one machine, or one of many.",
    )
    add = launch.add_argument
    add("--workers", type=int, help="processes to start on this machine (2)")
    add("--max-restarts", type=int, default=0, help="times to start all again on a failure (0)")
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
    if options.workers < 1 or options.max_restarts < 0:
        options.error("--workers must be at least 1, --max-restarts at least 0")
    if options.script is not None and not Path(options.script).is_file():
        options.error(f"there is no script {options.script}")
    if options.pin and not hasattr(os, "sched_setaffinity"):
        options.error("--pin: this system cannot pin processes to cores")
    if options.pin and (there := len(os.sched_getaffinity(0))) < options.workers:
        options.error(
            f"--pin needs a core for each of {options.workers} workers; {there} are there"
        )


def config(hosts: list[str], index: int) -> str:
    """Return the value of TF_CONFIG for one worker."""
    return json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}})


def free_hosts(count: int) -> list[str]:
    """Return addresses on this machine whose ports are free."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


class Group:
    """The workers of one script; they start, fail and end together."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.workers: list[subprocess.Popen[str]] = []
        self.printers: list[threading.Thread] = []
        self.interruptions = 0
        self.launched = time.strftime("%Y%m%d-%H%M%S")  # for scripts to name their output by

    def run(self) -> int:
        """Run the script to its end, restarting the workers if asked; return its status."""
        with self._signals():
            for attempt in itertools.count(1):
                try:
                    self._start()
                    failed, status = self._wait()
                finally:
                    self._end()
                if failed is None or self.interruptions or attempt > self.options.max_restarts:
                    return status
                left = f"{attempt} of {self.options.max_restarts}"
                print(
                    f"kerasopt launch: worker {failed} ended with status {status}; all start again "
                    f"({left})",
                    file=sys.stderr,
                    flush=True,
                )
        raise AssertionError

    def _start(self) -> None:
        options, count = self.options, self.options.workers
        hosts = options.hosts.split(",") if options.hosts else free_hosts(count)
        bound = ["-c", BOUND] if sys.platform == "linux" else []
        cores = sorted(os.sched_getaffinity(0)) if options.pin else []
        self.printers = []
        for i in range(count):
            index = options.index if options.hosts else i
            environment = {
                "PYTHONUNBUFFERED": "1",
                "TF_CONFIG": config(hosts, index),
                "KERASOPT_LAUNCHED": self.launched,
            }
            worker = subprocess.Popen(
                [sys.executable, *bound, options.script, *options.arguments],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C comes through us
            )
            self.workers.append(worker)
            if cores:
                share = len(cores) // count
                os.sched_setaffinity(worker.pid, cores[i * share : (i + 1) * share])
            for source, target in ((worker.stdout, sys.stdout), (worker.stderr, sys.stderr)):
                thread = threading.Thread(target=_prefix, args=(index, source, target), daemon=True)
                thread.start()
                self.printers.append(thread)

    def _wait(self) -> tuple[int | None, int]:
        """Wait until all have ended, or one has failed; return which, and its status."""
        while True:
            statuses = [worker.poll() for worker in self.workers]
            failures = [(i, s) for i, s in enumerate(statuses) if s]
            if failures and not (self.interruptions and None in statuses):
                failed, status = failures[0]
                return failed, 128 - status if status < 0 else status
            if None not in statuses:
                return None, 0
            time.sleep(0.05)

    def _send(self, number: int) -> None:
        for worker in self.workers:
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
        self.workers = []

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


def _prefix(index: int, source: IO[str], target: IO[str]) -> None:
    """Print the lines of a worker with its number."""
    with source:
        for line in source:
            target.write(f"[worker {index}] {line}")
            target.flush()
