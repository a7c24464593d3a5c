"""Tuned tables as files for engines: each is read back as the engine that reads it does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gemmcast import Gemm, InputError, KernelConfig
from gemmcast.cli import main
from gemmcast.exports.export import Export, ExportOptions, device_words, merged, write
from gemmcast.exports.formats import FORMATS, export_table
from gemmcast.exports.token_counts import TOKEN_COUNTS
from gemmcast.tuned_table import TableKey, TunedEntry, TunedTable
from tests.gemmcast import runtime_readers

H200 = "NVIDIA H200"
USUAL = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 1536, 2048, 3072, 4096]
PLAIN = ExportOptions()
MIXTURE = ExportOptions(experts=8, top_k=2, intermediate=256)


def config(kernel: str, tile_m: int = 64, **knobs: int) -> KernelConfig:
    """A Triton configuration; the engines' default but for what is given."""
    shared = {"tile_n": 128, "tile_k": 128, "swizzle": 32, "block_threads": 128, "stages": 2}
    return KernelConfig(family="triton", kernel=kernel, tile_m=tile_m, **{**shared, **knobs})


def entry(gemm: Gemm, winner: KernelConfig, *, verified: bool = True) -> TunedEntry:
    """A winner that is a fifth faster than the engines' default."""
    return TunedEntry(
        gemm=gemm,
        default=config(winner.kernel),
        winner=winner,
        gain=1.25,
        gain_low=1.2,
        gain_high=1.3,
        verified=verified,
    )


def block(
    m: int, tile_m: int, *, n: int = 4096, k: int = 7168, verified: bool = True
) -> TunedEntry:
    gemm = Gemm(m=m, n=n, k=k, dtype="fp8_e4m3", layout="nt")
    return entry(gemm, config("scaled_block", tile_m), verified=verified)


