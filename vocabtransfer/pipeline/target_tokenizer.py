"""The tokenizer of a build: given, trained, or made from the source's own by extending, swapping or optimising it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.text import Text
from vocabtransfer.languages import Language
from vocabtransfer.pipeline.new_tokens import number_of_new_tokens, read_new_tokens
from vocabtransfer.pipeline.request import BuildRequest
from vocabtransfer.pipeline.shapes import (
    ShapeChoice,
    ask_source,
    choose_shape,
    little_text_notes,
    replacing_saves_little,
)
from vocabtransfer.tokenization.extend import extend_tokenizer
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.tokenization.optimise import optimise_tokenizer
from vocabtransfer.tokenization.reshape import Reshaped
from vocabtransfer.tokenization.save import fixed_tokenizer_class
from vocabtransfer.tokenization.size import ModelSize, SizeChoice, choose_vocab_size
from vocabtransfer.tokenization.swap import swap_tokenizer
from vocabtransfer.tokenization.train import train_tokenizer, training_notes
from vocabtransfer.tokenization.write import read_kept
from vocabtransfer.transliteration.recipe import prepare_romanized
from vocabtransfer.transliteration.record import FILE_NAME as ROMANIZATION_FILE

SMALLEST_VOCABULARY, LARGEST_VOCABULARY = 2_000, 32_000


@dataclass(frozen=True)
class TargetTokenizer:
    """The target tokenizer, what a person should read, what is to lie beside the checkpoint, what was chosen and why.

    ``kept`` has the old id of every new id where the source's own vocabulary was reshaped, -1 for new tokens, int64
    (tokens,); None for a tokenizer that was trained or given.
    """

    tokenizer: PreTrainedTokenizerFast
    notes: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    sizes: SizeChoice | None = None
    choice: ShapeChoice | None = None
    kept: NDArray[np.int64] | None = None

    @property
    def source_knows(self) -> bool:
        """Whether the source was asked and knows the language, in a script that it does not spell in bytes."""
        known = self.choice.knowledge if self.choice is not None else None
        return known is not None and known.known and not known.spelled

    @property
    def in_place(self) -> bool:
        """Whether every kept token has the id that it had: a swapped vocabulary, or one extended into spare rows."""
        return self.kept is not None and bool(((self.kept == -1) | (self.kept == np.arange(len(self.kept)))).all())

    def facts(self) -> dict[str, Any] | None:
        """Return the shape, why it was taken, and how many tokens were kept and are new; None for a given tokenizer."""
        if self.choice is None:
            return None
        counts: dict[str, int | None] = {"kept": None, "new": None}
        if self.kept is not None:
            counts = {"kept": int((self.kept >= 0).sum()), "new": int((self.kept < 0).sum())}
        return {**self.choice.facts(), **counts}


def default_vocab_size(words: Mapping[str, float]) -> int:
    """Return a vocabulary size that the amount of text can fill with tokens that were seen often enough.

    25 times the root of the number of running words, in thousands: 4,000 for 27,000 words, 25,000 for a million.

    >>> default_vocab_size({"a": 27_000.0}), default_vocab_size({"a": 1e6}), default_vocab_size({"a": 1e9})
    (4000, 25000, 32000)
    """
    size = round(25 * sum(words.values()) ** 0.5, -3)
    return int(min(max(size, SMALLEST_VOCABULARY), LARGEST_VOCABULARY))


def make_tokenizer(
    request: BuildRequest,
    source: Checkpoint,
    language: Language,
    words: Mapping[str, float],
    text: Text | None,
    held_out: Sequence[str],
) -> TargetTokenizer:
    """Load the target tokenizer, with the ids it kept if it was made from the source's, or choose its shape and make it.

    Args:
        request: what was asked for.
        source: the source model.
        language: the target language.
        words: counts of its words.
        text: gives its running text, if there is any.
        held_out: lines that the untouched model is asked about.

    Raises:
        UsageError: options that exclude each other.
        VocabTransferError: there is nothing to make a tokenizer from.
    """
    check_shape_options(request)
    if request.tokenizer is not None:
        tokenizer = load_tokenizer(request.tokenizer)
        return TargetTokenizer(tokenizer, kept=_stored_kept(request.tokenizer, tokenizer, source))
    if not words:
        raise VocabTransferError(
            f"There is nothing to train a tokenizer for {language.name} on: give `text`, `parallel` or `tokenizer`."
        )
    choice = _choice(request, source, language, words, held_out)
    if choice.shape == "replace":
        found = _trained(request, source, language, words, _corpus(text, words))
        better = replacing_saves_little(choice, source, found.tokenizer, held_out)
        if better is None:
            notes = (*choice.notes, *little_text_notes(source, words), *found.notes)
            return dataclasses.replace(found, choice=choice, notes=notes)
        choice = better
    made, notes = _reshaped(request, source, words, text, choice, held_out)
    return TargetTokenizer(made.tokenizer, (*choice.notes, *notes, *made.notes), choice=choice, kept=made.kept)


def _corpus(text: Text | None, words: Mapping[str, float]) -> Iterable[str] | Mapping[str, int]:
    """Return what a tokenizer is trained on: running text, else words by their counts."""
    if text is not None:
        return text()
    return {word: round(count) for word, count in words.items() if round(count)}


def _stored_kept(path: Path, tokenizer: PreTrainedTokenizerFast, source: Checkpoint) -> NDArray[np.int64] | None:
    """Return which ids `vocabtransfer tokenizer` kept when it made a tokenizer, if it made it from this source's."""
    kept = read_kept(path) if path.is_dir() else None
    if kept is None:
        return None
    old = {i: text for text, i in source.tokenizer.get_vocab().items()}
    new = tokenizer.get_vocab()
    same = all(old.get(int(kept[i])) == text for text, i in new.items() if i < len(kept) and kept[i] >= 0)
    return kept if same and max(new.values()) < len(kept) else None


