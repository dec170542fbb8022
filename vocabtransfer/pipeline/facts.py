"""The facts of a build, as one JSON object. No times and no machine: the same build gives the same bytes."""

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from vocabtransfer.alignment.words import begins_word
from vocabtransfer.corpora.folder import Corpus
from vocabtransfer.initialization.inputs import TransferInputs
from vocabtransfer.languages import Language
from vocabtransfer.pipeline.samples import cut_lines, sample_lines
from vocabtransfer.surgery.evidence import Evidence
from vocabtransfer.surgery.transfer import TransferResult
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.tokenization.size import SizeChoice
from vocabtransfer.vocabulary import Kind

EVIDENCE_EDGES = (0, 1, 3, 10, 30, 100, 300, 1000)
EXAMPLES = 24
SAMPLE_WORDS = 50_000


def build_facts(
    result: TransferResult,
    language: Language,
    evidence: Evidence,
    request: Mapping[str, Any],
    version: str,
    *,
    sizes: SizeChoice | None = None,
) -> dict[str, Any]:
    """Collect what was done, from what, and what came out.

    ``sizes`` is what the vocabulary's size was chosen from; of the text a few sentences are shown as they are cut.
    """
    table, words = evidence.alignment, evidence.word_counts
    inputs, layout = result.inputs, result.source.layout
    shift = result.initialization.shift
    return {
        "vocabtransfer": version,
        "request": dict(request),
        "source": {
            "name": result.source.name,
            "architecture": result.source.architecture or "unknown",
            "rows": layout.rows,
            "hidden": layout.hidden,
            "tied": layout.tied,
            "vocabulary": len(inputs.source_vocabulary),
        },
        "language": {
            "name": language.name,
            "code": language.code,
            "script": language.script,
            "endonym": language.endonym,
        },
        "method": {
            "name": result.method.name,
            "summary": result.method.summary,
            "reference": result.method.reference,
            "calibrated": shift is not None,
        },
        "tokenizer": {
            "vocabulary": len(result.vocabulary),
            "scheme": str(result.vocabulary.scheme),
            **tokens_per_word(words, inputs),
            "sizes": sizes.facts() if sizes else None,
        },
        "alignment": dict(table.metadata) if table is not None else None,
        "memory": table_memory(result),
        "samples": cut_lines(result, sample_lines(evidence.running, words)),
        "rows_by_rule": result.token_map.counts_by_rule(),
        "evidence": evidence_histogram(result),
        "examples": examples(result),
        "notes": list(result.notes),
    }


def tokens_per_word(words: Mapping[str, float], inputs: TransferInputs) -> dict[str, float]:
    """Return the mean number of tokens of a running word with letters, with the source's and the target's tokenizer."""
    lettered = {word: count for word, count in words.items() if begins_word(word) and not word[:1].isnumeric()}
    frequent = sorted(lettered, key=lambda word: (-lettered[word], word))[:SAMPLE_WORDS]
    if not frequent:
        return {}
    counts = np.array([lettered[word] for word in frequent])

    def mean(encoder: PieceEncoder) -> float:
        lengths = np.diff(encoder.encode_words(frequent).indptr)
        return round(float((lengths * counts).sum() / counts.sum()), 3)

    return {"tokens_per_word_before": mean(inputs.source), "tokens_per_word_after": mean(inputs.target)}


def table_memory(result: TransferResult) -> dict[str, int]:
    """Return the bytes that tables over the vocabulary take, before and after, in the type they are stored in."""
    source = result.source
    before = sum(source.tensors[tensor.name].nbytes for tensor in source.layout.tensors)
    infos = ((source.tensors[tensor.name], tensor.axis) for tensor in source.layout.tensors)
    rows = sum(info.nbytes // info.shape[axis] for info, axis in infos)
    body = sum(info.nbytes for info in source.tensors.values()) - before
    return {"tables_before": before, "tables_after": rows * len(result.vocabulary), "body": body}


def evidence_histogram(result: TransferResult) -> list[dict[str, Any]]:
    """Count tokens by the weight of the observations behind them (special tokens left out)."""
    ordinary = result.vocabulary.kinds <= Kind.BYTE
    evidence = result.token_map.evidence[ordinary]
    edges = (*EVIDENCE_EDGES, np.inf)
    counts, _ = np.histogram(evidence, bins=edges)
    labels = [f"{low} to {high}" for low, high in pairwise(EVIDENCE_EDGES)]
    labels.append(f"{EVIDENCE_EDGES[-1]} and more")
    labels[0] = "less than 1"
    return [{"evidence": label, "tokens": int(count)} for label, count in zip(labels, counts, strict=True)]


def examples(result: TransferResult) -> list[dict[str, Any]]:
    """Explain the whole words with the most aligned evidence, and a few rows of every other rule."""
    token_map, vocabulary = result.token_map, result.vocabulary
    chosen: list[int] = []
    for code, rule in enumerate(token_map.rule_names):
        rows = np.flatnonzero(token_map.rule == code)
        if not len(rows):
            continue
        worth = np.array([_worth(vocabulary.text(i), bool(vocabulary.word_initial[i])) for i in rows.tolist()])
        order = np.lexsort((rows, -worth * (1 + token_map.evidence[rows])))
        chosen += rows[order[: EXAMPLES if rule == "aligned" else 4]].tolist()
    return [explained(result, row) for row in chosen]


def explained(result: TransferResult, row: int, limit: int = 5) -> dict[str, Any]:
    """Return one row's explanation as plain data."""
    explanation = result.explain(row)
    return {
        "id": explanation.id,
        "token": explanation.token,
        "text": explanation.text,
        "name": result.vocabulary.readable(row),
        "rule": explanation.rule,
        "evidence": round(explanation.evidence, 2),
        "sources": [[name, round(weight, 4)] for name, weight in explanation.sources[:limit]],
    }


def _worth(text: str | None, initial: bool) -> float:
    """Prefer whole words that a reader recognises."""
    if not text or not text.strip().isalpha():
        return 0.01
    return float(initial) + min(len(text.strip()), 6) / 6


def corpus_facts(corpus: Corpus | None) -> dict[str, Any] | None:
    """Return what report and model card say of a fetched corpus: totals, licences, whom to name."""
    if corpus is None:
        return None
    return {
        "totals": dict(corpus.facts["totals"]),
        "licences": corpus.licences(),
        "parts": corpus.credits(),
        "warnings": list(corpus.facts["warnings"]),
        "held_out": corpus.facts.get("held_out"),
        "missing": list(corpus.facts["missing"]),
    }


def to_json(facts: Mapping[str, Any]) -> bytes:
    """Return facts as indented UTF-8 JSON with a final newline."""
    return (json.dumps(facts, ensure_ascii=False, indent=2) + "\n").encode()
