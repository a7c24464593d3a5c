"""`python -m coordinator plan | train | status | report` on a workspace made by hand."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coordinator.fleet.delivery import Delivery, write_record
from coordinator.samples.store import SampleStore
from gemmcast import Predictor
from gemmcast.config import KernelConfig
from gemmcast.gemm import Gemm

Ended = subprocess.CompletedProcess[str]
Coordinator = Callable[..., Ended]
REPLAY = """
name = "replayed"
[devices]
kind = "replay"
dataset = "recorded.parquet"
[[sweep]]
family = "blas"
kernel = "numpy"
dtypes = ["fp32", "bf16"]
shapes = { sample = 100, max = 1024 }
knobs = { cpu_threads = [1, 2] }
repeats = 2
[[sweep]]
family = "cublas"
shapes = { list = [[8, 8, 8]] }
"""
LLAMA = Path(__file__).parents[2] / "examples" / "llama-3.1-8b.json"
HERE = """
name = "here"
devices = { kind = "cpu" }
[[sweep]]
family = "blas"
shapes = { list = [[64, 64, 64]] }
repeats = 2
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, cpu_samples: pa.Table) -> Path:
    """Samples written straight into the store."""
    path = tmp_path_factory.mktemp("made by hand") / "workspace"
    SampleStore.open(path / "samples", create=True).append([cpu_samples])
    return path


@pytest.fixture(scope="module")
def trained(coordinator: Coordinator, workspace: Path) -> dict[str, Any]:
    """What `train --json` says of the first version."""
    return _json(coordinator("train", "--workspace", workspace, "--json"))


def _json(ended: Ended) -> dict[str, Any]:
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stdout.splitlines()
    values: dict[str, Any] = json.loads(line)
    return values


def _refused(ended: Ended) -> str:
    """The one line of a refusal."""
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_train_publishes_and_makes_it_this_nodes_model(
    trained: dict[str, Any], workspace: Path
) -> None:
    assert (trained["version"], trained["objection"], trained["rows"]) == ("1", None, 300)
    assert set(trained["scores"]) == {"runtime_us", "tflops"}
    assert set(trained["scores"]["runtime_us"]) == {"model", "lookup", "roofline", "paper_forest"}
    assert set(trained["generalisation"]) == {"layer", "layer-algorithm"}
    assert trained["ranking"] == {}
    assert trained["repeatability"]["runtime_uncertainty"]["rows"] == 300
    with Predictor(workspace / "node") as predictor:
        assert predictor.version == "1"
        answer = predictor.predict(
            Gemm(m=512, n=512, k=512), KernelConfig(family="blas", cpu_threads=2)
        )
    assert 0.3 < answer.runtime_us / (2 * 512**3 / 0.2e6) < 5


def test_train_again_is_a_second_version(
    trained: dict[str, Any], coordinator: Coordinator, workspace: Path
) -> None:
    ended = coordinator("train", "--workspace", workspace)
    assert ended.returncode == 0
    texts = ("model 2: errors on", "held-out shapes", "lookup", "paper_forest")
    for text in (*texts, "generalisation", "\n layer ", "new layer, algorithm"):
        assert text in ended.stdout


def test_status_says_what_there_is(
    trained: dict[str, Any], coordinator: Coordinator, workspace: Path
) -> None:
    values = _json(coordinator("status", "--workspace", workspace, "--json"))
    assert values["workspace"] == str(workspace)
    assert (values["store_version"], values["samples"]) == (1, {"ok": 300})
    assert int(values["champion"]) == values["versions"] >= 1
    assert (values["total"], values["agents"]) == (300, 1)
    assert 0 <= values["last_commit_s"] < 600
    lines = coordinator("status", "--workspace", workspace).stdout.splitlines()
    assert lines[0] == f"workspace {workspace}"
    assert lines[1].split() == ["samples", "300", "(300", "ok)"]


def test_status_says_which_agent_took_which_version(
    coordinator: Coordinator, workspace: Path
) -> None:
    delivery = Delivery()
    delivery.join("host-1a2b3c/cpu", "host-1a2b3c")
    delivery.want("1")
    delivery.sent("host-1a2b3c/cpu")
    delivery.answered("host-1a2b3c/cpu", "1")
    write_record(workspace / "nodes.json", delivery.record())
    values = _json(coordinator("status", "--workspace", workspace, "--json"))
    assert values["nodes"]["host-1a2b3c/cpu"].startswith("model 1, taken 0:00:0")
    assert "model 1, taken" in coordinator("status", "--workspace", workspace).stdout


def test_report_is_one_file(
    trained: dict[str, Any], coordinator: Coordinator, workspace: Path, tmp_path: Path
) -> None:
    written = _json(coordinator("report", "--workspace", workspace, "--json"))
    assert written["report"] == str(workspace / "report.html")
    # `make docs` decides whether there is one
    assert written["page"] in (None, str(workspace / "ask.html"))
    html = (workspace / "report.html").read_text()
    assert "<svg" in html
    assert set(re.findall(r"https?://([\w.]+)", html)) <= {"www.w3.org"}, "nothing is loaded"
    ended = coordinator("report", "--workspace", workspace, "--out", tmp_path / "other.html")
    assert ended.stdout.startswith(f"report: {tmp_path / 'other.html'}\npage:   ")
    assert (tmp_path / "other.html").exists()


