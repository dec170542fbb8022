"""What well-known adaptations did, as data: the shape of the vocabulary, the rows of new tokens, the training after it.

A preset fills in what a request leaves open; whatever is asked for beside it stands. Figures are the published ones, for
corpora of billions of tokens: on less text fewer tokens come in, and the result says how many.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Literal

from vocabtransfer.errors import UsageError
from vocabtransfer.pipeline.request import BuildRequest


@dataclass(frozen=True)
class Preset:
    """One published adaptation.

    Attributes:
        vocabulary: the shape.
        method: how the rows of new tokens are made here.
        tokens: new tokens that were added or swapped in; the size of a vocabulary that was replaced.
        algorithm: kind of a replaced vocabulary, where it was not the source's.
        calibrate: none of these calibrated anything, so this is False throughout.
        training: options of `vocabtransfer adapt` that come nearest to the training that followed.
        differs: what is not as published, as a sentence; "" where nothing is.
        source: where it was published.
    """

    vocabulary: Literal["replace", "extend", "swap"]
    method: str
    tokens: int
    training: str
    source: str
    differs: str = ""
    algorithm: Literal["unigram"] | None = None
    calibrate: bool = False


_TABLES_THEN_ALL = "--stage tables:1000:2e-4 --stage all:4000:5e-5"

PRESETS: dict[str, Preset] = {
    "eeve": Preset(
        "extend",
        "eeve",
        8_960,
        "--stage new:1000:2e-4 --stage tables:1000:1e-4 --stage lora:2000:1e-4",
        "EEVE-Korean, arXiv 2402.14714",
        "Its seven freezing stages are three here: new rows, both tables, low-rank updates of the body.",
    ),
    "ruadapt": Preset(
        "replace",
        "pieces",
        48_000,
        "--stage tables:2000:2e-4 --stage lora:2000:1e-4",
        "RuAdapt and Learned Embedding Propagation, arXiv 2412.21140",
        "Its tables go on to the instruct model with `vocabtransfer propagate`.",
        algorithm="unigram",
    ),
    "tpro": Preset(
        "swap",
        "pieces",
        34_000,
        "--stage all:4000:5e-5",
        "T-pro 2.0 on Qwen3-32B, arXiv 2512.10430",
        "Its tokens came from other Russian tokenizers; here they are learnt from the text. What its rows were made of is "
        "not published.",
    ),
    "bielik": Preset(
        "replace", "focus", 32_000, _TABLES_THEN_ALL, "Bielik v3 with the APT4 vocabulary, arXiv 2604.10799"
    ),
    "lapa": Preset(
        "swap",
        "pieces",
        81_492,
        "--objective distill --stage new:2000:1e-3 --stage all:4000:5e-5",
        "Lapa on Gemma 3 12B, the Tereshchenko Blue tokenizer; rows by MATT, arXiv 2510.21954",
        "MATT's matching of attention outputs is the distillation of `vocabtransfer adapt` here, from the mean of pieces.",
    ),
    "sherkala": Preset(
        "extend", "wechsel", 31_510, "--stage all:4000:1.5e-4", "Sherkala 8B for Kazakh on Llama 3.1, arXiv 2503.01493"
    ),
    "apertus-greek": Preset(
        "extend",
        "pieces",
        17_408,
        "--objective distill --stage new:2000:1e-3 --stage all:4000:5e-5",
        "Apertus 8B for Greek (fffoivos/apertus-tokenizer-extension); token distillation, arXiv 2505.20133, at a third of "
        "the depth",
    ),
    "lfm": Preset("extend", "pieces", 16_000, _TABLES_THEN_ALL, "LFM2.5-8B, arXiv 2607.15232"),
}


def find_preset(name: str) -> Preset:
    """Return a preset by its name, dashes and underscores alike; `UsageError` with suggestions otherwise."""
    wanted = name.strip().lower().replace("_", "-")
    if wanted in PRESETS:
        return PRESETS[wanted]
    near = difflib.get_close_matches(wanted, PRESETS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(PRESETS)}."
    raise UsageError(f"There is no preset {name!r}: {hint}")


def with_preset(request: BuildRequest) -> tuple[BuildRequest, tuple[str, ...]]:
    """Return the request with what its preset says where nothing else was asked for, and notes on it."""
    if request.preset is None:
        return request, ()
    preset = find_preset(request.preset)
    if request.vocabulary not in ("auto", preset.vocabulary) or request.tokenizer is not None or request.romanize:
        raise UsageError(
            f"The preset {request.preset} has a vocabulary of its own ({preset.vocabulary}): leave out --vocabulary, "
            "--tokenizer and --romanize."
        )
    changes: dict[str, object] = {"vocabulary": preset.vocabulary}
    if request.method == "auto":
        changes["method"] = preset.method
    if request.calibrate is None:
        changes["calibrate"] = preset.calibrate
    if preset.vocabulary != "replace" and request.new_tokens is None:
        changes["new_tokens"] = preset.tokens
    if preset.vocabulary == "replace" and request.vocab_size is None:
        changes["vocab_size"] = preset.tokens
    if preset.vocabulary == "replace" and request.algorithm is None and preset.algorithm is not None:
        changes["algorithm"] = preset.algorithm
    notes = [f"Preset {request.preset}: {preset.source}."]
    if preset.differs:
        notes.append(preset.differs)
    notes.append(
        f"It went on with training; the nearest here: vocabtransfer adapt OUTPUT --text TEXT {preset.training}"
    )
    return dataclasses.replace(request, **changes), tuple(notes)  # type: ignore[arg-type]
