"""`vocabtransfer evaluate`: bits per byte on raw text, and tasks of lm-eval."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vocabtransfer.errors import UsageError
from vocabtransfer.progress import show_progress

from .arguments import DEVICE_HELP, DTYPE, FIELD, KINDS, MEMORY, RUNNING, memory_bytes, text_files
from .output import JSON_OPTION, print_json, print_table, quiet_transformers

if TYPE_CHECKING:
    from vocabtransfer.files.text import Text


def evaluate(
    model: str = typer.Argument(..., help="Folder, alias or hub id of a causal language model."),
    text: list[Path] = typer.Option([], help=f"Raw text: {KINDS}. Repeatable."),
    suite: list[str] = typer.Option(
        [], metavar="TASK[,TASK]", help="Likelihood tasks of lm-eval (extra suite): names, or a YAML file. Repeatable."
    ),
    suite_limit: int | None = typer.Option(None, min=1, help="Examples of each task, at most."),
    few_shot: int | None = typer.Option(None, min=0, help="Examples before each question [default: the task's]."),
    baseline: str | None = typer.Option(None, help="The untouched source: scored on the same bytes, side by side."),
    field: str | None = FIELD,
    window: int | None = typer.Option(None, min=2, help="Tokens the model sees at once."),
    max_bytes: int | None = typer.Option(None, min=1, help="Stop after so many bytes of text."),
    device: str | None = typer.Option(None, help=f"{DEVICE_HELP} [default: auto].", rich_help_panel=RUNNING),
    dtype: str | None = DTYPE,
    memory: str | None = MEMORY,
    as_json: bool = JSON_OPTION,
) -> None:
    """Measure bits per byte on raw text, comparable whatever the tokenizer, with fertility; run tasks of lm-eval.

    Example: `vocabtransfer evaluate build/smollm2-tatar --baseline smollm2 --text tatar.txt`
    """
    from vocabtransfer.running.settings import running_with

    quiet_transformers()
    tasks = [name.strip() for names in suite for name in names.split(",") if name.strip()]
    if not text and not tasks:
        raise UsageError("Give --text to score, --suite with tasks of lm-eval, or both.")
    if not tasks and (suite_limit is not None or few_shot is not None):
        raise UsageError("--suite-limit and --few-shot are for tasks of lm-eval: give --suite.")
    facts: dict[str, Any] = {}
    with show_progress(not as_json), running_with(device, dtype, memory_bytes(memory)):
        if tasks:
            from vocabtransfer.evaluation.suite import check_suite

            check_suite()
        if text:
            facts = _text_facts(model, baseline, text_files(text, "--text", field), window, max_bytes)
        if tasks:
            facts |= _suite_facts(model, baseline, tasks, suite_limit, few_shot)
    if as_json:
        print_json(facts)
        return
    figures = facts.pop("suite", {})
    if facts:
        _print_text(facts)
    if figures:
        _print_suite(figures)


def _text_facts(
    model: str, baseline: str | None, files: "Text", window: int | None, max_bytes: int | None
) -> dict[str, Any]:
    from vocabtransfer.evaluation import evaluate

    result = evaluate(model, files, window=window, max_bytes=max_bytes)
    facts = asdict(result)
    if baseline:
        before = evaluate(baseline, files, window=window, max_bytes=max_bytes)
        facts["baseline"] = asdict(before)
        facts["gain"] = before.bits_per_byte - result.bits_per_byte
    return facts


def _suite_facts(
    model: str, baseline: str | None, tasks: list[str], limit: int | None, few_shot: int | None
) -> dict[str, Any]:
    from vocabtransfer.evaluation import run_suite

    result = run_suite(model, tasks, limit=limit, few_shot=few_shot)
    figures: dict[str, Any] = {"lm_eval": result.version, "model": result.model, "tasks": dict(result.tasks)}
    if baseline:
        before = run_suite(baseline, tasks, limit=limit, few_shot=few_shot)
        figures["baseline"] = {"model": before.model, "tasks": dict(before.tasks)}
    return {"suite": figures}


def _print_suite(figures: Mapping[str, Any]) -> None:
    theirs = figures.get("baseline", {}).get("tasks", {})
    rows = []
    for task, values in figures["tasks"].items():
        for name in values:
            if "_stderr" not in name:
                before = theirs.get(task, {})
                rows.append(
                    (
                        f"{task}: {name}",
                        _with_error(values, name)
                        + (f"; the baseline {_with_error(before, name)}" if name in before else ""),
                    )
                )
    print_table(f"lm-eval {figures['lm_eval']}", rows)


def _with_error(values: Mapping[str, float], name: str) -> str:
    metric, _, kept = name.partition(",")
    error = values.get(f"{metric}_stderr" + (f",{kept}" if kept else ""))
    return _cell(values[name]) + (f" ± {_cell(error)}" if error is not None else "")


def _print_text(facts: dict[str, Any]) -> None:
    theirs = facts.pop("baseline", {})
    rows = [
        (key.replace("_", " "), _cell(value) + (f"; the baseline {_cell(theirs[key])}" if key in theirs else ""))
        for key, value in facts.items()
    ]
    print_table("Evaluated", rows)


def _cell(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
