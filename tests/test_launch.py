"""The command `kerasopt launch`, with scripts that do not train."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kerasopt._launch import main
from tests.workers import wait_for

pytestmark = pytest.mark.alone

# A shell's background job ignores Ctrl-C, and so would what it starts.
HEEDS_INTERRUPTS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-m", "kerasopt", "launch", *sys.argv[1:]])
"""


def script(folder: Path, text: str) -> str:
    """Write a script that knows its place in the cluster; return its path."""
    path = folder / "script.py"
    path.write_text(
        "import json, os, pathlib, signal, sys, time\n"
        "config = json.loads(os.environ['TF_CONFIG'])\n"
        "index, workers = config['task']['index'], config['cluster']['worker']\n"
        f"here = pathlib.Path({str(folder)!r})\n{text}\n"
    )
    return str(path)


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_workers_know_their_place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = "print(workers, sys.argv[1:]); print('to stderr', file=sys.stderr)"
    assert main(["launch", "--workers", "3", script(tmp_path, text), "--lr", "0.1"]) == 0
    out, err = capfd.readouterr()
    lines = dict(line.split("] ", 1) for line in sorted(out.splitlines()))
    assert list(lines) == ["[worker 0", "[worker 1", "[worker 2"]
    assert len(set(lines.values())) == 1
    hosts = lines["[worker 0"]
    assert hosts.endswith("['--lr', '0.1']")
    assert len({word.strip("[],'") for word in hosts.split() if "127.0.0.1:" in word}) == 3
    assert err.count("to stderr") == 3


@pytest.mark.parametrize(("end", "status"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137)])
def test_failure_ends_all(tmp_path: Path, end: str, status: int) -> None:
    text = f"""
(here / f"{{index}}.pid").write_text(str(os.getpid()))
if index == 1:
    while not (here / "0.pid").exists(): time.sleep(0.01)
    {end}
signal.signal(signal.SIGTERM, signal.SIG_IGN) if {status} == 7 else None
time.sleep(60)"""
    start = time.monotonic()
    assert main(["launch", script(tmp_path, text)]) == status
    assert time.monotonic() - start < 15
    assert not is_alive(int((tmp_path / "0.pid").read_text()))


@pytest.mark.parametrize(("restarts", "status", "attempts"), [(0, 3, 1), (1, 3, 2), (4, 0, 3)])
def test_restarts(tmp_path: Path, restarts: int, status: int, attempts: int) -> None:
    text = """
tries = here / f"tries{index}"
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
if index == 1 and len(tries.read_text()) < 3: sys.exit(3)"""
    path = script(tmp_path, text)
    assert main(["launch", "--max-restarts", str(restarts), path]) == status
    assert len((tmp_path / "tries1").read_text()) == attempts


OF_KINDS = """
task = config["task"]
name = f"{task['type']}{task['index']}"
tries = here / name
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
END
time.sleep(60)"""


@pytest.mark.parametrize(
    ("failing", "fails_at", "status", "starts"),
    [
        ("worker1", "x", 0, [1, 1, 2, 1, 1]),  # it starts again by itself
        ("ps0", "x", 0, [2, 2, 2, 2, 2]),
        ("worker1", "xxx", 3, [1, 1, 2, 1, 1]),
    ],
    ids=["worker", "server", "worker twice"],
)
def test_parameter_servers(
    tmp_path: Path, failing: str, fails_at: str, status: int, starts: list[int]
) -> None:
    names = ("chief0", "worker0", "worker1", "ps0", "ps1")
    end = f"""
while not all((here / each).exists() for each in {names}): time.sleep(0.01)
if name == {failing!r} and tries.read_text() in {fails_at!r}: sys.exit(3)
while name == "chief0":
    if (here / "worker1").read_text() == "xx" and {fails_at!r} == "x": sys.exit(0)
    time.sleep(0.1)
"""
    options = ["--workers", "2", "--parameter-servers", "2", "--max-restarts", "1"]
    path = script(tmp_path, OF_KINDS.replace("END", end))
    assert main(["launch", *options, path]) == status
    assert [len((tmp_path / name).read_text()) for name in names] == starts


