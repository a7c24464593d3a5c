"""`python -m agent.kernels.triton`."""

from gemmcast.program import run_program

run_program("agent.kernels.triton.cli")
