"""The one way loops are compiled: by numba, without the GIL, with machine code kept on disk where a folder allows it."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., object])


def compiled(fastmath: bool | set[str] = False) -> Callable[[Kernel], Kernel]:
    """Return a decorator that compiles a function.

    ``fastmath`` names the floating-point liberties LLVM may take, all of them when True: ``"contract"`` is fused
    multiply-add, ``"reassoc"`` the order of a sum, settled when compiling and the same in every call.
    """

    def decorate(function: Kernel) -> Kernel:
        try:
            kernel = numba.njit(cache=True, nogil=True, fastmath=fastmath)(function)
        except RuntimeError:  # numba found no folder for its cache: neither the package's own nor the user's
            kernel = numba.njit(nogil=True, fastmath=fastmath)(function)
        return cast(Kernel, kernel)

    return decorate
