"""A padding id that positions are counted from stays where it is, in whatever part of the settings it stands."""

import copy
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedConfig

import vocabtransfer as vt
from vocabtransfer import open_checkpoint
from vocabtransfer.checkpoint.padding import POSITIONS_FROM_PAD
from vocabtransfer.checkpoint.settings import renumber_settings
from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.vocabulary import Vocabulary

OLD = toy_tokenizer(["hello"])
MOVED = toy_tokenizer(["hello"], roles={"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"})
KEPT = toy_tokenizer(["сәлам"], seed=3, fixed=4)
ROWS = len(OLD)
#: What shows in a model's code that it reads positions off the padding id.
CODE = re.compile(
    r"\.ne\((self\.)?padding_idx\)|create_position_ids_from_input_ids|padding_idx \+ 1\b|padding_idx, :\] = 0"
    r"|attention_mask, dim=1\)[^\n]*\+ self\.padding_idx|\+ self\.padding_idx$",
    re.MULTILINE,
)
#: Families in whose folder such code stands, but not for text.
NOT_TEXT = {"pp_doclayout_v2"}


def renumbered(config: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    source = Vocabulary.from_tokenizer(OLD)
    return renumber_settings(
        config, None, source, tokenizer, source_name="s", old_rows=ROWS, rows=len(tokenizer)
    ).config


CONFIGS: dict[str, dict[str, Any]] = {
    "roberta": {"model_type": "roberta", "vocab_size": ROWS, "pad_token_id": 2},
    "xglm": {"model_type": "xglm", "vocab_size": ROWS, "pad_token_id": 2},
    "vision-encoder-decoder": {
        "model_type": "vision-encoder-decoder",
        "pad_token_id": 2,
        "decoder": {"model_type": "roberta", "vocab_size": ROWS, "pad_token_id": 2},
        "encoder": {"model_type": "vit"},
    },
    "altclip": {"model_type": "altclip", "text_config": {"vocab_size": ROWS, "pad_token_id": 2}},
    "clap": {"model_type": "clap", "text_config": {"vocab_size": ROWS, "pad_token_id": 2}},
    "kosmos-2": {"model_type": "kosmos-2", "text_config": {"vocab_size": ROWS, "pad_token_id": 2}},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_moved_padding_id_is_refused_wherever_it_stands(name: str) -> None:
    with pytest.raises(VocabTransferError, match=r"counts positions from its padding id.* keep it at 2 \(it has 0\)"):
        renumbered(CONFIGS[name], MOVED)
    kept = renumbered(CONFIGS[name], KEPT)
    part = kept.get("text_config") or kept.get("decoder") or kept
    assert part["pad_token_id"] == 2


def test_a_padding_id_that_config_json_leaves_to_the_class_counts_too() -> None:
    """RoBERTa's default is 1: `</s>` here, which the new tokenizer has elsewhere."""
    config = {**CONFIGS["vision-encoder-decoder"], "decoder": {"model_type": "roberta", "vocab_size": ROWS}}
    with pytest.raises(VocabTransferError, match=r"its 'decoder' of type roberta .* keep it at 1 \(it has 2\)"):
        renumbered(config, MOVED)
    assert renumbered(config, KEPT)["decoder"]["pad_token_id"] == 1


def test_a_family_without_such_positions_may_move_it() -> None:
    assert renumbered({"model_type": "llama", "vocab_size": ROWS, "pad_token_id": 2}, MOVED)["pad_token_id"] == 0


def test_the_padding_id_is_what_the_new_tokenizer_pads_with() -> None:
    """The old padding token is still there, and the new tokenizer pads with another: batches and settings agree."""
    other = toy_tokenizer(["сәлам"], seed=3, fixed=4)
    other.pad_token = "<unk>"
    assert (OLD.pad_token_id, other.convert_tokens_to_ids("<pad>"), other.pad_token_id) == (2, 2, 3)
    source = Vocabulary.from_tokenizer(OLD)
    settings = {"source_name": "s", "old_rows": ROWS, "rows": len(other)}
    config = {"model_type": "llama", "vocab_size": ROWS, "pad_token_id": 2, "eos_token_id": 1}
    new = renumber_settings(config, {"pad_token_id": 2, "eos_token_id": 1}, source, other, **settings)
    assert (new.config["pad_token_id"], new.config["eos_token_id"]) == (3, 1)
    assert new.generation_config is not None and new.generation_config["pad_token_id"] == 3
    # Settings that padded with something else than the tokenizer go on with that.
    apart = renumber_settings({**config, "pad_token_id": 1}, None, source, other, **settings)
    assert apart.config["pad_token_id"] == 1
    with pytest.raises(VocabTransferError, match=r"keep it at 2 \(it has 3\)"):
        renumbered(CONFIGS["roberta"], other)


def test_a_padded_batch_is_read_as_without_padding(tmp_path: Path, tiny_llama: Path) -> None:
    """A classifier reads the last token that is no padding: it must know what its new tokenizer pads with."""
    tokenizer = copy.deepcopy(load_tokenizer(tiny_llama))
    tokenizer.add_special_tokens({"pad_token": "<|padding|>"})
    vt.transfer(open_checkpoint(tiny_llama), tokenizer, method="pieces", calibrate=False).save(tmp_path / "new")
    made = AutoTokenizer.from_pretrained(tmp_path / "new")
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "new", dtype=torch.float32).eval()
    texts = ["a short one", "a text that is much longer than the other"]
    with torch.no_grad():
        together = model(**made(texts, padding=True, return_tensors="pt")).logits
        alone = torch.cat([model(**made(text, return_tensors="pt")).logits for text in texts])
    assert made.pad_token == "<|padding|>"
    assert torch.allclose(together, alone, atol=1e-5)


def test_every_family_whose_code_does_so_is_known() -> None:
    """Read transformers' own code: a family of a later release that is not in the table fails here."""
    found = set()
    for folder in sorted((Path(transformers.__file__).parent / "models").iterdir()):
        if folder.name in NOT_TEXT or not any(CODE.search(f.read_text()) for f in folder.glob("modeling_*.py")):
            continue
        types = set()
        for file in folder.glob("configuration_*.py"):
            module = importlib.import_module(f"transformers.models.{folder.name}.{file.stem}")
            for _, kind in inspect.getmembers(module, inspect.isclass):
                own = issubclass(kind, PreTrainedConfig) and kind.__module__ == module.__name__
                if own and not re.search("vision|audio|hifigan", kind.__name__.lower()):
                    types.add(kind.model_type)
        found |= types - {""}
    assert {"roberta", "xglm", "clap_text_model", "prophetnet"} <= found
    assert found <= POSITIONS_FROM_PAD
