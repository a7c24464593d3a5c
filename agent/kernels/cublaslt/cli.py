"""`python -m agent.kernels.cublaslt M N K NAME...`: the knobs that cuBLASLt's names mean here.

A model reads knobs, not names, and a name means another algorithm for each problem, device and
version of the library. Prints a JSON list, which `gemmcast rank --configs-file` reads. Nothing is
launched. Bad input ends with one line and exit code 2, no library or no such algorithm with 1.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from agent.kernels.cublaslt import FAMILY, CublasLt
from agent.kernels.cublaslt.candidates import KERNEL_NAMES
from agent.kernels.cublaslt.matrices import MATMUL_TYPES
from gemmcast.cli_parser import Parser
from gemmcast.config import KernelConfig
from gemmcast.errors import InputError
from gemmcast.gemm import LAYOUTS, Gemm
from gemmcast.kernel_names import library_name
from gemmcast.program import run_command


def main(argv: Sequence[str] | None = None, family: CublasLt = FAMILY) -> int:
    """Run the command. Returns the exit code."""
    return run_command(lambda: _resolve(argv, family))


def _resolve(argv: Sequence[str] | None, family: CublasLt) -> None:
    """Print what the names of one problem resolve to."""
    args = _parse(argv)
    gemm = Gemm(
        m=args.m, n=args.n, k=args.k, batch=args.batch, dtype=args.dtype, layout=args.layout
    )
    configs = [family.resolve(gemm, _named(name)) for name in args.names]
    print(json.dumps([asdict(config) for config in configs]))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m agent.kernels.cublaslt",
        description="Print the configurations that cuBLASLt's names mean for one problem, as JSON.",
    )
    for size in ("m", "n", "k"):
        parser.add_argument(size, type=int)
    parser.add_argument("names", nargs="+", metavar="NAME", help=KERNEL_NAMES)
    parser.add_argument("--batch", type=int, default=1, help="[1]")
    dtypes = ", ".join(MATMUL_TYPES)
    parser.add_argument(
        "--dtype", choices=tuple(MATMUL_TYPES), default="fp32", help=f"{dtypes} [fp32]"
    )
    parser.add_argument("--layout", choices=LAYOUTS, default="nn", help="[nn]")
    return parser.parse_args(argv)


def _named(name: str) -> KernelConfig:
    if library_name(name) is None:
        raise InputError("NAME", name, "no name of cublaslt", f"use {KERNEL_NAMES}")
    return KernelConfig(family="cublaslt", kernel=name)
