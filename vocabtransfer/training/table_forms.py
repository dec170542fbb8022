"""What the rows of tables in training are made of: each a number of its own, or more than one row from one parameter.

A table stays a plain parameter of the model, so every model class and every objective works as it is. A form adds
parameters of its own beside it. By the chain rule their gradients follow from the table's, and after a step of the
optimizer what they became is added to the table: the same as if the table had been computed from them.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.token_map import MAP_FILE, TokenMap
from vocabtransfer.training.cuts import merge_model

#: The form in which every row learns for itself.
ROWS = "rows"
# Source rows that a row learns with, the heaviest of its map: more say little, and some maps are averages of thousands.
_WIDEST = 32


class TableForm(Protocol):
    """Parameters that tables are made of, beside their own rows.

    ``parameters`` are by name, on the device of the tables; ``rows_learn`` says whether the optimizer steps the tables'
    rows themselves, too.
    """

    parameters: dict[str, nn.Parameter]
    rows_learn: bool

    def collect(self) -> None:
        """Set the gradients of the parameters from those of the tables; called before a step of the optimizer."""
        ...

    def apply(self) -> None:
        """Let the tables follow the parameters; called after a step of the optimizer."""
        ...


FormMaker = Callable[[Mapping[str, nn.Parameter]], TableForm]


class SharedRows:
    """Tables as ``start + D + P G``: D is a row for every token, G one for every part, P says which tokens hold which.

    What one token teaches a part is known to all others that hold it (P's rows are averages, so a row moves at most twice
    as fast as without). G is zero at first.
    """

    rows_learn = True

    def __init__(self, tables: Mapping[str, nn.Parameter], shares: sparse.csr_array) -> None:
        """Take tables (rows, hidden) by name, and P: CSR float32 (rows, parts)."""
        self._tables = tables
        self._shares = {device: torch_csr(shares, device) for device in {each.device for each in tables.values()}}
        self._back = {device: torch_csr(shares.T.tocsr(), device) for device in self._shares}
        self.parameters = {
            f"shared:{name}": nn.Parameter(torch.zeros(shares.shape[1], table.shape[1], device=table.device))
            for name, table in tables.items()
        }
        self._before: dict[str, Tensor] = {}

    def collect(self) -> None:
        """Set the gradient of every part: the average over the tokens that hold it, by their shares."""
        for name, table in self._tables.items():
            part = self.parameters[f"shared:{name}"]
            self._before[name] = part.detach().clone()
            part.grad = None if table.grad is None else self._back[table.device] @ table.grad.float()

    def apply(self) -> None:
        """Add to every row what its parts became."""
        for name, table in self._tables.items():
            change = self.parameters[f"shared:{name}"].detach() - self._before[name]
            with torch.no_grad():
                table.add_(self._shares[table.device] @ change)


Shares = Callable[[Checkpoint, NDArray[np.bool_]], sparse.csr_array]
#: Ways to say which tokens share what, by name; `table_form` registers more.
TABLE_FORMS: dict[str, Shares] = {}


def table_form(name: str) -> Callable[[Shares], Shares]:
    """Register a function that gives P, CSR float32 (rows, parts), for a checkpoint and its new rows, bool (rows,).

    Its rows are averages, or empty for tokens that share nothing.
    """

    def register(shares: Shares) -> Shares:
        TABLE_FORMS[name] = shares
        return shares

    return register


def check_form(name: str) -> None:
    """Raise `UsageError` for the name of a form that there is not."""
    if name != ROWS and name not in TABLE_FORMS:
        raise UsageError(f"`tables` is one of {', '.join([ROWS, *TABLE_FORMS])}, not {name!r}.")


def form_of(name: str, checkpoint: Checkpoint, new_rows: NDArray[np.bool_] | None) -> FormMaker | None:
    """Return what makes tables of a form; None for rows that learn for themselves.

    Raises `UsageError` for the name of a form that there is not, and what the form refuses.
    """
    check_form(name)
    if name == ROWS:
        return None
    every = np.arange(checkpoint.layout.rows) < len(checkpoint.vocabulary)
    return partial(SharedRows, shares=TABLE_FORMS[name](checkpoint, every if new_rows is None else new_rows))


@table_form("pieces")
def pieces_shares(checkpoint: Checkpoint, new_rows: NDArray[np.bool_]) -> sparse.csr_array:
    """Return P over the tokens that each new token was merged from, and those that these were merged from, and itself.

    Raises `VocabTransferError` for a tokenizer without merges.
    """
    model = merge_model(checkpoint.tokenizer)
    if model is None:
        raise VocabTransferError(
            f"{checkpoint.name} has no merges, so its tokens have no pieces to share: use `tables='map'` or rows."
        )
    made = model.derivations()
    inside: dict[int, list[int]] = {}

    def tree(token: int) -> list[int]:
        if token not in inside:
            parts = [int(made.left[token]), int(made.right[token])] if made.left[token] >= 0 else []
            inside[token] = [token, *(leaf for part in parts for leaf in tree(part))]
        return inside[token]

    rows, columns = [], []
    for token in np.flatnonzero(new_rows[: len(model)]).tolist():
        if made.reached[token]:
            columns += (own := tree(token))
            rows += [token] * len(own)
    ones = np.ones(len(rows), np.float32)
    found = sparse.csr_array((ones, (rows, columns)), shape=(len(new_rows), len(new_rows)))
    return _averages(found)


@table_form("map")
def map_shares(checkpoint: Checkpoint, new_rows: NDArray[np.bool_]) -> sparse.csr_array:
    """Return P over the source rows that the transfer made each new row of: what changes one changes all made of it.

    Raises `VocabTransferError` without a token map.
    """
    if not (checkpoint.path / MAP_FILE).is_file():
        raise VocabTransferError(
            f"{checkpoint.name} has no {MAP_FILE}, which `tables='map'` shares by: use pieces or rows."
        )
    token_map = TokenMap.load(checkpoint.path / MAP_FILE)
    weights = heaviest(abs(token_map.weights[:, : token_map.n_source].tocsr()), _WIDEST)
    rows = sparse.coo_array(weights)
    kept = new_rows[rows.row]
    found = sparse.csr_array(
        (rows.data[kept], (rows.row[kept], rows.col[kept])), shape=(len(new_rows), token_map.n_source)
    )
    return _averages(found)


def heaviest(weights: sparse.csr_array, count: int) -> sparse.csr_array:
    """Return a matrix with only the ``count`` largest entries of every row."""
    entries = sparse.coo_array(weights)
    order = np.lexsort((-entries.data, entries.row))
    rows = entries.row[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = order[place < count]
    return sparse.csr_array((entries.data[kept], (entries.row[kept], entries.col[kept])), shape=weights.shape)


def _averages(shares: sparse.csr_array) -> sparse.csr_array:
    """Return P with rows that sum to 1, without columns that nobody holds."""
    shares = shares[:, np.unique(shares.indices)]
    sums = np.asarray(shares.sum(axis=1)).reshape(-1)
    scale = np.divide(1, sums, out=np.zeros_like(sums), where=sums > 0)
    return cast(sparse.csr_array, sparse.csr_array(sparse.diags_array(scale) @ shares, dtype=np.float32))


def torch_csr(matrix: sparse.csr_array, device: torch.device) -> Tensor:
    """Return a SciPy matrix as torch's, float32 CSR, on a device."""
    parts = (torch.from_numpy(np.asarray(part)).to(device) for part in (matrix.indptr, matrix.indices, matrix.data))
    return csr_tensor(*parts, shape=matrix.shape)


def csr_tensor(starts: Tensor, columns: Tensor, values: Tensor, *, shape: tuple[int, int]) -> Tensor:
    """Return a CSR tensor, without torch's note that such tensors are young."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
        return torch.sparse_csr_tensor(starts, columns, values, size=shape, check_invariants=False)
