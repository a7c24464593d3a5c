"""Nothing is unpickled from a disk or a store: no module imports what could, none calls it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("agent", "coordinator", "costmodel", "gemmcast", "registry", "signing", "deploy")
MODULES = {
    "_pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "jsonpickle",
    "marshal",
    "pandas",
    "pickle",
    "shelve",
    "skops",
    "torch",
    "yaml",
}
"""What can make objects of the bytes of a file. PyYAML has a safe way, which is not needed."""
OF_JOBLIB = {"Parallel", "delayed"}
"""What may be taken of joblib: its processes, not its files."""
CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "np.load",
    "numpy.load",
    "onnx.load",
    "pa.deserialize",
    "joblib.load",
}
"""onnx.load reads the files that a model names; onnx.load_model_from_string reads none."""


def sources() -> Iterator[tuple[str, ast.AST]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text("utf-8"))


def forbidden(tree: ast.AST) -> Iterator[str]:
    """What a module imports or calls that may make objects of bytes, or run text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from filter(_is_forbidden_import, (alias.name for alias in node.names))
        elif isinstance(node, ast.ImportFrom):
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from filter(_is_forbidden_import, names)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            keywords = {keyword.arg for keyword in node.keywords}
            if name in CALLS or "allow_pickle" in keywords or name.endswith("pickle.loads"):
                yield name


def _is_forbidden_import(name: str) -> bool:
    package, _, rest = name.partition(".")
    return package in MODULES or (package == "joblib" and rest not in OF_JOBLIB)


def test_no_module_unpickles_or_evaluates_what_it_reads() -> None:
    found = {(file, name) for file, tree in sources() for name in forbidden(tree)}
    assert found == set()


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import joblib",
        "from joblib import load",
        "eval(text)",
        "onnx.load(path)",
        "import torch",
    ],
)
def test_the_walk_finds_what_it_looks_for(text: str) -> None:
    assert list(forbidden(ast.parse(text)))


def test_a_pickle_in_the_place_of_a_dataset_or_model_runs_nothing(tmp_path: Path) -> None:
    import pickle

    from coordinator.samples.importer import read_table
    from gemmcast import Predictor
    from gemmcast.arrow import read_samples
    from gemmcast.errors import InputError, ModelFileError

    class Hostile:
        """Touches a file when it is unpickled."""

        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (tmp_path / "proof",)

    pickled = tmp_path / "hostile.parquet"
    pickled.write_bytes(pickle.dumps(Hostile()))
    objects = tmp_path / "hostile.onnx"
    with objects.open("wb") as file:
        np.save(file, np.array([Hostile()], dtype=object), allow_pickle=True)
    for path in (pickled, objects):
        with pytest.raises((InputError, OSError, ValueError)):
            read_samples(path)
        with pytest.raises(InputError):
            read_table(path)
        with pytest.raises(ModelFileError):
            Predictor(path)
    assert not (tmp_path / "proof").exists()
