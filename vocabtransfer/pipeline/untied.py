"""`untie`: a model with one table for input and output gets a head of its own before its rows are made."""

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.checkpoint.tying import with_tying
from vocabtransfer.errors import UsageError
from vocabtransfer.pipeline.request import BuildRequest


def untied(source: Checkpoint, request: BuildRequest) -> tuple[Checkpoint, tuple[str, ...]]:
    """Return the source as a build is to see it, and notes: with a head of its own where that is asked for.

    Raises `UsageError` for models that do not write and for heads of a Hydra.
    """
    if not request.untie:
        return source, ()
    if request.as_head is not None:
        raise UsageError(
            "`untie` is for a checkpoint: a head of a Hydra has a table of its own where its rows need one."
        )
    if not source.generates:
        raise UsageError(f"`untie` is for models that write text, and {source.name} does not: leave it out.")
    if not source.layout.tied:
        return source, (f"{source.name} has a head of its own already.",)
    size = source.tensors[source.layout.input_name].nbytes / 1e6
    return with_tying(source, False), (
        f"The head has a table of its own now: {size:,.0f} MB for the tokens that {source.name} has. Programs that expect "
        "one table for both will refuse the model.",
    )
