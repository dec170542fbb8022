"""Reading what users type: files that must exist, and columns."""

from pathlib import Path

from vocabtransfer.errors import UsageError


def existing(paths: list[Path], option: str) -> tuple[Path, ...]:
    """Return the paths; `UsageError` naming the option and the first that does not exist."""
    for path in paths:
        if not path.exists():
            raise UsageError(f"{option} {path}: there is no such file or folder.")
    return tuple(paths)


def column_pair(text: str | None) -> tuple[int, int] | None:
    """Return the two column numbers of ``1,2``; `UsageError` for anything else."""
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise UsageError(f"--columns takes two numbers counted from 0, such as 1,2, not {text!r}.")
    return int(parts[0]), int(parts[1])
