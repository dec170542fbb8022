"""Export for Ollama and sentence-transformers: the Modelfile says what the chat template does; the vectors are the same."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast
from typer.testing import CliRunner
from vocabtransfer_cli.main import app

from vocabtransfer import export_ollama, export_sentence_transformers, open_checkpoint
from vocabtransfer.checkpoint.gguf_file import read_gguf
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.export.chat_formats import FORMATS, find_format

LLAMA3 = (
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + "
    "'<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
SENTENCES = [
    "The weather is nice today.",
    "Open the window!",
    "a",
    "A much longer sentence, with commas, and 1,234 numbers.",
]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return open_checkpoint("smollm2").tokenizer


@pytest.fixture
def model(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4}
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(
        tmp_path / "model"
    )
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_modelfile_has_template_system_text_and_ends(tmp_path: Path, model: Path) -> None:
    report = export_ollama(model, tmp_path / "ollama")
    text = (tmp_path / "ollama" / "Modelfile").read_text()
    assert report.chat_format == "chatml"
    assert text.startswith("FROM ./model.gguf\n")
    assert next(known for known in FORMATS if known.name == "chatml").template in text
    assert 'SYSTEM """You are a helpful AI assistant named SmolLM, trained by Hugging Face"""' in text
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert report.gguf.path == tmp_path / "ollama" / "model.gguf"
    assert "tokenizer.chat_template" in read_gguf(report.gguf.path).fields


@pytest.mark.parametrize(("template", "name"), [(LLAMA3, "llama3"), (GEMMA, "gemma"), ("{{ messages }}", None)])
def test_formats_are_found_by_what_templates_write(
    tokenizer: PreTrainedTokenizerFast, template: str, name: str | None
) -> None:
    tokenizer.chat_template = template
    if "bos_token" in template:
        start = (tokenizer.bos_token, tokenizer.bos_token_id)
        adds = TemplateProcessing(single=f"{start[0]} $A", special_tokens=[start])
        tokenizer.backend_tokenizer.post_processor = adds
    known, system = find_format(tokenizer)
    assert (known.name if known else None, system) == (name, "")


def test_a_base_model_gets_plain_text_and_an_unknown_format_a_note(tmp_path: Path, model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    report = export_ollama(model, tmp_path / "base")
    assert 'TEMPLATE """{{ .Prompt }}"""' in (tmp_path / "base" / "Modelfile").read_text()
    assert report.notes == ()
    (model / "chat_template.jinja").write_text("{{ messages }}")
    report = export_ollama(model, tmp_path / "odd")
    assert "TEMPLATE" not in (tmp_path / "odd" / "Modelfile").read_text()
    assert any("chat template" in note for note in report.notes)


def test_what_is_there_is_not_overwritten(tmp_path: Path, model: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(VocabTransferError):
            export_ollama(model, tmp_path / "mine", overwrite=overwrite)
        with pytest.raises(VocabTransferError):
            export_sentence_transformers(model, tmp_path / "mine", overwrite=overwrite)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def _vectors(folder: Path) -> np.ndarray:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    return np.asarray(sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(SENTENCES))


def _mean_of_states(folder: Path) -> np.ndarray:
    tokenizer, model = open_checkpoint(folder).tokenizer, AutoModel.from_pretrained(folder)
    rows = []
    for sentence in SENTENCES:
        with torch.no_grad():
            states = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(states.mean(dim=0), dim=0).numpy())
    return np.stack(rows)


def _without_modules(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (target / name).unlink()
    shutil.rmtree(target / "1_Pooling")
    return target


def test_sentence_vectors_are_the_same_from_every_layout(tmp_path: Path, minilm_folder: Path) -> None:
    expected = _mean_of_states(minilm_folder)
    plain = _without_modules(minilm_folder, tmp_path / "plain")
    inner = tmp_path / "inner"
    shutil.copytree(minilm_folder / "1_Pooling", inner / "1_Pooling")
    shutil.copytree(plain, inner / "0_Transformer")
    types = ["Transformer", "Pooling", "Normalize"]
    paths = ["0_Transformer", "1_Pooling", "2_Normalize"]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(types, paths, strict=True))
    ]
    (inner / "modules.json").write_text(json.dumps(listed))
    (inner / "0_Transformer" / "sentence_bert_config.json").write_text('{"max_seq_length": 77}')
    for name, source, longest in (("top", minilm_folder, 256), ("plain", plain, 512), ("inner", inner, 77)):
        report = export_sentence_transformers(source, tmp_path / f"{name}-out")
        assert (report.modules, report.pooling, report.normalized) == (tuple(types), "mean", True)
        assert report.longest == longest
        assert np.allclose(_vectors(report.path), expected, atol=1e-5), name


def test_pooling_and_lengths_can_be_chosen(tmp_path: Path, minilm_folder: Path) -> None:
    report = export_sentence_transformers(minilm_folder, tmp_path / "cls", pooling="cls", normalize=False)
    assert (report.pooling, report.modules) == ("cls", ("Transformer", "Pooling"))
    vectors = _vectors(report.path)
    tokenizer, model = open_checkpoint(minilm_folder).tokenizer, AutoModel.from_pretrained(minilm_folder)
    with torch.no_grad():
        first = model(**tokenizer(SENTENCES[0], return_tensors="pt")).last_hidden_state[0, 0].numpy()
    assert np.allclose(vectors[0], first, atol=1e-5)
    assert not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-2)
    with pytest.raises(UsageError, match="median"):
        export_sentence_transformers(minilm_folder, tmp_path / "odd", pooling="median")  # type: ignore[arg-type]


def test_a_listing_that_points_outside_is_refused(tmp_path: Path, minilm_folder: Path) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(minilm_folder, folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = "../1_Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(VocabTransferError, match="outside"):
        export_sentence_transformers(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command_line(tmp_path: Path, model: Path, minilm_folder: Path) -> None:
    runner = CliRunner()
    result = runner.invoke(app, ["export", "ollama", str(model), "--output", str(tmp_path / "ollama")])
    assert result.exit_code == 0 and "ollama create ollama" in result.output
    arguments = ["export", "sentence-transformers", str(minilm_folder), "--output", str(tmp_path / "st"), "--json"]
    assert json.loads(runner.invoke(app, arguments).output)["pooling"] == "mean"
