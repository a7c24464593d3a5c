"""Language models as lists of GEMMs, from a Hugging Face config.json.

    config = read_config("Llama-3.1-8B/config.json")
    gemms_of(config, tokens=16, tp=2)

fields.py reads the file, architectures.py says which layers a model has, products.py and latent.py
what a layer multiplies, quantization.py in which dtype. Needs neither transformers nor weights.
"""

from gemmcast.language_models.architectures import ARCHITECTURES, MODEL_TYPES
from gemmcast.language_models.fields import read_config, whole_numbers
from gemmcast.language_models.model import LanguageModel, Step, gemms_of

__all__ = [
    "ARCHITECTURES",
    "MODEL_TYPES",
    "LanguageModel",
    "Step",
    "gemms_of",
    "read_config",
    "whole_numbers",
]
