"""Plans, good and bad: a refusal names field, value and way out, and changes nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coordinator.plan.schema import parse_plan, read_plan
from costmodel.settings import TrainSettings
from gemmcast.errors import InputError
from gemmcast.procedure import Procedure

ROOT = Path(__file__).parent.parent.parent
GOOD = """
name = "good"
[[sweep]]
family = "blas"
shapes = { sample = 5 }
"""


def _plan(
    sweep: dict[str, Any] | None = None, shapes: dict[str, Any] | None = None, **tables: Any
) -> dict[str, Any]:
    one = {"family": "blas", "shapes": {"sample": 5} if shapes is None else shapes, **(sweep or {})}
    return {"name": "bad", "sweep": [one], **tables}


def test_a_short_plan_has_defaults_for_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    plan = read_plan(path)
    (sweep,) = plan.sweep
    assert (plan.name, plan.seed) == ("good", 0)
    assert (plan.devices.kind, plan.devices.replicate) == ("auto", "per_type")
    assert (sweep.dtypes, sweep.layouts, sweep.batch) == (("fp32",), ("nn",), (1,))
    assert (sweep.repeats, sweep.power_share) == (1, 0.0)
    assert plan.train.settings() == TrainSettings()
    assert plan.measure.procedure() == Procedure()


def test_the_measure_table_becomes_the_procedure() -> None:
    table = {
        "cache": "warm",
        "target_rse": 0.01,
        "burst_s": 0.1,
        "timeout_s": 5,
        "settle_s": 0.5,
        "power_steps": 8,
    }
    procedure = parse_plan(_plan(measure=table)).measure.procedure()
    assert procedure == Procedure(
        target_rse=0.01, burst_s=0.1, timeout_s=5.0, settle_s=0.5, power_steps=8
    )


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name
)
def test_the_plans_in_examples_are_good(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plan = read_plan(path)
    assert parse_plan(plan.model_dump()) == plan
    assert (plan.devices.kind == "replay") == (plan.devices.dataset is not None)


BAD = [
    # unknown keys, wherever they stand
    (_plan(colour="red"), "colour = 'red': unknown key"),
    (_plan({"tiles": [1]}), "sweep.0.tiles = [1]: unknown key"),
    (_plan(shapes={"sample": 5, "maximum": 3}), "sweep.0.shapes.maximum = 3: unknown key"),
    (_plan(measure={"burst": 1}), "measure.burst = 1: unknown key"),
    (_plan(devices={"gpus": 2}), "devices.gpus = 2: unknown key"),
    (_plan(train={"often": 1}), "train.often = 1: unknown key"),
    # dimensions
    (
        _plan(shapes={"list": [[0, 8, 8]]}),
        "sweep.0.shapes.list.0.0 = 0: input should be greater than or equal to 1",
    ),
    (
        _plan(shapes={"list": [[8, -1, 8]]}),
        "sweep.0.shapes.list.0.1 = -1: input should be greater than or equal to 1",
    ),
    (_plan(shapes={"list": [[8, 8, 2**24 + 1]]}), "less than or equal to 16777216"),
    (_plan(shapes={"list": [[8, 8]]}), "sweep.0.shapes.list.0.2"),
    (
        _plan(shapes={"m": [8], "n": [0], "k": [8]}),
        "sweep.0.shapes.n.0 = 0: input should be greater",
    ),
    (_plan(shapes={"sample": 5, "min": 0}), "sweep.0.shapes.min = 0: input should be greater"),
    (_plan(shapes={"sample": -5}), "sweep.0.shapes.sample = -5: input should be greater"),
    (
        _plan(shapes={"sample": 5, "min": "big"}),
        "sweep.0.shapes.min = 'big': input should be a valid integer",
    ),
    (_plan(shapes={"sample": 5, "min": 600, "max": 500}), "min = 600 is above max = 500"),
    (_plan({"batch": [0]}), "sweep.0.batch.0 = 0: input should be greater"),
    # names that we don't know
    (_plan({"dtypes": ["fp32", "int4"]}), "unknown dtype 'int4'; use one of fp64, fp32"),
    (_plan({"layouts": ["xx"]}), "unknown layout 'xx'; use one of nn, nt, tn, tt"),
    (
        _plan({"family": "magma"}),
        "sweep.0.family = 'magma': unknown kernel family; use one of blas, tiled, cublas",
    ),
    (_plan({"knobs": {"tiles_m": [8]}}), "unknown knob 'tiles_m'; use one of tile, tile_m"),
    (_plan({"knobs": {"tile_m": [-8]}}), "sweep.0.knobs.tile_m.0 = -8: input should be greater"),
    (
        _plan(devices={"kind": "tpu"}),
        "devices.kind = 'tpu': input should be 'auto', 'cuda', 'cpu' or 'replay'",
    ),
    (
        _plan(measure={"cache": "tepid"}),
        "measure.cache = 'tepid': input should be 'cold' or 'warm'",
    ),
    # datasets and kinds that don't belong together
    (
        _plan(devices={"kind": "cpu", "dataset": "x.parquet"}),
        'kind = "replay" and dataset = "FILE.parquet" go together',
    ),
    (_plan(devices={"kind": "replay"}), 'kind = "replay" and dataset = "FILE.parquet" go together'),
    (_plan(devices={"agents": 0}), "devices.agents = 0: input should be greater"),
    # sweeps of nothing
    ({"name": "bad", "sweep": []}, "sweep = []: tuple should have at least 1 item"),
    ({"name": "bad"}, "sweep = None: missing"),
    (_plan(shapes={}), "no shapes: give sample = NUMBER, or m, n and k, or list"),
    (_plan(shapes={"m": [8], "n": [8]}), "a grid needs all of m, n and k"),
    (_plan({"dtypes": []}), "sweep.0.dtypes = []: tuple should have at least 1 item"),
    (_plan({"layouts": []}), "sweep.0.layouts = []: tuple should have at least 1 item"),
    (_plan({"batch": []}), "sweep.0.batch = []: tuple should have at least 1 item"),
    (
        _plan({"knobs": {"cpu_threads": []}}),
        "sweep.0.knobs.cpu_threads = []: tuple should have at least 1 item",
    ),
    (
        _plan(shapes={"sample": 5, "min": 1024, "max_gflop": 0.5}),
        "max_gflop = 0.5 leaves no shape: the smallest, min = 1024, has 2.15",
    ),
    # numbers out of bounds
    (
        _plan({"power_share": 1.5}),
        "sweep.0.power_share = 1.5: input should be less than or equal to 1",
    ),
    (_plan({"repeats": 0}), "sweep.0.repeats = 0: input should be greater"),
    (_plan({"alpha": float("nan")}), "sweep.0.alpha = nan: input should be a finite number"),
    (_plan({"beta": float("inf")}), "sweep.0.beta = inf: input should be a finite number"),
    (_plan(measure={"burst_s": 0}), "measure.burst_s = 0: input should be greater than 0"),
    (_plan(measure={"target_rse": float("nan")}), "measure.target_rse = nan"),
    (_plan(train={"holdout": 0.95}), "train.holdout = 0.95: input should be less than 0.9"),
    (
        _plan(train={"min_rows": 3}),
        "train.min_rows = 3: input should be greater than or equal to 20",
    ),
    (_plan(seed=-1), "seed = -1: input should be greater than or equal to 0"),
    (
        _plan(shapes={"sample": 5, "seed": -1}),
        "sweep.0.shapes.seed = -1: input should be greater than or equal to 0",
    ),
    # the name
    ({**_plan(), "name": "../up"}, "name = '../up': string should match pattern"),
    ({**_plan(), "name": ""}, "name = '': string should match pattern"),
    ({**_plan(), "name": "x" * 65}, "string should match pattern"),
    ({"sweep": _plan()["sweep"]}, "name = None: missing"),
]


@pytest.mark.parametrize(("values", "message"), BAD, ids=[message[:60] for _, message in BAD])
def test_a_bad_plan_is_refused_with_field_value_and_way_out(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        parse_plan(values)
    assert message in str(caught.value)
    assert str(caught.value).endswith(("(docs/plan.md)",))
    assert "\n" not in str(caught.value)
    assert caught.value.way_out


def test_a_plan_that_is_not_toml_says_where(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text('name = "x"\nseed = = 3\n')
    with pytest.raises(
        InputError,
        match=r"broken.toml.*not TOML \(Invalid value \(at line 2, column 8\)\); correct that line",
    ):
        read_plan(path)


def test_a_plan_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'name = "\xe9t\xe9"\n')
    for path in (tmp_path / "nowhere.toml", tmp_path, latin):
        with pytest.raises(
            InputError, match=r"can't be read .*name a plan in TOML, such as examples/demo.toml"
        ):
            read_plan(path)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """plans/replay.toml in a project that we stand in, datasets within and without."""
    inside, outside = tmp_path / "project", tmp_path / "outside"
    for path in (inside / "plans", inside / "datasets", outside):
        path.mkdir(parents=True)
    for path in (
        inside / "datasets" / "a.parquet",
        inside / "plans" / "b.parquet",
        outside / "secret.parquet",
    ):
        path.touch()
    (inside / "plans" / "link.parquet").symlink_to(outside / "secret.parquet")
    monkeypatch.chdir(inside)
    return inside


def _replay(project: Path, dataset: str) -> Path:
    path = project / "plans" / "replay.toml"
    path.write_text(GOOD + f'\n[devices]\nkind = "replay"\ndataset = "{dataset}"\n')
    return path


@pytest.mark.parametrize(
    ("dataset", "path"),
    [("b.parquet", "plans/b.parquet"), ("datasets/a.parquet", "datasets/a.parquet")],
)
def test_a_dataset_lies_beneath_the_plan_or_the_project(
    project: Path, dataset: str, path: str
) -> None:
    assert read_plan(_replay(project, dataset)).devices.dataset == str(project / path)


def test_an_absolute_path_into_the_project_is_fine(project: Path) -> None:
    path = str(project / "datasets" / "a.parquet")
    assert read_plan(_replay(project, path)).devices.dataset == path


@pytest.mark.parametrize(
    "dataset",
    [
        "../../outside/secret.parquet",
        "datasets/../../outside/secret.parquet",
        "{outside}/secret.parquet",
    ],
)
def test_a_dataset_elsewhere_is_refused(project: Path, dataset: str) -> None:
    path = _replay(project, dataset.format(outside=project.parent / "outside"))
    with pytest.raises(
        InputError,
        match="devices.dataset = .*leads out of the plan's folder and of the project; "
        "give a path beneath",
    ):
        read_plan(path)


@pytest.mark.parametrize("dataset", ["nowhere.parquet", "link.parquet", "", "../datasets"])
def test_a_dataset_that_is_none_is_refused(project: Path, dataset: str) -> None:
    with pytest.raises(InputError, match=r"devices.dataset = "):
        read_plan(_replay(project, dataset))


def _everything_below(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else b"/"
        for path in sorted(directory.rglob("*"))
    }


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        (
            "plan",
            GOOD + "\ntiles = [1]\n",
            "error: sweep.0.tiles = [1]: unknown key; "
            "remove it or correct its spelling (docs/plan.md)",
        ),
        (
            "plan",
            GOOD.replace("5", "0"),
            "error: sweep.0.shapes = {'sample': 0}: no shapes: give sample = NUMBER",
        ),
        (
            "run",
            GOOD.replace("blas", "magma"),
            "error: sweep.0.family = 'magma': unknown kernel family; use one of blas",
        ),
        (
            "run",
            GOOD + '\n[devices]\nkind = "replay"\ndataset = "../x.parquet"\n',
            "leads out of the plan's folder and of the project",
        ),
    ],
    ids=["plan-unknown-key", "plan-no-shapes", "run-unknown-family", "run-path-escape"],
)
def test_a_bad_plan_ends_with_one_line_and_exit_code_2(
    tmp_path: Path, python_env: dict[str, str], command: str, text: str, message: str
) -> None:
    plan, workspace = tmp_path / "plan.toml", tmp_path / "workspace"
    plan.write_text(text)
    for name in ("samples/_delta_log/0.json", "registry/mlflow.db"):
        (workspace / name).parent.mkdir(parents=True)
        (workspace / name).write_text("as it was")
    before = _everything_below(tmp_path)
    where = ["--workspace", str(workspace)] if command == "run" else []
    ended = subprocess.run(
        [sys.executable, "-m", "coordinator", command, str(plan), *where],
        capture_output=True,
        text=True,
        env=python_env,
        cwd=tmp_path,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert message in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert _everything_below(tmp_path) == before


def test_the_examples_in_the_documentation_are_plans(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "plan.md").read_text()
    examples = [part.partition("```")[0] for part in page.split("```toml\n")[1:]]
    assert len(examples) >= 2
    for i, example in enumerate(examples):
        (tmp_path / f"{i}.toml").write_text(example)
        (tmp_path / "sweep.parquet").touch()
        assert read_plan(tmp_path / f"{i}.toml").sweep
