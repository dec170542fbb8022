"""What a new token costs: excess nats as a prediction (output) and as an input, per method and source.

    python benchmarks/new_tokens/run.py --corpora FOLDER --source smollm2 --languages nl
    python benchmarks/new_tokens/run.py --corpora FOLDER --source GEMMA.gguf --languages nl tr

A vocabulary is extended on the training parts of ``en-XX.tsv.xz`` files (part, English, target), split as by
``benchmarks/leaderboard/sources.py``, and scored on held-out documents of the same kind and on parts of another kind.
*Output*: nats of a new token with its row in the head, on the untouched model's own states, above the untouched model's nats
of its whole span of pieces. *Input*: nats of the old token right after a new one in the extended model, above the untouched
model's nats of it. *Others*: all other tokens of the extended model. Only the vocabulary is new, no body is trained. The
untouched model is run once and its states are kept; every method costs its rows and one more pass.
Methods that are in ``results/`` and not asked for are kept.
With ``--distill`` the rows of every method are also distilled for so many updates, as `build --distill` does.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parent.parent / "leaderboard"))
from run import HELD_OUT
from sources import corpus_of, read_texts

from vocabtransfer.alignment.aligner import align_corpus
from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.evaluation.scoring import document_separator
from vocabtransfer.evaluation.texts import limit_bytes
from vocabtransfer.initialization import METHODS
from vocabtransfer.pipeline.distilled import Budget, distilled
from vocabtransfer.running.load import load_causal_model
from vocabtransfer.running.settings import running_with
from vocabtransfer.running.swap_tables import with_tables
from vocabtransfer.surgery.evidence import Evidence, target_words
from vocabtransfer.surgery.transfer import TransferResult, transfer
from vocabtransfer.tokenization.extend import extend_tokenizer

HERE = Path(__file__).parent
BLOCK = 256  # places whose logits are held at once


@dataclass
class Document:
    """One document as both vocabularies cut it, and the untouched model's states before the head.

    ``before`` and ``after`` are the source tokens read before and after each new-vocabulary token, -1 where a token ends
    inside a source token. ``running`` are cumulated nats by source tokens read, ``nats`` of the new-vocabulary tokens.
    """

    ids: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    states: torch.Tensor
    running: NDArray[np.float64]

    @property
    def comparable(self) -> NDArray[np.bool_]:
        """Tokens whose beginning and end both vocabularies share."""
        return (self.before >= 0) & (self.after >= 0)

    @property
    def nats(self) -> NDArray[np.float64]:
        """The untouched model's nats of each token's span."""
        return np.where(self.comparable, self.running[self.after] - self.running[self.before], np.nan)


@torch.inference_mode()
def states_of(model: PreTrainedModel, ids: NDArray[np.int64]) -> torch.Tensor:
    return model.base_model(input_ids=torch.from_numpy(ids)[None], use_cache=False).last_hidden_state[0]


@torch.inference_mode()
def losses(states: torch.Tensor, head: torch.Tensor, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return -log p of ``ids`` (n,) at ``states`` (n, hidden), for heads without bias or soft cap; float64."""
    found = []
    for start in range(0, len(ids), BLOCK):
        logits = states[start : start + BLOCK] @ head.T
        chosen = logits[torch.arange(len(logits)), torch.from_numpy(ids[start : start + BLOCK])]
        found.append((torch.logsumexp(logits, 1) - chosen).double().numpy())
    return np.concatenate(found)


def read(
    model: PreTrainedModel,
    old: PreTrainedTokenizerFast,
    new: PreTrainedTokenizerFast,
    texts: Sequence[str],
    separator: int,
) -> list[Document]:
    head = model.get_output_embeddings().weight
    documents = []
    for text in texts:
        theirs, ours = (t(text, add_special_tokens=False, return_offsets_mapping=True) for t in (old, new))
        source = np.array(theirs["input_ids"], np.int64)
        states = states_of(model, np.concatenate([[separator], source]))
        place = {0: 0} | {end: i + 1 for i, (_, end) in enumerate(theirs["offset_mapping"])}
        after = np.array([place.get(end, -1) for _, end in ours["offset_mapping"]], np.int64)
        running = np.concatenate([[0.0], np.cumsum(losses(states[:-1], head, source))])
        before = np.concatenate([[0], after[:-1]])
        documents.append(Document(np.array(ours["input_ids"], np.int64), before, after, states, running))
    return documents


def measure(
    model: PreTrainedModel, documents: Sequence[Document], table: torch.Tensor, first: int, separator: int
) -> dict[str, Any]:
    """Return excess nats as output and as input, of others, and the nats of everything, for a tied extended table."""
    parts: dict[str, list[NDArray[np.float64]]] = {"output": [], "input": [], "others": [], "spans": []}
    total = 0.0
    for document in documents:
        with with_tables(model, table):
            states = states_of(model, np.concatenate([[separator], document.ids]))[:-1]
        full = losses(states, table, document.ids)
        total += full.sum()
        new, comparable, known = document.ids >= first, document.comparable, document.nats
        follows = np.concatenate([[False], new[:-1]]) & ~new & comparable
        chosen = new & comparable
        kept = document.states[torch.from_numpy(document.before[chosen])]
        parts["output"].append(losses(kept, table, document.ids[chosen]) - known[chosen])
        parts["spans"].append(known[chosen])
        parts["input"].append((full - known)[follows])
        parts["others"].append((full - known)[~new & ~follows & comparable])
    means = {name: round(float(np.concatenate(values).mean()), 3) for name, values in parts.items()}
    return {**means, "new": int(sum(map(len, parts["output"]))), "nats": total}