def test_a_workspace_without_a_model_has_a_status_and_a_report(
    coordinator: Coordinator, tmp_path: Path, cpu_samples: pa.Table
) -> None:
    SampleStore.open(tmp_path / "samples", create=True).append([cpu_samples.slice(0, 9)])
    values = _json(coordinator("status", "--workspace", tmp_path, "--json"))
    assert (values["samples"], values["champion"], values["versions"]) == ({"ok": 9}, None, 0)
    report = _json(coordinator("report", "--workspace", tmp_path, "--json"))["report"]
    assert "No model yet." in Path(report).read_text()
    # Looking creates nothing.
    assert not (tmp_path / "registry").exists()


def test_a_report_prices_a_language_model(
    coordinator: Coordinator, tmp_path: Path, cpu_samples: pa.Table
) -> None:
    SampleStore.open(tmp_path / "samples", create=True).append([cpu_samples.slice(0, 9)])
    model = ["--model", LLAMA, "--tokens", "16"]
    rates = ["--kwh-price", "0.25", "--gco2-per-kwh", "380"]
    ended = coordinator("report", "--workspace", tmp_path, *model, *rates)
    assert ended.returncode == 0, ended.stderr
    html = (tmp_path / "report.html").read_text()
    for title in ("cost of a million passes", "gCO2e of a million passes"):
        assert title in html


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kwh-price", "0.25"], "--model = None: --kwh-price and --gco2-per-kwh are of"),
        (["--model", "config.json", "--gco2-per-kwh=-1"], "--gco2-per-kwh = -1.0: must be"),
    ],
)
def test_rates_that_a_report_cannot_use_are_refused_at_once(
    coordinator: Coordinator, tmp_path: Path, options: list[str], message: str
) -> None:
    line = _refused(coordinator("report", "--workspace", tmp_path / "nowhere", *options))
    assert line.startswith(f"error: {message}")


def test_too_few_samples_are_refused_and_nothing_is_published(
    coordinator: Coordinator, tmp_path: Path, cpu_samples: pa.Table
) -> None:
    SampleStore.open(tmp_path / "samples", create=True).append([cpu_samples.slice(0, 60)])
    line = _refused(coordinator("train", "--workspace", tmp_path))
    rule = "a model needs 100 rows with status ok over 10 shapes, here are 60 over 20"
    assert f"samples = 60: {rule}" in line
    assert not (tmp_path / "registry").exists() and not (tmp_path / "node").exists()


@pytest.mark.parametrize("command", ["status", "train", "report"])
def test_a_workspace_that_is_not_there_is_refused_and_not_made(
    coordinator: Coordinator, tmp_path: Path, command: str
) -> None:
    line = _refused(coordinator(command, "--workspace", tmp_path / "nowhere"))
    assert "holds no samples; run a plan there first: python -m coordinator run PLAN.toml" in line
    assert list(tmp_path.iterdir()) == []


def test_settings_out_of_bounds_are_refused(coordinator: Coordinator, workspace: Path) -> None:
    line = _refused(coordinator("train", "--workspace", workspace, "--holdout", "0.95"))
    assert "train.holdout = 0.95: must be above 0 and below 0.9" in line
    line = _refused(coordinator("train", "--workspace", workspace, "--min-rows", "3"))
    assert "train.min_rows = 3: must be at least 20" in line


def test_wrong_usage_is_one_line_too(coordinator: Coordinator) -> None:
    assert "No such option: --colour" in _refused(coordinator("status", "--colour"))


@pytest.fixture
def replay(tmp_path: Path, cpu_samples: pa.Table) -> Path:
    pq.write_table(cpu_samples, tmp_path / "recorded.parquet")
    (tmp_path / "plan.toml").write_text(REPLAY)
    return tmp_path / "plan.toml"


def test_plan_counts_cells_and_measures_nothing(coordinator: Coordinator, replay: Path) -> None:
    values = _json(coordinator("plan", replay, "--json"))
    assert values["device"] == "Paper CPU (2 cores)"
    assert (values["cells"], values["shapes"], values["cells_with_power"]) == (400, 100, 0)
    assert values["refused"] == {
        "family blas has no bf16": 400,
        "family cublas needs a cuda device; this is cpu": 1,
    }
    assert values["estimated_minutes"] > 0 and values["memory_mib"] > 0
    assert sorted(path.name for path in replay.parent.iterdir()) == [
        "plan.toml",
        "recorded.parquet",
    ]


def test_plan_prints_the_resolved_plan_and_a_table(coordinator: Coordinator, replay: Path) -> None:
    ended = coordinator("plan", replay)
    assert ended.returncode == 0
    assert len(ended.stderr.splitlines()) <= 10
    assert '"target_rse": 0.005' not in ended.stderr
    assert '"target_rse": 0.005' in coordinator("plan", replay, "--verbose").stderr
    assert "plan replayed" in ended.stdout
    assert "refused: 400 cells, family blas has no bf16" in ended.stdout


def test_plan_names_this_machines_cpu(coordinator: Coordinator, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(HERE)
    values = _json(coordinator("plan", plan, "--json"))
    assert values["device"].endswith("cores)")
    assert (values["cells"], values["shapes"], values["refused"]) == (2, 1, {})
    plan.write_text(plan.read_text().replace("[64, 64, 64]", "[1000000, 1000000, 1000000]"))
    line = _refused(coordinator("plan", plan))
    assert "sweep.0.shapes = '1000000x1000000x1000000 fp32 nn': its operands and their " in line
    assert "float64 copies for the check need 33527.6 GiB" in line


def test_plan_of_a_dataset_that_is_none_is_refused(coordinator: Coordinator, replay: Path) -> None:
    (replay.parent / "recorded.parquet").write_text("not a table")
    assert "recorded.parquet': not a Parquet file" in _refused(coordinator("plan", replay))
