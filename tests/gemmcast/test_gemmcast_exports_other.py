"""Tuned tables as T4 results, a C header, cuBLASLt algorithms and CUTLASS' test list."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gemmcast import Gemm, InputError, KernelConfig
from gemmcast.config import KNOBS
from gemmcast.cutlass.profiler_names import named_kernel, profiler_name
from gemmcast.cutlass.sets import CUTLASS_SETS, kernels
from gemmcast.exports.c_header import c_string
from gemmcast.exports.export import ExportOptions
from gemmcast.exports.formats import export_table
from gemmcast.exports.nvmath_algorithms import AlgorithmFile
from gemmcast.kernel_names import algorithm
from gemmcast.tuned_entry import Cost
from gemmcast.tuned_table import TableKey, TunedEntry, TunedTable
from tests.gemmcast import runtime_readers

OPTIONS = ExportOptions(timestamp="2026-11-29T00:00:00+00:00")
KEY = TableKey(
    device="NVIDIA H200",
    driver="580.159.04",
    library="cublas 13.1.0",
    cuda="13.0",
    power_limit_w=700.0,
    compute_units=132,
)
GEMM = Gemm(m=512, n=4096, k=2048, dtype="bf16", layout="nt")
DEFAULT = KernelConfig(family="cublaslt", kernel="default")
LISTED = KernelConfig(
    family="cublaslt",
    kernel="heuristic-3",
    algo_id=66,
    tile_m=128,
    tile_n=192,
    tile_k=64,
    split_k=1,
    cluster_m=1,
    cluster_n=2,
)
WGMMA = "wgmma_bf16_nt_128x256x64_2x1_coop_z4_a8"
LIBRARY_NAME = (
    "cutlass3x_sm90_tensorop_gemm_bf16_bf16_f32_bf16_bf16_128x256x64_2x1x1_0_tnt_align8_"
    "warpspecialized_cooperative_epi_tma"
)


def entry(winner: KernelConfig, gemm: Gemm = GEMM, **values: Any) -> TunedEntry:
    """A verified winner over cuBLASLt's default."""
    gains: dict[str, Any] = {"gain": 1.25, "gain_low": 1.2, "gain_high": 1.3, "verified": True}
    return TunedEntry(gemm=gemm, default=DEFAULT, winner=winner, **{**gains, **values})


def files(format: str, *entries: TunedEntry, key: TableKey = KEY) -> dict[str, str]:
    return dict(export_table(TunedTable(key, entries), format, OPTIONS).files)


# T4

MEASURED = entry(
    LISTED,
    default_measured=Cost(runtime_us=50.0),
    winner_measured=Cost(runtime_us=40.0, power_w=600.0, energy_mj=24.0, sustained_runtime_us=40.0),
)


def test_t4_has_default_and_winner_as_kernel_tuner_reads_them() -> None:
    ((name, text),) = files("t4", MEASURED).items()
    assert name == "nvidia_h200_time.json"
    file = json.loads(text)
    assert file["schema_version"] == "1.0.0"
    default, winner = file["results"]
    assert default["configuration"] == {**asdict(GEMM), **asdict(DEFAULT)}
    assert winner["configuration"] == {**asdict(GEMM), **asdict(LISTED)}
    assert winner["times"] == {"runtimes": [0.04]}
    measured = {one["name"]: (one["value"], one["unit"]) for one in winner["measurements"]}
    assert measured == {
        "time": (0.04, "ms"),
        "runtime_us": (40.0, "us"),
        "sustained_runtime_us": (40.0, "us"),
        "power_w": (600.0, "W"),
        "energy_mj": (24.0, "mJ"),
    }
    for result in file["results"]:
        assert (result["invalidity"], result["correctness"]) == ("correct", 1)
        assert result["timestamp"] == OPTIONS.timestamp
        # An objective is the name of a measurement
        assert set(result["objectives"]) == {"time"}


def test_t4_minimises_what_the_table_minimises() -> None:
    ((_, text),) = files("t4", MEASURED, key=replace(KEY, objective="energy")).items()
    assert json.loads(text)["results"][1]["objectives"] == ["energy_mj"]


