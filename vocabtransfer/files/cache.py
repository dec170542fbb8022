"""Where things that were made once are kept: converted checkpoints, downloaded packages."""

import os
from pathlib import Path


def cache_folder(*parts: str) -> Path:
    """Return (and create) a folder inside the user's cache.

    The root is ``$VOCABTRANSFER_CACHE``, else ``$XDG_CACHE_HOME/vocabtransfer``, else ``~/.cache/vocabtransfer``.
    """
    root = os.environ.get("VOCABTRANSFER_CACHE")
    if root:
        base = Path(root)
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vocabtransfer"
    folder = base.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
