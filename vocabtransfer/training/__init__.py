"""Continued pre-training after a transfer: stages, exact resumption, objectives."""
