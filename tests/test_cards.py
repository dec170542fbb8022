"""Model cards stay YAML and Markdown whatever a folder is called."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vocabtransfer.files.cards import card_header, one_line
from vocabtransfer.pipeline.page import _templates

NAMES = [
    "my: model",
    "[x",
    "a\nlicence: mit",
    "---",
    "yes",
    "1.0",
    "",
    "'\"",
    "# x",
    "модель",
    "{a}",
    "x\ny",
    "@a",
    "- b",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_quoted(name: str) -> None:
    facts = {"base_model": name, "language": ["no"], "tags": ["vocabtransfer"]}
    first, head, rest = card_header(facts).split("---\n")[0], card_header(facts), ""
    assert first == "" and head.startswith("---\n") and head.endswith("\n---\n") and not rest
    assert yaml.safe_load(head.removeprefix("---\n").removesuffix("---\n")) == facts


@given(st.text())
def test_any_name_is_read_back_and_stays_one_line(name: str) -> None:
    head = card_header({"base_model": name})
    assert yaml.safe_load(head.removeprefix("---\n").removesuffix("---\n")) == {"base_model": name}
    assert len(one_line(name).splitlines()) <= 1


def test_the_card_of_a_build_uses_them() -> None:
    source = _templates.loader.get_source(_templates, "model_card.md.j2")[0]
    assert source.startswith("{{ header }}") and source.count("facts.source.name") == source.count("name | one_line")
