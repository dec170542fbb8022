"""Unigram (Kudo 2018, arXiv 1804.10959) and WordPiece: learn the pieces of tokenizers that have no merges."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import regex
import sentencepiece
from tokenizers import Tokenizer

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.tokenization.carry import bare_tokenizer
from vocabtransfer.tokenization.train_bpe import (
    ALWAYS,
    MAX_CHARACTERS,
    byte_tokens,
    learn_merges,
    sentencepiece_alphabet,
    sentencepiece_counts,
)
from vocabtransfer.tokenization.train_corpus import Corpus, alphabet, character_counts, within_alphabet
from vocabtransfer.tokenization.train_kinds import Plan

# Far below any sum of real scores: the tokens <0xNN> must never be found spelled out in a text.
UNREACHABLE_SCORE = -10_000.0
# BERT's own limit. A word with one character outside the alphabet is lost whole, so it should not be tight.
MAX_WORDPIECE_ALPHABET = 1_000
# Word-initial letters are learnt as letters of their own, written in a private plane that text does not use.
_INITIAL = 0x100000


def train_unigram(corpus: Corpus, plan: Plan) -> dict[str, Any]:
    """Return the ``model`` section of a Unigram tokenizer: leading specials, byte tokens if any, pieces by score.

    SentencePiece's own trainer learns the pieces, in one thread: with more, its sums of floating-point numbers
    depend on the timing of threads. Its memory follows the number of different words.

    Raises:
        UsageError: no room for the specials, the byte tokens and printable ASCII.
    """
    counts = sentencepiece_counts(corpus, plan)
    base = byte_tokens(plan)
    fixed = {special.content: 0.0 for special in plan.specials.leading} | dict.fromkeys(base, UNREACHABLE_SCORE)
    plan.check_room([*fixed, *ALWAYS], "bytes and printable ASCII")
    letters = sentencepiece_alphabet(counts, plan, base)
    pieces = _unigram_pieces(within_alphabet(counts, letters), letters, plan.size - len(fixed))
    vocabulary = [[text, score] for text, score in (fixed | dict(pieces) | fixed).items()]
    unknown = list(fixed).index(plan.unknown) if plan.unknown is not None else None
    return {**plan.document["model"], "vocab": vocabulary, "unk_id": unknown}


def _unigram_pieces(counts: Mapping[str, int], letters: Sequence[str], size: int) -> list[tuple[str, float]]:
    output = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds.tsv"
        candidates = seed_pieces(counts, least=2 * once)
        seeds.write_text("".join(f"{piece}\t{count}\n" for piece, count in candidates.items()), encoding="utf-8")
        _train_sentencepiece_unigram(
            sentence_iterator=(f"{piece}\t{count}" for piece, count in counts.items()),
            input_format="tsv",
            model_writer=output,
            model_type="unigram",
            vocab_size=size + 1,  # its own unknown token is not kept
            hard_vocab_limit=False,
            num_threads=1,
            max_sentencepiece_length=MAX_CHARACTERS,
            character_coverage=1.0,
            required_chars="".join(letters),
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            # The counted stretches already keep scripts, digits and symbols apart.
            split_by_unicode_script=False,
            split_by_number=False,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise VocabTransferError(
            f"No Unigram vocabulary of {size:,} pieces can be learnt from this corpus ({str(error).strip()[:200]}): "
            "use more text or another vocabulary size."
        ) from error
    model = sentencepiece.SentencePieceProcessor(model_proto=output.getvalue())
    return [(model.id_to_piece(i), model.get_score(i)) for i in range(1, model.get_piece_size())]


def seed_pieces(counts: Mapping[str, int], *, least: int, limit: int = MAX_SEEDS) -> dict[str, int]:
    """Return the strings of 2 to 16 characters inside the counted stretches that occur at least ``least`` times.

    At most ``limit`` of them, those that cover the most characters of the corpus. SentencePiece would draw such candidates
    from its input by itself, but it ignores counts there and misses words that always end where their line ends.
    """
    codes = np.fromiter(chain.from_iterable(map(map, repeat(ord), counts)), dtype=np.uint64)
    lengths = np.fromiter(map(len, counts), dtype=np.int64, count=len(counts))
    weights = np.repeat(np.fromiter(counts.values(), dtype=np.float64, count=len(counts)), lengths)
    ends = np.repeat(np.cumsum(lengths), lengths)
    text = "".join(counts)
    starts, hashes = np.arange(len(codes)), codes
    found: list[tuple[str, int]] = []
    for length in range(2, MAX_PIECE + 1):
        inside = starts + length <= ends[starts]
        starts = starts[inside]
        # Two strings of one length get the same 64-bit hash once in a blue moon; then both count as the first of them.
        hashes = hashes[inside] * _MULTIPLIER + codes[starts + length - 1]
        _, first, place = np.unique(hashes, return_index=True, return_inverse=True)
        totals = np.bincount(place, weights[starts], minlength=len(first))
        often = totals >= least
        begins = starts[first[often]].tolist()
        found += zip((text[at : at + length] for at in begins), totals[often].astype(np.int64).tolist(), strict=True)
    found.sort(key=lambda item: (-item[1] * len(item[0]), item[0]))
    return dict(found[:limit])


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
    plan.check_room([*leading, *required, *_inside(tokenizer, required, prefix)], "printable ASCII characters")
    limit = min(MAX_WORDPIECE_ALPHABET, len(required) + (plan.size - len(leading) - 2 * len(required)) // 4)
    letters = alphabet(character_counts(counts), always=required, coverage=1.0, limit=max(limit, len(required)))
    strings = list(dict.fromkeys([*leading, *letters, *_inside(tokenizer, letters, prefix)]))
    plan.check_room(strings, "characters")
    words = _words_with_initials(counts, letters)
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


def _inside(tokenizer: Tokenizer, letters: Sequence[str], prefix: str) -> list[str]:
    """Return the prefixed forms of those characters that can stand inside a word (punctuation cannot)."""
    return [prefix + letter for letter in letters if len(_pieces(tokenizer, f"a{letter}a")) == 1]


def _initial(place: int) -> str:
    return chr(_INITIAL + place)


def _words_with_initials(counts: Mapping[str, int], letters: Sequence[str]) -> dict[str, int]:
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
