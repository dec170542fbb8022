"""The words of a text in the target language, counted."""

from collections.abc import Callable, Iterable

from vocabtransfer.alignment.words import WordCounts, in_order
from vocabtransfer.files.text import Text
from vocabtransfer.progress import track


def count_words(
    text: Text, lines: Iterable[str] | None = None, see: Callable[[str], None] | None = None
) -> dict[str, float]:
    """Return how often each word stands in a text, or in those of its ``lines`` that count, in the order of the words.

    ``see`` is shown every line. Raises `VocabTransferError` naming the text where there is no word.
    """
    words = WordCounts()
    for line in track(text() if lines is None else lines, "counting words"):
        words.add(line)
        if see is not None:
            see(line)
    return in_order(words.counts(), str(text))
