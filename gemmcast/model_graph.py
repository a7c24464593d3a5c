"""What the graph of a model file may hold, read from its bytes before ONNX Runtime opens them.

ONNX can name other files (external data), call functions, branch and loop. No model of gemmcast
does any of that: its graph is arithmetic on one query. So a file is refused that has an operator
beyond OPERATORS, a graph within its graph, data in another file, or that is absurdly large. Such a
file may still answer nonsense; who made it is what signatures and hashes tell.
Reads the few fields that matter of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, in the
wire format of https://protobuf.dev/programming-guides/encoding/. Knows nothing of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from gemmcast.errors import ModelFileError

LARGEST_FILE: Final = 128 * 2**20
"""A hundred times the model that comes with gemmcast. [bytes]"""
MOST_NODES: Final = 20_000
_ARITHMETIC: Final = """
Abs Add And Cast Ceil Clip Concat Constant Div Equal Exp Flatten Floor Gather Gemm Greater
GreaterOrEqual Identity Less LessOrEqual Log MatMul Max Mean Min Mod Mul Neg Not Or Pow Reciprocal
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Round Shape Sigmoid Sign Slice
Softmax Softplus Split Sqrt Squeeze Sub Sum Tanh Transpose Unsqueeze Where Xor
"""
ARITHMETIC: Final = frozenset(_ARITHMETIC.split())
TREES: Final = frozenset({"TreeEnsemble", "TreeEnsembleRegressor"})
OPERATORS: Final = {"": ARITHMETIC, "ai.onnx": ARITHMETIC, "ai.onnx.ml": TREES}
"""Domain -> operators. None of them branches, loops or reads a file."""
ANOTHER: Final = "it is not from gemmcast: name a file that it has exported"

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
# Fields of ModelProto, GraphProto, NodeProto, AttributeProto and TensorProto, by their number.
_GRAPH, _TRAINING, _FUNCTIONS = 7, 20, 25
_NODE, _INITIALIZER, _SPARSE_INITIALIZER = 1, 5, 15
_OPERATOR, _ATTRIBUTE, _DOMAIN = 4, 5, 7
_TENSOR, _TENSORS = 5, 10
_INNER = (6, 11, 22, 23)
"""Of an attribute: graphs and sparse tensors."""
_EXTERNAL, _LOCATION = 13, 14


class _Field(NamedTuple):
    """One field of a message."""

    number: int
    value: memoryview | int
    """Of a field with a length its bytes."""


def check_graph(data: bytes, source: str) -> None:
    """Refuse a model file that holds more than arithmetic.

    Args:
        source: the name of the file; for messages.

    Raises:
        ModelFileError: it does, or it is no ONNX file.
    """
    if len(data) > LARGEST_FILE:
        rule = f"has {len(data) // 2**20} MiB, a model up to {LARGEST_FILE // 2**20}"
        raise ModelFileError("model", source, rule, ANOTHER)
    try:
        reason = next(_forbidden(memoryview(data)), None)
    except (IndexError, ValueError, RecursionError):
        rule = "ONNX Runtime can't load it: it is no ONNX file"
        way_out = "it is damaged or cut short: fetch it again"
        raise ModelFileError("model", source, rule, way_out) from None
    if reason is not None:
        raise ModelFileError("model", source, f"{reason}, which no model has", ANOTHER)


def _forbidden(model: memoryview) -> Iterator[str]:
    nodes = 0
    for part in _fields(model):
        if part.number in (_TRAINING, _FUNCTIONS):
            yield "has functions of its own"
        if part.number != _GRAPH:
            continue
        for one in _fields(_message(part)):
            if one.number == _NODE:
                nodes += 1
                yield from _forbidden_in_node(_message(one))
            elif one.number == _INITIALIZER:
                yield from _forbidden_in_tensor(_message(one))
            elif one.number == _SPARSE_INITIALIZER:
                yield "has a sparse tensor"
    if nodes > MOST_NODES:
        yield f"has {nodes} operators"


def _forbidden_in_node(node: memoryview) -> Iterator[str]:
    operator = domain = ""
    for part in _fields(node):
        if part.number == _OPERATOR:
            operator = str(_message(part), "utf-8")
        elif part.number == _DOMAIN:
            domain = str(_message(part), "utf-8")
        elif part.number == _ATTRIBUTE:
            yield from _forbidden_in_attribute(_message(part))
    if operator not in OPERATORS.get(domain, ()):
        shown = f"{domain}.{operator}" if domain else operator
        yield f"has the operator {shown[:100]!r}"


def _forbidden_in_attribute(attribute: memoryview) -> Iterator[str]:
    for part in _fields(attribute):
        if part.number in _INNER:
            yield "has a graph within its graph"
        elif part.number in (_TENSOR, _TENSORS):
            yield from _forbidden_in_tensor(_message(part))


def _forbidden_in_tensor(tensor: memoryview) -> Iterator[str]:
    for part in _fields(tensor):
        is_elsewhere = part.number == _LOCATION and part.value != 0
        if part.number == _EXTERNAL or is_elsewhere:
            yield "takes data from another file"


def _message(field: _Field) -> memoryview:
    if isinstance(field.value, int):
        raise ValueError("a number in the place of a message")
    return field.value


def _fields(message: memoryview) -> Iterator[_Field]:
    """The fields of a message. Raises IndexError or ValueError where it is none."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == _VARINT:
            number, place = _varint(message, place)
            yield _Field(tag >> 3, number)
            continue
        if kind == _LENGTH:
            length, place = _varint(message, place)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("groups")
        if place + length > len(message):
            raise IndexError("cut short")
        yield _Field(tag >> 3, message[place : place + length])
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of up to 64 bits, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise ValueError("a number of more than 64 bits")
