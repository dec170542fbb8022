"""Whether anything may be asked over the network: what a person says in the environment."""

import os

VARIABLE = "VOCABTRANSFER_OFFLINE"


def is_offline(variable: str = VARIABLE) -> bool:
    """Tell whether a person wants nothing to be asked: ``VOCABTRANSFER_OFFLINE=1``, or another variable of this kind."""
    return os.environ.get(variable, "").strip().lower() in ("1", "true", "yes", "on")
