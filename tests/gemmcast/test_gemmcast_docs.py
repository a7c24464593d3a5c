"""docs/onnx.md, docs/schema.md, docs/card.md and the examples agree with the program."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from gemmcast import Gemm, KernelConfig, Predictor, models, query
from gemmcast.arrow import SCHEMA
from gemmcast.card import ModelCard
from gemmcast.config import FAMILIES
from gemmcast.device import Device
from gemmcast.gemm import DTYPES
from gemmcast.modelfile import METADATA, METADATA_PREFIX, PREFILTER_KEY
from gemmcast.sample import DEFAULTS, SCHEMA_VERSION, STATUSES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ONNX, SCHEMA_PAGE, CARD_PAGE = DOCS / "onnx.md", DOCS / "schema.md", DOCS / "card.md"
GENERATOR = runpy.run_path(str(DOCS / "generate.py"))
TILES = (4, 8, 16, 32)


def rows(page: Path, first_column: str) -> list[list[str]]:
    """The cells of every table with that first column, without its head and without code marks."""
    cells = []
    for block in re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE):
        lines = [
            [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
            for line in block.splitlines()
        ]
        assert len({len(line) for line in lines}) == 1, lines
        if lines[0][0] == first_column:
            cells += lines[2:]
    assert cells
    return cells


# docs/onnx.md


def test_the_page_lists_the_fields_in_order() -> None:
    table = rows(ONNX, "#")
    assert [(number, name) for number, name, *_ in table] == [
        (str(i), name) for i, name in enumerate(query.FIELDS)
    ]
    assert all(meaning and unknown for _, _, _, meaning, unknown in table)


def test_the_page_says_what_to_write_for_the_unknown(gpu: Device) -> None:
    optional = ("clock_max_mhz", "power_limit_w", "idle_power_w", "l2_gbps", "empty_kernel_us")
    bare = replace(gpu, **dict.fromkeys(optional))
    row = dict(
        zip(
            query.FIELDS,
            query.encode(Gemm(m=7, n=8, k=9), KernelConfig(family="cublas"), bare),
            strict=True,
        )
    )
    unknown = {
        name: word.replace("`", "").split(" x ")
        for _, name, _, _, word in rows(ONNX, "#")
        if word != "required"
    }
    expected = {
        name: math.prod(row[word] if word in row else float(word) for word in words)
        for name, words in unknown.items()
    }
    assert {name: row[name] for name in unknown} == expected
    assert unknown["l2_gbps"] == [str(query.L2_OVER_DRAM), "dram_gbps"]


def test_the_page_has_the_codes() -> None:
    expected = [
        [name, f"{query.DTYPE_CODES[name]:.0f}", str(t.in_bytes), str(t.out_bytes)]
        for name, t in DTYPES.items()
    ]
    assert rows(ONNX, "dtype") == expected
    assert [row[:2] for row in rows(ONNX, "family")] == [
        [name, f"{query.FAMILY_CODES[name]:.0f}"] for name in FAMILIES
    ]
    schedules = rows(ONNX, "schedule")
    assert [row[0] for row in schedules] == list(query.SCHEDULES)
    assert [row[1] for row in schedules] == [
        str(query.algorithm("cutlass", kernel, 0)) for _, _, kernel in schedules
    ]


def test_the_page_has_the_outputs_and_the_metadata(power_model: bytes) -> None:
    proto = onnx.load_model_from_string(power_model)
    named = [*query.OUTPUTS, *query.INTERVALS, query.EXTRAPOLATING]
    assert (
        [row[0] for row in rows(ONNX, "output")]
        == named
        == [output.name for output in proto.graph.output]
    )
    keys = [row[0] for row in rows(ONNX, "key")]
    assert [PREFILTER_KEY, *keys] == [
        entry.key for entry in proto.metadata_props
    ] and f"`{PREFILTER_KEY}`" in ONNX.read_text()
    assert {key.removeprefix(METADATA_PREFIX) for key in keys} == METADATA


def test_a_file_holds_trees_only_where_its_model_takes_them(
    power_model: bytes, time_model: bytes
) -> None:
    for model, trees in ((power_model, {"TreeEnsembleRegressor"}), (time_model, set[str]())):
        assert {
            node.op_type for node in onnx.load_model_from_string(model).graph.node if node.domain
        } == trees


def test_the_page_says_what_an_output_is(power_model: bytes, time_model: bytes) -> None:
    for model in (power_model, time_model):
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        values = json.loads(session.get_modelmeta().custom_metadata_map["gemmcast.outputs"])
        rows_of = np.ones((3, len(query.FIELDS)), dtype=np.float32)
        arrays = dict(
            zip(
                (output.name for output in session.get_outputs()),
                session.run(None, {query.INPUT: rows_of}),
                strict=True,
            )
        )
        expected = dict.fromkeys(values, ((3,), np.float32)) | {
            name: ((3, len(values)), np.float32) for name in query.INTERVALS
        }
        assert {
            name: (array.shape, array.dtype.type) for name, array in arrays.items()
        } == expected | {query.EXTRAPOLATING: ((3,), np.bool_)}


def test_the_page_has_the_versions(power_model: bytes) -> None:
    proto, text = onnx.load_model_from_string(power_model), " ".join(ONNX.read_text().split())
    assert (proto.ir_version, {entry.domain: entry.version for entry in proto.opset_import}) == (
        10,
        {"": 21, "ai.onnx.ml": 3},
    )
    assert (
        f"ai.onnx {query.OPSET}, ai.onnx.ml {query.ML_OPSET}" in text
        and f"IR {query.IR_VERSION}" in text
    )
    assert f"This page is contract **{query.CONTRACT}**" in text
    assert f"`{query.INPUT}`, float32 `[n, {len(query.FIELDS)}]`" in text
    assert (
        '"onnxruntime>=1.18"' in (ROOT / "pyproject.toml").read_text() and "1.18 or newer" in text
    )


# docs/schema.md


def test_the_page_has_every_column_with_its_type() -> None:
    expected = [
        [field.name, str(field.type), "yes" if field.nullable else "no"] for field in SCHEMA
    ]
    assert [row[:3] for row in rows(SCHEMA_PAGE, "column")] == expected
    assert f"This is `schema_version` {SCHEMA_VERSION}." in SCHEMA_PAGE.read_text()


def test_a_unit_in_a_name_is_the_unit_on_the_page() -> None:
    units = {
        "us": "us",
        "mj": "mJ",
        "w": "W",
        "mhz": "MHz",
        "bytes": "bytes",
        "gbps": "GB/s",
        "tflops": "TFLOP/s",
        "c": "°C",
        "s": "s",
    }
    for page, place in ((SCHEMA_PAGE, 4), (ONNX, 2)):
        for row in rows(page, "column" if page is SCHEMA_PAGE else "#"):
            name, unit = row[0 if page is SCHEMA_PAGE else 1], row[place]
            if (suffix := name.rpartition("_")[2]) in units and "_" in name:
                assert unit == units[suffix], name


def test_the_page_has_the_statuses_and_the_defaults() -> None:
    assert [row[0] for row in rows(SCHEMA_PAGE, "status")] == list(STATUSES)
    shown = {"null": None, "empty": "", "false": False, "this page's": SCHEMA_VERSION}
    for name, _, _, absent, _, _ in rows(SCHEMA_PAGE, "column"):
        if absent == "refused":
            assert name not in DEFAULTS
            continue
        default = DEFAULTS[name]
        assert shown[absent] == default if absent in shown else absent == str(default)


# generated tables


@pytest.mark.parametrize("name", GENERATOR["PAGES"])
def test_a_page_is_as_its_generator_makes_it(name: str) -> None:
    page = (ROOT / name).read_text()
    assert page == GENERATOR["generated"](page), "run python docs/generate.py"
    assert GENERATOR["MARKER"].search(page)


def test_the_card_page_has_every_field() -> None:
    assert [row[0] for row in rows(CARD_PAGE, "field")] == [
        field.name for field in fields(ModelCard)
    ]


def test_the_generator_reads_meaning_unit_and_unknown() -> None:
    source = "class X:\n    a: int | None = None\n    '''Width of\n    a. [mm] Unknown: `b`'''\n"
    (field,) = GENERATOR["fields"](ast.parse(source), "X")
    assert (field.name, field.type, field.default) == ("a", "int | None", "None")
    assert (field.meaning, field.unit, field.unknown) == ("Width of a.", "mm", "`b`")
    with pytest.raises(ValueError, match="has no docstring under it"):
        list(GENERATOR["fields"](ast.parse("class X:\n    a: int\n    b: int"), "X"))


# examples


def call(*command: object, directory: Path = ROOT) -> list[str]:
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def expected_lines(model: Path) -> list[str]:
    with Predictor(model) as predictor:
        device, lines = predictor.devices[0], []
        for tile in TILES:
            config = KernelConfig(family="tiled", tile_m=tile, tile_n=tile, tile_k=tile)
            row = query.encode(Gemm(m=4096, n=1024, k=1024), config, device)
            # As rows: predict refuses a GPU's family on a CPU
            answers = predictor.predict_rows(np.array([row], dtype=np.float32))
            warning = ", outside the training range" if answers["extrapolating"][0] else ""
            low_us, high_us = answers["low"][0, 0], answers["high"][0, 0]
            runtime = f"{answers['runtime_us'][0]:.1f} us ({low_us:.1f} to {high_us:.1f})"
            lines.append(f"{config}: {runtime}, {answers['tflops'][0]:.2f} TFLOP/s{warning}")
    return lines


def same(printed: list[str], expected: list[str]) -> bool:
    """The same words, and numbers equal up to rounding: sums are in other orders."""
    number = re.compile(r"\d+\.\d+")
    text, expected_text = "\n".join(printed), "\n".join(expected)
    if number.sub("#", text) != number.sub("#", expected_text):
        return False
    numbers = [float(digits) for digits in number.findall(text)]
    expected_numbers = [float(digits) for digits in number.findall(expected_text)]
    return numbers == pytest.approx(expected_numbers, rel=1e-4, abs=0.101)


def test_the_example_with_gemmcast_runs(power_file: Path) -> None:
    *lines, pick = call(sys.executable, "-W", "error", ROOT / "examples" / "embed.py", power_file)
    assert same(lines, expected_lines(power_file))
    assert pick.startswith("pick: tiled:tile=")
    assert len(call(sys.executable, ROOT / "examples" / "embed.py", power_file, "gpu b")) == 5
    *lines, _ = call(sys.executable, ROOT / "examples" / "embed.py")
    assert same(lines, expected_lines(models.path()))


@pytest.fixture
def extrapolating_file(
    power_model: bytes, gpu: Device, edit: Callable[..., bytes], tmp_path: Path
) -> Path:
    """A model whose first device is outside the training range."""
    path = tmp_path / "extrapolating.onnx"
    path.write_bytes(
        edit(power_model, devices=json.dumps([asdict(replace(gpu, dram_gbps=9000.0))]))
    )
    assert all(line.endswith(", outside the training range") for line in expected_lines(path))
    return path


def test_the_example_without_gemmcast_says_the_same(
    power_file: Path, time_file: Path, extrapolating_file: Path
) -> None:
    script = ROOT / "examples" / "embed_raw.py"
    assert "gemmcast" not in re.findall(r"^(?:from|import) (\w+)", script.read_text(), re.MULTILINE)
    for model in (power_file, time_file, extrapolating_file):
        assert same(call(sys.executable, "-W", "error", script, model), expected_lines(model))


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_the_example_in_javascript_says_the_same(
    power_file: Path, time_file: Path, extrapolating_file: Path, tmp_path: Path
) -> None:
    """The package comes from node_modules of page/ or above, or from NODE_PATH."""
    where = subprocess.run(
        ["node", "-p", "require.resolve('onnxruntime-web')"],
        cwd=ROOT / "page",
        capture_output=True,
        text=True,
        check=False,
    )
    if where.returncode:
        pytest.skip("npm package onnxruntime-web is not installed")
    (modules,) = (
        parent for parent in Path(where.stdout.strip()).parents if parent.name == "node_modules"
    )
    (tmp_path / "node_modules").symlink_to(modules)
    script = Path(shutil.copy(ROOT / "examples" / "embed.mjs", tmp_path))
    about = tmp_path / "about.json"
    for model in (power_file, time_file, extrapolating_file):
        about.write_text(
            "\n".join(call(sys.executable, "-m", "gemmcast", "info", "--model", model, "--json"))
        )
        assert same(call("node", script, model, about, directory=tmp_path), expected_lines(model))
