"""Tasks of lm-eval on a checkpoint: those that ask for the likelihood of texts, beside bits per byte.

The tasks, their data and their figures are lm-eval's own (EleutherAI's evaluation harness, extra ``suite``); the model is
opened as `evaluate` opens it. Tasks that generate are refused: what they measure depends on prompts and stops
that a changed vocabulary may move.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError, first_line
from vocabtransfer.progress import step
from vocabtransfer.public import public
from vocabtransfer.running.plan import open_planned, plan_run

LIKELIHOODS = ("loglikelihood", "loglikelihood_rolling", "multiple_choice")
#: Draws behind the standard errors of figures that have no formula, such as bits per byte.
DRAWS = 1000


@dataclass(frozen=True)
class SuiteResult:
    """What lm-eval measured: for each task (and group of tasks) its figures by name, standard errors among them."""

    model: str
    version: str
    tasks: Mapping[str, Mapping[str, float]]


@public
def run_suite(
    reference: str | Path,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    few_shot: int | None = None,
    batch_size: int = 8,
    device: str | None = None,
) -> SuiteResult:
    """Run likelihood tasks of lm-eval on a checkpoint (hub id, folder, GGUF file, alias).

    Args:
        reference: the model.
        tasks: names of lm-eval's tasks or groups, or paths of YAML files that define some.
        limit: examples of each task, at most.
        few_shot: examples before each question; what the task says when not given.
        batch_size: texts that are run at once.
        device: where the model runs; a GPU when there is one.

    Raises:
        UsageError: lm-eval is not installed, a task is not known, or it generates.
        VocabTransferError: the model is not causal, or a task's data cannot be had.
    """
    check_suite()
    if not tasks:
        raise UsageError("Name at least one task of lm-eval.")
    with _quiet():
        manager, found = _load_tasks(tasks)
        return _run(reference, manager, found, limit=limit, few_shot=few_shot, batch_size=batch_size, device=device)


def check_suite() -> None:
    """Raise `UsageError` that names the extra when lm-eval is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise UsageError("Tasks are run by lm-eval, which is not installed: pip install 'vocabtransfer[suite]'.")


def _load_tasks(names: Sequence[str]) -> tuple[Any, list[Any]]:
    """Return lm-eval's list of tasks, and those of these names, after checking that all of them ask for likelihoods."""
    from lm_eval.tasks import TaskManager

    files = [name for name in names if name.endswith((".yaml", ".yml"))]
    for name in files:
        if not Path(name).is_file():
            raise UsageError(f"There is no task file {name}.")
    with step("reading lm-eval's list of tasks"):
        manager = TaskManager(include_defaults=len(files) < len(names))
    for name in names:
        if name not in files and name not in manager.all_tasks:
            near = manager.match_tasks([f"*{name}*"])[:3]
            raise UsageError(
                f"lm-eval has no task {name!r}"
                + (f": did you mean {', '.join(near)}?" if near else "; `lm_eval ls tasks` lists them.")
            )
    try:
        with step("reading the data of the tasks"):
            loaded = manager.load(list(names))
    except Exception as problem:  # data sets fail in as many ways as there are places that they come from
        raise VocabTransferError(
            f"The tasks {', '.join(names)} cannot be read ({type(problem).__name__}: {first_line(problem)})."
        ) from problem
    for name, task in loaded["tasks"].items():
        if task.OUTPUT_TYPE not in LIKELIHOODS:
            raise UsageError(
                f"The task {name} asks for {task.OUTPUT_TYPE!r}: only tasks that compare likelihoods are run here; run "
                "lm_eval itself on the folder for others."
            )
    inside = {child for children in loaded.get("group_map", {}).values() for child in children}
    every = {**loaded.get("groups", {}), **loaded["tasks"]}
    return manager, [item for name, item in every.items() if name not in inside]


def _run(
    reference: str | Path,
    manager: Any,
    tasks: list[Any],
    *,
    limit: int | None,
    few_shot: int | None,
    batch_size: int,
    device: str | None,
) -> SuiteResult:
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    checkpoint = open_checkpoint(reference)
    if not checkpoint.continues_text:
        raise VocabTransferError(f"{checkpoint.name} does not continue text, so no likelihoods can be asked of it.")
    model = open_planned(checkpoint, plan_run(checkpoint, device=device))
    wrapped = HFLM(pretrained=model, tokenizer=checkpoint.tokenizer, batch_size=batch_size)
    try:
        with torch.inference_mode():
            found = lm_eval.simple_evaluate(
                model=wrapped,
                tasks=tasks,
                task_manager=manager,
                num_fewshot=few_shot,
                limit=limit,
                bootstrap_iters=DRAWS,
                log_samples=False,
            )
    except Exception as problem:  # tasks run code of their own
        raise VocabTransferError(
            f"lm-eval failed on {checkpoint.name} ({type(problem).__name__}: {first_line(problem)})."
        ) from problem
    assert found is not None, "only further processes get nothing"
    results = {**found["results"], **found.get("groups", {})}
    figures = {name: _figures(values) for name, values in results.items()}
    return SuiteResult(
        checkpoint.name, lm_eval.__version__, {name: values for name, values in figures.items() if values}
    )


def _figures(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a task by name: ``acc``, ``acc_stderr``; a filter's name stays where it is not "none"."""
    return {
        key.removesuffix(",none"): float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and "," in key
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep lm-eval's log lines and the bars of data sets out of our output."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels, bars = [logger.level for logger in loggers], is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            enable_progress_bar()