def test_t4_leaves_out_what_was_only_predicted() -> None:
    other = replace(GEMM, m=8)
    predicted = entry(LISTED, other, verified=False, winner_predicted=Cost(runtime_us=3.0))
    export = export_table(TunedTable(KEY, [MEASURED, predicted]), "t4", OPTIONS)
    assert export.notes == ("1 entry left out: it was not measured",)


# C

AWKWARD = 'a "quoted"\\ kernel??/ of µ*/'


def test_a_c_header_has_every_field_of_every_entry() -> None:
    awkward = KernelConfig(family="custom", kernel=AWKWARD, tile_m=16)
    predicted = entry(LISTED, replace(GEMM, m=8), verified=False)
    ((name, text),) = files("c-header", entry(awkward), predicted).items()
    assert name == "gemmcast_nvidia_h200_time.h"
    unverified, row = runtime_readers.c_rows(text)
    assert row[:8] == ["512", "4096", "2048", "1", "bf16", "nt", "1.0", "0.0"]
    assert row[8:11] == ["", "custom", AWKWARD]
    knobs = dict(zip(KNOBS, row[11:-1], strict=True))
    assert {name: int(value) for name, value in knobs.items() if value != "0"} == {"tile_m": 16}
    assert row[-1] == "1.25"
    # What was not measured is the default, which gains nothing
    assert (unverified[9:11], unverified[-1]) == (["cublaslt", "default"], "1.0")


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_a_c_program_finds_entries_in_two_headers(tmp_path: Path) -> None:
    awkward = KernelConfig(family="custom", kernel=AWKWARD, tile_m=16)
    h100 = replace(KEY, device="NVIDIA H100 */ 80GB")
    for made in (files("c-header", entry(awkward)), files("c-header", entry(LISTED), key=h100)):
        for name, text in made.items():
            (tmp_path / name).write_text(text)
    (tmp_path / "main.c").write_text(
        """
#include <stdio.h>
#include "gemmcast_nvidia_h200_time.h"
#include "gemmcast_nvidia_h100_80gb_time.h"
static void show(const gemmcast_tuned *e) {
    if (e) printf("%s|%s|%ld|%ld|%g\\n", e->family, e->kernel, e->tile_m, e->algo_id, e->gain);
    else puts("none");
}
#define FIND(T, C, M) show(gemmcast_tuned_find(T, C, M, 4096, 2048, 1, "bf16", "nt", ""))
int main(void) {
    FIND(gemmcast_nvidia_h200_time, GEMMCAST_NVIDIA_H200_TIME_COUNT, 512);
    FIND(gemmcast_nvidia_h100_80gb_time, GEMMCAST_NVIDIA_H100_80GB_TIME_COUNT, 512);
    FIND(gemmcast_nvidia_h200_time, GEMMCAST_NVIDIA_H200_TIME_COUNT, 511);
    return 0;
}
"""
    )
    strict = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-trigraphs"]
    subprocess.run([*strict, "-o", "main", "main.c"], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == [
        f"custom|{AWKWARD}|16|0|1.25",
        "cublaslt|heuristic-3|128|66|1.25",
        "none",
    ]


def test_a_c_string_is_plain_ascii() -> None:
    assert c_string("wgmma_bf16") == '"wgmma_bf16"'
    assert c_string('"\\?\n') == r'"\042\134\077\012"'


# cuBLASLt


@dataclass
class FakeAlgorithm:
    """nvmath.linalg.advanced.Algorithm: the attributes that users may read and set."""

    algorithm_id: int = 66
    tile: object = (128, 128)
    stages: object = (64, "AUTO")
    split_k: int = 1
    cta_swizzling: int = 0
    custom_option: int = 3
    cluster_shape: object = (1, 2, 1)
    reduction_scheme: int = 0
    capabilities: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(reduction_scheme_mask=5)
    )


