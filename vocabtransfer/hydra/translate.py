"""Translation without training on it: a prompt in one language's vocabulary, an answer in another's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from vocabtransfer.errors import UsageError
from vocabtransfer.hydra.loaded import LoadedHead
from vocabtransfer.languages import find_language

#: For models that complete text; {source} and {target} are names of languages.
COMPLETION = "Translate the following text from {source} into {target}.\n{source}: {text}\n{target}:"
#: For models with a chat template, whose user turn this becomes.
INSTRUCTION = "Translate the following text from {source} into {target}.\n\n{text}"
SPARE_TOKENS, MOST_TOKENS = 16, 512


class Translates(Protocol):
    """What translation asks of a model with heads; `HydraForCausalLM` is one."""

    @property
    def device(self) -> Any:
        """Where it runs."""

    def head(self, name: str) -> LoadedHead:
        """Return a head, loaded."""

    def encode(self, segments: Any, *, output: str) -> Any:
        """Return what `generate` takes: rows of (head, ids), written with the head ``output``."""

    def generate(self, **inputs: Any) -> Any:
        """Return the new ids, a row for each input row and variant."""


def translate_texts(
    model: Translates,
    texts: Sequence[str],
    source: str,
    targets: Sequence[str],
    *,
    template: str | None,
    chat: bool | None,
    batch_size: int,
    settings: dict[str, Any],
) -> list[str]:
    """Translate texts, each into its target head's language; see `HydraForCausalLM.translate`."""
    if len(targets) != len(texts):
        raise UsageError(f"{len(texts)} texts need one target, or as many, not {len(targets)}.")
    if batch_size < 1:
        raise UsageError(f"a batch needs at least one text, not {batch_size}.")
    reader = model.head(source)
    results = [""] * len(texts)
    for target in dict.fromkeys(targets):
        writer = model.head(target)
        for one_line in (True, False):
            mine = [
                i for i, text in enumerate(texts) if targets[i] == target and ("\n" not in text.strip()) == one_line
            ]
            prompts = {i: prompt_ids(reader, writer, texts[i].strip(), template=template, chat=chat) for i in mine}
            mine.sort(key=lambda i: len(prompts[i]))
            for start in range(0, len(mine), batch_size):
                batch = mine[start : start + batch_size]
                longest = max(len(reader.encode([texts[i]], special=False)[0]) for i in batch)
                chosen = {
                    "do_sample": False,
                    "max_new_tokens": min(2 * longest + SPARE_TOKENS, MOST_TOKENS),
                    **(_one_line(writer) if one_line else {}),
                    **settings,
                }
                encoding = model.encode([[(source, prompts[i])] for i in batch], output=target)
                ids = model.generate(**encoding.to(model.device), **chosen)
                factor = len(ids) // len(batch)
                for place, i in enumerate(batch):
                    results[i] = writer.decode(ids[place * factor].tolist()).strip()
    return results


def prompt_ids(
    reader: LoadedHead, writer: LoadedHead, text: str, *, template: str | None, chat: bool | None
) -> list[int]:
    """Return the prompt for one text in the reader's ids; with its chat template unless ``chat`` says otherwise."""
    tokenizer = reader.tokenizer
    if chat is None:
        chat = template is None and bool(tokenizer.chat_template)
    words = template or (INSTRUCTION if chat else COMPLETION)
    try:
        prompt = words.format(source=language_of(reader), target=language_of(writer), text=text)
    except (KeyError, IndexError, ValueError):
        raise UsageError("a template may hold {source}, {target} and {text}; write other braces twice.") from None
    if not chat:
        return reader.encode([prompt], special=True)[0]
    messages = [{"role": "user", "content": prompt}]
    rendered = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    return reader.encode([rendered], special=False)[0]


def language_of(head: LoadedHead) -> str:
    """Return the English name of a head's language: of its tag where it has one, else of its name.

    Heads whose name means no language are called by their name.
    """
    try:
        return find_language(head.stored.config.language or head.name).name
    except UsageError:
        return head.name.replace("_", " ").title()


def _one_line(writer: LoadedHead) -> dict[str, Any]:
    """Return settings that end an answer at its first line's end, and keep it from starting with one."""
    ends, breaks = writer.end_ids, writer.line_breaks
    if not breaks:
        return {}
    begin = writer.generation_config.begin_suppress_tokens or []
    return {"eos_token_id": sorted({*ends, *breaks}), "begin_suppress_tokens": sorted({*begin, *breaks})}