def experts(
    tokens: int, tile_m: int, *, n: int = 512, k: int = 2048, dtype: str = "bf16"
) -> TunedEntry:
    """Tokens that go to 2 of 8 experts, as docs/triton.md has it."""
    batch = min(8, 2 * tokens)
    gemm = Gemm(m=-(-2 * tokens // batch), n=n, k=k, batch=batch, dtype=dtype, layout="nt")
    return entry(gemm, config("grouped", tile_m))


def table(entries: Sequence[TunedEntry], device: str = H200, **key: str) -> TunedTable:
    return TunedTable(TableKey(device=device, triton="3.6.0", **key), entries)


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., Path]:
    """A table's files in one format, in a folder."""

    def files(table: TunedTable, format: str, options: ExportOptions = PLAIN) -> Path:
        write(export_table(table, format, options), tmp_path)
        return tmp_path

    return files


@pytest.mark.parametrize(
    ("format", "written"), [("vllm-block", "[128,128]"), ("sglang-block", "[128, 128]")]
)
def test_a_block_kernel_gets_what_was_tuned(
    files: Callable[..., Path], format: str, written: str
) -> None:
    folder = files(
        table([block(16, 16), block(2048, 128), block(100, 32), block(7, 16, n=64)]), format
    )

    def tile_m(tokens: int, n: int = 4096) -> int:
        found = runtime_readers.block_kernel(folder, H200, tokens, n=n, k=7168, block=written)
        assert found is not None
        return found["BLOCK_SIZE_M"]

    assert [tile_m(16), tile_m(2048), tile_m(100), tile_m(7, n=64)] == [16, 128, 32, 16]
    # Neighbours without an entry of their own: the default
    assert [tile_m(8), tile_m(24), tile_m(96), tile_m(128), tile_m(3072), tile_m(1)] == 6 * [64]
    assert runtime_readers.block_kernel(folder, H200, 16, n=1, k=7168, block=written) is None


def test_a_file_has_every_token_count_of_engines_and_of_the_table(
    files: Callable[..., Path],
) -> None:
    folder = files(table([block(100, 16), block(8192, 16)]), "sglang-block")
    (path,) = folder.iterdir()
    keys = [int(key) for key in json.loads(path.read_text())]
    assert list(TOKEN_COUNTS) == USUAL
    assert keys == sorted([*USUAL, 100, 8192])


def test_all_knobs_are_in_engines_words(files: Callable[..., Path]) -> None:
    winner = config(
        "scaled_block", 128, tile_n=64, tile_k=64, swizzle=16, block_threads=256, stages=4
    )
    gemm = Gemm(m=64, n=512, k=256, dtype="fp8_e4m3", layout="nt")
    folder = files(table([entry(gemm, winner)]), "vllm-block")
    found = runtime_readers.block_kernel(folder, H200, 64, n=512, k=256, block="[128,128]")
    assert found == {
        "BLOCK_SIZE_M": 128,
        "BLOCK_SIZE_N": 64,
        "BLOCK_SIZE_K": 64,
        "GROUP_SIZE_M": 16,
        "num_warps": 8,
        "num_stages": 4,
    }


def test_a_gain_that_was_not_measured_leaves_the_default(files: Callable[..., Path]) -> None:
    folder = files(table([block(16, 16, verified=False)]), "vllm-block")
    found = runtime_readers.block_kernel(folder, H200, 16, n=4096, k=7168, block="[128,128]")
    assert found is not None and found["BLOCK_SIZE_M"] == 64


def test_vllm_finds_a_mixture(files: Callable[..., Path]) -> None:
    # 2 of 8 experts: 1 token is 2 experts with a row each, 64 tokens are 8 with 16
    entries = [experts(1, 16), experts(64, 32), experts(4096, 128), experts(100, 128)]
    folder = files(table(entries), "vllm-moe", MIXTURE)

    def tile_m(tokens: int) -> int:
        found = runtime_readers.vllm_moe(folder, H200, tokens, e=8, n=256)
        assert found is not None
        return found["BLOCK_SIZE_M"]

    assert [tile_m(tokens) for tokens in (1, 2, 64, 96, 100, 4096)] == [16, 64, 32, 64, 128, 128]
    (path,) = folder.iterdir()
    assert path.name == "E=8,N=256,device_name=NVIDIA_H200.json"
    assert json.loads(path.read_text())["triton_version"] == "3.6.0"


def test_sglang_takes_integer_keys_from_the_folder_of_its_triton(
    files: Callable[..., Path],
) -> None:
    folder = files(table([experts(16, 16, dtype="fp8_e4m3")]), "sglang-moe", MIXTURE)
    found = runtime_readers.sglang_moe(
        folder, H200, 16, e=8, n=256, triton="3.6.0", dtype="fp8_w8a8"
    )
    assert found is not None and found["BLOCK_SIZE_M"] == 16


@pytest.mark.parametrize("triton", ["3.6.0+git9844da95", "3.6.0.dev20260801"])
def test_sglang_can_order_the_folder_of_any_triton(files: Callable[..., Path], triton: str) -> None:
    """A folder that it can't take for a version would end every look-up that finds no file."""
    key = TableKey(device=H200, triton=triton)
    folder = files(TunedTable(key, [experts(16, 16)]), "sglang-moe", MIXTURE)
    found = runtime_readers.sglang_moe(folder, H200, 16, e=8, n=256, triton=triton)
    assert found is not None and found["BLOCK_SIZE_M"] == 16
    assert runtime_readers.sglang_moe(folder, H200, 16, e=9, n=256, triton=triton) is None


H100 = "NVIDIA H100 80GB HBM3"
VLLM_MOE = {
    ("NVIDIA H200", "bf16", 384): "E=128,N=384,device_name=NVIDIA_H200.json",
    (H100, "fp8_e4m3", 352): "E=128,N=352,device_name=NVIDIA_H100_80GB_HBM3,dtype=fp8_w8a8.json",
    ("NVIDIA H100 PCIe", "fp8_e4m3", 176): (
        "E=128,N=176,device_name=NVIDIA_H100_PCIe,dtype=fp8_w8a8.json"
    ),
    ("NVIDIA A100-SXM4-80GB", "bf16", 192): "E=128,N=192,device_name=NVIDIA_A100-SXM4-80GB.json",
}
"""Device, dtype and columns of an expert -> a file that vLLM itself ships for them."""


@pytest.mark.parametrize(("device", "dtype", "n"), VLLM_MOE)
def test_files_have_the_names_of_those_that_vllm_ships(device: str, dtype: str, n: int) -> None:
    gemm = Gemm(m=1, n=2 * n, k=2048, batch=128, dtype=dtype, layout="nt")
    options = ExportOptions(experts=128, top_k=8, intermediate=n)
    (name,) = export_table(
        table([entry(gemm, config("grouped", 16))], device), "vllm-moe", options
    ).files
    assert name == VLLM_MOE[device, dtype, n]


def test_block_files_have_the_names_of_those_that_vllm_ships() -> None:
    (name,) = export_table(table([block(16, 16, n=2112)]), "vllm-block", PLAIN).files
    assert name == "N=2112,K=7168,device_name=NVIDIA_H200,dtype=fp8_w8a8,block_shape=[128,128].json"
    (name,) = export_table(table([block(16, 16, n=12288)], H100), "vllm-block", PLAIN).files
    words = "N=12288,K=7168,device_name=NVIDIA_H100_80GB_HBM3,dtype=fp8_w8a8"
    assert name == f"{words},block_shape=[128,128].json"


def test_one_gemm_may_be_several_token_counts(files: Callable[..., Path]) -> None:
    """24 and 32 tokens to 4 of 128 experts: one row for each expert in both."""
    gemm = Gemm(m=1, n=512, k=2048, batch=128, dtype="bf16", layout="nt")
    two_rows = Gemm(m=2, n=512, k=2048, batch=128, dtype="bf16", layout="nt")
    entries = [entry(gemm, config("grouped", 16)), entry(two_rows, config("grouped", 32))]
    options = ExportOptions(experts=128, top_k=4, intermediate=256)
    folder = files(table(entries), "vllm-moe", options)
    found = {
        tokens: runtime_readers.vllm_moe(folder, H200, tokens, e=128, n=256)["BLOCK_SIZE_M"]  # type: ignore[index]
        for tokens in (24, 32, 48, 64, 96)
    }
    assert found == {24: 64, 32: 16, 48: 32, 64: 32, 96: 64}


def test_two_products_share_a_file_where_they_agree(files: Callable[..., Path]) -> None:
    down = {"n": 2048, "k": 256}
    entries = [experts(16, 16), experts(16, 16, **down), experts(64, 32), experts(64, 128, **down)]
    whole = table(entries)
    folder = files(whole, "vllm-moe", MIXTURE)
    found = [runtime_readers.vllm_moe(folder, H200, tokens, e=8, n=256) for tokens in (16, 64)]
    assert [knobs and knobs["BLOCK_SIZE_M"] for knobs in found] == [16, 64]
    (note,) = export_table(whole, "vllm-moe", MIXTURE).notes
    assert note.startswith("the default stands at 64 tokens")
    for decides, tile_m in (("gate_up", 32), ("down", 128)):
        options = ExportOptions(experts=8, top_k=2, intermediate=256, decides=decides)
        files(whole, "vllm-moe", options)
        knobs = runtime_readers.vllm_moe(folder, H200, 64, e=8, n=256)
        assert knobs is not None and knobs["BLOCK_SIZE_M"] == tile_m


def test_the_engine_s_own_kernel_may_have_block_scales(files: Callable[..., Path]) -> None:
    gemm = Gemm(m=4, n=512, k=2048, batch=8, dtype="fp8_e4m3", layout="nt")
    own = "vllm_moe.toml@1a2b"
    options = ExportOptions(
        experts=8, top_k=2, intermediate=256, kernel=own, block_shape=(128, 128)
    )
    folder = files(table([entry(gemm, config(own, 16))]), "vllm-moe", options)
    found = runtime_readers.vllm_moe(
        folder, H200, 16, e=8, n=256, dtype="fp8_w8a8", block="[128,128]"
    )
    assert found is not None and found["BLOCK_SIZE_M"] == 16


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("NVIDIA H100 80GB HBM3", "NVIDIA_H100_80GB_HBM3"),
        ("NVIDIA  A100/PCIe\t40GB", "NVIDIA_A100_PCIe_40GB"),
    ],
)
def test_white_space_and_slashes_of_a_device_become_one_underscore(name: str, words: str) -> None:
    assert device_words(name) == words


