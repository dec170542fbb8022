"""The messages of SentencePiece's model files, with whatever protobuf is installed.

sentencepiece's own module refuses a protobuf older than the one it was made with, also where pip lets both be installed
(0.2.3 wants 7.36); transformers carries the same messages for older ones.
"""

from importlib import import_module
from typing import Any


def new_model() -> Any:
    """Return an empty ``ModelProto``."""
    try:
        messages: Any = import_module("sentencepiece.sentencepiece_model_pb2")
    except Exception as problem:  # VersionError, which older versions of protobuf do not have
        if "protobuf" not in str(problem).lower():
            raise
        messages = import_module("transformers.utils.sentencepiece_model_pb2_new")
    return messages.ModelProto()
