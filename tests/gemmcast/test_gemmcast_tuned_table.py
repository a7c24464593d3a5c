"""Tuned tables: what a look-up answers, what is refused, files, and merging."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gemmcast import TableKey, TunedEntry, TunedTable, modeldir, tuned_json
from gemmcast.config import FAMILIES, KNOBS, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import DTYPES, LAYOUTS, Gemm
from gemmcast.objective import MINIMISED
from gemmcast.prediction import Prediction
from gemmcast.predictor import Predictor
from gemmcast.tuned_table import Cost, NoEntryError, StaleTableError
from tests.small_tables import DEFAULT, KEY, WINNER, entry, gemm, table

ROOT = Path(__file__).parents[2]


SEVERAL = r"operation = None: .* name one of '', 'scaled_block'"


def drawn_table(seed: int) -> TunedTable:
    """Any values that the nouns allow."""
    draw = Random(seed)
    entries: dict[tuple[Gemm, str], TunedEntry] = {}
    for _ in range(draw.randrange(12)):
        one = drawn_entry(draw)
        entries[one.gemm, one.operation] = one
    key = TableKey(
        device=draw.choice(["NVIDIA H100 80GB HBM3", 'Grafikkarte µ\n"1"']),
        objective=draw.choice([*MINIMISED, "time-under-watts=350"]),
        mig=draw.choice([None, False, True]),
        compute_units=draw.choice([None, 132]),
        power_limit_w=draw.choice([None, 500, 650.5]),
        driver=draw.choice([None, "580.95.05"]),
        triton=draw.choice([None, "3.6.0"]),
    )
    return TunedTable(key, entries.values())


def drawn_entry(draw: Random) -> TunedEntry:
    problem = Gemm(
        m=draw.randrange(1, 2**24),
        n=draw.randrange(1, 2**14),
        k=draw.randrange(1, 2**14),
        batch=draw.choice([1, 7]),
        dtype=draw.choice(list(DTYPES)),
        layout=draw.choice(LAYOUTS),
        alpha=draw.choice([1.0, draw.gauss(0, 1)]),
        beta=draw.choice([0.0, draw.gauss(0, 1)]),
    )
    ends = sorted(draw.lognormvariate(0, 1) for _ in range(3))
    return TunedEntry(
        gemm=problem,
        default=drawn_config(draw),
        winner=drawn_config(draw),
        default_measured=Cost(runtime_us=draw.lognormvariate(0, 9), energy_mj=draw.random() or 1),
        winner_predicted=Cost(power_w=draw.lognormvariate(0, 9)),
        gain=ends[1],
        gain_low=ends[0],
        gain_high=ends[2],
        verified=draw.choice([True, False]),
        measured=3,
        possible=draw.randrange(3, 5000),
        reason=draw.choice(["", 'a tie; \u2028 "quoted" \\ µ']),
        name=draw.choice(["", "layer 1, qkv"]),
    )


def drawn_config(draw: Random) -> KernelConfig:
    knobs = {knob: draw.choice([0, draw.randrange(2**24)]) for knob in KNOBS}
    kernel = draw.choice(["", "matmul", "grouped", "a name, with=signs"])
    return KernelConfig(family=draw.choice(list(FAMILIES)), kernel=kernel, **knobs)


def test_json_gives_every_table_back() -> None:
    for seed in range(60):
        drawn = drawn_table(seed)
        text = drawn.to_json()
        assert TunedTable.from_json(text) == drawn
        assert TunedTable.from_json(text).to_json() == text


def test_equal_tables_have_equal_bytes() -> None:
    forward, backward = table(1, 16, 64), table(64, 16, 1)
    assert forward == backward
    assert forward.to_json() == backward.to_json()
    assert table(1) != table(2)


# look-up


def test_a_gemm_with_an_entry_gets_it() -> None:
    looked = table(1, 16, 64).lookup(gemm(16))
    assert (looked.source, looked.config) == ("entry", WINNER)
    assert looked.entry == entry(16)


@pytest.mark.parametrize(
    ("m", "nearest"), [(1, 1), (8, 1), (9, 16), (40, 16), (41, 64), (16384, 64)]
)
def test_another_m_of_the_layer_gets_the_nearest(m: int, nearest: int) -> None:
    """As vLLM and SGLang choose: the smallest difference; of two as near the smaller."""
    looked = table(1, 16, 64).lookup(gemm(m))
    assert looked.entry is not None
    assert looked.entry.gemm.m == nearest
    assert looked.source == ("entry" if m == nearest else "nearest")
    assert table(1, 16, 64).lookup(gemm(m)) == looked


def test_a_look_up_is_the_same_the_second_time() -> None:
    asked = table(1, 16)
    first = asked.lookup(gemm(9))
    assert asked.lookup(gemm(9)) is first


def test_a_mixture_of_experts_is_near_by_its_rows() -> None:
    """With few tokens fewer experts get rows, so that the batch differs, too."""
    grouped = replace(DEFAULT, kernel="grouped")
    few = entry(1, gemm=gemm(1, batch=4), default=grouped, winner=grouped)
    many = entry(1, gemm=gemm(8, batch=8), default=grouped, winner=replace(grouped, tile_m=16))
    experts = TunedTable(KEY, [few, many])
    assert experts.lookup(gemm(1, batch=6)).entry == few
    assert experts.lookup(gemm(6, batch=8)).entry == many


def test_a_batch_of_a_plain_kernel_is_another_layer() -> None:
    with pytest.raises(NoEntryError):
        table(16).lookup(gemm(16, batch=2))


def test_a_winner_that_cannot_run_the_gemm_is_passed_over() -> None:
    """A CUTLASS kernel whose A is stored along m needs a multiple of 8 there."""
    cutlass = KernelConfig(family="cutlass", kernel="tensorop_bf16_tn_64x64x32_32x32x32_s4_z1_a8")
    library = KernelConfig(family="cublas")
    layer = {"dtype": "bf16", "layout": "tn"}
    near = entry(1, gemm=gemm(104, **layer), default=library, winner=cutlass)
    far = entry(1, gemm=gemm(200, **layer), default=library, winner=library)
    looked = TunedTable(KEY, [near, far]).lookup(gemm(101, **layer))
    assert looked.entry == far
    assert TunedTable(KEY, [near, far]).lookup(gemm(112, **layer)).entry == near


def test_two_operations_of_one_layer_must_be_told_apart() -> None:
    plain = KernelConfig(family="cublaslt", kernel="default")
    both = TunedTable(KEY, [entry(16), entry(16, default=plain, winner=plain)])
    assert both.lookup(gemm(16), "").config == plain
    assert both.lookup(gemm(17), "scaled_block").config == WINNER
    for m in (16, 17):
        with pytest.raises(InputError, match=SEVERAL):
            both.lookup(gemm(m))


def test_a_layer_without_an_entry_is_an_error() -> None:
    message = r"gemm = '16x1024x512 fp8_e4m3 nt': .*tune it too, or give a Predictor; it has "
    with pytest.raises(NoEntryError, match=message + "1024x4096 fp8_e4m3 nt"):
        table(16).lookup(gemm(16, k=512))
    with pytest.raises(NoEntryError, match="it has none"):
        TunedTable(KEY, []).lookup(gemm(16))


class FakePredictor:
    """Always picks the same, and records what it was given."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def pick(self, gemm: Gemm, **given: Any) -> SimpleNamespace:
        self.calls.append({"gemm": gemm, **given})
        return SimpleNamespace(config=WINNER, prediction=Prediction(runtime_us=1.0, tflops=1.0))


