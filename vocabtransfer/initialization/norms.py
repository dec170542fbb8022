"""Lengths of the new rows: as the method made them, or brought to what the source's rows have.

Averages are shorter than what they are averaged from. Whether that should be mended is a matter of measurement: a head
reads length as confidence, so on tied models longer rows are often the worse guess before training.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.errors import UsageError
from vocabtransfer.initialization.fallback import FEWEST_TOKENS
from vocabtransfer.initialization.identity import COPIED, SPECIAL
from vocabtransfer.initialization.inputs import TransferInputs
from vocabtransfer.token_map import RowReader, TokenMap
from vocabtransfer.vocabulary import SCRIPTS

Norm = Literal["none", "global", "script"]
NORMS: tuple[Norm, ...] = get_args(Norm)
_BLOCK = 8192


def check_norm(name: str) -> Norm:
    """Return the option as it is; `UsageError` for what is none."""
    for norm in NORMS:
        if name == norm:
            return norm
    raise UsageError(f"`norm` is one of {', '.join(NORMS)}, not {name!r}.")


def wanted_norms(inputs: TransferInputs, token_map: TokenMap, table: RowReader, norm: Norm) -> NDArray[np.float32]:
    """Return the length each new row is brought to, float32 ``(n_target,)``; 0 for rows that stay as they are.

    ``global`` is the median length of the source's trained rows, ``script`` the median of those in the token's script
    (BIL, arXiv 2608.03494), the global one where the source has fewer than 20 of them. Copies are never touched.
    """
    trained = np.flatnonzero(inputs.trained)
    lengths = np.zeros(inputs.shape[1], np.float32)
    for start in range(0, len(trained), _BLOCK):
        ids = trained[start : start + _BLOCK]
        lengths[ids] = np.linalg.norm(table[ids], axis=1)
    overall = np.float32(np.median(lengths[trained]))
    wanted = np.full(inputs.shape[0], overall, np.float32)
    if norm == "script":
        scripts = np.zeros(inputs.shape[1], np.int64)
        scripts[: len(inputs.source_vocabulary)] = inputs.source_vocabulary.scripts()
        medians = np.full(len(SCRIPTS), overall, np.float32)
        for script in np.unique(scripts[trained]).tolist():
            of_script = lengths[trained[scripts[trained] == script]]
            if script > 0 and len(of_script) >= FEWEST_TOKENS:
                medians[script] = np.median(of_script)
        wanted = medians[inputs.target_vocabulary.scripts()]
    copied = np.isin(token_map.rule, [i for i, name in enumerate(token_map.rule_names) if name in (SPECIAL, COPIED)])
    return np.where(copied, 0, wanted).astype(np.float32)


def rescaled(rows: NDArray[np.float32], wanted: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows of the wanted lengths (0: as they are; a row of zeros stays one); float32 ``(n, hidden)``."""
    rows = rows.astype(np.float64)  # squares of small numbers vanish in float32
    lengths = np.linalg.norm(rows, axis=1)
    factor = np.divide(wanted, lengths, out=np.ones_like(lengths), where=(wanted > 0) & (lengths > 0))
    return np.asarray(rows * factor[:, None], np.float32)