def test_pinned_workers_share_no_core(tmp_path: Path) -> None:
    text = "time.sleep(0.1); (here / str(index)).write_text(str(sorted(os.sched_getaffinity(0))))"
    there = sorted(os.sched_getaffinity(0))
    if len(there) < 2:
        pytest.skip("needs two cores")
    assert main(["launch", "--pin", script(tmp_path, text)]) == 0
    cores = [json.loads((tmp_path / str(i)).read_text()) for i in range(2)]
    assert len(cores[0]) == len(cores[1]) == len(there) // 2
    assert not set(cores[0]) & set(cores[1])


STAYS = """
(here / f"{index}.pid").write_text(str(os.getpid()))
try: time.sleep(60)
except KeyboardInterrupt: (here / f"{index}.interrupted").touch(); sys.exit(130)"""


def launched(folder: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """Launch two workers that stay; return the launcher and their process numbers."""
    launcher = subprocess.Popen([sys.executable, "-c", HEEDS_INTERRUPTS, script(folder, STAYS)])
    files = [folder / f"{i}.pid" for i in range(2)]
    wait_for(lambda: all(file.exists() and file.read_text() for file in files))
    return launcher, [int(file.read_text()) for file in files]


def test_interrupt_is_passed_on(tmp_path: Path) -> None:
    launcher, workers = launched(tmp_path)
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(20) == 130
    assert all((tmp_path / f"{i}.interrupted").exists() for i in range(2))
    assert not any(is_alive(worker) for worker in workers)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends a process with its parent")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_launcher(tmp_path: Path, number: int) -> None:
    launcher, workers = launched(tmp_path)
    launcher.send_signal(number)
    assert launcher.wait(20) in (128 + signal.SIGKILL, -signal.SIGKILL)
    wait_for(lambda: not any(is_alive(worker) for worker in workers))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a script, and --hosts with --index, must be given"),
        (["none.py"], "there is no script none.py"),
        (["--workers", "0", "SCRIPT"], "--workers must be at least 1"),
        (["--max-restarts", "-1", "SCRIPT"], "--max-restarts and --parameter-servers at least 0"),
        (["--workers", "9999", "--pin", "SCRIPT"], "--pin needs a core for each of 9999 workers"),
        (["--hosts", "a:1,b"], "--hosts must have the form host1:port,host2:port. Received: --hos"),
        (["--hosts", "a:1,b:2"], "--index must be 0 to 1, a place in --hosts"),
        (["--hosts", "a:1,b:2", "--index", "2"], "--index must be 0 to 1"),
        (["--index", "1", "SCRIPT"], "a script, and --hosts with --index"),
        (["--hosts", "a:1", "--index", "0", "--workers", "2"], "does not go with --hosts"),
        (
            ["--parameter-servers", "-1", "SCRIPT"],
            "--max-restarts and --parameter-servers at least 0",
        ),
        (
            ["--hosts", "a:1", "--index", "0", "--parameter-servers", "1"],
            "--parameter-servers does not go with --hosts: set TF_CONFIG on each machine",
        ),
    ],
)
def test_bad_command_lines(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = script(tmp_path, "")
    with pytest.raises(SystemExit, match="2"):
        main(["launch", *(path if word == "SCRIPT" else word for word in arguments)])
    assert message in capsys.readouterr().err


def test_one_process_of_a_bigger_cluster(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hosts = ["launch", "--hosts", "10.0.0.1:2222,10.0.0.2:2222", "--index", "1"]
    assert main(hosts) == 0
    printed = capfd.readouterr().out
    assert main([*hosts, script(tmp_path, "print(os.environ['TF_CONFIG'])")]) == 0
    assert capfd.readouterr().out.removeprefix("[worker 1] ").strip() in printed
    assert printed.startswith('export TF_CONFIG=\'{"cluster": {"worker": ["10.0.0.1:2222"')
