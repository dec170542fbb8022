"""What is said of a text that makes a poor vocabulary: markup left in it, letters taken apart, joiners that are lost."""

import unicodedata

import pytest
from tokenizer_samples import made_up_text, t5_like, tiny_backend
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from vocabtransfer.files.looks import TextLooks
from vocabtransfer.tokenization.extend import extend_tokenizer
from vocabtransfer.tokenization.joiners import joiner_share, loses_joiners, with_joiners_kept
from vocabtransfer.tokenization.optimise import optimise_tokenizer
from vocabtransfer.tokenization.save import backend_document
from vocabtransfer.tokenization.swap import swap_tokenizer
from vocabtransfer.tokenization.train import train_tokenizer, training_notes
from vocabtransfer.tokenization.trim import trim_tokenizer

WIKITEXT = """{{Infobox settlement
| name = Казан
| population_total = 1257391
}}
'''Казан''' — [[Татарстан]] башкаласы.<ref name="a">{{cite web|url=http://x}}</ref>
== Тарих ==
* [[Идел]]
{| class="wikitable"
|-
! Ел !! Халык
|}"""
DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="tt">
  <page>
    <title>Казан</title>
    <ns>0</ns>
    <revision>
      <text bytes="123" xml:space="preserve">Казан шәһәре
      </text>
    </revision>
  </page>"""
EXTRACTED = """<doc id="12" url="https://tt.wikipedia.org/wiki?curid=12" title="Казан">
Казан шәһәре Идел буенда урнашкан.
</doc>"""
HTML = """<!DOCTYPE html>
<div class="x"><p>Казан&nbsp;шәһәре</p>
<a href="/wiki">Идел</a><br/>"""
JSON = """[
  {
    "title": "Казан",
    "text": "Казан шәһәре"
  },"""
CLEAN = [
    "The price is < 5 and > 3; a & b, x = y, (see [1]) {maybe}.",
    'Он сказал: «да» — и ушёл. "Тест": 5.',
    "1 | 2 | 3 … #хэштег @имя https://example.org/a_b?c=d&e=f",
    "\"Quoted\": he said, '' twice ''.",
    "- a list\n* another",
    "== ",
]


def looks_of(text: str) -> TextLooks:
    looks = TextLooks()
    for line in text.splitlines():
        looks.see(line)
    return looks


@pytest.mark.parametrize(
    ("text", "kind", "least"),
    [
        (WIKITEXT, "wikitext", 0.8),
        (DUMP, "XML of a dump", 0.9),
        (EXTRACTED, "XML of a dump", 0.6),
        (HTML, "HTML", 1.0),
        (JSON, "JSON", 1.0),
    ],
)
def test_markup_is_noticed_with_its_kind_and_share(text: str, kind: str, least: float) -> None:
    looks = looks_of(text)
    assert looks.kinds.most_common(1)[0][0] == kind
    assert looks.marked_up / looks.looked_at >= least
    note = looks.markup_note()
    assert kind in note and f"{looks.marked_up / looks.looked_at:.0%}" in note and looks.example in note


@pytest.mark.parametrize("text", CLEAN)
def test_plain_text_holds_no_markup(text: str) -> None:
    assert looks_of(text).markup_note() == ""


def test_a_little_markup_is_not_worth_a_word_and_late_markup_is_found() -> None:
    plain = made_up_text(400)
    looks = looks_of("\n".join([*plain, "<p>x</p>"]))
    assert looks.marked_up == 1 and looks.markup_note() == ""
    late = looks_of("\n".join(["слово"] * 30_000 + ["[[Идел]]"] * 30_000))
    assert "wikitext" in late.markup_note()


def source() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tiny_backend(), eos_token="<|endoftext|>")


WORDS = "tiếng Việt đẹp lắm người ở đây"


@pytest.mark.parametrize(("apart", "share"), [(1, "100%"), (2, "50%")])
def test_letters_taken_apart_are_said_with_their_share(apart: int, share: str) -> None:
    lines = [unicodedata.normalize("NFC" if n % apart else "NFD", WORDS) for n in range(40)]
    notes = training_notes(train_tokenizer(lines, like=source(), vocab_size=400))
    note = next(note for note in notes if "NFD" in note)
    assert share in note and ("two ways" in note) == (apart == 2)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_nothing_is_said_of_composed_text_or_by_a_tokenizer_that_composes(form: str) -> None:
    lines = [unicodedata.normalize(form, WORDS)] * 40
    like = source()
    if form == "NFD":
        like.backend_tokenizer.normalizer = normalizers.NFC()
    assert not any("NFD" in note for note in training_notes(train_tokenizer(lines, like=like, vocab_size=400)))
    # What cannot be composed is not taken apart: Hindi's क़ has no composed form of its own in NFC.
    assert looks_of("क़लम ज़मीन").decomposed == 0


def test_counted_words_are_looked_at_too() -> None:
    words = {unicodedata.normalize("NFD", "người"): 3, "đẹp": 1, "nha": 5}
    notes = training_notes(train_tokenizer(words, like=source(), vocab_size=400))
    assert any("75%" in note and "NFD" in note for note in notes)


@pytest.mark.parametrize("reshape", ["extend", "trim", "optimise", "swap"])
def test_every_way_to_a_vocabulary_says_it(reshape: str) -> None:
    lines = [f"[[{unicodedata.normalize('NFD', WORDS)}]]"] * 40
    made = {
        "extend": lambda: extend_tokenizer(source(), lines, new_tokens=20),
        "trim": lambda: trim_tokenizer(source(), lines, keep=300),
        "optimise": lambda: optimise_tokenizer(source(), lines, size=330),
        "swap": lambda: swap_tokenizer(source(), lines, new_tokens=5),
    }[reshape]()
    assert any("NFD" in note for note in made.notes) and any("wikitext" in note for note in made.notes)
    assert set(made.notes) <= set(training_notes(made.tokenizer))


# --- joiners ----------------------------------------------------------------------------------------------------------

JOINED = {
    "Persian": ["می‌خواهم", "کتاب‌ها", "نمی‌دانم", "خانه"],
    "Sinhala": ["ක්‍ෂය", "ශ්‍රී", "ප්‍රථම"],
    "Malayalam": ["ന്‍റെ", "അവന്‍റെ"],
    "Kannada": ["ರ‍್ಯಾಂಕ್", "ಸರ್‌ನ"],
}


def bert() -> PreTrainedTokenizerFast:
    made = train_tokenizer(made_up_text(50), like=source(), vocab_size=500, algorithm="wordpiece")
    document = backend_document(made)
    assert document["normalizer"]["clean_text"] is True
    return made


@pytest.mark.parametrize("language", JOINED)
@pytest.mark.parametrize("like", [t5_like, bert])
def test_joiners_of_the_language_stay(language: str, like: object) -> None:
    old = like()  # type: ignore[operator]
    words = JOINED[language]
    assert loses_joiners(backend_document(old)["normalizer"])
    made = train_tokenizer([" ".join(words)] * 40, like=old, vocab_size=400)
    assert any("new tokenizer keeps them" in note for note in training_notes(made))
    text = " ".join(words)
    assert made.decode(made.encode(text, add_special_tokens=False)).split() == text.split()
    normalise = made.backend_tokenizer.normalizer.normalize_str
    # All else is as it was: compatibility forms for one, controls for the other.
    other = "ﬁ Ａ½ a\u00a0b" if like is t5_like else "a\x07b\u200ec\u00a0d\te"
    assert normalise(other) == old.backend_tokenizer.normalizer.normalize_str(other)


def test_joiners_are_left_alone_where_the_language_has_none() -> None:
    made = train_tokenizer(made_up_text(100), like=t5_like(), vocab_size=400)
    assert backend_document(made)["normalizer"] == backend_document(t5_like())["normalizer"]
    assert joiner_share("") == 0.0 and joiner_share("a\u200c b") == 0.0
    assert with_joiners_kept({"type": "Replace", "pattern": {"String": "\u200c"}, "content": ""}) is not None


def test_joiners_that_are_lost_are_said_where_no_rule_may_change() -> None:
    lines = [" ".join(JOINED["Persian"])] * 40
    made = train_tokenizer(lines, like=t5_like(), vocab_size=400, repair_marks=False)
    assert any("75.0% of the text's words" in note and "lose" in note for note in training_notes(made))
    swapped = swap_tokenizer(t5_like(), lines, new_tokens=3)
    assert any("lose" in note for note in swapped.notes)
