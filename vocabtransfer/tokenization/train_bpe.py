"""Byte-level and SentencePiece-style BPE: learn merges, then lay out a vocabulary around what the source had."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer, models, trainers

from vocabtransfer.tokenization.carry import (
    BYTE_TOKENS,
    adds_boundary,
    bare_tokenizer,
    longest_digit_stretch,
    vocabulary_strings,
)
from vocabtransfer.tokenization.train_corpus import (
    Corpus,
    alphabet,
    character_counts,
    feeding_pre_tokenizer,
    repeated,
    scaled_counts,
    within_alphabet,
)
from vocabtransfer.tokenization.train_kinds import Plan
from vocabtransfer.vocabulary import byte_alphabet

Merge = tuple[str, str]

# Nobody needs a token of 70 hyphens; the longest words of agglutinative languages stay below these.
MAX_BYTES = 64
MAX_CHARACTERS = 24
MAX_WHITESPACE_RUN = 8
ALWAYS = (*(chr(code) for code in range(0x21, 0x7F)), "▁")
# From this size on, a source with digit groups of three lends all its groups; below, they would crowd out words.
SIZE_FOR_DIGIT_GROUPS = 16_000


@dataclass
class MergeTable:
    """A BPE vocabulary under construction: strings in id order and merges in rank order."""

    strings: list[str]
    banned: frozenset[str]
    merges: list[Merge] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._known = set(self.strings)
        self._pairs: set[Merge] = set()

    def __len__(self) -> int:
        return len(self.strings)

    def __contains__(self, text: str) -> bool:
        return text in self._known

    def add(self, merges: Iterable[Merge], size: int) -> None:
        """Append merges whose parts exist, while the vocabulary has at most ``size`` strings; never a banned string."""
        for pair in merges:
            text = pair[0] + pair[1]
            if pair in self._pairs or pair[0] not in self._known or pair[1] not in self._known or text in self.banned:
                continue
            if text not in self._known:
                if len(self.strings) >= size:
                    return
                self._known.add(text)
                self.strings.append(text)
            self._pairs.add(pair)
            self.merges.append(pair)

    def add_strings(self, strings: Iterable[str], size: int) -> None:
        """Append strings (whose merges follow) while there is room."""
        for text in strings:
            if text not in self._known and text not in self.banned and len(self.strings) < size:
                self._known.add(text)
                self.strings.append(text)


def train_byte_level(corpus: Corpus, plan: Plan) -> dict[str, Any]:
    """Return the ``model`` section of a byte-level BPE tokenizer.

    Order: leading specials, the 256 bytes in the source's order, learnt tokens, then whitespace runs (up to 8) and,
    from 16,000 entries on, the digit groups that the source has and the corpus did not teach.

    Raises:
        UsageError: no room for the specials and the 256 bytes.
    """
    byte_characters = set(byte_alphabet().values())
    in_order = [text for text in vocabulary_strings(plan.lender) if text in byte_characters]
    training = with_digits_apart(plan)
    letters = sorted(byte_characters)
    table = _table(plan, list(dict.fromkeys([*in_order, *letters])), "256 bytes")
    wanted = plan.size - len(table)
    if corpus.words is None:
        merges = _learn(bare_tokenizer(training), corpus.batches(cut=True), letters, wanted, MAX_BYTES)
    else:
        merges = learn_merges(corpus.pretokens(training, space=" "), letters, wanted, MAX_BYTES, corpus.once)
    lent = lent_byte_level(plan)
    # Learnt merges keep their ranks; what the source lends comes after them and so changes no learnt word.
    table.add(merges, plan.size - min(lent.new_strings(table), wanted // 2))
    lent.add_to(table, plan.size)
    table.add(merges, plan.size)
    return _bpe_model(plan, table)


def with_digits_apart(plan: Plan) -> Mapping[str, Any]:
    """Return the document to train with: one that sets digits apart where the source has them single without saying so.

    A vocabulary without a token of two digits needs no rule in its pre-tokenizer, but a new one would learn "2024".
    """
    if plan.digits != 1 or longest_digit_stretch(plan.document) == 1:
        return plan.document
    source = plan.document["pre_tokenizer"]
    if source["type"] == "ByteLevel":
        source = {**source, "add_prefix_space": False}  # or every digit would get its own space
    digits = {"type": "Digits", "individual_digits": True}
    return {**plan.document, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, source]}}


def train_sentencepiece(corpus: Corpus, plan: Plan) -> dict[str, Any]:
    """Return the ``model`` section of a SentencePiece-style BPE tokenizer.

    Order: leading specials, the byte tokens, single characters by code point, learnt tokens and lent whitespace runs.
    Characters outside the alphabet (99.95 % of the corpus, always printable ASCII) fall back to bytes.

    Raises:
        UsageError: no room for the specials, the byte tokens and printable ASCII.
    """
    counts = sentencepiece_counts(corpus, plan)
    base = byte_tokens(plan)
    required = [*base, *ALWAYS]
    plan.check_room([*(special.content for special in plan.specials.leading), *required], "bytes and printable ASCII")
    letters = sentencepiece_alphabet(counts, plan, base)
    table = _table(plan, [*base, *letters], "bytes and characters")
    merges = learn_merges(
        within_alphabet(counts, letters), letters, plan.size - len(table), MAX_CHARACTERS, corpus.once
    )
    lent = _lent_whitespace(plan.lender, "▁\n\t\r", plan.specials.contents)
    if lent.first:
        lent.add_to(table, plan.size)
    table.add(merges, plan.size - min(lent.new_strings(table), (plan.size - len(table)) // 2))
    lent.add_to(table, plan.size)
    table.add(merges, plan.size)
    return _bpe_model(plan, table)


def learn_merges(
    counts: Mapping[str, int], letters: Sequence[str], new_tokens: int, max_length: int, once: int
) -> list[Merge]:
    """Learn BPE merges from counted pre-tokens over the alphabet ``letters``, best first.

    The same counts give the same merges: ties go to the letters that come first. Pairs seen once, which is a count of
    ``once``, are not worth a token.
    """
    scaled, scale = scaled_counts(counts)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = feeding_pre_tokenizer()
    batches = repeated(scaled)
    return _learn(tokenizer, batches, letters, new_tokens, max_length, min_frequency=max(1, round(2 * once * scale)))


def _learn(
    tokenizer: Tokenizer,
    batches: Iterable[list[str]],
    letters: Sequence[str],
    new_tokens: int,
    max_length: int,
    min_frequency: int = 2,
) -> list[Merge]:
    trainer = trainers.BpeTrainer(
        # Some learnt strings are banned or repeat others; a few spare ones fill their places.
        vocab_size=len(letters) + new_tokens + 64,
        min_frequency=min_frequency,
        initial_alphabet=list(letters),
        limit_alphabet=len(letters),
        max_token_length=max_length,
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(batches, trainer=trainer)
    merges: list[list[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]


def _table(plan: Plan, base: Sequence[str], what: str) -> MergeTable:
    strings = list(dict.fromkeys([*(special.content for special in plan.specials.leading), *base]))
    plan.check_room(strings, what)
    # A run of whitespace may be an added token and text as well (Gemma); any other special token must never be spelled.
    spelled = re.compile("[ĠĊĉč▁\\s]+")
    return MergeTable(strings, frozenset(text for text in plan.specials.contents if not spelled.fullmatch(text)))


def _bpe_model(plan: Plan, table: MergeTable) -> dict[str, Any]:
    model = {**plan.document["model"], "unk_token": plan.unknown}
    model["vocab"] = {text: index for index, text in enumerate(table.strings)}
    model["merges"] = [list(pair) for pair in table.merges]
    return model


# --- SentencePiece's rules, shared with Unigram -----------------------------------------------------------------------


def sentencepiece_counts(corpus: Corpus, plan: Plan) -> dict[str, int]:
    """Count the stretches of the corpus that a piece may lie in, the boundary mark written as "▁"."""
    training = {**plan.document, "pre_tokenizer": _sentencepiece_words(plan)}
    return corpus.pretokens(training, space="" if adds_boundary(plan.document) else " ")


def _sentencepiece_words(plan: Plan) -> dict[str, Any]:
    """Return the pre-tokenizer to *train* with: SentencePiece's rules of what a piece may span.

    Letters with their marks, digits (as grouped by the source) and other symbols never share a piece, and the boundary
    mark only starts one. The finished tokenizer needs no such rule: pieces that were never learnt are never used.
    """
    digits = r"▁?\p{N}+" if plan.digits is None else rf"\p{{N}}{{1,{plan.digits}}}"
    pattern = rf"▁?[\p{{L}}\p{{M}}\x{{200C}}\x{{200D}}]+|{digits}|▁?[^\s\p{{L}}\p{{M}}\p{{N}}▁]+"
    words = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}
    source = plan.document["pre_tokenizer"]
    return {"type": "Sequence", "pretokenizers": [source, words]} if source is not None else words


def byte_tokens(plan: Plan) -> list[str]:
    """Return the byte-fallback tokens in the source's order, none for a model without byte fallback."""
    if not plan.document["model"].get("byte_fallback"):
        return []
    in_order = [text for text in vocabulary_strings(plan.lender) if text in BYTE_TOKENS]
    return list(dict.fromkeys([*in_order, *BYTE_TOKENS]))


