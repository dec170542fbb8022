"""Unigram tokenizers (Kudo 2018, arXiv 1804.10959), learnt by SentencePiece's trainer from counted words."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.tokenization.train_bpe import ALWAYS, byte_tokens, sentencepiece_alphabet, sentencepiece_counts
from vocabtransfer.tokenization.train_corpus import Corpus, within_alphabet
from vocabtransfer.tokenization.train_kinds import Plan

# Far below any sum of real scores: the tokens <0xNN> must never be found spelled out in a text.
UNREACHABLE_SCORE = -10_000.0
MAX_PIECE = 16
MAX_SEEDS = 1_000_000
FEWEST_COUNTED = 10_000
# SentencePiece keeps this block character for itself and skips input that holds it.
_UNUSABLE = "▅"
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def train_unigram(corpus: Corpus, plan: Plan) -> dict[str, Any]:
    """Return the ``model`` section of a Unigram tokenizer: leading specials, byte tokens if any, pieces by score.

    The trainer runs in one thread: with more, its sums of floating-point numbers depend on the timing of threads.
    Memory follows the number of different words.

    Raises:
        UsageError: no room for the specials, the byte tokens and printable ASCII.
    """
    counts = sentencepiece_counts(corpus, plan)
    base = byte_tokens(plan)
    fixed = {special.content: 0.0 for special in plan.specials.leading} | dict.fromkeys(base, UNREACHABLE_SCORE)
    plan.check_room([*fixed, *ALWAYS], "bytes and printable ASCII")
    letters = [letter for letter in sentencepiece_alphabet(counts, plan, base) if letter != _UNUSABLE]
    pieces = learn_pieces(within_alphabet(counts, letters), letters, plan.size - len(fixed), corpus.once)
    vocabulary = [[text, score] for text, score in (pieces | fixed).items() if text not in fixed]
    vocabulary[:0] = [[text, score] for text, score in fixed.items()]
    unknown = list(fixed).index(plan.unknown) if plan.unknown is not None else None
    return {**plan.document["model"], "vocab": vocabulary, "unk_id": unknown}


def learn_pieces(counts: Mapping[str, int], letters: Sequence[str], size: int, once: int) -> dict[str, float]:
    """Return at most ``size`` pieces with their log probabilities, the best first; all ``letters`` are among them."""
    if not counts:
        return dict.fromkeys(letters, -1.0)
    seen = set(chain.from_iterable(counts))
    unseen = [letter for letter in letters if letter not in seen]  # SentencePiece would leave these out
    # The trainer drops what it expects less than half a time, which in a corpus of a few words is everything.
    factor = max(1, FEWEST_COUNTED // sum(counts.values()))
    output = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds.tsv"
        candidates = seed_pieces(counts, least=2 * once)
        seeds.write_text("".join(f"{piece}\t{count}\n" for piece, count in candidates.items()), encoding="utf-8")
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=(f"{piece}\t{count * factor}" for piece, count in counts.items()),
                input_format="tsv",
                seed_sentencepieces_file=str(seeds),
                model_writer=output,
                model_type="unigram",
                vocab_size=size - len(unseen) + 1,  # its own unknown token is not kept
                hard_vocab_limit=False,
                num_threads=1,
                max_sentencepiece_length=MAX_PIECE,
                max_sentence_length=1 << 30,  # of one stretch: scripts without spaces have long ones
                character_coverage=1.0,
                required_chars="".join(letter for letter in letters if letter in seen),
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
                f"No Unigram vocabulary of {size:,} pieces can be learnt from this corpus "
                f"({str(error).strip()[:200]}): use more text or another vocabulary size."
            ) from error
    model = sentencepiece.SentencePieceProcessor(model_proto=output.getvalue())
    pieces = {model.id_to_piece(i): model.get_score(i) for i in range(1, model.get_piece_size())}
    return pieces | dict.fromkeys(unseen, min(pieces.values()) - 1.0)


def seed_pieces(counts: Mapping[str, int], *, least: int, limit: int = MAX_SEEDS) -> dict[str, int]:
    """Return the strings of 2 to 16 characters inside the counted stretches that occur at least ``least`` times.

    At most ``limit`` of them, those that cover the most characters of the corpus. SentencePiece would draw candidates
    from its input by itself, but would miss every word that always ends where its line ends, as counted words do.
    """
    codes = np.fromiter(map(ord, chain.from_iterable(counts)), dtype=np.uint64)
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
