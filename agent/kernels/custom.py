"""Bring your own kernel: a CUDA source file and a few lines of TOML are a kernel family (docs/own-kernels.md).

KernelConfig.kernel is the path of the TOML file beneath the project. Its row records path and content, `my/kernel.toml@1a2b3c4d`, so
that a kernel which was edited is not taken for the old one; a configuration that asks with the @ gets that very content or nothing.
Knobs become macros (tile_m -> -DTILE_M=128), NVRTC compiles. Reading a description and fitting it to a GEMM need no CUDA.
"""

from __future__ import annotations

import ast
import hashlib
import operator
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from agent.kernels import Prepared
from agent.operands import Operands
from gemmcast.config import FAMILIES, KNOBS, KernelConfig
from gemmcast.errors import InputError, MeasurementError
from gemmcast.gemm import DTYPES, LAYOUTS, Gemm

ROOT = Path(__file__).resolve().parents[2]
# the project, which Ray ships to every node
ELEMENTS = {"fp64": "double", "fp32": "float", "tf32": "float", "fp16": "__half", "bf16": "__nv_bfloat16"}
OPERATIONS: Final[dict[type[ast.operator], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.floordiv, ast.FloorDiv: operator.floordiv,
}  # fmt: skip
# whole numbers only, so / rounds down: C's / for the positive
MAX_THREADS, MAX_GRID_X, MAX_GRID_YZ = 1024, 2**31 - 1, 65535
TILED_GRID = ("(n + TILE_N - 1) / TILE_N", "(m + TILE_M - 1) / TILE_M")
PAGE = "correct the description (docs/own-kernels.md)"


def _text(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Expression = Annotated[str, Field(min_length=1, max_length=200), BeforeValidator(_text)]
# arithmetic with knobs as their macros are called, and ELEMENT_BYTES; a bare number, too
KnobValue = Annotated[int, Field(strict=True, ge=1, lt=2**24)]


class Description(BaseModel):
    """The TOML file. Frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    # path of the CUDA source, from the TOML file's folder
    block: Annotated[tuple[Expression, ...], Field(min_length=1, max_length=3), BeforeValidator(_list)]
    # threads of one block: one number, or x, y and z
    knobs: dict[str, Annotated[tuple[KnobValue, ...], Field(min_length=1), BeforeValidator(_list)]] = Field(default_factory=dict)
    # knob -> its values; the first is what 0, "not said", means
    grid: tuple[Expression, Expression] | None = None
    # blocks along x and y, with m, n and k to reckon with; z is always the batch. None: one block a tile of C
    smem: Expression = "0"
    # bytes of dynamic shared memory
    entry: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "gemm"
    # the kernel's name in the source
    dtypes: Annotated[tuple[str, ...], Field(min_length=1)] = ("fp32",)
    layouts: Annotated[tuple[str, ...], Field(min_length=1)] = ("nn",)


@dataclass(frozen=True, slots=True)
class Own:
    """A description with its source, as they lie on the disk now."""

    name: str
    # path@digest
    description: Description
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A description, fitted to one GEMM and configuration: all that a launch needs."""

    knobs: dict[str, int]
    grid: tuple[int, int, int]
    block: tuple[int, ...]
    smem_bytes: int
    # dynamic
    options: tuple[str, ...]
    # NVRTC's

    @property
    def threads(self) -> int:
        return prod(self.block)


def read_own(kernel: str, root: Path = ROOT) -> Own:
    """Raises InputError for a path or a description that is not good, and where `kernel` asks for another content than there is."""
    path, _, asked = kernel.partition("@")
    if not path:
        raise InputError("kernel", kernel, "family own multiplies with a kernel of yours", "name its description: examples/kernels/tiled_vec4.toml")
    toml = _beneath("kernel", root, root, path)
    raw = toml.read_bytes()
    description = parse_own(raw, path)
    source = _beneath("source", root, toml.parent, description.source).read_bytes()
    digest = hashlib.sha256(b"%d:%b%b" % (len(raw), raw, source)).hexdigest()[:8]
    if asked not in ("", digest):
        raise InputError("kernel", kernel, f"the files have changed, they are @{digest} now", "bring the old ones back, or leave the @ out")
    return Own(f"{path}@{digest}", description, _decoded("source", description.source, source))


def parse_own(raw: bytes, path: str) -> Description:
    try:
        found = Description.model_validate(tomllib.loads(_decoded("kernel", path, raw)))
    except tomllib.TOMLDecodeError as error:
        raise InputError("kernel", path, f"not TOML ({error})", "correct that line") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise InputError(field, first["input"], "unknown key", f"remove it, or use one of {', '.join(Description.model_fields)}") from None
        if first["type"] == "missing":
            raise InputError(field, None, "missing", "add it to the description (docs/own-kernels.md)") from None
        raise InputError(field, first["input"], first["msg"][0].lower() + first["msg"][1:], PAGE) from None
    known = {"knobs": KNOBS, "dtypes": [dtype for dtype in FAMILIES["custom"].dtypes if dtype in ELEMENTS], "layouts": LAYOUTS}
    for field, names in known.items():
        for name in getattr(found, field):
            if name not in names:
                raise InputError(field, name, "unknown", f"use {', '.join(names)}")
    if found.grid is None and not {"tile_m", "tile_n"} <= set(found.knobs):
        raise InputError("grid", None, "missing, and without knobs tile_m and tile_n there is no usual one", 'add grid = ["blocks in x", "in y"]')
    return found


def _decoded(field: str, path: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(field, path, f"not UTF-8 ({error.reason} at byte {error.start})", "save it as UTF-8") from None


def _beneath(field: str, root: Path, folder: Path, name: str) -> Path:
    """A file of the project: plans are shipped around, and must not reach elsewhere."""
    found = (folder / name).resolve()
    if Path(name).is_absolute() or not found.is_relative_to(root.resolve()):
        raise InputError(field, name, "leads out of the project", f"give a path beneath {root}")
    if not found.is_file():
        raise InputError(field, name, f"no such file in {folder}", "correct the path; it must lie in the project, which is what agents are sent")
    return found


def evaluate(field: str, text: str, names: Mapping[str, int]) -> int:
    """Arithmetic of whole numbers: + - * / ( ) and the names; nothing of Python but its grammar. Raises InputError."""

    def value(node: ast.AST) -> int:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        if isinstance(node, ast.Name) and node.id in names:
            return names[node.id]
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
            return int(OPERATIONS[type(node.op)](value(node.left), value(node.right)))
        raise InputError(field, text, f"can't reckon with {ast.unparse(node)}", f"use whole numbers, + - * / ( ) and {', '.join(names)}")

    try:
        tree = ast.parse(" ".join(text.split()), mode="eval")
    except (SyntaxError, ValueError):  # ValueError: a null byte
        raise InputError(field, text, "no arithmetic", f"use whole numbers, + - * / ( ) and {', '.join(names)}") from None
    try:
        return value(tree.body)
    except ZeroDivisionError:
        raise InputError(field, text, "divides by zero", PAGE) from None


def fit(own: Own, gemm: Gemm, config: KernelConfig) -> Fitted:
    """Raises MeasurementError for what the kernel does not multiply, InputError for a description that comes to nothing sensible."""
    description = own.description
    for what, asked, known in (("dtype", gemm.dtype, description.dtypes), ("layout", gemm.layout, description.layouts)):
        if asked not in known:
            raise MeasurementError("unsupported", f"{own.name} has no {what} {asked} (it has {', '.join(known)})")
    knobs = _knobs(own, config)
    names = {"ELEMENT_BYTES": DTYPES[gemm.dtype].in_bytes, **{name.upper(): value for name, value in knobs.items()}}
    block = tuple(evaluate("block", text, names) for text in description.block)
    smem_bytes = evaluate("smem", description.smem, names)
    sizes = {"m": gemm.m, "n": gemm.n, "k": gemm.k}
    x, y = (evaluate("grid", text, {**names, **sizes}) for text in description.grid or TILED_GRID)
    if min(block) < 1 or prod(block) > MAX_THREADS:
        raise InputError("block", block, f"a block has 1 to {MAX_THREADS} threads", PAGE)
    if smem_bytes < 0 or min(x, y) < 1:
        raise InputError("grid and smem", (x, y, smem_bytes), "less than there can be", PAGE)
    if x > MAX_GRID_X or max(y, gemm.batch) > MAX_GRID_YZ:
        raise MeasurementError("unsupported", f"grid {(x, y, gemm.batch)} is over CUDA's limit of {MAX_GRID_YZ} blocks in y and z")
    if config.block_threads not in (0, prod(block)):
        raise MeasurementError("unsupported", f"{own.name} has blocks of {prod(block)} threads here, not {config.block_threads}")
    kind = {"ELEMENT": ELEMENTS[gemm.dtype], "SCALAR": "double" if gemm.dtype == "fp64" else "float", f"DTYPE_{gemm.dtype.upper()}": 1}
    macros = {**names, **kind, "TRANS_A": int(gemm.layout[0] == "t"), "TRANS_B": int(gemm.layout[1] == "t")}
    options = tuple(f"-D{name}={value}" for name, value in macros.items())
    return Fitted(knobs=knobs, grid=(x, y, gemm.batch), block=block, smem_bytes=smem_bytes, options=options)


def _knobs(own: Own, config: KernelConfig) -> dict[str, int]:
    """Every knob of the description with its value."""
    known = own.description.knobs
    for name in KNOBS:
        asked, values = getattr(config, name), known.get(name, ())
        if asked and asked not in values and (values or name != "block_threads"):  # threads are recorded, so they are asked for again
            raise MeasurementError("unsupported", f"{own.name} has no {name}={asked} (it has {', '.join(map(str, values)) or 'no such knob'})")
    return {name: getattr(config, name) or values[0] for name, values in known.items()}


def first_error(log: str, source: str) -> str:
    """The first error of NVRTC's log; the file has a name of CuPy's there, which helps nobody."""
    found = re.search(r"^.*?\((\d+)\): (?:catastrophic )?(error.*)$", log, re.MULTILINE)
    return f"{source}, line {found[1]}: {found[2].strip()}" if found else f"{source}: {(log.strip() or 'no reason given').splitlines()[0]}"


@cache
def _compiled(source: str, name: str, entry: str, options: tuple[str, ...], threads: int, smem_bytes: int) -> tuple[Any, dict[str, Any]]:
    """The kernel and its static facts. Cached by content: nothing is compiled twice, nothing stale is launched."""
    import cupy

    kernel = cupy.RawKernel(source, entry, options=options)
    try:
        kernel.compile()
    except cupy.cuda.compiler.CompileException as error:
        raise MeasurementError("cuda_error", f"NVRTC can't compile {first_error(str(error), name)}") from None
    except cupy.cuda.driver.CUDADriverError as error:
        raise MeasurementError("cuda_error", f'{name} has no extern "C" __global__ void {entry}, or it does not load: {error}') from None
    limit_bytes = cupy.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"] - kernel.shared_size_bytes
    if smem_bytes > limit_bytes:
        raise MeasurementError("unsupported", f"{name} wants {smem_bytes} bytes of dynamic shared memory, this GPU has {limit_bytes} left for it")
    if threads > kernel.max_threads_per_block:
        regs, most = kernel.num_regs, kernel.max_threads_per_block
        raise MeasurementError("unsupported", f"{name} has {regs} registers a thread, so at most {most} threads a block, not {threads}")
    if smem_bytes:
        kernel.max_dynamic_shared_size_bytes = smem_bytes
    blocks = cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(kernel.kernel.ptr, threads, smem_bytes)
    resident = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())["maxThreadsPerMultiProcessor"]
    return kernel, {
        "regs": kernel.num_regs,
        "smem_bytes": kernel.shared_size_bytes + smem_bytes,
        "spill_bytes": kernel.local_size_bytes,
        "occupancy": blocks * threads / resident,
        "block_threads": threads,
        "kernel": name,
    }


class OwnKernels:
    """Whatever lies in the project."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root

    def prepare(self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]) -> Prepared:
        try:
            own = read_own(config.kernel, self._root)
            fitted = fit(own, gemm, config)
        except InputError as error:
            raise MeasurementError("unsupported", f"{config.kernel}: {error}") from None
        kernel, facts = _compiled(own.source, own.name, own.description.entry, fitted.options, fitted.threads, fitted.smem_bytes)
        from agent.kernels.launch import gemm_launcher

        launch = gemm_launcher(kernel, fitted.grid, (*fitted.block, 1, 1)[:3], gemm, sets, fitted.smem_bytes)
        return Prepared(launch, {**fitted.knobs, **facts})


FAMILY = OwnKernels()