def ways(
    label: str, made: TransferResult, source: Path, updates: int, pairs: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a method's table as it is, and distilled where that is asked for."""
    table = made.table("input")
    assert table is not None
    yield label, table
    if not updates:
        return
    with tempfile.TemporaryDirectory() as folder:
        lines = [[pair[side] for pair in pairs] for side in (0, 1)]
        beside = Path(folder) / "out"
        with distilled(made, Budget(updates), beside, str(source), lines[1], lines[0], seed=0) as (taught, _):
            table = taught.table("input")
            assert table is not None
            yield f"{label}, {updates} updates", table


@dataclass
class Domain:
    """Held-out documents of one kind of text, and what the untouched model needs for them."""

    documents: list[Document]
    facts: dict[str, Any]

    @classmethod
    def read(
        cls,
        model: PreTrainedModel,
        tokenizers: tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast],
        held_out: Sequence[str],
        most: int,
        separator: int,
    ) -> "Domain":
        """Run the untouched model over so many bytes; ``tokenizers`` are the source's and the extended one."""
        texts = list(limit_bytes(held_out, most))
        size = sum(len(text.encode()) for text in texts)
        words = sum(len(text.split()) for text in texts)
        documents = read(model, *tokenizers, texts, separator)
        counts = (sum(len(each.running) - 1 for each in documents), sum(len(each.ids) for each in documents))
        untouched = sum(each.running[-1] for each in documents) / math.log(2) / size
        spelled = [round(count / words, 3) for count in counts]
        return cls(documents, {"bytes": size, "untouched": round(float(untouched), 4), "tokens_per_word": spelled})

    def score(self, model: PreTrainedModel, table: torch.Tensor, first: int, separator: int) -> dict[str, Any]:
        """Return what `measure` does of an extended table, in bits per byte and against the untouched model."""
        found = measure(model, self.documents, table, first, separator)
        bits = float(found.pop("nats")) / math.log(2) / self.facts["bytes"]
        above = round(bits / self.facts["untouched"] - 1, 4)
        return {**found, "bits_per_byte": round(bits, 4), "above_untouched": above}


def run(arguments: argparse.Namespace, language: str) -> dict[str, Any]:
    source = open_checkpoint(Path(arguments.source) if Path(arguments.source).exists() else arguments.source)
    assert source.layout.tied, "this benchmark splits the cost of tied tables"
    split = read_texts(corpus_of(arguments.corpora, language), language)
    text = [target for _, target in split.pairs]
    tokenizer = extend_tokenizer(source.tokenizer, text, new_tokens=arguments.new_tokens).tokenizer
    model = load_causal_model(source.path)
    separator = document_separator(model, source.tokenizer)
    domains = {
        name: Domain.read(model, (source.tokenizer, tokenizer), texts, arguments.bytes, separator)
        for name, texts in (("own", split.own), ("other", split.other))
    }
    facts: dict[str, Any] = {
        "source": source.name,
        "language": language,
        "new_tokens": len(tokenizer) - len(source.tokenizer),
        **{name: domain.facts for name, domain in domains.items()},
        "methods": {},
    }
    file = HERE / "results" / f"{source.name.split('/')[-1]}-{language}.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"methods": {}}
    if {**found, "methods": {}} == facts:
        facts["methods"] = found["methods"]
    table = align_corpus(split.pairs)
    for label in arguments.methods:
        name, _, option = label.partition("+")
        made = transfer(
            source,
            tokenizer,
            Evidence(alignment=table, words=target_words(table), text=lambda: text),
            method=name,
            calibrate=True if option == "calibrate" else None,
            measure=None if name == "auto" else False,
        )
        for said, tables in ways(label, made, source.path, arguments.distill, split.pairs):
            facts["methods"][said] = {
                **{
                    key: each.score(model, tables, len(source.input_table()), separator)
                    for key, each in domains.items()
                },
                **({"scores": dict(made.scores)} if made.scores else {}),
            }
            print(language, said, facts["methods"][said], flush=True)
            file.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, nargs="+", required=True, help="the first with the language is taken")
    parser.add_argument("--source", default="smollm2")
    parser.add_argument("--languages", nargs="+", default=["nl"], choices=sorted(HELD_OUT))
    parser.add_argument("--methods", nargs="+", default=["pieces", "pieces_characters", "auto", "inner_lexicon"])
    parser.add_argument("--new-tokens", type=int, default=6_000)
    parser.add_argument("--distill", type=int, default=0, help="updates of 512 tokens after each method")
    parser.add_argument("--bytes", type=int, default=6_000, help="held-out bytes of each kind to score")
    parser.add_argument(
        "--device", default="cpu", help="where rows are made and distilled; scores are taken on the CPU"
    )
    arguments = parser.parse_args()
    unknown = {label.partition("+")[0] for label in arguments.methods} - set(METHODS)
    if unknown:
        parser.error(f"no such method: {', '.join(sorted(unknown))}")
    (HERE / "results").mkdir(exist_ok=True)
    precision = None if arguments.device == "cpu" else "float32"
    for language in arguments.languages:
        with running_with(arguments.device, precision):
            run(arguments, language)


if __name__ == "__main__":
    main()
