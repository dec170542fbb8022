"""Checkpoints in the formats of engines that do not read safetensors folders."""

from vocabtransfer.export.gguf import GgufReport, export_gguf
from vocabtransfer.export.hydra_gguf import export_hydra_gguf
from vocabtransfer.export.ollama import OllamaReport, export_ollama
from vocabtransfer.export.sentence_transformers import SentenceReport, export_sentence_transformers

__all__ = [
    "GgufReport",
    "OllamaReport",
    "SentenceReport",
    "export_gguf",
    "export_hydra_gguf",
    "export_ollama",
    "export_sentence_transformers",
]
