"""The TOML file of a custom kernel and the source beside it, as they are on the disk now.

A kernel's name is `path@digest`; the digest is over both files. Paths must not leave the project,
which is what Ray ships to every node. Needs no CUDA.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gemmcast.config import FAMILIES, KNOBS
from gemmcast.errors import InputError
from gemmcast.gemm import LAYOUTS
from gemmcast.renames import CUSTOM_KNOBS, renamed

PROJECT: Final = Path(__file__).resolve().parents[3]
"""The folder that Ray ships to every node."""
ELEMENT_TYPES: Final = {
    "fp64": "double",
    "fp32": "float",
    "tf32": "float",
    "fp16": "__half",
    "bf16": "__nv_bfloat16",
}
"""dtype -> type of an element in CUDA."""
CORRECT_IT: Final = "correct the description (docs/custom-kernels.md)"


def _text(value: object) -> object:
    """A bare number is an expression, too."""
    return str(value) if type(value) is int else value


def _list(value: object) -> object:
    return value if isinstance(value, list) else [value]


Expression = Annotated[str, Field(min_length=1, max_length=200), BeforeValidator(_text)]
"""Arithmetic with the knobs as their macros are called, and ELEMENT_BYTES; or a number."""
KnobValue = Annotated[int, Field(strict=True, ge=1, lt=2**24)]
KnobValues = Annotated[tuple[KnobValue, ...], Field(min_length=1), BeforeValidator(_list)]
BlockExpressions = Annotated[
    tuple[Expression, ...], Field(min_length=1, max_length=3), BeforeValidator(_list)
]
Names = Annotated[tuple[str, ...], Field(min_length=1)]


class Description(BaseModel):
    """The TOML file. Frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    """Path of the CUDA source, from the TOML file's folder."""
    block: BlockExpressions
    """Threads of one block: one number, or along x, y and z."""
    knobs: dict[str, KnobValues] = Field(default_factory=dict)
    """Knob -> its values; the first is taken where a configuration leaves the knob 0."""
    grid: tuple[Expression, Expression] | None = None
    """Blocks along x and y; m, n and k may stand in it. Along z it is always the batch. None: one
    block for each tile of C."""
    smem: Expression = "0"
    """Dynamic shared memory of one block. [bytes]"""
    entry: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "gemm"
    """The kernel's name in the source."""
    dtypes: Names = ("fp32",)
    """What it multiplies: some of ELEMENT_TYPES."""
    layouts: Names = ("nn",)
    """Some of gemmcast.gemm.LAYOUTS."""


@dataclass(frozen=True, slots=True)
class CustomKernel:
    """A description with its source."""

    name: str
    """`path@digest`."""
    description: Description
    source: str
    """The text."""


def read_custom(kernel: str, root: Path = PROJECT) -> CustomKernel:
    """Read a description and its source.

    Args:
        kernel: path of the description from `root`, with or without `@digest`.
        root: the project's folder.

    Raises:
        InputError: a bad path or description, or files of another content than `@digest`.
    """
    path, _, wanted_digest = kernel.partition("@")
    if not path:
        way_out = "name its description: examples/kernels/tiled_vec4.toml"
        raise InputError("kernel", kernel, "family custom multiplies with your kernel", way_out)
    toml = _path_in(root, root, path, field="kernel")
    raw = toml.read_bytes()
    description = parse_custom(raw, path)
    source = _path_in(root, toml.parent, description.source, field="source").read_bytes()
    digest = hashlib.sha256(b"%d:%b%b" % (len(raw), raw, source)).hexdigest()[:8]
    if wanted_digest not in ("", digest):
        rule = f"the files have changed, they are @{digest} now"
        raise InputError("kernel", kernel, rule, "restore the old ones, or leave the @ out")
    text = _decoded("source", description.source, source)
    return CustomKernel(f"{path}@{digest}", description, text)


def parse_custom(raw: bytes, path: str) -> Description:
    """The description in a TOML file.

    Args:
        raw: the file's content.
        path: its name, for messages.

    Raises:
        InputError: names the key, its value and the way out.
    """
    try:
        values = tomllib.loads(_decoded("kernel", path, raw))
        if isinstance(values.get("knobs"), dict):
            values["knobs"] = renamed(values["knobs"], CUSTOM_KNOBS)
        description = Description.model_validate(values)
    except tomllib.TOMLDecodeError as error:
        raise InputError("kernel", path, f"not TOML ({error})", "correct that line") from None
    except ValidationError as error:
        raise _input_error(error) from None
    _check_names(description)
    has_tiles = {"tile_m", "tile_n"} <= set(description.knobs)
    if description.grid is None and not has_tiles:
        rule = "missing, and without knobs tile_m and tile_n it has no default"
        raise InputError("grid", None, rule, 'add grid = ["blocks in x", "in y"]')
    return description


def _input_error(error: ValidationError) -> InputError:
    """Pydantic's first complaint in our words."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        keys = ", ".join(Description.model_fields)
        return InputError(field, first["input"], "unknown key", f"remove it, or use one of {keys}")
    if first["type"] == "missing":
        way_out = "add it to the description (docs/custom-kernels.md)"
        return InputError(field, None, "missing", way_out)
    message = first["msg"]
    return InputError(field, first["input"], message[0].lower() + message[1:], CORRECT_IT)


def _check_names(description: Description) -> None:
    dtypes = [dtype for dtype in FAMILIES["custom"].dtypes if dtype in ELEMENT_TYPES]
    _check_known("knobs", list(description.knobs), KNOBS)
    _check_known("dtypes", description.dtypes, dtypes)
    _check_known("layouts", description.layouts, LAYOUTS)


def _check_known(field: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise InputError(field, name, "unknown", f"use {', '.join(known)}")


def _decoded(field: str, path: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        rule = f"not UTF-8 ({error.reason} at byte {error.start})"
        raise InputError(field, path, rule, "save it as UTF-8") from None


def _path_in(root: Path, folder: Path, name: str, *, field: str) -> Path:
    """A file of the project: plans are shipped to other machines and must not read files there."""
    path = (folder / name).resolve()
    if Path(name).is_absolute() or not path.is_relative_to(root.resolve()):
        raise InputError(field, name, "leads out of the project", f"give a path beneath {root}")
    if not path.is_file():
        way_out = "correct the path; it must lie in the project, which is what agents are sent"
        raise InputError(field, name, f"no such file in {folder}", way_out)
    return path
