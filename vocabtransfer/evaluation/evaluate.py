"""Everything `vocabtransfer evaluate` reports about a checkpoint and some text files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.evaluation.bits_per_byte import BitsPerByte, bits_per_byte
from vocabtransfer.evaluation.fertility import TokenizerStatistics, tokenizer_statistics
from vocabtransfer.evaluation.texts import limit_bytes, read_documents
from vocabtransfer.progress import step


@dataclass(frozen=True)
class Evaluation:
    """Bits per byte of a checkpoint on text files, with what its tokenizer makes of them."""

    model: str
    files: tuple[str, ...]
    device: str
    score: BitsPerByte
    statistics: TokenizerStatistics

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, ready for JSON."""
        score, statistics = self.score, self.statistics
        return {
            "model": self.model,
            "files": list(self.files),
            "device": self.device,
            "bits_per_byte": score.bits_per_byte,
            "nats": score.nats,
            "documents": score.documents,
            "bytes": score.bytes,
            "words": score.words,
            "tokens": score.tokens,
            "perplexity_per_token": score.perplexity_per_token,
            "tokens_per_word": score.tokens_per_word,
            "characters_per_token": score.characters_per_token,
            "bytes_per_token": score.bytes / score.tokens,
            "continued_word_share": statistics.continued_word_share,
            "unknown_share": statistics.unknown_share,
            "lossy_documents": score.lossy_documents,
            "window": score.window,
            "stride": score.stride,
            "seconds": score.seconds,
        }


def evaluate_checkpoint(
    reference: str | Path,
    files: Sequence[str | Path],
    *,
    window: int | None = None,
    stride: int | None = None,
    batch_tokens: int = 2048,
    max_bytes: int | None = None,
    device: str | None = None,
) -> Evaluation:
    """Open a checkpoint (hub id, folder, GGUF file, alias) and score the text of ``files``, plain or compressed.

    How files become documents is said at `read_documents`; the other options are those of `bits_per_byte`. The model
    runs in float32 on a CPU and in its own precision on a GPU; ``device`` left out takes a GPU when there is one.

    Raises `VocabTransferError` when the checkpoint cannot be opened or is not causal, and for files that are missing,
    empty, binary or not UTF-8; `UsageError` for options that make no sense.
    """
    if not files:
        raise UsageError("Name at least one text file to evaluate on.")
    paths = [Path(file) for file in files]
    # The text is read before the model is: a bad file is told at once, not after minutes.
    statistics_text = limit_bytes(read_documents(paths), max_bytes)
    if not any(document.strip() for document in statistics_text):
        raise VocabTransferError(f"{', '.join(map(str, paths))}: there is no text to score.")
    checkpoint = open_checkpoint(reference)
    statistics = tokenizer_statistics(checkpoint.tokenizer, limit_bytes(read_documents(paths), max_bytes))
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with step("Loading the model"):
        model = load_causal_model(checkpoint.path, place)
    score = bits_per_byte(
        model,
        checkpoint.tokenizer,
        read_documents(paths),
        window=window,
        stride=stride,
        batch_tokens=batch_tokens,
        max_bytes=max_bytes,
    )
    return Evaluation(checkpoint.name, tuple(map(str, paths)), place, score, statistics)


def load_causal_model(folder: Path, device: str = "cpu") -> PreTrainedModel:
    """Load a checkpoint folder for scoring: float32 on a CPU, its own precision elsewhere. Nothing is downloaded.

    Raises `VocabTransferError` when transformers has no causal model for it, and for a device that is not there.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32 if device == "cpu" else "auto", local_files_only=True
        )
        return model.to(device).eval()  # type: ignore[no-any-return]
    except (ValueError, OSError, RuntimeError, AssertionError) as problem:
        reason = str(problem).strip().splitlines()[0].rstrip(".:") if str(problem).strip() else type(problem).__name__
        raise VocabTransferError(f"{folder} does not open as a causal model on {device} ({reason}).") from None
