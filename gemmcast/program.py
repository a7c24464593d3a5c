"""How every command line of this project begins and ends.

Ctrl-C and SIGTERM end a program with one line, from before its heavy imports on. An error ends it
with one line `error: ...`, and so does an output that can't be written; a pipe whose reader has
gone ends quietly. Exit codes:

    0 done   1 failed   2 bad input   130 interrupted   141 the reader of the output has gone

Knows no command, and no library for command lines.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from types import FrameType
from typing import Final, NoReturn, Protocol, TypeVar

from gemmcast.errors import GemmcastError, InputError, WorkspaceError

DONE: Final = 0
FAILED: Final = 1
BAD_INPUT: Final = 2
INTERRUPTED: Final = 130
NO_READER: Final = 141
"""As if SIGPIPE had ended the program."""
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_LONGEST_LINE: Final = 1_000
_LONGEST_PLACE: Final = 300
_SHOW_CURSOR: Final = b"\x1b[?25h"

Context = TypeVar("Context")
Say = Callable[[str, int], None]
"""Writes the last line of a program that did not succeed, and gets the exit code."""


class OutputError(OSError):
    """Standard output can't be written."""


class ClickCommand(Protocol[Context]):
    """A command line made with click or typer."""

    def make_context(
        self, info_name: str | None, args: list[str]
    ) -> AbstractContextManager[Context]:
        """Parse the arguments."""

    def invoke(self, ctx: Context) -> object:
        """Run what the arguments name."""


def run_program(module: str) -> NoReturn:
    """Import a command line and run its `main()`; ends the process. Signals are caught before."""
    run_script(lambda: _run_module(module))


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """Run a function as a program; ends the process."""
    catch_signals()
    code = run_command(lambda: _with_streams(main))
    for number in SIGNALS:
        # All is done: a signal must not change the exit code while libraries tidy up.
        signal.signal(number, signal.SIG_IGN)
    if code == BAD_INPUT:
        # So soon after their start, threads of pyarrow abort the process when they are torn down.
        leave(code)
    sys.exit(code)


def say_on_stderr(line: str, _code: int) -> None:
    """The line for people."""
    print(line, file=sys.stderr, flush=True)


def run_command(command: Callable[[], int | None], say: Say = say_on_stderr) -> int:
    """Run a command; an error becomes one line. Returns the exit code."""
    try:
        code = _code_of(command)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _end("interrupted", INTERRUPTED, say)
    except (InputError, WorkspaceError) as error:
        return _end(f"error: {error}", BAD_INPUT, say)
    except GemmcastError as error:
        return _end(f"error: {error}", FAILED, say)
    except OutputError as error:
        if error.errno == errno.EPIPE:
            return NO_READER
        rule = f"standard output can't be written ({error.strerror})"
        return _end(f"error: {rule}; the command was carried out", BAD_INPUT, say)
    except OSError as error:
        return _end(f"error: {_text_of(error)}", BAD_INPUT, say)


def run_click(
    command: ClickCommand[Context],
    name: str,
    argv: Sequence[str] | None,
    say: Say = say_on_stderr,
) -> int:
    """`run_command` for click and typer.

    Their own `main` swallows interrupts and closed pipes, so it is not called here.

    Args:
        name: of the program, in its help.
        argv: the arguments; None: those of the process.
        say: writes the line of an error.
    """
    words = list(sys.argv[1:] if argv is None else argv)

    def invoke() -> int:
        """Parse and run."""
        try:
            with command.make_context(name, words) as context:
                command.invoke(context)
        # click's exceptions, which gemmcast does not import: wrong usage, or the end of --help
        except Exception as error:
            code = getattr(error, "exit_code", None)
            if code is None:
                raise
            message = getattr(error, "format_message", str)()
            line = f"error: {message} (see {name} --help)"
            return _end(line, code, say) if message else int(code)
        return DONE

    return run_command(invoke, say)


def catch_signals() -> None:
    """From here on a signal raises KeyboardInterrupt, and a second one ends the process."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)


def interrupt_at_once(_number: int = 0, _frame: FrameType | None = None) -> NoReturn:
    """A signal handler that ends the process with its one line, without any clean-up."""
    if os.isatty(2):
        os.write(2, _SHOW_CURSOR)
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def leave(code: int) -> NoReturn:
    """End the process without the exit hooks of libraries, which take seconds.

    Everything must be committed.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # There is nobody left to say it to.
            continue
    os._exit(code)


def json_line(values: object) -> str:
    """One line of JSON, in which NaN and infinity are null: JSON has no such numbers."""
    return json.dumps(_finite(values), default=str)


def _run_module(module: str) -> int:
    for word in sys.argv[1:]:
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            rule = "is not text in this locale's encoding"
            raise InputError("argument", word, rule, "rename the file, or set LC_ALL=C.UTF-8")
    code: int = import_module(module).main()
    return code


def _with_streams(main: Callable[[], int | None]) -> int | None:
    _open_streams()
    return main()


def _open_streams() -> None:
    """Outputs that can take any text.

    Raises:
        InputError: standard output is closed.
    """
    # A closed 0, 1 or 2 would become the number of the next file that is opened.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        way_out = "send it to a file or to /dev/null"
        raise InputError("standard output", "closed", "is where results go", way_out)
    # In a locale without UTF-8 a letter such as µ becomes a question mark.
    sys.stderr.reconfigure(errors="replace")  # type: ignore[union-attr]
    raw = _StandardOutput(1, "w", closefd=False)
    encoding = sys.stdout.encoding
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors="replace", line_buffering=True
    )


class _StandardOutput(io.FileIO):
    """Standard output, whose errors are no other file's."""

    def write(self, data: bytes, /) -> int | None:  # type: ignore[override]
        """Raises OutputError."""
        try:
            return super().write(data)
        except OSError as error:
            # The exit writes what is left once more: to nowhere, so that it stays quiet.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise OutputError(error.errno, error.strerror) from None


def _code_of(command: Callable[[], int | None]) -> int:
    try:
        return command() or DONE
    except SystemExit as leaving:
        # argparse ends so, after --help and after a line of its own.
        return leaving.code if isinstance(leaving.code, int) else DONE


def _interrupt(_number: int, frame: FrameType | None) -> None:
    if _is_importing(frame) and not _has_children():
        # Nothing is being written, and libraries lose or decorate what is raised in an import.
        interrupt_at_once()
    for number in SIGNALS:
        signal.signal(number, interrupt_at_once)
    raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _has_children() -> bool:
    """Whether other processes would stay behind if this one ended without clean-up."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _end(message: str, code: int, say: Say) -> int:
    """Say it in one line."""
    line = " ".join(message.split())
    if len(line) > _LONGEST_LINE:
        line = f"{line[: _LONGEST_LINE - 3]}..."
    try:
        say(line, code)
    except OSError:
        # stderr is full or closed, too: the exit code remains.
        return code
    return code


def _text_of(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return reason
    place = str(error.filename)
    if len(place) > _LONGEST_PLACE:
        place = f"{place[:_LONGEST_PLACE]}..."
    way_out = "name a place that can be read and written"
    if error.errno == errno.ENOSPC:
        way_out = "make room there, or name another place"
    return f"{place}: {reason}; {way_out}"


def _finite(values: object) -> object:
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    if isinstance(values, Mapping):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return values
