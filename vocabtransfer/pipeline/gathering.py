"""What a build is made from: files a person gives, a fetched corpus, or what can be fetched for a language by its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from vocabtransfer.alignment.corpora import read_parallel
from vocabtransfer.alignment.dictionary_files import read_dictionary
from vocabtransfer.alignment.table import WordTable, shipped_table
from vocabtransfer.corpora.folder import PAIR_COLUMNS, Corpus, open_corpus
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.cache import cache_folder
from vocabtransfer.languages import Language, find_language
from vocabtransfer.pipeline.held_out import HeldOut, from_files, set_aside, shipped
from vocabtransfer.pipeline.request import BuildRequest

#: Sources that an error names when they cannot be asked; `corpus list` names them all.
MOST_UNASKED = 5


def is_given_data(request: BuildRequest) -> bool:
    """Tell whether a person gave anything to build from besides the names."""
    given = request.parallel or request.text or request.alignment or request.dictionary
    return bool(given or request.corpus or request.tokenizer)


def with_corpus(request: BuildRequest, language: Language) -> tuple[BuildRequest, Corpus | None]:
    """Return the request with the files of its corpus filled in, fetched first where it asks for that.

    Raises `UsageError` for a corpus beside other data, `VocabTransferError` when the corpus is of another language.
    """
    if request.fetch:
        if request.parallel or request.text or request.corpus or request.tokenizer:
            raise UsageError("`fetch` gets the data itself: leave out `parallel`, `text`, `corpus` and `tokenizer`.")
        request = dataclasses.replace(request, corpus=_fetched(request, language), fetch=False)
    if request.corpus is None:
        return request, None
    if request.parallel or request.text:
        raise UsageError("Give either `corpus` or `parallel` and `text`, not both.")
    corpus = open_corpus(request.corpus)
    if corpus.facts["language"]["tag"] != language.tag:
        raise VocabTransferError(
            f"{corpus.path} is a corpus of {corpus.facts['language']['name']}, not {language.name}."
        )
    # Few strings of programs make a poor tokenizer beside running text; both together make a better one.
    return dataclasses.replace(
        request,
        parallel=(corpus.pairs,) if corpus.pairs else (),
        text=(corpus.text,) if corpus.text else (),
        dictionary=(*request.dictionary, *((corpus.dictionary,) if corpus.dictionary else ())),
        held_out=request.held_out or ((corpus.held_out,) if corpus.held_out else ()),
        columns=PAIR_COLUMNS,
        source_language=corpus.facts["source_language"]["tag"],
    ), corpus


def fetched_folder(language: Language, source_language: str) -> Path:
    """Return where `fetch` keeps the corpus of a language, so that the next build need not fetch."""
    return cache_folder("corpora", "fetched") / f"{find_language(source_language).tag}-{language.tag}"


def _fetched(request: BuildRequest, language: Language) -> Path:
    from vocabtransfer.corpora.fetch import fetch_corpus

    folder = fetched_folder(language, request.source_language)
    if not (folder / "corpus.json").is_file():
        fetch_corpus(language, folder, source_language=request.source_language)
    return folder


def no_data(language: Language, source_language: str) -> VocabTransferError:
    """Return the error for a language that nothing ships for, with what can be reached and the command that gets it."""
    from vocabtransfer.corpora.catalogue import list_corpora, unasked

    offers = [o for o in list_corpora(language, source_language=source_language) if o.kind != "held-out"]
    trained = [offer for offer in offers if not offer.refusal]
    left_out = "; ".join(unasked(offers, MOST_UNASKED))
    command = f"`vocabtransfer corpus fetch {language.tag} --output corpus-{language.tag}`"
    if not trained:
        return VocabTransferError(
            f"No table ships for {language.name} and no source of text answers from here (see `vocabtransfer corpus list "
            f"{language.tag}`): give `parallel`, `text` or `dictionary` with your own files. Not asked: "
            f"{left_out or 'no source has the language'}."
        )
    known = sum(offer.bytes or 0 for offer in trained)
    size = f", {known / 1e6:,.0f} MB of downloads or more" if known else ""
    names = ", ".join(offer.label for offer in trained[:4]) + (", ..." if len(trained) > 4 else "")
    return VocabTransferError(
        f"No table ships for {language.name}, but {len(trained)} sources have it ({names}{size}): add `fetch` to get "
        f"them, run {command} and give `corpus='corpus-{language.tag}'`, or give `parallel` with your own sentence pairs."
        + (f" Not asked: {left_out}." if left_out else "")
    )


def ships(language: Language, source_language: str) -> WordTable | None:
    """Return the table that ships for a language; only English ones do."""
    return shipped_table(language) if find_language(source_language).code == "en" else None


def entries(request: BuildRequest) -> list[tuple[str, str]]:
    """Return the entries of all dictionaries given."""
    languages = find_language(request.source_language), find_language(request.target)
    return [entry for path in request.dictionary for entry in read_dictionary(path, languages)]


def find_held_out(request: BuildRequest, language: Language) -> HeldOut:
    """Return the text to score on: the person's own or the corpus', a part of the text given, or what ships."""
    if request.held_out:
        return from_files(request.held_out, ", ".join(path.name for path in request.held_out))
    if request.held_out_bytes == 0:
        return HeldOut()
    if request.text:
        from vocabtransfer.files.text import read_text

        return set_aside(read_text(request.text), "set aside from the text", request.held_out_bytes)
    if request.parallel:
        return set_aside(_targets(request, language), "set aside from the sentence pairs", request.held_out_bytes)
    return shipped(language)


def _targets(request: BuildRequest, language: Language) -> Iterable[str]:
    pairs = read_parallel(
        request.parallel, columns=request.columns, source=find_language(request.source_language), target=language
    )
    return (target for _, target in pairs)
