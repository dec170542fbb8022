"""The text of one row as its tokens come: whole characters only, and nothing that may yet be part of a stop text."""

from tokenizers.decoders import DecodeStream

from vocabtransfer.hydra.loaded import LoadedHead


class TextStream:
    """Turns tokens into text piece by piece; all pieces together are the text.

    ``stopped`` becomes true with the first stop text, which, and whatever comes after it, is left out.
    """

    def __init__(self, head: LoadedHead, stops: tuple[str, ...] = ()) -> None:
        self.tokens: list[int] = []
        self.stopped = False
        self._head, self._stops = head, stops
        self._tokenizer = head.tokenizer.backend_tokenizer
        self._size = head.stored.config.vocabulary
        self._stream = DecodeStream(skip_special_tokens=True)
        self._text, self._shown = "", 0

    @property
    def length(self) -> int:
        """The characters of the text so far, with those that are held back."""
        return len(self._text)

    @property
    def shown(self) -> int:
        """The characters that were returned."""
        return self._shown

    def add(self, token: int) -> str:
        """Take a token; return the new text that can be shown, which may be empty."""
        self.tokens.append(token)
        if token >= self._size:  # a padding row, which has no text
            return ""
        return self._show(self._stream.step(self._tokenizer, token) or "", final=False)

    def close(self) -> str:
        """Return what was held back."""
        if self.stopped:
            return ""
        whole = self._head.decode(self.tokens)
        return self._show(whole[len(self._text) :] if whole.startswith(self._text) else "", final=True)

    def _show(self, new: str, *, final: bool) -> str:
        if self.stopped:
            return ""
        self._text += new
        found = [place for stop in self._stops if (place := self._text.find(stop, self._shown)) >= 0]
        if found:
            self.stopped = True
            self._text = self._text[: min(found)]
            final = True
        end = len(self._text) - (0 if final else self._held())
        piece, self._shown = self._text[self._shown : end], end
        return piece

    def _held(self) -> int:
        """Return how many of the last characters may be the beginning of a stop text."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for length in range(min(longest, len(self._text) - self._shown), 0, -1):
            if any(stop.startswith(self._text[-length:]) for stop in self._stops):
                return length
        return 0
