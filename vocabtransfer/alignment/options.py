"""What can be chosen about word alignment, checked in one place."""

from dataclasses import dataclass, replace

from vocabtransfer.errors import UsageError

# What words with the same first letters have in common is learnt once: most of it is one word with other endings.
STEM_LENGTH = 4
# The probability of a link is the product of what both directions say.
THRESHOLD = 0.2
# Longer sentences are mostly not sentences; the time of one grows with the cube of its length.
MAX_WORDS = 256
# Stages of a sweep over the sentences.
DIAGONAL, LEXICAL, SEQUENCE, FROZEN = 0, 1, 2, 3
# On English-French the shorter list costs 0.6 to 0.8 points of alignment error rate, on English-Czech it gains 0.2 to 0.4;
# it takes two thirds of the time. Measured with benchmarks/alignment.
EFFORTS = {
    "accurate": (DIAGONAL, LEXICAL, SEQUENCE, SEQUENCE, SEQUENCE),
    "fast": (DIAGONAL, SEQUENCE, SEQUENCE),
}
# A corpus beyond either is aligned fast unless asked otherwise.
ACCURATE_PAIRS = 250_000
ACCURATE_CELLS = 50_000_000
METHODS = ("posterior", "intersection", "union", "grow-diag-final-and")


@dataclass(frozen=True)
class AlignerOptions:
    """Options of the word aligner, as `vocabtransfer.alignment.align` explains them."""

    symmetrise: str = "posterior"
    threshold: float = THRESHOLD
    stem_length: int = STEM_LENGTH
    effort: str | None = None

    def __post_init__(self) -> None:
        if self.symmetrise not in METHODS:
            raise UsageError(f"there is no symmetrisation {self.symmetrise!r}: choose {', '.join(METHODS)}.")
        if self.effort is not None and self.effort not in EFFORTS:
            raise UsageError(f"there is no effort {self.effort!r}: choose {' or '.join(EFFORTS)}.")
        if not 0 < self.threshold < 1 or self.stem_length < 1:
            raise UsageError("the threshold must lie between 0 and 1, and the stem length must be at least 1.")

    @property
    def stages(self) -> tuple[int, ...]:
        """The sweeps over the corpus, in order."""
        return EFFORTS[self.effort or "accurate"]

    @property
    def name(self) -> str:
        """What a table says of how its links were made."""
        return self.symmetrise + (", fast" if self.effort == "fast" else "")

    def settled(self, pairs: int, cells: int) -> "AlignerOptions":
        """Return the options with an effort: where none is chosen, by the size of the corpus."""
        if self.effort is not None:
            return self
        large = pairs > ACCURATE_PAIRS or cells > ACCURATE_CELLS
        return replace(self, effort="fast" if large else "accurate")