def test_a_layer_without_an_entry_falls_back_to_the_model() -> None:
    fake = FakePredictor()
    tuned = table(16).with_model(cast(Predictor, fake))
    looked = tuned.lookup(gemm(16, k=512))
    assert (looked.source, looked.config, looked.entry) == ("model", WINNER, None)
    assert looked.prediction == Prediction(runtime_us=1.0, tflops=1.0)
    assert tuned.lookup(gemm(16, k=512)) is looked
    (call,) = fake.calls
    assert call == {
        "gemm": gemm(16, k=512),
        "objective": "time",
        "device": KEY.device,
        "families": ["triton:scaled_block"],
    }


def test_the_model_chooses_among_the_families_of_plain_entries() -> None:
    fake = FakePredictor()
    plain = KernelConfig(family="cublaslt", kernel="default")
    own = replace(DEFAULT, kernel="matmul")
    both = [entry(16), entry(16, default=plain, winner=own)]
    tuned = TunedTable(KEY, both).with_model(cast(Predictor, fake))
    tuned.lookup(gemm(16, k=512), "")
    tuned.lookup(gemm(16, k=512), "scaled_block")
    assert [call["families"] for call in fake.calls] == [
        ["cublaslt", "triton"],
        ["triton:scaled_block"],
    ]
    with pytest.raises(InputError, match=SEVERAL):
        tuned.lookup(gemm(16, k=512))


def test_entries_come_before_the_model() -> None:
    fake = FakePredictor()
    tuned = table(16).with_model(cast(Predictor, fake))
    assert tuned.lookup(gemm(1000)).source == "nearest"
    assert not fake.calls


