"""How much text an update holds, and in how long rows."""

import math

from accelerate import Accelerator
from transformers import PreTrainedModel

from vocabtransfer.errors import UsageError
from vocabtransfer.evaluation.scoring import default_window
from vocabtransfer.training.processes import ModelShares
from vocabtransfer.training.request import AdaptRequest

#: Tokens of an update where none are named: on an accelerator, and on a CPU, where text goes through in shorter rows too.
BATCH_TOKENS, CPU_BATCH_TOKENS, CPU_BLOCK = 8192, 512, 256


def block_of(request: AdaptRequest, shell: PreTrainedModel, accelerator: Accelerator) -> int:
    """Return how many tokens a row holds; `UsageError` for more than the model was made for."""
    longest = getattr(shell.config.get_text_config(), "max_position_embeddings", None) or request.block or 1024
    if request.block is not None and request.block > longest:
        raise UsageError(f"`block` is {request.block}, but the model was made for {longest} tokens at most.")
    if request.block is not None:
        return request.block
    return min(default_window(shell), CPU_BLOCK if accelerator.device.type == "cpu" else int(longest))


def rows_of(request: AdaptRequest, block: int, accelerator: Accelerator) -> int:
    """Return how many blocks an update holds; `UsageError` when the processes cannot share them."""
    processes = ModelShares.of(accelerator).data
    if request.batch_tokens is None:
        wanted = CPU_BATCH_TOKENS if accelerator.device.type == "cpu" else BATCH_TOKENS
        return int(math.ceil(wanted / (block * processes)) * processes)
    rows = request.batch_tokens // block
    if rows < 1 or rows % processes:
        raise UsageError(
            f"`batch_tokens` {request.batch_tokens} holds {rows} blocks of {block}: give a multiple of "
            f"{block * processes}, which is a block for each of {processes} processes."
        )
    return rows
