"""WordPiece tokenizers, as BERT has them."""

from collections.abc import Mapping, Sequence
from typing import Any

import regex
from tokenizers import Tokenizer

from vocabtransfer.tokenization.carry import bare_tokenizer
from vocabtransfer.tokenization.train_bpe import MAX_CHARACTERS, learn_merges
from vocabtransfer.tokenization.train_corpus import Corpus, alphabet, character_counts
from vocabtransfer.tokenization.train_kinds import Plan

# BERT's own limit. A word with one character outside the alphabet is lost whole, so it should not be tight.
MAX_ALPHABET = 1_000
# Word-initial letters are learnt as letters of their own, written in a private plane that text does not use.
_INITIAL = 0x100000


def train_wordpiece(corpus: Corpus, plan: Plan) -> dict[str, Any]:
    """Return the ``model`` section of a WordPiece tokenizer.

    Order: leading specials, single characters, their ``##`` forms, learnt pieces. The pieces come from BPE merges, as
    in BERT's own successors, with word-initial letters as letters of their own.

    Raises:
        UsageError: no room for the specials and printable ASCII.
    """
    prefix = plan.document["model"]["continuing_subword_prefix"]
    tokenizer = bare_tokenizer(plan.document)
    counts = corpus.pretokens(plan.document, space="")
    if plan.digits is not None:
        counts = within_digit_groups(counts)
    leading = [special.content for special in plan.specials.leading]
    required = [char for char in map(chr, range(0x21, 0x7F)) if _pieces(tokenizer, char) == [char]]
    plan.check_room([*leading, *required, *inside_forms(tokenizer, required, prefix)], "printable ASCII characters")
    limit = min(MAX_ALPHABET, len(required) + (plan.size - len(leading) - 2 * len(required)) // 4)
    letters = alphabet(character_counts(counts), always=required, coverage=1.0, limit=max(limit, len(required)))
    strings = list(dict.fromkeys([*leading, *letters, *inside_forms(tokenizer, letters, prefix)]))
    plan.check_room(strings, "characters")
    words = words_with_initials(counts, letters)
    symbols = [*(_initial(i) for i in range(len(letters))), *letters]
    merges = learn_merges(words, symbols, plan.size - len(strings), MAX_CHARACTERS, corpus.once)
    learnt = (_wordpiece(left + right, letters, prefix) for left, right in merges)
    strings = list(dict.fromkeys([*strings, *learnt]))[: plan.size]
    return {
        **plan.document["model"],
        "unk_token": plan.unknown,
        "vocab": {text: index for index, text in enumerate(strings)},
    }


def within_digit_groups(counts: Mapping[str, int]) -> dict[str, int]:
    """Set the digits of counted words apart, so that no piece holds more than one."""
    apart: dict[str, int] = {}
    for word, count in counts.items():
        for part in regex.findall(r"\p{N}|\P{N}+", word):
            apart[part] = apart.get(part, 0) + count
    return dict(sorted(apart.items()))


def _pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    text = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer is not None else text
    return [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)] if tokenizer.pre_tokenizer else [text]


def inside_forms(tokenizer: Tokenizer, letters: Sequence[str], prefix: str) -> list[str]:
    """Return the prefixed forms of those characters that can stand inside a word (punctuation cannot)."""
    return [prefix + letter for letter in letters if len(_pieces(tokenizer, f"a{letter}a")) == 1]


def _initial(place: int) -> str:
    return chr(_INITIAL + place)


def words_with_initials(counts: Mapping[str, int], letters: Sequence[str]) -> dict[str, int]:
    """Write the first letter of each word in the private plane; words with unknown characters are left out.

    The trainer's own way, prefixing letters as it meets them, numbers them in the order of a hash map, and so ties
    between merges would fall differently from run to run.
    """
    places = {letter: place for place, letter in enumerate(letters)}
    words = ((word, count) for word, count in counts.items() if all(letter in places for letter in word))
    return {_initial(places[word[0]]) + word[1:]: count for word, count in words}


def _wordpiece(symbols: str, letters: Sequence[str], prefix: str) -> str:
    first = ord(symbols[0]) - _INITIAL
    return letters[first] + symbols[1:] if first >= 0 else prefix + symbols
