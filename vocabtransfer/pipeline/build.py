"""The main job: from a source model and a language name to a checkpoint that speaks with that language's vocabulary."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vocabtransfer.checkpoint import Checkpoint, WritePlan, WriteReport, check_target, open_checkpoint, plan_checkpoint
from vocabtransfer.corpora.folder import Corpus
from vocabtransfer.errors import UsageError
from vocabtransfer.evaluation.against_source import AgainstSource
from vocabtransfer.files.cards import local_name
from vocabtransfer.files.text import Text
from vocabtransfer.hydra import add_head, create_hydra, is_hydra, open_hydra
from vocabtransfer.hydra.names import check_free
from vocabtransfer.hydra.stored import StoredHead
from vocabtransfer.initialization import find_method
from vocabtransfer.languages import Language, find_language
from vocabtransfer.pipeline.distilled import Budget, distilled
from vocabtransfer.pipeline.evidence import gather_evidence
from vocabtransfer.pipeline.facts import build_facts, corpus_facts
from vocabtransfer.pipeline.gathering import find_held_out, is_given_data, no_data, ships, with_corpus
from vocabtransfer.pipeline.held_out import HeldOut
from vocabtransfer.pipeline.page import model_card
from vocabtransfer.pipeline.presets import with_preset
from vocabtransfer.pipeline.proof import Proof, prove_beside
from vocabtransfer.pipeline.report import pages
from vocabtransfer.pipeline.request import BuildRequest
from vocabtransfer.pipeline.scoring import score_result
from vocabtransfer.pipeline.spelling import unspelled_notes
from vocabtransfer.pipeline.target_tokenizer import TargetTokenizer, default_vocab_size, make_tokenizer
from vocabtransfer.pipeline.untied import untied
from vocabtransfer.progress import step
from vocabtransfer.public import public
from vocabtransfer.reprs import brief
from vocabtransfer.running.plan import find_device, running_facts
from vocabtransfer.running.settings import running_with
from vocabtransfer.surgery.evidence import Evidence
from vocabtransfer.surgery.kept_rows import with_kept_rows
from vocabtransfer.surgery.transfer import TransferResult, transfer
from vocabtransfer.version import __version__

__all__ = ["BuildRequest", "BuildResult", "build", "default_vocab_size"]


@dataclass(frozen=True, eq=False)
class BuildResult:
    """What a build did. ``written`` and ``proof`` are None after a dry run, and for a head, which is ``head``."""

    request: BuildRequest
    language: Language
    transfer: TransferResult
    facts: Mapping[str, Any]
    plan: WritePlan
    written: WriteReport | None = None
    head: StoredHead | None = None
    proof: Proof | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    _job: _Job | None = None

    def __repr__(self) -> str:
        return brief(
            self, path=self.written.path if self.written else None, language=self.language.name, transfer=self.transfer
        )

    @public
    def save(self, output: str | Path | None = None, *, overwrite: bool = False) -> BuildResult:
        """Write what a dry run made, as the build itself would have: checkpoint, report, model card, manifest, proof.

        Args:
            output: the folder; the one of the request when not given.
            overwrite: replace an output that vocabtransfer wrote.

        Raises:
            UsageError: the build is written already, or its rows are still to be distilled.
            VocabTransferError: an output that exists, no room on the disk.
        """
        if self._job is None or self.written is not None or self.head is not None:
            raise UsageError("This build is written already: only what a dry run made is saved.")
        if self.request.distill is not None:
            raise UsageError("A dry run distils no rows: build without `dry_run`, or leave out `distill`.")
        request = dataclasses.replace(self.request, overwrite=overwrite or self.request.overwrite)
        if output is not None:
            request = dataclasses.replace(request, output=Path(output))
        job = dataclasses.replace(self._job, request=request, output=_check_output(request, dry_run=False))
        return _written(dataclasses.replace(self, request=request), job)


@public
def build(request: BuildRequest, *, dry_run: bool = False) -> BuildResult:
    """Build a checkpoint with a new vocabulary; with ``dry_run`` do everything but write.

    Raises:
        UsageError: unknown language, method or alias, or options that exclude each other.
        VocabTransferError: an input that cannot be used, an output that exists, no room on the disk.
    """
    device = None if request.device is None else find_device(request.device)
    with running_with(device, request.dtype, request.memory):
        return _build(request, dry_run)


def _build(request: BuildRequest, dry_run: bool) -> BuildResult:
    clock = _Clock()
    language = find_language(request.target)
    request, preset_notes = with_preset(request)
    find_method(request.method)
    budget = Budget.parse(request.distill) if request.distill is not None else None
    output = _check_output(request, dry_run)
    if not (request.fetch or is_given_data(request)) and ships(language, request.source_language) is None:
        raise no_data(language, request.source_language)
    request, corpus = with_corpus(request, language)
    clock.lap("corpus")
    held_out = find_held_out(request, language)
    with step(f"opening {request.source}"):
        source = open_checkpoint(
            request.source,
            allow_pickle=request.allow_pickle,
            revision=request.revision,
            merge=request.merge_adapter,
        )
        _ = source.tokenizer
    source, untied_notes = untied(source, request)
    clock.lap("source")
    evidence, evidence_notes = gather_evidence(request, language, held_out, corpus)
    clock.lap("alignment")
    words, text = evidence.word_counts, evidence.running
    if budget is not None:
        _check_distillable(source, text)
    found = make_tokenizer(request, source, language, words, text, held_out.lines)
    tokenizer, notes = found.tokenizer, found.notes
    clock.lap("tokenizer")
    result = transfer(
        source,
        tokenizer,
        evidence,
        method=request.method,
        calibrate=request.calibrate,
        norm=request.norm,
        known=found.source_knows,
        seed=request.seed,
    )
    if found.kept is not None:
        result = with_kept_rows(result, found.kept)
    noted = (
        *preset_notes,
        *untied_notes,
        *_rowless(source),
        *evidence_notes,
        *notes,
        *unspelled_notes(tokenizer, words),
    )
    result = dataclasses.replace(result, notes=(*noted, *result.notes))
    clock.lap("token map")
    job = _Job(request, language, source, found, output, evidence, held_out, corpus, clock)
    if budget is None or dry_run or text is None:
        return _made(job, *_scored(job, result), None, dry_run=dry_run)
    result, before = _scored(job, result)
    with distilled(
        result,
        budget,
        output if request.as_head is None else output.with_name(f"{output.name}.{request.as_head}"),
        str(source.path),
        text(),
        evidence.source_running,
        seed=request.seed,
        allow_pickle=request.allow_pickle,
        overwrite=request.overwrite,
    ) as (taught, facts):
        clock.lap("distillation")
        if before is not None:
            facts["before"] = before.facts()["result"]
        return _made(job, *_scored(job, taught), facts, dry_run=False)


@dataclass(frozen=True, eq=False)
class _Job:
    """What the last part of a build needs of the first."""

    request: BuildRequest
    language: Language
    source: Checkpoint
    found: TargetTokenizer
    output: Path
    evidence: Evidence
    held_out: HeldOut
    corpus: Corpus | None
    clock: _Clock


def _scored(job: _Job, result: TransferResult) -> tuple[TransferResult, AgainstSource | None]:
    against, unscored = score_result(result, job.held_out, job.request.held_out_bytes)
    job.clock.lap("scoring")
    notes = (note for note in unscored if note not in result.notes)
    return dataclasses.replace(result, notes=(*result.notes, *notes)), against


def _made(
    job: _Job,
    result: TransferResult,
    against: AgainstSource | None,
    distillation: Mapping[str, Any] | None,
    *,
    dry_run: bool,
) -> BuildResult:
    """Say what was made, and write it unless this is a dry run."""
    request, language, source, found = job.request, job.language, job.source, job.found
    if against is not None:
        result = dataclasses.replace(result, notes=(*result.notes, *against.warnings()))
    plan = plan_checkpoint(
        source,
        job.output,
        vocabulary_size=len(result.vocabulary),
        link=request.link,
        pad_to_multiple_of=_multiple(request, found, source, len(result.vocabulary)),
    )
    facts = build_facts(
        result,
        language,
        job.evidence,
        _inputs(request),
        __version__,
        sizes=found.sizes,
    )
    facts["running"] = running_facts(source)
    facts["vocabulary"] = found.facts()
    facts["held_out"] = {"text": job.held_out.origin, **against.facts()} if against else None
    facts["distillation"] = dict(distillation) if distillation is not None else None
    facts["corpus"] = corpus_facts(job.corpus)
    made = BuildResult(request, language, result, facts, plan, seconds=job.clock.laps, _job=job)
    return made if dry_run else _written(made, job)


def _written(made: BuildResult, job: _Job) -> BuildResult:
    """Write a checkpoint or a head with its report, and prove it."""
    request, language, source, found, clock = job.request, job.language, job.source, job.found, job.clock
    result, facts = made.transfer, made.facts
    multiple = _multiple(request, found, source, len(result.vocabulary))
    report = {**found.files, **pages(facts, result)}
    if request.as_head is not None and request.into is not None:
        hydra = open_hydra(request.into) if is_hydra(request.into) else create_hydra(source, request.into)
        head = add_head(
            hydra,
            request.as_head,
            result,
            language=language.tag,
            pad_to_multiple_of=multiple,
            extra_files=report,
        )
        clock.lap("writing")
        return dataclasses.replace(made, head=head, seconds=clock.laps)
    proofs: list[Proof] = []

    def proved(folder: Path) -> None:
        clock.lap("writing")
        with step("proving that the checkpoint loads and generates"):
            proofs.append(prove_beside(source, folder, job.evidence.word_counts, language))
        clock.lap("proof")

    written = result.save(
        job.output,
        link=request.link,
        overwrite=request.overwrite,
        pad_to_multiple_of=multiple,
        extra_files={**report, "README.md": model_card(facts)},
        check=proved,
    )
    return dataclasses.replace(made, written=written, proof=proofs[0], seconds=clock.laps)


def _check_distillable(source: Checkpoint, text: Text | None) -> None:
    """Raise `UsageError` where new rows have nothing to learn from."""
    if text is None:
        raise UsageError("`distill` needs running text in the target language: give `text` or `parallel`.")
    if not source.continues_text:
        raise UsageError(f"`distill` is for models that continue text, and {source.name} does not: leave it out.")


def _check_output(request: BuildRequest, dry_run: bool) -> Path:
    """Return where the result goes, after checking that it may."""
    if (request.as_head is None) != (request.into is None) or (request.output is None) == (request.into is None):
        raise UsageError("Give `output` for a checkpoint, or `as_head` NAME and `into` HYDRA for a head.")
    if request.as_head is not None and request.into is not None:
        check_free(request.as_head, open_hydra(request.into).names() if is_hydra(request.into) else [], request.into)
        if not dry_run and not is_hydra(request.into):
            check_target(request.into.absolute(), False)
        return request.into.absolute()
    assert request.output is not None, "one of the two was given"
    if not dry_run:
        check_target(request.output.absolute(), request.overwrite)
    return request.output.absolute()


def _rowless(source: Checkpoint) -> tuple[str, ...]:
    if not source.rowless_tokens:
        return ()
    named = ", ".join(map(repr, source.rowless_tokens[:3]))
    return (f"The table of {source.name} has no row for {named}: left out of the vocabulary.",)


def _multiple(request: BuildRequest, found: TargetTokenizer, source: Checkpoint, tokens: int) -> int:
    """Return what the number of rows is rounded up to: a swapped vocabulary keeps the rows that its table has."""
    if found.in_place and request.pad_to_multiple_of == 1 and tokens <= source.layout.vocabulary_rows:
        return source.layout.vocabulary_rows
    return request.pad_to_multiple_of


def _inputs(request: BuildRequest) -> dict[str, Any]:
    """Return the request as facts for the report: names of files, not their folders, so that outputs are portable."""
    facts: dict[str, Any] = {}
    for entry in dataclasses.fields(request):
        value = getattr(request, entry.name)
        if entry.name in ("output", "into", "overwrite", "link") or value is None or value in ((), False, Text()):
            continue
        facts[entry.name] = local_name(value) if entry.name in ("source", "donor") else _plain(value)
    return facts


def _plain(value: Any) -> Any:
    if isinstance(value, Text):
        return value.names()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.name if isinstance(value, Path) else value


class _Clock:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 2)
        self._last = now
