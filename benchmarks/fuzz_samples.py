"""The real files that the fuzz run changes: small ones of every kind that the library reads, made by the library itself."""

import contextlib
import gzip
import io
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import pyarrow as pa
import pyarrow.parquet as pq
import sentencepiece
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

import vocabtransfer as vt
from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.corpora.folder import FORMAT, TOTALS
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.serving import Engine, Limits
from vocabtransfer.tokenization.save import save_tokenizer

LINES = (
    *("сәлам дөнья, бу яхшы китап", "Kazan — Татарстан башкаласы.", "hello wörld", "12 345,6 % «шәһәр» ’n’ O‘zbek"),
    "好 พ่อ 👋🏽",
)
PAIRS = (
    *(("hello world", "сәлам дөнья"), ("a good book", "яхшы китап"), ("the city", "шәһәр")),
    ('he said "no"', "ул «юк» диде"),
)
TMX = (
    '<?xml version="1.0" encoding="UTF-8"?><tmx version="1.4"><header srclang="en" datatype="plaintext"/><body>'
    '<tu><tuv xml:lang="en"><seg>hello <hi>world</hi></seg></tuv><tuv xml:lang="tt-Cyrl"><seg>сәлам дөнья</seg></tuv></tu>'
    '<tu><tuv lang="EN-US"><seg>the city</seg></tuv><tuv lang="tat"><seg>шәһәр</seg></tuv></tu></body></tmx>'
)
TEMPLATE = "{% for m in messages %}<s>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}</s>{% endif %}"


@dataclass
class Samples:
    """Where the samples are, and what is kept open for them."""

    place: Path
    tokenizer: Any = None
    _held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _client: Any = None

    @property
    def checkpoint(self) -> Path:
        """A tiny model."""
        return self.place / "english"

    @property
    def built(self) -> Path:
        """The same model with another vocabulary, as a build leaves it."""
        return self.place / "tatar"

    @property
    def hydra(self) -> Path:
        """Both as one Hydra."""
        return self.place / "hydra"

    @property
    def corpus(self) -> Path:
        """A fetched corpus."""
        return self.place / "corpus"

    @property
    def adapter(self) -> Path:
        """A LoRA."""
        return self.place / "adapter"

    def files(self, *folders: str, ending: str = "", names: tuple[str, ...] = ()) -> dict[str, bytes]:
        """Return the content of the files of some folders by their names inside the folder."""
        found = {}
        for folder in folders:
            for path in sorted((self.place / folder).rglob("*")):
                name = path.relative_to(self.place / folder).as_posix()
                if path.is_file() and name.endswith(ending) and (not names or name in names):
                    found[name] = path.read_bytes()
        return found

    def hydra_copy(self) -> Path:
        """Return a fresh copy of the Hydra, to write into."""
        copy = self.place / "hydra_copy"
        shutil.rmtree(copy, ignore_errors=True)
        return Path(shutil.copytree(self.hydra, copy, copy_function=shutil.copyfile))

    def ask(self, path: Path) -> None:
        """Send a file as a request to the server; an answer with status 500, or none, is a fault."""
        route = "/v1/chat/completions" if path.name.startswith("chat") else "/v1/completions"
        reply = self._client.post(route, content=path.read_bytes(), headers={"Content-Type": "application/json"})
        if reply.status_code >= 500:
            raise RuntimeError(f"status {reply.status_code}: {reply.text[:200]}")
        if reply.headers["content-type"].startswith("application/json"):
            if reply.status_code != 200 and not reply.json()["error"]["message"]:
                raise RuntimeError("an error without a sentence")
            if reply.status_code != 200:
                raise VocabTransferError(reply.json()["error"]["message"])
        elif b"[DONE]" not in reply.content or b"server_error" in reply.content:
            raise RuntimeError(f"a stream that does not end well: {reply.text[-200:]}")

    def __enter__(self) -> "Samples":
        from fastapi.testclient import TestClient

        from vocabtransfer.serving.app import create_app

        logging.getLogger("httpx").setLevel(logging.WARNING)
        engine = Engine(
            vt.HydraForCausalLM.from_pretrained(self.hydra), Limits(rate=None, new_tokens=8, prompt_tokens=64)
        )
        self._held.callback(engine.close)
        app = create_app(engine, "hydra")
        self._client = self._held.enter_context(TestClient(app, "http://localhost", raise_server_exceptions=False))
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()


