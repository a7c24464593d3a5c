"""`registry export --format c`: the C answers as the ONNX file, and refuses what is no query."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from gemmcast import Predictor, models, query
from gemmcast.candidates import candidates
from gemmcast.config import KNOBS, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import ModelFileError
from gemmcast.gemm import LAYOUTS, Gemm
from gemmcast.modelfile import Answers
from gemmcast.query import AT, Rows
from registry.cli import main
from registry.exporting import export_files
from registry.vectors import RELATIVE
from tests.registry.c_library import FLAGS, CModel

ROOT = Path(__file__).parents[2]
COMPILERS = ("gcc", "clang")
QUERIES = 10_000
PER_GEMM = 25
CPU = Device(
    name="CPU C",
    kind="cpu",
    uuid="CPU-c",
    compute_units=7,
    memory_bytes=16 << 30,
    l2_bytes=30 << 20,
    dram_gbps=17.3,
    peak_tflops={"fp32": 0.1234567, "fp64": 0.0611111},
)
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model as C."""
    path = tmp_path_factory.mktemp("c") / "gemmcast_model.c"
    assert main(["export", "shipped", str(path), "--format", "c"]) == 0
    return path


@pytest.fixture(scope="module")
def build(exported: Path) -> Callable[[str], CModel]:
    """The exported model by a compiler's name; built once."""
    built: dict[str, CModel] = {}

    def of(compiler: str) -> CModel:
        if shutil.which(compiler) is None:
            pytest.skip(f"there is no {compiler}")
        if compiler not in built:
            built[compiler] = CModel(exported, compiler)
        return built[compiler]

    return of


@pytest.fixture
def by_gcc(build: Callable[[str], CModel]) -> CModel:
    return build("gcc")


@pytest.fixture(scope="module")
def predictor() -> Iterator[Predictor]:
    with Predictor() as opened:
        yield opened


@pytest.fixture(scope="module")
def rows(predictor: Predictor) -> Rows:
    """Queries of every device, dtype, layout and family, some without a power limit."""
    rng = Random(0)
    parts: list[Rows] = []
    while len(parts) * PER_GEMM < QUERIES:
        device = rng.choice(predictor.devices)
        if rng.random() < 0.1:
            device = replace(device, power_limit_w=rng.choice([None, 300.0, 740.0]))
        gemm = _gemm(rng, device)
        configs = rng.choices(candidates(gemm, device), k=PER_GEMM)
        cache = rng.choice(query.CACHES)
        parts.append(query.encode_configs(gemm, configs, device, cache=cache))
    return np.concatenate(parts)


def _gemm(rng: Random, device: Device) -> Gemm:
    m, n, k = (int(2 ** rng.uniform(0, 14)) for _ in range(3))
    dtypes = sorted(device.peak_tflops)
    while True:
        gemm = Gemm(m=m, n=n, k=k, dtype=rng.choice(dtypes), layout=rng.choice(LAYOUTS))
        if candidates(gemm, device):
            return gemm


def _check_alike(answers: Answers, expected: Answers) -> None:
    """As far apart as RELATIVE allows, flags and what is unknown equal."""
    for name, values in expected.items():
        if name == query.EXTRAPOLATING:
            assert np.array_equal(answers[name], values)
            continue
        relative = RELATIVE["ends" if name in query.INTERVALS else "values"]
        assert np.allclose(answers[name], values, rtol=relative, atol=0, equal_nan=True), name


@pytest.mark.parametrize("compiler", COMPILERS)
def test_ten_thousand_queries_have_the_answers_of_onnx_runtime(
    compiler: str, build: Callable[[str], CModel], predictor: Predictor, rows: Rows
) -> None:
    expected = predictor.predict_rows(rows)
    assert len(rows) >= QUERIES
    # The rows are worth something: flags differ, and some have no power.
    assert 0 < expected["extrapolating"].mean() < 1
    assert 0 < np.isnan(expected["power_w"]).mean() < 1
    _check_alike(build(compiler).predict(rows, list(predictor.outputs)), expected)


