"""What tokens stand for: on every token of every real tokenizer, and on made-up vocabularies."""

import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_samples import largest_slow
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.vocabulary import SCRIPTS, Kind, Scheme, Vocabulary, byte_alphabet

SAMPLE = """The quick brown fox — naïve café, Ærøskøbing, Łódź; it's 3.14159 and 1,234,567!
Татар теле: җәй, үзәк, һәм. Русский язык, ёж. Қазақ тілі: ғылым, әже.
العربية: مرحبا بالعالم، ١٢٣. فارسی: می‌خواهم. עברית: שָׁלוֹם
हिन्दी: नमस्ते दुनिया, क्षत्रिय। ქართული ენა. Հայերեն լեզու։ አማርኛ ቋንቋ።
ภาษาไทยไม่มีช่องว่าง 中文没有空格，日本語はカタカナとひらがな。한국어 문장
👩‍👩‍👧‍👦 🏳️‍🌈 🇳🇱 é (e\u0301) ﬁ ½ Å 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ▁mark \u00a0 \u200b
def f(x):\n\tif x  >  0:\n\t\treturn {"a": [1, 2, 3]}   # comment\r\n\r\n\n\n<b>bold</b> <0x41> ##ing Ġword"""

# SmolLM2's vocabulary was trained without them: six control characters, and bytes of no or very rare characters.
MISSING_IN_SMOLLM2 = {0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xC0, 0xC1, 0xF1, 0xF2, *range(0xF5, 0x100)}
BYTE_EXACT = {Scheme.BYTE_LEVEL, Scheme.SENTENCEPIECE}


