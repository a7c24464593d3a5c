"""The wheel as a user gets it: built, installed into a new environment, used away from the source.

Once with whatever ONNX Runtime pip resolves today, once with the oldest that the contract allows,
and, where no index is reached, with those of this environment.
"""

from __future__ import annotations

import email
import json
import os
import re
import resource
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from gemmcast import Gemm, KernelConfig, Predictor, __version__

ROOT = Path(__file__).parents[2]
OLDEST = ["onnxruntime==1.18.0", "numpy==1.26.4"]
# Distributions of the environment, and the requirements of each without extras.
DISTRIBUTIONS = """
import importlib.metadata, json
requires = {}
for d in importlib.metadata.distributions():
    requires[d.name] = [r for r in d.requires or () if "extra ==" not in r]
print(json.dumps(requires))
"""
LAZY = """
import sys, gemmcast
gemmcast.Gemm(m=1, n=1, k=1), gemmcast.KernelConfig(family="tiled")
early = [name for name in ("numpy", "onnxruntime") if name in sys.modules]
gemmcast.Predictor
print(early, "onnxruntime" in sys.modules, gemmcast.__file__)
"""
QUESTION = [
    "predict",
    "4096",
    "4096",
    "4096",
    "--dtype",
    "bf16",
    "--layout",
    "nt",
    "--device",
    "h100",
]
MAX_CPU_S = 0.5
"""Of one command, with all that Python imports for it."""
pytestmark = pytest.mark.cluster


def call(command: Sequence[object], directory: Path) -> str:
    """Stdout, away from the source tree, without this process's Python in the environment."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if "pip" in words and re.search(
        "NewConnectionError|NameResolutionError|Temporary failure in name resolution", done.stderr
    ):
        pytest.skip("pip reaches no index from here")
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    call(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, ROOT],
        directory,
    )
    (path,) = directory.glob("*.whl")
    return path


def environment(directory: Path, wheel: Path, *pins: str) -> Path:
    """A fresh one with the wheel in it; its Python. Modules are compiled when they are imported."""
    call([sys.executable, "-m", "venv", "--without-pip", directory], directory.parent)
    python = directory / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-compile"]
    quiet = ["--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    call([*pip, *quiet, wheel, *pins], directory)
    return python


def needed(installed: dict[str, list[str]], *roots: str) -> set[str]:
    """The distributions that some need, and those that these need, and so on."""
    requires = {
        canonical(name): [canonical(word) for word in words] for name, words in installed.items()
    }
    reached, todo = set[str](), list(roots)
    while todo:
        name = todo.pop()
        if name not in reached and name in requires:
            reached.add(name)
            todo += requires[name]
    return reached


def canonical(requirement: str) -> str:
    name = re.match(r"[\w.-]+", requirement)
    assert name
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def test_it_holds_gemmcast_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("METADATA"))
    assert wheel.name == f"gemmcast-{__version__}-py3-none-any.whl"
    assert {name.split("/")[0] for name in names} == {
        "gemmcast",
        f"gemmcast-{__version__}.dist-info",
    }
    files = (path for path in (ROOT / "gemmcast").rglob("*") if path.is_file())
    sources = {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}
    assert {name for name in names if name.startswith("gemmcast/")} == sources
    assert {"gemmcast/models/default.onnx", "gemmcast/models/default.json"} <= sources
    plain = [
        line
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist:") and "extra ==" not in line
    ]
    assert sorted(plain) == ["Requires-Dist: numpy>=1.26", "Requires-Dist: onnxruntime>=1.18"]


def test_its_metadata_say_what_it_is_and_for_whom(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        (licence,) = [name for name in archive.namelist() if name.endswith("LICENSE")]
        metadata = email.message_from_string(archive.read(name).decode())
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    assert metadata["Author"] == "The gemmcast authors"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "GEMM" in metadata["Keywords"].split(",")
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).strip() == (ROOT / "README.md").read_text().strip()


def test_an_editable_installation_is_this_folder_and_needs_no_other_package(
    tmp_path: Path,
) -> None:
    """As `make env` makes it; without hatchling's optional `editables`."""
    code = """
import sys
sys.modules["editables"] = None
from hatchling.build import build_editable
print(build_editable(sys.argv[1]))
"""
    name = call([sys.executable, "-c", code, tmp_path], ROOT).split()[-1]
    with zipfile.ZipFile(tmp_path / name) as archive:
        (path,) = (member for member in archive.namelist() if member.endswith(".pth"))
        assert archive.read(path).decode().strip() == str(ROOT)
        (scripts,) = (member for member in archive.namelist() if "entry_points" in member)
        assert "gemmcast = gemmcast.__main__:run" in archive.read(scripts).decode()


