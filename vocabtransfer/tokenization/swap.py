"""Swap tokens in place: those that a text never uses give their ids to new ones, and nothing else moves.

The table keeps its size and every other token its id, its row and its merges, so adapters, quantised bodies, draft heads
and serving engines go on working. People do this by hand: T-pro 2.0 gave 34,000 ids of Qwen 3 to Russian
(arXiv 2512.10430), Lapa 81,492 of Gemma 3 to Ukrainian and Crimean Tatar (the "Tereshchenko Blue" tokenizer).
"""

import heapq
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError
from vocabtransfer.progress import step
from vocabtransfer.public import public
from vocabtransfer.scripts import SCRIPTS, dominant_scripts
from vocabtransfer.tokenization.carry import kept_specials
from vocabtransfer.tokenization.extend import learn
from vocabtransfer.tokenization.ragged import IntArray
from vocabtransfer.tokenization.reshape import (
    Learnt,
    Reshaped,
    Shape,
    check_new,
    put_together,
    take_apart,
    with_notes_on,
    with_repairs,
)
from vocabtransfer.tokenization.train_corpus import CorpusLike
from vocabtransfer.tokenization.trim import WatchedCorpus, template_ids
from vocabtransfer.tokenization.trim_order import protected_ids, token_parts
from vocabtransfer.vocabulary import Vocabulary

#: A script is the text's own from this share of its tokens on: a stray name does not keep all of Chinese.
NEAR_SHARE = 0.005
_LATIN = SCRIPTS.index("Latn")


@public
def swap_tokenizer(
    tokenizer: PreTrainedTokenizerFast,
    corpus: CorpusLike,
    *,
    new_tokens: int,
    keep: Iterable[str] | Mapping[str, int] = (),
    min_count: int = 2,
    repair_marks: bool = False,
) -> Reshaped:
    """Give the ids of ``new_tokens`` tokens that neither ``corpus`` nor ``keep`` uses to new tokens for ``corpus``.

    Tokens of scripts other than Latin and the corpus's own go first, then unused ones of the near scripts; of each the
    highest ids, which are the rarest. Special and added tokens, bytes, printable ASCII, white space, digits, what the
    chat template writes, and whatever a kept BPE token is merged from stay. Old merges stay in their order without
    those of the tokens that went; the new ones follow.

    A BPE vocabulary cuts text that held none of the tokens given away into no more tokens than before, and into the same
    ones where it holds none of the new tokens. Unigram and WordPiece choose pieces in other ways, so there a text may
    rarely take a token more; `Reshaped.notes` says so.

    Args:
        tokenizer: byte-level BPE, SentencePiece-style BPE, Unigram or WordPiece.
        corpus: lines of text, streamed and read once, or a mapping from words to counts.
        new_tokens: how many; fewer if the corpus does not support them or too few tokens are free: a note says so.
        keep: other text that is to be cut as before: samples of every language that the model must go on writing.
        min_count: a new token must have been seen so often.
        repair_marks: as for `extend_tokenizer`; off, because engines know pre-tokenizers by their exact rules.

    The result's ``kept`` is ``-1`` exactly at the ids that changed hands.

    Raises:
        UsageError: ``new_tokens`` or ``min_count`` below 1, a tokenizer of another kind, or not one token is free.
        VocabTransferError: the corpus is empty or holds something that is not text.
    """
    check_new(new_tokens, "The number of new tokens")
    check_new(min_count, "The smallest count")
    text = WatchedCorpus(corpus)
    shape = take_apart(tokenizer, text.sample if repair_marks else "")
    watched = with_repairs(shape)
    text.watch(watched)
    counts = shape.words(text)
    used = text.usage()
    for_keeps = used + _usage_of(keep, watched)
    learnt = learn(shape, counts, new_tokens, min_count * text.once)
    scripts = token_scripts(Vocabulary.from_tokenizer(watched))
    near = near_scripts(scripts, for_keeps)
    given = free_tokens(shape, for_keeps, learnt, scripts, near)[: len(learnt.tokens)]
    if not len(given) and learnt.tokens:
        raise UsageError("Every token of this vocabulary is used or must stay: extend it instead of swapping.")
    supported = len(learnt.tokens)
    if len(given) < supported:
        learnt = learn(shape, counts, len(given), min_count * text.once)
        given = given[: len(learnt.tokens)]
    notes = _notes(with_notes_on(shape, text), given, scripts, near)
    if len(given) < new_tokens:
        why = "the corpus supports no more" if supported == len(given) else "no other ids are free"
        notes += (f"{len(given):,} of the {new_tokens:,} new tokens asked for came in: {why}.",)
    return _swapped(shape, learnt, np.sort(given), notes)


