"""`gemmcast predict | rank | pick | info | models`: text, JSON, and one line on bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from gemmcast import Gemm, KernelConfig, Predictor, __version__, modeldir
from gemmcast.cli import main, rounded
from gemmcast.device import Device

ROOT = Path(__file__).parents[2]
Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """What a successful command prints."""

    def run(*words: object) -> str:
        assert main([str(word) for word in words]) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        return printed.out

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Run:
    """The one line of a command that is refused."""

    def refused(*words: object) -> str:
        assert main([str(word) for word in words]) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.count("\n") == 1
        return printed.err.removeprefix("error: ").rstrip()

    return refused


def last(text: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(text.splitlines()[-1])
    return values


def test_predict_says_what_the_predictor_says(run: Run, power_file: Path) -> None:
    words = (
        "predict",
        512,
        256,
        128,
        "--batch",
        2,
        "--dtype",
        "fp16",
        "--layout",
        "nt",
        "--beta",
        1,
        "--cache",
        "warm",
        "--device",
        "GPU B",
    )
    answer = last(
        run(
            *words,
            "--config",
            "cutlass:tile_m=128,tile_n=64,kernel=k",
            "--model",
            power_file,
            "--json",
        )
    )
    gemm = Gemm(m=512, n=256, k=128, batch=2, dtype="fp16", layout="nt", beta=1.0)
    config = KernelConfig(family="cutlass", kernel="k", tile_m=128, tile_n=64)
    with Predictor(power_file) as predictor:
        prediction = predictor.predict(gemm, config, "GPU B", cache="warm")
    assert answer == {
        "gemm": asdict(gemm),
        "config": asdict(config),
        "device": "GPU B",
        "prediction": asdict(prediction),
    }


def test_tile_sets_all_three(run: Run, power_file: Path) -> None:
    short, long = (
        last(
            run(
                "predict",
                64,
                64,
                64,
                "--config",
                config,
                "--device",
                "GPU A",
                "--model",
                power_file,
                "--json",
            )
        )
        for config in ("tiled:tile=16", "tiled:tile_m=16,tile_n=16,tile_k=16")
    )
    assert short == long
    assert short["config"]["tile_k"] == 16


def test_predict_shows_units_and_leaves_out_what_is_not_known(
    run: Run, power_file: Path, time_file: Path
) -> None:
    text = run(
        "predict", 512, 256, 128, "--config", "cublas", "--device", "GPU A", "--model", power_file
    )
    assert text.splitlines()[0] == "512x256x128 fp32 nn  cublas  on GPU A"
    assert [line.split()[:3:2] for line in text.splitlines()[1:]] == [
        ["runtime_us", "us"],
        ["tflops", "TFLOP/s"],
        ["sustained_runtime_us", "us"],
        ["power_w", "W"],
        ["energy_mj", "mJ"],
    ]
    text = run("predict", 512, 256, 128, "--config", "blas:cpu_threads=2", "--model", time_file)
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["runtime_us", "tflops"]


def test_predict_shows_each_interval_and_says_when_it_extrapolates(
    run: Run, power_file: Path, held_out_family: str
) -> None:
    words = ("--device", "GPU A", "--model", power_file)
    with Predictor(power_file) as predictor:
        p = predictor.predict(Gemm(m=512, n=256, k=128), KernelConfig(family="cublas"), "GPU A")
    text = run("predict", 512, 256, 128, "--config", "cublas", *words)
    for line, name in zip(text.splitlines()[1:], p.low, strict=True):
        low, high = line.partition("(")[2].rstrip(")").split(" to ")
        half = (p.high[name] - p.low[name]) / 2
        assert float(low) == pytest.approx(p.low[name], abs=half / 20)
        assert float(high) == pytest.approx(p.high[name], abs=half / 20)
    assert "extrapolating" not in text
    for query in (
        (65536, 256, 128, "--config", "cublas"),
        (512, 256, 128, "--config", held_out_family),
    ):
        text = run("predict", *query, *words)
        assert text.splitlines()[-1].startswith(
            "     extrapolating: a size, device, kernel or dtype outside the training range"
        )
        assert last(run("predict", *query, *words, "--json"))["prediction"]["extrapolating"] is True


def test_a_device_may_come_from_a_file(
    run: Run, power_file: Path, gpu: Device, tmp_path: Path
) -> None:
    path = tmp_path / "device.json"
    path.write_text(gpu.to_json())
    words = (
        "predict",
        512,
        256,
        128,
        "--config",
        "cublas",
        "--model",
        power_file,
        "--json",
        "--device",
    )
    assert run(*words, path) == run(*words, "GPU A")
    (described,) = [
        device
        for device in last(run("info", "--model", power_file, "--json"))["devices"]
        if device["name"] == "GPU A"
    ]
    path.write_text(json.dumps(described))
    assert run(*words, path) == run(*words, "GPU A")


def test_rank_orders_what_is_named_and_what_a_file_holds(
    run: Run, power_file: Path, tmp_path: Path
) -> None:
    more = tmp_path / "configs.json"
    more.write_text(
        json.dumps([{"family": "tiled", "tile_m": size, "tile_n": size} for size in (4, 8, 32)])
    )
    words = (
        "rank",
        512,
        256,
        128,
        "--model",
        power_file,
        "--device",
        "GPU A",
        "--objective",
        "edp",
        "--configs-file",
        more,
        "cublas",
        "tiled:tile_m=16",
    )
    answer = last(run(*words, "--top", 4, "--json"))
    configs = [KernelConfig(family="cublas"), KernelConfig(family="tiled", tile_m=16)]
    configs += [KernelConfig(family="tiled", tile_m=size, tile_n=size) for size in (4, 8, 32)]
    with Predictor(power_file) as predictor:
        ranking = predictor.rank(Gemm(m=512, n=256, k=128), configs, "edp", "GPU A", top=4)
    assert (answer["objective"], answer["ranking"]) == (
        "edp",
        json.loads(json.dumps([asdict(ranked) for ranked in ranking])),
    )
    assert len(last(run(*words, "--json"))["ranking"]) == len(configs), "all, without --top"
    text = run(*words, "--top", 3)
    first, second, third, *_ = text.splitlines()
    assert first == "512x256x128 fp32 nn on GPU A, lowest edp first:"
    assert second == f"  1. {ranking[0].config}"
    assert third.startswith("     runtime_us")
    assert "  3. " in text and "  4. " not in text
    picked = last(run("pick", *words[1:], "--bold", "--json"))
    assert picked["objective"] == "edp" and picked["config"] == asdict(ranking[0].config)
    text = run("pick", *words[1:], "--bold")
    assert text.startswith(
        f"512x256x128 fp32 nn on GPU A, lowest edp:  {ranking[0].config}\n     runtime_us"
    )


def test_ties_are_said_to_be_ties(run: Run, power_file: Path) -> None:
    words = (512, 256, 128, "--device", "GPU A", "--model", power_file)
    named = [KernelConfig(family="cublaslt", kernel=name, algo_id=66) for name in ("a", "b")]
    configs = ["cublaslt:kernel=a,algo_id=66", "cublaslt:kernel=b,algo_id=66"]
    said = f"\n     the model cannot tell it from {named[1]}\n     runtime_us"
    assert said in run("rank", *words, *configs)
    assert said in run("pick", *words, *configs)
    answer = last(run("pick", *words, *configs, "--json"))
    assert answer["tied"] == [asdict(named[1])]


def test_names_that_the_model_does_not_know_are_refused(refused: Run, power_file: Path) -> None:
    words = (512, 256, 128, "--device", "GPU A", "--model", power_file)
    names = [f"cublaslt:kernel={name}" for name in ("default", "heuristic-1", "enumerated-0")]
    for command in ("rank", "pick"):
        error = refused(command, *words, *names)
        assert "heuristic-1" in error and "enumerated-0" in error
        assert "python -m agent.kernels.cublaslt" in error


@pytest.mark.parametrize(
    ("numbers", "texts"),
    [
        ((123.4567, 110.2, 137.9), ["123", "110", "138"]),
        ((4.36012, 4.20391, 4.52), ["4.36", "4.20", "4.52"]),
        ((2.0189, 0.5124, 7.956), ["2.0", "0.51", "8.0"]),
        ((48211.7, 30112.0, 77190.0), ["48000", "30000", "77000"]),
        ((0.0012345, 0.0011, 0.0014), ["0.00123", "0.00110", "0.00140"]),
        ((5.0, 5.0, 5.0), ["5.0", "5.0", "5.0"]),
    ],
)
def test_numbers_have_the_digits_that_their_interval_allows(
    numbers: tuple[float, float, float], texts: list[str]
) -> None:
    assert rounded(*numbers) == texts


def test_what_is_printed_as_a_configuration_can_be_pasted_back(run: Run, power_file: Path) -> None:
    words = (512, 256, 128, "--device", "GPU A", "--model", power_file)
    wanted = ("tiled:tile=16", "cutlass:kernel=a%2Cb,stages=3,tile_m=128,tile_n=64", "cublas")
    text = run("rank", *words, *wanted)
    printed = [
        line.split()[1] for line in text.splitlines() if line.lstrip()[:2] in ("1.", "2.", "3.")
    ]
    assert {KernelConfig.parse(words) for words in printed} == {
        KernelConfig(family="tiled", tile_m=16, tile_n=16, tile_k=16),
        KernelConfig(family="cutlass", kernel="a,b", stages=3, tile_m=128, tile_n=64),
        KernelConfig(family="cublas"),
    }
    for config in printed:
        again = run("predict", *words[:3], "--config", config, *words[3:])
        assert again.splitlines()[0].endswith(f"  {config}  on GPU A")


@pytest.mark.parametrize(
    "config",
    [
        KernelConfig(family="blas"),
        KernelConfig(family="tiled", tile_m=16, tile_n=16, tile_k=16),
        KernelConfig(family="tiled", tile_m=16, tile_n=16),
        KernelConfig(
            family="custom", kernel="my kernels/a=b,c:50%.toml@1a2b3c4d", block_threads=64
        ),
        KernelConfig(
            family="cublas", kernel="void cutlass::Kernel<a, b>(P)é", algo_id=7, split_k=2
        ),
        KernelConfig(family="cublaslt", kernel="enumerated-0", cluster_m=2, cluster_n=1),
    ],
)
def test_a_configuration_is_its_text(config: KernelConfig) -> None:
    assert KernelConfig.parse(str(config)) == config
    assert not set(str(config)) & set(" \"'$&()<>|;*?#")


def test_help_shows_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for default in ("fp32", "nn", "1", "0.0", "cold", "time", "all", "the model's only device"):
        assert f"[default: {default}]" in shown
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gemmcast {__version__}\n"


def test_info_says_what_a_model_is(run: Run, power_model: bytes, tmp_path: Path) -> None:
    modeldir.put_model(tmp_path, power_model, "7")
    answer = last(run("info", "--model", tmp_path, "--json"))
    assert (answer["version"], answer["contract"]) == ("7", "4")
    assert answer["outputs"] == [
        "runtime_us",
        "tflops",
        "sustained_runtime_us",
        "power_w",
        "energy_mj",
    ]
    assert [device["name"] for device in answer["devices"]] == ["GPU A", "GPU B"]
    lines = run("info", "--model", tmp_path).splitlines()
    assert lines[0].split() == ["version", "7"]
    assert lines[-1].split() == ["device", "GPU", "B", "(fp32,", "fp16)"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "cuda"], "family = 'cuda': unknown kernel family; use one of blas"),
        (["--config", ""], "family = '': unknown kernel family"),
        (
            ["--config", "tiled:tiel=3"],
            "config = 'tiled:tiel=3': can't read 'tiel=3'; "
            "write family:knob=value,... with knobs kernel, tile, tile_m",
        ),
        (["--config", "tiled:tile_m"], "config = 'tiled:tile_m': can't read 'tile_m'"),
        (["--config", "tiled:tile_m=-1"], "tile_m = '-1': must be a whole number"),
        (["--config", "tiled:tile_m=16777216"], "tile_m = 16777216: must be a whole number from 0"),
        (
            ["--config", "tiled", "--dtype", "int4"],
            "dtype = 'int4': unknown dtype; use one of fp64",
        ),
        (
            ["--config", "tiled", "--dtype", "bf16"],
            "dtype = 'bf16': device GPU A has no measured peak for it (measured: fp16, fp32)",
        ),
        (
            ["--config", "tiled", "--layout", "cc"],
            "layout = 'cc': unknown layout; use one of nn, nt, tn, tt",
        ),
        (["--config", "tiled", "--batch", "0"], "batch = 0: must be a whole number from 1 to"),
        (["--config", "tiled", "--beta", "nan"], "beta = nan: must be finite"),
        (
            ["--config", "tiled", "--device", "GPU Z"],
            "device = 'GPU Z': is no known device; name one of: GPU A, GPU B; or give a Device",
        ),
    ],
)
def test_bad_input_to_predict(
    refused: Run, power_file: Path, words: list[str], message: str
) -> None:
    device = [] if "--device" in words else ["--device", "GPU A"]
    assert refused("predict", 8, 8, 8, "--model", power_file, *device, *words).startswith(message)


def test_bad_input_to_pick(refused: Run, power_file: Path, time_file: Path, tmp_path: Path) -> None:
    words = ("pick", 8, 8, 8, "--model", power_file, "--device", "GPU A")
    none = tmp_path / "none.json"
    none.write_text("[]")
    assert (
        refused(*words, "--configs-file", none)
        == "configs = []: there is no configuration to rank; name at least one configuration"
    )
    top = refused("rank", *words[1:], "cublas", "--top", 0)
    assert top == "top = 0: must be 1 or more; leave it out to rank all"
    assert refused(*words, "cublas", "--objective", "speed").startswith(
        "objective = 'speed': unknown objective; use one of time, energy, edp"
    )
    message = refused("pick", 8, 8, 8, "--model", time_file, "blas", "--objective", "energy")
    assert (
        message
        == "objective = 'energy': this model was trained without power (it has no energy_mj); "
        'use "time"'
    )
    path = tmp_path / "configs.json"
    reason = "can't be read (No such file or directory); name a JSON list of configurations"
    missing = f"--configs-file = '{path}': {reason}"
    assert refused(*words, "--configs-file", path) == missing
    for text in ("[", "3", '["cublas"]', '[{"tile": 3}]', "[3]"):
        path.write_text(text)
        assert refused(*words, "--configs-file", path).startswith(
            f"--configs-file = '{path}': not a JSON list of configurations"
        )
    path.write_text('[{"family": "cuda"}]')
    assert refused(*words, "--configs-file", path).startswith(
        "family = 'cuda': unknown kernel family"
    )


def test_bad_models_and_devices(refused: Run, power_file: Path, tmp_path: Path) -> None:
    assert refused("info", "--model", tmp_path).endswith(
        "has no current.json; run an agent that pushes here, or name an .onnx file"
    )
    assert refused("info", "--model", tmp_path / "x.onnx").endswith(
        "name an .onnx file or a model directory"
    )
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(power_file.read_bytes()[:5000])
    assert refused("info", "--model", cut).endswith("it is damaged or cut short: fetch it again")
    device = tmp_path / "device.json"
    for content, message in (
        (b"{}", f"--device = '{device}': not a device description"),
        (b"\xff", f"--device = '{device}': can't be read"),
    ):
        device.write_bytes(content)
        assert refused(
            "predict", 8, 8, 8, "--config", "cublas", "--model", power_file, "--device", device
        ).startswith(message)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["predict"],
        ["predict", "a", "8", "8"],
        ["pick", "8", "8"],
        ["models", "--model", "x"],
        ["push"],
        ["info", "--model", "x", "y"],
        ["pick", "8", "8", "8", "--model", "x", "-z"],
        ["pick", "8", "8", "8", "--model", "x", "cublas", "--top", "2"],
    ],
)
def test_a_wrong_command_line_ends_with_two(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_wrong_command_line_names_the_help_of_its_command(refused: Run) -> None:
    assert refused("models", "--model", "x").endswith("(see gemmcast models --help)")
    assert refused("pick", 8).endswith("(see gemmcast pick --help)")


def test_sizes_beside_a_list_are_refused(refused: Run) -> None:
    message = refused("pick", 8, 8, 8, "--gemms", "gemms.csv")
    assert message.startswith("M N K = 8 8 8: --gemms has the sizes")


def test_the_module_is_the_command(power_file: Path) -> None:
    """In a process of its own, where warnings are errors too."""
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "gemmcast",
        "predict",
        "8",
        "8",
        "8",
        "--config",
        "cublas",
        "--model",
        str(power_file),
    ]
    good = subprocess.run(
        [*command, "--device", "GPU A", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (good.returncode, good.stderr) == (0, "")
    assert last(good.stdout)["prediction"]["runtime_us"] > 0
    bad = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith(
        "error: device = None: must be given: the model has several; name one of"
    )
