"""``corpus.html``: what a fetched corpus holds, from where, under which licences, and what was dropped and why."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader

_templates = Environment(
    loader=PackageLoader("vocabtransfer", "corpora"),
    autoescape=lambda name: bool(name and ".html" in name),
    trim_blocks=True,
)


def render_corpus(facts: Mapping[str, Any]) -> bytes:
    """Return the page for the facts that ``corpus.json`` holds; it opens offline."""
    return _templates.get_template("corpus.html.j2").render(facts=facts).encode()