def test_the_vectors_beside_it_are_its_answers(
    by_gcc: CModel, exported: Path, predictor: Predictor
) -> None:
    vectors = json.loads(exported.with_suffix(".vectors.json").read_text())
    rows = np.array(vectors["queries"], dtype=np.float32)
    expected = {name: np.array(of, np.float64) for name, of in vectors["answers"].items()}
    assert np.isnan(expected["power_w"]).any()
    _check_alike(by_gcc.predict(rows, vectors["outputs"]), expected)
    _check_alike(predictor.predict_rows(rows), expected)


@needs_gcc
def test_one_query_is_the_first_of_many(by_gcc: CModel, predictor: Predictor, rows: Rows) -> None:
    status, answer = by_gcc.predict_one(rows[0])
    many = by_gcc.predict(rows[:3], list(predictor.outputs))
    assert status == 0
    assert list(answer.value) == [many[name][0] for name in query.OUTPUTS]


BAD = [
    ("m", 0, "m, n, k or batch"),
    ("n", 1.5, "m, n, k or batch"),
    ("k", 2.0**24 + 2, "m, n, k or batch"),
    ("batch", math.nan, "m, n, k or batch"),
    ("dtype", 7, "dtype"),
    ("dtype", -1, "dtype"),
    ("in_bytes", 16, "dtype"),
    ("family", 7, "family"),
    ("family", 0.5, "family"),
    ("trans_a", 2, "neither 0 nor 1"),
    ("beta", 0.5, "neither 0 nor 1"),
    ("warm", math.nan, "neither 0 nor 1"),
    ("tile_m", 0, "knob"),
    ("split_k", 0, "knob"),
    ("stages", -1, "knob"),
    ("threads", math.inf, "knob"),
    ("algorithm", math.nan, "knob"),
    ("peak_tflops", 0, "device"),
    ("power_limit_w", -1, "device"),
    ("dram_gbps", math.inf, "device"),
]


@needs_gcc
@pytest.mark.parametrize(("field", "value", "says"), BAD)
def test_what_is_no_query_is_refused(
    field: str, value: float, says: str, by_gcc: CModel, rows: Rows
) -> None:
    row = rows[0].copy()
    row[AT[field]] = value
    status, answer = by_gcc.predict_one(row)
    assert says in by_gcc.status_text(status)
    assert by_gcc.check(row) == status
    # as it was before
    assert answer.extrapolating == -1


@needs_gcc
def test_whatever_the_datasets_hold_is_a_query(by_gcc: CModel, rows: Rows) -> None:
    assert {by_gcc.check(row) for row in rows[::10]} == {0}


@needs_gcc
@pytest.mark.parametrize("name", ["h100", "cpu"])
def test_it_fills_in_what_is_unknown_as_python_does(
    name: str, by_gcc: CModel, predictor: Predictor
) -> None:
    device = CPU if name == "cpu" else predictor.device(name)
    device = replace(device, l2_gbps=None, empty_kernel_us=None)
    families = ["blas"] if name == "cpu" else ["tiled", "cutlass", "cublas", "triton"]
    rng = Random(1)
    for _ in range(300):
        knobs = {knob: rng.choice([0, 0, rng.randint(1, 300)]) for knob in KNOBS}
        config = KernelConfig(family=rng.choice(families), **knobs)
        gemm = _sized(rng, device)
        whole = np.array(query.encode(gemm, config, device), dtype=np.float32)
        status, filled = by_gcc.completed(_sparse(gemm, config), device)
        assert status == 0
        assert dict(zip(query.FIELDS, filled, strict=True)) == dict(
            zip(query.FIELDS, whole, strict=True)
        )


def _sized(rng: Random, device: Device) -> Gemm:
    m, n, k = (rng.randint(1, 9000) for _ in range(3))
    return Gemm(m=m, n=n, k=k, dtype=rng.choice(sorted(device.peak_tflops)), layout="tn")


def _sparse(gemm: Gemm, config: KernelConfig) -> Rows:
    """What a caller of C sets."""
    row = np.zeros(len(query.FIELDS), dtype=np.float32)
    known = {
        "m": gemm.m,
        "n": gemm.n,
        "k": gemm.k,
        "dtype": query.DTYPE_CODES[gemm.dtype],
        "trans_a": 1,
        "family": query.FAMILY_CODES[config.family],
        "threads": config.threads,
        "algorithm": config.algo_id,
    }
    for field in (*query.KNOB_FIELDS, "tile_m", "tile_n", "tile_k"):
        known.setdefault(field, getattr(config, field, 0))
    for field, value in known.items():
        row[AT[field]] = value
    return row


