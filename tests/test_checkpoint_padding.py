"""A padding id that positions are counted from stays where it is, in whatever part of the settings it stands."""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import PreTrainedConfig

from vocabtransfer.checkpoint.padding import POSITIONS_FROM_PAD
from vocabtransfer.checkpoint.settings import renumber_settings
from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.errors import VocabTransferError
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
