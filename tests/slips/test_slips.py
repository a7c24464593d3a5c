"""A first user's hour: every slip ends with one line, the right exit code, and nothing changed."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from list_of_slips import SLIPS
from slip import Slip, run, tree

from gemmcast import __version__
from gemmcast.config import KernelConfig
from gemmcast.device import Device

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # inside MLflow 3.17 with SQLAlchemy 2.1


@pytest.mark.parametrize("slip", SLIPS, ids=[slip.name for slip in SLIPS])
def test_a_slip_ends_with_one_line_and_changes_nothing(
    slip: Slip, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slip.prepare(place)
    for name, value in slip.environment.items():
        monkeypatch.setenv(name, value)
    before = tree(place)
    code, out, err = run(slip.command.split())
    assert (code, out) == (slip.code, ""), err
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert slip.says in line
    assert "Traceback" not in line
    assert tree(place) == before


def test_the_list_is_long_enough() -> None:
    assert len(SLIPS) >= 60
    assert len({slip.command for slip in SLIPS}) > 100


HELP = {
    "coordinator run": ["WORKSPACE/samples", "WORKSPACE/registry", "WORKSPACE/node"],
    "coordinator report": ["WORKSPACE/report.html"],
    "coordinator import": ["by the file's content", "estimated from the table"],
    "coordinator export": ["by the file's name"],
    "registry show": ["DIR/registry"],
    "cutlass build": [
        "$GEMMCAST_CUTLASS, else the user's cache",
        "the first on the PATH, else that of NVIDIA's wheel",
        "those of the package nvidia-cutlass",
    ],
    "cutlass list": ["all"],
}
"""Command -> defaults that are no values."""


@pytest.mark.parametrize("command", HELP)
def test_help_shows_every_default(command: str) -> None:
    code, out, err = run([*command.split(), "--help"])
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    for default in HELP[command]:
        assert f"[default: ({default})]" in text


@pytest.mark.parametrize("program", ["coordinator", "registry", "gemmcast", "cutlass"])
def test_every_command_line_has_a_version(program: str) -> None:
    assert run([program, "--version"]) == (0, f"gemmcast {__version__}\n", "")


def test_a_name_with_brackets_is_printed_as_it_is(place: Path, cpu_samples: pa.Table) -> None:
    """The rows are committed: the line about them must not fail."""
    name = "[/nt] [red].parquet"
    (place / "[").mkdir()
    pq.write_table(cpu_samples, place / name)
    code, out, err = run(["coordinator", "import", name, "--workspace", "few"])
    assert (code, err) == (0, "")
    assert name in out
    assert out.count("240") == 1


def test_what_cutlass_lists_is_what_gemmcast_reads(place: Path, gpu: Device) -> None:
    words = ["cutlass", "list", "--arch", "sm_80", "--dtype", "fp16", "--layout", "nn"]
    _, text, _ = run(words)
    _, as_json, _ = run([*words, "--json"])
    printed = [KernelConfig.parse(line.split()[-1]) for line in text.splitlines()]
    assert printed == [KernelConfig(**row) for row in json.loads(as_json)]
    (place / "configs.json").write_text(as_json)
    (place / "gpu.json").write_text(gpu.to_json())
    ranking = ["gemmcast", "rank", "64", "64", "64", "--dtype", "fp16", "--model", "model.onnx"]
    where = ["--device", "gpu.json", "--configs-file", "configs.json"]
    code, out, _ = run([*ranking, *where, "--json"])
    assert code == 0
    assert len(json.loads(out)["ranking"]) == len(printed)
