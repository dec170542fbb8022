"""What can be chosen about word alignment, checked in one place."""

from dataclasses import dataclass

from vocabtransfer.errors import UsageError

# What words with the same first letters have in common is learnt once: most of it is one word with other endings.
STEM_LENGTH = 4
# The probability of a link is the product of what both directions say.
THRESHOLD = 0.2
# Longer sentences are mostly not sentences; the time of one grows with the cube of its length.
MAX_WORDS = 256
METHODS = ("posterior", "intersection", "union", "grow-diag-final-and")


@dataclass(frozen=True)
class AlignerOptions:
    """Options of the word aligner, as `vocabtransfer.alignment.align` explains them."""

    symmetrise: str = "posterior"
    threshold: float = THRESHOLD
    stem_length: int = STEM_LENGTH

    def __post_init__(self) -> None:
        if self.symmetrise not in METHODS:
            raise UsageError(f"there is no symmetrisation {self.symmetrise!r}: choose {', '.join(METHODS)}.")
        if not 0 < self.threshold < 1 or self.stem_length < 1:
            raise UsageError("the threshold must lie between 0 and 1, and the stem length must be at least 1.")
