"""Stopping on request: a first Ctrl-C or SIGTERM asks a run to end after its update, a second one ends it at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vocabtransfer.errors import VocabTransferError


class Interrupted(VocabTransferError):
    """Somebody asked the run to stop after an update of a stage; its state is on disk."""

    def __init__(self, update: int, stage: str, onward: str = "go on with `resume`") -> None:
        self.update, self.stage = update, stage
        super().__init__(f"Interrupted after update {update} of stage {stage}: {onward}.")


class StopSign:
    """Whether somebody asked for an end; a first Ctrl-C or SIGTERM raises the sign, a second one ends at once."""

    asked = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take over the two signals inside the block (in the main thread; elsewhere nothing happens)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def ask(number: int, frame: FrameType | None) -> None:
            self.asked = True
            for own, handler in before.items():
                signal.signal(own, handler)

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