CUBLAS = 130100


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    """Entries as an exported file, read for nvmath."""

    def saved(*entries: TunedEntry) -> AlgorithmFile:
        ((name, text),) = files("cublaslt", *entries).items()
        (tmp_path / name).write_text(text)
        return AlgorithmFile.read(tmp_path / name)

    return saved


def test_cublaslt_has_nvmath_s_words_with_rows_along_n() -> None:
    ((name, text),) = files("cublaslt", entry(LISTED)).items()
    assert name == "cublaslt_nvidia_h200_time.json"
    file = json.loads(text)
    assert (file["cublas"], file["device"]) == ("13.1.0", "NVIDIA H200")
    (saved,) = file["algorithms"]
    assert saved["gemm"] == asdict(GEMM)
    assert saved["algorithm"] == {
        "algorithm_id": 66,
        "tile": [192, 128],
        "stages": [64, "AUTO"],
        "split_k": 1,
        "cta_swizzling": 0,
        "cluster_shape": [2, 1, 1],
    }


def test_the_proposed_algorithm_with_the_settings_goes_to_plan(saved: Any) -> None:
    right = FakeAlgorithm(tile=(192, 128), cluster_shape=(2, 1, 1))
    proposed = [FakeAlgorithm(), FakeAlgorithm(tile=(192, 128)), right]
    assert saved(entry(LISTED)).algorithms(GEMM, proposed, CUBLAS) == [right]
    # Of the library's list: none is changed into it, since it has more settings than are recorded
    with pytest.raises(InputError, match="cuBLASLt does not propose algorithm .* use plan.. with"):
        saved(entry(LISTED)).algorithms(GEMM, proposed[:2], CUBLAS)


def test_one_outside_the_library_s_list_is_set_up(saved: Any) -> None:
    enumerated = replace(LISTED, kernel="enumerated-7", split_k=4, swizzle=1)
    proposed = [FakeAlgorithm(algorithm_id=21), FakeAlgorithm()]
    (found,) = saved(entry(enumerated)).algorithms(GEMM, proposed, CUBLAS)
    assert found is proposed[1]
    expected = FakeAlgorithm(
        tile=(192, 128),
        split_k=4,
        cta_swizzling=1,
        custom_option=0,
        cluster_shape=(2, 1, 1),
        reduction_scheme=1,
    )
    assert found == expected
    with pytest.raises(InputError, match="does not propose"):
        saved(entry(enumerated)).algorithms(GEMM, proposed[:1], CUBLAS)


def test_the_library_s_default_is_all_that_it_proposes(saved: Any) -> None:
    proposed = [FakeAlgorithm(), FakeAlgorithm(tile=(64, 64))]
    unverified = entry(LISTED, verified=False)
    assert saved(unverified).algorithms(GEMM, proposed, CUBLAS) == proposed


def test_another_cublas_and_another_problem_are_refused(saved: Any) -> None:
    with pytest.raises(InputError, match="cublas = '13.2.1': .* is of cuBLAS 13.1.0"):
        saved(entry(LISTED)).algorithms(GEMM, [], 130201)
    with pytest.raises(InputError, match="has no algorithm for it"):
        saved(entry(LISTED)).algorithms(replace(GEMM, m=1), [], CUBLAS)


def test_cublaslt_needs_a_version_and_settings() -> None:
    for library in (None, "openblas 0.3"):
        with pytest.raises(InputError, match="algorithms are of one version of cuBLAS"):
            files("cublaslt", entry(LISTED), key=replace(KEY, library=library))
    nameless = KernelConfig(family="cublaslt", kernel="heuristic-2")
    with pytest.raises(InputError, match="what heuristic-2 is was not recorded"):
        files("cublaslt", entry(nameless))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "x", "version": 1}'])
