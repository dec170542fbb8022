"""`vocabtransfer inspect`: why a row is what it is."""

from pathlib import Path

import typer

from .output import JSON_OPTION, print_json, print_table

#: Weights below this round to nothing and are not shown; --json has them all.
SMALLEST_SHOWN = 0.0005


def inspect(
    checkpoint: Path = typer.Argument(..., help="A folder that vocabtransfer built."),
    tokens: list[str] = typer.Argument(None, help="Words or pieces; without any, the whole map is summed up."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Show which source tokens, with which weights, rule and evidence, made the row of a token.

    Example: `vocabtransfer inspect build/smollm2-tatar китап`
    """
    from vocabtransfer.surgery.opened_map import inspect as open_built

    opened = open_built(checkpoint)
    if not tokens:
        facts = {"rows": opened.token_map.n_target, "rows_by_rule": opened.token_map.counts_by_rule()}
        if as_json:
            print_json(facts)
        else:
            rows = [(rule, f"{count:,}") for rule, count in opened.token_map.counts_by_rule().items()]
            print_table(f"{checkpoint}: {opened.token_map.n_target:,} rows", rows)
        return
    explained = {word: opened.explain_word(word) for word in tokens}
    if as_json:
        print_json({"words": {word: [vars(piece) for piece in pieces] for word, pieces in explained.items()}})
        return
    for word, pieces in explained.items():
        for piece in pieces:
            made_from = ", ".join(
                f"{name!r} {weight:.3f}" for name, weight in piece.sources[:10] if abs(weight) >= SMALLEST_SHOWN
            )
            rows = [("rule", piece.rule), ("evidence", f"{piece.evidence:,.1f}"), ("made from", made_from or "nothing")]
            name = f"{piece.text!r}" if piece.text.strip() == word else f"{piece.text!r} (a piece of {word!r})"
            print_table(f"{name}, id {piece.id}", rows)
