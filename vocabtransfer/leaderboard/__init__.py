"""Initialisers compared on the same text: at once, and after short trainings."""
