"""How many updates of new rows a time is worth on this machine: a few are made and measured."""

import time

import numpy as np
import torch

from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.evaluation.texts import read_documents
from vocabtransfer.progress import step
from vocabtransfer.running.load import load_causal_model
from vocabtransfer.running.plan import find_device
from vocabtransfer.training.request import AdaptRequest, new_rows_of, open_model
from vocabtransfer.training.row_distiller import RowDistiller
from vocabtransfer.training.row_stage import USES, RowMaterial

_WARM, _MEASURED = 1, 4


def updates_within(minutes: float, request: AdaptRequest) -> int:
    """Return how many updates of ``request.batch_tokens`` tokens, which are to be named, take ``minutes``: at least one.

    What the untouched model has to say first is counted in. Raises `VocabTransferError` where rows cannot be trained
    alone.
    """
    assert request.batch_tokens is not None, "whoever plans by time names the size of an update"
    started = time.perf_counter()
    dtype = torch.bfloat16 if request.dtype == "bf16" else torch.float32
    model = open_model(request)
    new_rows = new_rows_of(model)
    teacher = open_checkpoint(request.teacher, allow_pickle=request.allow_pickle) if request.teacher else None
    distiller = None
    if teacher is not None and new_rows is not None:
        place = torch.device(find_device("cpu" if request.cpu else request.device))
        distiller = RowDistiller.find(model, teacher, request.teacher_layer, dtype, place)
    if distiller is None or new_rows is None:
        raise VocabTransferError(f"New rows of {model.name} cannot be distilled alone: use `vocabtransfer adapt`.")
    material = RowMaterial(distiller, new_rows)
    with step("measuring how long an update takes"):
        wanted = request.batch_tokens * (_WARM + _MEASURED)
        snippets = material.snippets(read_documents(request.text), None, 0.0, wanted)
        body = load_causal_model(distiller.teacher.path, str(distiller.device), dtype)
        before = time.perf_counter()
        lessons = material.lessons(snippets, body)
        listening = (time.perf_counter() - before) / max(int(snippets.sizes().sum()), 1)
        del body
        fit = material.fit(snippets, lessons, request.seed)
        times = []
        for number, texts in enumerate(fit.plan(request.batch_tokens, _WARM + _MEASURED)):
            before = time.perf_counter()
            fit.update(number, texts, 0.0)
            times.append(time.perf_counter() - before)
    fixed = time.perf_counter() - started
    each = float(np.median(times[_WARM:])) + listening * request.batch_tokens / USES
    return max(int((60 * minutes - fixed) / each), 1)
