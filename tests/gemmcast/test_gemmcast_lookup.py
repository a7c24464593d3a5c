"""`gemmcast lookup`, and what a table is compared with where nobody says what runs the kernels."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemmcast import cli_lookup, modeldir, tabledir, tuned_table
from gemmcast.cli import main
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.local_gpus import local_keys
from gemmcast.table_key import TableKey
from gemmcast.tuned_table import StaleTableError, TunedTable
from tests.small_tables import DEFAULT, KEY, WINNER, gemm, table

GEMM = ("1024", "4096", "--dtype", "fp8_e4m3", "--layout", "nt")
VERSION = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (x)
GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)
"""
INFORMATION = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 42\nGPU UUID: \t GPU-1\n"

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Runs a command on a machine without a GPU: exit code, output, error."""
    for module in (cli_lookup, tuned_table):
        monkeypatch.setattr(module, "local_keys", list)

    def run(*words: object) -> tuple[int, str, str]:
        code = main(["lookup", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    table(1, 16).write(tmp_path / "h100.json")
    return tmp_path / "h100.json"


def values_of(out: str) -> Any:
    (line,) = out.splitlines()
    return json.loads(line)


def test_an_entry(ask: Ask, path: Path) -> None:
    code, out, err = ask(path, 16, *GEMM)
    assert (code, err) == (0, "")
    first, gain, counts, reason, compared = out.splitlines()
    assert first == (f"16x1024x4096 fp8_e4m3 nt on NVIDIA H100 80GB HBM3, lowest time:  {WINNER}")
    assert gain.startswith("     1.500 times as good as triton:kernel=scaled_block,tile_m=64,")
    assert gain.endswith(", measured (1.400 to 1.600)")
    assert counts == "     9 of 200 configurations measured"
    assert reason == "     surely faster"
    assert "not compared with a device" in compared


def test_an_entry_that_keeps_the_default(ask: Ask, tmp_path: Path) -> None:
    kept = {"winner": DEFAULT, "gain": 1.0, "gain_low": 1.0, "gain_high": 1.0}
    table(16, **kept).write(tmp_path / "kept.json")
    lines = ask(tmp_path / "kept.json", 16, *GEMM)[1].splitlines()
    assert lines[0].endswith(f"lowest time:  {DEFAULT}")
    assert lines[1] == "     the default: nothing is surely better"


def test_the_nearest_entry_as_json(ask: Ask, path: Path) -> None:
    values = values_of(ask(path, 17, *GEMM, "--device", "h100", "--json")[1])
    assert values["source"] == "nearest"
    assert values["config"]["tile_m"] == 16
    assert values["entry"]["gemm"]["m"] == 16
    assert values["key"]["driver"] == "580.1"
    assert values["compared"] is True


def test_another_gpu_is_refused_unless_it_is_allowed(ask: Ask, path: Path) -> None:
    code, out, err = ask(path, 16, *GEMM, "--device", "h200")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: device = 'NVIDIA H100 80GB HBM3': {path} was tuned with another")
    assert err.endswith("(--allow-stale)\n")
    code, out, _ = ask(path, 16, *GEMM, "--device", "h200", "--allow-stale")
    assert code == 0
    assert out.splitlines()[-1] == "     not compared with a device: stale tables are allowed"


def test_a_device_description_is_compared_whole(ask: Ask, path: Path, gpu: Device) -> None:
    here = replace(gpu, name=KEY.device, library=KEY.library, driver="590.1")
    (path.parent / "here.json").write_text(here.to_json())
    code, _, err = ask(path, 16, *GEMM, "--device", path.parent / "here.json")
    assert code == 2
    assert err.startswith("error: driver = '580.1': ")


def test_a_nodes_directory(ask: Ask, tmp_path: Path, gpu: Device) -> None:
    modeldir.put_device(tmp_path, gpu)
    tables = [table(1, 16), table(16, key=TableKey.of(gpu, "energy"))]
    shipped = [tabledir.Shipped(data=one.to_json().encode(), version="4") for one in tables]
    tabledir.put_tables(tmp_path, shipped)
    assert ask(tmp_path, 16, *GEMM, "--objective", "energy")[0] == 0
    code, _, err = ask(tmp_path, 16, *GEMM)
    assert code == 2
    assert "here is 'GPU A'" in err
    assert ask(tmp_path, 16, *GEMM, "--device", "h100")[0] == 0


def test_a_layer_without_an_entry_falls_back_to_the_model(ask: Ask, tmp_path: Path) -> None:
    """The model that comes with gemmcast, among what the families of the table make."""
    library = KernelConfig(family="cublaslt", kernel="default")
    layer = gemm(16, dtype="bf16")
    table(16, gemm=layer, default=library, winner=library).write(tmp_path / "lt.json")
    words = (16, 2048, 2048, "--dtype", "bf16", "--layout", "nt")
    values = values_of(ask(tmp_path / "lt.json", *words, "--json")[1])
    assert (values["source"], values["entry"]) == ("model", None)
    assert values["config"]["family"] == "cublaslt"
    assert values["prediction"]["runtime_us"] > 0
    out = ask(tmp_path / "lt.json", *words)[1]
    assert out.splitlines()[1] == "     no entry for this layer: the model's cautious pick"


def test_a_layer_that_no_family_of_the_table_can_run(ask: Ask, path: Path) -> None:
    """The block-scaled kernel needs multiples of 16."""
    code, out, err = ask(path, 16, 1000, 4096, *GEMM[2:])
    assert (code, out) == (2, "")
    assert "multiple of 16 as n, not 1000" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("none.json", 16, *GEMM), "table = 'none.json': can't be read (No such file"),
        (("h100.json", 16, "1024"), "the following arguments are required: k"),
        (("h100.json", 0, *GEMM), "m = 0: must be a whole number"),
        ((".", 16, *GEMM), "has no tuned tables (tables.json); promote one"),
    ],
)
def test_wrong_words_are_one_line(
    words: tuple[object, ...],
    message: str,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(path.parent)
    try:
        code = main(["lookup", *map(str, words)])
    except SystemExit as end:
        code = int(str(end.code))
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


# what the driver's files say


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    for number, model in enumerate(("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3", "NVIDIA L4")):
        folder = tmp_path / "nvidia" / "gpus" / f"0000:0{number}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(INFORMATION.replace(KEY.device, model))
    (tmp_path / "nvidia" / "version").write_text(VERSION)
    return tmp_path / "nvidia"


def test_gpus_of_this_machine(driver: Path, tmp_path: Path) -> None:
    keys = local_keys(driver)
    assert [(key.device, key.driver) for key in keys] == [
        ("NVIDIA H100 80GB HBM3", "580.95.05"),
        ("NVIDIA L4", "580.95.05"),
    ]
    assert local_keys(tmp_path / "none") == []
    (driver / "version").unlink()
    assert {key.driver for key in local_keys(driver)} == {None}


def test_a_table_is_compared_with_the_gpus_of_this_machine(
    driver: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned_table, "local_keys", lambda: local_keys(driver))
    with pytest.raises(StaleTableError, match=r"driver = '580.1': .* here is '580.95.05'"):
        TunedTable.open(path)
    own = table(1, key=TableKey(device="NVIDIA L4", driver="580.95.05"))
    own.write(path)
    assert TunedTable.open(path) == own
    table(1, key=replace(own.key, device="NVIDIA B200")).write(path)
    with pytest.raises(StaleTableError, match=r"device = 'NVIDIA B200'"):
        TunedTable.open(path)
    assert TunedTable.open(path, allow_stale=True).key.device == "NVIDIA B200"