def sentencepiece_alphabet(counts: Mapping[str, int], plan: Plan, base: Sequence[str]) -> list[str]:
    """Choose the single characters of the vocabulary: at most half of what room the required ones leave."""
    room = plan.size - len(plan.specials.leading) - len(base) - len(ALWAYS)
    return alphabet(character_counts(counts), always=ALWAYS, limit=len(ALWAYS) + max(0, room // 2))


# --- what the source lends: runs of whitespace and groups of digits ---------------------------------------------------


@dataclass(frozen=True)
class Lent:
    """Strings of the source's vocabulary that a corpus of clean lines cannot teach, and the merges that reach them."""

    strings: tuple[str, ...]
    merges: tuple[Merge, ...]
    first: bool = False  # the source ranks them before its words

    def new_strings(self, table: MergeTable) -> int:
        """Return how many of the strings the table lacks."""
        return sum(text not in table for text in self._reached(table))

    def add_to(self, table: MergeTable, size: int) -> None:
        """Add the strings while there is room, and the merges between those present."""
        table.add_strings(self._reached(table), size)
        table.add([pair for pair in self.merges if pair[0] + pair[1] in table], size)

    def _reached(self, table: MergeTable) -> tuple[str, ...]:
        """Return the strings that merges can reach there: all of their characters are tokens."""
        return tuple(text for text in self.strings if all(character in table for character in text))


def _lent_whitespace(lender: Mapping[str, Any], whitespace: str, kept: frozenset[str]) -> Lent:
    blank = re.compile(f"[{whitespace}]+")

    def wanted(text: str) -> bool:
        return bool(blank.fullmatch(text)) and (len(text) <= MAX_WHITESPACE_RUN or text in kept)

    merges: list[Merge] = [(left, right) for left, right in lender["model"].get("merges", ())]
    blank_merges = [pair for pair in merges if wanted(pair[0] + pair[1])]
    # A string counts only if merges reach it from single characters.
    reached = {text for text in vocabulary_strings(lender) if len(text) == 1 and wanted(text)}
    strings: list[str] = []
    for left, right in sorted(blank_merges, key=lambda pair: len(pair[0] + pair[1])):
        if left in reached and right in reached and left + right not in reached:
            reached.add(left + right)
            if left + right not in kept:  # those have their ids already
                strings.append(left + right)
    usable = tuple(pair for pair in blank_merges if pair[0] in reached and pair[1] in reached)
    first_word = next((rank for rank, pair in enumerate(merges) if not blank.fullmatch(pair[0] + pair[1])), 0)
    return Lent(tuple(strings), usable, first=bool(usable) and merges.index(usable[0]) < first_word)


def lent_byte_level(plan: Plan) -> Lent:
    """Return what a byte-level source lends: runs of whitespace and, to a vocabulary of 16,000 or more, digit groups."""
    blanks = _lent_whitespace(plan.lender, "ĠĊĉč", frozenset())
    if plan.digits in (None, 1) or plan.size < SIZE_FOR_DIGIT_GROUPS:
        return blanks
    group = re.compile(rf"[0-9]{{2,{plan.digits}}}")
    numbers = sorted((text for text in vocabulary_strings(plan.lender) if group.fullmatch(text)), key=len)
    # Every split of a group leads to it, so that it is reached whatever was merged first.
    splits = ((text[:cut], text[cut:]) for text in numbers for cut in range(1, len(text)))
    return Lent((*blanks.strings, *numbers), (*blanks.merges, *splits))
