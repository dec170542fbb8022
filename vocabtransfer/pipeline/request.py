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
    """Everything a build can be asked for. The first sentence on a field is the help of its option.

    Attributes:
        source: alias (smollm2, llama3 ...), hub id, folder or GGUF file of the source model.
        target: the target language: name, ISO code, BCP 47 tag or endonym.
        output: folder to write. Without one the result is a head (``as_head`` and ``into``).
        as_head: write the new vocabulary as a head of this name instead of a checkpoint.
        into: the Hydra that ``as_head`` goes into; made from the source when there is none.
        parallel: a parallel corpus (source's best language, target language).
        text: text in the target language, for the tokenizer and the frequencies.
        alignment: an alignment table instead of a parallel corpus. Several, from any source languages the model knows
            (en-tt, ru-tt), are mixed; the shipped one of the language is taken when neither is given.
        alignment_weights: how much each table's counts count [default: 1].
        tokenizer: an existing target tokenizer instead of a trained one.
        vocabulary: shape of the new vocabulary: replace, extend (new tokens behind the old ones), swap (new tokens in the
            places of unused ones), optimise (trimmed, then extended, to ``vocab_size``), or auto: what the untouched model
            makes of the language decides.
        preset: a well-known adaptation (eeve, ruadapt, tpro, bielik, lapa ...) that fills in shape, rows and number of
            tokens where nothing else is asked for. See `vocabtransfer.pipeline.presets`.
        new_tokens: tokens that an extended or swapped vocabulary gets, or 20%: as few as save so much of the held-out
            text's tokens [default: by the amount of text].
        vocab_size: size of the trained vocabulary, or auto: by what more tokens save against what their rows cost
            [default: by the amount of text].
        romanize: put a romanizer in front of the trained tokenizer. It is kept with the checkpoint (arXiv 2304.08865).
        algorithm: kind of the trained tokenizer: bpe, sentencepiece, unigram or wordpiece [default: the source's].
        method: the initialiser: auto, or one of those in docs/methods.md.
        donor: another model, for methods that learn from one: omp, clp, sava, salt.
        source_vectors: vectors of the source language (fastText), for methods that otherwise train them.
        target_vectors: vectors of the target language (fastText), for methods that otherwise train them.
        norm: bring new rows to the source's lengths: none, global or script.
        calibrate: match the new head to the language's token frequencies [default: what the method says].
        columns: which columns or fields of parallel files to use, named or counted from 0.
        untie: give a model with one table for input and output a head of its own: better rows, more memory. The second
            table takes as much memory as the first.
        link: how unchanged shards get into the output: hard (links) or copy.
        pad_to_multiple_of: round the number of rows up to a multiple.
        overwrite: replace an output that vocabtransfer wrote.
        allow_pickle: accept .bin weights (they can run code; they are read as plain tensors).
        merge_adapter: merge a PEFT adapter, beside the weights or in the folder given, into the source first.
        revision: hub revision of the source.
        distill: let the new rows learn from the untouched source: 400 (updates), 200k (tokens) or 20min. Needs running
            text.
        seed: for everything random.
        source_language: the language of the other side of pairs and dictionaries; one that the source model knows.
        corpus: a folder that `corpus fetch` wrote, in place of ``parallel``, ``text`` and ``dictionary``.
        fetch: get a corpus of the language first, from every source that answers; kept in the cache.
        dictionary: files of headword pairs (source, tab, target), counted beside the links of sentences.
        dictionary_weight: links in sentences that an entry of a dictionary counts.
        held_out: text to score the result and the untouched source on; not trained on [default: set aside from what is
            given, or what ships for the language].
        held_out_bytes: how much of it is scored; 0 for no scoring.
        device: where models run: cpu, cuda, cuda:1, mps, or auto for a GPU where there is one [default: cpu]. On the CPU
            the same inputs give the same bytes on every machine.
        dtype: float32, bfloat16 or float16 [default: float32 on a CPU, as stored elsewhere].
        memory: bytes that a model may take; a larger one runs layer by layer [default: half of what is free].
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
    new_tokens: int | str | None = None
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
