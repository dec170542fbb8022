"""Chat formats in Ollama's form. Ollama renders conversations by Go templates, checkpoints have Jinja ones.

A Jinja template is not translated: it is run on a sample conversation and compared with what each known format writes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerFast

Turn = Mapping[str, str]
USER_TURNS: tuple[Turn, ...] = (
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "Three?"},
)
SYSTEM_TURN: Turn = {"role": "system", "content": "Zero."}


@dataclass(frozen=True)
class ChatFormat:
    """A format's name, its template for Ollama, and what it writes for a conversation that the model is to go on with."""

    name: str
    template: str
    write: Callable[[tuple[Turn, ...]], str]


def _chatml(turns: tuple[Turn, ...]) -> str:
    return "".join(f"<|im_start|>{t['role']}\n{t['content']}<|im_end|>\n" for t in turns) + "<|im_start|>assistant\n"


def _llama3(turns: tuple[Turn, ...]) -> str:
    head = "<|start_header_id|>{}<|end_header_id|>\n\n"
    return "".join(head.format(t["role"]) + t["content"] + "<|eot_id|>" for t in turns) + head.format("assistant")


def _gemma(turns: tuple[Turn, ...]) -> str:
    system, text = "", ""
    for turn in turns:
        if turn["role"] == "system":
            system = turn["content"] + "\n\n"
            continue
        role = "model" if turn["role"] == "assistant" else turn["role"]
        text += f"<start_of_turn>{role}\n{system}{turn['content']}<end_of_turn>\n"
        system = ""
    return text + "<start_of_turn>model\n"


FORMATS = (
    ChatFormat(
        "chatml",
        "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
        _chatml,
    ),
    ChatFormat(
        "llama3",
        "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>{{ end }}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        _llama3,
    ),
    ChatFormat(
        "gemma",
        '{{- $system := "" }}{{- range .Messages }}{{- if eq .Role "system" }}{{- $system = .Content }}{{- else }}'
        '<start_of_turn>{{ if eq .Role "assistant" }}model{{ else }}{{ .Role }}{{ end }}\n'
        "{{ if $system }}{{ $system }}\n\n{{ end }}{{ .Content }}<end_of_turn>\n"
        '{{ $system = "" }}{{- end }}{{- end }}<start_of_turn>model\n',
        _gemma,
    ),
)


def find_format(tokenizer: PreTrainedTokenizerFast) -> tuple[ChatFormat | None, str]:
    """Return the format that the tokenizer's template writes, None for an unknown one, and the system text it adds.

    Where encoding adds the beginning of text, the engine does too, so a template's own is left out of the comparison.
    """
    with_system = _written(tokenizer, (SYSTEM_TURN, *USER_TURNS))
    without = _written(tokenizer, USER_TURNS)
    for known in FORMATS:
        if with_system is not None and with_system != known.write((SYSTEM_TURN, *USER_TURNS)):
            continue
        if without == known.write(USER_TURNS):
            return known, ""
        added = _added_system(known, without)
        if added:
            return known, added
    return None, ""


def _added_system(known: ChatFormat, text: str | None) -> str:
    """Return the system text that a template adds by itself, "" when that is not all that is different."""
    mark = "\0"
    before, after = known.write(({"role": "system", "content": mark}, *USER_TURNS)).split(mark)
    if text is None or not text.startswith(before) or not text.endswith(after) or len(text) <= len(before) + len(after):
        return ""
    return text[len(before) : -len(after)]


def _written(tokenizer: PreTrainedTokenizerFast, turns: tuple[Turn, ...]) -> str | None:
    """Return what the template writes, None where it refuses (some know no system turn)."""
    from jinja2 import TemplateError

    settings: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True}
    try:
        text = str(tokenizer.apply_chat_template([dict(turn) for turn in turns], **settings))
    except (TemplateError, ValueError, TypeError):
        return None
    bos = tokenizer.bos_token
    adds = bos is not None and list(tokenizer("a")["input_ids"])[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(bos) if adds else text
