"""In which order a vocabulary gives up its tokens: the least used first, and none that a kept token is made of."""

import heapq
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.tokenization.carry import BYTE_TOKENS, vocabulary_ids
from vocabtransfer.tokenization.merges import MergeModel
from vocabtransfer.tokenization.ragged import IntArray
from vocabtransfer.tokenization.reshape import UNREACHABLE_SCORE, Shape
from vocabtransfer.tokenization.train_bpe import ALWAYS, MAX_WHITESPACE_RUN
from vocabtransfer.vocabulary import byte_alphabet

Parts = Callable[[int], Sequence[int]]

_WHITESPACE = {"bpe": "[ĠĊĉč]", "sentencepiece": r"[▁\s]", "unigram": r"[▁\s]"}


@dataclass(frozen=True, eq=False)
class Order:
    """Ids in the order in which they can go, int64 (n,).

    ``uses`` is how often each is used when its turn comes, with what it took over from tokens gone before, and
    ``costs`` by how many tokens the corpus grows when it goes, int64 (n,) both.
    """

    ids: IntArray
    uses: IntArray
    costs: IntArray


def removal_order(shape: Shape, usage: IntArray, protected: NDArray[np.bool_]) -> Order:
    """Order all ids that are not ``protected``, bool (V,), by their use in a corpus, int64 (V,), that is the least first.

    A token that goes leaves its uses to the tokens that its text is then cut into. Those that a BPE token is merged
    from go only after it (leaf first); of equally used tokens the one with the highest id goes first.
    """
    return _ordered(usage, protected, *token_parts(shape, usage, protected))


def token_parts(shape: Shape, usage: IntArray, protected: NDArray[np.bool_]) -> tuple[Parts, IntArray]:
    """Return what the text of a token falls apart into when the token goes, and which ids must outlive it.

    The second is int64 (V, 2), -1 for none: the tokens that a BPE token is merged from. Used tokens that nothing else can
    spell are marked in ``protected``, bool (V,).
    """
    return _RULES[shape.kind](shape, usage, protected)


def _ordered(usage: IntArray, protected: NDArray[np.bool_], parts: Parts, bound: IntArray) -> Order:
    """Take leaves one after the other; ``bound`` are the ids that must outlive each id, int64 (V, 2), -1 for none."""
    uses = usage.tolist()
    fixed = protected.tolist()
    needed = np.bincount(bound[bound >= 0], minlength=len(uses)).tolist()
    gone = [False] * len(uses)
    heap = [(uses[i], -i) for i in range(len(uses)) if not fixed[i] and not needed[i]]
    heapq.heapify(heap)
    ids: list[int] = []
    counts: list[int] = []
    costs: list[int] = []
    while heap:
        count, i = heapq.heappop(heap)
        i = -i
        if gone[i] or count != uses[i]:
            continue  # pushed anew since, with what it took over
        gone[i] = True
        waiting = list(parts(i)) if count else []
        ids.append(i)
        counts.append(count)
        costs.append(count * max(0, len(waiting) - 1))
        grown: set[int] = set()
        while waiting:
            part = waiting.pop()
            if gone[part]:
                waiting += parts(part)
            else:
                uses[part] += count
                grown.add(part)
        for part in bound[i].tolist():
            if part >= 0:
                needed[part] -= 1
                grown.add(part)
        for part in sorted(grown):
            if not fixed[part] and not needed[part]:
                heapq.heappush(heap, (uses[part], -part))
    return Order(*(np.array(column, np.int64) for column in (ids, counts, costs)))


# --- what cannot go ---------------------------------------------------------------------------------------------------


def protected_ids(shape: Shape, size: int, specials: frozenset[str], *, digit_groups: bool) -> NDArray[np.bool_]:
    """Tell which of ``size`` ids every trimmed vocabulary keeps.

    Special and added tokens; all bytes, or all characters where there is no fallback to bytes; printable ASCII; runs of
    up to eight whitespace characters, which a corpus of lines does not show; if asked for, groups of digits.
    """
    model = shape.document["model"]
    ids = vocabulary_ids(shape.document)
    kept = set(specials) | {str(model.get("unk_token"))}
    if shape.kind == "bpe":
        kept.update(byte_alphabet().values())
    elif shape.kind == "wordpiece":
        prefix = model["continuing_subword_prefix"]
        kept.update(text for text in ids if len(text.removeprefix(prefix)) == 1)
    else:
        complete = model["byte_fallback"] and all(token in ids for token in BYTE_TOKENS)
        kept.update((*BYTE_TOKENS, *ALWAYS) if complete else (text for text in ids if len(text) == 1))
    if shape.kind in _WHITESPACE:
        blank = re.compile(f"{_WHITESPACE[shape.kind]}{{1,{MAX_WHITESPACE_RUN}}}")
        kept.update(filter(blank.fullmatch, ids))
    if digit_groups and shape.plan.digits is not None and shape.plan.digits > 1:
        group = re.compile(f"[0-9]{{2,{shape.plan.digits}}}")
        kept.update(filter(group.fullmatch, ids))
    if shape.kind == "unigram":
        kept.add(model["vocab"][model["unk_id"] or 0][0])
        # The library scores unknown characters by the lowest piece.
        kept.add(min(model["vocab"], key=lambda piece: piece[1])[0])
    protected = np.zeros(size, np.bool_)
    protected[[i for text, i in shape.ids.items() if text in kept]] = True
    holes = np.ones(size, np.bool_)
    holes[list(shape.ids.values())] = False
    return protected | holes


