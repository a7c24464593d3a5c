"""The TOML file of a Triton kernel and the source beside it: one of ours, or one of a project.

Ours lie in sources/ and are named by a word (`matmul`). Those of a project are named by the path of
their TOML file, and recorded as `path@digest`. Needs neither Triton nor CUDA.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from agent.kernels.described import (
    PROJECT,
    DescribedFiles,
    Expression,
    Identifier,
    KnobValues,
    Names,
    as_list,
    check_known,
    parse_description,
    path_in,
)
from gemmcast.config import FAMILIES, FIELD_KNOBS, KNOBS, TRITON_KERNELS
from gemmcast.errors import InputError
from gemmcast.gemm import LAYOUTS

SOURCES: Final = Path(__file__).resolve().parent / "sources"
"""Where our kernels are."""
SCALES: Final = ("a_scales", "b_scales")
"""Of scaled operands (scales.py)."""
ROUTING: Final = ("rows", "experts", "padded")
"""Of a mixture of experts (routing.py)."""
POINTERS: Final = ("a", "b", "c", *SCALES, *ROUTING)
"""What an argument may point to."""
PAGE: Final = "docs/triton.md"
CORRECT_IT: Final = f"correct the description ({PAGE})"
USUAL_WARPS: Final = 4
USUAL_STAGES: Final = 3
"""Triton's, where a kernel has no such knob."""

GridExpressions = Annotated[
    tuple[Expression, ...], Field(min_length=1, max_length=3), BeforeValidator(as_list)
]


class Description(BaseModel):
    """The TOML file. Frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    """Path of the Python file, from the TOML file's folder."""
    entry: Identifier
    """Name of the `@triton.jit` function in it."""
    grid: GridExpressions
    """Blocks along x, y and z; m, n, k and batch may stand in it. Without `batch` the kernel
    multiplies one matrix at a time."""
    arguments: dict[Identifier, Expression]
    """Parameter -> what it is given at each launch: one of POINTERS, or arithmetic. In the order of
    the function's parameters, pointers first."""
    constants: dict[Identifier, Expression] = Field(default_factory=dict)
    """Parameter -> what it is when the kernel is compiled: arithmetic of knobs."""
    multiples_of_16: tuple[str, ...] = ()
    """Arguments that Triton may take for multiples of 16. A problem in which one is none is not
    multiplied."""
    knobs: dict[str, KnobValues] = Field(default_factory=dict)
    """Knob -> its values; the first is taken where a configuration leaves the knob 0."""
    dtypes: Names
    """Some of the family's."""
    layouts: Names = ("nt",)
    """Some of gemmcast.gemm.LAYOUTS."""

    @model_validator(mode="after")
    def _pointers_come_first(self) -> Self:
        are_pointers = [text in POINTERS for text in self.arguments.values()]
        if are_pointers != sorted(are_pointers, reverse=True):
            raise ValueError("arguments: pointers come before numbers")
        if not {"a", "b", "c"} <= set(self.arguments.values()):
            raise ValueError("arguments: a, b and c are needed")
        if self.is_grouped and "tile_m" not in self.knobs:
            raise ValueError("knobs: rows are sorted into tiles, so tile_m is needed")
        return self

    @property
    def pointers(self) -> tuple[str, ...]:
        """What the first arguments point to."""
        return tuple(text for text in self.arguments.values() if text in POINTERS)

    @property
    def numbers(self) -> dict[str, str]:
        """Parameter -> arithmetic, of the arguments that are no pointers."""
        return {name: text for name, text in self.arguments.items() if text not in POINTERS}

    @property
    def is_scaled(self) -> bool:
        """Whether blocks of A and B have scales."""
        return bool(set(SCALES) & set(self.pointers))

    @property
    def is_grouped(self) -> bool:
        """Whether rows are sorted by expert."""
        return bool(set(ROUTING) & set(self.pointers))

    @property
    def listed_knobs(self) -> dict[str, tuple[int, ...]]:
        """The values of each knob of a KernelConfig."""
        listed = {}
        for written, values in self.knobs.items():
            knob, unit = FIELD_KNOBS.get(written, (written, 1))
            listed[knob] = tuple(unit * value for value in values)
        return listed


@dataclass(frozen=True, slots=True)
class TritonKernel:
    """A description with its source."""

    name: str
    """Of ours, or `path@digest`."""
    description: Description
    files: DescribedFiles

    @property
    def source(self) -> Path:
        """The Python file."""
        return self.files.source

    @property
    def digest(self) -> str:
        """Of description and source."""
        return self.files.digest


def read_triton(kernel: str, root: Path = PROJECT) -> TritonKernel:
    """Read a description and its source.

    Args:
        kernel: one of TRITON_KERNELS; or the path of a description from `root`, with or without
            `@digest`. Empty: the first of ours.
        root: the project's folder.

    Raises:
        InputError: a bad name, path or description, or files of another content than `@digest`.
    """
    name = kernel or TRITON_KERNELS[0]
    if name in TRITON_KERNELS:
        files, description = _read(SOURCES, f"{name}.toml")
        return TritonKernel(name, description, files)
    path, _, digest = name.partition("@")
    if not path.endswith(".toml"):
        way_out = f"use one of {', '.join(TRITON_KERNELS)}, or the path of a description (.toml)"
        raise InputError("kernel", kernel, "no such Triton kernel", way_out)
    files, description = _read(root, path)
    files.check_digest(kernel, digest)
    return TritonKernel(f"{path}@{files.digest}", description, files)


def _read(root: Path, path: str) -> tuple[DescribedFiles, Description]:
    toml = path_in(root, root, path, field="kernel")
    raw = toml.read_bytes()
    description = parse_triton(raw, path)
    source = path_in(root, toml.parent, description.source, field="source")
    return DescribedFiles(raw, source, source.read_bytes()), description


def parse_triton(raw: bytes, path: str) -> Description:
    """The description in a TOML file.

    Args:
        raw: the file's content.
        path: its name, for messages.

    Raises:
        InputError: names the key, its value and the way out.
    """
    description = parse_description(raw, path, Description, PAGE)
    check_known("knobs", list(description.knobs), (*KNOBS, *FIELD_KNOBS))
    check_known("dtypes", description.dtypes, FAMILIES["triton"].dtypes)
    check_known("layouts", description.layouts, LAYOUTS)
    check_known("multiples_of_16", description.multiples_of_16, list(description.numbers))
    twice = sorted(set(description.arguments) & set(description.constants))
    if twice:
        rule = "one parameter is an argument and a constant"
        raise InputError("constants", twice[0], rule, CORRECT_IT)
    return description
