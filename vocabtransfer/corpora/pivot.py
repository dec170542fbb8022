"""Sentence pairs by way of a third language, where direct ones are few."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

#: A string with more renderings than this ("OK", "None") says nothing about which belongs to which.
MOST_RENDERINGS = 8


def join_pairs(first: Iterable[tuple[str, str]], second: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield (text of the first, text of the second) for every pivot sentence that both have, each pair once.

    Both give (pivot, text). A pivot with more than 8 renderings on a side is passed over: it is ambiguous.

    >>> list(join_pairs([("Open", "Открыть"), ("Close", "Закрыть")], [("Open", "Ачу"), ("Save", "Саклау")]))
    [('Открыть', 'Ачу')]
    """
    known: dict[str, list[str]] = defaultdict(list)
    for pivot, text in first:
        known[pivot].append(text)
    renderings: dict[str, list[str]] = defaultdict(list)
    for pivot, text in second:
        if pivot in known:
            renderings[pivot].append(text)
    seen: set[tuple[str, str]] = set()
    for pivot, texts in renderings.items():
        ours, others = dict.fromkeys(known[pivot]), dict.fromkeys(texts)
        if max(len(ours), len(others)) > MOST_RENDERINGS:
            continue
        for pair in ((one, other) for one in ours for other in others):
            if pair not in seen:
                seen.add(pair)
                yield pair
