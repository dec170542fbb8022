"""A real llama.cpp in a process of its own: ids, text, log-likelihoods and greedy continuations of a GGUF file.

llama.cpp comes as two wheels of one build: `llama-cpp-py-sync` has its interface, `xllamacpp` a library that runs on
older systems too. Install them beside the project (`pip install '.[engines]'`), or in an environment of their own and name
that environment's Python in VOCABTRANSFER_LLAMA_CPP. This file is both sides: the client, and with the argument `serve`
the worker, which uses nothing but these wheels, numpy and the standard library.
"""

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VARIABLE = "VOCABTRANSFER_LLAMA_CPP"
MISSING = f"no llama.cpp: pip install '.[engines]', or name a Python that has these packages in {VARIABLE}"


def find_python() -> str | None:
    """Return a Python that can import llama.cpp, or None."""
    named = os.environ.get(VARIABLE)
    if named:
        return named
    return sys.executable if importlib.util.find_spec("llama_cpp_py_sync") else None


class LlamaCpp:
    """One loaded file. A crash of the C++ library ends the worker, not the caller."""

    def __init__(
        self,
        path: Path,
        *,
        vocabulary_only: bool = False,
        context: int = 1024,
        threads: int = 1,
        embeddings: bool = False,
    ) -> None:
        python = find_python()
        if python is None:
            raise RuntimeError(MISSING)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        arguments = [str(path), json.dumps(vocabulary_only), str(context), str(threads), json.dumps(embeddings)]
        self._log = Path(f"/tmp/llama-cpp-{os.getpid()}-{id(self)}.log")
        self._process = subprocess.Popen(
            [python, __file__, "serve", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
            env=environment,
        )
        self.version: str = self._ask("version")

    def __enter__(self) -> "LlamaCpp":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._log.unlink(missing_ok=True)

    def tokenize(self, text: str, *, specials: bool = True) -> list[int]:
        """The ids of a text as the engine cuts it, special tokens read as such, ends added when ``specials``."""
        return self._ask("tokenize", text, specials)

    def detokenize(self, ids: Sequence[int]) -> str:
        return self._ask("detokenize", list(ids))

    def nats(self, ids: Sequence[int]) -> float:
        """The negative log-likelihood of all ids but the first, in nats."""
        return self._ask("nats", list(ids))

    def continue_greedily(self, ids: Sequence[int], count: int) -> list[int]:
        return self._ask("greedy", list(ids), count)

    def embed(self, ids: Sequence[int]) -> list[float]:
        """The vector of a text, pooled as the file says; for a file that was opened with ``embeddings``."""
        return self._ask("embed", list(ids))

    def margins(self, ids: Sequence[int]) -> list[float]:
        """Difference of the two largest logits after the last id, and the largest logit: [difference, largest]."""
        return self._ask("margin", list(ids))

    def _ask(self, *request: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"llama.cpp ended: {self._log.read_text()[-1500:]}")
        return json.loads(line)


def serve(path: str, vocabulary_only: bool, context: int, threads: int, embeddings: bool) -> None:
    """Answer one request a line until the input ends."""
    import llama_cpp_py_sync as package
    from llama_cpp_py_sync import _cffi_bindings as bindings

    portable = importlib.util.find_spec("xllamacpp")
    if portable and portable.submodule_search_locations:
        library = Path(portable.submodule_search_locations[0]) / "xllamacpp.abi3.so"
        bindings._find_library = lambda: str(library)
    lib, ffi = bindings.get_lib(), bindings.get_ffi()
    lib.llama_backend_init()
    settings = lib.llama_model_default_params()
    settings.n_gpu_layers = 0
    settings.vocab_only = vocabulary_only
    model = lib.llama_model_load_from_file(path.encode(), settings)
    if model == ffi.NULL:
        sys.exit("the model does not load")
    vocabulary = lib.llama_model_get_vocab(model)
    size = lib.llama_vocab_n_tokens(vocabulary)
    state = None
    if not vocabulary_only:
        run = lib.llama_context_default_params()
        run.n_ctx = run.n_batch = run.n_ubatch = context
        run.n_threads = run.n_threads_batch = threads
        run.embeddings = embeddings
        run.flash_attn_type = 0
        run.type_k = run.type_v = 0  # float32: what is compared is the file, not the rounding of the cache
        state = lib.llama_init_from_model(model, run)

    def decode(ids: list[int], start: int, wanted: bool) -> None:
        batch = lib.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, start + i, 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = 1 if wanted or i == len(ids) - 1 else 0
        if lib.llama_decode(state, batch) != 0:
            sys.exit("decoding failed")
        lib.llama_batch_free(batch)

    def clear() -> None:
        lib.llama_memory_clear(lib.llama_get_memory(state), True)

    def row(i: int) -> Any:
        import numpy as np

        logits = lib.llama_get_logits_ith(state, i)
        return np.frombuffer(ffi.buffer(logits, 4 * size), dtype=np.float32).astype(np.float64)

    def tokenize(text: str, specials: bool) -> list[int]:
        data = text.encode()
        buffer = ffi.new(f"llama_token[{len(data) + 16}]")
        count = lib.llama_tokenize(vocabulary, data, len(data), buffer, len(data) + 16, specials, True)
        return [buffer[i] for i in range(count)]

    def detokenize(ids: list[int]) -> str:
        buffer = ffi.new(f"char[{len(ids) * 256 + 16}]")
        count = lib.llama_detokenize(vocabulary, ids, len(ids), buffer, len(ids) * 256 + 16, False, True)
        return bytes(ffi.buffer(buffer, count)).decode("utf-8", errors="replace")

    def nats(ids: list[int]) -> float:
        clear()
        decode(ids, 0, True)
        total = 0.0
        for i, token in enumerate(ids[1:]):
            logits = row(i)
            top = logits.max()
            total += top + math.log(float(sum_exp(logits - top))) - logits[token]
        return float(total)

    def sum_exp(values: Any) -> Any:
        import numpy as np

        return np.exp(values).sum()

    def greedy(ids: list[int], count: int) -> list[int]:
        clear()
        decode(ids, 0, False)
        found: list[int] = []
        for _ in range(count):
            found.append(int(row(-1).argmax()))
            decode(found[-1:], len(ids) + len(found) - 1, False)
        return found

    def embed(ids: list[int]) -> list[float]:
        decode(ids, 0, True)
        width = lib.llama_model_n_embd(model)
        return [float(value) for value in ffi.unpack(lib.llama_get_embeddings_seq(state, 0), width)]

    def margin(ids: list[int]) -> list[float]:
        clear()
        decode(ids, 0, False)
        logits = sorted(row(-1))
        return [float(logits[-1] - logits[-2]), float(logits[-1])]

    answers = {
        "version": lambda: str(getattr(package, "__llama_cpp_tag__", package.__version__)),
        "tokenize": tokenize,
        "detokenize": detokenize,
        "nats": nats,
        "greedy": greedy,
        "margin": margin,
        "embed": embed,
    }
    for line in sys.stdin:
        name, *rest = json.loads(line)
        print(json.dumps(answers[name](*rest)), flush=True)


if __name__ == "__main__":
    serve(sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), json.loads(sys.argv[6]))