# keys

CHANGED = {
    "device": "NVIDIA H200",
    "mig": True,
    "compute_units": 114,
    "power_limit_w": 500.0,
    "driver": "590.2",
    "cuda": "13.1",
    "library": "cuBLAS 13.2",
    "kernel_set": "usual@77",
    "triton": "3.7.1",
}


def test_every_field_but_the_objective_makes_a_table_stale() -> None:
    assert {field.name for field in fields(TableKey)} == {*CHANGED, "objective"}


@pytest.mark.parametrize("name", CHANGED)
def test_a_stale_table_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "h100.json"
    table(16).write(path)
    here = replace(KEY, **{name: CHANGED[name]})
    with pytest.raises(StaleTableError) as caught:
        TunedTable.open(path, here)
    message = str(caught.value)
    assert message.startswith(f"{name} = {getattr(KEY, name)!r}: {path} was tuned with another ")
    assert f"here is {CHANGED[name]!r}; tune again here" in message
    assert "allow_stale=True (--allow-stale)" in message
    assert TunedTable.open(path, here, allow_stale=True) == table(16)
    assert TunedTable.open(path, replace(here, **{name: getattr(KEY, name)})) == table(16)


def test_what_is_not_known_here_is_not_compared(tmp_path: Path) -> None:
    table(16).write(tmp_path / "h100.json")
    here = TableKey(device=KEY.device)
    assert TunedTable.open(tmp_path / "h100.json", here) == table(16)


def test_a_device_is_compared_with_its_versions(tmp_path: Path, gpu: Device) -> None:
    key = TableKey.of(gpu)
    assert (key.device, key.driver, key.power_limit_w) == ("GPU A", "580.1", 700.0)
    table(16, key=key).write(tmp_path / "a.json")
    assert TunedTable.open(tmp_path / "a.json", gpu) == table(16, key=key)
    updated = replace(gpu, driver="590.9")
    with pytest.raises(StaleTableError, match=r"driver = '580.1': .* here is '590.9'"):
        TunedTable.open(tmp_path / "a.json", updated)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", ""),
        ("objective", "speed"),
        ("objective", "time-under-watts=-1"),
        ("objective", "time-under-watts=nan"),
        ("driver", 580),
        ("mig", 1),
        ("compute_units", True),
        ("power_limit_w", float("inf")),
    ],
)
def test_a_wrong_key_is_refused(field: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"^{field} = "):
        replace(KEY, **{field: value})


# entries


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("gain", 0.0, "must be a number above 0"),
        ("gain", float("nan"), "must be a number above 0"),
        ("gain", 10**400, "must be a number above 0"),
        ("gain", 2.0, "lies outside its interval 1.4 to 1.6"),
        ("gain_low", "1", "must be a number above 0"),
        ("verified", 1, "must be true or false"),
        ("measured", 201, "more than the 200 that are possible"),
        ("measured", -1, "must be a whole number, 0 or more"),
        ("possible", 10.0, "must be a whole number, 0 or more"),
        ("reason", None, "must be a text"),
    ],
)
def test_a_wrong_entry_is_refused(field: str, value: object, rule: str) -> None:
    with pytest.raises(InputError, match=rf"^{field} = .*: {rule}"):
        entry(16, **{field: value})


def test_a_cost_that_is_no_number_is_refused() -> None:
    for wrong in (-1.0, 0, float("inf"), True, "3"):
        with pytest.raises(InputError, match=r"^energy_mj = .*above 0"):
            Cost(energy_mj=cast(float, wrong))


def test_one_problem_has_one_entry() -> None:
    with pytest.raises(InputError, match=r"^gemm = '16x1024x4096 .*has two entries"):
        TunedTable(KEY, [entry(16), entry(16, gain=1.45)])


# files


def edited(change: Any) -> str:
    """A table's JSON after a change of its values."""
    values = json.loads(table(16).to_json())
    change(values)
    return json.dumps(values)


