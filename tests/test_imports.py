"""The import graph, read from the source: arrows point one way; few files use a heavy library.

    signing, costmodel -> gemmcast;  agent, registry -> gemmcast, signing
    coordinator -> costmodel, registry, signing, and the names of agent listed here
    within coordinator: plan -> samples;  health -> plan, samples;  fleet -> health, plan, samples;
        report -> samples;  tune -> fleet, plan, samples;  only demo, cli and tune's command print

A failure here is a design change: change the list on purpose, or the import.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("agent", "coordinator", "costmodel", "gemmcast", "registry", "signing")
FOLDERS = (*PACKAGES, "benchmarks", "examples")
IMPORTS = {
    "gemmcast": set(),
    "signing": {"gemmcast"},
    "agent": {"gemmcast", "signing"},
    "costmodel": {"gemmcast"},
    "registry": {"gemmcast", "signing"},
    "coordinator": {"agent", "costmodel", "gemmcast", "registry", "signing"},
}
ROOMS = {
    # the products that a plan may name
    "plan": {"samples"},
    "samples": set(),
    "health": {"plan", "samples"},
    "fleet": {"health", "plan", "samples"},
    "report": {"samples"},
    "tune": {"fleet", "plan", "samples"},
}
"""Which rooms of the coordinator a room may import, besides itself and coordinator/workspace.py."""
COMMAND_LINE = {
    "coordinator/cli.py",
    "coordinator/cli_health.py",
    "coordinator/cli_samples.py",
    "coordinator/cli_status.py",
    "coordinator/demo.py",
    "coordinator/live_view.py",
    "coordinator/progress.py",
    "coordinator/terminal.py",
    "coordinator/tune/command.py",
}
COMMAND_LINE_MODULES = tuple(
    file.removesuffix(".py").replace("/", ".") for file in sorted(COMMAND_LINE)
)
HEAVY = {
    "ray": {
        "agent/actor.py",
        "coordinator/fleet/cluster.py",
        "coordinator/fleet/connection.py",
        "coordinator/fleet/session.py",
        "coordinator/fleet/trainer.py",
    },
    "cupy": {
        "agent/devices/cuda.py",
        "agent/devices/cuda_arena.py",
        "agent/devices/cuda_graphs.py",
        "agent/devices/cuda_peaks.py",
        "agent/devices/cuda_stream.py",
        "agent/kernels/cublas.py",
        "agent/kernels/cublaslt/__init__.py",
        "agent/kernels/custom/__init__.py",
        "agent/kernels/cutlass/__init__.py",
        "agent/kernels/launch.py",
        "agent/kernels/tiled.py",
        "agent/kernels/triton/__init__.py",
    },
    "nvmath": {"agent/kernels/cublaslt/__init__.py"},
    "sklearn": {
        "costmodel/corrections.py",
        "costmodel/evaluate/baselines.py",
        "costmodel/model.py",
        "costmodel/model_kinds.py",
        "costmodel/onnx_export.py",
        "costmodel/trees.py",
    },
    "skl2onnx": {"costmodel/model_kinds.py"},
    "scipy": {"costmodel/ensemble.py", "costmodel/evaluate/ranking.py"},
    "ndonnx": {"costmodel/graph_ops.py", "costmodel/onnx_export.py"},
    "mlflow": {"registry/backend.py", "registry/mlflow_calls.py"},
    "model_signing": {"signing/signer.py"},
    "cryptography": {"signing/keys.py"},
    "deltalake": {"coordinator/samples/log.py", "coordinator/samples/place.py"},
    "onnxruntime": {"costmodel/onnx_session.py", "gemmcast/modelfile.py"},
    "onnx": {
        "costmodel/graph_ops.py",
        "costmodel/graph_twins.py",
        "costmodel/onnx_export.py",
        "registry/artifact.py",
        "registry/c_export/graph.py",
    },
    "pynvml": {
        "agent/devices/local.py",
        "agent/devices/nvml.py",
        "agent/devices/usage.py",
        "agent/devices/visible.py",
    },
    "matplotlib": {
        "coordinator/report/drawing.py",
        "coordinator/report/figures.py",
        "coordinator/report/language_figures.py",
        "coordinator/report/page.py",
        "coordinator/report/svg.py",
        "coordinator/report/tile_figures.py",
    },
    "triton": {
        "agent/kernels/triton/compiler.py",
        "agent/kernels/triton/sources/grouped.py",
        "agent/kernels/triton/sources/matmul.py",
        "agent/kernels/triton/sources/scaled_block.py",
    },
    "threadpoolctl": {"agent/kernels/blas.py", "costmodel/shipped.py"},
}
FROM_AGENT = {
    # the actor, what it is made of, and its first answer
    ("coordinator/fleet/cluster.py", "agent.actor.Agent"),
    ("coordinator/fleet/cluster.py", "agent.spec.AgentSpec"),
    # what says that an agent lives but can't start its child
    ("coordinator/fleet/cluster.py", "agent.child_process.ChildDied"),
    ("coordinator/fleet/cluster.py", "agent.spec.Hello"),
    # what says that its GPU is left to others
    ("coordinator/fleet/cluster.py", "agent.idle.NotIdleError"),
    # time that passes while this process runs
    ("coordinator/fleet/leases.py", "agent.awake.AwakeTime"),
    ("coordinator/fleet/member.py", "agent.awake.AwakeTime"),
    ("coordinator/fleet/node_watch.py", "agent.awake.AwakeTime"),
    # a kernel of the project is named by its content
    ("coordinator/plan/configurations.py", "agent.kernels.custom.read_custom"),
    ("coordinator/plan/configurations.py", "agent.kernels.triton.read_triton"),
    # the device of this machine, before anything is measured
    ("coordinator/sizes.py", "agent.devices.local.local_device"),
    ("coordinator/fleet/connection.py", "agent.devices.local.local_device"),
    ("coordinator/fleet/session.py", "agent.devices.local.local_device"),
}
MAX_LINES = 400
MAX_FUNCTION_LINES = 60


def imported(path: Path) -> set[str]:
    """Full names of what a file imports: `a.b` of `import a.b`, `a.b.c` of `from a.b import c`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where an arrow points"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def graph() -> dict[str, set[str]]:
    """file -> what it imports, of all packages."""
    files = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): imported(path) for path in files}


