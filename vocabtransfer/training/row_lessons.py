"""What the untouched model says about snippets of text, computed once and kept: the lessons that new rows learn from.

Two things are kept of every place where both tokenisations have read the same bytes: the state behind an early layer
(what a new token as *input* has to give), and what the head reads there with the log-sum over all rows that stay (what a
new token as *output* has to stand up against). With these, a row is fitted without running the untouched model again.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.progress import step, track
from vocabtransfer.tokenization.ragged import IntArray, Pieces, row_pointers, runs
from vocabtransfer.training.chunks import Borders, TokenBytes, common_chunks, to_pieces
from vocabtransfer.training.early_layers import EarlyLayers
from vocabtransfer.training.row_head import RowHead
from vocabtransfer.training.snippets import SnippetChooser
from vocabtransfer.vocabulary import Vocabulary

# Snippets are chosen among this many times the text that is wanted, so that rare tokens are met too.
_LOOKED_AT = 40
_HEAVIEST = 10.0
_CHOICES = 30  # so often is what is still wanted counted anew
_TOKENS_A_PASS = 2048


@dataclass(frozen=True, eq=False)
class Snippets:
    """Chosen text as two tokenizers cut it, and the places where both have read the same bytes.

    Sequences begin with a separator, so token k of a text stands in column k + 1. Arrays over places, in the order of
    texts: ``text``, ``column`` and ``old_column`` int64 say where; ``following`` int64 is the new tokenizer's next token
    there (-1 at the end of a text); ``matched`` bool whether a token in training was read before or at it; ``weight``
    float32 by how much the next token is rarer here than in the text that the snippets come from, 1 on average.
    """

    new: Pieces
    old: Pieces
    text: IntArray
    column: IntArray
    old_column: IntArray
    following: IntArray
    matched: NDArray[np.bool_]
    weight: NDArray[np.float32]

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.new)

    def sizes(self) -> IntArray:
        """Return the tokens of each text as the new tokenizer cuts it."""
        return np.diff(self.new.indptr)


def choose_texts(
    documents: Iterable[str], chooser: SnippetChooser, new_rows: NDArray[np.bool_], tokens: int
) -> tuple[list[str], IntArray]:
    """Choose snippets of ``tokens`` tokens in all that meet as many new tokens as possible, frequent ones more often.

    Returns them in the order of the documents, and how often each id is in all the text that was looked at, int64 (rows,).
    Raises `VocabTransferError` when no document has a new token.
    """
    counts = np.zeros(len(new_rows), np.int64)
    texts: list[str] = []
    sizes: list[int] = []
    found: list[IntArray] = []
    seen = 0
    for text, ids in chooser.cut(documents):
        counts += np.bincount(ids, minlength=len(counts))
        seen += len(ids)
        own = np.unique(ids)
        own = own[new_rows[own]]
        if len(own):
            texts.append(text)
            sizes.append(len(ids))
            found.append(own)
        if seen >= _LOOKED_AT * tokens:
            break
    if not texts:
        raise VocabTransferError(
            "The text has none of the new tokens, so there is nothing to distil: give text in the target language."
        )
    chosen = worthiest(found, sizes, counts, tokens)
    return [texts[i] for i in np.flatnonzero(chosen)], counts


def other_texts(documents: Iterable[str], chooser: SnippetChooser, tokens: int) -> list[str]:
    """Return the first snippets of some documents, ``tokens`` tokens in all: what new rows must not disturb."""
    texts, taken = [], 0
    for text, ids in chooser.cut(documents):
        if taken >= tokens:
            break
        texts.append(text)
        taken += len(ids)
    return texts


def worthiest(found: Sequence[IntArray], sizes: Sequence[int], counts: IntArray, tokens: int) -> NDArray[np.bool_]:
    """Choose the snippets that are worth most for their length, until there are ``tokens`` tokens; bool (snippets,).

    ``found`` are the ids in training of each snippet, ``sizes`` its tokens, ``counts`` how often the text has each id. To
    meet an id for the (n + 1)th time is worth 1 / (n + 1)(n + 2), times the root of its count. Taken in the order of the
    documents instead, snippets that each bring a token or two that is new fill the room before most tokens are met.
    """
    lengths = np.array(sizes, np.int64)
    rows = sparse.csr_array(
        (np.ones(sum(map(len, found))), np.concatenate(found), row_pointers(np.array([len(ids) for ids in found]))),
        shape=(len(found), len(counts)),
    )
    wanted = np.sqrt(counts)
    chosen, met = np.zeros(len(found), np.bool_), np.zeros(len(counts))
    at_a_time = max(int(tokens / lengths.mean()) // _CHOICES, 1)
    while not chosen.all() and (left := tokens - lengths[chosen].sum()) > 0:
        worth = (rows @ (wanted / ((met + 1) * (met + 2)))) / lengths
        others = np.flatnonzero(~chosen)
        best = others[np.argsort(-worth[others], kind="stable")[:at_a_time]]
        best = best[np.cumsum(lengths[best]) - lengths[best] < left]
        chosen[best] = True
        met += rows[best].sum(axis=0)
    return chosen


class Cutter:
    """Two tokenizers that cut the same texts."""

    def __init__(self, new: PreTrainedTokenizerFast, old: PreTrainedTokenizerFast) -> None:
        self._sides = [(side, TokenBytes(Vocabulary.from_tokenizer(side))) for side in (new, old)]

    def __call__(
        self,
        texts: Sequence[str],
        read_rows: NDArray[np.bool_],
        trained: NDArray[np.bool_],
        counts: IntArray,
        *,
        others: int = 0,
    ) -> Snippets:
        """Cut texts with both and find the places that they share.

        ``read_rows`` and ``trained`` bool (rows,) are the tokens in training, those that train as inputs and all;
        ``counts`` are those of `choose_texts`; the last ``others`` texts were not chosen for their tokens, and are not
        weighted.
        """
        (new, ours), (old, theirs) = (self._cut(texts, side) for side in range(2))
        pairs = common_chunks(ours, theirs).pairs
        text = np.searchsorted(new.indptr, pairs[:, 0], side="right") - 1
        follows = np.append(new.ids, -1)[pairs[:, 0] + 1].astype(np.int64)
        follows[pairs[:, 0] + 1 == new.indptr[text + 1]] = -1
        read = np.concatenate(([0], np.cumsum(read_rows[new.ids])))
        return Snippets(
            new=new,
            old=old,
            text=text,
            column=pairs[:, 0] - new.indptr[text] + 1,
            old_column=pairs[:, 1] - old.indptr[text] + 1,
            following=follows,
            matched=read[pairs[:, 0] + 1] > read[new.indptr[text]],
            weight=_weights(follows, trained, counts, text < len(texts) - others),
        )

    def _cut(self, texts: Sequence[str], side: int) -> tuple[Pieces, Borders]:
        tokenizer, widths = self._sides[side]
        encoding = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        pieces, offsets = to_pieces(encoding["input_ids"], encoding["offset_mapping"])
        return pieces, widths.borders(pieces, texts, offsets)


def _weights(
    following: IntArray, trained: NDArray[np.bool_], counts: IntArray, chosen: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return how much each place counts, so that next tokens are as frequent as in the whole text."""
    asked = (following >= 0) & chosen
    kinds = np.where(trained[following], following, len(trained))  # all other tokens are one kind
    whole = np.append(counts * trained[: len(counts)], counts[~trained[: len(counts)]].sum())
    here = np.bincount(kinds[asked], minlength=len(trained) + 1)
    share = whole / np.maximum(here, 1)
    weight = np.where(asked, share[kinds], 0.0)
    weight = np.minimum(weight / max(weight[asked].mean() if asked.any() else 0.0, 1e-9), _HEAVIEST)
    weight = weight / max(weight[asked].mean() if asked.any() else 0.0, 1e-9)
    return np.where((following >= 0) & ~chosen, 1.0, weight).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Lessons:
    """What the untouched model said about snippets.

    ``early`` (matched places, hidden) are its states behind the early layer; ``last`` (places with a next token, hidden)
    what its head reads, and ``log_sum`` float32 the log-sum of the rows that stay. Both in the order of the places.
    """

    early: Tensor
    last: Tensor
    log_sum: Tensor

    def are_of(self, snippets: Snippets) -> bool:
        """Tell whether they are as many as the places of some snippets: a stage may get another length before it begins."""
        places = int(snippets.matched.sum()), int((snippets.following >= 0).sum())
        return places == (len(self.early), len(self.last))

    def tensors(self) -> dict[str, Tensor]:
        """Return the three by name."""
        return {"early": self.early, "last": self.last, "log_sum": self.log_sum}


