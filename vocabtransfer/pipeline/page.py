"""The report as a page that opens offline, and the model card."""

import json
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader

from vocabtransfer.files.cards import card_header, one_line
from vocabtransfer.surgery.transfer import TransferResult

SOURCES_SHOWN = 4
#: Weights below this are not shown: they round to nothing.
SMALLEST_SHOWN = 0.005
#: What a row's rule means, in a sentence for people.
RULES: Mapping[str, str] = {
    "special": "A control token (beginning, end, chat marker): its row is the source's row of the same role.",
    "copied": "The source has a token of the same text: its row is kept.",
    "made room": "The source's row, taught to leave room: new tokens begin with this token's text.",
    "aligned": "An average of the rows of its likeliest translations, weighted by how often they stood for it.",
    "related tokens": "Never seen aligned: the rows of new tokens that contain it or that it contains.",
    "aligned and pieces": "Partly its translations, partly the source's pieces of its text: there was little evidence.",
    "aligned and inner lexicon": "Partly its translations, mostly what the model's first layers make of its pieces.",
    "pieces": "An average of the rows of the pieces into which the source's tokenizer cuts its text.",
    "aligned shorter pieces": "The average of its translations, seen when longer tokens were set aside.",
    "inner lexicon": "What the model's own first layers make of the pieces of its text, turned back into one row.",
    "merged": "The mean of the two tokens that it is merged from, each made alike, down to tokens that the source has.",
    "same characters": "An average of the source's tokens that stand for the same characters in running text.",
    "used most alike": "The row of the one source token that is used most alike in running text.",
    "similar in word vectors": "An average of the source's tokens that are nearest in word vectors of both languages.",
    "similar shared tokens": "A combination of the tokens that both vocabularies have, by how alike they are used.",
    "donor": "Rebuilt from the tokens that both vocabularies have, as they explain its row in the donor model.",
    "script mean": "Nothing is known of it but its script: the mean of the trained rows in that script.",
    "mean": "Nothing is known of it: the mean of all trained rows.",
    "drawn": "Drawn at random with the spread of the trained rows.",
    "zero": "All zeros.",
}

_templates = Environment(
    loader=PackageLoader("vocabtransfer", "pipeline"),
    autoescape=lambda name: bool(name and ".html" in name),
    trim_blocks=True,
)
_templates.filters["one_line"] = one_line


def render_page(facts: Mapping[str, Any], result: TransferResult) -> bytes:
    """Return report.html: self-contained, with every row of the map in it for the search box."""
    page = _templates.get_template("page.html.j2")
    total = sum(facts["rows_by_rule"].values())
    return page.render(facts=facts, total=total, rules=RULES, table=_embedded(_rows(result))).encode()


def model_card(facts: Mapping[str, Any]) -> bytes:
    """Return README.md for the checkpoint: what it is, where it comes from, how it was made."""
    header = card_header(
        {
            "base_model": facts["source"]["name"],
            "language": [facts["language"]["code"]],
            "tags": ["vocabulary-transfer", "vocabtransfer"],
        }
    )
    return _templates.get_template("model_card.md.j2").render(facts=facts, header=header).encode()


def _rows(result: TransferResult) -> dict[str, Any]:
    """Return the whole map in columns: small enough to embed, quick to search in the page."""
    token_map, vocabulary = result.token_map, result.vocabulary
    used: dict[int, int] = {}
    sources = []
    for row in range(token_map.n_target):
        heaviest = token_map.row(row)[:SOURCES_SHOWN]
        sources.append(
            [
                [used.setdefault(column, len(used)), round(weight, 3)]
                for column, weight in heaviest
                if weight >= SMALLEST_SHOWN
            ]
        )
    return {
        "tokens": [vocabulary.readable(i) for i in range(len(vocabulary))],
        "rules": list(token_map.rule_names),
        "rule": token_map.rule.tolist(),
        "evidence": [round(value, 1) for value in token_map.evidence.tolist()],
        "names": [result.source_name(column) for column in used],
        "sources": sources,
    }


def _embedded(value: Any) -> str:
    """Return JSON that can stand inside a script element whatever strings it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