def test_vllm_calls_every_h200_the_same(files: Callable[..., Path]) -> None:
    nvl = "NVIDIA H200 NVL"
    folder = files(table([experts(16, 16)], device=nvl), "vllm-moe", MIXTURE)
    assert runtime_readers.vllm_moe(folder, nvl, 16, e=8, n=256) is not None


def test_what_a_file_can_not_say_is_left_out_and_counted() -> None:
    fp8 = {"n": 4096, "k": 7168, "dtype": "fp8_e4m3", "layout": "nt"}
    winner = config("scaled_block", 16)
    other = TunedEntry(
        gemm=Gemm(m=32, **fp8),  # type: ignore[arg-type]
        default=config("scaled_block"),
        winner=KernelConfig(family="cublaslt", kernel="heuristic-1"),
        verified=True,
    )
    entries = [
        block(16, 16),
        experts(16, 16),
        entry(Gemm(m=8, n=64, k=64, dtype="bf16", layout="nt"), winner),
        entry(Gemm(m=8, n=4096, k=7168, dtype="fp8_e4m3", layout="nn"), winner),
        entry(Gemm(m=8, batch=2, **fp8), winner),  # type: ignore[arg-type]
        entry(Gemm(m=8, beta=1.0, **fp8), winner),  # type: ignore[arg-type]
        entry(Gemm(m=24, **fp8), config("scaled_block", 16, tile_k=256)),  # type: ignore[arg-type]
        other,
    ]
    export = export_table(table(entries), "vllm-block", PLAIN)
    assert sorted(export.notes) == [
        "1 entry left out: its default is triton grouped, not triton scaled_block",
        "1 entry left out: its winner is cublaslt heuristic-1, which the engine's kernel is not",
        "1 entry left out: the engine's kernel does not multiply bf16",
        "1 entry left out: the engine's kernel has neither alpha nor beta",
        "1 entry left out: the engine's kernel multiplies one matrix",
        "1 entry left out: the engine's kernel reads layout nt, not nn",
        "1 entry left out: tile_k = 256 does not divide a block of 128",
    ]
    (text,) = export.files.values()
    tiles = {key: knobs["BLOCK_SIZE_M"] for key, knobs in json.loads(text).items()}
    # Those token counts have the default, not a neighbour's winner
    assert [tiles[key] for key in ("8", "16", "24", "32")] == [64, 16, 64, 64]


