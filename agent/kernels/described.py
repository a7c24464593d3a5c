"""Kernels that are described by a TOML file with a source beside it: what all descriptions share.

A kernel's name is `path@digest`; the digest is over both files. Paths must not leave the project,
which is what Ray ships to every node. Needs no CUDA.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from gemmcast.config import KNOBS, KernelConfig
from gemmcast.errors import InputError, MeasurementError

PROJECT: Final = Path(__file__).resolve().parents[2]
"""The folder that Ray ships to every node."""

AnyDescription = TypeVar("AnyDescription", bound=BaseModel)


def _text(value: object) -> object:
    """A bare number is an expression, too."""
    return str(value) if type(value) is int else value


def as_list(value: object) -> object:
    """A bare value is a list of one."""
    return value if isinstance(value, list) else [value]


Expression = Annotated[str, Field(min_length=1, max_length=200), BeforeValidator(_text)]
"""Arithmetic (arithmetic.py), or a number."""
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
KnobValue = Annotated[int, Field(strict=True, ge=1, lt=2**24)]
KnobValues = Annotated[tuple[KnobValue, ...], Field(min_length=1), BeforeValidator(as_list)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class DescribedFiles:
    """A description and its source, as they are on the disk now."""

    toml: bytes
    """The description's content."""
    source: Path
    source_bytes: bytes

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits over both."""
        content = b"%d:%b%b" % (len(self.toml), self.toml, self.source_bytes)
        return hashlib.sha256(content).hexdigest()[:8]

    def check_digest(self, kernel: str, digest: str) -> None:
        """Raise InputError where the files have another content than the one that is named."""
        if digest not in ("", self.digest):
            rule = f"the files have changed, they are @{self.digest} now"
            raise InputError("kernel", kernel, rule, "restore the old ones, or leave the @ out")


def parse_description(
    raw: bytes, path: str, model: type[AnyDescription], page: str
) -> AnyDescription:
    """The description in a TOML file.

    Args:
        raw: the file's content.
        path: its name, for messages.
        page: of the documentation, for messages.

    Raises:
        InputError: names the key, its value and the way out.
    """
    try:
        return model.model_validate(tomllib.loads(decoded("kernel", path, raw)))
    except ValidationError as error:
        raise _input_error(error, model, page) from None
    # ValueError, too: a number of thousands of digits. RecursionError: thousands of brackets.
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError("kernel", path, f"not TOML ({error})", "correct that line") from None


def _input_error(error: ValidationError, model: type[BaseModel], page: str) -> InputError:
    """Pydantic's first complaint in our words."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        keys = ", ".join(model.model_fields)
        return InputError(field, first["input"], "unknown key", f"remove it, or use one of {keys}")
    if first["type"] == "missing":
        return InputError(field, None, "missing", f"add it to the description ({page})")
    rule = first["msg"].removeprefix("Value error, ")
    rule = rule[0].lower() + rule[1:]
    return InputError(field, first["input"], rule, f"correct the description ({page})")


def check_known(field: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise InputError for the first name that is not known."""
    for name in names:
        if name not in known:
            raise InputError(field, name, "unknown", f"use {', '.join(known)}")


def check_listed(kernel: str, what: str, value: str, listed: Sequence[str]) -> None:
    """Raise MeasurementError "unsupported" where a kernel does not list the value."""
    if value not in listed:
        reason = f"{kernel} has no {what} {value} (it has {', '.join(listed)})"
        raise MeasurementError("unsupported", reason)


def chosen_knobs(
    kernel: str, listed: Mapping[str, tuple[int, ...]], config: KernelConfig
) -> dict[str, int]:
    """Every knob of a description: as configured, or else its first value.

    Args:
        kernel: its name, for messages.
        listed: knob of a KernelConfig -> its values.

    Raises:
        MeasurementError: "unsupported" for a value that is not listed.
    """
    for name in KNOBS:
        wanted = getattr(config, name)
        values = listed.get(name, ())
        if not wanted or wanted in values:
            continue
        if not values and (name == "block_threads" or (name, wanted) == ("split_k", 1)):
            # Rows record them for every kernel, so a recorded configuration has them.
            continue
        shown = ", ".join(map(str, values)) or "no such knob"
        raise MeasurementError("unsupported", f"{kernel} has no {name}={wanted} (it has {shown})")
    return {name: getattr(config, name) or values[0] for name, values in listed.items()}


def decoded(field: str, path: str, raw: bytes) -> str:
    """The text of a file. Raises InputError where it is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        rule = f"not UTF-8 ({error.reason} at byte {error.start})"
        raise InputError(field, path, rule, "save it as UTF-8") from None


def path_in(root: Path, folder: Path, name: str, *, field: str) -> Path:
    """A file of the project: plans are shipped to other machines and must not read files there.

    Raises:
        InputError: it leads out of `root`, or is no file.
    """
    path = (folder / name).resolve()
    if Path(name).is_absolute() or not path.is_relative_to(root.resolve()):
        raise InputError(field, name, "leads out of the project", f"give a path beneath {root}")
    if not path.is_file():
        way_out = "correct the path; it must lie in the project, which is what agents are sent"
        raise InputError(field, name, f"no such file in {folder}", way_out)
    return path
