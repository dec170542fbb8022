"""Every public name with wrong types, wrong values and missing files: nothing but `VocabTransferError` comes out.

What the edge has to translate ("please report it") is a fault, too: it would reach a person as a riddle.
"""

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra_samples import Sample, make_sample, one_thread  # noqa: F401
from scipy import sparse

import vocabtransfer as vt
from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.errors import VocabTransferError

TYPES = ("VocabTransferError", "UsageError", "__version__")
#: Results, which are made by the functions above them; their methods are driven by themselves.
RESULTS = (
    "AdaptResult",
    "CalibrateResult",
    "GgufReport",
    "OllamaReport",
    "PropagationResult",
    "RestoreResult",
    "Reshaped",
    "SentenceReport",
    "SuiteResult",
    "TransferResult",
)
DATA = ("Checkpoint", "HydraForCausalLM", "TokenMap", "Vocabulary", "WordTable")
REQUESTS = (
    *(
        "AdaptRequest",
        "BuildRequest",
        "CalibrateRequest",
        "Evidence",
        "LeaderboardRequest",
        "ModelSize",
        "PairFilter",
        "Stage",
        "Text",
    ),
)
WRONG: tuple[Any, ...] = (
    *(
        None,
        3,
        -1,
        2.5,
        float("nan"),
        True,
        "",
        "nowhere",
        "no such language",
        "\0",
        "a/../b",
        b"bytes",
        [],
        [3],
        [None],
    ),
    *({}, {3: 4}, (), set(), object(), Path("missing/file.txt"), np.zeros(3), torch.zeros(2), lambda: 3, int, 10**30),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("public")


@pytest.fixture(scope="module")
def sample(place: Path) -> Sample:
    return make_sample(place / "sample")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def functions() -> list[str]:
    return [name for name in vt.__all__ if inspect.isfunction(getattr(vt, name))]


def only_ours(call: Callable[[], Any]) -> str | None:
    """Return the sentence of a refusal, None where nothing was wrong."""
    try:
        made = call()
        if isinstance(made, Iterator):
            next(made, None)
    except VocabTransferError as refusal:
        said = str(refusal)
        assert said and "\n" not in said.strip() and "please report it" not in said, said
        return said
    return None


def test_every_public_name_is_driven() -> None:
    known = {*functions(), *TYPES, *RESULTS, *DATA, *REQUESTS}
    assert set(vt.__all__) == known


def good(place: Path, sample: Sample) -> dict[str, dict[str, Any]]:
    """Arguments that each function takes; one at a time is made wrong."""
    checkpoint = vt.open_checkpoint(sample.standalone["english"])
    own, new = toy_tokenizer(["hello", " world"]), toy_tokenizer(["сәлам", " дөнья"], seed=3)
    table = vt.align_corpus([("hello world", "сәлам дөнья")] * 4)
    text = place / "text.txt"
    text.write_text("сәлам дөнья\n" * 30, encoding="utf-8")
    pairs = place / "pairs.tsv"
    pairs.write_text("hello world\tсәлам дөнья\n" * 30, encoding="utf-8")
    corpus = ["сәлам дөнья"] * 40
    model = sample.load().backbone
    romans = vt.find_transliterator("tatar")
    vt.transfer(checkpoint, new, method="pieces", calibrate=False).save(place / "built")
    return {
        "adapt": {"request": vt.AdaptRequest("nowhere", text, place / "out")},
        "add_head": {"hydra": "nowhere", "name": "x", "result": vt.transfer(checkpoint, new, method="pieces")},
        "add_head_from_checkpoint": {"hydra": "nowhere", "name": "x", "checkpoint": checkpoint},
        "apply_map": {"saved": place / "built", "source": checkpoint, "calibrate": False},
        "audit_tokenizer": {"tokenizer": own},
        "bits_per_byte": {"model": model, "tokenizer": checkpoint.tokenizer, "documents": ["hello world"]},
        "build": {"request": vt.BuildRequest("nowhere", "tatar", place / "out", text=text)},
        "calibrate": {"request": vt.CalibrateRequest("nowhere", text, place / "out")},
        "choose_vocab_size": {"corpus": corpus, "like": own, "model": vt.ModelSize.of(checkpoint), "sizes": [270, 280]},
        "cognates": {"words_a": ["сәлам"], "words_b": ["сәләм"], "transliterator": romans},
        "compare_tokenizers": {"tokenizers": {"own": own}, "texts": {"tatar": corpus}},
        "align_corpus": {"pairs": [("hello", "сәлам")]},
        "count_corpus": {"shards": [str(text)]},
        "create_hydra": {"source": checkpoint, "target": "hydra"},
        "evaluate": {"reference": "nowhere", "files": text},
        "describe_head": {"hydra": "nowhere", "name": "x"},
        "export_concatenated": {"hydra": "nowhere", "target": "out", "heads": ["x"]},
        "export_gguf": {"model": "nowhere", "target": "model.gguf"},
        "export_head": {"hydra": "nowhere", "name": "x", "target": "out"},
        "export_hydra_gguf": {"hydra": "nowhere", "target": "gguf"},
        "export_ollama": {"model": "nowhere", "target": "ollama"},
        "export_sentence_transformers": {"model": "nowhere", "target": "sentences"},
        "extend_tokenizer": {"tokenizer": own, "corpus": corpus, "new_tokens": 2},
        "fetch_corpus": {"language": "nowhere", "output": "corpus", "names": ("none",)},
        "filter_corpus": {"shards": [str(pairs)], "output": "clean", "overwrite": True},
        "find_language": {"text": "tatar"},
        "find_transliterator": {"language": "tatar"},
        "list_heads": {"hydra": "nowhere"},
        "merge_tables": {"tables": [table], "weights": [1.0]},
        "remove_head": {"hydra": "nowhere", "name": "x"},
        "report_files": {"result": vt.transfer(checkpoint, new, method="pieces", calibrate=False), "language": "tatar"},
        "rename_head": {"hydra": "nowhere", "name": "x", "new_name": "y"},
        "run_leaderboard": {"request": vt.LeaderboardRequest("nowhere", "tatar", pairs)},
        "swap_tokenizer": {"tokenizer": own, "corpus": corpus, "new_tokens": 2},
        "tokens_that_save": {"share": 0.1, "tokenizer": own, "corpus": corpus, "held_out": corpus, "most": 3},
        "verify_head": {"hydra": "nowhere", "name": "x"},
        "list_corpora": {"language": "nowhere", "names": ("none",)},
        "load_tokenizer": {"path": "nowhere"},
        "open_adapted": {"reference": "nowhere", "base": checkpoint},
        "open_checkpoint": {"reference": "nowhere", "offline": True},
        "open_corpus": {"folder": "nowhere"},
        "open_hydra": {"path": "nowhere"},
        "inspect": {"folder": "nowhere"},
        "optimise_tokenizer": {"tokenizer": own, "corpus": corpus, "size": 270},
        "pivot_tables": {"to_pivot": table, "from_pivot": table.flip()},
        "prepare_romanized": {"language": "tatar", "corpus": corpus, "like_tokenizer": own, "vocab_size": 280},
        "propagate": {"base": checkpoint, "adapted": checkpoint, "instruct": checkpoint},
        "read_parallel": {"paths": pairs},
        "read_text": {"paths": text},
        "restore_layers": {"adapted": checkpoint, "original": checkpoint, "layers": 1},
        "run_suite": {"reference": "nowhere", "tasks": ["nowhere.yaml"]},
        "shipped_table": {"language": vt.find_language("tatar")},
        "show_progress": {"enabled": False},
        "train_tokenizer": {"corpus": corpus, "like": own, "vocab_size": 280},
        "transfer": {
            "source": checkpoint,
            "tokenizer": new,
            "evidence": vt.Evidence(words={"сәлам": 2.0}),
            "method": "pieces",
            "calibrate": False,
        },
        "trim_tokenizer": {"tokenizer": own, "corpus": corpus, "keep": 260},
        "write_checkpoint": {
            **{"source": checkpoint, "target": place / "written", "tokenizer": checkpoint.tokenizer},
            **{"rows": lambda tensor, start, stop: checkpoint.read_rows(tensor.name, start, stop), "overwrite": True},
        },
    }


@pytest.fixture(scope="module")
def arguments(place: Path, sample: Sample) -> dict[str, dict[str, Any]]:
    made = good(place, sample)
    assert set(made) == set(functions())
    return made


# Left alone with other values: they would reach for the network, or take longer than a test may.
SPREAD = {
    (name, option) for name in ("align_corpus", "count_corpus", "filter_corpus") for option in ("processes", "engine")
}
UNTOUCHED = {("open_checkpoint", "offline"), *SPREAD}


@pytest.mark.parametrize("name", functions())
def test_functions_raise_nothing_else(name: str, arguments: dict[str, dict[str, Any]]) -> None:
    function, given = getattr(vt, name), arguments[name]
    refused = 0
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD or (name, parameter.name) in UNTOUCHED:
            continue
        for wrong in WRONG:
            if (callable(given.get(parameter.name)) and callable(wrong)) or (
                parameter.name == "check" and callable(wrong)
            ):
                continue  # a caller's own function fails by itself
            call = {**given, parameter.name: wrong}
            said = only_ours(lambda call=call: function(**call))  # type: ignore[misc]
            refused += said is not None
    assert refused > 5


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_raise_nothing_else(name: str, place: Path) -> None:
    kind = getattr(vt, name)
    text = place / "lines.txt"
    text.write_text("сәлам\n", encoding="utf-8")
    given: dict[str, dict[str, Any]] = {
        "AdaptRequest": {"model": "nowhere", "text": text, "output": place / "out"},
        "BuildRequest": {"source": "nowhere", "target": "tatar", "output": place / "out", "text": text},
        "CalibrateRequest": {"model": "nowhere", "text": text, "output": place / "out"},
        "Evidence": {"words": {"сәлам": 2.0}, "text": text},
        "LeaderboardRequest": {"source": "nowhere", "target": "tatar", "parallel": text},
        "PairFilter": {},
        "ModelSize": {"body_parameters": 10, "parameters_per_token": 2},
        "Stage": {"name": "tables", "budget": 3, "in_tokens": False, "learning_rate": 1e-4},
        "Text": {},
    }
    work = {
        "AdaptRequest": vt.adapt,
        "BuildRequest": vt.build,
        "CalibrateRequest": vt.calibrate,
        "LeaderboardRequest": vt.run_leaderboard,
    }
    refused = 0
    for field in dataclasses.fields(kind):
        for wrong in WRONG:
            call = {**given[name], field.name: wrong}
            if field.name == "fetch":
                continue
            made = only_ours(lambda call=call: work.get(name, lambda request: request)(kind(**call)))  # type: ignore[misc]
            refused += made is not None
    assert refused > 5


def methods(sample: Sample) -> Iterator[tuple[str, Callable[..., Any], dict[str, Any]]]:
    """The methods of public classes that take something, with arguments that are right."""
    checkpoint = vt.open_checkpoint(sample.standalone["english"])
    vocabulary = checkpoint.vocabulary
    result = vt.transfer(checkpoint, toy_tokenizer(["сәлам"], seed=3), method="pieces", calibrate=False)
    table = vt.align_corpus([("hello world", "сәлам дөнья")] * 4)
    model = sample.load()
    tokens = vt.TokenMap.empty(4, 5)
    weights = sparse.csr_array(np.eye(4, 5))
    name = checkpoint.layout.input_name
    tensor = checkpoint.layout.tensors[0]
    links = (np.array([0]), np.array([0]), np.array([1.0]))
    one = np.array([1.0])
    yield from [
        ("Checkpoint.read", checkpoint.read, {"name": name}),
        ("Checkpoint.read_rows", checkpoint.read_rows, {"name": name, "start": 0, "stop": 2}),
        ("ModelSize.of", vt.ModelSize.of, {"checkpoint": checkpoint}),
        ("ModelSize.parameters", vt.ModelSize(5, 2).parameters, {"size": 4}),
        ("Stage.parse", vt.Stage.parse, {"text": "tables:2k:2e-4"}),
        ("TokenMap.empty", vt.TokenMap.empty, {"n_target": 3, "n_source": 4}),
        ("TokenMap.from_weights", vt.TokenMap.from_weights, {"weights": weights, "rule": "copied"}),
        ("TokenMap.from_pairs", vt.TokenMap.from_pairs, {
            **{"targets": np.array([1]), "sources": np.array([2]), "shape": (4, 5), "rule": "copied"},
        }),
        ("TokenMap.from_groups", vt.TokenMap.from_groups, {
            **{"choice": np.array([0, -1]), "groups": sparse.csr_array(np.eye(1, 5)), "names": ["a"], "rule": "group"},
        }),
        ("TokenMap.rule_of", tokens.rule_of, {"row": 1}),
        ("TokenMap.row", tokens.row, {"row": 1}),
        ("TokenMap.or_else", tokens.or_else, {"other": vt.TokenMap.empty(4, 5)}),
        ("TokenMap.where", tokens.where, {"keep": np.ones(4, bool), "other": vt.TokenMap.empty(4, 5)}),
        ("TokenMap.blend", tokens.blend, {"other": vt.TokenMap.empty(4, 5), "share": 0.5}),
        ("TokenMap.compose", tokens.compose, {"inner": vt.TokenMap.empty(5, 6)}),
        ("TokenMap.scaled", tokens.scaled, {"factor": np.ones(4)}),
        ("TokenMap.relabelled", tokens.relabelled, {"rows": np.ones(4, bool), "rule": "copied"}),
        ("TokenMap.apply", tokens.apply, {"table": np.zeros((5, 3), np.float32), "start": 0, "stop": 2}),
        ("TokenMap.group_rows", tokens.group_rows, {"table": np.zeros((5, 3), np.float32)}),
        ("TokenMap.save", tokens.save, {"path": "map.safetensors"}),
        ("TokenMap.load", vt.TokenMap.load, {"path": "nowhere"}),
        ("TransferResult.rows", result.rows, {"tensor": tensor, "start": 0, "stop": 2}),
        ("TransferResult.table", result.table, {"part": "input"}),
        ("TransferResult.source_name", result.source_name, {"column": 0}),
        ("TransferResult.explain", result.explain, {"token": 5}),
        ("TransferResult.save", result.save, {"target": "saved", "overwrite": True}),
        ("Vocabulary.from_tokenizer", vt.Vocabulary.from_tokenizer, {"tokenizer": checkpoint.tokenizer}),
        ("Vocabulary.key", vocabulary.key, {"i": 3}),
        ("Vocabulary.context_bytes", vocabulary.context_bytes, {"i": 3}),
        ("Vocabulary.text", vocabulary.text, {"i": 3}),
        ("Vocabulary.readable", vocabulary.readable, {"i": 3}),
        ("WordTable.lookup", table.lookup, {"word": "hello"}),
        ("WordTable.occurrences", table.occurrences, {"word": "hello"}),
        ("WordTable.prune", table.prune, {"min_count": 1.0, "min_share": 0.0, "min_total": 0.0}),
        ("WordTable.save", table.save, {"path": "table.tsv"}),
        ("WordTable.load", vt.WordTable.load, {"path": "nowhere"}),
        ("WordTable.from_pairs", vt.WordTable.from_pairs, {
            **{"source_words": ["a"], "target_words": ["b"], "links": links, "source_totals": one, "target_totals": one},
        }),
        ("Hydra.from_pretrained", vt.HydraForCausalLM.from_pretrained, {"reference": "nowhere", "head_budget": None}),
        ("Hydra.load_head", model.load_head, {"name": "x", "source": "nowhere"}),
        ("Hydra.delete_head", model.delete_head, {"name": "x"}),
        ("Hydra.save_head", model.save_head, {"name": "tatar", "new_name": "tatar"}),
        ("Hydra.set_head", model.set_head, {"name": "tatar"}),
        ("Hydra.head", model.head, {"name": "tatar"}),
        ("Hydra.tokenizer", model.tokenizer, {"name": "tatar"}),
        ("Hydra.encode", model.encode, {"segments": [("tatar", "сәлам")], "output": "tatar"}),
        ("Hydra.decode", model.decode, {"ids": [3, 4], "head": "tatar"}),
        ("Hydra.generate", model.generate, {"inputs": torch.tensor([[3]]), "head": "tatar", "max_new_tokens": 1}),
        ("Hydra.translate", model.translate, {
            **{"texts": ["hello"], "source": "english", "target": "tatar", "max_new_tokens": 1},
        }),
    ]  # fmt: skip


def test_methods_raise_nothing_else(sample: Sample) -> None:
    faults = []
    for name, method, given in methods(sample):
        for parameter, wrong in itertools.product(given, WRONG):
            if parameter == "max_new_tokens":
                continue
            try:
                only_ours(lambda: method(**{**given, parameter: wrong}))  # noqa: B023
            except (Exception, AssertionError) as fault:
                faults.append(f"{name}({parameter}={wrong!r:.40}): {type(fault).__name__}: {str(fault)[:200]}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", ["write_checkpoint", "create_hydra"])
def test_a_link_of_another_kind_is_refused(name: str, arguments: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(vt.UsageError, match="not 'symbolic'"):
        getattr(vt, name)(**{**arguments[name], "link": "symbolic"})
