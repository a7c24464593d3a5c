"""Custom kernels: descriptions, their arithmetic, paths that must not lead out, fitting."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from agent.kernels import load, refuse
from agent.kernels.arithmetic import evaluate
from agent.kernels.custom import CustomKernels, first_error, fit, read_custom
from agent.kernels.custom.description import Description, parse_custom
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import read_plan
from gemmcast.config import FAMILIES, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError, MeasurementError
from gemmcast.gemm import Gemm

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = "examples/kernels/tiled_vec4.toml"
TOML = 'source = "mine.cu"\nblock = "TILE_M * TILE_N"\nknobs = { tile_m = [16, 8], tile_n = 16 }\n'
BLOCK = '"TILE_M * TILE_N"'
WriteKernel = Callable[..., str]


def _config(kernel: str = EXAMPLE, **knobs: int) -> KernelConfig:
    return KernelConfig(family="custom", kernel=kernel, **knobs)


@pytest.fixture
def mine(tmp_path: Path) -> WriteKernel:
    """Writes a description and its source; its path beneath tmp_path."""

    def write(toml: str = TOML, source: str = "// nothing\n") -> str:
        (tmp_path / "my").mkdir(exist_ok=True)
        (tmp_path / "my" / "kernel.toml").write_text(toml)
        (tmp_path / "my" / "mine.cu").write_text(source)
        return "my/kernel.toml"

    return write


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("TILE_M * 2", 256),
        ("(n + TILE_M - 1) / TILE_M", 3),
        ("(n+127)//TILE_M-1", 2),
        ("2 * (3 + 4) * TILE_M / 8", 224),
        (" 1 +\n1 ", 2),
    ],
)
def test_arithmetic_is_that_of_whole_numbers(text: str, value: int) -> None:
    assert evaluate("grid", text, {"TILE_M": 128, "n": 300}) == value


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("TILE_K", "cannot evaluate TILE_K"),
        ("2.5", "cannot evaluate 2.5"),
        ("True", "cannot evaluate True"),
        ("TILE_M ** 9", r"cannot evaluate TILE_M \*\* 9"),
        ("-TILE_M", "cannot evaluate -TILE_M"),
        ("TILE_M % 3", "cannot evaluate TILE_M % 3"),
        ("__import__('os').system('ls')", "cannot evaluate __import__"),
        ("(lambda: 1)()", r"cannot evaluate \(lambda"),
        ("[1][0]", r"cannot evaluate \[1\]\[0\]"),
        ("1 if TILE_M else 2", "cannot evaluate 1 if"),
        ("x := 1", "no arithmetic"),
        ("1 +", "no arithmetic"),
        ("1\0", "no arithmetic"),
        ("(" * 190 + "1", "no arithmetic"),
        ("", "no arithmetic"),
        ("1 / (TILE_M - 128)", "divides by zero"),
    ],
)
def test_nothing_else_is_evaluated(text: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        evaluate("block", text, {"TILE_M": 128})


def test_three_lines_are_enough() -> None:
    raw = (ROOT / EXAMPLE).read_bytes()
    assert len(raw.splitlines()) == 3
    assert len(tomllib.loads(raw.decode())) == 3
    assert parse_custom(raw, EXAMPLE).model_dump() == {
        "source": "tiled_vec4.cu",
        "block": ("(TILE_M / 8) * (TILE_N / 8)",),
        "knobs": {"tile_m": (128, 64), "tile_n": (128, 64), "tile_k": (8, 16)},
        "grid": None,
        "smem": "0",
        "entry": "gemm",
        "dtypes": ("fp32",),
        "layouts": ("nn",),
    }


def test_a_number_stands_for_a_list_of_one() -> None:
    lines = [
        'source = "x.cu"',
        'block = [32, "8"]',
        'grid = ["n", 1]',
        "smem = 512",
        "knobs = { stages = 3 }",
    ]
    description = parse_custom("\n".join(lines).encode(), "x.toml")
    assert description.block == ("32", "8")
    assert description.grid == ("n", "1")
    assert description.smem == "512"
    assert description.knobs == {"stages": (3,)}


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("source = ", r"kernel = 'x.toml': not TOML \(.*\); correct that line"),
        ('block = 1\nsource = "\xff"', "kernel = 'x.toml': not UTF-8"),
        ("block = 1", "source = None: missing; add it to the description"),
        ('source = "x.cu"', "block = None: missing"),
        (
            TOML + "blocks = 3",
            "blocks = 3: unknown key; remove it, or use one of "
            "source, block, knobs, grid, smem, entry, dtypes, layouts",
        ),
        (TOML.replace('"mine.cu"', "3"), "source = 3: input should be a valid string"),
        (TOML.replace(BLOCK, "[1, 2, 3, 4]"), "block = .*at most 3 items"),
        (TOML.replace(BLOCK, "1.5"), "block.0 = 1.5: input should be a valid string"),
        (
            TOML.replace(BLOCK, '"' + "1+" * 200 + '1"'),
            "block.0 = .*at most 200 characters",
        ),
        (TOML + 'entry = "gemm<float>"', "entry = 'gemm<float>': string should match pattern"),
        (TOML + 'grid = "n"', "grid = 'n': input should be a valid tuple"),
        (
            TOML + 'dtypes = ["fp32", "fp8_e4m3"]',
            "dtypes = 'fp8_e4m3': unknown; use fp64, fp32, tf32, fp16, bf16",
        ),
        (TOML + 'layouts = ["tnt"]', "layouts = 'tnt': unknown; use nn, nt, tn, tt"),
        (TOML.replace("tile_m", "tile_x"), "knobs = 'tile_x': unknown; use tile_m, tile_n"),
        (TOML.replace("[16, 8]", "[]"), "knobs.tile_m = .*at least 1 item"),
        (
            TOML.replace("[16, 8]", '["16"]'),
            "knobs.tile_m.0 = '16': input should be a valid integer",
        ),
        (
            TOML.replace("[16, 8]", "[0]"),
            "knobs.tile_m.0 = 0: input should be greater than or equal to 1",
        ),
        (
            TOML.replace("[16, 8]", "[true]"),
            "knobs.tile_m.0 = True: input should be a valid integer",
        ),
        (
            TOML.replace("tile_m", "stages"),
            "grid = None: missing, and without knobs tile_m and tile_n .*; add grid",
        ),
    ],
)
def test_the_message_says_what_is_wrong_with_a_description(toml: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_custom(toml.encode("latin-1"), "x.toml")


def test_a_description_is_frozen() -> None:
    description: Any = parse_custom(TOML.encode(), "x.toml")
    with pytest.raises(ValueError, match="frozen"):
        description.entry = "other"
    assert isinstance(description, Description)


def test_the_name_goes_with_the_content_of_both_files(tmp_path: Path, mine: WriteKernel) -> None:
    first = read_custom(mine(), tmp_path)
    assert re.fullmatch(r"my/kernel\.toml@[0-9a-f]{8}", first.name)
    assert read_custom(mine(), tmp_path) == first
    # As a row has it.
    assert read_custom(first.name, tmp_path) == first
    other_source = read_custom(mine(source="// other\n"), tmp_path)
    other_toml = read_custom(mine(TOML + "\n"), tmp_path)
    assert len({first.name, other_source.name, other_toml.name}) == 3
    rule = r"the files have changed, they are @[0-9a-f]{8} now"
    with pytest.raises(InputError, match=f"{rule}; restore the old ones, or leave the @ out"):
        read_custom(first.name, tmp_path)


def test_the_name_of_the_example_is_that_of_recorded_rows() -> None:
    assert read_custom(EXAMPLE).name == f"{EXAMPLE}@fd39bccb"


@pytest.mark.parametrize(
    "path", ["../kernel.toml", "my/../../kernel.toml", "/etc/hostname", "link/kernel.toml"]
)
def test_nothing_leads_out_of_the_project(path: str, tmp_path: Path, mine: WriteKernel) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name in ("kernel.toml", "mine.cu"):
        (tmp_path / name).write_text(TOML)
    (project / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leads out of the project; give a path beneath"):
        read_custom(path, project)
    (project / "kernel.toml").write_text(TOML.replace("mine.cu", path))
    with pytest.raises(InputError, match="source = .*: leads out of the project"):
        read_custom("kernel.toml", project)


def test_what_is_not_there_is_named(tmp_path: Path, mine: WriteKernel) -> None:
    with pytest.raises(InputError, match="kernel = '': .*name its description"):
        read_custom("", tmp_path)
    with pytest.raises(InputError, match="kernel = 'none.toml': no such file in"):
        read_custom("none.toml", tmp_path)
    with pytest.raises(InputError, match="kernel = 'my': no such file"):
        read_custom(str(Path(mine()).parent), tmp_path)
    with pytest.raises(InputError, match="source = 'other.cu': no such file in .*/my"):
        read_custom(mine(TOML.replace("mine.cu", "other.cu")), tmp_path)


def test_a_description_is_fitted_to_a_gemm() -> None:
    custom = read_custom(EXAMPLE)
    fitted = fit(custom, Gemm(m=130, n=300, k=7, batch=3), _config(tile_m=64))
    assert fitted.grid == (3, 3, 3)
    assert (fitted.block, fitted.threads, fitted.smem_bytes) == ((128,), 128, 0)
    # An open knob takes its first value.
    assert fitted.knobs == {"tile_m": 64, "tile_n": 128, "tile_k": 8}
    assert set(fitted.options) == {
        "-DTILE_M=64",
        "-DTILE_N=128",
        "-DTILE_K=8",
        "-DELEMENT=float",
        "-DELEMENT_BYTES=4",
        "-DSCALAR=float",
        "-DDTYPE_FP32=1",
        "-DTRANS_A=0",
        "-DTRANS_B=0",
    }


def test_a_recorded_row_has_the_threads_of_its_block() -> None:
    config = _config(tile_m=64, block_threads=128)
    assert fit(read_custom(EXAMPLE), Gemm(m=130, n=300, k=7), config).threads == 128


def test_the_knob_threads_of_older_descriptions_is_block_threads(
    tmp_path: Path, mine: WriteKernel
) -> None:
    toml = (
        'source = "mine.cu"\nblock = "THREADS"\ngrid = ["n", "m"]\nknobs = { threads = [32, 64] }'
    )
    custom = read_custom(mine(toml), tmp_path)
    fitted = fit(custom, Gemm(m=8, n=6, k=5), _config(block_threads=64))
    assert fitted.knobs == {"block_threads": 64}
    assert fitted.threads == 64
    assert "-DTHREADS=64" in fitted.options


@pytest.mark.parametrize(
    ("dtype", "element", "scalar", "smem_bytes"),
    [("fp64", "double", "double", 256), ("bf16", "__nv_bfloat16", "float", 64)],
)
def test_macros_give_the_source_dtype_and_layout(
    tmp_path: Path, mine: WriteKernel, dtype: str, element: str, scalar: str, smem_bytes: int
) -> None:
    more = [
        'smem = "2 * TILE_M * ELEMENT_BYTES"',
        'grid = ["m * n / 4", "k"]',
        'dtypes = ["fp64", "bf16"]',
        'layouts = ["tn"]',
    ]
    kernel = mine(TOML + "\n".join(more))
    gemm = Gemm(m=8, n=6, k=5, dtype=dtype, layout="tn")
    fitted = fit(read_custom(kernel, tmp_path), gemm, _config(kernel))
    assert {
        f"-DELEMENT={element}",
        f"-DSCALAR={scalar}",
        f"-DDTYPE_{dtype.upper()}=1",
        "-DTRANS_A=1",
        "-DTRANS_B=0",
    } <= set(fitted.options)
    assert (fitted.smem_bytes, fitted.grid) == (smem_bytes, (12, 5, 1))


@pytest.mark.parametrize(
    ("toml", "gemm", "knobs", "message"),
    [
        (TOML, {"dtype": "fp16"}, {}, "has no dtype fp16 .it has fp32"),
        (TOML, {"layout": "nt"}, {}, "has no layout nt .it has nn"),
        (TOML, {}, {"tile_m": 32}, "has no tile_m=32 .it has 16, 8"),
        (TOML, {}, {"stages": 2}, "has no stages=2 .it has no such knob"),
        (TOML, {}, {"block_threads": 64}, "has blocks of 256 threads here, not 64"),
        (TOML, {"batch": 65536}, {}, r"grid \(1, 1, 65536\) is over CUDA's limit"),
        (TOML, {"m": 2**24}, {}, "is over CUDA's limit"),
        (
            TOML.replace("TILE_M * TILE_N", "TILE_M * TILE_N * 8"),
            {},
            {},
            r"block = \(2048,\): a block has 1 to 1024 threads",
        ),
        (
            TOML.replace("TILE_M * TILE_N", "TILE_M / 32"),
            {},
            {},
            r"block = \(0,\): a block has 1 to",
        ),
        (TOML + 'smem = "TILE_M - 17"', {}, {}, "less than possible"),
        (TOML + 'grid = ["n / 100", 1]', {}, {}, "less than possible"),
        (
            TOML + 'grid = ["n / TILE_K", 1]',
            {},
            {},
            "grid = 'n / TILE_K': cannot evaluate TILE_K; use .*TILE_M, TILE_N, m, n, k",
        ),
        (TOML + "colour = 1", {}, {}, "my/kernel.toml: colour = 1: unknown key"),
    ],
)
def test_what_can_not_be_fitted_is_unsupported(
    toml: str,
    gemm: dict[str, Any],
    knobs: dict[str, int],
    message: str,
    tmp_path: Path,
    mine: WriteKernel,
) -> None:
    kernel = mine(toml)
    sizes_and_dtype: dict[str, Any] = {"m": 8, "n": 8, "k": 8, **gemm}
    family = CustomKernels(tmp_path)
    with pytest.raises(MeasurementError, match=message) as caught:
        family.prepare(Gemm(**sizes_and_dtype), _config(kernel, **knobs), [])
    assert caught.value.status == "unsupported"


def test_the_first_error_has_its_line() -> None:
    lines = [
        "/tmp/x1/0a.cubin.cu(7): warning #177-D: unused",
        '/tmp/x1/0a.cubin.cu(46): error: expected a "]"',
        "      float s[8 = {};",
        "",
        "1 error",
    ]
    expected = 'my.toml@1, line 46: error: expected a "]"'
    assert first_error("\n".join(lines), "my.toml@1") == expected


@pytest.mark.parametrize(
    ("log", "error"),
    [
        ("nvrtc: error: invalid value\nmore", "my.toml@1: nvrtc: error: invalid value"),
        ("", "my.toml@1: no reason given"),
    ],
)
def test_an_error_may_have_no_line(log: str, error: str) -> None:
    assert first_error(log, "my.toml@1") == error


def test_the_family_loads_without_cuda(devices: dict[str, Device]) -> None:
    assert list(FAMILIES)[5] == "custom"
    assert isinstance(load("custom"), CustomKernels)
    refuse(Gemm(m=1, n=1, k=1, dtype="fp64"), _config(), devices["cuda"])
    code = "import sys, agent.kernels.custom; print('cupy' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_plan_in_examples_names_what_there_is() -> None:
    gpu = Device(
        name="G",
        kind="cuda",
        uuid="GPU-1",
        compute_units=132,
        memory_bytes=80 * 2**30,
        l2_bytes=2**25,
        dram_gbps=3000.0,
        empty_launch_us=2.0,
    )
    cells = plan_cells(read_plan(ROOT / "examples" / "custom-kernel.toml"), gpu).cells
    assert {cell.config.family for cell in cells} == {"custom", "tiled", "cublas"}
    tiles = list(product((64, 128), (64, 128), (8, 16)))
    custom = [cell for cell in cells if cell.config.family == "custom"]
    assert len(custom) == 20 * len(tiles)
    for cell in custom:
        fitted = fit(read_custom(cell.config.kernel), cell.gemm, cell.config)
        assert tuple(fitted.knobs.values()) in tiles
