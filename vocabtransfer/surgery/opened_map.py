"""Reading back the token map of a checkpoint that was built earlier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.json_files import read_json
from vocabtransfer.files.named import check_built
from vocabtransfer.public import public
from vocabtransfer.reprs import brief
from vocabtransfer.surgery.explanation import SOURCE_STRINGS, Explanation, explain
from vocabtransfer.token_map import MAP_FILE, OUTPUT_MAP_FILE, TokenMap
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.transliteration.record import FILE_NAME, read_romanization
from vocabtransfer.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class OpenedMap:
    """A token map with the names of both sides.

    ``output_map`` makes the head's rows where they are made otherwise; ``beside`` are files that belong to the vocabulary.
    """

    token_map: TokenMap
    tokenizer: PreTrainedTokenizerFast
    vocabulary: Vocabulary
    source_names: list[str]
    output_map: TokenMap | None = None
    beside: Mapping[str, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        return brief(self, tokens=len(self.tokenizer), token_map=self.token_map)

    def explain(self, token: int | str) -> Explanation:
        """Explain one row by id or by text; `VocabTransferError` when the text is not one token."""
        return explain(self.token_map, self.vocabulary, self.source_names, token)

    def explain_word(self, word: str) -> list[Explanation]:
        """Explain a token, a special token by its name, or the tokens that a word is encoded to."""
        if word in self.vocabulary.strings:
            return [self.explain(self.vocabulary.strings.index(word))]
        ids = PieceEncoder(self.tokenizer, self.vocabulary).encode_words([word.strip() or word]).ids
        return [self.explain(int(i)) for i in ids]


@public
def inspect(folder: str | Path) -> OpenedMap:
    """Open the token map of a built checkpoint.

    Raises:
        VocabTransferError: the folder does not exist or has no map.
    """
    path = Path(folder)
    check_built(path)
    token_map = TokenMap.load(path / MAP_FILE)
    try:
        names = read_json(path / SOURCE_STRINGS, list)
        if not all(isinstance(name, str) for name in names):
            raise VocabTransferError("a name is no text")
    except VocabTransferError as error:
        raise VocabTransferError(
            f"{path / SOURCE_STRINGS} is missing or damaged; build the checkpoint again."
        ) from error
    tokenizer = load_tokenizer(path)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    output_map = TokenMap.load(path / OUTPUT_MAP_FILE) if (path / OUTPUT_MAP_FILE).is_file() else None
    romanization = read_romanization(path)
    beside = {} if romanization is None else {FILE_NAME: romanization.to_bytes()}
    for one in (token_map, output_map):
        if one is not None and one.n_target != len(vocabulary):
            raise VocabTransferError(
                f"the map of {path} makes {one.n_target:,} rows, but its tokenizer has {len(vocabulary):,} tokens: the "
                "vocabulary was changed since; build the checkpoint again."
            )
    return OpenedMap(token_map, tokenizer, vocabulary, names, output_map, beside)