def padded(pieces: Pieces, texts: IntArray, separator: int) -> NDArray[np.int64]:
    """Return some texts as rows that begin with the separator and are filled up with it."""
    lengths = np.diff(pieces.indptr)[texts]
    ids = np.full((len(texts), 1 + int(lengths.max(initial=0))), separator, np.int64)
    rows = np.repeat(np.arange(len(texts)), lengths)
    columns = runs(np.ones(len(texts), np.int64), lengths)
    ids[rows, columns] = pieces.ids[runs(pieces.indptr[texts], lengths)]
    return ids


def passes(sizes: IntArray, tokens: int = _TOKENS_A_PASS) -> Iterator[IntArray]:
    """Yield the numbers of texts of nearly one length, about ``tokens`` tokens with their filling at a time."""
    order = np.argsort(sizes, kind="stable")
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * (1 + sizes[order[stop]]) <= tokens:
            stop += 1
        yield order[start:stop]
        start = stop


def take_lessons(snippets: Snippets, teacher: EarlyLayers, head: RowHead, separator: int) -> Lessons:
    """Run the untouched model over the snippets once and keep what rows are fitted on."""
    asked = snippets.following >= 0
    matched_at, asked_at = (np.cumsum(kept) - 1 for kept in (snippets.matched, asked))
    width, kept_in = head.width, head.dtype
    early = torch.empty(int(snippets.matched.sum()), width, dtype=kept_in)
    last = torch.empty(int(asked.sum()), width, dtype=kept_in)
    log_sum = torch.empty(int(asked.sum()))
    begins = np.searchsorted(snippets.text, np.arange(len(snippets) + 1))
    groups = list(passes(np.diff(snippets.old.indptr)))
    with step("listening to the untouched model"):
        for texts in track(groups, "the untouched model"):
            ids = torch.from_numpy(padded(snippets.old, texts, separator)).to(head.device)
            middle, end = teacher.with_last(ids)
            lengths = begins[texts + 1] - begins[texts]
            places = runs(begins[texts], lengths)
            rows = np.repeat(np.arange(len(texts)), lengths)
            of_early, of_last = snippets.matched[places], asked[places]
            columns = snippets.old_column[places]
            early[matched_at[places[of_early]]] = middle[rows[of_early], columns[of_early]].to("cpu", kept_in)
            states = end[rows[of_last], columns[of_last]]
            at = asked_at[places[of_last]]
            last[at] = states.to("cpu", kept_in)
            log_sum[at] = head.log_sum(states).cpu()
    return Lessons(early, last, log_sum)
