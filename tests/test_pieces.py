"""Words and tokens encoded in context: pieces give back the bytes, and spans cover the word."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_samples import LARGEST, largest_slow
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.tokenization.ragged import Pieces, SpannedPieces
from vocabtransfer.vocabulary import Kind, Scheme, Vocabulary, byte_alphabet

BYTE_EXACT = ["llama3", "llama2", "gemma3", "qwen3", "gpt4o", "deepseek_v3", "mistral_v3", "tekken"]
WORDS = [
    *["the", "Tokenization", "naïve", "don't", "1234567", "x", "китап", "татарча", "مرحبا", "नमस्ते", "ქართული"],
    *["հայերեն", "አማርኛ", "ภาษาไทย", "中文字", "カタカナ", "한국어", "👩‍👩‍👧‍👦", "🏳️‍🌈", "𝔘𝔫𝔦", "e\u0301te\u0301"],
    *["ﬁn", "Å", "<s>", "a▁b", "…"],
]


@pytest.fixture(scope="module")
def encoder_of(real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> Callable[[str], PieceEncoder]:
    made: dict[str, PieceEncoder] = {}

    def get(name: str) -> PieceEncoder:
        if name not in made:
            made[name] = PieceEncoder(real_tokenizer(name))
        return made[name]

    return get


@pytest.fixture
def each_encoder(real_tokenizer_name: str, encoder_of: Callable[[str], PieceEncoder]) -> PieceEncoder:
    return encoder_of(real_tokenizer_name)


def joined(encoder: PieceEncoder, pieces: Pieces) -> list[bytes]:
    contents = encoder.vocabulary.token_bytes
    return [b"".join(contents[i] for i in pieces[k].tolist()) for k in range(len(pieces))]


def strings(encoder: PieceEncoder, pieces: Pieces) -> list[list[str]]:
    return [[encoder.vocabulary.strings[i] for i in pieces[k].tolist()] for k in range(len(pieces))]


def all_tokens(vocabulary: Vocabulary, step: int = 1) -> list[bytes]:
    return [vocabulary.context_bytes(i) for i in np.flatnonzero(vocabulary.kinds <= Kind.BYTE).tolist()[::step]]


def normalised(tokenizer: PreTrainedTokenizerFast, items: Sequence[bytes]) -> list[bytes]:
    """Items as the tokenizer's own normaliser (Qwen's NFC) leaves them; those that are no text stay."""
    expected = []
    for item in items:
        try:
            text = item.decode()
        except UnicodeDecodeError:
            expected.append(item)
        else:
            own = tokenizer.backend_tokenizer.normalizer
            expected.append(own.normalize_str(text).encode() if isinstance(own, normalizers.NFC) else item)
    return expected


# --- tokens of one vocabulary in the pieces of another ---


@pytest.mark.slow
@pytest.mark.parametrize(("theirs", "mine"), [("llama3", "gemma3"), ("gemma3", "llama3")])
def test_every_token_of_a_large_vocabulary_is_exact(
    theirs: str, mine: str, encoder_of: Callable[[str], PieceEncoder]
) -> None:
    items, encoder = all_tokens(encoder_of(theirs).vocabulary), encoder_of(mine)
    pieces = encoder.encode_bytes(items)
    assert joined(encoder, pieces) == items
    assert (encoder.vocabulary.kinds[pieces.ids] <= Kind.BYTE).all()


@pytest.mark.parametrize("mine", largest_slow(BYTE_EXACT))
def test_samples_of_all_vocabularies_are_exact(
    mine: str,
    real_tokenizer_folders: dict[str, object],
    real_tokenizer: Callable[[str], PreTrainedTokenizerFast],
    encoder_of: Callable[[str], PieceEncoder],
) -> None:
    others = [name for name in real_tokenizer_folders if mine in LARGEST or name not in LARGEST]
    items = [item for name in others for item in all_tokens(encoder_of(name).vocabulary, step=101)]
    encoder = encoder_of(mine)
    assert joined(encoder, encoder.encode_bytes(items)) == normalised(real_tokenizer(mine), items)


@pytest.mark.slow
@pytest.mark.parametrize("mine", BYTE_EXACT)
def test_all_tokens_of_all_vocabularies_are_exact(
    mine: str,
    real_tokenizer_folders: dict[str, object],
    real_tokenizer: Callable[[str], PreTrainedTokenizerFast],
    encoder_of: Callable[[str], PieceEncoder],
) -> None:
    encoder = encoder_of(mine)
    for theirs in real_tokenizer_folders:
        items = all_tokens(encoder_of(theirs).vocabulary)
        assert joined(encoder, encoder.encode_bytes(items)) == normalised(real_tokenizer(mine), items)


@pytest.mark.parametrize("name", largest_slow(["llama3", "llama2", "deepseek_v3", "mistral_v3", "tekken"]))
def test_tokens_are_their_own_pieces(name: str, encoder_of: Callable[[str], PieceEncoder]) -> None:
    encoder = encoder_of(name)
    ids = np.flatnonzero(encoder.vocabulary.kinds == Kind.TEXT)
    pieces = encoder.encode_bytes([encoder.vocabulary.context_bytes(i) for i in ids.tolist()])
    assert (pieces.indptr == np.arange(len(ids) + 1)).all()
    assert (pieces.ids == ids).all()


def test_wordpiece_tokens_are_their_own_pieces(encoder_of: Callable[[str], PieceEncoder]) -> None:
    encoder = encoder_of("minilm")
    vocabulary = encoder.vocabulary
    ids = [
        i for i in range(len(vocabulary)) if vocabulary.kinds[i] == Kind.TEXT and (vocabulary.text(i) or "").isalpha()
    ]
    pieces = encoder.encode_bytes([vocabulary.context_bytes(i) for i in ids])
    same = [pieces[k].tolist() == [i] for k, i in enumerate(ids)]
    # The rest cannot be produced: ## forms of Chinese characters, for example, which always stand alone.
    unreachable = [vocabulary.strings[i] for i, own in zip(ids, same, strict=True) if not own]
    assert len(unreachable) < 330
    assert all(string.startswith("##") or not string.isascii() for string in unreachable)


@pytest.mark.parametrize("name", largest_slow(BYTE_EXACT))
@settings(deadline=None, max_examples=60)
@given(items=st.lists(st.one_of(st.binary(max_size=8), st.text(max_size=8).map(str.encode)), max_size=6))
def test_any_bytes_are_exact(
    name: str,
    real_tokenizer: Callable[[str], PreTrainedTokenizerFast],
    encoder_of: Callable[[str], PieceEncoder],
    items: list[bytes],
) -> None:
    encoder = encoder_of(name)
    pieces = encoder.encode_bytes(items)
    assert pieces.indptr.dtype == np.int64
    assert pieces.ids.dtype == np.int32
    assert joined(encoder, pieces) == normalised(real_tokenizer(name), items)


def test_names_of_special_tokens_are_text(each_encoder: PieceEncoder) -> None:
    vocabulary = each_encoder.vocabulary
    special = np.flatnonzero(vocabulary.kinds == Kind.SPECIAL).tolist()[:300]
    items = [b" " * space + vocabulary.strings[i].encode() for i in special for space in (0, 1)]
    pieces = each_encoder.encode_bytes(items)
    assert (vocabulary.kinds[pieces.ids] <= Kind.BYTE).all()
    if vocabulary.scheme is not Scheme.WORDPIECE:
        assert joined(each_encoder, pieces) == items


BOUNDARIES = {
    "llama3": [["Ġthe"], ["the"], ["ĠĠ", "Ġthe"], ["Ġ"]],
    "mistral_v1": [["▁the"], ["the"], ["▁▁", "▁the"], ["▁"]],
    "mistral_v3": [["▁the"], ["the"], ["▁▁", "▁the"], ["▁"]],
    "gemma3": [["▁the"], ["the"], ["▁▁▁", "the"], ["▁"]],
    "minilm": [["the"], ["##the"], ["the"], []],
}


@pytest.mark.parametrize("name", largest_slow(BOUNDARIES))
def test_word_boundaries(name: str, encoder_of: Callable[[str], PieceEncoder]) -> None:
    encoder = encoder_of(name)
    assert strings(encoder, encoder.encode_bytes([b" the", b"the", b"   the", b" "])) == BOUNDARIES[name]


def test_split_characters(encoder_of: Callable[[str], PieceEncoder]) -> None:
    item = "é".encode() + "中".encode()[:2]
    assert strings(encoder_of("llama2"), encoder_of("llama2").encode_bytes([item])) == [["é", "<0xE4>", "<0xB8>"]]
    alphabet = byte_alphabet()
    spelled = "".join(alphabet[byte] for byte in item)
    assert "".join(strings(encoder_of("llama3"), encoder_of("llama3").encode_bytes([item]))[0]) == spelled
    assert strings(encoder_of("minilm"), encoder_of("minilm").encode_bytes([item])) == [[]]


@pytest.mark.slow
def test_the_space_mark_itself_survives_sentencepiece(encoder_of: Callable[[str], PieceEncoder]) -> None:
    encoder = encoder_of("gemma3")
    assert joined(encoder, encoder.encode_bytes(["a▁b".encode()])) == ["a▁b".encode()]


def test_wordpiece_goes_on_a_word_up_to_its_end(encoder_of: Callable[[str], PieceEncoder]) -> None:
    encoder = encoder_of("minilm")
    items = [b"ing", b"ing the", b"ing-the", b" ING", "s中ing".encode(), "文".encode(), b"", "ภ".encode()]
    expected = [["##ing"], ["##ing", "the"], ["##ing", "-", "the"], ["ing"], ["##s", "中", "ing"], ["文"], [], []]
    assert strings(encoder, encoder.encode_bytes(items)) == expected


def test_encoding_leaves_the_tokenizer_alone(encoder_of: Callable[[str], PieceEncoder]) -> None:
    tokenizer = sentencepiece_like()
    before = tokenizer.backend_tokenizer.to_str()
    encoder = PieceEncoder(tokenizer)
    encoder.encode_bytes([b" ab", b"\xff"])
    encoder.encode_words(["ab"])
    assert tokenizer.backend_tokenizer.to_str() == before


# --- words and spans ---


def covered(pieces: SpannedPieces, k: int) -> list[tuple[float, float]]:
    rows = slice(pieces.indptr[k], pieces.indptr[k + 1])
    return list(zip(pieces.starts[rows].tolist(), pieces.ends[rows].tolist(), strict=True))


def assert_spans_cover(pieces: SpannedPieces, k: int, length: int) -> None:
    spans = covered(pieces, k)
    assert pieces.lengths[k] == length
    place = 0.0
    for start, end in spans:
        assert start == pytest.approx(place, abs=1e-4)
        assert end >= start
        place = end
    assert place == pytest.approx(length, abs=1e-4)


@pytest.mark.parametrize("word_initial", [True, False])
def test_spans_cover_words(each_encoder: PieceEncoder, word_initial: bool) -> None:
    pieces = each_encoder.encode_words(WORDS, word_initial)
    assert pieces.starts.dtype == pieces.ends.dtype == np.float32
    unknown = each_encoder.vocabulary.scheme is Scheme.WORDPIECE
    for k, word in enumerate(WORDS):
        if not (unknown and sum(end - start for start, end in covered(pieces, k)) < len(word)):
            assert_spans_cover(pieces, k, len(word))
    known = WORDS[:8]
    for k, word in enumerate(known):
        assert_spans_cover(pieces, k, len(word))


@pytest.mark.parametrize("name", largest_slow(["llama3", "llama2", "gemma3", "tekken"]))
@settings(deadline=None, max_examples=60)
@given(words=st.lists(st.text(max_size=10), max_size=5), word_initial=st.booleans())
def test_spans_hold_the_text_of_their_pieces(
    name: str, encoder_of: Callable[[str], PieceEncoder], words: list[str], word_initial: bool
) -> None:
    encoder = encoder_of(name)
    pieces = encoder.encode_words(words, word_initial)
    assert len(pieces) == len(words)
    for k, word in enumerate(words):
        if word or not word_initial:
            assert_spans_cover(pieces, k, len(word))
        for i, (start, end) in zip(pieces[k].tolist(), covered(pieces, k), strict=True):
            text = encoder.vocabulary.text(i)
            if text is not None and start.is_integer() and end.is_integer() and "▁" not in word:
                inside = word[int(start) : int(end)]
                assert text == inside or (start == 0 and word_initial and text == " " + inside)


@pytest.mark.parametrize("name", largest_slow(["qwen3", "minilm"]))
@settings(deadline=None, max_examples=60)
@given(words=st.lists(st.text(max_size=10), max_size=5), word_initial=st.booleans())
def test_spans_stay_inside_words_under_any_normaliser(
    name: str, encoder_of: Callable[[str], PieceEncoder], words: list[str], word_initial: bool
) -> None:
    pieces = encoder_of(name).encode_words(words, word_initial)
    for k, word in enumerate(words):
        place = 0.0
        for start, end in covered(pieces, k):
            assert place - 1e-4 <= start <= end <= len(word) + 1e-4
            place = start


def test_split_characters_share_their_character(encoder_of: Callable[[str], PieceEncoder]) -> None:
    pieces = encoder_of("llama2").encode_words(["a🌈"])
    assert covered(pieces, 0) == [(0, 1), (1, 1.25), (1.25, 1.5), (1.5, 1.75), (1.75, 2)]
    # A boundary space that is a piece of its own covers nothing.
    pieces = encoder_of("llama2").encode_words(["7"])
    assert covered(pieces, 0) == [(0, 0), (0, 1)]


@pytest.mark.slow
def test_spans_follow_letters_through_composition(encoder_of: Callable[[str], PieceEncoder]) -> None:
    encoder = encoder_of("qwen3")
    pieces = encoder.encode_words(["e\u0301te", "plain"])
    assert strings(encoder, pieces)[1] == ["Ġplain"]
    assert covered(pieces, 0) == [(0, 2), (2, 4)]


def test_spans_follow_letters_through_normalisers(encoder_of: Callable[[str], PieceEncoder]) -> None:
    bert = encoder_of("minilm").encode_words(["TOKENIZER", "e\u0301te"])
    assert covered(bert, 0) == [(0, 5), (5, 9)]
    assert covered(bert, 1) == [(0, 3), (3, 4)]


def test_words_become_the_pieces_they_are_in_running_text(
    each_encoder: PieceEncoder, real_tokenizer_name: str, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]
) -> None:
    sentence = "The committee reconsidered several extraordinarily unconvincing tokenization proposals yesterday"
    words = sentence.split()
    text = "x " + " ".join(words)
    ids = real_tokenizer(real_tokenizer_name)(text, add_special_tokens=False).input_ids
    assert each_encoder.encode_words(words).ids.tolist() == ids[1:]
    expected = [" " + word for word in words]
    assert each_encoder.encode_bytes([item.encode() for item in expected]).ids.tolist() == ids[1:]


def test_many_words_at_once_are_the_same_as_one_by_one(each_encoder: PieceEncoder) -> None:
    together = each_encoder.encode_words(WORDS)
    for k, word in enumerate(WORDS):
        alone = each_encoder.encode_words([word])
        assert alone.ids.tolist() == together[k].tolist()
        assert covered(alone, 0) == covered(together, k)
    assert len(each_encoder.encode_words([])) == len(each_encoder.encode_bytes([])) == 0


# --- made-up tokenizers with one peculiarity each ---


def wrapped(backend: Tokenizer, **roles: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


PIECES = ["<unk>", "<s>", "▁", "▁ab", "a", "b", "ab", "<", "s", ">", "0", "x", "4", "1", "k", "n", "u", "<0x41>", "▁a"]


def sentencepiece_like(pre_tokenizer: object = None, normalizer: object = None) -> PreTrainedTokenizerFast:
    """A Unigram tokenizer without byte fallback, as T5 and XLM-R have it."""
    backend = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(PIECES)], unk_id=0))
    backend.pre_tokenizer = pre_tokenizer or pre_tokenizers.Metaspace(prepend_scheme="always")
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.decoder = decoders.Metaspace()
    return wrapped(backend, unk_token="<unk>", bos_token="<s>")


@pytest.mark.parametrize(
    "tokenizer",
    [
        sentencepiece_like(),
        sentencepiece_like(pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
        sentencepiece_like(pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])),
        sentencepiece_like(normalizer=normalizers.Sequence([normalizers.Strip(), normalizers.NFKC()])),
        sentencepiece_like(normalizer=normalizers.Prepend("▁")),
    ],
)
def test_prefixes_and_stripping_are_for_whole_texts_only(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = PieceEncoder(tokenizer)
    items = [b" ab", b"ab", b" ", b"abk", " ☃ab".encode(), b"\xffab"]
    assert strings(encoder, encoder.encode_bytes(items)) == [
        *[["▁ab"], ["ab"], ["▁"], ["ab", "k"]],
        # What the vocabulary does not know leaves no piece.
        *[["▁", "ab"], ["ab"]],
    ]
    assert strings(encoder, encoder.encode_words(["ab", "b"])) == [["▁ab"], ["▁", "b"]]


def test_unigram_does_not_find_the_names_of_controls_and_bytes() -> None:
    encoder = PieceEncoder(sentencepiece_like())
    items = [b"<s>", b"a<unk>", b"<0x41>", b" <s>"]
    assert joined(encoder, encoder.encode_bytes(items)) == items
    assert joined(encoder, encoder.encode_words(["<s>", "<0x41>"], word_initial=False)) == [b"<s>", b"<0x41>"]


def byte_level(**options: bool) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(**options), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
    )
    backend.train_from_iterator(["the cat sat on the mat, then the other cat"] * 3, trainer)
    return backend


def test_a_prefix_space_of_byte_level_is_not_for_pieces() -> None:
    encoder = PieceEncoder(wrapped(byte_level(add_prefix_space=True)))
    assert strings(encoder, encoder.encode_bytes([b"the", b" the"])) == [["the"], ["Ġthe"]]


def test_added_text_tokens_are_found_under_their_own_ids() -> None:
    backend = byte_level(add_prefix_space=False)
    # A special token in between gives the text token another id than it has in the encoder's private copy.
    backend.add_special_tokens(["<|extra|>"])
    backend.add_tokens([AddedToken("китап", normalized=False)])
    encoder = PieceEncoder(wrapped(backend))
    pieces = encoder.encode_bytes(["the китаплар <|extra|>".encode()])
    assert "китап" in strings(encoder, pieces)[0]
    assert pieces.ids.max() == backend.token_to_id("китап")
    assert joined(encoder, pieces) == ["the китаплар <|extra|>".encode()]
    words = encoder.encode_words(["китаплар"], word_initial=False)
    assert covered(words, 0)[0] == (0, 5)


def test_a_prefix_normaliser_of_whole_words_does_not_shift_spans() -> None:
    backend = byte_level(add_prefix_space=True)
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.NFD()])
    encoder = PieceEncoder(wrapped(backend))
    pieces = encoder.encode_words(["THE", "é"])
    assert strings(encoder, pieces)[0] == ["Ġthe"]
    assert covered(pieces, 0) == [(0, 3)]
    assert covered(pieces, 1)[-1][1] == 1
