"""No telemetry: a process with a predictor opens no socket and writes no file.

ONNX Runtime 1.29 and newer looks up its vendor's host and writes under HOME as soon as it is
imported, unless ORT_DISABLE_TELEMETRY is set before. tests/gemmcast/silent_process.py makes the
kernel kill a process that does either.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.gemmcast.silent_process import ARCHITECTURES

ROOT = Path(__file__).parents[2]
SILENT = Path(__file__).with_name("silent_process.py")
QUIET_IN_CI = ("CI", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY")
"""Variables that keep ONNX Runtime silent by themselves."""
PREDICT = """
import sys
from gemmcast import Gemm, KernelConfig, Predictor
with Predictor(sys.argv[1]) as predictor:
    device = predictor.devices[0]
    print(predictor.predict(Gemm(m=64, n=64, k=64), KernelConfig(family="tiled"), device))
"""
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ARCHITECTURES,
    reason="the filter is written for Linux on x86_64 and aarch64",
)


def _run(
    home: Path,
    arguments: Sequence[str | Path],
    program: Sequence[str | Path] = (sys.executable, SILENT),
) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in QUIET_IN_CI and not name.startswith("XDG_")
    }
    environment |= {"HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*program, *arguments],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if "no seccomp filter" in done.stderr:
        pytest.skip("this kernel or container allows no seccomp filter")
    return done


@pytest.mark.parametrize(
    "code",
    ["import socket; socket.socket()", "open('file', 'w')", "import os; os.open('/', os.O_RDWR)"],
)
def test_what_is_not_silent_is_killed(tmp_path: Path, code: str) -> None:
    script = tmp_path / "loud.py"
    script.write_text(code)
    assert _run(tmp_path, [script]).returncode == -signal.SIGSYS


@pytest.mark.parametrize(
    "code",
    [
        PREDICT,
        # ONNX Runtime first of all that is imported for a training, and a library that imports it.
        "import costmodel.onnx_session; print('silent')",
        "import costmodel.graph_ops; print('silent')",
        "import gemmcast, onnxruntime; print('silent')",
    ],
    ids=["Predictor", "costmodel.onnx_session", "costmodel.graph_ops", "gemmcast"],
)
def test_nothing_is_sent_and_nothing_written(tmp_path: Path, power_file: Path, code: str) -> None:
    script = tmp_path / "program.py"
    script.write_text(code)
    done = _run(tmp_path, [script, power_file])
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert list(tmp_path.iterdir()) == [script]


@pytest.mark.parametrize("example", ["embed.py", "embed_raw.py"])
def test_the_examples_are_silent(tmp_path: Path, power_file: Path, example: str) -> None:
    done = _run(tmp_path, [ROOT / "examples" / example, power_file])
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_command_leaves_nothing_in_home(tmp_path: Path, power_file: Path) -> None:
    """It is not filtered, because it opens /dev/null."""
    words = ["-m", "gemmcast", "info", "--model", power_file]
    done = _run(tmp_path, words, program=[sys.executable])
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_user_may_decide_otherwise(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text("""
import os
os.environ["ORT_DISABLE_TELEMETRY"] = "0"
import gemmcast
print(os.environ["ORT_DISABLE_TELEMETRY"])
""")
    assert _run(tmp_path, [script]).stdout == "0\n"
