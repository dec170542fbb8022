"""What the pages of docs/ name in their examples: small models, texts, tables and services of the same shape."""

import gzip
import itertools
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from corpus_servers import opus_site, serving
from transformers import AutoModelForCausalLM, AutoTokenizer

import vocabtransfer as vt
from vocabtransfer.corpora import services
from vocabtransfer.corpora.offers import SOURCES
from vocabtransfer.files.cache import cache_folder
from vocabtransfer.hydra import add_head, create_hydra

# Subjects, verbs and objects by language: every combination is a sentence, so pairs are translations of each other.
GRAMMARS: Mapping[str, tuple[str, str, str]] = {
    "en": ("I|You|She|We|The child|The old man", "see|buy|seek|need|know", "a book|the house|water|bread|war|the city"),
    "nl": (
        "Ik|Jij|Zij|Wij|Het kind|De man",
        "zie|koop|zoek|behoef|ken",
        "een boek|het huis|water|brood|oorlog|de stad",
    ),
    "tt": ("Мин|Син|Ул|Без|Бала|Карт", "күрә|ала|эзли|көтә|белә", "китап|йорт|су|икмәк|сугыш|шәһәр"),
    "ru": ("Я|Ты|Она|Мы|Ребёнок|Старик", "вижу|покупаю|ищу|жду|знаю", "книгу|дом|воду|хлеб|войну|город"),
    "yo": ("Mo|O|Ó|A|Ọmọ náà|Bàbá náà", "rí|ra|wá|fẹ́|mọ̀", "ìwé|ilé|omi|búrẹ́dì|ogun|ìlú náà"),
}
#: What is exchanged before an example runs: a model of the hub, and budgets of an hour.
EXCHANGED: Mapping[str, Mapping[str, str]] = {
    "README.md": {
        "--source llama3 --target yoruba --fetch --output out": "--source my-llama --target yoruba --fetch --output yo",
        "--output out-trained": "--stage tables:2:1e-4 --output out-trained",
    },
    "training.md": {
        **{"new:400:5e-4": "new:3:5e-4", "20min": "3", "gemma.gguf": "my-llama"},
        **{"--teacher smollm2": "--teacher my-llama", "new:100:3e-4": "new:3:3e-4"},
        "--tables pieces --bpe-dropout": "--stage tables:3:1e-4 --tables pieces --bpe-dropout",
    },
    "training-and-propagation.md": {
        "--teacher smollm2": "--stage tables:2:1e-4 --teacher my-llama",
        "--output smollm2-nl": "--stage new:2:1e-4 tables:2:1e-4 --output smollm2-nl",
    },
    "large-models.md": {"--like smollm2": "--like llama3-8b", "16000": "400"},
    "rows.md": {"smollm2": "my-llama"},
    "shapes.md": {"--new-tokens 2000": "--new-tokens 500"},
    "your-language.md": {"MODEL": "my-llama", "smollm2": "my-llama"},
}


def sentences(code: str) -> list[str]:
    parts = [part.split("|") for part in GRAMMARS[code]]
    return [f"{' '.join(words)}, {number}." for number, words in enumerate(itertools.product(*parts))]


def _pairs(code: str) -> str:
    return "".join(f"{a}\t{b}\n" for a, b in zip(sentences("en"), sentences(code), strict=True))


def _text(code: str) -> str:
    return "\n\n".join(sentences(code)) + "\n"


class Place:
    """A folder in which the examples of a page run."""

    def __init__(self, folder: Path, tiny_llama: Path) -> None:
        self.folder, self.tiny_llama = folder, tiny_llama

    def prepare(self, page: str) -> None:
        """Make what the page reads and no example of it writes."""
        for name, make in PREPARED.items():
            if (
                re.search(rf"(?<![\w./-])(?:\./)?{re.escape(name)}(?![\w-])", page)
                and not (self.folder / name).exists()
            ):
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                make(self, self.folder / name)

    def llama(self, place: Path) -> None:
        shutil.copytree(self.tiny_llama, place)

    def lora(self, place: Path) -> None:
        import peft

        model = AutoModelForCausalLM.from_pretrained(self.tiny_llama)
        wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], r=2))
        wrapped.save_pretrained(place)
        AutoTokenizer.from_pretrained(self.tiny_llama).save_pretrained(place)

    def dutch(self, place: Path) -> None:
        self._transferred("nl").save(place)

    def tatar(self, place: Path) -> None:
        self._transferred("tt").save(place)

    def chat(self, place: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(self.tiny_llama)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.01)
        model.save_pretrained(place)
        AutoTokenizer.from_pretrained(self.tiny_llama).save_pretrained(place)

    def hydra(self, place: Path) -> None:
        create_hydra(vt.open_checkpoint(self.tiny_llama), place, own_name="english")
        for name, code in (("dutch", "nl"), ("tatar", "tt")):
            add_head(place, name, self._transferred(code), language=code)

    def _transferred(self, code: str) -> Any:
        source = vt.open_checkpoint(self.tiny_llama)
        tokenizer = vt.train_tokenizer(sentences(code), like=source.tokenizer, vocab_size=400)
        return vt.transfer(source, tokenizer, method="pieces", calibrate=False)


