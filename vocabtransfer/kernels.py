"""The one way loops are compiled: by numba, without the GIL, with machine code kept on disk where a folder allows it."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core import event

from vocabtransfer.progress import say

Kernel = TypeVar("Kernel", bound=Callable[..., object])


class _Announcer(event.Listener):
    """Says, once in a process, that loops of ours are being compiled: half a minute in which nothing else is seen."""

    said = False

    def on_start(self, event: Any) -> None:
        function = getattr(event.data.get("dispatcher"), "py_func", None)
        if not self.said and str(getattr(function, "__module__", "")).startswith("vocabtransfer."):
            self.said = True
            say("Compiling loops for this processor: the first time takes up to half a minute.")

    def on_end(self, event: Any) -> None:
        """Nothing is said at the end."""


event.register("numba:compile", _Announcer())


def compiled(fastmath: bool | set[str] = False, error_model: str = "python") -> Callable[[Kernel], Kernel]:
    """Return a decorator that compiles a function.

    ``fastmath`` names the floating-point liberties LLVM may take, all of them when True: ``"contract"`` is fused
    multiply-add, ``"reassoc"`` the order of a sum, settled when compiling and the same in every call. With the
    ``error_model`` "numpy" a division by zero is infinite, not an error, and may be done for many numbers at once.
    """

    def decorate(function: Kernel) -> Kernel:
        how: dict[str, Any] = {"nogil": True, "fastmath": fastmath, "error_model": error_model}
        try:
            kernel = numba.njit(cache=True, **how)(function)
        except RuntimeError:  # numba found no folder for its cache: neither the package's own nor the user's
            kernel = numba.njit(**how)(function)
        return cast(Kernel, kernel)

    return decorate