def test_another_file_is_no_file_of_algorithms(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is no file of cuBLASLt algorithms"):
        AlgorithmFile.read(path)


# CUTLASS


def cutlass(name: str, **knobs: int) -> KernelConfig:
    return KernelConfig(family="cutlass", kernel=name, **knobs)


def test_cutlass_profiler_gets_names_and_problems() -> None:
    streamk = "wgmma_bf16_nt_128x256x64_2x1_streamk_z1_a8"
    simt = "simt_fp32_nn_128x128x8_32x64x8_s2_z1_a1"
    made = export_table(
        TunedTable(
            KEY,
            [
                entry(cutlass(WGMMA)),
                entry(cutlass(streamk, split_k=3), replace(GEMM, m=64, beta=0.5)),
                entry(cutlass(simt), Gemm(m=64, n=64, k=64)),
                entry(LISTED, replace(GEMM, m=8)),
            ],
        ),
        "cutlass-profiler",
        OPTIONS,
    )
    listed = runtime_readers.testlist(made.files["cutlass_testlist_nvidia_h200_time.csv"])
    by_m = {line["m"]: line for line in listed}
    assert by_m["512"] == {
        "operation_name": LIBRARY_NAME,
        "m": "512",
        "n": "4096",
        "k": "2048",
        "batch_count": "1",
        "alpha": "1",
        "beta": "0",
        "split_k_slices": "1",
        "swizzle_size": "4",
    }
    assert "_tnt_align8_stream_k_warpspecialized_cooperative_epi" in by_m["64"]["operation_name"]
    assert (by_m["64"]["split_k_slices"], by_m["64"]["beta"]) == ("3", "0.5")
    assert sorted(made.notes) == [
        "1 entry left out: CUTLASS' library has its CUTLASS 2.x kernels with C column-major only",
        "1 entry left out: it is of the family cublaslt",
    ]


def test_a_command_line_selects_the_kernel_of_either_cutlass() -> None:
    text = files("cutlass-profiler", entry(cutlass(WGMMA)))["cutlass_profiler_nvidia_h200_time.sh"]
    (command,) = [line for line in text.splitlines() if line.startswith("cutlass_profiler ")]
    assert "--m=512 --n=4096 --k=2048" in command
    pattern = command.split("'--kernels=")[1].split("'")[0]
    assert runtime_readers.matches(pattern, LIBRARY_NAME)
    assert runtime_readers.matches(pattern, LIBRARY_NAME.replace("_gemm", "_s64x256x16gemm"))
    assert not runtime_readers.matches(pattern, LIBRARY_NAME.replace("cooperative", "pingpong"))
    assert not runtime_readers.matches(pattern, LIBRARY_NAME.replace("128x256", "128x128"))


@pytest.mark.parametrize("set_name", CUTLASS_SETS)
def test_names_of_cutlass_library_say_the_kernels_of_every_set(set_name: str) -> None:
    for kernel in kernels(set_name, "sm_90"):
        name = profiler_name(kernel)
        assert (name is None) == (not kernel.schedule)
        if name is not None:
            named = named_kernel(name)
            assert named is not None and not named.is_transposed
            assert replace(named.kernel, swizzle=kernel.swizzle) == kernel
            assert algorithm("cutlass", name, 0) == algorithm("cutlass", kernel.name, 0) > 0


def test_a_kernel_that_writes_c_column_major_computes_the_transpose() -> None:
    column_major = LIBRARY_NAME.replace("tnt", "tnn").replace("f32_bf16", "f32_void")
    named = named_kernel(column_major)
    assert named is not None and named.is_transposed
    assert named.kernel.name == "wgmma_bf16_nt_256x128x64_1x2_coop_z1_a8"
    both_rows = named_kernel(LIBRARY_NAME.replace("tnt", "ttn"))
    assert both_rows is not None and both_rows.kernel.layout == "tt"


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("epi_tma", "epi_nosmem"),
        ("_bf16_128", "_f32_128"),
        ("align8", "align2"),
        ("sm90", "sm100"),
        ("2x1x1", "2x1x2"),
        ("warpspecialized_cooperative", "cpasync_warpspecialized"),
        ("gemm_bf16_bf16", "gemm_bf16_e4m3"),
    ],
)
def test_kernels_that_we_do_not_have_have_no_equivalent(part: str, other: str) -> None:
    assert part in LIBRARY_NAME
    assert named_kernel(LIBRARY_NAME.replace(part, other)) is None
