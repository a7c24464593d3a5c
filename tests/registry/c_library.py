"""A model that was exported as C, built by a compiler and called through ctypes."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np

from gemmcast import query
from gemmcast.device import Device
from gemmcast.gemm import DTYPES
from gemmcast.modelfile import Answers
from gemmcast.query import Rows

FLAGS = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-O3", "-fno-trapping-math")
MEMBERS = ("value", "low", "high")


class CAnswer(ctypes.Structure):
    """gemmcast_answer."""

    _fields_ = [
        *((member, ctypes.c_float * len(query.OUTPUTS)) for member in MEMBERS),
        ("extrapolating", ctypes.c_int),
    ]


class CDevice(ctypes.Structure):
    """gemmcast_device."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("is_cpu", ctypes.c_int),
        ("compute_units", ctypes.c_double),
        ("peak_tflops", ctypes.c_double * len(DTYPES)),
        ("dram_gbps", ctypes.c_double),
        ("l2_bytes", ctypes.c_double),
        ("clock_max_mhz", ctypes.c_double),
        ("empty_kernel_us", ctypes.c_double),
        ("power_limit_w", ctypes.c_double),
        ("idle_power_w", ctypes.c_double),
        ("l2_gbps", ctypes.c_double),
    ]

    @staticmethod
    def of(device: Device) -> CDevice:
        """As the exporter writes it."""
        peaks = [device.peak_tflops.get(dtype, 0.0) for dtype in DTYPES]
        described = CDevice(name=device.name.encode(), is_cpu=device.kind == "cpu")
        described.peak_tflops = type(described.peak_tflops)(*peaks)
        for name, _ in CDevice._fields_:
            if name not in ("name", "is_cpu", "peak_tflops"):
                setattr(described, name, float(getattr(device, name) or 0.0))
        return described


class CModel:
    """Functions of the header on rows of NumPy.

    Args:
        source: the .c file.
        compiler: such as gcc.
    """

    def __init__(self, source: Path, compiler: str) -> None:
        library = source.with_suffix(f".{compiler}.so")
        command = [compiler, *FLAGS, "-shared", "-fPIC", str(source), "-o", str(library), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        self._library = ctypes.CDLL(str(library))
        self._library.gemmcast_status_text.restype = ctypes.c_char_p
        self._library.gemmcast_predict_many.argtypes = [
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_void_p,
        ]

    def devices(self, count: int) -> list[CDevice]:
        """The devices of the file."""
        return list((CDevice * count).in_dll(self._library, "gemmcast_devices"))

    def check(self, row: Rows) -> int:
        """A gemmcast_status."""
        return int(self._library.gemmcast_check(_pointer(row)))

    def status_text(self, status: int) -> str:
        """A status in words."""
        text: bytes = self._library.gemmcast_status_text(status)
        return text.decode()

    def completed(self, row: Rows, device: Device) -> tuple[int, Rows]:
        """A gemmcast_status, and the row with what was unknown."""
        filled = row.copy()
        described = CDevice.of(device)
        status = self._library.gemmcast_complete(_pointer(filled), ctypes.byref(described))
        return int(status), filled

    def predict_one(self, row: Rows) -> tuple[int, CAnswer]:
        """A gemmcast_status, and the answer, whose numbers are -1 before."""
        answer = CAnswer()
        ctypes.memset(ctypes.byref(answer), 0xFF, ctypes.sizeof(answer))
        status = self._library.gemmcast_predict(_pointer(row), ctypes.byref(answer))
        return int(status), answer

    def predict(self, rows: Rows, outputs: list[str]) -> Answers:
        """What `Predictor.predict_rows` gives, of a model with these outputs."""
        rows = np.ascontiguousarray(rows)
        answers = (CAnswer * len(rows))()
        status = self._library.gemmcast_predict_many(rows.ctypes.data, len(rows), answers)
        assert status == 0, self.status_text(status)
        kind = [(member, "f4", len(query.OUTPUTS)) for member in MEMBERS]
        table = np.frombuffer(answers, dtype=[*kind, ("extrapolating", "i4")])
        places = [query.OUTPUTS.index(name) for name in outputs]
        values = {name: table["value"][:, query.OUTPUTS.index(name)] for name in outputs}
        ends = {name: table[name][:, places] for name in query.INTERVALS}
        return {**values, **ends, query.EXTRAPOLATING: table["extrapolating"] == 1}


def _pointer(row: Rows) -> ctypes.c_void_p:
    return ctypes.c_void_p(row.ctypes.data)