@pytest.mark.parametrize("format", ["vllm-block", "vllm-moe", "cublaslt", "cutlass-profiler", "t4"])
def test_a_table_of_which_nothing_can_be_said_is_refused(format: str) -> None:
    gemm = Gemm(m=8, n=512, k=64, dtype="fp32")
    default = KernelConfig(family="tiled", tile_m=16, tile_n=16, tile_k=16)
    tiled = TunedEntry(gemm=gemm, default=default, winner=default)
    options = MIXTURE if format == "vllm-moe" else PLAIN
    with pytest.raises(InputError, match="none of the 1 entries of its table can be written"):
        export_table(table([tiled], library="cublas 13.1.0"), format, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ExportOptions(top_k=2, intermediate=256), "--experts = None: a fused MoE file needs it"),
        (ExportOptions(experts=8, top_k=0, intermediate=256), "--top-k = 0: a fused MoE"),
        (ExportOptions(experts=8, top_k=2), "--intermediate = None"),
        (
            ExportOptions(experts=8, top_k=2, intermediate=256, decides="up"),
            "--decides = 'up': no such product; use one of both, gate_up, down",
        ),
        (
            ExportOptions(experts=8, top_k=2, intermediate=256, block_shape=(128, 128)),
            "--block-shape = .128, 128.: our kernel grouped has no block scales",
        ),
        (ExportOptions(experts=8, top_k=2, intermediate=300), "neither n = 600 nor k = 300"),
        (
            ExportOptions(experts=3, top_k=2, intermediate=256),
            "no token count gives it with 2 of 3",
        ),
    ],
)
def test_a_mixture_that_is_not_said_or_not_there_is_refused(
    options: ExportOptions, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        export_table(table([experts(64, 16)]), "vllm-moe", options)


def test_two_dtypes_for_one_file_are_refused() -> None:
    both = table([experts(16, 16), experts(16, 32, dtype="fp16")])
    with pytest.raises(InputError, match="dtype = 'bf16, fp16': .* one file would serve them all"):
        export_table(both, "vllm-moe", MIXTURE)


def test_sglang_needs_the_version_of_triton() -> None:
    unknown = TunedTable(TableKey(device=H200), [experts(16, 16)])
    with pytest.raises(InputError, match="triton = None: SGLang looks in a folder"):
        export_table(unknown, "sglang-moe", MIXTURE)
    notes = export_table(unknown, "vllm-moe", MIXTURE).notes
    assert "triton_version is left out: the table does not have it" in notes


def test_an_option_that_a_format_does_not_read_is_refused() -> None:
    options = ExportOptions(experts=8)
    with pytest.raises(InputError, match="--experts = 8: the format vllm-block does not read it"):
        export_table(table([block(16, 16)]), "vllm-block", options)


def test_tables_of_two_devices_give_files_side_by_side_and_of_one_none_if_they_disagree() -> None:
    h100 = table([block(16, 16)], device="NVIDIA H100 80GB HBM3")
    h200 = table([block(16, 16)])
    other = table([block(16, 128)])

    def exported(*tables: TunedTable) -> Export:
        return merged(export_table(one, "vllm-block", PLAIN) for one in tables)

    assert len(exported(h100, h200).files) == 2
    assert len(exported(h200, h200).files) == 1
    with pytest.raises(InputError, match="two tables give it, with different contents; merge"):
        exported(h200, other)


# the command


def test_the_command_writes_files_and_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "h200.json"
    table([block(16, 16), experts(16, 16)]).write(path)
    out = tmp_path / "out"
    words = ["export", str(path), "--format", "vllm-block", "--out", str(out)]
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == [str(file) for file in out.iterdir()]
    assert said["notes"] == [
        "1 entry left out: its default is triton grouped, not triton scaled_block"
    ]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == [*said["notes"], *said["files"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "vllm"], "--format = 'vllm': unknown format; use one of vllm-moe, "),
        (["--format", "vllm-moe", "--block-shape", "128"], "--block-shape = '128': must be two"),
        (["--format", "t4"], "none of the 1 entries"),
    ],
)
def test_bad_input_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    path = tmp_path / "h200.json"
    table([block(16, 16)]).write(path)
    assert main(["export", str(path), "--out", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_can_not_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "h200.json"
    table([block(16, 16)]).write(path)
    assert main(["export", str(path), "--out", str(path), "--format", "vllm-block"]) == 2
    assert "--out = " in capsys.readouterr().err


def test_help_lists_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--help"]) == 0
    listed = "".join(capsys.readouterr().out.split())
    assert ",".join(FORMATS) in listed
