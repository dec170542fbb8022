"""How attention is computed, and whether the documents of a row see each other."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils.import_utils import (
    is_flash_attn_2_available,
    is_flash_attn_3_available,
    is_torch_flex_attn_available,
)

from vocabtransfer.errors import UsageError, VocabTransferError

EAGER, SDPA = "eager", "sdpa"
#: What transformers can be asked for: its own loops over heads, torch's fused kernels, FlexAttention, and two packages.
ATTENTIONS = (EAGER, SDPA, "flex_attention", "flash_attention_2", "flash_attention_3")
_FLASH = {
    "flash_attention_2": ("flash-attn", is_flash_attn_2_available),
    "flash_attention_3": ("flash-attn 3", is_flash_attn_3_available),
}
#: How far apart logits may be that should be the same, as a share of their spread.
_SAME, _SAME_IN_BF16 = 1e-4, 2e-2


def check_attention(name: str | None, dtype: str) -> None:
    """Raise `UsageError` for a way of attention that is not known, not installed, or not there in this precision."""
    if name is None:
        return
    if name not in ATTENTIONS:
        raise UsageError(f"`attention` is one of {', '.join(ATTENTIONS)}, not {name!r}.")
    if name == "flex_attention" and not is_torch_flex_attn_available():
        raise UsageError("`attention='flex_attention'` is not in this version of torch: take sdpa.")
    package, available = _FLASH.get(name, ("", lambda: True))
    if package and dtype != "bf16":
        raise UsageError(f"`attention='{name}'` computes in bfloat16: give `dtype` bfloat16 too, or take sdpa.")
    if not available():
        raise UsageError(f"`attention='{name}'` needs a GPU and the package {package}: install it, or take sdpa.")


def places_in_documents(ids: Tensor, separator: int) -> Tensor:
    """Return for every token how many of its document stand before it in its row, int64 (rows, columns).

    A document begins at the separator in front of it. transformers reads from such places where a document ends.
    """
    columns = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    begins = torch.where(ids == separator, columns, 0).cummax(dim=1).values
    return columns - begins


@torch.no_grad()
def check_separable(
    model: nn.Module, name: str, separator: int, rows: int, device: torch.device, autocast: Any
) -> None:
    """Raise `VocabTransferError` unless the documents of a row can be kept apart in a model; it is asked, not believed.

    Two rows that differ in their first document must give the same logits in their second. ``model`` may be wrapped;
    every process calls this alike. ``rows`` is the size of the vocabulary.
    """
    first, second = [number for number in range(min(rows, 8)) if number != separator][:2]
    shared = [separator, second, first]
    ids = torch.tensor(
        [[separator, first, first, second, *shared], [separator, second, second, first, *shared]], device=device
    )
    was_training = model.training
    model.eval()
    try:
        with autocast():
            logits = model(input_ids=ids, position_ids=places_in_documents(ids, separator), use_cache=False).logits
    except TypeError:
        raise _inseparable(name, "takes no places of tokens") from None
    finally:
        model.train(was_training)
    ours, theirs = logits[:, 4:].float()
    allowed = _SAME if logits.dtype == torch.float32 else _SAME_IN_BF16
    if float((ours - theirs).abs().max()) > allowed * float(ours.std()):
        raise _inseparable(name, "carries what it read from one document to the next")


def _inseparable(name: str, why: str) -> VocabTransferError:
    return VocabTransferError(f"{name} {why}, so documents of a row cannot be kept apart: leave out `documents_apart`.")
