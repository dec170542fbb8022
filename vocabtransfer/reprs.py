"""How results and requests look in a notebook: one short line, whatever they hold."""

import dataclasses
from typing import Any


def brief(thing: object, **facts: object) -> str:
    """Return ``Name(fact=value, ...)``; whole numbers with commas.

    >>> class Table: ...
    >>> brief(Table(), rows=4000, tied=True)
    'Table(rows=4,000, tied=True)'
    """
    shown = (
        f"{name}={value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{name}={value!s}"
        for name, value in facts.items()
        if value is not None
    )
    return f"{type(thing).__name__}({', '.join(shown)})"


def asked(request: Any) -> str:
    """Return the fields of a dataclass that differ from their defaults."""
    shown = []
    for field in dataclasses.fields(request):
        value = getattr(request, field.name)
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        files = getattr(value, "files", None)  # a Text of no files is what () became
        if value == default or (files == () and not getattr(value, "source", None)):
            continue
        shown.append(f"{field.name}={', '.join(map(str, files)) if files else value!r}")
    return f"{type(request).__name__}({', '.join(shown)})"
