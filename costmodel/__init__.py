"""Samples in, ONNX file and card out. Imports gemmcast alone: no Ray, no registry, no workspace."""