def check_shape_options(request: BuildRequest) -> None:
    """Raise `UsageError` for options that belong to other shapes of a vocabulary than the one asked for."""
    shape = request.vocabulary
    trained = request.vocab_size is not None or request.algorithm is not None or request.romanize
    if request.tokenizer is not None:
        if trained or request.new_tokens is not None or shape != "auto":
            raise UsageError(
                "`vocabulary`, `new_tokens`, `vocab_size`, `algorithm` and `romanize` make a tokenizer; leave them out "
                "with `tokenizer`."
            )
        return
    if request.new_tokens is not None:
        read_new_tokens(request.new_tokens)
        if trained or shape in ("replace", "optimise"):
            raise UsageError(
                "`new_tokens` is for the vocabularies extend and swap; a new or optimised one has a `vocab_size`."
            )
    if shape in ("extend", "swap") and trained:
        raise UsageError(f"`vocabulary='{shape}'` takes `new_tokens`, not `vocab_size`, `algorithm` or `romanize`.")
    if shape == "optimise" and (request.algorithm is not None or request.romanize or request.vocab_size == "auto"):
        raise UsageError("`vocabulary='optimise'` takes a number as `vocab_size`, and no `algorithm` or `romanize`.")


def _choice(
    request: BuildRequest,
    source: Checkpoint,
    language: Language,
    words: Mapping[str, float],
    held_out: Sequence[str],
) -> ShapeChoice:
    shape = request.vocabulary
    if shape == "auto" and request.new_tokens is not None:
        shape = "swap" if "quantization_config" in source.config else "extend"
    if shape == "auto" and request.as_head is not None:
        return ShapeChoice("replace", False, "A head of a Hydra has a vocabulary of its own.")
    if shape == "auto" and (request.vocab_size is not None or request.algorithm is not None or request.romanize):
        return ShapeChoice(
            "replace", False, "A size, an algorithm or a romanizer was asked for: a new vocabulary has one."
        )
    if shape in ("extend", "swap", "optimise"):
        return ShapeChoice(shape, False, "It was asked for.")
    if not source.continues_text:
        return ShapeChoice("replace", False, "The model only reads, so there is no untouched prediction to lose.")
    known = ask_source(source, held_out, words, request.seed)
    assert known is not None, "there are words"
    return choose_shape(shape, source, language, known)


def _reshaped(
    request: BuildRequest,
    source: Checkpoint,
    words: Mapping[str, float],
    text: Text | None,
    choice: ShapeChoice,
    held_out: Sequence[str],
) -> tuple[Reshaped, tuple[str, ...]]:
    # transformers reads the tokenizers of some model types (qwen2) with a class that insists on its own rules; engines
    # know the pre-tokenizer of a swapped vocabulary by its exact rules.
    free = choice.shape != "swap" and fixed_tokenizer_class(str(source.config.get("model_type", ""))) is None
    old, corpus = source.tokenizer, partial(_corpus, text, words)
    if choice.shape == "optimise":
        size = int(request.vocab_size or default_vocab_size(words))
        return optimise_tokenizer(old, corpus(), size=size, repair_marks=free), ()
    number, notes = number_of_new_tokens(
        request.new_tokens, old, words, corpus, held_out, repair_marks=free, seed=request.seed
    )
    reshape = extend_tokenizer if choice.shape == "extend" else swap_tokenizer
    return reshape(old, corpus(), new_tokens=number, repair_marks=free), notes


def _trained(
    request: BuildRequest,
    source: Checkpoint,
    language: Language,
    words: Mapping[str, float],
    corpus: Iterable[str] | Mapping[str, int],
) -> TargetTokenizer:
    fixed = fixed_tokenizer_class(str(source.config.get("model_type", "")))
    if fixed and request.algorithm is not None:
        raise UsageError(
            f"transformers reads every {source.config['model_type']} tokenizer as {fixed}, so leave out `algorithm`."
        )
    sizes: SizeChoice | None = None
    if request.vocab_size == "auto":
        corpus = corpus if isinstance(corpus, Mapping) else list(corpus)
        model = ModelSize.of(source)
        sizes = choose_vocab_size(
            corpus, like=source.tokenizer, model=model, algorithm=request.algorithm, repair_marks=fixed is None
        )
    size = sizes.size if sizes else int(request.vocab_size or default_vocab_size(words))
    files: dict[str, bytes] = {}
    if request.romanize:
        tokenizer, record = prepare_romanized(language, corpus, source.tokenizer, size, algorithm=request.algorithm)
        files[ROMANIZATION_FILE] = record.to_bytes()
    else:
        tokenizer = train_tokenizer(
            corpus, like=source.tokenizer, vocab_size=size, algorithm=request.algorithm, repair_marks=fixed is None
        )
    notes = (*(sizes.notes if sizes else ()), *training_notes(tokenizer))
    return TargetTokenizer(tokenizer, notes, files, sizes)
