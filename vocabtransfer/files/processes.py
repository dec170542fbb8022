"""Which processes run: whether what one of them left behind may be cleared up."""

import os


def is_running(pid: int) -> bool:
    """Tell whether a process of this number runs here; yes where the system has no harmless way to ask (Windows)."""
    if os.name == "nt":
        return True  # a file left behind is the smaller evil
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
