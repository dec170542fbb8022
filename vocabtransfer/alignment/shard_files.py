"""The work folder of a corpus in shards: arrays in files that appear whole or not at all, so that work can go on.

    text/FINGERPRINT.K.npz      a shard: words of both sides, named by the content it was made of
    words-KEY/N.npz             which words of the whole corpus those of shard N are
    run-KEY/prior.npz           what holds for all rounds
    run-KEY/round-R/N.npz       what shard N found in round R;  model-P.npz, state.npz  the sums over all shards

A key stands for everything that its files depend on; a file that is there need not be made again.
"""

import contextlib
import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.alignment.aligner_text import Sentence
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.whole import whole_file

Arrays = Mapping[str, NDArray[Any]]
MARKER = "vocabtransfer-work.json"
_FORMAT = 1


@contextlib.contextmanager
def open_work(folder: Path | None) -> Iterator[Path]:
    """Give a work folder to one process at a time; it is removed when the block ends well, else kept for the next try.

    Without a name it is a temporary one, removed in any case. Raises `VocabTransferError` for a folder that holds other
    things, that another process works in, and for what the disk refuses meanwhile.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="vocabtransfer-") as name:
            yield Path(name)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MARKER).exists() and any(folder.iterdir()):
            raise VocabTransferError(f"{folder} holds other files: give an empty or a new folder to work in.")
        (folder / MARKER).write_text(json.dumps({"format": _FORMAT}) + "\n")
        with _locked(folder):
            yield folder
        shutil.rmtree(folder, ignore_errors=True)
    except OSError as problem:
        raise VocabTransferError(
            f"{problem.filename or folder}: {problem.strerror or problem}; what is done is kept in {folder}, "
            "and the same command goes on from there."
        ) from None


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays to an ``.npz`` file, whole or not at all."""
    # What this file makes superfluous is removed next: it must not be lost with the power, so it is flushed.
    with whole_file(path) as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


@contextlib.contextmanager
def read_arrays(path: Path) -> Iterator[Arrays]:
    """Give the arrays of a file, each read when it is asked for.

    Raises `VocabTransferError` for a file that is damaged or gone.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except (zipfile.BadZipFile, FileNotFoundError) as problem:
        state = "gone" if isinstance(problem, FileNotFoundError) else "damaged"
        raise VocabTransferError(f"{path} is {state}: remove the work folder that held it and run again.") from None


def is_written(path: Path) -> bool:
    """Tell whether a file is there and whole: its directory stands at its end."""
    return path.exists() and zipfile.is_zipfile(path)


def fingerprint(*parts: Any) -> str:
    """Return a name for anything that can be written as JSON."""
    text = json.dumps([_FORMAT, *parts], ensure_ascii=True, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def text_fingerprint(pairs: Sequence[tuple[Sentence, Sentence]]) -> str:
    """Return a name for the content of sentence pairs."""
    digest = hashlib.blake2b(digest_size=12)
    for pair in pairs:
        for sentence in pair:
            words = [sentence] if isinstance(sentence, str) else list(sentence)
            kind = b"text" if isinstance(sentence, str) else b"words"
            for word in words:
                packed = word.encode("utf-8", "surrogatepass")
                digest.update(b"%d:" % len(packed))
                digest.update(packed)
            digest.update(kind)
    return digest.hexdigest()


def pack_words(words: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Return words as arrays: their characters in UTF-8, and how many each has."""
    listed = list(words)
    letters = np.frombuffer("".join(listed).encode("utf-8", "surrogatepass"), dtype=np.uint8)
    return {"letters": letters, "sizes": np.fromiter(map(len, listed), np.int32, len(listed))}


def unpack_words(letters: NDArray[np.uint8], sizes: NDArray[np.int32]) -> list[str]:
    """Return the words that `pack_words` packed."""
    text = letters.tobytes().decode("utf-8", "surrogatepass")
    ends = np.cumsum(sizes).tolist()
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an advisory lock on the folder's marker where the system has them."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / MARKER).open("rb") as marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise VocabTransferError(
                f"another process works in {folder}: wait for it or give another folder."
            ) from None
        except OSError:
            pass  # some network file systems have no locks
        yield
