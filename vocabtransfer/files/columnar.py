"""Parquet and Arrow files, and folders that `datasets` saved, as rows of values; pyarrow (extra ``data``) reads them."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vocabtransfer.errors import UsageError, VocabTransferError

_PARQUET, _ARROW = b"PAR1", b"ARROW1"
_STATE, _SPLITS = "state.json", "dataset_dict.json"
_BATCH_ROWS = 1024


def is_columnar(path: Path) -> bool:
    """Say whether a path is Parquet, Arrow, or a folder that `datasets` saved; other folders are an error."""
    if path.is_dir():
        if (path / _SPLITS).is_file() or (path / _STATE).is_file() or _inside(path):
            return True
        raise VocabTransferError(
            f"{path} is a folder, and neither a dataset that was saved with save_to_disk nor a folder of Parquet files: "
            "name the text files inside."
        )
    if path.suffix.lower() == ".arrow":
        return path.is_file()
    try:
        with path.open("rb") as stream:
            return stream.read(6).startswith((_PARQUET, _ARROW))
    except OSError:
        return False  # the reader of lines says what is wrong


def read_columnar(path: Path) -> tuple[tuple[str, ...], Callable[[], Iterator[list[Any]]]]:
    """Return the names of the columns, those of inner records by their path, and what gives the rows from the start."""
    if find_spec("pyarrow") is None:
        raise UsageError(
            f"{path}: reading Parquet and saved datasets needs pyarrow: pip install 'vocabtransfer[data]'."
        )
    files = [path] if path.is_file() else _files(path)
    names = tuple(_names(files[0]))

    def rows() -> Iterator[list[Any]]:
        for file in files:
            for batch in _batches(file):
                columns = dict(_columns(batch))
                missing = [name for name in names if name not in columns]
                if missing:
                    raise VocabTransferError(f"{file} has no column {missing[0]}, unlike {files[0]}.")
                try:
                    values = [columns[name].to_pylist() for name in names]
                except (ValueError, OverflowError) as problem:  # text that is not UTF-8, times that no calendar has
                    raise VocabTransferError(f"{file} is damaged ({problem}): get it again.") from None
                yield from (list(row) for row in zip(*values, strict=True))

    return names, rows


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def _files(folder: Path) -> list[Path]:
    """Return the data files of a saved dataset, of its only split or of the one called train."""
    if (folder / _SPLITS).is_file():
        from vocabtransfer.files.json_files import read_json

        splits = read_json(folder / _SPLITS).get("splits")
        if not isinstance(splits, list) or not all(isinstance(name, str) for name in splits) or not splits:
            raise VocabTransferError(f"{folder / _SPLITS} names no splits.")
        if len(splits) > 1 and "train" not in splits:
            raise UsageError(f"{folder} has the splits {', '.join(splits)}: name one of them, as {folder / splits[0]}.")
        folder = folder / ("train" if "train" in splits else splits[0])
    if (folder / _STATE).is_file():
        from vocabtransfer.files.json_files import read_json

        listed = read_json(folder / _STATE).get("_data_files")
        names = [entry.get("filename") if isinstance(entry, dict) else None for entry in listed or []]
        files = [folder / Path(name).name for name in names if isinstance(name, str)]
    else:
        files = _inside(folder) or sorted(folder.glob("*.arrow"))
    missing = next((file for file in files if not file.is_file()), None)
    if not files or missing is not None:
        raise VocabTransferError(f"{folder} is not a whole dataset: {missing or 'its data'} is missing.")
    return files


def _batches(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as stream:
            magic = stream.read(6)
        if magic.startswith(_PARQUET):
            yield from pq.ParquetFile(path).iter_batches(batch_size=_BATCH_ROWS)
        elif magic == _ARROW:
            with pa.memory_map(str(path)) as source:
                reader = pa.ipc.open_file(source)
                for number in range(reader.num_record_batches):
                    yield from _cut(reader.get_batch(number))
        else:
            with pa.memory_map(str(path)) as source:
                for batch in pa.ipc.open_stream(source):
                    yield from _cut(batch)
    except (pa.ArrowException, OSError, OverflowError) as problem:
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise VocabTransferError(f"{path} is damaged or cut short ({reason.rstrip('.')}): get it again.") from None


def _cut(batch: Any) -> Iterator[Any]:
    for start in range(0, batch.num_rows, _BATCH_ROWS):
        yield batch.slice(start, _BATCH_ROWS)


def _names(path: Path) -> list[str]:
    for batch in _batches(path):
        return [name for name, _ in _columns(batch)]
    raise VocabTransferError(f"{path} holds no rows.")


def _columns(batch: Any) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa

    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_struct(column.type):
            yield from zip((f"{name}.{inner.name}" for inner in column.type), column.flatten(), strict=True)
        else:
            yield name, column