@pytest.fixture(scope="module")
def vocabulary_of(real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> Callable[[str], Vocabulary]:
    made: dict[str, Vocabulary] = {}

    def get(name: str) -> Vocabulary:
        if name not in made:
            made[name] = Vocabulary.from_tokenizer(real_tokenizer(name))
        return made[name]

    return get


def text_as_contributed(tokenizer: PreTrainedTokenizerFast, text: str) -> bytes:
    """What the bytes of all tokens must add up to, scheme by scheme.

    Byte-level: the normalised text. SentencePiece: that, with ``▁`` a space (its normaliser put the dummy prefix in
    front already). WordPiece: the normalised text without white space (and without what became unknown).
    """
    backend = tokenizer.backend_tokenizer
    normalised = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
    if type(backend.model).__name__ == "WordPiece":
        return "".join(normalised.split()).encode()
    if "▁" in str(backend.decoder) and "ByteLevel" not in str(backend.decoder):
        normalised = normalised.replace("▁", " ")
    return normalised.encode()


def contributed(tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary, text: str) -> bytes:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    return b"".join(vocabulary.token_bytes[i] for i in ids)


def test_bytes_of_an_encoding_give_back_the_text(
    each_real_tokenizer: PreTrainedTokenizerFast, real_tokenizer_name: str, vocabulary_of: Callable[[str], Vocabulary]
) -> None:
    vocabulary = vocabulary_of(real_tokenizer_name)
    parts = SAMPLE.splitlines()
    lines = [SAMPLE, *parts, *(part[::-1] for part in parts), " ", "  two", "end  ", "\n"]
    if vocabulary.scheme is Scheme.WORDPIECE:
        # Its vocabulary has no Armenian, no Ethiopic ...: words with unknown characters are unknown as a whole.
        lines = ["The quick brown fox, naïve café; it's 3.14159!", "Русский язык, ёж", "e\u0301te\u0301 ÅNGSTRÖM\t日本"]
    for line in lines:
        assert contributed(each_real_tokenizer, vocabulary, line) == text_as_contributed(each_real_tokenizer, line)


@pytest.mark.parametrize("name", largest_slow(["llama3", "llama2", "gemma3", "qwen3", "mistral_v3", "tekken"]))
@settings(deadline=None, max_examples=60)
@given(text=st.text(max_size=40))
def test_bytes_of_any_text(
    name: str,
    real_tokenizer: Callable[[str], PreTrainedTokenizerFast],
    vocabulary_of: Callable[[str], Vocabulary],
    text: str,
) -> None:
    tokenizer = real_tokenizer(name)
    assert contributed(tokenizer, vocabulary_of(name), text) == text_as_contributed(tokenizer, text)


def test_every_token_is_what_the_tokenizer_decodes_it_to(
    each_real_tokenizer: PreTrainedTokenizerFast, real_tokenizer_name: str, vocabulary_of: Callable[[str], Vocabulary]
) -> None:
    backend, vocabulary = each_real_tokenizer.backend_tokenizer, vocabulary_of(real_tokenizer_name)
    ids = np.flatnonzero(vocabulary.kinds != Kind.HOLE).tolist()
    # After another token: some decoders treat the first one of a text in their own way.
    anchor = backend.token_to_id("a")
    decoded = backend.decode_batch([[anchor, i] for i in ids], skip_special_tokens=False)
    # Special tokens are literal text; a decoder would put an alphabet's mark in their names through the alphabet.
    special = set(np.flatnonzero(vocabulary.kinds == Kind.SPECIAL).tolist())
    for i, text in zip(ids, decoded, strict=True):
        assert text.startswith("a")
        after = text[1:]
        if vocabulary.scheme is Scheme.WORDPIECE:
            if vocabulary.kinds[i] == Kind.TEXT and len(vocabulary.text(i) or "") > 1:
                assert after.startswith(" ") == vocabulary.word_initial[i]
            after = after.lstrip()
        expected = vocabulary.strings[i] if i in special else after
        assert vocabulary.token_bytes[i].decode("utf-8", "replace") == expected, vocabulary.strings[i]


EXPECTED = {
    "llama3": (Scheme.BYTE_LEVEL, 128_256, 256, 0, 0),
    "qwen3": (Scheme.BYTE_LEVEL, 151_669, 26, 0, 0),
    "gpt4o": (Scheme.BYTE_LEVEL, 200_019, 2, 0, 19),
    "deepseek_v3": (Scheme.BYTE_LEVEL, 128_815, 818, 0, 0),
    "tekken": (Scheme.BYTE_LEVEL, 131_072, 1000, 0, 0),
    "smollm2": (Scheme.BYTE_LEVEL, 49_152, 17, 0, 0),
    "llama2": (Scheme.SENTENCEPIECE, 32_000, 3, 256, 0),
    "mistral_v1": (Scheme.SENTENCEPIECE, 32_000, 3, 256, 0),
    "mistral_v3": (Scheme.SENTENCEPIECE, 32_768, 771, 256, 0),
    "gemma3": (Scheme.SENTENCEPIECE, 262_145, 6253, 256, 0),
    "minilm": (Scheme.WORDPIECE, 30_522, 999, 0, 0),
}


def test_kinds_of_all_tokens(real_tokenizer_name: str, vocabulary_of: Callable[[str], Vocabulary]) -> None:
    vocabulary = vocabulary_of(real_tokenizer_name)
    counts = np.bincount(vocabulary.kinds, minlength=4)
    found = (vocabulary.scheme, len(vocabulary), counts[Kind.SPECIAL], counts[Kind.BYTE], counts[Kind.HOLE])
    assert found == EXPECTED[real_tokenizer_name]
    assert all(vocabulary.token_bytes[i] == b"" for i in np.flatnonzero(vocabulary.kinds == Kind.HOLE))
    assert all(vocabulary.token_bytes[i] for i in np.flatnonzero(vocabulary.kinds == Kind.TEXT))
    assert not (vocabulary.word_initial & (vocabulary.kinds != Kind.TEXT)).any()


def test_every_byte_can_be_written(real_tokenizer_name: str, vocabulary_of: Callable[[str], Vocabulary]) -> None:
    vocabulary = vocabulary_of(real_tokenizer_name)
    if vocabulary.scheme in BYTE_EXACT:
        missing = {byte for byte in range(256) if (bytes([byte]), False) not in vocabulary.index()}
        assert missing == (MISSING_IN_SMOLLM2 if real_tokenizer_name == "smollm2" else set())


def test_keys_bring_different_alphabets_together(vocabulary_of: Callable[[str], Vocabulary]) -> None:
    byte_level, mistral, bert = (vocabulary_of(name).index() for name in ("llama3", "mistral_v1", "minilm"))
    strings = [vocabulary_of(name).strings for name in ("llama3", "mistral_v1", "minilm")]
    ids = [index[b"the", True] for index in (byte_level, mistral, bert)]
    assert [names[i] for names, i in zip(strings, ids, strict=True)] == ["Ġthe", "▁the", "the"]
    ids = [index[b"ing", False] for index in (byte_level, mistral, bert)]
    assert [names[i] for names, i in zip(strings, ids, strict=True)] == ["ing", "ing", "##ing"]
    assert strings[0][byte_level[b" ", False]] == "Ġ"
    assert strings[1][mistral[b" ", False]] == "▁"
    # Punctuation stands alone in BERT: it is never the start of a word, with or without ##.
    assert strings[2][bert[b",", False]] == ","
    # A byte that is also a letter of its own is that letter; others are fallback tokens.
    assert strings[1][mistral[b"a", False]] == "a"
    assert strings[1][mistral[b"\xd0", False]] == "<0xD0>"


def test_keys_tell_all_text_tokens_apart(real_tokenizer_name: str, vocabulary_of: Callable[[str], Vocabulary]) -> None:
    vocabulary = vocabulary_of(real_tokenizer_name)
    text = np.flatnonzero(vocabulary.kinds == Kind.TEXT).tolist()
    if vocabulary.scheme is Scheme.WORDPIECE:
        text = [i for i in text if not vocabulary.strings[i].startswith("##")]
    keys = {vocabulary.key(i) for i in text}
    assert len(keys) == len(text)
    index = vocabulary.index()
    assert all(index[vocabulary.key(i)] == i for i in text)
    for i in text[::97]:
        content, initial = vocabulary.key(i)
        assert vocabulary.context_bytes(i) == (b" " + content if initial else content)


@pytest.mark.slow
def test_added_tokens_that_are_markers_and_those_that_are_text(vocabulary_of: Callable[[str], Vocabulary]) -> None:
    gemma, qwen = vocabulary_of("gemma3"), vocabulary_of("qwen3")
    kinds = {string: Kind(kind) for string, kind in zip(gemma.strings, gemma.kinds.tolist(), strict=True)}
    for string in ("<bos>", "<start_of_turn>", "<unused0>", "<unused6241>", "<mask>", "[multimodal]", "<unk>"):
        assert kinds[string] is Kind.SPECIAL
    for string in ("<b>", "</table>", "<h1>", "\n\n", "▁▁▁", "\t", "<s>"):
        assert kinds[string] is Kind.TEXT
    assert kinds["<0x0A>"] is Kind.BYTE
    assert gemma.token_bytes[gemma.strings.index("▁▁▁")] == b"   "
    assert gemma.roles["eos_token"] == gemma.strings.index("<end_of_turn>")
    for string in ("<think>", "</tool_call>", "<|fim_prefix|>", "<|im_end|>"):
        assert qwen.kinds[qwen.strings.index(string)] == Kind.SPECIAL


@pytest.mark.slow
def test_added_text_is_literal_in_byte_level_vocabularies(
    real_tokenizer: Callable[[str], PreTrainedTokenizerFast],
) -> None:
    deepseek = Vocabulary.from_tokenizer(real_tokenizer("deepseek_v3"))
    i = deepseek.strings.index("<｜fim▁hole｜>")
    assert deepseek.token_bytes[i] == "<｜fim▁hole｜>".encode()


def test_split_characters_have_no_text(vocabulary_of: Callable[[str], Vocabulary]) -> None:
    llama = vocabulary_of("llama3")
    whole, half = llama.strings.index("Ð¹"), llama.strings.index("Ð")
    assert (llama.text(whole), llama.text(half)) == ("й", None)
    assert llama.token_bytes[half] == b"\xd0"


def test_scripts_of_tokens(real_tokenizer_name: str, vocabulary_of: Callable[[str], Vocabulary]) -> None:
    vocabulary = vocabulary_of(real_tokenizer_name)
    scripts = vocabulary.scripts()
    index = vocabulary.index()
    assert scripts.dtype == np.uint8
    assert scripts.shape == (len(vocabulary),)
    for content, initial, script in ((b"the", True, "Latn"), ("и".encode(), False, "Cyrl"), (b"1", False, "Zyyy")):
        assert SCRIPTS[scripts[index[content, initial]]] == script
    assert not scripts[vocabulary.kinds >= Kind.SPECIAL].any()


# --- made-up vocabularies ---


def wrapped(backend: Tokenizer, **roles: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


@given(
    st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=20, unique=True),
    st.lists(st.integers(min_value=0, max_value=60), min_size=20, max_size=20, unique=True),
)
def test_byte_level_strings_come_back_as_their_bytes(contents: list[bytes], ids: list[int]) -> None:
    alphabet = byte_alphabet()
    numbered = dict(zip(ids, contents, strict=False))
    strings = {"".join(alphabet[byte] for byte in content): i for i, content in numbered.items()}
    backend = Tokenizer(models.BPE(vocab=strings, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    vocabulary = Vocabulary.from_tokenizer(wrapped(backend))
    assert len(vocabulary) == max(numbered) + 1
    for i in range(len(vocabulary)):
        assert vocabulary.token_bytes[i] == numbered.get(i, b"")
        assert vocabulary.kinds[i] == (Kind.TEXT if i in numbered else Kind.HOLE)
        if i in numbered:
            content, initial = vocabulary.key(i)
            assert (b" " + content if initial else content) == numbered[i]
            assert initial == (numbered[i][:1] == b" " and bool(numbered[i].strip()))


def test_added_tokens_win_over_the_model_and_leave_holes() -> None:
    backend = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "Ġa": 6}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_tokens([AddedToken("é", normalized=False), AddedToken("<my_marker>", normalized=False)])
    backend.add_special_tokens(["b"])
    vocabulary = Vocabulary.from_tokenizer(wrapped(backend, pad_token="a"))
    new = vocabulary.strings.index("é")
    # The letter é is also how the alphabet writes the byte E9; as an added token it is the letter.
    assert vocabulary.token_bytes[new] == "é".encode()
    assert vocabulary.strings == ("a", "b", "", "é", "<my_marker>", "", "Ġa")
    special, text, hole = Kind.SPECIAL, Kind.TEXT, Kind.HOLE
    assert vocabulary.kinds.tolist() == [special, special, hole, text, special, hole, text]
    assert dict(vocabulary.roles) == {"pad_token": 0}


def test_a_role_given_later_counts() -> None:
    backend = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = wrapped(backend)
    tokenizer.pad_token = "b"
    assert Vocabulary.from_tokenizer(tokenizer).kinds.tolist() == [Kind.TEXT, Kind.SPECIAL]


def test_special_tokens_of_the_model_itself() -> None:
    vocab = {"[UNK]": 0, "[unused0]": 1, "a": 2, "##a": 3, "##": 4}
    backend = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    vocabulary = Vocabulary.from_tokenizer(wrapped(backend))
    assert vocabulary.kinds.tolist() == [Kind.SPECIAL, Kind.SPECIAL, Kind.TEXT, Kind.TEXT, Kind.TEXT]
    assert vocabulary.token_bytes == (b"[UNK]", b"[unused0]", b"a", b"a", b"##")
    assert vocabulary.word_initial.tolist() == [False, False, True, False, False]


def test_metaspace_and_unigram_are_sentencepiece() -> None:
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁a", -1.0), ("b", -2.0)], unk_id=0))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    vocabulary = Vocabulary.from_tokenizer(wrapped(backend, unk_token="<unk>"))
    assert vocabulary.scheme is Scheme.SENTENCEPIECE
    assert vocabulary.token_bytes[1:] == (b" a", b"b")
    assert vocabulary.kinds[0] == Kind.SPECIAL


def test_byte_alphabet_of_a_normaliser_counts() -> None:
    backend = Tokenizer(models.BPE(vocab={"Ġa": 0}, merges=[]))
    backend.normalizer = normalizers.ByteLevel()
    assert Vocabulary.from_tokenizer(wrapped(backend)).token_bytes == (b" a",)


def end_of_word_bpe() -> Tokenizer:
    return Tokenizer(models.BPE(vocab={"a</w>": 0}, merges=[], end_of_word_suffix="</w>"))


def whole_words() -> Tokenizer:
    return Tokenizer(models.WordLevel(vocab={"a": 0, "?": 1}, unk_token="?"))


@pytest.mark.parametrize("make", [end_of_word_bpe, whole_words])
def test_other_kinds_are_refused(make: Callable[[], Tokenizer]) -> None:
    with pytest.raises(VocabTransferError, match="byte-level, SentencePiece and WordPiece"):
        Vocabulary.from_tokenizer(wrapped(make()))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3))
def test_scripts_agree_with_unicode_names(text: str) -> None:
    named = {"LATIN": "Latn", "CYRILLIC": "Cyrl", "GREEK": "Grek", "ARABIC": "Arab", "DEVANAGARI": "Deva"}
    backend = Tokenizer(models.BPE(vocab={text: 0}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    script = SCRIPTS[Vocabulary.from_tokenizer(wrapped(backend)).scripts()[0]]
    expected = {named.get(unicodedata.name(char, "?").split()[0]) for char in text if char.isalpha()}
    if len(expected) == 1 and len(text) == 1 and None not in expected:
        assert {script} == expected
