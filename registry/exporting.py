"""A model as files for embedders: the .onnx file or C, each with test vectors beside it.

    export champion model.onnx               model.onnx, model.vectors.json
    export champion model.c --format c       model.c, model.h, model.vectors.json

All of it is made before the first file is written, and the file that was named is written last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gemmcast.errors import InputError, ModelFileError
from gemmcast.modeldir import write_atomically
from registry.c_export.source import c_text
from registry.vectors import vectors

FORMATS: Final = ("onnx", "c")
VECTORS: Final = ".vectors.json"


def export_files(model: bytes, path: Path, kind: str, source: str) -> list[Path]:
    """Write a model. Returns the files: the named one first.

    A .onnx file of a contract that is not served has no vectors: nothing here can run it.

    Args:
        model: the bytes of the model file.
        path: the file to write; of C with the ending `.c`.
        kind: one of FORMATS.
        source: which model, for messages.

    Raises:
        InputError: an unknown format, a name that C files can't have, a place that can't be
            written, or a model that is not written as C.
    """
    if kind not in FORMATS:
        raise InputError("--format", kind, "unknown format", f"use one of {', '.join(FORMATS)}")
    files = _onnx(model, path, source) if kind == "onnx" else _c(model, path, source)
    for target in files:
        if target.is_dir():
            raise InputError("path", str(target), "is a directory", "name a file in it")
    for target, data in reversed(files.items()):
        try:
            write_atomically(target, data)
        except OSError as error:
            rule = f"can't be written ({error.strerror})"
            way_out = "name a file in a directory that you may write"
            raise InputError("path", str(target), rule, way_out) from None
    return list(files)


def _onnx(model: bytes, path: Path, source: str) -> dict[Path, bytes]:
    if path.suffix == ".c":
        rule = "ends with .c, and the format is onnx"
        raise InputError("FILE", str(path), rule, "add --format c")
    try:
        answers = vectors(model, source)
    except ModelFileError:
        return {path: model}
    return {path: model, path.with_suffix(VECTORS): answers.encode()}


def _c(model: bytes, path: Path, source: str) -> dict[Path, bytes]:
    if path.suffix != ".c":
        raise InputError("FILE", str(path), "C needs a name that ends with .c", "name model.c")
    header = path.with_suffix(".h")
    text = c_text(model, header.name, source)
    return {
        path: text.source.encode(),
        header: text.header.encode(),
        path.with_suffix(VECTORS): vectors(model, source).encode(),
    }
