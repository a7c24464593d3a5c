"""A measured table's bytes: of a file, a pipe or standard input, read once, unpacked if gzipped.

A pipe can be read only once and has neither size nor name, so every reader of a format works on
these bytes. Does not know what they mean.
"""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gemmcast.errors import InputError

MOST_BYTES: Final = 512 * 2**20
"""Of a table, packed or not. Some kilobytes of gzip may hold gigabytes."""
GZIP_START: Final = b"\x1f\x8b"
GZIP_SUFFIX: Final = ".gz"
LFS_START: Final = b"version https://git-lfs"
"""AIConfigurator's repository, for one, holds its tables in Git LFS."""
NAME_A_TABLE: Final = "name a file with a table in it"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file, read."""

    path: Path
    """As the user named it."""
    data: bytes
    """Never empty; unpacked."""
    modified: datetime
    """When the file was changed; of a pipe, now."""

    @property
    def name(self) -> str:
        """For messages and for the agent of its rows."""
        return self.path.name

    @property
    def suffix(self) -> str:
        """Of the name, without `.gz`."""
        name = self.path.with_suffix("") if self.path.suffix == GZIP_SUFFIX else self.path
        return name.suffix

    def text(self) -> str:
        """The bytes as UTF-8, without a byte order mark.

        Raises:
            UnicodeDecodeError: they are something else.
        """
        return self.data.decode("utf-8-sig")

    def refused(self, rule: str, way_out: str = NAME_A_TABLE) -> InputError:
        """The error that the file breaks a rule."""
        return InputError("FILE", str(self.path), rule, way_out)


def read_source(path: Path) -> SourceFile:
    """Everything in a file or pipe.

    Raises:
        InputError: there is no such file, it is empty, too large, a mere pointer to one, or its
            compression is damaged.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        is_pipe = not path.is_file()
        modified_s = datetime.now(UTC).timestamp() if is_pipe else path.stat().st_mtime
    except OSError as error:
        rule = f"can't be read ({error.strerror})"
        raise InputError("FILE", str(path), rule, "name a file that is there") from None
    _check_size(data, path)
    if data.startswith(GZIP_START):
        data = _unpacked(data, path)
    if data.startswith(LFS_START):
        rule = "is a pointer of Git LFS, not the file itself"
        raise InputError("FILE", str(path), rule, "fetch the file: git lfs pull")
    if not data.strip():
        raise InputError("FILE", str(path), "is empty", NAME_A_TABLE)
    return SourceFile(path=path, data=data, modified=datetime.fromtimestamp(modified_s, UTC))


def _check_size(data: bytes, path: Path) -> None:
    if len(data) > MOST_BYTES:
        rule = f"has, or unpacks to, more than {MOST_BYTES // 2**20} MiB"
        raise InputError("FILE", str(path), rule, "split the table")


def _unpacked(data: bytes, path: Path) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as file:
            unpacked = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        way_out = "it is cut short or damaged: fetch it again"
        raise InputError("FILE", str(path), f"can't be unpacked ({error})", way_out) from None
    _check_size(unpacked, path)
    return unpacked
