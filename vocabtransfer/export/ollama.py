"""A folder that `ollama create` reads: the model as GGUF, and a Modelfile beside it."""

from dataclasses import dataclass, replace
from pathlib import Path

from vocabtransfer.checkpoint import Checkpoint, check_target, open_checkpoint
from vocabtransfer.export.chat_formats import find_format
from vocabtransfer.export.gguf import GgufReport, export_gguf
from vocabtransfer.export.gguf_vocabulary import end_ids
from vocabtransfer.files.manifest import write_manifest
from vocabtransfer.files.staging import staged_folder
from vocabtransfer.public import public

MODEL_NAME = "model.gguf"
COMPLETION = "{{ .Prompt }}"  # what Ollama does without a template: the text goes to the model as it is


@dataclass(frozen=True)
class OllamaReport:
    """What was written: the folder, the chat format in the Modelfile ("" for plain text), and what the GGUF file has."""

    path: Path
    chat_format: str
    gguf: GgufReport
    notes: tuple[str, ...]


@public
def export_ollama(
    model: str | Path | Checkpoint, target: str | Path, *, kind: str = "auto", overwrite: bool = False
) -> OllamaReport:
    """Write a folder for `ollama create NAME -f FOLDER/Modelfile` (https://docs.ollama.com/modelfile).

    The Modelfile has the chat template in Ollama's form where the model's is one of the known formats, the system text
    that the model's template adds, and the tokens that end an answer. Raises what `export_gguf` raises.
    """
    folder = Path(target).expanduser()
    source = model if isinstance(model, Checkpoint) else open_checkpoint(model)
    check_target(folder, overwrite)
    text, chat_format, notes = modelfile(source)
    with staged_folder(folder, overwrite) as staging:
        report = export_gguf(model, staging / MODEL_NAME, kind=kind)
        (staging / "Modelfile").write_text(text, encoding="utf-8")
        write_manifest(staging, {"source": source.name})
    report = replace(report, path=folder / MODEL_NAME)
    return OllamaReport(folder, chat_format, report, (*notes, *report.notes))


def modelfile(source: Checkpoint) -> tuple[str, str, tuple[str, ...]]:
    """Return the Modelfile of a model, the name of its chat format, and notes."""
    tokenizer = source.tokenizer
    lines = [f"FROM ./{MODEL_NAME}"]
    if not tokenizer.chat_template:
        lines.append(f'TEMPLATE """{COMPLETION}"""')
        return "\n".join(lines) + "\n", "", ()
    known, system = find_format(tokenizer)
    if known is None:
        note = (
            "the chat template is none of the formats known here, so the Modelfile has none: Ollama takes what it finds "
            "in the GGUF file, or plain text. Write a TEMPLATE into the Modelfile if its answers look wrong."
        )
        return "\n".join(lines) + "\n", "", (note,)
    lines.append(f'TEMPLATE """{known.template}"""')
    if system:
        lines.append(f'SYSTEM """{system}"""')
    tokens = dict.fromkeys(tokenizer.convert_ids_to_tokens(i) for i in end_ids(source))
    lines += [f'PARAMETER stop "{token}"' for token in tokens if token]
    return "\n".join(lines) + "\n", known.name, ()
