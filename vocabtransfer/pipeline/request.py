"""What a build can be asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vocabtransfer.alignment.corpora import Columns
from vocabtransfer.alignment.dictionary import ENTRY_WEIGHT
from vocabtransfer.evaluation.against_source import HELD_OUT_BYTES
from vocabtransfer.files.text import TextFiles, read_text
from vocabtransfer.initialization.norms import Norm
from vocabtransfer.public import settle_fields
from vocabtransfer.reprs import asked
from vocabtransfer.tokenization.train import Algorithm


@dataclass(frozen=True)
class BuildRequest:
    """Everything a build can be asked for.

    Attributes:
        source: alias, hub id, folder or GGUF file of the source model.
        target: the target language, by any name or code.
        output: folder to write; without one the result is a head (``as_head`` and ``into``).
        as_head: write the new vocabulary as a head of this name instead of a checkpoint.
        into: the Hydra the head goes to; made from the source when there is none.
        parallel: parallel corpus files (source's best language, target language).
        text: text in the target language, for the tokenizer and the frequencies.
        alignment: word tables instead of a parallel corpus; the shipped one of the language when neither is given.
            Several, from any source languages the model knows (en-tt, ru-tt), are mixed.
        alignment_weights: how much each table's counts count; 1 each when not given.
        tokenizer: an existing target tokenizer instead of a trained one.
        vocabulary: "replace" (a new one), "extend" (new tokens behind the old ones), "swap" (unused tokens give their ids
            to new ones), "optimise" (trimmed, then extended, to ``vocab_size``), or "auto": what the untouched model
            makes of the language decides.
        preset: the name of a well-known adaptation (see `vocabtransfer.pipeline.presets`) that fills in shape, rows and
            number of tokens where nothing else is asked for.
        new_tokens: how many tokens an extended or swapped vocabulary gets; chosen from the amount of text when not given.
        vocab_size: size of the trained vocabulary; chosen from the amount of text when not given, and by what
            more tokens save against what their rows cost with "auto".
        romanize: put a romanizer in front of the trained tokenizer (arXiv 2304.08865); it is kept with the checkpoint.
        algorithm: kind of the trained tokenizer; the source's when not given.
        method: the initialiser.
        donor: another model, for methods that learn from one.
        source_vectors, target_vectors: fastText files for methods that otherwise train vectors.
        norm: bring new rows to the source's lengths: "none", "global" or "script".
        calibrate: match the new head to the language's token frequencies; what the method says when not given.
        columns: which columns or fields of parallel files to use, named or counted from 0.
        untie: give a model with one table for input and output a head of its own, so that a new token's two rows can
            differ; the second table takes as much memory as the first.
        link: how unchanged shards get into the output.
        pad_to_multiple_of: round the number of rows up to a multiple.
        overwrite: replace an output that vocabtransfer wrote.
        allow_pickle: accept ``.bin`` weights.
        merge_adapter: merge a PEFT adapter, beside the weights or in the folder given, into the source first.
        revision: hub revision of the source.
        distill: how long the new rows learn from the untouched source: updates ("400"), tokens ("200k") or a time
            ("20min"). Needs running text.
        seed: for everything random.
        source_language: the language of the other side of pairs and dictionaries; one that the source model knows.
        corpus: a folder that `fetch_corpus` wrote, in place of ``parallel``, ``text`` and ``dictionary``.
        fetch: get a corpus of the language first, from every source that answers; kept in the cache.
        dictionary: files of headword pairs (source, tab, target), counted beside the links of sentences.
        dictionary_weight: how many links in sentences an entry of a dictionary counts.
        held_out: text to score the result and the untouched source on; not trained on. Left out, some of what is given
            is set aside, or the text that ships for the language is taken.
        held_out_bytes: how much of it is scored; 0 for no scoring.
        device: where models run: "cpu" (the default, so that the same inputs give the same bytes on every machine), "cuda",
            "cuda:1", "mps", or "auto" for a GPU where there is one.
        dtype: "float32", "bfloat16" or "float16"; float32 on a CPU and the stored one elsewhere when not given.
        memory: bytes that a model may take; a larger one runs layer by layer. Half of what is free when not given.
        field: the field that holds the text, where text is in records (JSONL, CSV, Parquet ...).
    """

    source: str
    target: str
    output: Path | None = None
    as_head: str | None = None
    into: Path | None = None
    parallel: tuple[Path, ...] = ()
    text: TextFiles = ()
    alignment: tuple[Path, ...] = ()
    alignment_weights: tuple[float, ...] = ()
    tokenizer: Path | None = None
    vocabulary: Literal["replace", "extend", "swap", "optimise", "auto"] = "auto"
    preset: str | None = None
    new_tokens: int | None = None
    vocab_size: int | Literal["auto"] | None = None
    romanize: bool = False
    algorithm: Algorithm | None = None
    method: str = "auto"
    donor: str | None = None
    source_vectors: Path | None = None
    target_vectors: Path | None = None
    norm: Norm = "none"
    calibrate: bool | None = None
    columns: Columns | None = None
    untie: bool = False
    link: Literal["hard", "copy"] = "hard"
    pad_to_multiple_of: int = 1
    overwrite: bool = False
    allow_pickle: bool = False
    merge_adapter: bool = False
    revision: str | None = None
    distill: str | None = None
    seed: int = 0
    source_language: str = "en"
    corpus: Path | None = None
    fetch: bool = False
    dictionary: tuple[Path, ...] = ()
    dictionary_weight: float = ENTRY_WEIGHT
    held_out: tuple[Path, ...] = ()
    held_out_bytes: int = HELD_OUT_BYTES
    device: str | None = None
    dtype: str | None = None
    memory: int | None = None
    field: str | None = None

    def __repr__(self) -> str:
        return asked(self)

    def __post_init__(self) -> None:
        settle_fields(self)
        object.__setattr__(self, "text", read_text(self.text, field=self.field))
        for name in ("parallel", "alignment", "dictionary", "held_out"):  # paths however they were given
            object.__setattr__(self, name, read_text(getattr(self, name)).files)
        for name in ("output", "into", "tokenizer", "source_vectors", "target_vectors"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else Path(value))
