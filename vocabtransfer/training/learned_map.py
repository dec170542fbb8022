"""A learned map: new rows as ``E' = M E``, with M trained, tables and body as they are.

Reprogramming (arXiv 2210.07144) and vocabulary adaptation (VocADT, arXiv 2410.09644) learn how much of which old row a new
row takes. Here M is sparse: a new row may take what the transfer took, and the rows of its pieces. What the transfer
made beyond that, such as a correction of length, stays as it is and is not trained, so training starts where the
transfer ended. One number for a candidate is far less than a row of its own: it can be learned from little text.
"""

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.token_map import MAP_FILE, OUTPUT_MAP_FILE, TokenMap
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.training.objectives import LanguageModelling, Objective, Surroundings, objective
from vocabtransfer.training.table_forms import TableForm, csr_tensor, heaviest, torch_csr

# Candidates that a row takes of its map, beside its pieces.
_WIDEST = 16
_ENTRIES_AT_A_TIME = 1 << 16


class LearnedRows:
    """Tables as ``R + M E``: only the entries of M are trained."""

    rows_learn = False

    def __init__(
        self, tables: Mapping[str, nn.Parameter], maps: Mapping[str, sparse.csr_array], sources: Mapping[str, Tensor]
    ) -> None:
        """Take tables (rows, hidden), maps M (rows, used source rows) and those source rows E float32, by one name."""
        self._tables, self._sources, self._entries = tables, {}, {}
        self.parameters: dict[str, nn.Parameter] = {}
        self._rest: dict[str, Tensor] = {}
        for name, table in tables.items():
            entries = torch_csr(maps[name], table.device)
            self._entries[name] = entries
            self._sources[name] = sources[name].to(table.device)
            self.parameters[f"map:{name}"] = nn.Parameter(entries.values().clone())
            self._rest[name] = table.detach() - entries @ self._sources[name]

    def collect(self) -> None:
        """Set the gradient of every entry: the product of the new row's gradient and the old row."""
        for name, table in self._tables.items():
            entries, source = self._entries[name], self._sources[name]
            part = self.parameters[f"map:{name}"]
            if table.grad is None:
                part.grad = None
                continue
            counts = entries.crow_indices().diff()
            rows = torch.arange(len(counts), device=table.device).repeat_interleave(counts)
            columns = entries.col_indices()
            part.grad = torch.empty_like(part)
            for begin in range(0, len(rows), _ENTRIES_AT_A_TIME):
                some = slice(begin, begin + _ENTRIES_AT_A_TIME)
                part.grad[some] = (table.grad[rows[some]].float() * source[columns[some]]).sum(dim=1)

    def apply(self) -> None:
        """Make the tables of what the entries became."""
        for name, table in self._tables.items():
            old = self._entries[name]
            values = self.parameters[f"map:{name}"].detach()
            entries = csr_tensor(old.crow_indices(), old.col_indices(), values, shape=(old.shape[0], old.shape[1]))
            with torch.no_grad():
                table.copy_(self._rest[name] + entries @ self._sources[name])


class LearnedMap(LanguageModelling):
    """Cross entropy of the next token, with nothing trained but the map from the source's rows to the new ones."""

    name = "learned_map"

    def __init__(self, model: Checkpoint, source: Checkpoint, new_rows: NDArray[np.bool_]) -> None:
        """Take the model in training, the model that the transfer started from, and which rows are new, bool (rows,)."""
        self._model, self._source, self._new_rows = model, source, new_rows

    def form(self, tables: Mapping[str, nn.Parameter]) -> TableForm:
        """Return tables of learned rows. Raises `VocabTransferError` where old and new rows differ in length."""
        layout, (first, *others) = self._model.layout, list(tables)
        head = next((name for name in others), first)
        maps, sources = {}, {}
        for name, table in tables.items():
            output = name == head and not layout.tied
            rows = self._source.output_table() if output else self._source.input_table()
            if rows.shape[1] != table.shape[1]:
                raise VocabTransferError(
                    f"rows of {self._source.name} have {rows.shape[1]} numbers and the model's {table.shape[1]}: "
                    "learned_map needs the model that the transfer started from as `teacher`."
                )
            wide = candidates(self._model, self._source, self._new_rows, output=output)
            used = np.unique(wide.indices)
            maps[name] = cast(sparse.csr_array, wide[:, used])
            sources[name] = rows[torch.from_numpy(used)].float()
        return LearnedRows(tables, maps, sources)


def candidates(
    model: Checkpoint, source: Checkpoint, new_rows: NDArray[np.bool_], *, output: bool = False
) -> sparse.csr_array:
    """Return M at its start: what the transfer's map says, and 0 for further pieces; CSR float32 (rows, source rows).

    Rows that are not new are empty. ``output`` asks for the head's map, where it has one of its own.
    """
    shape = (len(new_rows), source.layout.rows)
    wanted = np.flatnonzero(new_rows[: len(model.vocabulary)])
    pieces = PieceEncoder(source.tokenizer).encode_bytes([model.vocabulary.context_bytes(i) for i in wanted.tolist()])
    lengths = np.diff(pieces.indptr)
    rows, columns = [np.repeat(wanted, lengths)], [pieces.ids.astype(np.int64)]
    values = [np.zeros(len(pieces.ids), np.float32)]
    file = next((f for f in ([OUTPUT_MAP_FILE] if output else []) + [MAP_FILE] if (model.path / f).is_file()), None)
    token_map = TokenMap.load(model.path / file) if file else None
    if token_map is not None and token_map.n_source <= source.layout.rows:
        own = sparse.coo_array(heaviest(token_map.weights[:, : token_map.n_source].tocsr(), _WIDEST))
        kept = new_rows[own.row]
        rows, columns, values = [*rows, own.row[kept]], [*columns, own.col[kept]], [*values, own.data[kept]]
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return cast(sparse.csr_array, sparse.csr_array(entries, shape=shape))  # what stands twice is summed


@objective("learned_map", teacher=True)
def make_objective(surroundings: Surroundings) -> Objective:
    """Return next-token loss that trains the map from the teacher's rows; `VocabTransferError` without new rows."""
    model, source, new_rows = surroundings.model, surroundings.teacher, surroundings.new_rows
    if model is None or source is None or new_rows is None:
        raise VocabTransferError(
            "learned_map trains rows that a transfer made: give a folder of `vocabtransfer build`."
        )
    return LearnedMap(model, source, new_rows)
