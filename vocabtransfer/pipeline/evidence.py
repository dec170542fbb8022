"""The evidence of a build: word pairs, word counts and running text, from whatever files a person gave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vocabtransfer.alignment.aligner import align_corpus
from vocabtransfer.alignment.corpora import read_parallel
from vocabtransfer.alignment.dictionary import dictionary_table, with_dictionary
from vocabtransfer.alignment.table import WordTable, merge_tables
from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.corpora.folder import Corpus
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.text import Text, read_text
from vocabtransfer.initialization import Need, VectorFiles, find_method
from vocabtransfer.languages import Language, find_language
from vocabtransfer.pipeline.counting import count_words
from vocabtransfer.pipeline.gathering import entries, ships
from vocabtransfer.pipeline.held_out import HeldOut
from vocabtransfer.pipeline.language_check import LanguageCheck
from vocabtransfer.pipeline.request import BuildRequest
from vocabtransfer.surgery.evidence import Evidence

#: Sentence pairs below which a person is told that there were few.
FEW_PAIRS = 1_000


def gather_evidence(
    request: BuildRequest, language: Language, held_out: HeldOut, corpus: Corpus | None
) -> tuple[Evidence, tuple[str, ...]]:
    """Read, align and count what the request names, without the held-out text; with notes for a person.

    Raises:
        UsageError: another number of weights than of tables.
        VocabTransferError: an input that cannot be used, or none where the method needs a table.
    """
    table = _table(request, language, held_out)
    if table is None and Need.ALIGNMENT in find_method(request.method).needs:
        raise VocabTransferError(
            f"No alignment table ships for {language.name}: give `parallel` with sentence pairs, `alignment` with a "
            "table, or choose `method='pieces'`."
        )
    words, notes = _words(request, held_out, language, corpus)
    sources = None
    if request.parallel:
        sources = Text(source=lambda: (pair[0] for pair in _pairs(request, language, held_out)))
    return Evidence(
        alignment=table,
        words=words,
        text=_text(request, language, held_out),
        source_text=sources,
        donor=open_checkpoint(request.donor) if request.donor else None,
        vectors=VectorFiles(request.source_vectors, request.target_vectors),
    ), (*notes, *_thin(table))


def _table(request: BuildRequest, language: Language, held_out: HeldOut) -> WordTable | None:
    words = entries(request)
    table = _sentence_table(request, language, held_out, words)
    if not words:
        return table
    if table is None:
        return dictionary_table(words, weight=request.dictionary_weight)
    return with_dictionary(table, words, weight=request.dictionary_weight)


def _sentence_table(
    request: BuildRequest, language: Language, held_out: HeldOut, words: Iterable[tuple[str, str]]
) -> WordTable | None:
    weights = request.alignment_weights or (1.0,) * len(request.alignment)
    if len(weights) != len(request.alignment):
        raise UsageError(f"{len(request.alignment)} tables were given but {len(weights)} weights: give each one.")
    tables = [WordTable.load(path) for path in request.alignment]
    if request.parallel:  # tables stand beside what the sentences say
        tables.insert(0, align_corpus(_pairs(request, language, held_out), dictionary=words))
        weights = (1.0, *weights)
    if tables:
        return tables[0] if len(tables) == 1 else merge_tables(tables, weights)
    return ships(language, request.source_language)


def _thin(table: WordTable | None) -> tuple[str, ...]:
    pairs = table.metadata.get("pairs") if table is not None else None
    if not isinstance(pairs, int) or pairs >= FEW_PAIRS:
        return ()
    return (f"The alignment rests on only {pairs:,} sentence pairs, so most rows come from the pieces of their text.",)


def _words(
    request: BuildRequest, held_out: HeldOut, language: Language, corpus: Corpus | None
) -> tuple[dict[str, float] | None, tuple[str, ...]]:
    """Count the words of the text; None without one, where those of the table count.

    It is also said where the text, or the target side of the pairs, seems to be in another script or language; of a
    fetched corpus that was said by itself.
    """
    if request.text:
        text = read_text(request.text)
        check = LanguageCheck(language, f"The text ({', '.join(text.names())})" if text.files else "The text")
        return count_words(text, held_out.allowed(text), check.see), check.notes()
    notes: tuple[str, ...] = ()
    if request.parallel and corpus is None:
        names = ", ".join(path.name for path in request.parallel)
        check = LanguageCheck(language, f"The target side of the pairs ({names})")
        for _, line in _pairs(request, language, held_out):
            check.see(line)
        notes = check.notes()
    return None, notes


def _text(request: BuildRequest, language: Language, held_out: HeldOut) -> Text | None:
    """Return what gives running text in the target language, if there is any."""
    if request.text:
        return Text(source=lambda: held_out.allowed(read_text(request.text)))
    return Text(source=lambda: (pair[1] for pair in _pairs(request, language, held_out))) if request.parallel else None


def _pairs(request: BuildRequest, language: Language, held_out: HeldOut) -> Iterator[tuple[str, str]]:
    source = find_language(request.source_language)
    return iter(
        held_out.allowed_pairs(read_parallel(request.parallel, columns=request.columns, source=source, target=language))
    )
