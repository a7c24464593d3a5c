"""Samples in, ONNX file and card out. Imports gemmcast alone: no Ray, no registry, no workspace."""

# First of all: it switches off the telemetry of ONNX Runtime, which other libraries import, too.
import gemmcast as gemmcast
