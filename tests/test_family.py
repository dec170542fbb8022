"""One saved map for every size of a family: equal vocabularies, drafts that are accepted, copies that follow."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from build_samples import write_pairs
from command_samples import command
from family_samples import greedy, larger_llama
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy import sparse
from transformers import AutoModelForCausalLM, AutoTokenizer

import vocabtransfer as vt
from vocabtransfer.surgery.family import _for_rows
from vocabtransfer.token_map import MAP_FILE, OUTPUT_MAP_FILE, TokenMap

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@pytest.fixture(scope="module")
def larger(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return larger_llama(tmp_path_factory.mktemp("family") / "larger", tiny_llama)


@pytest.fixture(scope="module")
def built(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small size with a Tatar vocabulary whose rows are all of the map."""
    folder = tmp_path_factory.mktemp("built")
    pairs = write_pairs(folder / "en-tt.tsv")
    request = vt.BuildRequest(
        source=str(tiny_llama),
        target="tatar",
        output=folder / "small-tatar",
        parallel=(pairs,),
        vocab_size=600,
        vocabulary="replace",
        method="trans_tokenization",
        calibrate=False,
        held_out_bytes=0,
    )
    vt.build(request)
    return folder / "small-tatar"


@pytest.fixture(scope="module")
def applied(built: Path, larger: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("applied") / "larger-tatar"
    vt.apply_map(built, vt.open_checkpoint(str(larger)), calibrate=False).save(output)
    return output


def test_sizes_of_a_family_have_one_vocabulary_byte_for_byte(built: Path, applied: Path, larger: Path) -> None:
    for name in TOKENIZER_FILES:
        assert (applied / name).read_bytes() == (built / name).read_bytes(), name
    sizes = [json.loads((folder / "config.json").read_text())["vocab_size"] for folder in (built, applied)]
    assert sizes[0] == sizes[1]
    text = "китап өстәл өстендә."
    assert AutoTokenizer.from_pretrained(built)(text) == AutoTokenizer.from_pretrained(applied)(text)
    # The rows are the map's sums of the larger size's own rows, for the input and for the head that it has.
    token_map, before, after = TokenMap.load(built / MAP_FILE), *map(_tensors, (larger, applied))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        source = before[name][: token_map.n_source].double().numpy()
        dense = token_map.weights[:, : token_map.n_source].toarray() @ source
        dense += token_map.weights[:, token_map.n_source :].toarray() @ (token_map.groups.toarray() @ source)
        np.testing.assert_allclose(after[name].double().numpy(), dense, atol=1e-5)


def test_a_map_applied_to_its_own_model_gives_the_build_again(built: Path, tiny_llama: Path, tmp_path: Path) -> None:
    made = vt.apply_map(vt.inspect(built), vt.open_checkpoint(str(tiny_llama)), calibrate=False)
    made.save(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (built / "model.safetensors").read_bytes()
    assert made.notes == ()


def test_a_head_of_its_own_map_is_kept(larger: Path, tiny_llama: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "en-tt.tsv")
    source = vt.open_checkpoint(str(larger))
    table = vt.align_corpus(vt.read_parallel((pairs,)))
    tokenizer = vt.train_tokenizer(["китап өстәл яңа файл ике йорт"] * 9, vocab_size=400, like=source.tokenizer)
    first = vt.transfer(source, tokenizer, vt.Evidence(alignment=table), measure=False, calibrate=False)
    first.save(tmp_path / "first")
    assert (tmp_path / "first" / OUTPUT_MAP_FILE).is_file()
    again = vt.apply_map(tmp_path / "first", source, calibrate=False)
    for part in ("input", "output"):
        assert torch.equal(again.table(part), first.table(part))
    # A model with one table takes the input's map for it.
    small = vt.open_checkpoint(str(tiny_llama))
    tied = vt.apply_map(tmp_path / "first", small, calibrate=False)
    rows = tied.token_map.apply(small.input_table().float().numpy())
    np.testing.assert_allclose(tied.table("input").numpy(), rows, atol=1e-6)
    assert tied.table("output") is None


def test_assisted_generation_equals_plain_and_drafts_are_accepted(built: Path, applied: Path, tmp_path: Path) -> None:
    target, tokenizer = AutoModelForCausalLM.from_pretrained(applied), AutoTokenizer.from_pretrained(applied)
    ids = tokenizer("китап өстәл", return_tensors="pt").input_ids
    plain, runs = greedy(target, ids, 24)
    assert runs == 24
    # A random draft of the other size is seldom right; whatever it says, the text is the target's own.
    drafted, runs = greedy(target, ids, 24, AutoModelForCausalLM.from_pretrained(built))
    assert drafted == plain and runs <= 24
    # The target with one layer less is a draft that is often right: then fewer runs of the target do.
    small = AutoModelForCausalLM.from_pretrained(applied)
    small.model.layers = small.model.layers[:2]
    small.config.num_hidden_layers = 2
    drafted, runs = greedy(target, ids, 24, small)
    assert drafted == plain
    assert 24 - runs > 0, "no draft was accepted"


def test_the_command_says_what_it_made(
    built: Path, larger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tt.txt").write_text("китап өстәл өстендә .\nяңа файл ачылды\n" * 20, encoding="utf-8")
    words = ("apply", built, "--source", larger, "--text", tmp_path / "tt.txt", "--output", tmp_path / "out")
    code, out, err = command(capsys, *words, "--json")
    assert code == 0, out + err
    facts = json.loads(out)
    assert (
        facts["calibrated"] and facts["proof"]["generated"] and facts["tokens"] == vt.inspect(built).token_map.n_target
    )
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (built / "tokenizer.json").read_bytes()
    code, out, err = command(capsys, *words)
    assert code == 1 and "exists" in err
    code, out, err = command(capsys, "apply", tmp_path / "none", "--source", larger, "--output", tmp_path / "b")
    assert code == 1 and "not a folder" in err
    code, out, err = command(capsys, "apply", built, "--source", larger, "--output", tmp_path / "b", "--calibrate")
    assert code == 2 and "--text" in err
    assert not (tmp_path / "b").exists()


def test_another_vocabulary_is_refused_by_its_first_token(
    built: Path, larger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(larger, other)
    document = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = document["model"]["vocab"]
    one, two = (next(text for text, i in vocab.items() if i == number) for number in (6_000, 6_001))
    vocab[one], vocab[two] = vocab[two], vocab[one]
    (other / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    code, _, err = command(capsys, "apply", built, "--source", other, "--output", tmp_path / "out")
    assert code == 1 and "token 6000 is" in err and repr(one.replace("Ġ", " ")) in err
    assert not (tmp_path / "out").exists()


def test_roles_and_template_are_the_models_own(built: Path, larger: Path, tmp_path: Path) -> None:
    chat = tmp_path / "chat"
    shutil.copytree(larger, chat)
    config = json.loads((chat / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["eos_token"], config["model_max_length"] = "<|im_end|>", 333
    (chat / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (chat / "special_tokens_map.json").unlink()
    (chat / "chat_template.jinja").write_text("{{ messages[0].content }}<|im_end|>", encoding="utf-8")
    tokenizer = vt.apply_map(built, vt.open_checkpoint(str(chat)), calibrate=False).tokenizer
    assert (tokenizer.eos_token, tokenizer.model_max_length) == ("<|im_end|>", 333)
    assert tokenizer.chat_template == "{{ messages[0].content }}<|im_end|>"
    assert tokenizer.backend_tokenizer.to_str() == vt.load_tokenizer(built).backend_tokenizer.to_str()


def test_a_template_with_tokens_that_the_map_lacks_is_refused(built: Path, larger: Path, tmp_path: Path) -> None:
    chat = tmp_path / "chat"
    shutil.copytree(larger, chat)
    document = json.loads((chat / "tokenizer.json").read_text(encoding="utf-8"))
    document["added_tokens"].append({**document["added_tokens"][0], "id": 49152, "content": "<think>"})
    (chat / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    assert any("1 tokens behind" in n for n in vt.apply_map(built, vt.open_checkpoint(str(chat))).notes)
    (chat / "chat_template.jinja").write_text("<think>{{ messages[0].content }}", encoding="utf-8")
    with pytest.raises(vt.VocabTransferError, match="writes '<think>'"):
        vt.apply_map(built, vt.open_checkpoint(str(chat)))


def test_copies_of_the_tables_follow_the_map(built: Path, larger: Path, tmp_path: Path) -> None:
    """A next-token-prediction layer's table and head: one equal to the model's, one trained on."""
    source = tmp_path / "mtp"
    shutil.copytree(larger, source)
    tensors = _tensors(source)
    tensors["model.layers.3.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.3.shared_head.head.weight"] = tensors["lm_head.weight"] * 2
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    vt.apply_map(built, vt.open_checkpoint(str(source)), calibrate=False).save(tmp_path / "out")
    made = _tensors(tmp_path / "out")
    assert torch.equal(made["model.layers.3.embed_tokens.weight"], made["model.embed_tokens.weight"])
    torch.testing.assert_close(made["model.layers.3.shared_head.head.weight"], made["lm_head.weight"] * 2)


@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.booleans())
def test_a_map_fits_a_table_of_another_length(seed: int, more: int, groups: bool) -> None:
    generator = np.random.default_rng(seed)
    made = TokenMap.from_weights(
        sparse.csr_array(generator.random((5, 6)) * (generator.random((5, 6)) < 0.4)), "aligned"
    )
    if groups:
        average = sparse.csr_array(np.full((1, 6), 1 / 6, np.float32))
        made = made.or_else(TokenMap.from_groups(np.zeros(5, np.int64), average, ["all"], "mean"))
    table = generator.normal(size=(6 + more, 3)).astype(np.float32)
    longer = _for_rows(made, 6 + more, _Named())
    np.testing.assert_allclose(longer.apply(table), made.apply(table[:6]), atol=1e-6)
    back = _for_rows(longer, 6, _Named())
    np.testing.assert_allclose(back.apply(table[:6]), made.apply(table[:6]), atol=1e-6)
    used = max((*made.weights.indices[made.weights.indices < 6], *made.groups.indices), default=-1)
    if used >= 1:
        with pytest.raises(vt.VocabTransferError, match=f"from id {used}"):
            _for_rows(made, int(used), _Named())


class _Named:
    name = "the model"


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def draft_head(folder: Path, like: Path, rows: int, hidden: int = 24) -> dict[str, torch.Tensor]:
    """Write an EAGLE draft head as its authors publish them, but for the tokenizer, which is its target's."""
    folder.mkdir()
    for name in TOKENIZER_FILES:
        shutil.copy(like / name, folder / name)
    config = json.loads((like / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_size": hidden, "num_hidden_layers": 1, "vocab_size": rows, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shapes = {"embed_tokens": (rows, hidden), "fc": (hidden, 2 * hidden), "layers.0.mlp.down_proj": (hidden, 9)}
    generator = torch.Generator().manual_seed(3)
    tensors = {f"{name}.weight": torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return tensors


def test_the_table_of_an_eagle_draft_head_follows(
    built: Path, larger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = draft_head(tmp_path / "eagle", larger, rows=49_152 + 64)
    words = ("apply", built, "--source", tmp_path / "eagle", "--output", tmp_path / "out", "--json")
    code, out, err = command(capsys, *words)
    assert code == 0, out + err
    assert any("draft head runs beside" in note for note in json.loads(out)["notes"])
    after, token_map = _tensors(tmp_path / "out"), TokenMap.load(built / MAP_FILE)
    rows = token_map.apply(before["embed_tokens.weight"][: token_map.n_source].numpy())
    np.testing.assert_allclose(after["embed_tokens.weight"].numpy(), rows, atol=1e-5)
    assert torch.equal(after["fc.weight"], before["fc.weight"])
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (built / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"d2t": torch.zeros(9, dtype=torch.int64), "t2d": torch.zeros(49_216, dtype=torch.bool)},
            "'d2t' shows .* EAGLE-3",
        ),
        ({"0.0.linear.weight": torch.zeros(24, 24), "0.1.weight": torch.zeros(49_216, 24)}, "Medusa"),
    ],
)
def test_draft_heads_with_outputs_of_their_own_are_named(
    larger: Path, tmp_path: Path, more: dict[str, torch.Tensor], said: str
) -> None:
    tensors = draft_head(tmp_path / "draft", larger, rows=49_216) | more
    save_file(tensors, tmp_path / "draft" / "model.safetensors", {"format": "pt"})
    with pytest.raises(vt.VocabTransferError, match=said):
        vt.open_checkpoint(str(tmp_path / "draft"))


@pytest.mark.slow
def test_the_real_model_and_a_larger_one_share_a_vocabulary(smollm2_folder: Path, tmp_path: Path) -> None:
    """SmolLM2 itself with a Dutch vocabulary; its first layers are the draft, and a larger random body the other size."""
    request = vt.BuildRequest(
        source="smollm2",
        target="dutch",
        output=tmp_path / "nl",
        vocabulary="replace",
        vocab_size=8000,
        held_out_bytes=0,
    )
    vt.build(request)
    larger = larger_llama(tmp_path / "larger", smollm2_folder, hidden=96)
    vt.apply_map(tmp_path / "nl", vt.open_checkpoint(str(larger)), calibrate=False).save(tmp_path / "larger-nl")
    for name in TOKENIZER_FILES[:1]:
        assert (tmp_path / "nl" / name).read_bytes() == (tmp_path / "larger-nl" / name).read_bytes()
    target = AutoModelForCausalLM.from_pretrained(tmp_path / "nl", dtype=torch.float32)
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "larger-nl", dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(tmp_path / "nl")("De hoofdstad van Nederland is", return_tensors="pt").input_ids
    plain, _ = greedy(target, ids, 32)
    assert greedy(target, ids, 32, other)[0] == plain
    written, _ = greedy(other, ids, 32)
    drafted, runs = greedy(other, ids, 32, target)
    assert drafted == written and runs <= 32
