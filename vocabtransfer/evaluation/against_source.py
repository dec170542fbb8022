"""A model beside the untouched one it was made from, on text that neither was made with.

A bit per byte says little alone: 2.2 is good where the source needs 3.1 and bad where it needs 1.0. So every figure of a
model with another vocabulary stands beside that of its source, on the same bytes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.evaluation.bits_per_byte import bits_per_byte
from vocabtransfer.progress import step
from vocabtransfer.running.load import cannot_run
from vocabtransfer.running.plan import cannot_fit, load_for_scoring
from vocabtransfer.running.swap_tables import with_tables

#: UTF-8 bytes that are scored unless told otherwise: half a minute of a CPU core for a model of 135 million parameters.
HELD_OUT_BYTES = 12_000
#: Tokens that this may be, for two models together.
SCORED_TOKENS = 8_000


@dataclass(frozen=True)
class HeldOutScore:
    """What one model makes of held-out text: bits for a byte, tokens for a word (words parted by white space)."""

    bits_per_byte: float
    tokens_per_word: float
    bytes: int
    words: int
    tokens: int
    lossy_documents: int = 0


@dataclass(frozen=True)
class AgainstSource:
    """The untouched model and the one made from it, on the same text."""

    source: HeldOutScore
    result: HeldOutScore

    @property
    def gain(self) -> float:
        """Bits per byte that the result saves; below zero where it needs more than its source."""
        return self.source.bits_per_byte - self.result.bits_per_byte

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence where the result is worse than the model it was made from; nothing where it is not."""
        if round(self.gain, 3) >= 0:
            return ()
        return (
            f"On held-out text the result is worse than the untouched model: {self.result.bits_per_byte:.3f} bits per byte "
            f"against {self.source.bits_per_byte:.3f}. The model knows this language better than its new rows do. Train "
            "them (`distill`, adapt), or stay with the untouched model.",
        )

    def facts(self) -> dict[str, Any]:
        """Return both scores and the gain as plain data, rounded so that any thread count prints alike."""
        sides = {"untouched": self.source, "result": self.result}
        rounded = {
            name: {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(score).items()}
            for name, score in sides.items()
        }
        return {**rounded, "gain": round(self.gain, 3)}


def score_held_out(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    documents: Sequence[str],
    *,
    max_bytes: int | None = HELD_OUT_BYTES,
) -> HeldOutScore:
    """Score the first ``max_bytes`` bytes of ``documents`` with a loaded causal model (its tables may be swapped in).

    Raises what `bits_per_byte` raises.
    """
    score = bits_per_byte(model, tokenizer, documents, max_bytes=max_bytes)
    return HeldOutScore(
        score.bits_per_byte, score.tokens_per_word, score.bytes, score.words, score.tokens, score.lossy_documents
    )


def score_checkpoint(
    checkpoint: Checkpoint,
    documents: Sequence[str],
    *,
    max_bytes: int | None = HELD_OUT_BYTES,
) -> HeldOutScore:
    """Load a checkpoint as it lies on the disk and score it as `score_held_out` does.

    A model that does not fit into the memory it may use runs layer by layer. Raises `VocabTransferError` when it is not
    causal, or cannot run here.
    """
    refusal = cannot_score(checkpoint, tokens=0)
    if refusal:
        raise VocabTransferError(refusal)
    with step(f"scoring {checkpoint.name} on held-out text"):
        model = load_for_scoring(checkpoint.path)
        return score_held_out(model, checkpoint.tokenizer, documents, max_bytes=max_bytes)


def score_against_source(
    source: Checkpoint,
    result: Checkpoint,
    documents: Sequence[str],
    *,
    max_bytes: int | None = HELD_OUT_BYTES,
) -> AgainstSource:
    """Score the untouched ``source`` and the ``result`` made from it, one after the other, on the same bytes.

    Only one model is in memory at a time. Raises what `score_checkpoint` raises.
    """
    before = score_checkpoint(source, documents, max_bytes=max_bytes)
    return AgainstSource(before, score_checkpoint(result, documents, max_bytes=max_bytes))


def cannot_score(checkpoint: Checkpoint, tokens: int = SCORED_TOKENS) -> str:
    """Return why a checkpoint is not scored here on so many tokens unasked, as a sentence; "" when it is."""
    if not checkpoint.continues_text:
        return f"{checkpoint.name} is no causal language model, so it has no bits per byte."
    if reason := cannot_run(checkpoint.config):
        return f"{checkpoint.name} was not scored: {reason}."
    if reason := cannot_fit(checkpoint, tokens):
        return f"{checkpoint.name} was not scored: {reason}. vocabtransfer evaluate does it."
    return ""


def cannot_score_tables(source: Checkpoint) -> str:
    """Return why a source cannot be scored with other tables in it, as a sentence; "" when it can."""
    odd = source.layout.odd_table
    if odd is not None:
        return (
            f"The result was not scored before it was written: {odd!r} depends on the vocabulary in a way of its own."
        )
    return cannot_score(source)


def score_new_tables(
    source: Checkpoint,
    tokenizer: PreTrainedTokenizerFast,
    tables: tuple[Tensor, Tensor | None, Tensor | None],
    documents: Sequence[str],
    *,
    max_bytes: int | None = HELD_OUT_BYTES,
) -> AgainstSource:
    """Score a source as it is and with other tables in it, before anything is written.

    ``tables`` are the input table ``(tokens, hidden)``, the output table of an untied model and the head's bias, as
    `TransferResult.table` gives them; ``tokenizer`` is theirs. Raises what `score_checkpoint` raises.
    """
    refusal = cannot_score_tables(source)
    if refusal:
        raise VocabTransferError(refusal)
    with step("scoring on held-out text"):
        model = load_for_scoring(source.path)
        before = score_held_out(model, source.tokenizer, documents, max_bytes=max_bytes)
        with with_tables(model, *tables):
            return AgainstSource(before, score_held_out(model, tokenizer, documents, max_bytes=max_bytes))
