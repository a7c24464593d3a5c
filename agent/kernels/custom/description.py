"""The TOML file of a custom kernel and the source beside it, as they are on the disk now.

A kernel's name is `path@digest`; the digest is over both files. Paths must not leave the project,
which is what Ray ships to every node. Needs no CUDA.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from agent.kernels.described import (
    PROJECT,
    DescribedFiles,
    Expression,
    Identifier,
    KnobValues,
    Names,
    as_list,
    check_known,
    decoded,
    parse_description,
    path_in,
)
from gemmcast.config import FAMILIES, KNOBS
from gemmcast.errors import InputError
from gemmcast.gemm import LAYOUTS
from gemmcast.renames import CUSTOM_KNOBS, renamed

ELEMENT_TYPES: Final = {
    "fp64": "double",
    "fp32": "float",
    "tf32": "float",
    "fp16": "__half",
    "bf16": "__nv_bfloat16",
}
"""dtype -> type of an element in CUDA."""
PAGE: Final = "docs/custom-kernels.md"
CORRECT_IT: Final = f"correct the description ({PAGE})"


BlockExpressions = Annotated[
    tuple[Expression, ...], Field(min_length=1, max_length=3), BeforeValidator(as_list)
]


class Description(BaseModel):
    """The TOML file. Frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    """Path of the CUDA source, from the TOML file's folder."""
    block: BlockExpressions
    """Threads of one block: one number, or along x, y and z."""
    knobs: dict[str, KnobValues] = Field(default_factory=dict)
    """Knob as written -> its values; the first is taken where a configuration leaves the knob 0.
    The name as written, in capitals, is its macro."""
    grid: tuple[Expression, Expression] | None = None
    """Blocks along x and y; m, n and k may stand in it. Along z it is always the batch. None: one
    block for each tile of C."""
    smem: Expression = "0"
    """Dynamic shared memory of one block. [bytes]"""
    entry: Identifier = "gemm"
    """The kernel's name in the source."""
    dtypes: Names = ("fp32",)
    """What it multiplies: some of ELEMENT_TYPES."""
    layouts: Names = ("nn",)
    """Some of gemmcast.gemm.LAYOUTS."""

    @property
    def listed_knobs(self) -> dict[str, tuple[int, ...]]:
        """The values of each knob of a KernelConfig."""
        return renamed(self.knobs, CUSTOM_KNOBS)


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
    toml = path_in(root, root, path, field="kernel")
    raw = toml.read_bytes()
    description = parse_custom(raw, path)
    source = path_in(root, toml.parent, description.source, field="source")
    files = DescribedFiles(raw, source, source.read_bytes())
    files.check_digest(kernel, wanted_digest)
    text = decoded("source", description.source, files.source_bytes)
    return CustomKernel(f"{path}@{files.digest}", description, text)


def parse_custom(raw: bytes, path: str) -> Description:
    """The description in a TOML file.

    Args:
        raw: the file's content.
        path: its name, for messages.

    Raises:
        InputError: names the key, its value and the way out.
    """
    description = parse_description(raw, path, Description, PAGE)
    _check_names(description)
    has_tiles = {"tile_m", "tile_n"} <= set(description.knobs)
    if description.grid is None and not has_tiles:
        rule = "missing, and without knobs tile_m and tile_n it has no default"
        raise InputError("grid", None, rule, 'add grid = ["blocks in x", "in y"]')
    return description


def _check_names(description: Description) -> None:
    dtypes = [dtype for dtype in FAMILIES["custom"].dtypes if dtype in ELEMENT_TYPES]
    check_known("knobs", list(description.listed_knobs), KNOBS)
    check_known("dtypes", description.dtypes, dtypes)
    check_known("layouts", description.layouts, LAYOUTS)
