"""How a command line ends: exit codes, one line, and JSON without NaN."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from gemmcast.errors import GemmcastError, InputError, MeasurementError, WorkspaceError
from gemmcast.program import OutputError, json_line, run_command


def raising(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("m", 0, "too small", "take more"), 2, "error: m = 0: too small; take more\n"),
        (WorkspaceError("in use\n by process 7"), 2, "error: in use by process 7\n"),
        (GemmcastError("every agent has failed"), 1, "error: every agent has failed\n"),
        (MeasurementError("timeout", "hung"), 1, "error: timeout: hung\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OutputError(errno.EPIPE, "Broken pipe"), 141, ""),
        (
            OutputError(errno.ENOSPC, "No space left on device"),
            2,
            "error: standard output can't be written (No space left on device); "
            "the command was carried out\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/root/ws/lock"),
            2,
            "error: /root/ws/lock: Permission denied; name a place that can be read and written\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "/mnt/ask.html"),
            2,
            "error: /mnt/ask.html: No space left on device; make room there, or name another place",
        ),
        (OSError("Generic S3 error\nwith a second line"), 2, "error: Generic S3 error with a"),
        (SystemExit(2), 2, ""),
    ],
)
def test_every_error_is_one_line_and_an_exit_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(raising(error)) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(line)
    assert printed.err.count("\n") == bool(line)


def test_a_long_name_leaves_room_for_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(lambda: (tmp_path / ("x" * 5000)).write_text("")) == 2
    line = capsys.readouterr().err
    assert "File name too long" in line
    assert len(line) < 500


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()))


def test_json_has_no_nan() -> None:
    values = {"a": math.nan, "b": [1.5, math.inf, {"c": -math.inf}], "d": (0, "[/nt]", None)}
    line = json_line({**values, "path": Path("x")})
    assert json.loads(line) == {
        "a": None,
        "b": [1.5, None, {"c": None}],
        "d": [0, "[/nt]", None],
        "path": "x",
    }
