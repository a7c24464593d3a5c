"""The wheel as a user gets it: built, installed into a new environment, used away from the source.

Once with whatever ONNX Runtime pip resolves today, once with the oldest that the contract allows.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
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
    """A fresh one with the wheel in it; its Python."""
    call([sys.executable, "-m", "venv", directory], directory.parent)
    python = directory / "bin" / "python"
    call(
        [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary=:all:",
            wheel,
            *pins,
        ],
        directory,
    )
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
    sources = {f"gemmcast/{path.name}" for path in (ROOT / "gemmcast").iterdir() if path.is_file()}
    assert {name for name in names if name.startswith("gemmcast/")} == sources
    plain = [
        line
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist:") and "extra ==" not in line
    ]
    assert sorted(plain) == ["Requires-Dist: numpy>=1.26", "Requires-Dist: onnxruntime>=1.18"]


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
