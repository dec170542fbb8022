"""What a build leaves for people to read: report.html, report.json and the model card."""

from vocabtransfer.report.facts import build_facts, to_json
from vocabtransfer.report.page import model_card, render_page

__all__ = ["build_facts", "model_card", "render_page", "to_json"]
