"""Give a language model the vocabulary of another language.

The names below are the public interface; they load their rooms on first use, so ``import vocabtransfer`` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vocabtransfer.version import __version__

_HOMES = {
    "open_checkpoint": "vocabtransfer.checkpoint",
    "write_checkpoint": "vocabtransfer.checkpoint",
    "Checkpoint": "vocabtransfer.checkpoint",
    "load_tokenizer": "vocabtransfer.tokenization.load",
    "train_tokenizer": "vocabtransfer.tokenization.train",
    "extend_tokenizer": "vocabtransfer.tokenization.extend",
    "trim_tokenizer": "vocabtransfer.tokenization.trim",
    "swap_tokenizer": "vocabtransfer.tokenization.swap",
    "optimise_tokenizer": "vocabtransfer.tokenization.optimise",
    "audit_tokenizer": "vocabtransfer.tokenization.audit",
    "choose_vocab_size": "vocabtransfer.tokenization.size",
    "tokens_that_save": "vocabtransfer.tokenization.saving",
    "ModelSize": "vocabtransfer.tokenization.size",
    "Reshaped": "vocabtransfer.tokenization.reshape",
    "compare_tokenizers": "vocabtransfer.evaluation.compare",
    "find_transliterator": "vocabtransfer.transliteration",
    "prepare_romanized": "vocabtransfer.transliteration",
    "cognates": "vocabtransfer.transliteration",
    "WordTable": "vocabtransfer.alignment.table",
    "shipped_table": "vocabtransfer.alignment.table",
    "align_corpus": "vocabtransfer.alignment.aligner",
    "read_parallel": "vocabtransfer.alignment.corpora",
    "read_text": "vocabtransfer.files.text",
    "Text": "vocabtransfer.files.text",
    "transfer": "vocabtransfer.surgery.transfer",
    "TransferResult": "vocabtransfer.surgery.transfer",
    "Evidence": "vocabtransfer.surgery.evidence",
    "TokenMap": "vocabtransfer.token_map",
    "Vocabulary": "vocabtransfer.vocabulary",
    "build": "vocabtransfer.pipeline.build",
    "BuildRequest": "vocabtransfer.pipeline.build",
    "report_files": "vocabtransfer.pipeline.report",
    "propagate": "vocabtransfer.propagation",
    "PropagationResult": "vocabtransfer.propagation",
    "open_adapted": "vocabtransfer.propagation",
    "restore_layers": "vocabtransfer.propagation",
    "RestoreResult": "vocabtransfer.propagation",
    "calibrate": "vocabtransfer.self_training.self_calibration",
    "CalibrateRequest": "vocabtransfer.self_training.self_calibration",
    "CalibrateResult": "vocabtransfer.self_training.self_calibration",
    "run_leaderboard": "vocabtransfer.leaderboard.run",
    "LeaderboardRequest": "vocabtransfer.leaderboard.inputs",
    "adapt": "vocabtransfer.training",
    "AdaptRequest": "vocabtransfer.training",
    "AdaptResult": "vocabtransfer.training",
    "Stage": "vocabtransfer.training",
    "HydraForCausalLM": "vocabtransfer.hydra",
    "create_hydra": "vocabtransfer.hydra",
    "open_hydra": "vocabtransfer.hydra",
    "list_heads": "vocabtransfer.hydra",
    "describe_head": "vocabtransfer.hydra",
    "rename_head": "vocabtransfer.hydra",
    "remove_head": "vocabtransfer.hydra",
    "verify_head": "vocabtransfer.hydra",
    "export_concatenated": "vocabtransfer.hydra",
    "add_head": "vocabtransfer.hydra",
    "add_head_from_checkpoint": "vocabtransfer.hydra",
    "export_head": "vocabtransfer.hydra",
    "bits_per_byte": "vocabtransfer.evaluation",
    "evaluate": "vocabtransfer.evaluation",
    "run_suite": "vocabtransfer.evaluation",
    "SuiteResult": "vocabtransfer.evaluation",
    "export_gguf": "vocabtransfer.export",
    "export_hydra_gguf": "vocabtransfer.export",
    "export_ollama": "vocabtransfer.export",
    "export_sentence_transformers": "vocabtransfer.export",
    "GgufReport": "vocabtransfer.export",
    "OllamaReport": "vocabtransfer.export",
    "SentenceReport": "vocabtransfer.export",
    "list_corpora": "vocabtransfer.corpora.catalogue",
    "fetch_corpus": "vocabtransfer.corpora.fetch",
    "open_corpus": "vocabtransfer.corpora.folder",
    "count_corpus": "vocabtransfer.corpora.shards",
    "filter_corpus": "vocabtransfer.corpora.shards",
    "pivot_tables": "vocabtransfer.alignment.pivot",
    "inspect": "vocabtransfer.surgery.opened_map",
    "apply_map": "vocabtransfer.surgery.family",
    "merge_tables": "vocabtransfer.alignment.table",
    "PairFilter": "vocabtransfer.alignment.filters",
    "find_language": "vocabtransfer.languages",
    "VocabTransferError": "vocabtransfer.errors",
    "UsageError": "vocabtransfer.errors",
    "show_progress": "vocabtransfer.progress",
}
__all__ = sorted([*_HOMES, "__version__"])

if TYPE_CHECKING:
    from vocabtransfer.alignment.aligner import align_corpus
    from vocabtransfer.alignment.corpora import read_parallel
    from vocabtransfer.alignment.filters import PairFilter
    from vocabtransfer.alignment.pivot import pivot_tables
    from vocabtransfer.alignment.table import WordTable, merge_tables, shipped_table
    from vocabtransfer.checkpoint import Checkpoint, open_checkpoint, write_checkpoint
    from vocabtransfer.corpora.catalogue import list_corpora
    from vocabtransfer.corpora.fetch import fetch_corpus
    from vocabtransfer.corpora.folder import open_corpus
    from vocabtransfer.corpora.shards import count_corpus, filter_corpus
    from vocabtransfer.errors import UsageError, VocabTransferError
    from vocabtransfer.evaluation import SuiteResult, bits_per_byte, evaluate, run_suite
    from vocabtransfer.evaluation.compare import compare_tokenizers
    from vocabtransfer.export import (
        GgufReport,
        OllamaReport,
        SentenceReport,
        export_gguf,
        export_hydra_gguf,
        export_ollama,
        export_sentence_transformers,
    )
    from vocabtransfer.files.text import Text, read_text
    from vocabtransfer.hydra import (
        HydraForCausalLM,
        add_head,
        add_head_from_checkpoint,
        create_hydra,
        describe_head,
        export_concatenated,
        export_head,
        list_heads,
        open_hydra,
        remove_head,
        rename_head,
        verify_head,
    )
    from vocabtransfer.languages import find_language
    from vocabtransfer.leaderboard.inputs import LeaderboardRequest
    from vocabtransfer.leaderboard.run import run_leaderboard
    from vocabtransfer.pipeline.build import BuildRequest, build
    from vocabtransfer.pipeline.report import report_files
    from vocabtransfer.progress import show_progress
    from vocabtransfer.propagation import (
        PropagationResult,
        RestoreResult,
        open_adapted,
        propagate,
        restore_layers,
    )
    from vocabtransfer.self_training.self_calibration import CalibrateRequest, CalibrateResult, calibrate
    from vocabtransfer.surgery.evidence import Evidence
    from vocabtransfer.surgery.family import apply_map
    from vocabtransfer.surgery.opened_map import inspect
    from vocabtransfer.surgery.transfer import TransferResult, transfer
    from vocabtransfer.token_map import TokenMap
    from vocabtransfer.tokenization.audit import audit_tokenizer
    from vocabtransfer.tokenization.extend import extend_tokenizer
    from vocabtransfer.tokenization.load import load_tokenizer
    from vocabtransfer.tokenization.optimise import optimise_tokenizer
    from vocabtransfer.tokenization.reshape import Reshaped
    from vocabtransfer.tokenization.saving import tokens_that_save
    from vocabtransfer.tokenization.size import ModelSize, choose_vocab_size
    from vocabtransfer.tokenization.swap import swap_tokenizer
    from vocabtransfer.tokenization.train import train_tokenizer
    from vocabtransfer.tokenization.trim import trim_tokenizer
    from vocabtransfer.training import AdaptRequest, AdaptResult, Stage, adapt
    from vocabtransfer.transliteration import cognates, find_transliterator, prepare_romanized
    from vocabtransfer.vocabulary import Vocabulary


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vocabtransfer' has no attribute {name!r}")
