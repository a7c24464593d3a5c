"""What `tune` takes: lists, families, devices, objectives; what a restart and a recording give."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from benchmarks import tune_here
from coordinator.tune.command import entry_line, listed_gemms
from coordinator.tune.devices import parse_devices
from coordinator.tune.families import parse_families, runnable
from coordinator.tune.outcome import outcome_of
from coordinator.tune.pools import Pools
from coordinator.tune.record import read_or_make
from coordinator.tune.recording import Recording
from coordinator.tune.request import Request, parse_budget
from coordinator.tune.tuning import Tuning
from gemmcast import models
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.gemm_list import ListedGemm
from gemmcast.objective import Objective
from gemmcast.predictor import Predictor
from gemmcast.rows import Row
from gemmcast.tuned_entry import Cost
from gemmcast.tuned_table import TunedTable
from tests.coordinator.tune_truths import TYPE, Truths, make_search, problem, run

PLAIN = ListedGemm(gemm=Gemm(m=64, n=256, k=256, dtype="bf16", layout="nt"))
SCALED = ListedGemm(
    gemm=Gemm(m=64, n=256, k=256, dtype="fp8_e4m3", layout="nt"), kernel="scaled_block"
)


@pytest.fixture
def hopper(gpu: Device) -> Device:
    return replace(gpu, arch="sm_90", peak_tflops={**gpu.peak_tflops, "fp8_e4m3": 1200.0})


def request_of(gemms: list[ListedGemm], **options: Any) -> Request:
    values = {
        "objective": Objective.parse("time"),
        "families": None,
        "top": 8,
        "budget_s": None,
        "devices": parse_devices("auto"),
    }
    return Request(gemms=gemms, **{**values, **options})


# Families


def test_a_scaled_gemm_is_computed_by_its_kernel_alone(hopper: Device) -> None:
    configs, _ = runnable(SCALED, None, hopper)
    assert {(one.family, one.kernel) for one in configs} == {("triton", "scaled_block")}
    assert runnable(SCALED, ["triton", "cublaslt"], hopper)[0] == configs
    nothing, reason = runnable(SCALED, ["cublaslt"], hopper)
    assert nothing == []
    assert reason.startswith("only triton:scaled_block computes it")


def test_the_first_family_that_can_run_it_has_the_default(hopper: Device) -> None:
    configs, _ = runnable(PLAIN, ["cublaslt", "triton"], hopper)
    assert str(configs[0]) == "cublaslt:kernel=default"
    # cublas has no fp8.
    fp8 = replace(PLAIN, gemm=replace(PLAIN.gemm, dtype="fp8_e4m3"))
    assert runnable(fp8, ["cublas", "cublaslt"], hopper)[0][0].family == "cublaslt"


def test_a_gemm_without_any_kernel_has_a_reason(hopper: Device) -> None:
    odd = replace(SCALED, gemm=replace(SCALED.gemm, n=250))
    assert runnable(odd, None, hopper) == ([], "scaled_block needs a multiple of 16 as n, not 250")


def test_a_list_without_any_kernel_is_refused(tmp_path: Path, hopper: Device) -> None:
    odd = replace(SCALED, gemm=replace(SCALED.gemm, n=250))
    with pytest.raises(InputError, match="no kernel computes any of them: scaled_block needs a"):
        Tuning(request_of([odd, odd]), tmp_path, {hopper.name: hopper}, lambda: [])


def test_families_of_another_kind_of_device_are_left_out(hopper: Device, cpu: Device) -> None:
    plain = ListedGemm(gemm=Gemm(m=64, n=64, k=64))
    words = ["blas", "tiled"]
    assert {one.family for one in runnable(plain, words, cpu)[0]} == {"blas"}
    assert {one.family for one in runnable(plain, words, hopper)[0]} == {"tiled"}


def test_only_the_kernels_of_a_set_are_rivals(hopper: Device) -> None:
    short, usual = (runnable(SCALED, None, hopper, name)[0] for name in ("short", "usual"))
    assert (len(short), len(usual)) == (184, 1144)
    assert short[0] == usual[0]


# Pools


def test_the_model_ranks_and_the_pool_is_bounded(hopper: Device) -> None:
    with Predictor(models.path()) as predictor:
        pools = pools_of([predictor], ["tiled"], count=3)
        made = pools.problem(ListedGemm(gemm=Gemm(m=512, n=512, k=512)), hopper)
        assert made.default is not None
        best = [rival.predicted.runtime_us for rival in made.rivals]
        assert best == sorted(best, key=lambda one: one or 0.0)
        assert (len(best), made.possible) == (3, 6)


def test_without_a_model_the_order_is_that_of_the_family(cpu: Device) -> None:
    with Predictor(models.path()) as predictor:
        pools = pools_of([predictor], ["blas"], count=8)
        made = pools.problem(ListedGemm(gemm=Gemm(m=64, n=64, k=64)), cpu)
    assert [str(rival.config) for rival in made.rivals][:2] == [
        "blas:kernel=numpy,cpu_threads=1",
        "blas:kernel=blocked,tile=64,cpu_threads=2",
    ]
    assert made.rivals[0].predicted == Cost()


def test_names_of_the_heuristic_list_follow_its_default_in_order(hopper: Device) -> None:
    with Predictor(models.path()) as predictor:
        made = pools_of([predictor], ["cublaslt"], count=8).problem(PLAIN, hopper)
    names = [rival.config.kernel for rival in made.rivals]
    assert names == [f"heuristic-{place}" for place in range(1, 8)]


def pools_of(predictors: list[Predictor], families: list[str], count: int) -> Pools:
    time = Objective.parse("time")
    return Pools(families=families, objective=time, predictors=predictors, count=count)


# Records and tunings


def test_a_record_stays_as_it_was_made_until_another_attempt(tmp_path: Path) -> None:
    path = tmp_path / "tune" / "record.json"
    first = read_or_make(path, lambda: [problem(2)], again=False)
    same = read_or_make(path, lambda: [problem(5)], again=False)
    assert same == first
    assert list(same.problems) == [problem(2)]
    anew = read_or_make(path, lambda: [problem(5)], again=True)
    assert (anew.attempt, list(anew.problems)) == (1, [problem(5)])
    assert anew.series("0" * 16) != first.series("0" * 16)


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text('{"attempt": 0}')
    with pytest.raises(InputError, match="is no record of a tuning"):
        read_or_make(path, lambda: [], again=False)


def test_readings_of_another_driver_do_not_count(hopper: Device) -> None:
    request = request_of([PLAIN])
    assert request.digest(hopper) == request.digest(hopper)
    assert request.digest(replace(hopper, driver="581")) != request.digest(hopper)
    assert request_of([PLAIN], top=4).digest(hopper) != request.digest(hopper)


def test_a_whole_tuning_writes_a_table_and_a_note(tmp_path: Path, hopper: Device) -> None:
    gemms = [ListedGemm(gemm=Gemm(m=64, n=64, k=64), name="up", weight=3.0), SCALED]
    odd = replace(SCALED, gemm=replace(SCALED.gemm, n=250))
    request = request_of([*gemms[:1], odd], families=["tiled", "triton"])
    rows: list[Row] = []
    measured = Measured(rows, hopper)
    with Predictor(models.path()) as predictor:
        tuning = Tuning(request, tmp_path, {hopper.name: hopper}, lambda: [predictor])
        assert tuning.run(measured, lambda: to_table(rows))
        result = tuning.write(tmp_path / "out", True)
    (of_type,) = result.types
    assert str(of_type.path).endswith("out/paper-gpu-80gb-time.json")
    table = TunedTable.read(of_type.path)
    (entry,) = table.entries
    assert entry.winner.tile_m == 8
    assert entry.gain == pytest.approx(2.0, rel=0.01)
    assert entry.name == "up"
    assert table.key.driver == hopper.driver
    text = of_type.path.with_suffix(".md").read_text()
    assert f"no kernel for {odd}: scaled_block needs a multiple of 16" in text
    assert "measured 6 of 6 possible" in text
    assert "tile=32`:" in text
    assert "% saved" in text


def test_an_objective_with_power_is_refused_where_none_can_be_read(
    tmp_path: Path, cpu: Device
) -> None:
    request = request_of([PLAIN], objective=Objective.parse("energy"))
    with pytest.raises(InputError, match="needs power, which can't be read on Paper CPU"):
        Tuning(request, tmp_path, {cpu.name: cpu}, list)
    assert not list(tmp_path.iterdir())


class Measured:
    """A device on which tile 8 takes half the time."""

    def __init__(self, rows: list[Row], device: Device) -> None:
        self._rows = rows
        self._truths = Truths({}, noise=0.002)
        self._device = device

    def __call__(self, cells: Any, _label: str) -> bool:
        for cell in cells:
            self._truths.ratios = {(cell.device_key, cell.gemm.m): self._ratios(cell)}
            self._rows.append(self._truths.row(cell, self._device))
        return True

    def _ratios(self, cell: Cell) -> list[float]:
        ratios = [1.0] * 64
        ratios[7] = 0.5
        return ratios


def test_a_note_counts_what_was_left_out() -> None:
    search = make_search({TYPE: [problem(2, m=64)]})
    run(search, Truths({(TYPE, 64): [1.0, 0.5, 0.9]}))
    (race,) = search.races[TYPE].values()
    outcome = outcome_of(race)
    line = entry_line(outcome.entry)
    assert line.startswith("64x16x16 fp32 nn")
    assert "3 of 13" in line


# Replay


@pytest.fixture
def tables(tmp_path: Path, gpu: Device, measure: Callable[..., Row]) -> str:
    """Two recorded types of device, and every tile of one GEMM on each."""
    words = []
    for name in ("Paper GPU 80GB", "Paper GPU 141GB"):
        device = replace(gpu, name=name, uuid=f"GPU-{name}")
        with Predictor(models.path()):
            configs, _ = runnable(ListedGemm(gemm=Gemm(m=64, n=64, k=64)), ["tiled"], device)
        rows = []
        for config in configs:
            cell = Cell(gemm=Gemm(m=64, n=64, k=64), config=config, device_key=name)
            rows.append(measure(cell, device, runtime_us=100.0 / config.tile_m))
        path = tmp_path / f"{name.replace(' ', '-')}.parquet"
        pq.write_table(to_table(rows), path)
        words.append(f"replay:{path}")
    return ",".join(words)


def test_recorded_tables_are_a_fleet_of_their_types(tables: str) -> None:
    devices = parse_devices(tables)
    assert devices.kind == "replay"
    assert [one.device_name for one in devices.recordings()] == [
        "Paper GPU 80GB",
        "Paper GPU 141GB",
    ]


def test_a_recording_without_the_default_has_no_rival(tables: str, hopper: Device) -> None:
    listed = ListedGemm(gemm=Gemm(m=64, n=64, k=64))
    table = parse_devices(tables).tables[0]
    recording = Recording(Path(table.dataset), str(table.device_name), [listed])
    configs, _ = runnable(listed, ["tiled"], hopper)
    other = replace(configs[0], tile_m=64)
    assert recording.recorded(listed, configs) == configs
    assert recording.recorded(listed, [other, *configs]) == []
    assert recording.recorded(listed, [*configs, other]) == configs


def test_without_ray_it_goes_on_from_its_file(
    tmp_path: Path, tables: str, capsys: pytest.CaptureFixture[str]
) -> None:
    list_ = tmp_path / "list.csv"
    list_.write_text("m,n,k\n64,64,64\n")
    words = [
        "--gemms",
        str(list_),
        "--families",
        "tiled",
        "--devices",
        tables.split(",", maxsplit=1)[0],
    ]
    for measured in (6, 0):
        assert tune_here.main([*words, "--out", str(tmp_path / "out"), "--json"]) == 0
        values = json.loads(capsys.readouterr().out)
        assert values["measured"] == measured
    (entry,) = TunedTable.read(values["table"]).entries
    assert entry.winner.tile_m == 32


def test_a_problem_that_is_listed_twice_has_one_entry(tmp_path: Path, hopper: Device) -> None:
    plain = replace(SCALED, kernel="")
    request = request_of([SCALED, plain], families=["triton:scaled_block"])
    tuning = Tuning(request, tmp_path, {hopper.name: hopper}, list)
    tuning.search.stop("stopped")
    (of_type,) = tuning.write(tmp_path, is_complete=False).types
    assert (len(of_type.outcomes), len(of_type.table)) == (2, 1)


@pytest.mark.cluster
def test_two_recorded_types_are_tuned_at_once(
    tmp_path: Path, tables: str, coordinator: Callable[..., Any]
) -> None:
    """The command itself, through Ray."""
    list_ = tmp_path / "list.csv"
    list_.write_text("m,n,k\n64,64,64\n64,64,128\n")
    words = ["tune", "--gemms", list_, "--families", "tiled", "--devices", tables]
    ended = coordinator(*words, "--workspace", tmp_path / "ws", "--json")
    assert ended.returncode == 0, ended.stderr
    ws = tmp_path / "ws" / "tuned"
    for name in ("paper-gpu-80gb", "paper-gpu-141gb"):
        table = TunedTable.read(ws / f"{name}-time.json")
        # The other GEMM was not recorded.
        assert [entry.winner.tile_m for entry in table.entries] == [32]
        assert "the recording does not hold its default" in (ws / f"{name}-time.md").read_text()


# Bad input


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Objective.parse("speed"), "objective = 'speed': unknown objective"),
        (lambda: Objective.parse("time-under-watts=much"), "time-under-watts=much"),
        (lambda: parse_families("mkl"), "--families = 'mkl': unknown kernel family"),
        (lambda: parse_families(","), "names no family"),
        (lambda: parse_budget("10"), "--budget = '10': is no time; give a time"),
        (lambda: parse_devices("tpu"), "--devices = 'tpu': 'tpu' is none of these; use auto"),
        (lambda: parse_devices("replay:no.parquet"), "no such file"),
        (lambda: listed_gemms(None, None), "give one of the two"),
        (
            lambda: listed_gemms(Path("list.csv"), None, tokens="1"),
            "--tokens = '1': goes with --model, not with --gemms; leave it out",
        ),
        (lambda: listed_gemms(Path("list.csv"), None, tp=2), "--tp = '2': goes with --model"),
        (lambda: listed_gemms(Path("list.csv"), None, dtype="fp16"), "--dtype = 'fp16': goes"),
        (lambda: request_of([PLAIN], top=0), "--top = 0: must be from 1 to 256"),
        (lambda: request_of([PLAIN], kernel_set="wide"), "no set of Triton kernels"),
    ],
)
def test_bad_input_is_refused_with_the_way_out(make: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError) as refused:
        make()
    assert says in str(refused.value)


def test_a_kernel_that_no_family_has_is_refused(hopper: Device) -> None:
    with pytest.raises(InputError, match="no such kernel"):
        runnable(PLAIN, ["triton:matmull"], hopper)


def test_a_list_may_come_from_a_language_model(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(
        '{"architectures": ["LlamaForCausalLM"], "hidden_size": 512, "intermediate_size": 1024, '
        '"num_attention_heads": 8, "num_key_value_heads": 2, "num_hidden_layers": 2, '
        '"vocab_size": 1000}'
    )
    listed = listed_gemms(None, config, "1,16")
    assert {one.gemm.m for one in listed} == {1, 16}
    assert all(one.weight >= 1 for one in listed)
