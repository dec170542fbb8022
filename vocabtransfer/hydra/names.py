"""What a head may be called: the name becomes a folder, so it can be nothing else than a name."""

import re
import unicodedata
from collections.abc import Iterable

from vocabtransfer.errors import UsageError

LONGEST_NAME = 48  # four bytes a letter and the marks of unfinished folders still fit into a file name
ALLOWED = re.compile(rf"[^\W_][\w-]{{0,{LONGEST_NAME - 1}}}")
# Names that Windows keeps for its devices, whatever the folder.
DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{kind}{i}" for kind in ("com", "lpt") for i in range(1, 10))})


def check_name(name: str) -> str:
    """Return a head's name in Unicode normal form C.

    Letters and digits of any script, ``_`` and ``-`` are allowed, 48 of them at most, the first a letter or digit.
    Raises `UsageError` for anything else: paths, dots, empty names.

    >>> check_name("tatar-v2")
    'tatar-v2'
    """
    normal = unicodedata.normalize("NFC", name) if isinstance(name, str) else ""
    if not ALLOWED.fullmatch(normal) or normal.casefold() in DEVICES:
        raise UsageError(
            f"a head cannot be called {name!r}: use letters, digits, _ and - ({LONGEST_NAME} at most), with a letter or "
            "digit first."
        )
    return normal


def check_free(name: str, taken: Iterable[str], place: object) -> str:
    """Return a name that no other head has, not even in another case; `UsageError` otherwise."""
    name = check_name(name)
    for other in taken:
        if other.casefold() == name.casefold():
            raise UsageError(f"{place} already has a head named {other}: remove it first, or choose another name.")
    return name
