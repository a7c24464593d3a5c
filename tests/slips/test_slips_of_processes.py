"""Signals, closed pipes, full outputs, foreign places: slips that need a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 120.0
"""Longest wait: far more than it takes on a busy machine."""
# The programs sleep in short steps: Python sees a signal that comes just before a system call
# only when that call returns (one of 1,500 signals, with sleep(300)).
SLOW_IMPORT = """
from pathlib import Path
from time import sleep
Path("ready").touch()
while True:
    try:
        sleep(0.1)
    except BaseException:
        pass
"""
"""As libraries do, it swallows what is raised in it."""
SLOW_EXIT = """
import atexit
from pathlib import Path
from time import sleep

def hook():
    Path("ready").touch()
    sleep(2)

def main():
    atexit.register(hook)
    print("done")
"""
SLOW_COMMAND = """
from pathlib import Path
from time import sleep

def main():
    half = Path("half-written")
    half.touch()
    try:
        Path("ready").touch()
        while True:
            sleep(0.1)
    finally:
        half.unlink()
        CLEAN_UP
"""
BUSY_CLEAN_UP = """Path("cleaning").touch()
        while True:
            try:
                sleep(0.1)
            except KeyboardInterrupt:
                pass
"""
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def start(folder: Path, *words: str, **options: object) -> subprocess.Popen[str]:
    """A Python process in a folder."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"}
    environment |= dict(options.pop("environment", {}))  # type: ignore[call-overload]
    environment = {name: value for name, value in environment.items() if value is not None}
    return subprocess.Popen(
        [sys.executable, *words],
        env=environment,
        **{**PIPES, "cwd": folder, **options},  # type: ignore[call-overload]
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out or "", err or ""


def wait_for(path: Path) -> None:
    deadline_s = monotonic() + LIMIT_S
    while not path.exists():
        assert monotonic() < deadline_s, f"no {path}"
        sleep(0.02)


@pytest.fixture
def module(tmp_path: Path) -> list[str]:
    """The words that run slow.py as a program."""
    return ["-c", "from gemmcast.program import run_program; run_program('slow')"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("source", [SLOW_IMPORT, SLOW_COMMAND.replace("CLEAN_UP", "")])
def test_a_signal_ends_any_program_with_one_line(
    tmp_path: Path, module: list[str], source: str, number: signal.Signals
) -> None:
    (tmp_path / "slow.py").write_text(source)
    process = start(tmp_path, *module)
    wait_for(tmp_path / "ready")
    process.send_signal(number)
    assert end(process) == (130, "", "interrupted\n")
    assert not (tmp_path / "half-written").exists()


def test_a_second_signal_does_not_wait_for_the_clean_up(tmp_path: Path, module: list[str]) -> None:
    (tmp_path / "slow.py").write_text(SLOW_COMMAND.replace("CLEAN_UP", BUSY_CLEAN_UP))
    process = start(tmp_path, *module)
    wait_for(tmp_path / "ready")
    process.send_signal(signal.SIGINT)
    wait_for(tmp_path / "cleaning")
    process.send_signal(signal.SIGINT)
    assert end(process) == (130, "", "interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_result_changes_nothing(
    tmp_path: Path, module: list[str], number: signal.Signals
) -> None:
    (tmp_path / "slow.py").write_text(SLOW_EXIT)
    process = start(tmp_path, *module)
    wait_for(tmp_path / "ready")
    process.send_signal(number)
    assert end(process) == (0, "done\n", "")


@pytest.mark.parametrize("program", ["coordinator", "registry", "agent.kernels.cutlass"])
def test_a_signal_right_after_the_start(tmp_path: Path, program: str) -> None:
    """A trace of imports says when the program's frame stands: what is heavy comes after it."""
    process = start(tmp_path, "-X", "importtime", "-m", program, "--help")
    assert process.stderr is not None
    for line in process.stderr:
        if line.rstrip().endswith("gemmcast.program"):
            break
    next(process.stderr)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT_S)
    if process.returncode == 0:
        pytest.skip("the program had ended before the signal came")
    lines = [line for line in err.splitlines() if not line.startswith("import time:")]
    assert (process.returncode, lines) == (130, ["interrupted"])


LIST = ("-m", "agent.kernels.cutlass", "list", "--arch", "sm_90", "--set", "wide")


def test_a_pipe_whose_reader_has_gone_ends_quietly(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start(tmp_path, *LIST, stdout=writing)
    os.close(writing)
    assert end(process) == (141, "", "")


def test_a_full_output_is_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        code, _, err = end(start(tmp_path, *LIST, stdout=full))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: standard output can't be written (No space left on device)")


def test_a_closed_output_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    words = f"exec {sys.executable} -m coordinator import t.csv >&-"
    (tmp_path / "t.csv").write_text("m\n1\n")
    done = subprocess.run(
        ["sh", "-c", words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: standard output = 'closed'")
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_a_locale_without_utf8_prints_what_it_can(tmp_path: Path) -> None:
    """R² and µs stand in tables, and ASCII lacks them."""
    code = """
from gemmcast.program import run_script
run_script(lambda: print("R² µs"))
"""
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    assert end(start(tmp_path, "-c", code, environment=ascii_only)) == (0, "R? ?s\n", "")


def test_a_locale_without_utf8_reads_plans(tmp_path: Path) -> None:
    plan = "# µs\nname = 'p'\n[[sweep]]\nfamily = 'blas'\nshapes = { sample = 5 }\n"
    (tmp_path / "p.toml").write_bytes(plan.encode())
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = ("-m", "coordinator", "plan", "p.toml", "--device", "h100", "--json")
    code, out, err = end(start(tmp_path, *words, environment=ascii_only))
    assert (code, err) == (0, "")
    assert "NVIDIA H100" in out


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    name = os.fsdecode(b"\xff\xfe")
    code, out, err = end(start(tmp_path, "-m", "registry", "list", "--registry", name))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "is not text in this locale's encoding" in err


@pytest.mark.parametrize("home", ["/proc/nowhere", None])
def test_a_home_that_cannot_be_used(tmp_path: Path, home: str | None) -> None:
    words = ["-m", "coordinator", "report", "--workspace", "none"]
    environment = {"ORT_DISABLE_TELEMETRY": "1", "HOME": home}
    process = start(tmp_path, *words, environment=environment)
    code, out, err = end(process)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "holds no samples" in err
