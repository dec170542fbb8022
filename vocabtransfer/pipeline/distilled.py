"""`distill`: the new rows learn from the untouched source before the result is scored and written.

The undistilled checkpoint, the text and the state of the run lie in a folder beside the output, ``OUTPUT.distilling``,
until the build is done. The same command, given again after an interruption, makes the same rows and goes on with the
distillation where it stopped.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vocabtransfer.errors import UsageError
from vocabtransfer.files.json_files import read_json
from vocabtransfer.files.whole import whole_path
from vocabtransfer.progress import step
from vocabtransfer.running.half_body import multiplies_bfloat16
from vocabtransfer.running.plan import own_device
from vocabtransfer.running.settings import run_settings
from vocabtransfer.surgery.trained_rows import with_trained_rows
from vocabtransfer.surgery.transfer import TransferResult
from vocabtransfer.training import AdaptRequest, Interrupted, Stage
from vocabtransfer.training.adaptation import DistilledRows, distilled_rows
from vocabtransfer.training.processes import Precision
from vocabtransfer.training.rates import rate_for
from vocabtransfer.training.row_pace import updates_within
from vocabtransfer.training.stage import NEW
from vocabtransfer.training.state import SETTINGS, state_folder

#: Meant for a table like SmolLM2's, see `rate_for`; 5e-4 for Gemma 3 270M.
LEARNING_RATE = 1.38e-3
BLOCK, TOKENS_AN_UPDATE = 128, 512
#: Text in the source's language that is kept beside, as a share of the text: old rows that make room must not disturb it.
OTHER_SHARE = 0.1
SAVE_EVERY = 25
_DOCUMENT_CHARACTERS = 1_500
_PACE = "pace.json"

_BUDGET = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>[kM]?)(?P<kind>tokens?|updates?|min(utes)?|h)?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6}


@dataclass(frozen=True)
class Budget:
    """How much is distilled: a number of updates of 512 tokens, or minutes."""

    updates: int | None = None
    minutes: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read updates (``400``), tokens (``200k``, ``1.5Mtokens``) or a time (``20min``, ``2h``); `UsageError` else.

        >>> Budget.parse("400").updates, Budget.parse("200k").updates, Budget.parse("2h").minutes
        (400, 391, 120.0)
        """
        found = _BUDGET.fullmatch(text)
        if found is None:
            raise UsageError(
                f"`distill` {text}: give a number of updates, such as 400, of tokens, such as 200k, or a time, such as "
                "20min."
            )
        number, kind = float(found["number"]) * _UNITS[found["unit"]], found["kind"] or ""
        if number <= 0:
            raise UsageError(f"`distill` {text}: it must be more than nothing.")
        if kind in ("min", "minutes", "h"):
            return cls(minutes=number * (60 if kind == "h" else 1))
        if kind.startswith("token") or (found["unit"] and not kind):
            number = -(-number // TOKENS_AN_UPDATE)
        return cls(updates=max(round(number), 1))


@contextmanager
def distilled(
    result: TransferResult,
    budget: Budget,
    beside: Path,
    source: str,
    lines: Iterable[str],
    other_lines: Iterable[str] | None,
    *,
    seed: int,
    allow_pickle: bool = False,
    overwrite: bool = False,
) -> Iterator[tuple[TransferResult, dict[str, Any]]]:
    """Distil the new rows of a result and yield it with them, and the facts of the run.

    ``beside`` is the build's output: the folder of the run lies next to it and is removed when the block ends well.
    ``lines`` are text in the target language, ``other_lines`` in the source's. Raises what `adapt` raises; what was
    trained is then kept, and the same call goes on from there.
    """
    folder = beside.with_name(f"{beside.name}.distilling")
    made, text, others = folder / "made", folder / "text.txt", folder / "others.txt"
    folder.mkdir(parents=True, exist_ok=True)
    with step("writing what is distilled"):
        result.save(made, overwrite=True)
        _write_documents(lines, text)
        has_others = other_lines is not None and _write_documents(other_lines, others)
    request = AdaptRequest(
        model=str(made),
        text=(text,),
        source_text=(others,) if has_others else (),
        source_share=OTHER_SHARE if has_others else None,
        output=folder / "rows",
        block=BLOCK,
        batch_tokens=TOKENS_AN_UPDATE,
        save_every=SAVE_EVERY,
        dtype=_precision(),
        device=own_device(),
        objective="distill",
        teacher=source,
        resume=not overwrite,
        overwrite=overwrite,
        allow_pickle=allow_pickle,
        seed=seed,
    )
    updates = budget.updates or _updates(folder, request, budget)
    request = replace(request, stages=(Stage(NEW, updates, False, rate_for(result.source, LEARNING_RATE)),))
    with ExitStack() as stack:
        rows = _begun(stack, request, folder)
        stage = rows.facts["stages"][0]
        facts = {
            "updates": stage["updates"],
            "tokens": stage["tokens"],
            "rows": len(rows.numbers),
            "new_rows": rows.facts["new_rows"],
            "layer": rows.facts["teacher_layer"],
            "learning_rate": stage["learning_rate"],
            "first_loss": round(stage["first_loss"], 3),
            "last_loss": round(stage["last_loss"], 3),
        }
        yield with_trained_rows(result, rows.numbers, rows.values), facts  # type: ignore[arg-type]
    shutil.rmtree(folder)


def _precision() -> Precision:
    """Return what is computed in: what was asked for, else bfloat16 but on a CPU that has no instructions for it."""
    asked = run_settings().dtype
    if asked is not None:
        return "fp32" if asked == "float32" else "bf16"
    return "bf16" if own_device() != "cpu" or multiplies_bfloat16() else "fp32"


def _begun(stack: ExitStack, request: AdaptRequest, folder: Path) -> DistilledRows:
    """Train the rows inside ``stack``; what stops that is told in the words of a build."""
    interrupted = state_folder(request.output).is_dir() and request.resume
    try:
        return stack.enter_context(distilled_rows(request))
    except Interrupted as stopped:
        raise Interrupted(stopped.update, stopped.stage, "give the same command again to go on from there") from None
    except UsageError as problem:
        if not interrupted:
            raise
        raise UsageError(
            f"{folder} holds a distillation that was begun with other settings or text: give the command that began it, or "
            "`overwrite` to begin anew."
        ) from problem


def _updates(folder: Path, request: AdaptRequest, budget: Budget) -> int:
    """Return how many updates the time is worth, measured once for a run."""
    assert budget.minutes is not None, "a budget is the one or the other"
    kept = folder / _PACE
    going_on = (state_folder(request.output) / SETTINGS).is_file() and not request.overwrite
    if going_on and kept.is_file():
        known = read_json(kept)
        if known.get("minutes") == budget.minutes:
            return int(known["updates"])
    updates = updates_within(budget.minutes, request)
    with whole_path(kept) as path:
        path.write_text(json.dumps({"minutes": budget.minutes, "updates": updates}), encoding="utf-8")
    return updates


def _write_documents(lines: Iterable[str], path: Path) -> bool:
    """Write neighbouring lines, each once, as documents of some 1,500 characters; tell whether there were any."""
    length, seen = 0, set[int]()
    with path.open("w", encoding="utf-8") as file:
        for line in (line.strip() for line in lines):
            if not line or hash(line) in seen:
                continue
            seen.add(hash(line))
            file.write(line + "\n")
            length += len(line)
            if length >= _DOCUMENT_CHARACTERS:
                file.write("\n")
                length = 0
    return bool(seen)
