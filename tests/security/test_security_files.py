"""Files of strangers: each is refused in one line, before it costs memory or leads elsewhere."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper

from coordinator.samples.formats import source_file, table_file
from coordinator.samples.store import SampleStore
from coordinator.workspace import Workspace
from gemmcast import models, parquet_file
from gemmcast.arrow import read_samples
from gemmcast.cell import Cell
from gemmcast.cli import main as gemmcast
from gemmcast.device import Device
from gemmcast.errors import InputError, ModelFileError
from gemmcast.model_graph import MOST_NODES, check_graph
from gemmcast.modelfile import LoadedModel
from gemmcast.rows import Row
from tests.conftest import Ended

Coordinator = Callable[..., Ended]
PLAN = '[[sweep]]\nfamily = "blas"\nshapes = { sample = 4, max = 64 }\n'


def refused(ended: Ended) -> str:
    """The one line of a command that has refused its input."""
    assert ended.returncode == 2, ended
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert len(line) < 800
    return line


# Hostile ONNX


def model_of(*nodes: onnx.NodeProto, **options: object) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])
    graph = helper.make_graph(list(nodes), "g", [x], [y])
    return helper.make_model(graph, **options)


def identity() -> onnx.NodeProto:
    return helper.make_node("Identity", ["x"], ["y"])


def endless() -> onnx.ModelProto:
    """Its body says for ever that it goes on."""
    names = ("i", TensorProto.INT64), ("go", TensorProto.BOOL), ("v", TensorProto.FLOAT)
    inputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in names]
    outputs = [helper.make_tensor_value_info("on", TensorProto.BOOL, None)]
    outputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, None))
    steps = [
        helper.make_node("Identity", ["go"], ["on"]),
        helper.make_node("Identity", ["v"], ["w"]),
    ]
    body = helper.make_graph(steps, "body", inputs, outputs)
    return model_of(helper.make_node("Loop", ["", "", "x"], ["y"], body=body))


def with_data_elsewhere(location: str) -> onnx.ModelProto:
    model = model_of(helper.make_node("Add", ["x", "w"], ["y"]))
    weight = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[2])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    return model


def with_constant_elsewhere() -> onnx.ModelProto:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[2])
    tensor.external_data.add(key="location", value="/etc/passwd")
    return model_of(helper.make_node("Constant", [], ["y"], value=tensor))


def with_function() -> onnx.ModelProto:
    model = model_of(identity())
    opset = [helper.make_opsetid("", 20)]
    function = helper.make_function("mine", "Do", ["a"], ["b"], [identity()], opset)
    model.functions.append(function)
    return model


def with_graph_in_an_attribute() -> onnx.ModelProto:
    """The operator is known, and has an attribute that it should not have."""
    node = identity()
    node.attribute.add(name="body", type=onnx.AttributeProto.GRAPH).g.CopyFrom(endless().graph)
    return model_of(node)


def with_sparse_tensor() -> onnx.ModelProto:
    model = model_of(identity())
    model.graph.sparse_initializer.add(dims=[2**40])
    return model


HOSTILE: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "a loop that never ends": (endless, "graph within its graph"),
    "another file": (lambda: with_data_elsewhere("weights.bin"), "data from another file"),
    "a file outside": (lambda: with_data_elsewhere("../../etc/passwd"), "data from another file"),
    "a constant outside": (with_constant_elsewhere, "data from another file"),
    "an operator of others": (
        lambda: model_of(helper.make_node("Shell", ["x"], ["y"], domain="com.evil")),
        "the operator 'com.evil.Shell'",
    ),
    "gigabytes from nothing": (
        lambda: model_of(helper.make_node("ConstantOfShape", ["x"], ["y"])),
        "the operator 'ConstantOfShape'",
    ),
    "a function": (with_function, "functions of its own"),
    "a hidden graph": (with_graph_in_an_attribute, "graph within its graph"),
    "a sparse tensor": (with_sparse_tensor, "a sparse tensor"),
    "very many operators": (
        lambda: model_of(*[identity() for _ in range(MOST_NODES + 1)]),
        f"has {MOST_NODES + 1} operators",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_model_is_refused_before_it_is_opened(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, rule = HOSTILE[case]
    monkeypatch.setattr("onnxruntime.InferenceSession", None)
    with pytest.raises(ModelFileError, match=r"which no model has") as error:
        LoadedModel(make().SerializeToString(), "hostile.onnx", "1")
    assert rule in str(error.value)
    assert "\n" not in str(error.value)


def test_a_hostile_prefilter_is_refused(tmp_path: Path) -> None:
    """The smaller graph lies in the metadata of the larger one."""
    import base64

    model = onnx.load_model_from_string(models.path().read_bytes())
    (entry,) = [one for one in model.metadata_props if one.key.endswith("prefilter")]
    entry.value = base64.b64encode(endless().SerializeToString()).decode()
    with pytest.raises(ModelFileError, match="graph within its graph"):
        LoadedModel(model.SerializeToString(), "hostile.onnx", "1")


def test_a_hostile_model_on_the_command_line_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "hostile.onnx"
    path.write_bytes(with_data_elsewhere("/etc/passwd").SerializeToString())
    words = ["predict", "64", "64", "64", "--device", "h100", "--model", str(path)]
    assert gemmcast(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "takes data from another file, which no model has" in line


@pytest.mark.parametrize("data", [b"", b"\x3a", b"\x3a\xff\xff\xff\xff\x7f", b"\x0b", b"\xff" * 99])
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(ModelFileError, match="ONNX Runtime can't load it"):
        LoadedModel(data, "broken.onnx", "1")


def test_the_shipped_model_holds_nothing_but_arithmetic() -> None:
    for name in models.names():
        check_graph(models.path(name).read_bytes(), name)


# Hostile Parquet, gzip, JSON and TOML


def parquet(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def repeated(value: object, rows: int) -> pa.Array:
    """A column that takes no room, however long it is."""
    indices = pa.array([0]).take(pa.array(bytes(rows), pa.uint8()))
    return pa.DictionaryArray.from_arrays(indices.cast(pa.int32()), pa.array([value]))


def bomb_of_text() -> bytes:
    return parquet(pa.table({"kernel": repeated("x" * 2**20, 10_000)}))


def bomb_of_columns() -> bytes:
    columns = {f"c{i}": [1] for i in range(parquet_file.MOST_COLUMNS + 1)}
    return parquet(pa.table(columns))


def nested() -> bytes:
    return parquet(pa.table({"m": [[[[1]]]], "n": [{"deep": {"deeper": 1}}]}))


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "text": (bomb_of_text, "unpacks to 10,0"),
    "columns": (bomb_of_columns, "has 1,001 columns"),
    "nested": (nested, "not of plain values"),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_hostile_parquet_file_is_refused(
    coordinator: Coordinator, tmp_path: Path, case: str
) -> None:
    make, rule = BOMBS[case]
    path = tmp_path / "hostile.parquet"
    path.write_bytes(make())
    with pytest.raises(InputError, match=rule):
        read_samples(path)
    line = refused(coordinator("import", path, "--workspace", tmp_path / "workspace"))
    assert rule in line
    assert not (tmp_path / "workspace").exists()


def test_rows_beyond_the_limit_are_refused_by_the_footer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = parquet(pa.table({"m": repeated(7, 1_000)}))
    monkeypatch.setattr(parquet_file, "MOST_ROWS", 999)
    monkeypatch.setattr(pq.ParquetFile, "read", None)
    with pytest.raises(InputError, match="has 1,000 rows, a file may have 999"):
        parquet_file.read_parquet(data, "hostile.parquet")


def test_more_values_than_python_has_room_for_are_not_imported(
    coordinator: Coordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_file, "MOST_VALUES", 99)
    path = tmp_path / "large.parquet"
    path.write_bytes(parquet(pa.table({"m": [1] * 100})))
    line = refused(coordinator("import", path, "--workspace", tmp_path / "workspace"))
    assert "has 100 values, a file may have 99" in line


def test_a_file_that_unpacks_to_gigabytes_is_refused(
    coordinator: Coordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_file, "MOST_BYTES", 2**20)
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"m,n,k\n" + b"1,1,1\n" * 2**18))
    assert path.stat().st_size < 2**20
    line = refused(coordinator("import", path, "--workspace", tmp_path / "workspace"))
    assert "unpacks to, more than 1 MiB" in line


JSON = {
    "nested": '{"results": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "objects": '{"a": ' * 50_000 + "1" + "}" * 50_000,
    "a huge number": '{"m": ' + "9" * 5_000 + "}",
    "infinite": '{"results": [Infinity, NaN]}',
}


@pytest.mark.parametrize("case", JSON)
def test_hostile_json_is_refused_wherever_it_is_read(
    coordinator: Coordinator, capsys: pytest.CaptureFixture[str], tmp_path: Path, case: str
) -> None:
    path = tmp_path / "hostile.json"
    path.write_text(JSON[case])
    line = refused(coordinator("import", path, "--workspace", tmp_path / "workspace"))
    assert "hostile.json" in line
    with pytest.raises(InputError):
        Device.from_json(JSON[case])
    shape, device = ["64", "64", "64"], ["--device", "h100"]
    readers = {
        "--device": ["predict", *shape, "--device", str(path)],
        "--configs-file": ["pick", *shape, *device, "--configs-file", str(path)],
        "gemms": ["rank", "--gemms", str(path), *device],
        "config": ["llm", str(path), *device],
        "table": ["lookup", str(path), *shape],
        "model": ["predict", *shape, *device, "--model", str(path)],
    }
    for field, words in readers.items():
        assert gemmcast(words) == 2, words
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith((f"error: {field} = ", "error: model_type = ")), line


TOML = {
    "nested": "x = " + "[" * 5_000 + "]" * 5_000,
    "a huge number": "seed = " + "9" * 5_000,
    "tables": "x = " + "{a=" * 5_000 + "1" + "}" * 5_000,
}


@pytest.mark.parametrize("case", TOML)
def test_a_hostile_plan_is_refused(coordinator: Coordinator, tmp_path: Path, case: str) -> None:
    path = tmp_path / "hostile.toml"
    path.write_text(TOML[case])
    assert "not TOML" in refused(coordinator("plan", path))


# Paths that lead elsewhere


@pytest.mark.parametrize(
    "outside", ["/etc/passwd", "../secret.parquet", "sub/../../secret.parquet", "link.parquet"]
)
def test_a_plan_names_no_file_outside(
    coordinator: Coordinator, tmp_path: Path, outside: str
) -> None:
    """Neither by its path nor by a symbolic link."""
    (tmp_path / "secret.parquet").write_bytes(b"PAR1")
    folder = tmp_path / "plans"
    (folder / "sub").mkdir(parents=True)
    (folder / "link.parquet").symlink_to(tmp_path / "secret.parquet")
    devices = f'[devices]\nkind = "replay"\ndataset = "{outside}"\n'
    base = f'[train]\nbase = ["{outside}"]\n'
    for table in (devices, base):
        plan = folder / "plan.toml"
        plan.write_text(f'name = "p"\n{table}{PLAN}')
        line = refused(coordinator("plan", plan))
        assert outside in line
        assert "beneath" in line or "leads out" in line


@pytest.mark.parametrize("kernel", ["/etc/passwd", "../../etc/passwd.toml"])
def test_a_plan_names_no_kernel_outside(
    coordinator: Coordinator, tmp_path: Path, kernel: str, gpu: Device
) -> None:
    plan = tmp_path / "plan.toml"
    sweep = f'[[sweep]]\nfamily = "custom"\nkernel = "{kernel}"\nshapes = {{ sample = 4 }}\n'
    plan.write_text(f'name = "p"\n{sweep}')
    device = tmp_path / "gpu.json"
    device.write_text(gpu.to_json())
    line = refused(coordinator("plan", plan, "--device", device))
    assert kernel in line


@pytest.fixture
def filled(store: SampleStore, cpu_cells: list[Cell], cpu: Device, measure: Callable[..., Row]):  # type: ignore[no-untyped-def]
    """A store with rows in it."""
    from gemmcast.arrow import to_table

    store.append([to_table([measure(cell, cpu) for cell in cpu_cells[:5]])])
    return store


@pytest.mark.parametrize("name", ["../victim.parquet", "/VICTIM"])
def test_a_log_that_names_a_file_outside_moves_and_reads_nothing(
    filled: SampleStore, tmp_path: Path, name: str
) -> None:
    """A damaged data file is moved aside; one that the log names elsewhere must not be."""
    victim = tmp_path / "victim.parquet"
    victim.write_bytes(b"precious")
    log = tmp_path / "samples" / "_delta_log"
    newest = max(log.glob("*.json"))
    actions = [json.loads(line) for line in newest.read_text().splitlines()]
    for action in actions:
        if "add" in action:
            action["add"]["path"] = name.replace("/VICTIM", str(victim))
    actions = [action for action in actions if "commitInfo" not in action]
    newest.write_text("\n".join(json.dumps(action) for action in actions))
    with pytest.raises(InputError, match="names a file outside of it"):
        SampleStore.open(tmp_path / "samples", create=True)
    assert victim.read_bytes() == b"precious"


# Symbolic links


def test_a_symlinked_workspace_is_one_workspace(tmp_path: Path) -> None:
    """By either name it is locked, so no second writer comes in by the back door."""
    from gemmcast.errors import WorkspaceError

    real = tmp_path / "real"
    link = tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    with Workspace(real).locked(), pytest.raises(WorkspaceError), Workspace(link).locked():
        pass


@pytest.mark.parametrize("name", ["run.json", "nodes.json", "plan.json", "holder"])
def test_a_link_that_is_planted_in_a_workspace_is_replaced_not_followed(
    tmp_path: Path, name: str
) -> None:
    from coordinator.fleet.delivery import write_record

    victim = tmp_path / "victim"
    victim.write_text("precious")
    place = Workspace(tmp_path / "workspace")
    place.path.mkdir()
    (place.path / name).symlink_to(victim)
    with place.locked():
        if name != "holder":
            write_record(place.path / name, b"{}")
    assert victim.read_text() == "precious"
    assert not (place.path / name).is_symlink()
