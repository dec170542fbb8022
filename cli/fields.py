"""Options made from the fields of a request: what a field is for is written once, in the docstring of its class."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import typer

import vocabtransfer

_ITEM = re.compile(r"^ {8}(\w[\w, ]*): ", re.MULTILINE)


@cache
def field_docs(module: str, name: str) -> dict[str, str]:
    """Return what the docstring of a dataclass of the library says of its fields.

    It is read from the source: to import it would take seconds, and help should be there at once.
    """
    file = Path(vocabtransfer.__path__[0]).joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    _, _, listed = (ast.get_docstring(found, clean=False) or "").partition("Attributes:\n")
    parts = _ITEM.split(listed)
    return {
        field.strip(): " ".join(doc.split())
        for fields, doc in zip(parts[1::2], parts[2::2], strict=True)
        for field in fields.split(",")
    }


class Fields:
    """The fields of a request, as options of a command."""

    def __init__(self, module: str, name: str) -> None:
        """``module`` is that of the class ``name``, without the package."""
        self.docs = field_docs(module, name)

    def help(self, field: str, more: str = "") -> str:
        """Return the first sentence on a field, and ``more``, with other fields called as their options."""
        first = re.split(r"(?<=[^.])\. ", self.docs[field].replace("`vocabtransfer.", "`"), maxsplit=1)[0].rstrip(".")
        said = re.sub(r"``(\w+)``", lambda match: self._option(match[1]), first)
        return f"{said[0].upper()}{said[1:]}.{more and ' ' + more}"

    def option(self, field: str, default: Any, *words: str, more: str = "", **settings: Any) -> Any:
        """Return the typer option of a field; ``words`` and ``settings`` are typer's."""
        return typer.Option(default, *words, help=self.help(field, more), **settings)

    def _option(self, name: str) -> str:
        return "--" + name.replace("_", "-") if name in self.docs else name
