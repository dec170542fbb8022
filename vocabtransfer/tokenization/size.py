"""How large a vocabulary should be: compression on unseen text against the parameters that the tokens cost.

A larger vocabulary needs fewer tokens for a text, and every token more parameters for all of them. What reading a text
costs follows tokens times parameters, so the vocabulary has grown enough where one more percent of the model's
parameters no longer takes one percent off the tokens. Larger models can afford larger vocabularies for the same reason
(Tao et al. 2024, arXiv 2407.13623).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.progress import step
from vocabtransfer.public import public, settle_fields
from vocabtransfer.tokenization.carry import BYTE_TOKENS
from vocabtransfer.tokenization.merge_learner import LONGEST_WORD, learn_more_merges
from vocabtransfer.tokenization.merges import MergeModel
from vocabtransfer.tokenization.ragged import IntArray
from vocabtransfer.tokenization.reshape import Shape
from vocabtransfer.tokenization.train import plan_training, repaired
from vocabtransfer.tokenization.train_bpe import (
    MAX_BYTES,
    MAX_CHARACTERS,
    byte_tokens,
    lent_byte_level,
    sentencepiece_alphabet,
)
from vocabtransfer.tokenization.train_corpus import Corpus, CorpusLike, alphabet, character_counts
from vocabtransfer.tokenization.train_kinds import Algorithm
from vocabtransfer.tokenization.train_wordpiece import MAX_ALPHABET, words_with_initials
from vocabtransfer.vocabulary import byte_alphabet


class _Sized(Protocol):
    """What a checkpoint says of its size."""

    @property
    def parameters(self) -> int: ...
    @property
    def layout(self) -> Any: ...
    @property
    def tensors(self) -> Mapping[str, Any]: ...


SMALLEST, LARGEST = 500, 131_072
HELD_OUT = 10  # every tenth word of the corpus is kept to measure on
_STEP = 2**0.25


@dataclass(frozen=True)
class ModelSize:
    """What a vocabulary costs in a model: its parameters apart from the vocabulary, and those for every token."""

    body_parameters: int
    parameters_per_token: int

    def __post_init__(self) -> None:
        settle_fields(self)

    @classmethod
    @public
    def of(cls, checkpoint: _Sized) -> "ModelSize":
        """Read both from an opened checkpoint; a tied table counts once."""
        layout = checkpoint.layout
        sizes = {tensor.name: int(np.prod(checkpoint.tensors[tensor.name].shape)) for tensor in layout.tensors}
        tables = {
            tensor.name if tensor.further else tensor.part: sizes[tensor.name]
            // checkpoint.tensors[tensor.name].shape[tensor.axis]
            for tensor in layout.tensors
        }
        return cls(checkpoint.parameters - sum(sizes.values()), sum(tables.values()))

    @public
    def parameters(self, size: int) -> int:
        """Return the parameters of the model with a vocabulary of that size."""
        return self.body_parameters + self.parameters_per_token * size


@dataclass(frozen=True)
class SizePoint:
    """One size on the curve.

    ``work`` is tokens times parameters, relative to the best size; ``saved`` and ``grown`` are the logarithms of how
    much the tokens shrank and the parameters grew since the size before (None for the first): growing pays while
    ``saved`` is more than ``grown``.
    """

    size: int
    parameters: int
    tokens_per_word: float
    work: float
    saved: float | None
    grown: float | None


@dataclass(frozen=True)
class SizeChoice:
    """The chosen size, the curve it was chosen from, and sentences a person should read."""

    size: int
    points: tuple[SizePoint, ...]
    notes: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return asdict(self)


@public
def choose_vocab_size(
    corpus: CorpusLike,
    *,
    like: PreTrainedTokenizerFast,
    model: ModelSize,
    sizes: Sequence[int] | None = None,
    algorithm: Algorithm | None = None,
    keep_reserved: bool = False,
    repair_marks: bool = True,
    min_count: int = 4,
) -> SizeChoice:
    """Choose the size of a vocabulary to be trained on ``corpus`` by `train_tokenizer` with the same arguments.

    One run of BPE on nine tenths of the words gives the tokens that the last tenth takes at every size, because a BPE
    vocabulary is the beginning of any larger one; Unigram and WordPiece are taken to shrink text alike. Chosen is the
    size with the least work, tokens times parameters: beyond it, one percent more parameters takes less than one
    percent off the tokens.

    Args:
        corpus: lines of text, streamed and read once, or a mapping from words to counts.
        like: the source tokenizer.
        model: what a token costs.
        sizes: the sizes to choose from; left out, steps of 19 percent up to 131,072 or what the corpus supports.
        algorithm: as for `train_tokenizer`.
        keep_reserved: as `train_tokenizer` takes it.
        repair_marks: as `train_tokenizer` takes it.
        min_count: sizes with tokens seen less often than this are out of the question: there would be nothing to make
            their rows from.

    Raises:
        UsageError: sizes that the special tokens and the alphabet alone exceed.
        VocabTransferError: the corpus is empty, not text, or too small to learn anything from.
    """
    text = Corpus(corpus)
    largest = max(sizes) if sizes else LARGEST
    kind, plan = plan_training(like, algorithm, largest, keep_reserved)
    if repair_marks:
        plan, _ = repaired(plan, text.sample)
    shape = Shape(like, kind, plan, ())
    with step("finding the vocabulary size"):
        ground = _ground(shape, shape.words(text), text.once)
        tokens = _tokens_by_merges(ground, kind, largest, min_count * text.once)
    fixed, supported = ground.fixed, ground.fixed + len(tokens) - 1
    if not ground.spoken or len(tokens) == 1:
        raise VocabTransferError("There is too little text to choose a vocabulary size from: name a size instead.")
    candidates = sorted(set(sizes)) if sizes else _default_sizes(fixed, supported)
    if candidates[0] < fixed:
        raise UsageError(
            f"A vocabulary of {candidates[0]:,} has no room for the special tokens and the alphabet: choose among sizes "
            f"of at least {fixed:,}."
        )
    lent = {size: len(lent_byte_level(replace(plan, size=size)).strings) if kind == "bpe" else 0 for size in candidates}
    merges = [min(max(0, size - fixed - lent[size]), len(tokens) - 1) for size in candidates]
    points = _curve(candidates, tokens[merges] / ground.spoken, model)
    best = min(points, key=lambda point: (point.work, point.size))
    notes: tuple[str, ...] = ()
    if best is points[-1]:
        limit = "that the corpus supports" if best.size == supported else "of those tried"
        notes = (f"{best.size:,} is the largest vocabulary {limit}; with more, a larger one may pay.",)
    return SizeChoice(best.size, points, notes)


@dataclass(frozen=True, eq=False)
class _Ground:
    """What the curve starts from: a vocabulary of single characters, and counted words in two parts, int64 (words,)."""

    base: MergeModel
    fixed: int  # entries that every vocabulary has
    words: list[str]
    learnt_from: IntArray
    measured_on: IntArray
    spoken: int  # measured words with a letter in them


def _ground(shape: Shape, counts: Mapping[str, int], once: int) -> _Ground:
    counts = {word: count for word, count in counts.items() if len(word) <= LONGEST_WORD}
    byte_ids, spelling = None, counts
    if shape.kind == "bpe":
        strings = sorted(byte_alphabet().values())
    elif shape.kind == "wordpiece":
        letters = alphabet(character_counts(counts), always=(), coverage=1.0, limit=MAX_ALPHABET)
        counts = {word: count for word, count in counts.items() if set(letters).issuperset(word)}
        spelling = words_with_initials(counts, letters)
        strings = sorted(set(letters).union(word[0] for word in spelling))
    else:
        spelled = byte_tokens(shape.plan)
        strings = [*spelled, *sentencepiece_alphabet(counts, shape.plan, spelled)]
        byte_ids = np.array([strings.index(token) for token in BYTE_TOKENS], np.int32) if spelled else None
    nothing = np.zeros(0, np.int32)
    base = MergeModel(tuple(strings), nothing, nothing, nothing, byte_ids, whole_words=False)
    learnt_from, measured_on = _split(np.fromiter(counts.values(), np.int64, len(counts)), once)
    spoken = int(measured_on[_with_letters(counts, shape.kind)].sum())
    fixed = len(strings) + len(shape.plan.specials)
    return _Ground(base, fixed, list(spelling), learnt_from, measured_on, spoken)


def _split(weights: IntArray, once: int) -> tuple[IntArray, IntArray]:
    """Part the counts of words, int64 (words,): every tenth running word goes to the second part."""
    turns = np.cumsum(weights) // (HELD_OUT * once)
    held = np.minimum(once * np.diff(turns, prepend=0), weights)
    return weights - held, held


def _with_letters(words: Iterable[str], kind: Algorithm) -> NDArray[np.bool_]:
    """Tell which stretches hold a letter; those of a byte-level vocabulary are spelled in its alphabet."""
    if kind == "bpe":
        table = {ord(char): byte for byte, char in byte_alphabet().items()}
        words = (word.translate(table).encode("latin-1", "ignore").decode("utf-8", "ignore") for word in words)
    return np.array([any(map(str.isalpha, word)) for word in words], np.bool_)


def _tokens_by_merges(ground: _Ground, kind: Algorithm, largest: int, least: int) -> IntArray:
    """Return the tokens that the measured words take with the first r learnt merges, int64 (merges + 1,)."""
    base = ground.base
    pieces = base.symbols(ground.words)
    if base.byte_ids is not None:
        pieces.ids[np.isin(pieces.ids, base.byte_ids)] = -1
    longest = MAX_BYTES if kind == "bpe" else MAX_CHARACTERS
    learnt = learn_more_merges(base.strings, pieces, ground.learnt_from, largest, longest=longest, least=least)
    return base.with_merges(learnt.tokens, learnt.merges).tokens_by_merges(ground.words, ground.measured_on)


def _default_sizes(fixed: int, supported: int) -> list[int]:
    sizes = {supported}
    size = float(SMALLEST)
    while size < min(supported, LARGEST):
        unit = 100 if size < 10_000 else 1_000
        sizes.add(unit * round(size / unit))
        size *= _STEP
    return sorted(size for size in sizes if fixed <= size <= supported)


def _curve(sizes: Sequence[int], tokens_per_word: NDArray[np.float64], model: ModelSize) -> tuple[SizePoint, ...]:
    parameters = np.array([model.parameters(size) for size in sizes], np.float64)
    work = tokens_per_word * parameters
    saved, grown = -np.diff(np.log(tokens_per_word)), np.diff(np.log(parameters))
    return tuple(
        SizePoint(
            size=size,
            parameters=model.parameters(size),
            tokens_per_word=float(tokens_per_word[i]),
            work=float(work[i] / work.min()),
            saved=float(saved[i - 1]) if i else None,
            grown=float(grown[i - 1]) if i else None,
        )
        for i, size in enumerate(sizes)
    )
