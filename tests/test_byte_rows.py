"""A vocabulary with byte fallback has both ``A`` and ``<0x41>``: neither may ever stand for the other."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from thinned import first_of
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from vector_samples import pair_table

from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.checkpoint.settings import renumber_settings
from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.initialization import METHODS, Need, find_method
from vocabtransfer.initialization.donor import match_donor
from vocabtransfer.initialization.focus import token_names
from vocabtransfer.initialization.inputs import Donor, TransferInputs
from vocabtransfer.surgery.evidence import Evidence
from vocabtransfer.surgery.transfer import transfer
from vocabtransfer.token_map import TokenMap
from vocabtransfer.tokenization.carry import BYTE_TOKENS
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.tokenization.save import save_tokenizer
from vocabtransfer.tokenization.trim import trim_tokenizer
from vocabtransfer.vocabulary import Kind, Vocabulary

LETTERS = [chr(code) for code in range(0x21, 0x7F)]
WORDS = {"apa": 5.0, "bap": 3.0, "ab.": 2.0, "көп": 2.0}


def sentencepiece(seed: int = 0, *, text: list[str] = LETTERS, fallback: bool = True) -> PreTrainedTokenizerFast:
    """A SentencePiece-style tokenizer of specials, bytes and letters; with a seed its ordinary ids are shuffled."""
    tokens = ["▁", "ap", "▁a", *text, *(BYTE_TOKENS if fallback else ())]
    if seed:
        np.random.default_rng(seed).shuffle(tokens)
    ids = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *tokens])}
    merges = [pair for pair in (("a", "p"), ("▁", "a")) if set(pair) <= ids.keys()]
    backend = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>", byte_fallback=fallback, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def inputs_of(source: PreTrainedTokenizerFast, target: PreTrainedTokenizerFast, **more: object) -> TransferInputs:
    encoder = PieceEncoder(source)
    trained = np.ones(len(encoder.vocabulary), np.bool_)
    return TransferInputs(source=encoder, target=PieceEncoder(target), trained=trained, words=WORDS, **more)  # type: ignore[arg-type]


def sources_of(token_map: TokenMap, row: int) -> list[int]:
    return [column for column, _ in token_map.row(row)]


@given(st.integers(1, 50), st.integers(0, 50))
def test_a_counterpart_is_of_the_same_kind_and_has_the_same_bytes(one: int, other: int) -> None:
    ours, theirs = (Vocabulary.from_tokenizer(sentencepiece(seed)) for seed in (one, other))
    found = ours.counterparts(theirs)
    ordinary = np.flatnonzero(ours.kinds <= Kind.BYTE)
    assert [theirs.strings[i] for i in found[ordinary].tolist()] == [ours.strings[i] for i in ordinary.tolist()]
    assert (found[ours.kinds == Kind.SPECIAL] == -1).all()
    assert (theirs.counterparts(ours)[found[ordinary]] == ordinary).all()


def test_a_byte_stands_for_a_letter_only_where_the_other_vocabulary_has_no_such_byte() -> None:
    both, level = Vocabulary.from_tokenizer(sentencepiece()), Vocabulary.from_tokenizer(toy_tokenizer())
    bytes_only = Vocabulary.from_tokenizer(sentencepiece(text=["a", "b", "p"]))
    plain = Vocabulary.from_tokenizer(sentencepiece(fallback=False))
    place = {name: i for i, name in enumerate(both.strings)}
    # A byte-level vocabulary spells text in bytes: those of letters are the letters, the others are the bytes.
    found = both.counterparts(level)
    assert found[place["A"]] == level.strings.index("A") and found[place["<0x41>"]] == -1
    assert level.token_bytes[found[place["<0xD0>"]]] == b"\xd0"
    back = level.counterparts(both)
    assert back[level.strings.index("A")] == place["A"]
    assert back[level.token_bytes.index(b"\xd0")] == place["<0xD0>"]
    # What has no letter Q writes it as <0x51>; what has no bytes has no place for them.
    assert both.counterpart(place["Q"], bytes_only) == bytes_only.strings.index("<0x51>")
    assert both.counterpart(place["<0x51>"], bytes_only) == bytes_only.strings.index("<0x51>")
    assert both.counterpart(place["<0x41>"], plain) is None


def test_every_method_gives_a_byte_the_sources_byte_and_a_letter_the_sources_letter() -> None:
    source, target = sentencepiece(3), sentencepiece(4)
    table = pair_table([("apa", "bap", 40.0), ("ab", "көп", 40.0), (".", ".", 40.0)])
    tried = 0
    for name in METHODS:
        method = find_method(name)
        if set(method.needs) - {Need.ALIGNMENT}:
            continue
        inputs = inputs_of(source, target, table=table, text=lambda: ["apa bap көп"] * 20)
        try:
            initialization = method(inputs)
        except Exception as problem:  # word vectors that this text is too small for
            assert "vector" in str(problem).lower() or "text" in str(problem), (name, problem)
            continue
        tried += 1
        ours, theirs = inputs.target_vocabulary, inputs.source_vocabulary
        for token_map in filter(None, (initialization.token_map, initialization.output_map)):
            for i in np.flatnonzero(ours.kinds == Kind.BYTE).tolist():
                assert [theirs.strings[s] for s in sources_of(token_map, i)] == [ours.strings[i]], name
            if "equal" in method.summary or "copies, then" in method.summary:
                kinds = [theirs.kinds[s] for s in sources_of(token_map, ours.strings.index("Q")) if s < len(theirs)]
                assert Kind.BYTE not in kinds, name
    assert tried >= 8


def test_a_byte_that_no_text_is_written_with_does_not_get_a_letters_row() -> None:
    """From a byte-level source, <0x41> beside A would take half of its probability."""
    inputs = inputs_of(toy_tokenizer(["apa"]), sentencepiece())
    token_map = find_method("pieces")(inputs).token_map
    ours, theirs = inputs.target_vocabulary, inputs.source_vocabulary
    letter, byte, lead = (ours.strings.index(name) for name in ("A", "<0x41>", "<0xD0>"))
    assert sources_of(token_map, letter) == [theirs.strings.index("A")]
    assert token_map.rule_of(byte) == "mean"
    assert [theirs.token_bytes[s] for s in sources_of(token_map, lead)] == [b"\xd0"]


def test_donors_names_and_settings_keep_the_two_apart() -> None:
    source, target, other = sentencepiece(3), sentencepiece(4), Vocabulary.from_tokenizer(sentencepiece(5))
    donor = Donor("donor", other, None, np.ones(len(other), np.bool_))  # type: ignore[arg-type]
    inputs = inputs_of(source, target, donor=donor)
    ours = inputs.source_vocabulary
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vocabtransfer.initialization.donor._usable", lambda _tables, ids: np.ones(len(ids), np.bool_))
        match = match_donor(inputs, TokenMap.empty(*inputs.shape))
    shared = zip(match.shared_donor.tolist(), match.shared_source.tolist(), strict=True)
    assert all(other.strings[d] == ours.strings[s] for d, s in shared)
    assert len(match.shared_donor) == len(LETTERS) + 3 + 256
    names = token_names(ours)
    assert len(set(names)) == len(names) and names[ours.strings.index("<0x41>")] == "<0x41>"
    byte, letter = ours.strings.index("<0x41>"), ours.strings.index("A")
    config = {"vocab_size": len(ours), "first_token_id": byte, "second_token_id": letter}
    new = renumber_settings(config, None, ours, target, source_name="s", old_rows=len(ours), rows=len(ours)).config
    ids = target.get_vocab()
    assert (new["first_token_id"], new["second_token_id"]) == (ids["<0x41>"], ids["A"])


def random_model(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Checkpoint:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.3,
        tie_word_embeddings=False,
        **{f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")},
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return open_checkpoint(folder)


@torch.inference_mode()
def largest_difference(source: Checkpoint, folder: Path, texts: list[str]) -> float:
    """Compare a trimmed model's next-token probabilities with the source's restricted to the tokens it kept."""
    before, after = (AutoModelForCausalLM.from_pretrained(p, dtype=torch.float32).eval() for p in (source.path, folder))
    new = open_checkpoint(folder)
    places = {name: i for i, name in enumerate(source.vocabulary.strings)}
    kept = np.array([places[name] for name in new.vocabulary.strings])
    worst = 0.0
    for text in texts:
        ids = new.tokenizer(text)["input_ids"]
        ours = after(torch.tensor([ids])).logits[0, :, : len(kept)].softmax(-1)
        theirs = before(torch.tensor([kept[ids].tolist()])).logits[0][:, kept].softmax(-1)
        worst = max(worst, float((ours - theirs).abs().max()))
    return worst


@pytest.mark.parametrize("name", first_of(["mistral_v1", "mistral_v3", "llama2"], "mistral_v3"))
def test_a_trimmed_model_predicts_what_its_source_predicts_of_the_kept_tokens(
    name: str, real_tokenizer: Callable[[str], PreTrainedTokenizerFast], tmp_path: Path
) -> None:
    texts = ["The weather is nice today, and it was 10.5 degrees.", "Китап өстәлдә ята.", "naïve 👩‍💻 <0x41>"]
    source = random_model(tmp_path / "source", real_tokenizer(name))
    trimmed = trim_tokenizer(source.tokenizer, texts, keep=4000).tokenizer
    result = transfer(source, trimmed, Evidence(words={"weather": 3.0, "китап": 2.0}))
    assert set(result.token_map.counts_by_rule()) == {"special", "copied"} and result.initialization.shift is None
    assert result.explain("<0x41>").sources == (("<0x41>", 1.0),)
    assert result.explain("A").sources == ((" A", 1.0),) or result.explain("A").sources == (("A", 1.0),)
    result.save(tmp_path / "out")
    assert largest_difference(source, tmp_path / "out", texts) < 1e-6


@pytest.mark.slow
def test_gemma_trimmed_to_12000_tokens_is_gemma_on_those_tokens(gemma3_folder: Path, tmp_path: Path) -> None:
    source = open_checkpoint(gemma3_folder)
    texts = [
        "The weather is nice today. It was 10 degrees, and",
        "Het weer is vandaag mooi.",
        "In 2024 the price was 5.",
    ]
    trimmed = trim_tokenizer(source.tokenizer, texts, keep=12_000).tokenizer
    result = transfer(source, trimmed)
    assert result.explain("<0x41>").sources == (("<0x41>", 1.0),)
    result.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 12_000
    assert largest_difference(source, tmp_path / "out", texts) < 1e-5
