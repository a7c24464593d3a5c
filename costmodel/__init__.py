"""Samples in, ONNX file and card out. Imports gemmcast alone: no Ray, no registry, no workspace."""

import os

# First of all: it switches off the telemetry of ONNX Runtime, which other libraries import, too.
import gemmcast as gemmcast

# OpenMP reads it once, when scikit-learn is imported: its threads sleep while they wait for one
# another. Where others use the cores too, those that spin keep the very thread from its core that
# they wait for: trees that two threads of a busy host fit in 3 s took over a minute.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
