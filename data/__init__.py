"""Small tables that ship with vocabtransfer (word-alignment counts in `alignments/`)."""
