"""Checkpoints in the formats of engines that do not read safetensors folders."""

from vocabtransfer.export.gguf import GgufReport, export_gguf

__all__ = ["GgufReport", "export_gguf"]
