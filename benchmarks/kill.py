"""Kill a small build at many moments, and see that the output is always the old state or the new one, and loads.

Usage: python benchmarks/kill.py --kills 200 --seed 0

Half of the builds replace an older result (``--overwrite``); a quarter have a source whose proof fails. Each build runs in
a forked process that is ended with SIGKILL, half of them after a random part of the time a whole build takes, half of
them when they are about to touch the disk for the k-th time (a file opened for writing, flushed, renamed, exchanged or
removed, a folder made or removed). The last touches are those of publishing: every one of these moments is taken before
the others are drawn at random.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from vocabtransfer.checkpoint.synthetic import toy_tokenizer, write_hollow_checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files import staging
from vocabtransfer.pipeline.build import BuildRequest, build
from vocabtransfer.tokenization.save import save_tokenizer

OLD, NEW = toy_tokenizer(["hello", " world"]), toy_tokenizer(["сәлам", " дөнья"], seed=3)
CONFIG = {
    **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 16, "intermediate_size": 16},
    **{"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": False},
    **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "vocab_size": len(OLD)},
}


def main() -> None:
    """Run the kills and print the counts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(_run(Path(place), options.kills, random.Random(options.seed)), indent=2))


def _run(place: Path, kills: int, draw: random.Random) -> dict[str, Any]:
    good, broken = _sources(place)
    save_tokenizer(NEW, place / "tokenizer")
    old, new, out = place / "old", place / "new", place / "home" / "out"
    request = BuildRequest(source=str(good), target="tatar", output=old, tokenizer=place / "tokenizer", link="copy")
    _whole(request, old, seed=1)
    started = time.perf_counter()
    _whole(request, new, seed=0)
    longest = time.perf_counter() - started
    # How often a build touches the disk, and from which touch on it publishes, for a new place and for an old one.
    touches = []
    for replacing in (False, True):
        _prepare(old, out, replacing)
        touches.append(_touches(good, place / "tokenizer", out))
    _prepare(old, out, False)
    before_proof = _touches(broken, place / "tokenizer", out)[1]
    publishing = [[*range(begin, last + 1)] for begin, last in touches]
    states = {"old": _snapshot(old), "new": _snapshot(new), "nothing": {}}
    counts: Counter[str] = Counter()
    number = -1
    while counts["killed"] < kills:
        number += 1
        # Of eight: four replace, two fail, four are aimed at a touch of the disk.
        replacing, failing, aimed = number % 2 == 1, number % 8 in (2, 7), number % 4 >= 2
        _prepare(old, out, replacing)
        after, touch = draw.uniform(0, 0.7 if failing else 1.05) * longest, None
        if aimed:
            late = publishing[replacing]
            late = late if draw.random() < 0.7 else []
            begin, last = touches[replacing]
            touch = late.pop() if late else draw.randint(begin if draw.random() < 0.5 else 1, last)
            touch = draw.randint(1, before_proof) if failing else touch
        ended = _killed(broken if failing else good, place / "tokenizer", out, after, touch)
        counts[
            f"aimed at {'publishing' if touch >= touches[replacing][0] else 'another touch'}"
            if touch
            else "by the clock"
        ] += 1
        left = _snapshot(out)
        state = next((name for name, files in states.items() if left == files), "torn")
        wanted = {"old"} if replacing else {"nothing"}
        right = state in (wanted if failing else wanted | {"new"})
        counts[f"{'replacing' if replacing else 'new place'}, {'failing proof' if failing else 'good'}: {state}"] += 1
        counts["killed" if ended == -signal.SIGKILL else "ended before"] += 1
        counts["wrong"] += not right
        counts["does not load"] += state in ("old", "new", "torn") and not _loads(out)
    _whole(BuildRequest(**{**vars(request), "output": out, "overwrite": True}), out, seed=0)
    counts["left over after one more build"] = len(list(out.parent.glob(".*")))
    moments = {"moments of publishing": [last - begin + 1 for begin, last in touches]}
    return {"kills asked for": kills, **moments, "wrong": 0, "does not load": 0, **dict(sorted(counts.items()))}


def _sources(place: Path) -> tuple[Path, Path]:
    good = write_hollow_checkpoint(place / "good" / "toy", CONFIG, shard_bytes=1 << 20, seed=1)
    save_tokenizer(OLD, good)
    broken = Path(shutil.copytree(good, place / "broken" / "toy"))
    (broken / "config.json").write_text(json.dumps({**CONFIG, "head_dim": 4}))  # not what the weights were made for
    return good, broken


def _whole(request: BuildRequest, output: Path, seed: int) -> None:
    build(
        BuildRequest(
            **{
                **vars(request),
                "output": output,
                "seed": seed,
                "method": "random",
                "held_out_bytes": 0,
                "calibrate": False,
            }
        )
    )


def _prepare(old: Path, out: Path, replacing: bool) -> None:
    shutil.rmtree(out.parent, ignore_errors=True)
    out.parent.mkdir(parents=True)
    if replacing:
        shutil.copytree(old, out)  # keeps the dates, which the manifest speaks of


def _touches(source: Path, tokenizer: Path, out: Path) -> tuple[int, int]:
    """Build in a child; return the number of the touch with which publishing begins, and of the last one."""
    answer = out.parent / "touches"
    child = os.fork()
    if child == 0:
        counter = _Touches(None)
        published = staging._publish

        def publish(*arguments: Any) -> None:
            begins.append(counter.count + 1)
            published(*arguments)

        begins: list[int] = []
        staging._publish = publish
        with contextlib.suppress(VocabTransferError):
            build(_request(source, tokenizer, out))
        counter.limit = -1
        answer.write_text(json.dumps([begins[-1] if begins else counter.count, counter.count]))
        os._exit(0)
    os.waitpid(child, 0)
    begin, last = json.loads(answer.read_text())
    return begin, last


class _Touches:
    """Counts what this process does to the disk, and ends it just before the touch of number ``limit``."""

    EVENTS = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate"})

    def __init__(self, limit: int | None) -> None:
        self.count, self.limit = 0, limit
        sys.addaudithook(self._heard)
        flush, exchange = os.fsync, staging._exchange
        os.fsync = lambda handle: (self._touch(), flush(handle))[1]  # Python tells no hook of these two
        staging._exchange = lambda *names: (self._touch(), exchange(*names))[1]

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in self.EVENTS:
            self._touch()

    def _touch(self) -> None:
        if self.limit == -1:
            return
        self.count += 1
        if self.count == self.limit:
            os.kill(os.getpid(), signal.SIGKILL)


def _request(source: Path, tokenizer: Path, out: Path) -> BuildRequest:
    return BuildRequest(
        str(source),
        "tatar",
        out,
        tokenizer=tokenizer,
        link="copy",
        method="random",
        overwrite=True,
        held_out_bytes=0,
        calibrate=False,
    )


def _killed(source: Path, tokenizer: Path, out: Path, after: float, touch: int | None) -> int:
    """Build in a child that is killed after some seconds, or at a touch of the disk; return how it ended."""
    child = os.fork()
    if child == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 (the child ends by force)
        code = 1
        try:
            if touch is not None:
                _Touches(touch)
            build(_request(source, tokenizer, out))
            code = 0
        except VocabTransferError:
            code = 3
        finally:
            os._exit(code)
    if touch is None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _loads(folder: Path) -> bool:
    try:
        AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as problem:  # whatever it is, it counts
        print(f"{folder}: {problem}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    main()
