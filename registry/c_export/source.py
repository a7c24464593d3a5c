"""A model file as the text of a C source and its header.

The weights, the graph and the devices come from the file, the codes and fields from the contract;
all else stands in the templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Template
from typing import Final, NamedTuple

from gemmcast import query
from gemmcast.device import Device
from gemmcast.errors import ModelFileError
from gemmcast.gemm import DTYPES, MAX_DIM
from gemmcast.modeldir import sha256
from gemmcast.modelfile import LoadedModel
from registry.c_export import header, literals
from registry.c_export.evaluation import TEMPLATES, evaluation
from registry.c_export.graph import Graph, read_graph

_BYTES: Final = 4
"""Of one number of the graph, at most."""
_VALUES: Final = {"value": "out.{name}[0]", "low": "out.low[{place}]", "high": "out.high[{place}]"}


class CText(NamedTuple):
    """A model as C."""

    source: str
    header: str


def c_text(model: bytes, name: str, version: str) -> CText:
    """The two files.

    Args:
        model: the bytes of the file.
        name: of the header, with its ending.
        version: what it is, for messages.

    Raises:
        ModelFileError: a damaged file, or one of an earlier contract.
        InputError: a model with an operator that is not written as C.
    """
    loaded = LoadedModel(model, version, sha256(model)[:12])
    if loaded.contract != query.CONTRACT:
        rule = f"is of contract {loaded.contract}, C is written of contract {query.CONTRACT}"
        raise ModelFileError("model", version, rule, "train and publish the model again")
    graph = read_graph(model)
    words = {
        **_of_contract(),
        **_of_file(loaded, model, name),
        **_of_graph(graph, loaded.outputs),
    }
    texts = [(TEMPLATES / file).read_text("utf-8") for file in ("model.c", "model.h")]
    return CText(*(Template(text).substitute(words) for text in texts))


def _of_contract() -> Mapping[str, object]:
    return {
        "contract": query.CONTRACT,
        "field_count": len(query.FIELDS),
        "max_dim": MAX_DIM,
        "enums": header.enums(),
        "fields": header.fields(),
        "dtype_count": len(DTYPES),
        "family_count": len(query.FAMILY_CODES),
        "in_bytes": ", ".join(str(stored.in_bytes) for stored in DTYPES.values()),
        "out_bytes": ", ".join(str(stored.out_bytes) for stored in DTYPES.values()),
        "empty_kernel_us": query.EMPTY_KERNEL_US,
        "l2_over_dram": query.L2_OVER_DRAM,
    }


def _of_file(loaded: LoadedModel, model: bytes, name: str) -> Mapping[str, object]:
    return {
        "sha256": sha256(model),
        "created_at": loaded.metadata["created_at"],
        "version": literals.text(loaded.version),
        "header": name,
        "source": name.removesuffix(".h") + ".c",
        "device_count": len(loaded.devices),
        "devices": ",\n".join(_device(device) for device in loaded.devices),
    }


def _of_graph(graph: Graph, outputs: Sequence[str]) -> Mapping[str, object]:
    written = evaluation(graph)
    members: list[str] = []
    for name in graph.outputs:
        kind = literals.C_TYPES[graph.types[name].dtype.name]
        members.append(f"    {kind} {name}[{graph.types[name].size}];")
    size = sum(graph.types[name].size for node in graph.nodes for name in node.outputs)
    return {
        "constants": written.constants,
        "helpers": written.helpers,
        "body": written.body,
        "outputs": "\n".join(members),
        "answers": "\n".join(_answers(outputs)),
        "stack_kib": 8 * (1 + size * _BYTES // 2**13),
    }


def _answers(outputs: Sequence[str]) -> list[str]:
    """Every member of an answer from the graph's outputs; NaN where it has none."""
    lines: list[str] = []
    for member, expression in _VALUES.items():
        for name in query.OUTPUTS:
            value = "NAN"
            if name in outputs:
                value = expression.format(name=name, place=outputs.index(name))
            lines.append(f"    answer->{member}.{name} = {value};")
    return lines


def _device(device: Device) -> str:
    peaks = ", ".join(str(float(device.peak_tflops.get(dtype, 0.0))) for dtype in DTYPES)
    numbers = [
        device.dram_gbps,
        device.l2_bytes,
        device.clock_max_mhz,
        device.empty_kernel_us,
        device.power_limit_w,
        device.idle_power_w,
        device.l2_gbps,
    ]
    others = ", ".join(str(float(number or 0.0)) for number in numbers)
    is_cpu = int(device.kind == "cpu")
    name = literals.text(device.name)
    return f"    {{{name}, {is_cpu}, {float(device.compute_units)}, {{{peaks}}}, {others}}}"