# --- what a token falls apart into ------------------------------------------------------------------------------------


def _merge_rules(shape: Shape, usage: IntArray, protected: NDArray[np.bool_]) -> tuple[Parts, IntArray]:
    model = MergeModel.from_document(shape.document)
    derivations = model.derivations()
    bound = np.full((len(usage), 2), -1, np.int64)
    bound[: len(model), 0], bound[: len(model), 1] = derivations.left, derivations.right

    def parts(i: int) -> Sequence[int]:
        if bound[i, 0] >= 0:
            return bound[i].tolist()  # type: ignore[no-any-return]
        # A whole word that merges do not make, or a character: what merging or spelling it gives.
        if derivations.reached[i]:
            return _spelled(model.strings[i], model.byte_ids)
        return [piece for piece in derivations.pieces[i].tolist() if piece >= 0]

    return parts, bound


def _spelled(character: str, byte_ids: NDArray[np.int32] | None) -> list[int]:
    return [] if byte_ids is None else [int(byte_ids[byte]) for byte in character.encode()]


def _unigram_rules(shape: Shape, usage: IntArray, protected: NDArray[np.bool_]) -> tuple[Parts, IntArray]:
    model = shape.document["model"]
    ids = vocabulary_ids(shape.document)
    scores = {text: score for text, score in model["vocab"] if score > UNREACHABLE_SCORE}
    texts = {i: text for text, i in ids.items()}
    fallback = np.array([ids.get(token, -1) for token in BYTE_TOKENS], np.int32)

    def parts(i: int) -> Sequence[int]:
        text = texts[i]
        if len(text) == 1:
            return _spelled(text, fallback)
        return [ids[piece] for piece in _best_split(text, scores)]

    for i in np.flatnonzero((usage > 0) & ~protected).tolist():
        # Without a split of its text into others, a piece is the only way to write it.
        protected[i] = not parts(i)
    return parts, np.full((len(usage), 2), -1, np.int64)


def _best_split(text: str, scores: Mapping[str, float]) -> list[str]:
    """Return the likeliest split of a text into pieces other than itself; [] when there is none."""
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(text) + 1):
        options = [
            (best[start][0] + scores[text[start:end]], start)
            for start in range(end)
            if text[start:end] in scores and end - start < len(text)
        ]
        best.append(max(options, default=(float("-inf"), 0)))
    if best[-1][0] == float("-inf"):
        return []
    pieces: list[str] = []
    end = len(text)
    while end:
        start = best[end][1]
        pieces.append(text[start:end])
        end = start
    return pieces


def _wordpiece_rules(shape: Shape, usage: IntArray, protected: NDArray[np.bool_]) -> tuple[Parts, IntArray]:
    model: Mapping[str, Any] = shape.document["model"]
    prefix: str = model["continuing_subword_prefix"]
    ids: Mapping[str, int] = model["vocab"]
    texts = {i: text for text, i in ids.items()}

    def parts(i: int) -> Sequence[int]:
        text = texts[i]
        inside = text.startswith(prefix)
        rest = text.removeprefix(prefix) if inside else text
        found: list[int] = []
        while rest:
            lead = prefix if inside else ""
            ends = range(len(rest), 0, -1)
            end = next((end for end in ends if lead + rest[:end] in ids and ids[lead + rest[:end]] != i), 0)
            if not end:
                return []
            found.append(ids[lead + rest[:end]])
            rest, inside = rest[end:], True
        return found

    for i in np.flatnonzero(~protected).tolist():
        # A piece with a character that has no token of its own may be the only way to write it.
        protected[i] = not parts(i)
    return parts, np.full((len(usage), 2), -1, np.int64)


_RULES: dict[str, Callable[[Shape, IntArray, NDArray[np.bool_]], tuple[Parts, IntArray]]] = {
    "bpe": _merge_rules,
    "sentencepiece": _merge_rules,
    "unigram": _unigram_rules,
    "wordpiece": _wordpiece_rules,
}
