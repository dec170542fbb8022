"""Parallel text, models and tokenizers out of package registries, and the command that rebuilds the shipped tables."""
