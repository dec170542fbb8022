"""What goes into a model card must stay what it is, whatever a person calls a folder: quoted YAML, one line of Markdown."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_BREAKS = re.compile("[\x85\u2028\u2029]")
_MARKDOWN = re.compile(r"[\\`*\[\]<>|#]")


def card_header(facts: Mapping[str, Any]) -> str:
    """Return the head of a model card, facts as YAML between two lines of dashes."""
    # PyYAML reads these back as plain spaces unless they are escaped.
    written = yaml.safe_dump(dict(facts), allow_unicode=True, sort_keys=False)
    if _BREAKS.search(written):
        written = yaml.safe_dump(dict(facts), sort_keys=False)
    return f"---\n{written}---\n"


def one_line(name: str) -> str:
    r"""Return a name as it can stand in a line of Markdown.

    >>> one_line("my: model"), one_line("[x\n# y")
    ('my: model', '\\[x \\# y')
    """
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(name.split()))


def local_name(reference: str | Path) -> str:
    """Return what a model is called wherever it lies: the last part of a path on this machine, any other name as it is."""
    path = Path(reference).expanduser()
    return path.resolve().name if path.exists() else str(reference)
