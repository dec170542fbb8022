"""Reading back the token map of a checkpoint that was built earlier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.json_files import read_json
from vocabtransfer.files.named import check_built
from vocabtransfer.public import public
from vocabtransfer.surgery.explanation import SOURCE_STRINGS, Explanation, explain
from vocabtransfer.token_map import MAP_FILE, TokenMap
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class OpenedMap:
    """A token map with the names of both sides."""

    token_map: TokenMap
    tokenizer: PreTrainedTokenizerFast
    vocabulary: Vocabulary
    source_names: list[str]

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
def open_map(folder: str | Path) -> OpenedMap:
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
    return OpenedMap(token_map, tokenizer, Vocabulary.from_tokenizer(tokenizer), names)
