"""`python -m coordinator`."""

from gemmcast.program import run_program

run_program("coordinator.cli")