@needs_gcc
def test_a_dtype_that_was_not_measured_is_refused(by_gcc: CModel) -> None:
    row = _sparse(Gemm(m=8, n=8, k=8, dtype="bf16"), KernelConfig(family="blas"))
    status, _ = by_gcc.completed(row, CPU)
    assert by_gcc.status_text(status) == "the device was not measured at this dtype"


@needs_gcc
def test_the_devices_of_the_file_are_in_it(by_gcc: CModel, predictor: Predictor) -> None:
    devices = by_gcc.devices(len(predictor.devices))
    assert [one.name.decode() for one in devices] == [one.name for one in predictor.devices]
    assert devices[0].dram_gbps == predictor.devices[0].dram_gbps


@needs_gcc
@pytest.mark.parametrize("example", ["predict.c", "rank.cpp"])
def test_examples(example: str, exported: Path, predictor: Predictor, tmp_path: Path) -> None:
    model, program = tmp_path / "model.o", tmp_path / "program"
    # -O0 where the speed does not matter
    _run("gcc", *FLAGS, "-O0", "-c", str(exported), "-o", str(model))
    compiler = ["gcc", "-std=c99"] if example.endswith(".c") else ["g++", "-std=c++17"]
    source = str(ROOT / "examples" / "c" / example)
    warnings = ("-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{exported.parent}")
    _run(*compiler, *warnings, source, str(model), "-o", str(program), "-lm")
    if example == "rank.cpp":
        assert _run(str(program)).splitlines()[-1] == "best: 256x256"
        return
    gemm = Gemm(m=4096, n=1024, k=512, dtype="bf16", layout="nt")
    lines = _run(str(program), "4096", "1024", "512").splitlines()
    for line, device in zip(lines, predictor.devices, strict=True):
        runtime_us = predictor.predict(gemm, device=device).runtime_us
        name, _, rest = line.partition(": ")
        assert name == device.name
        assert float(rest.split()[0]) == pytest.approx(runtime_us, rel=2e-5)


@needs_gcc
def test_fast_math_is_refused(exported: Path) -> None:
    command = ["gcc", "-std=c99", "-ffast-math", "-fsyntax-only", str(exported)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "-ffast-math and -ffinite-math-only break what is NaN" in done.stderr


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_same_model_gives_the_same_files(exported: Path, tmp_path: Path) -> None:
    again = tmp_path / exported.name
    assert main(["export", "shipped", str(again), "--format", "c"]) == 0
    for ending in (".c", ".h", ".vectors.json"):
        assert again.with_suffix(ending).read_bytes() == exported.with_suffix(ending).read_bytes()


def test_onnx_comes_with_vectors_too(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    assert main(["export", "shipped", str(path), "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert files == [str(path), str(tmp_path / "model.vectors.json")]
    assert path.read_bytes() == models.path().read_bytes()
    vectors = (tmp_path / "model.vectors.json").read_bytes()
    assert vectors == exported.with_suffix(".vectors.json").read_bytes()


def test_a_file_that_nothing_here_can_run_has_no_vectors(
    make_model: Callable[..., bytes], tmp_path: Path
) -> None:
    model, path = make_model(1), tmp_path / "model.onnx"
    assert export_files(model, path, "onnx", "version 1") == [path]
    with pytest.raises(ModelFileError, match="model = 'version 1'"):
        export_files(model, tmp_path / "model.c", "c", "version 1")
    assert list(tmp_path.iterdir()) == [path]


REFUSED = [
    (["model.x", "--format", "c"], "FILE = '{}/model.x': C needs a name that ends with .c"),
    (["model.c"], "FILE = '{}/model.c': ends with .c, and the format is onnx; add --format c"),
    (["model.c", "--format", "rust"], "--format = 'rust': unknown format; use one of onnx, c"),
    (["no/model.c/x.c", "--format", "c"], "path = "),
]


@pytest.mark.parametrize(("arguments", "says"), REFUSED)
def test_bad_arguments(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "model.c").touch()
    name, *others = arguments
    assert main(["export", "shipped", str(tmp_path / name), *others]) == 2
    error = capsys.readouterr().err
    assert says.format(tmp_path) in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("model*"))