def free_tokens(
    shape: Shape, usage: IntArray, learnt: Learnt, scripts: NDArray[np.uint8], near: frozenset[int]
) -> IntArray:
    """Return the ids that can be given away, int64 (n,), in the order in which they are to go.

    ``usage`` is how often the text that counts uses each id, int64 (V,), ``scripts`` the script code of each, uint8 (V,).
    A token that kept tokens are merged from is free only after them.
    """
    specials = kept_specials(shape.tokenizer, shape.document, keep_reserved=True).contents
    protected = protected_ids(shape, len(usage), specials, digit_groups=True)
    protected |= usage > 0
    protected[list(template_ids(shape.tokenizer))] = True
    protected[[shape.ids[part] for part in _parts_of_new(shape, learnt) if part in shape.ids]] = True
    with step("finding tokens to give away"):
        parts, bound = token_parts(shape, usage, protected)
        if shape.kind in ("unigram", "wordpiece"):
            # A piece that nothing else spells is the only way to write its text.
            protected[[i for i in np.flatnonzero(~protected).tolist() if not parts(i)]] = True
        far = ~np.isin(scripts, list(near))
        needed = np.bincount(bound[bound >= 0], minlength=len(usage)).tolist()
        heap = [(not far[i], -i) for i in np.flatnonzero(~protected).tolist() if not needed[i]]
        heapq.heapify(heap)
        free: list[int] = []
        while heap:
            i = -heapq.heappop(heap)[1]
            free.append(i)
            for part in bound[i].tolist():
                if part < 0:
                    continue
                needed[part] -= 1
                if not needed[part] and not protected[part]:
                    heapq.heappush(heap, (not far[part], -part))
    return np.array(free, np.int64)


def token_scripts(vocabulary: Vocabulary) -> NDArray[np.uint8]:
    """Return the script code (see `vocabtransfer.scripts`) of every token, uint8 (V,); 0 where it has none.

    A token that is the beginning of a character gets the script of the first character that it can begin.
    """
    return dominant_scripts([_readable(content) for content in vocabulary.token_bytes])


def near_scripts(scripts: NDArray[np.uint8], usage: IntArray) -> frozenset[int]:
    """Return the codes of the scripts of a text by its use of tokens, int64 (V,), with Latin and 0, what has none."""
    used = np.bincount(scripts[: len(usage)], usage[: len(scripts)], minlength=len(SCRIPTS))
    used[0] = 0
    found = np.flatnonzero(used >= max(NEAR_SHARE * used.sum(), 1))
    return frozenset({0, _LATIN, *found.tolist()})


def _usage_of(keep: Iterable[str] | Mapping[str, int], tokenizer: PreTrainedTokenizerFast) -> IntArray:
    empty = np.zeros(1 + max(tokenizer.get_vocab().values()), np.int64)
    if isinstance(keep, tuple) and not keep:
        return empty
    text = WatchedCorpus(keep)
    text.watch(tokenizer)
    return text.usage()


def _parts_of_new(shape: Shape, learnt: Learnt) -> Iterable[str]:
    """Yield the tokens that new merges join, which are used before the merge if not after it."""
    if "merges" in shape.document["model"]:
        for pair in learnt.model["merges"][len(shape.document["model"]["merges"]) :]:
            yield from pair


def _swapped(shape: Shape, learnt: Learnt, given: IntArray, notes: tuple[str, ...]) -> Reshaped:
    gone = set(given.tolist())
    ids = {text: i for text, i in shape.ids.items() if i not in gone}
    ids |= dict(zip(learnt.tokens, given.tolist(), strict=True))
    model = dict(learnt.model)
    if "merges" in model:
        old = len(shape.document["model"]["merges"])
        strings = {text for text, i in shape.ids.items() if i in gone}
        model["merges"] = [
            pair
            for place, pair in enumerate(model["merges"])
            if place >= old or strings.isdisjoint((*pair, pair[0] + pair[1]))
        ]
    scores = {text: score for text, score in learnt.scores.items() if text in ids}
    kept = np.arange(1 + max(shape.ids.values()))
    kept[given] = -1
    return Reshaped(put_together(shape, ids, model, notes, scores), kept, notes)


def _notes(shape: Shape, given: IntArray, scripts: NDArray[np.uint8], near: frozenset[int]) -> tuple[str, ...]:
    codes, counts = np.unique(scripts[given], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    names = [f"{counts[at]:,} {SCRIPTS[codes[at]] if codes[at] else 'without letters'}" for at in order.tolist()]
    notes = [*shape.notes, f"{len(given):,} tokens gave their ids to new ones: {', '.join(names) or 'none'}."]
    close = int(np.isin(scripts[given], list(near)).sum())
    if close:
        notes.append(
            f"{close:,} of them are of the text's own scripts, of Latin or of none: text that held them takes more tokens "
            "now. Text of whatever must stay as it is, given to keep, protects it."
        )
    if shape.kind in ("unigram", "wordpiece"):
        notes.append("This kind of vocabulary chooses pieces by more than merges: a text may rarely take a token more.")
    return tuple(notes)


def _readable(content: bytes) -> str:
    """Return the characters of some bytes; of a cut last character the first one that it can be."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        pass
    start = next((at for at, byte in enumerate(content) if byte & 0xC0 != 0x80), len(content))
    for filler in (b"", b"\x80", b"\xa0", b"\x80\x80", b"\xa0\x80", b"\x90\x80", b"\x80\x80\x80", b"\x90\x80\x80"):
        try:
            return (content[start:] + filler).decode()
        except UnicodeDecodeError:
            continue
    return content.decode("utf-8", "ignore")