@pytest.mark.parametrize("pins", [[], OLDEST], ids=["newest", "oldest"])
def test_it_answers_in_an_environment_of_its_own(
    wheel: Path, power_file: Path, tmp_path: Path, pins: list[str]
) -> None:
    if pins and sys.version_info >= (3, 13):
        pytest.skip(f"there is no wheel of {pins[0]} for Python 3.13 and newer")
    python = environment(tmp_path / "venv", wheel, *pins)
    installed: dict[str, list[str]] = json.loads(call([python, "-c", DISTRIBUTIONS], tmp_path))
    extra = (
        {canonical(name) for name in installed}
        - needed(installed, "numpy", "onnxruntime")
        - {"gemmcast", "pip", "setuptools", "wheel"}
    )
    assert extra == set()
    assert call([python, "-c", LAZY], tmp_path).split()[:2] == ["[]", "True"]
    assert str(tmp_path) in call([python, "-c", LAZY], tmp_path)

    program, query = (
        tmp_path / "venv" / "bin" / "gemmcast",
        ["512", "256", "128", "--device", "GPU B", "--model", power_file, "--json"],
    )
    gemm, config = Gemm(m=512, n=256, k=128), KernelConfig(family="tiled", tile_m=16)
    with Predictor(power_file) as predictor:
        expected = predictor.predict(gemm, config, "GPU B")
        choice = predictor.pick(gemm, [config, KernelConfig(family="cublas")], "energy", "GPU B")
        info = predictor.version
    answer = json.loads(
        call([program, "predict", *query, "--config", "tiled:tile_m=16"], tmp_path)
    )["prediction"]
    assert answer["runtime_us"] == pytest.approx(expected.runtime_us, rel=1e-5)
    assert answer["energy_mj"] == pytest.approx(expected.energy_mj, rel=1e-5)
    best = json.loads(
        call(
            [program, "pick", *query, "--objective", "energy", "tiled:tile_m=16", "cublas"],
            tmp_path,
        )
    )
    assert best["config"]["family"] == choice.config.family
    assert (
        json.loads(
            call(
                [python, "-W", "error", "-m", "gemmcast", "info", "--model", power_file, "--json"],
                tmp_path,
            )
        )["version"]
        == info
    )


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a fresh environment without a network; NumPy and ONNX Runtime are ours."""
    directory = tmp_path_factory.mktemp("installed") / "venv"
    call([sys.executable, "-m", "venv", "--without-pip", directory], directory.parent)
    python = directory / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps"]
    call([*pip, "--quiet", "--disable-pip-version-check", wheel], directory)
    (packages,) = directory.glob("lib/python*/site-packages")
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib"))
    return directory / "bin" / "gemmcast"


def test_the_shipped_model_answers_after_the_installation_alone(installed: Path) -> None:
    directory = installed.parent
    answer = json.loads(call([installed, *QUESTION, "--json"], directory))
    gemm = Gemm(m=4096, n=4096, k=4096, dtype="bf16", layout="nt")
    with Predictor() as predictor:
        expected = predictor.predict(gemm, KernelConfig(family="cublas"), "NVIDIA H100 80GB HBM3")
    assert answer["device"] == "NVIDIA H100 80GB HBM3"
    assert answer["config"]["family"] == "cublas"
    assert answer["prediction"]["runtime_us"] == pytest.approx(expected.runtime_us, rel=1e-5)
    assert answer["prediction"]["power_w"] == pytest.approx(expected.power_w, rel=1e-5)
    (model,) = json.loads(call([installed, "models", "--json"], directory))["models"]
    assert Path(model["file"]).is_relative_to(directory.parent)
    assert model["version"] == predictor.version


@pytest.mark.parametrize("question", [QUESTION, ["models"]], ids=["predict", "models"])
def test_a_command_takes_little_cpu_time(installed: Path, question: list[str]) -> None:
    """The least of three: other processes make a command slower, nothing makes it faster."""
    times_s = []
    for _ in range(3):
        before_s = _cpu_s_of_children()
        call([installed, *question], installed.parent)
        times_s.append(_cpu_s_of_children() - before_s)
    assert min(times_s) < MAX_CPU_S


def _cpu_s_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_source_distribution_has_the_model_and_no_datasets(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path]
    call([*build, ROOT], tmp_path)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"gemmcast/models/default.onnx", "gemmcast/models/default.json"} <= names
    assert not [name for name in names if name.startswith("datasets")]
