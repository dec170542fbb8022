"""What lies beside a checkpoint for people and programs: report.json, report.html and the model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vocabtransfer.evaluation.against_source import HELD_OUT_BYTES
from vocabtransfer.files.text import TextLike, as_text
from vocabtransfer.languages import find_language
from vocabtransfer.pipeline.facts import build_facts, to_json
from vocabtransfer.pipeline.held_out import HeldOut
from vocabtransfer.pipeline.page import model_card, render_page
from vocabtransfer.pipeline.scoring import score_result
from vocabtransfer.public import public
from vocabtransfer.running.plan import running_facts
from vocabtransfer.surgery.evidence import Evidence
from vocabtransfer.surgery.transfer import TransferResult
from vocabtransfer.version import __version__


def pages(facts: Mapping[str, Any], result: TransferResult) -> dict[str, bytes]:
    """Return report.json and report.html, as a checkpoint and a head have them."""
    return {"report.json": to_json(facts), "report.html": render_page(facts, result)}


@public
def report_files(
    result: TransferResult,
    language: str,
    evidence: Evidence | None = None,
    *,
    held_out: TextLike | None = None,
    held_out_bytes: int = HELD_OUT_BYTES,
) -> dict[str, bytes]:
    """Return what `build` writes beside a checkpoint, for the result of `transfer`: name -> content.

    Give it to ``result.save(folder, extra_files=...)``: report.json, report.html and the model card README.md.

    Args:
        result: what `transfer` made.
        language: the target language: name, ISO code, BCP 47 tag or endonym.
        evidence: what the rows were made from; its text is shown as both tokenizers cut it.
        held_out: text that was used for nothing else: the result and the untouched model are scored on it.
        held_out_bytes: how much of it is scored.

    Raises:
        UsageError: there is no such language, or the held-out text is none.
    """
    spoken, evidence = find_language(language), evidence or Evidence()
    against = None
    if held_out is not None:
        text = as_text(held_out)
        kept = HeldOut(tuple(text()), ", ".join(text.names()) or "held_out")
        against, unscored = score_result(result, kept, held_out_bytes)
        said = (*unscored, *(against.warnings() if against else ()))
        result = replace(result, notes=(*result.notes, *(note for note in said if note not in result.notes)))
    request = {"source": result.source.name, "target": language, "method": result.method.name, "norm": result.norm}
    facts = build_facts(result, spoken, evidence, request, __version__)
    facts["running"] = running_facts(result.source)
    facts["held_out"] = {"text": kept.origin, **against.facts()} if against else None
    facts |= dict.fromkeys(("vocabulary", "distillation", "corpus"))
    return {**pages(facts, result), "README.md": model_card(facts)}
