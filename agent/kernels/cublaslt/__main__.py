"""`python -m agent.kernels.cublaslt`."""

from gemmcast.program import run_program

run_program("agent.kernels.cublaslt.cli")