def make_samples(place: Path) -> Samples:
    """Make everything in a new folder."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    place.mkdir(parents=True)
    made = Samples(place, toy_tokenizer(["сәлам", " дөнья", " китап"], seed=3))
    _model(made)
    _texts(place)
    _tokenizers(place)
    _requests(place / "requests")
    return made


def _model(made: Samples) -> None:
    own = toy_tokenizer(["hello", " world", "ing"])
    ids = {key: getattr(own, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=len(own), max_position_embeddings=128, **ids)
    model = LlamaForCausalLM(config)
    model.save_pretrained(made.checkpoint, max_shard_size="12KB")
    own.chat_template = TEMPLATE
    save_tokenizer(own, made.checkpoint)
    source = vt.open_checkpoint(made.checkpoint)
    result = vt.transfer(source, made.tokenizer, method="pieces", calibrate=False)
    vt.build(
        vt.BuildRequest(
            str(made.checkpoint), "tatar", made.built, tokenizer=_saved(made), held_out_bytes=0, calibrate=False
        )
    )
    vt.create_hydra(source, made.hydra, own_name="english", link="copy")
    vt.add_head(made.hydra, "tatar", result)
    (made.place / "gguf").mkdir()
    vt.export_gguf(made.checkpoint, made.place / "gguf" / "model.gguf", kind="f32")
    wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], r=2, task_type="CAUSAL_LM"))
    wrapped.save_pretrained(made.adapter)


def _saved(made: Samples) -> Path:
    save_tokenizer(made.tokenizer, made.place / "tokenizer_of_the_build")
    return made.place / "tokenizer_of_the_build"


def _texts(place: Path) -> None:
    for name in ("text", "pairs", "tables", "dictionary", "vectors", "words", "corpus", "romanization"):
        (place / name).mkdir()
    lines, rows = "\n".join(LINES * 4) + "\n", [{"text": line, "id": i} for i, line in enumerate(LINES)]
    table = "id,text\n" + "".join(f'{i},"{line}"\n' for i, line in enumerate(LINES))
    _write(place / "text", {
        **{"plain.txt": lines, "paragraphs.txt": lines.replace("\n", "\n\n"), "rows.json": json.dumps(rows)},
        **{"rows.jsonl": "\n".join(map(json.dumps, rows)), "rows.csv": table},
        **{"rows.tsv": "text\n" + lines, "rows.parquet": _parquet({"text": list(LINES)})},
    })  # fmt: skip
    tsv = "".join(f"{a}\t{b}\n" for a, b in PAIRS)
    named = [{"translation": {"en": a, "tt": b}} for a, b in PAIRS]
    _write(place / "pairs", {
        **{"pairs.tsv": tsv, "bars.txt": tsv.replace("\t", " ||| "), "memory.tmx": TMX},
        **{"rows.jsonl": "\n".join(map(json.dumps, named))},
        **{"quoted.csv": "en,tt\n" + "".join(f'"{a.replace(chr(34), chr(34) * 2)}","{b}"\n' for a, b in PAIRS)},
        **{"rows.parquet": _parquet({"en": [a for a, _ in PAIRS], "tt": [b for _, b in PAIRS]})},
    })  # fmt: skip
    vt.align_corpus(PAIRS * 3, metadata={"source": "en", "target": "tt"}).save(place / "tables" / "table.tsv.gz")
    (place / "tables" / "table.tsv").write_bytes(gzip.decompress((place / "tables" / "table.tsv.gz").read_bytes()))
    _write(place / "dictionary", {"words.tsv": "book\tкитап\ncity\tшәһәр; кала\n# note\n", "words.csv": "book,китап\n"})
    _write(
        place / "vectors", {"words.vec": "3 4\n" + "".join(f"{w} 0.1 -0.2 0.3 1e-3\n" for w in ("the", "китап", "a"))}
    )
    _write(
        place / "words",
        {"words.txt": "tatar\ntt-Cyrl\ntables:2k:2e-4\nlora:5Mtokens:1e-4\nТатарча\nzh-Hant-TW\nall:1:1\n"},
    )
    part = {"part": "a", "kind": "text", "licence": "CC0", "attribution": "b", "kept": 4, "dropped": {}, "samples": []}
    facts = {
        "format": FORMAT,
        "language": {"name": "Tatar", "tag": "tt"},
        "source_language": {"name": "English", "tag": "en"},
        "parts": [part],
    }
    facts |= {"totals": dict.fromkeys(TOTALS, 4), "warnings": ["few lines"], "missing": []}
    _write(place / "corpus", {
        **{"corpus.json": json.dumps(facts), "dictionary.tsv": "book\tкитап\n", "held-out.txt": lines},
    })  # fmt: skip
    roman = vt.prepare_romanized("tatar", list(LINES) * 20, toy_tokenizer(["hello"]), 290)[1]
    (place / "romanization" / "romanization.json").write_bytes(roman.to_bytes())


def _tokenizers(place: Path) -> None:
    (place / "tokenizer").mkdir()
    (place / "models").mkdir()
    samples = {"toy.json": toy_tokenizer(["hello", " world"])}
    like = {"bpe": samples["toy.json"]}
    for kind in ("sentencepiece", "unigram", "wordpiece"):
        with contextlib.suppress(VocabTransferError):
            samples[f"{kind}.json"] = vt.train_tokenizer(
                list(LINES) * 20, like=like["bpe"], vocab_size=320, algorithm=kind
            )
    for name, tokenizer in samples.items():
        (place / "tokenizer" / name).write_text(tokenizer.backend_tokenizer.to_str())
    settings = {"vocab_size": 90, "hard_vocab_limit": False, "minloglevel": 2}
    for kind in ("unigram", "bpe"):
        out = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(LINES * 30), model_writer=out, model_type=kind, **settings
        )  # fmt: skip
        (place / "models" / f"{kind}.model").write_bytes(out.getvalue())
    (place / "models" / "vocab.txt").write_text(
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n##s\n" + "\n".join("abcdefgh")
    )


def _requests(folder: Path) -> None:
    folder.mkdir()
    common: dict[str, Any] = {
        **{
            "model": "hydra",
            "max_tokens": 3,
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": 4,
            "min_p": 0.1,
            "seed": 3,
            "n": 2,
        },
        **{"presence_penalty": 0.5, "frequency_penalty": -0.5, "repetition_penalty": 1.2, "logit_bias": {"5": 1.5}},
        **{"stop": ["x", "yz"], "stream": False, "head": {"input": "english", "output": "tatar"}, "user": "somebody"},
    }
    plain: Mapping[str, Any] = {**common, "prompt": ["hello world", "hello"], "logprobs": 2, "echo": False}
    messages = [
        {"role": "system", "content": "hello"},
        {"role": "user", "content": [{"type": "text", "text": "world"}]},
    ]
    talk = {**common, "messages": messages, "logprobs": True, "top_logprobs": 2, "head": "english"}
    small = {"model": "tatar", "prompt": "сәлам", "max_tokens": 2}
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    _write(folder, {
        **{"completion.json": json.dumps(plain), "ids.json": json.dumps({**plain, "prompt": [[5, 6, 7], [8]]})},
        **{"chat.json": json.dumps(talk), "chat_stream.json": json.dumps({**talk, **stream})},
        **{"stream.json": json.dumps({**plain, **stream}), "small.json": json.dumps(small)},
    })  # fmt: skip


def _write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def _parquet(columns: Mapping[str, list[str]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), out)
    return out.getvalue()