def _write(content: Callable[[], bytes]) -> Callable[[Place, Path], None]:
    return lambda place, path: path.write_bytes(content()) and None


PREPARED: Mapping[str, Callable[[Place, Path], None]] = {
    "my-llama": Place.llama,
    "llama3-8b": Place.llama,
    "gemma.gguf": Place.llama,
    "B": Place.llama,
    "I": Place.chat,
    "A": Place.dutch,
    "build/gemma-dutch": Place.dutch,
    "build/smollm2-dutch": Place.dutch,
    "build/smollm2-tatar": Place.tatar,
    "my-lora": Place.lora,
    "HYDRA": Place.hydra,
    "en-nl.tsv.gz": _write(lambda: gzip.compress(_pairs("nl").encode())),
    "mine.tsv": _write(lambda: _pairs("yo").encode()),
    "words.tsv": _write(lambda: "book\tìwé\nhouse\tilé\nwater\tomi\n".encode()),
    "news.txt": _write(lambda: _text("yo").encode()),
    "nl.txt": _write(lambda: _text("nl").encode()),
    "nl.txt.zst": _write(lambda: zstandard.compress(_text("nl").encode())),
    "tt.txt": _write(lambda: _text("tt").encode()),
    "en.txt": _write(lambda: _text("en").encode()),
    "dev.txt": _write(lambda: "\n\n".join(reversed(sentences("nl"))).encode()),
    "held-out.txt": _write(lambda: _text("tt").encode()),
    "crawl": lambda place, path: _shards(path),
    "vragen.txt": _write(lambda: b"Wie ben jij?\nWat is een boek?\nWaar is het huis?\n"),
    "en-ru.tsv.xz": lambda place, path: _table("en", "ru", path),
    "ru-tt.tsv.xz": lambda place, path: _table("ru", "tt", path),
    "corpus-tt": lambda place, path: vt.fetch_corpus("tatar", path) and None,
}


def _shards(folder: Path) -> None:
    folder.mkdir()
    lines = _pairs("tt").splitlines(keepends=True)
    for number in range(2):
        (folder / f"{number}.tsv.zst").write_bytes(zstandard.compress("".join(lines[number::2]).encode()))


def _table(first: str, second: str, path: Path) -> None:
    vt.align_corpus(list(zip(sentences(first), sentences(second), strict=True))).save(path)


@contextmanager
def services_here(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[None]:
    """Inside the block, corpora come from a pretend OPUS on the loopback and from nowhere else."""
    pairs = {"BOOKS": ("en", "yo"), "FILMS": ("en", "tt"), "NEWS": ("ru", "tt")}
    site = opus_site({name: {code: sentences(code) for code in codes} for name, codes in pairs.items()})
    answer = site.answers["/api/"]

    def asked(query: Mapping[str, list[str]]) -> dict[str, Any]:
        wanted = {query["source"][0], query["target"][0]}
        rows = [row for row in answer(query)["corpora"] if set(pairs[row["corpus"]]) == wanted]
        return {"corpora": rows}

    site.answers["/api/"] = asked
    with serving(site):
        monkeypatch.setenv("VOCABTRANSFER_SERVICE_OPUS", f"{site.url}/api")
        monkeypatch.setenv("VOCABTRANSFER_SERVICE_OPUS_FILES", site.url)
        for name in ("checkpoints", "packages"):  # what was made of packages is the same; what is fetched is not kept
            (cache / name).symlink_to(cache_folder(name))
        monkeypatch.setenv("VOCABTRANSFER_CACHE", str(cache))
        monkeypatch.delenv("VOCABTRANSFER_OFFLINE", raising=False)
        for name in set(SOURCES) - {"opus"}:
            monkeypatch.delitem(SOURCES, name)
        services._knock.cache_clear()
        yield
    services._knock.cache_clear()
