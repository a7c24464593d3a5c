"""Model files that must not be used: cut short, foreign, of another contract.

Each is one ModelFileError with a way out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from gemmcast import Gemm, KernelConfig, ModelFileError, Predictor
from gemmcast.device import Device
from gemmcast.modelfile import METADATA, METADATA_PREFIX, PREFILTER_KEY

Edit = Callable[..., bytes]


def refusal(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        Predictor(path)
    assert caught.value.way_out
    message = str(caught.value)
    assert message.startswith(f"model = '{path}': ") and "\n" not in message
    return message


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_file_cut_short_is_refused(tmp_path: Path, power_model: bytes, share: float) -> None:
    message = refusal(tmp_path / "cut.onnx", power_model[: int(share * len(power_model))])
    assert "ONNX Runtime can't load it" in message and message.endswith(
        "it is damaged or cut short: fetch it again"
    )


def test_a_file_cut_anywhere_in_its_tail_is_refused(tmp_path: Path, power_model: bytes) -> None:
    """The metadata are last: a file cut between two of them is still good ONNX."""
    tail = power_model.index(METADATA_PREFIX.encode()) - 100
    messages = {
        refusal(tmp_path / "cut.onnx", power_model[:size]).split("; ")[-1]
        for size in range(tail, len(power_model))
    }
    assert messages == {
        "it is damaged or cut short: fetch it again",
        "export one: python -m registry export",
    }


@pytest.mark.parametrize("name", sorted(METADATA - {"contract"}))
def test_a_file_without_one_of_its_metadata_is_refused(
    tmp_path: Path, power_model: bytes, edit: Edit, name: str
) -> None:
    assert f"has no metadata {name}; it is damaged" in refusal(
        tmp_path / "less.onnx", edit(power_model, **{name: None})
    )


@pytest.mark.parametrize(("flip", "first"), [(0xFF, 0), (0x10, 8)])
def test_flipped_bits_in_the_metadata_give_no_other_error(
    tmp_path: Path, power_model: bytes, flip: int, first: int
) -> None:
    """It loads, or it is a ModelFileError: a file by itself has no checksum."""
    start = power_model.index(METADATA_PREFIX.encode()) + first
    path, refused = tmp_path / "flipped.onnx", 0
    for position in range(start, len(power_model), 17):
        path.write_bytes(
            power_model[:position]
            + bytes([power_model[position] ^ flip])
            + power_model[position + 1 :]
        )
        try:
            Predictor(path).close()
        except ModelFileError:
            refused += 1
    assert refused


def test_a_damaged_prefilter_is_refused_and_a_missing_one_is_not_needed(
    tmp_path: Path, power_model: bytes, gpu: Device
) -> None:
    proto = onnx.load_model_from_string(power_model)
    (entry,) = (entry for entry in proto.metadata_props if entry.key == PREFILTER_KEY)
    whole = entry.value
    for value, reason in (
        ("?" + whole[1:], f"its {PREFILTER_KEY} is not base64"),
        (whole[:1000], "ONNX Runtime can't load it"),
    ):
        entry.value = value
        assert reason in refusal(tmp_path / "damaged.onnx", proto.SerializeToString())
    proto.metadata_props.remove(entry)
    (tmp_path / "without.onnx").write_bytes(proto.SerializeToString())
    configs = [
        KernelConfig(family="tiled", tile_m=tile, tile_n=tile, tile_k=16)
        for tile in range(4, 68, 4)
    ]
    with Predictor(tmp_path / "without.onnx") as predictor:
        gemm = Gemm(m=512, n=512, k=512)
        picked = predictor.pick(gemm, configs, device=gpu)
        assert picked.config == predictor.rank(gemm, configs, device=gpu)[0].config


def test_a_refusal_prints_nothing_of_its_own(
    tmp_path: Path, power_model: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime likes to log what it also raises."""
    refusal(tmp_path / "x.onnx", b"no model at all")
    refusal(tmp_path / "y.onnx", power_model.replace(b"Gemm", b"Gexx"))
    assert capfd.readouterr() == ("", "")


def test_onnx_of_another_program_is_refused(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "other", [value], [result]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    message = refusal(tmp_path / "other.onnx", model.SerializeToString())
    assert (
        "an ONNX file of another program (no gemmcast metadata); "
        "export one: python -m registry export" in message
    )


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    assert "ONNX Runtime can't load it" in refusal(tmp_path / "notes.onnx", b"no model at all")


def test_another_contract_is_refused(tmp_path: Path, power_model: bytes, edit: Edit) -> None:
    message = refusal(tmp_path / "newer.onnx", edit(power_model, contract="5", fields=None))
    rule = "is of contract 5, this gemmcast serves 2, 3, 4"
    assert f"{rule}; install the gemmcast that exported it" in message
    assert "is of contract" in refusal(
        tmp_path / "fields.onnx", edit(power_model, fields='["m", "n"]')
    )


def test_a_path_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ModelFileError,
        match=r"nowhere.onnx': can't be read \(No such file or directory\); "
        r"name an .onnx file or a model directory",
    ):
        Predictor(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelFileError, match=r"has no current.json; run an agent that pushes here"):
        Predictor(tmp_path)
