"""CUTLASS kernels as text: which there are, what they are called, what their knobs are."""
