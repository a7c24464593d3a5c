"""The import graph, read from the source: arrows point one way, and each heavy library is in few hands.

    agent, coordinator, registry -> gemmcast;  coordinator -> registry;  coordinator -> the few names of agent listed here

A failure here is a design change: change the list on purpose, or the import.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("agent", "coordinator", "gemmcast", "registry")
HEAVY = {
    "ray": {"agent/actor.py", "coordinator/fleet/session.py", "coordinator/fleet/cluster.py", "coordinator/fleet/trainer.py"},
    "cupy": {
        "agent/devices/cuda.py",
        "agent/kernels/cublas.py",
        "agent/devices/cuda_peaks.py",
        "agent/devices/cuda_stream.py",
        "agent/kernels/cublaslt/__init__.py",
        "agent/kernels/cutlass/__init__.py",
        "agent/kernels/custom.py",
        "agent/kernels/launch.py",
        "agent/kernels/tiled.py",
    },
    "nvmath": {"agent/kernels/cublaslt/__init__.py"},
    "sklearn": {
        "costmodel/evaluate/baselines.py",
        "costmodel/alternatives.py",
        "costmodel/onnx_export.py",
        "costmodel/model.py",
    },
    "skl2onnx": {"costmodel/alternatives.py", "costmodel/onnx_export.py"},
    "scipy": {"costmodel/network.py", "costmodel/evaluate/ranking.py"},
    "ndonnx": {"costmodel/onnx_export.py", "costmodel/graph_ops.py"},
    "mlflow": {"registry/backend.py"},
    "deltalake": {"coordinator/samples/store.py"},
    "onnxruntime": {"costmodel/train.py", "gemmcast/predictor.py"},
    "onnx": {"costmodel/onnx_export.py", "registry/artifact.py"},
    "pynvml": {"agent/devices/nvml.py", "agent/devices/local.py"},
    "matplotlib": {"coordinator/report/figures.py", "coordinator/report/html.py"},
    "threadpoolctl": {"agent/kernels/blas.py"},
}
FROM_AGENT = {
    ("coordinator/fleet/cluster.py", "agent.actor.Agent"),
    ("coordinator/fleet/scheduler.py", "agent.instrument.failed"),  # the row of a cell that no agent could report
    ("coordinator/plan/cells.py", "agent.kernels.cutlass.generate.configs"),  # pure text: what a set holds
    ("coordinator/plan/cells.py", "agent.kernels.custom.read_own"),  # an own kernel is named by its content
    ("agent/devices/local.py", "agent.devices.replay.ReplayInstrument"),  # `plan` names a device before anything runs
    ("agent/devices/local.py", "agent.devices.cpu.CpuBackend"),
}
MAX_LINES = 400


def imported(path: Path) -> set[str]:
    """Full names of what a file imports, wherever in it: `a.b` of `import a.b`, `a.b.c` of `from a.b import c`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where an arrow points"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@cache
def graph() -> dict[str, set[str]]:
    """file -> what it imports, of the four packages."""
    files = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): imported(path) for path in files}


def top(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def users(library: str) -> set[str]:
    return {file for file, names in graph().items() if library in map(top, names)}


def test_gemmcast_needs_numpy_and_onnx_runtime_alone() -> None:
    allowed = sys.stdlib_module_names | {"gemmcast", "numpy", "onnxruntime"}
    foreign = {
        (file, name)
        for file, names in graph().items()
        if top(file.replace("/", ".")) == "gemmcast"
        for name in {top(name) for name in names} - allowed
    }
    assert foreign == {("gemmcast/arrow.py", "pyarrow")}


def test_the_embedded_predictor_never_meets_arrow() -> None:
    """Within gemmcast, only the applications ask for gemmcast.arrow."""
    assert not [file for file, names in graph().items() if file.startswith("gemmcast/") and any(name.startswith("gemmcast.arrow") for name in names)]


@pytest.mark.parametrize(("package", "never"), [("agent", {"coordinator", "registry"}), ("registry", {"agent", "coordinator"})])
def test_arrows_point_one_way(package: str, never: set[str]) -> None:
    assert not {(file, name) for file, names in graph().items() if file.startswith(f"{package}/") for name in names if top(name) in never}


def test_the_coordinator_knows_little_of_agent() -> None:
    found = {(file, name) for file, names in graph().items() if file.startswith("coordinator/") for name in names if top(name) == "agent"}
    assert found == FROM_AGENT


def test_nobody_imports_tests_or_benchmarks() -> None:
    assert not {(file, name) for file, names in graph().items() for name in names if top(name) in ("tests", "benchmarks", "examples")}


@pytest.mark.parametrize("library", HEAVY)
def test_a_heavy_library_is_in_few_hands(library: str) -> None:
    assert users(library) == HEAVY[library]


def test_no_package_imports_in_a_circle() -> None:
    """Imports at the top of a file only: one inside a function breaks a circle on purpose."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for file in graph():
        body = ast.parse((ROOT / file).read_text()).body
        names = {f"{node.module}.{alias.name}" for node in body if isinstance(node, ast.ImportFrom) for alias in node.names}
        names |= {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names}
        arrows[file] = {target for name in names for target in (module_of(name), module_of(name.rpartition(".")[0])) if target and target != file}
    done: set[str] = set()

    def visit(file: str, trail: tuple[str, ...]) -> None:
        assert file not in trail, " -> ".join((*trail, file))
        if file not in done:
            for target in sorted(arrows[file]):
                visit(target, (*trail, file))
            done.add(file)

    for file in sorted(arrows):
        visit(file, ())


def module_of(name: str) -> str | None:
    """The file that a dotted name is, if it is one of ours and no package: packages' own files import nothing back."""
    path = f"{name.replace('.', '/')}.py"
    return path if path in graph() else None


@pytest.mark.parametrize("program", ["coordinator", "registry", "gemmcast"])
def test_help_loads_no_heavy_library(program: str) -> None:
    """Whoever asks for help gets it at once."""
    code = f"""
import json, runpy, sys
sys.argv = ["{program}", "--help"]
try:
    runpy.run_module("{program}", run_name="__main__")
except SystemExit as end:
    assert not end.code
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {top(name) for name in json.loads(done.stdout.splitlines()[-1])}
    heavy = {*HEAVY, "numpy", "pyarrow", "pandas"}
    assert not loaded & heavy
    assert program in loaded


def test_importing_gemmcast_loads_neither_numpy_nor_onnx_runtime() -> None:
    code = "import sys, gemmcast; gemmcast.Gemm(m=1, n=1, k=1); print('numpy' in sys.modules, 'onnxruntime' in sys.modules); gemmcast.Predictor"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_no_loose_module_lies_at_the_root() -> None:
    """`--working-dir .` puts the root first on the path: a file there could hide a library."""
    assert not list(ROOT.glob("*.py"))
    assert all((ROOT / package / "__init__.py").is_file() for package in PACKAGES)


def test_tests_are_no_packages() -> None:
    """With an __init__.py there, pytest would import tests/agent as `agent`."""
    assert not list((ROOT / "tests").rglob("__init__.py"))
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(set(names)) == sorted(names)


def test_a_module_is_a_page() -> None:
    folders = (*PACKAGES, "benchmarks", "examples")
    lines = {path: len(path.read_text().splitlines()) for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert not {str(path.relative_to(ROOT)): count for path, count in lines.items() if count > MAX_LINES}
