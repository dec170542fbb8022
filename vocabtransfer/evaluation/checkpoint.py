"""Everything `vocabtransfer evaluate` reports about a checkpoint and some text files."""

from dataclasses import dataclass
from pathlib import Path

from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.evaluation.bits_per_byte import bits_per_byte
from vocabtransfer.evaluation.fertility import tokenizer_statistics
from vocabtransfer.evaluation.texts import limit_bytes
from vocabtransfer.files.text import TextFiles, read_text
from vocabtransfer.public import public
from vocabtransfer.running.plan import dtype_name, open_causal, plan_run


@dataclass(frozen=True)
class Evaluation:
    """What a checkpoint makes of text files; its fields are what `vocabtransfer evaluate --json` prints.

    The counts mean what they mean in `BitsPerByte`, the shares what they mean in `TokenizerStatistics`.
    """

    model: str
    files: list[str]
    device: str
    dtype: str
    bits_per_byte: float
    perplexity_per_token: float
    tokens_per_word: float
    characters_per_token: float
    bytes_per_token: float
    continued_word_share: float
    unknown_share: float
    documents: int
    lossy_documents: int
    bytes: int
    characters: int
    words: int
    tokens: int
    nats: float
    window: int
    stride: int
    seconds: float


@public
def evaluate(
    reference: str | Path,
    files: TextFiles,
    *,
    field: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    batch_tokens: int = 2048,
    max_bytes: int | None = None,
    device: str | None = None,
) -> Evaluation:
    """Open a checkpoint (hub id, folder, GGUF file, alias) and score the text of ``files``, one or many; see `read_text`.

    How files become documents is said at `Text.documents`; the other options are those of `bits_per_byte`. The model
    runs in float32 on a CPU and in its own precision on a GPU; ``device`` left out takes a GPU when there is one.
    `vocabtransfer.running.settings.running_with` says otherwise for all of it.

    Raises `VocabTransferError` when the checkpoint cannot be opened or is not causal, and for files that are missing,
    empty, binary or not UTF-8; `UsageError` for options that make no sense.
    """
    text = read_text(files, field=field)
    if not text:
        raise UsageError("Name at least one text file to evaluate on.")
    # Text before model: a bad file is told at once, not after minutes.
    if not any(limit_bytes(text.documents(), max_bytes)):
        raise VocabTransferError(f"{text}: there is no text to score.")
    checkpoint = open_checkpoint(reference)
    statistics = tokenizer_statistics(checkpoint.tokenizer, limit_bytes(text.documents(), max_bytes))
    plan = plan_run(checkpoint, device=device)
    model = open_causal(checkpoint, plan, statistics.tokens)
    score = bits_per_byte(
        model,
        checkpoint.tokenizer,
        text.documents(),
        window=window,
        stride=stride,
        batch_tokens=batch_tokens,
        max_bytes=max_bytes,
    )
    return Evaluation(
        model=checkpoint.name,
        files=[str(path) for path in text.files],
        device=plan.device,
        dtype=dtype_name(plan.dtype),
        bits_per_byte=score.bits_per_byte,
        perplexity_per_token=score.perplexity_per_token,
        tokens_per_word=statistics.tokens_per_word,
        characters_per_token=statistics.characters_per_token,
        bytes_per_token=statistics.bytes_per_token,
        continued_word_share=statistics.continued_word_share,
        unknown_share=statistics.unknown_share,
        documents=score.documents,
        lossy_documents=score.lossy_documents,
        bytes=score.bytes,
        characters=score.characters,
        words=score.words,
        tokens=score.tokens,
        nats=score.nats,
        window=score.window,
        stride=score.stride,
        seconds=score.seconds,
    )