DAMAGED = {
    "half a file": (table(16).to_json()[:400], "is no tuned table"),
    "another file": ("[1, 2]", "must be a JSON object"),
    "no format": ("{}", "format = None"),
    "nothing": ("", "is no tuned table"),
    "brackets": ("[" * 100_000, "is no tuned table"),
    "not finite": (table(16).to_json().replace("1.5", "NaN"), "NaN is no JSON number"),
    "twice": (table(16).to_json().replace('"name"', '"reason"'), "a name stands twice"),
    "newer": (edited(lambda v: v.update(schema_version=2)), "is of a newer schema; this gemmcast"),
    "no version": (edited(lambda v: v.pop("schema_version")), "must be a whole number"),
    "true": (edited(lambda v: v.update(schema_version=True)), "must be a whole number"),
    "no key": (edited(lambda v: v.pop("key")), "name = 'key': table.json: is missing"),
    "more": (edited(lambda v: v.update(more=1)), "name = 'more': table.json: unknown name"),
    "misspelt": (
        edited(lambda v: v["entries"][0]["winner"].update(tile_q=1)),
        "name = 'tile_q': table.json, entry 1, winner: unknown name",
    ),
    "no winner": (
        edited(lambda v: v["entries"][0].pop("winner")),
        "name = 'winner': table.json, entry 1: is missing",
    ),
    "no list": (edited(lambda v: v.update(entries={})), "entries = {}: table.json: must be a list"),
    "wrong size": (
        edited(lambda v: v["entries"][0]["gemm"].update(m=1.5)),
        r"m = 1.5: must be a whole number .* \(table.json, entry 1, gemm\)",
    ),
    "wrong gain": (
        edited(lambda v: v["entries"][0].update(gain="1")),
        r"gain = '1': must be a number .* \(table.json, entry 1\)",
    ),
    "wrong cost": (
        edited(lambda v: v["entries"][0].update(winner_measured=[])),
        r"table = \[\]: table.json, entry 1, winner_measured: must be a JSON object",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, message = DAMAGED[name]
    monkeypatch.chdir(tmp_path)
    Path("table.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        TunedTable.read("table.json")
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "table.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="is no tuned table"):
        TunedTable.read(tmp_path / "table.json")
    with pytest.raises(InputError, match=r"can't be read \(No such file"):
        TunedTable.read(tmp_path / "none.json")
    with pytest.raises(InputError, match="can't be read"):
        TunedTable.read(tmp_path)


def test_sizes_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.json"
    table(1, 2, 3).write(path)
    monkeypatch.setattr(tuned_json, "MAX_ENTRIES", 2)
    with pytest.raises(InputError, match="entries = 3: .* more than 2 entries"):
        TunedTable.read(path)
    monkeypatch.setattr(tuned_json, "MAX_BYTES", 100)
    with pytest.raises(InputError, match="larger than 100 bytes; split"):
        TunedTable.read(path)


def test_a_table_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.json"
    table(1).write(path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(modeldir.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        table(2).write(path)
    assert TunedTable.read(path) == table(1)
    assert list(tmp_path.iterdir()) == [path]


# merging


def test_merging_keeps_the_better_founded_entry() -> None:
    predicted = entry(16, verified=False, measured=0, gain_low=1.499, gain_high=1.501)
    few = entry(16, measured=4)
    many = entry(16, measured=40, gain_low=1.1, gain_high=1.9)
    narrow = entry(16, measured=40, gain_low=1.4, gain_high=1.6)
    founded = [predicted, few, many, narrow]
    for better, worse in itertools.combinations(reversed(founded), 2):
        for one, other in ((better, worse), (worse, better)):
            merged = TunedTable(KEY, [one]).merged_with(TunedTable(KEY, [other]))
            assert merged.entries == (better,)


def test_merging_does_not_depend_on_the_order() -> None:
    parts = [
        table(1, 16, gain=1.5),
        table(16, 64, reason="as well founded"),
        table(64, 128, measured=20),
    ]
    merged = {
        first.merged_with(*others).to_json() for first, *others in itertools.permutations(parts)
    }
    assert len(merged) == 1
    whole = TunedTable.from_json(merged.pop())
    assert [one.gemm.m for one in whole.entries] == [1, 16, 64, 128]
    assert whole.merged_with(whole, *parts) == whole


@pytest.mark.parametrize("name", [*CHANGED, "objective"])
def test_tables_of_different_keys_are_not_merged(name: str) -> None:
    value = CHANGED.get(name, "energy")
    with pytest.raises(InputError, match=rf"^{name} = .* only tables of one key") as caught:
        table(1).merged_with(table(2), table(3, key=replace(KEY, **{name: value})))
    assert repr(value) in str(caught.value)


def test_a_runtime_needs_neither_numpy_nor_onnx_runtime(tmp_path: Path) -> None:
    table(16).write(tmp_path / "h100.json")
    code = f"""
import sys
from gemmcast import Gemm, TableKey, TunedTable
table = TunedTable.open({str(tmp_path / "h100.json")!r}, TableKey(device={KEY.device!r}))
table.lookup(Gemm(m=17, n=1024, k=4096, dtype="fp8_e4m3", layout="nt"))
print('numpy' in sys.modules, 'onnxruntime' in sys.modules, 'pyarrow' in sys.modules)
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 3
