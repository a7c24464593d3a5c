"""`python -m agent.kernels.cutlass`."""

from gemmcast.program import run_program

run_program("agent.kernels.cutlass.cli")