def arrows() -> Iterator[tuple[str, str]]:
    """Every (file, imported name)."""
    for file, names in graph().items():
        for name in sorted(names):
            yield file, name


def top(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def package_of(file: str) -> str:
    return file.split("/", maxsplit=1)[0]


def room_of(name: str) -> str | None:
    """The room of the coordinator that a dotted name lies in."""
    parts = name.split(".")
    return parts[1] if parts[0] == "coordinator" and len(parts) > 1 and parts[1] in ROOMS else None


def users(library: str) -> set[str]:
    return {file for file, name in arrows() if top(name) == library}


def test_gemmcast_needs_numpy_and_onnx_runtime_alone() -> None:
    allowed = sys.stdlib_module_names | {"gemmcast", "numpy", "onnxruntime"}
    foreign = {
        (file, top(name))
        for file, name in arrows()
        if package_of(file) == "gemmcast" and top(name) not in allowed
    }
    names = ("arrow", "parquet_file", "tuned_parquet")
    with_arrow = {f"gemmcast/{name}.py" for name in names}
    assert foreign == {(file, "pyarrow") for file in with_arrow}


def test_the_embedded_predictor_never_imports_arrow() -> None:
    """Within gemmcast nothing imports what needs pyarrow; the applications do."""
    with_arrow = ("gemmcast.arrow", "gemmcast.parquet_file", "gemmcast.tuned_parquet")
    importers = {
        file
        for file, name in arrows()
        if package_of(file) == "gemmcast" and name.startswith(with_arrow)
    }
    assert importers == {"gemmcast/arrow.py", "gemmcast/tuned_parquet.py"}


def test_arrows_point_one_way() -> None:
    wrong = {
        (file, name)
        for file, name in arrows()
        if top(name) in PACKAGES and top(name) not in IMPORTS[package_of(file)] | {package_of(file)}
    }
    assert not wrong


def test_the_coordinator_uses_few_names_of_agent() -> None:
    used = {
        (file, name)
        for file, name in arrows()
        if package_of(file) == "coordinator" and top(name) == "agent"
    }
    assert used == FROM_AGENT


def test_rooms_of_the_coordinator() -> None:
    wrong = set()
    for file, name in arrows():
        room = room_of(file.removesuffix(".py").replace("/", "."))
        if room and room_of(name) not in {None, room, *ROOMS[room]}:
            wrong.add((file, name))
    assert not wrong


def test_only_the_command_line_prints() -> None:
    """Nothing imports the command line but its own files and `python -m coordinator`."""
    users = {file for file, name in arrows() if name.startswith(COMMAND_LINE_MODULES)}
    assert users <= COMMAND_LINE | {"coordinator/__main__.py"}


def test_nothing_imports_tests_or_benchmarks() -> None:
    outside = ("tests", "benchmarks", "examples")
    assert not {(file, name) for file, name in arrows() if top(name) in outside}


@pytest.mark.parametrize("library", HEAVY)
def test_few_files_use_a_heavy_library(library: str) -> None:
    assert users(library) == HEAVY[library]


def test_no_package_imports_in_a_circle() -> None:
    """Imports at the top of a file only: one inside a function breaks a circle on purpose."""
    targets: dict[str, set[str]] = defaultdict(set)
    for file in graph():
        for name in top_level_imports(file):
            for module in (module_of(name), module_of(name.rpartition(".")[0])):
                if module and module != file:
                    targets[file].add(module)
    done: set[str] = set()

    def visit(file: str, trail: tuple[str, ...]) -> None:
        assert file not in trail, " -> ".join((*trail, file))
        if file in done:
            return
        for target in sorted(targets[file]):
            visit(target, (*trail, file))
        done.add(file)

    for file in sorted(graph()):
        visit(file, ())


def top_level_imports(file: str) -> set[str]:
    names = set()
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def module_of(name: str) -> str | None:
    """The file of a dotted name, if it is a module of ours and no package."""
    path = f"{name.replace('.', '/')}.py"
    return path if path in graph() else None


@pytest.mark.parametrize("program", ["coordinator", "registry", "gemmcast"])
def test_help_loads_no_heavy_library(program: str) -> None:
    """`--help` answers at once."""
    code = f"""
import json, runpy, sys
sys.argv = ["{program}", "--help"]
try:
    runpy.run_module("{program}", run_name="__main__")
except SystemExit as end:
    assert not end.code
print(json.dumps(sorted(sys.modules)))
"""
    loaded = {top(name) for name in json.loads(run_python(code).splitlines()[-1])}
    heavy = {*HEAVY, "numpy", "pyarrow", "pandas"}
    assert not loaded & heavy
    assert program in loaded


def test_importing_gemmcast_loads_neither_numpy_nor_onnx_runtime() -> None:
    code = """
import sys, gemmcast
gemmcast.Gemm(m=1, n=1, k=1)
print('numpy' in sys.modules, 'onnxruntime' in sys.modules)
gemmcast.Predictor
"""
    assert run_python(code).split() == ["False", "False"]


def run_python(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_no_loose_module_lies_at_the_root() -> None:
    """`--working-dir .` puts the root first on the path: a file there could hide a library."""
    assert not list(ROOT.glob("*.py"))
    assert all((ROOT / package / "__init__.py").is_file() for package in PACKAGES)


def test_tests_are_no_packages() -> None:
    """With an __init__.py there, pytest would import tests/agent as `agent`."""
    assert not list((ROOT / "tests").rglob("__init__.py"))
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(set(names)) == sorted(names)


def sources() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from (ROOT / folder).rglob("*.py")


def test_what_looks_like_a_command_is_one() -> None:
    """Every file of these folders can be run; what several commands share lies in a package."""
    is_command: dict[str, bool] = {}
    for path in (ROOT / "benchmarks").glob("*.py"):
        is_command[path.name] = 'if __name__ == "__main__":' in path.read_text()
    assert is_command
    assert all(is_command.values()), is_command
    in_package = [path for path in (ROOT / "benchmarks").glob("*/*.py") if "__main__" in path.name]
    assert [path.parent.name for path in in_package] == ["paper"]


def test_a_module_is_a_page() -> None:
    long = {}
    for path in sources():
        count = len(path.read_text().splitlines())
        if count > MAX_LINES:
            long[str(path.relative_to(ROOT))] = count
    assert not long


def test_a_function_fits_on_a_screen() -> None:
    long = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > MAX_FUNCTION_LINES:
                    long[f"{path.relative_to(ROOT)}:{node.name}"] = count
    assert not long
