"""A saved map applied to another size of its family, written and proved as a build is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vocabtransfer.checkpoint import WriteReport, check_target, open_checkpoint
from vocabtransfer.checkpoint.plan import Link
from vocabtransfer.files.cards import local_name
from vocabtransfer.files.text import TextLike, as_text
from vocabtransfer.initialization.norms import Norm
from vocabtransfer.pipeline.counting import count_words
from vocabtransfer.pipeline.facts import to_json
from vocabtransfer.pipeline.proof import Proof, prove_beside
from vocabtransfer.progress import step
from vocabtransfer.running.plan import running_facts
from vocabtransfer.surgery.family import apply_map
from vocabtransfer.surgery.opened_map import inspect
from vocabtransfer.surgery.transfer import TransferResult
from vocabtransfer.version import __version__
from vocabtransfer.vocabulary import Kind, Vocabulary

#: Tokens with most evidence that the proof's prompt is taken from where there is no text.
PROMPT_TOKENS = 200


@dataclass(frozen=True, eq=False)
class Applied:
    """What was made with a saved map, and written; the proof is that it loads and writes."""

    transfer: TransferResult
    written: WriteReport
    proof: Proof
    running: Mapping[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Return what a person wants to know, as JSON values."""
        made, written = self.transfer, self.written
        return {
            "source": made.source.name,
            "tokens": len(made.vocabulary),
            "rows_by_rule": made.token_map.counts_by_rule(),
            "calibrated": made.initialization.shift is not None,
            "running": dict(self.running),
            "output": str(written.path),
            "bytes_written": written.bytes_written,
            "bytes_linked": written.bytes_linked,
            "padded_rows": written.padded_rows,
            "proof": {"loaded": self.proof.loaded, "prompt": self.proof.prompt, "generated": self.proof.generated},
            "notes": [*made.notes, *written.notes, *filter(None, [self.proof.note])],
        }


def apply_saved_map(
    folder: Path,
    source: str,
    output: Path,
    *,
    text: TextLike | None = None,
    calibrate: bool | None = None,
    norm: Norm = "none",
    link: Link = "hard",
    pad_to_multiple_of: int = 1,
    overwrite: bool = False,
    allow_pickle: bool = False,
    revision: str | None = None,
    seed: int = 0,
) -> Applied:
    """Apply the map of a built folder to a model of the same family and write the result; see `apply_map`.

    Raises:
        VocabTransferError: what `apply_map` raises, an output that exists, no room on the disk, a failing proof.
    """
    check_target(output.absolute(), overwrite)
    opened = inspect(folder)
    with step(f"opening {source}"):
        model = open_checkpoint(source, allow_pickle=allow_pickle, revision=revision)
    words = count_words(as_text(text)) if text is not None else {}
    made = apply_map(opened, model, words=words, calibrate=calibrate, norm=norm, seed=seed)
    prompts = words or _frequent(opened.vocabulary, made)
    proofs: list[Proof] = []

    def proved(place: Path) -> None:
        with step("proving that the checkpoint loads and generates"):
            proofs.append(prove_beside(model, place, prompts, None))

    running = running_facts(model)
    report = {
        "vocabtransfer": __version__,
        "request": {"source": local_name(source), "map": local_name(folder), "norm": norm, "seed": seed},
        "method": {"name": made.method.name, "calibrated": made.initialization.shift is not None},
        "running": running,
        "rows_by_rule": made.token_map.counts_by_rule(),
        "notes": list(made.notes),
    }
    written = made.save(
        output,
        link=link,
        overwrite=overwrite,
        pad_to_multiple_of=pad_to_multiple_of,
        extra_files={"report.json": to_json(report)},
        check=proved,
    )
    return Applied(made, written, proofs[0], running)


def _frequent(vocabulary: Vocabulary, made: TransferResult) -> dict[str, float]:
    """Return words of the new vocabulary with most evidence, for a prompt."""
    evidence = made.token_map.evidence
    found: dict[str, float] = {}
    for i in (-evidence).argsort(kind="stable").tolist():
        text = (vocabulary.text(i) or "").strip()
        if vocabulary.kinds[i] == Kind.TEXT and vocabulary.word_initial[i] and len(text) > 2 and text.isalpha():
            found.setdefault(text, float(evidence[i]))
        if len(found) == PROMPT_TOKENS:
            break
    return found
