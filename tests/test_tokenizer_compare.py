"""Tokenizers side by side: figures against counts made by hand, files, pictures."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizer_samples import django_lines, ids_of
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.evaluation.compare import Comparison, compare_tokenizers, domain_name, read_domains
from vocabtransfer.evaluation.fertility import tokenizer_statistics
from vocabtransfer.evaluation.plots import plot_comparison, plot_sizes
from vocabtransfer.tokenization.size import SizeChoice, SizePoint

Source = Callable[[str], PreTrainedTokenizerFast]


@pytest.fixture(scope="module")
def tokenizers(real_tokenizer: Source) -> dict[str, PreTrainedTokenizerFast]:
    return {"smollm2": real_tokenizer("smollm2"), "minilm": real_tokenizer("minilm")}


@pytest.fixture(scope="module")
def comparison(tokenizers: dict[str, PreTrainedTokenizerFast]) -> Comparison:
    texts = {"home": ["Мин өйдә.", "", "Кояш чыга"], "work": ["Эш бар."], "notes": ["Әйе."]}
    english = {"home": ["I am at home.", "nothing", "The sun rises"], "work": iter(["There is work."])}
    return compare_tokenizers(tokenizers, texts, english=english)


def test_figures_of_a_domain(comparison: Comparison, tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    for name, tokenizer in tokenizers.items():
        lines, english = ["Мин өйдә.", "Кояш чыга"], ["I am at home.", "The sun rises"]
        tokens, english_tokens = (sum(map(len, ids_of(tokenizer, each))) for each in (lines, english))
        found = comparison.of(name, "home")
        assert (found.lines, found.words, found.tokens) == (2, 4, tokens)
        assert found.tokens_per_word == tokens / 4
        assert found.characters_per_token == len("".join(lines)) / tokens
        assert found.bytes_per_token == len("".join(lines).encode()) / tokens
        assert found.parity == tokens / english_tokens
        first = sum(map(len, ids_of(tokenizers["smollm2"], english)))
        assert found.parity_to_first == tokens / first


def test_all_domains_together(comparison: Comparison, tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    assert comparison.domains == ["home", "work", "notes", "all"]
    for name, tokenizer in tokenizers.items():
        whole = comparison.of(name)
        parts = [comparison.of(name, domain) for domain in ("home", "work", "notes")]
        assert whole.tokens == sum(part.tokens for part in parts) and whole.words == 7
        assert comparison.of(name, "notes").parity is None
        # Parity counts only the domains that have English.
        english = ["I am at home.", "The sun rises", "There is work."]
        tokens = sum(part.tokens for part in parts[:2])
        assert whole.parity == tokens / sum(map(len, ids_of(tokenizer, english)))


def test_vocabularies(comparison: Comparison) -> None:
    smollm2, minilm = comparison.vocabularies
    assert (smollm2.tokenizer, smollm2.tokens, smollm2.unreachable) == ("smollm2", 49_152, 0)
    assert minilm.unreachable == sum(minilm.unreachable_because.values()) > 300
    assert minilm.unreachable_share == pytest.approx(minilm.unreachable / (30_522 - 999))
    assert json.loads(json.dumps(comparison.facts())) == comparison.facts() | {
        "vocabularies": list(comparison.facts()["vocabularies"]),
        "texts": list(comparison.facts()["texts"]),
    }


def test_one_domain_needs_no_sum(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    lines = django_lines("tt")[:50]
    found = compare_tokenizers({"a": tokenizers["minilm"]}, {"django": lines})
    assert found.domains == ["django"] and found.of("a").domain == "django"
    assert found.of("a").tokens_per_word == tokenizer_statistics(tokenizers["minilm"], lines).tokens_per_word


def test_what_cannot_be_compared(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    with pytest.raises(UsageError, match="at least one"):
        compare_tokenizers(tokenizers, {})
    with pytest.raises(UsageError, match="'all'"):
        compare_tokenizers(tokenizers, {"all": ["a"]})
    with pytest.raises(UsageError, match="'b'"):
        compare_tokenizers(tokenizers, {"a": ["a"]}, english={"b": ["a"]})
    with pytest.raises(VocabTransferError, match="a: There is no text"):
        compare_tokenizers(tokenizers, {"a": [""]})
    for text, english, longer in ((["x", "y"], ["a"], "text"), (["x"], ["a", "b"], "English")):
        with pytest.raises(VocabTransferError, match=f"a: the {longer} goes on after line 1"):
            compare_tokenizers(tokenizers, {"a": text}, english={"a": english})


def test_domains_are_read_from_columns(tmp_path: Path) -> None:
    path = tmp_path / "en-xx.tsv"
    path.write_text("ui\tOpen\tАчарга\nui\t\tбуш\ndocs\tRead\tУкырга\n", encoding="utf-8")
    texts, english = read_domains([path], (1, 2), 0)
    assert texts == {"ui": ["Ачарга"], "docs": ["Укырга"]} and english == {"ui": ["Open"], "docs": ["Read"]}
    assert list(read_domains([path], (1, 2), None)[0]) == ["en-xx"] == [domain_name(Path("en-xx.tsv.xz"))]
    with pytest.raises(VocabTransferError, match=r"has 3 columns.*no column 3"):
        read_domains([path], (1, 3), 0)


def test_domains_are_read_from_records_by_name(tmp_path: Path) -> None:
    rows = [{"part": "ui", "en": "Open", "tt": "Ачарга"}, {"part": "docs", "en": "Read", "tt": "Укырга"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "b.csv").write_text('part,en,tt\nui,Open,"Ачарга, "\n', encoding="utf-8")
    texts, english = read_domains(str(tmp_path / "a.jsonl"), ("en", "tt"), "part")
    assert texts == {"ui": ["Ачарга"], "docs": ["Укырга"]} and english == {"ui": ["Open"], "docs": ["Read"]}
    assert read_domains(tmp_path / "b.csv", ("en", 2))[0] == {"b": ["Ачарга, "]}
    with pytest.raises(VocabTransferError, match="no field 'nl'"):
        read_domains(tmp_path / "b.csv", ("en", "nl"))


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_same_figures_draw_the_same_picture(comparison: Comparison, tmp_path: Path, suffix: str) -> None:
    points = (SizePoint(1_000, 5_000, 3.0, 1.2, None, None), SizePoint(2_000, 6_000, 2.0, 1.0, 0.4, 0.2))
    choice = SizeChoice(2_000, points, ())
    for number in (1, 2):
        plot_comparison(comparison, tmp_path / f"compared{number}{suffix}")
        plot_sizes(choice, tmp_path / "deep" / f"sizes{number}{suffix}")
    for name in ("compared", "deep/sizes"):
        first, second = (tmp_path / f"{name}{number}{suffix}" for number in (1, 2))
        assert first.read_bytes() == second.read_bytes() and first.stat().st_size > 5_000
    if suffix == ".svg":
        assert b"<svg" in first.read_bytes()[:1000]


def test_pictures_that_cannot_be_drawn(comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="svg"):
        plot_comparison(comparison, tmp_path / "figure.txt")
    there = tmp_path / "figure.png"
    there.write_text("mine")
    with pytest.raises(VocabTransferError, match="exists already"):
        plot_comparison(comparison, there)
    assert there.read_text() == "mine"
    plot_comparison(comparison, there, overwrite=True)
    assert there.read_bytes()[1:4] == b"PNG" and list(tmp_path.iterdir()) == [there]
