"""The proof that a written checkpoint works: loaded by transformers as a stranger would, and made to generate."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from vocabtransfer.checkpoint import Checkpoint, read_checkpoint
from vocabtransfer.errors import VocabTransferError, first_line
from vocabtransfer.languages import Language
from vocabtransfer.pipeline.spelling import check_round_trips
from vocabtransfer.running.blank_inputs import blank_inputs
from vocabtransfer.running.load import cannot_run, quantisation
from vocabtransfer.running.memory import fits_in_memory
from vocabtransfer.running.plan import load_placed, open_runnable
from vocabtransfer.transliteration.record import FILE_NAME as ROMANIZATION_FILE

#: Tokens that a model generates whose layers are read from disk for each.
STREAMED_TOKENS = 2
ROUND_TRIPS = ("Hello, world!", "In 2024: 3.14 × 10^9", "👩‍💻 🎉", "def f(x):\n    return x[1:]\n")
#: What models say that want more input than was made up.
_WANTS_MORE = ("missing", "required", "specify", "has to be not-None")
BLANK = {"pixel_values": "(a grey image)", "input_features": "(silence)", "input_values": "(silence)"}


@dataclass(frozen=True)
class Proof:
    """What was seen: the class loaded, and a prompt with what the model wrote (models that generate).

    The prompt of a model that looks or listens is named in brackets. ``note`` is a sentence where something was not run.
    """

    loaded: str
    prompt: str = ""
    generated: str = ""
    note: str = ""


def prove(folder: Path, words: Mapping[str, float], language: Language | None, tokens: int = 12) -> Proof:
    """Load model and tokenizer from ``folder``, check that text survives the tokenizer, and generate a few tokens.

    Models too large for the free memory are run layer by layer, for fewer tokens.

    Raises:
        VocabTransferError: something does not load or text does not survive.
    """
    try:
        return _prove(folder, words, language, tokens)
    except (VocabTransferError, MemoryError):
        raise
    except Exception as problem:
        # Model classes raise whatever their code happens to trip over.
        said = (str(problem).strip().splitlines() or [""])[0].rstrip(".:")
        raise VocabTransferError(
            f"The result does not load and generate ({type(problem).__name__}: {said}), so it was not put in its place."
        ) from problem


def prove_beside(source: Checkpoint, folder: Path, words: Mapping[str, float], language: Language | None) -> Proof:
    """Prove a result; where its untouched source fails in the same words, say so in a note instead.

    Some models want more than can be made up for them (the boxes around the words of a page, a robot's state).

    Raises:
        VocabTransferError: something does not load, or fails that works in the source.
    """
    try:
        return prove(folder, words, language)
    except VocabTransferError as problem:
        cause = problem.__cause__
        known = isinstance(cause, AttributeError) or any(sign in str(cause) for sign in _WANTS_MORE)
        if cause is None or not known:
            raise
        try:
            prove(source.path, words, language)
        except VocabTransferError as same:
            if (type(same.__cause__), str(same)) != (type(problem.__cause__), str(problem)):
                raise problem from problem.__cause__
        else:
            raise
        said = first_line(cause)
        note = f"Nothing was generated: neither does the untouched {source.name} from made-up input ({said})."
        return Proof(f"{source.architecture} (loaded)", note=note)


def _prove(folder: Path, words: Mapping[str, float], language: Language | None, tokens: int) -> Proof:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    lettered = [word for word in words if word.isalpha() and len(word) > 2]
    prompt = " ".join(sorted(lettered, key=lambda word: (-words[word], word))[:3])
    prompt = prompt or (language.endonym if language is not None else ROUND_TRIPS[0])
    # A romanized vocabulary writes Latin letters: nothing that goes in comes back as it was.
    if not (folder / ROMANIZATION_FILE).is_file():
        check_round_trips(tokenizer, (*ROUND_TRIPS, prompt))
    AutoConfig.from_pretrained(folder, local_files_only=True)  # must open even where the weights do not fit
    checkpoint = read_checkpoint(folder, folder.name)
    if checkpoint.is_draft:
        return Proof(
            "EAGLE draft head (headers only)", note="Nothing was generated: a draft head runs beside its target."
        )
    whole = fits_in_memory(checkpoint.parameters // 2)
    try:
        model: Any = load_placed(folder) if whole else open_runnable(checkpoint, dtype="bfloat16")
    except VocabTransferError as problem:
        kind = quantisation(checkpoint.config)
        if kind is None:
            said = str(problem).removesuffix(".")
            raise VocabTransferError(f"The result cannot be run: {said}, so it was not put in its place.") from problem
        reason = cannot_run(checkpoint.config) or f"its body is quantised ({kind}): {str(problem).rstrip('.')}"
        note = f"Nothing was generated: {reason}."
        return Proof(f"{checkpoint.architecture} (headers only)", note=note)
    blank = blank_inputs(model) if checkpoint.generates else None
    if blank is None:
        return Proof(type(model).__name__)
    if blank:
        prompt, inputs = BLANK[next(iter(blank))], blank
    else:
        inputs = {**tokenizer(prompt, return_tensors="pt", return_token_type_ids=False).to(model.device)}
    pad = tokenizer.pad_token_id or 0
    with torch.inference_mode():
        output = model.generate(
            **inputs, max_new_tokens=tokens if whole else STREAMED_TOKENS, do_sample=False, pad_token_id=pad
        )
    seen = 0 if blank or model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    generated = str(tokenizer.decode(output[0, seen:], skip_special_tokens=True))
    return Proof(type(model).__name__, prompt, generated)
