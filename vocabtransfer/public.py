"""The edge of the library: what people give to its public functions is checked there, by the functions' own annotations.

A value of a wrong type is refused in one sentence that names function and parameter, before any work is done, and what
other libraries and the system raise on the way becomes a `VocabTransferError` (with the cause kept), so that callers have
one family of exceptions to catch. Exceptions of a caller's own classes, raised in what he gave, pass unchanged.
"""

import dataclasses
import functools
import inspect
import operator
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from vocabtransfer.errors import UnexpectedError, UsageError, VocabTransferError

P = ParamSpec("P")
R = TypeVar("R")

#: In an ``Annotated`` type: whoever takes such a value checks it, and says more than could be said here.
CHECKED_INSIDE = "checked inside"
#: Whole numbers are less than this: what counts anything here is held in 64 bits.
HUGE = 2**63
#: Classes that annotations name for type checkers only, because importing them there would be a circle.
ELSEWHERE = {"Language": "vocabtransfer.languages"}
#: Elements of a container that are looked at.
LOOKED_AT = 1000
#: What is raised by built-in functions and by libraries that have no family of their own.
FOREIGN = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError, OSError, EOFError)


def public(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function of the public interface that checks its arguments and raises `VocabTransferError` only."""
    signature = inspect.signature(function)
    name = function.__qualname__.replace(".__init__", "")
    positional = [p.name for p in signature.parameters.values() if p.kind <= inspect.Parameter.POSITIONAL_OR_KEYWORD]
    exact: dict[str, Any] = {}
    hints: dict[str, Any] = {}  # without the words of a Literal: most functions check these themselves and say more

    def misfit(
        wanted: Mapping[str, Any], arguments: Any, settings: Mapping[str, Any], inside: bool
    ) -> UsageError | None:
        for parameter, value in (*zip(positional, arguments, strict=False), *settings.items()):
            if not fits(value, wanted.get(parameter, Any), inside):
                return _misfit(name, parameter, wanted[parameter], value)
        return None

    @functools.wraps(function)
    def checked(*arguments: P.args, **settings: P.kwargs) -> R:
        if not hints:
            exact.update(_hints(function, signature))
            hints.update({parameter: _any_word(hint) for parameter, hint in exact.items()})
        wrong = misfit(hints, arguments, settings, inside=False)
        if wrong is not None:
            raise wrong
        try:
            return function(*arguments, **settings)
        except Exception as problem:
            known = _translated(problem, name)
            if known is problem:
                raise
            # Where the function had nothing better to say, the annotation speaks.
            raise misfit(exact, arguments, settings, inside=True) or known from problem

    return checked


def settle_fields(request: Any) -> None:
    """Check the fields of a dataclass in its ``__post_init__``; a text becomes a path where a path is wanted.

    A frozen dataclass is changed in place, which is its own affair while it is being made. Raises `UsageError` that
    names the field.
    """
    names = _Names(type(request))
    for field in dataclasses.fields(request):
        hint, value = _any_word(_resolved(field.type, names)), getattr(request, field.name)
        settled = _settled(value, hint)
        if not fits(settled, hint):
            raise _misfit(type(request).__name__, field.name, hint, value)
        if settled is not value:
            object.__setattr__(request, field.name, settled)


def fits(value: object, hint: Any, inside: bool = False) -> bool:
    """Tell whether a value is of the kind that an annotation asks for, as far as can be told without using it up.

    What is checked inside (see `CHECKED_INSIDE`) fits anyway unless ``inside`` says otherwise. An ``int`` is no
    ``bool``, a ``float`` may be an ``int``, and a text is no sequence of texts.
    """
    if hint is Any or isinstance(hint, (TypeVar, ParamSpec, str)) or hint is inspect.Parameter.empty:
        return True
    if hint is None or hint is types.NoneType:
        return value is None
    origin, inner = get_origin(hint), get_args(hint)
    if hint in (int, float, bool, complex) or origin is Literal:
        return _is_value(value, hint, inner)
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in inner)
    if origin is typing.Annotated:
        return (CHECKED_INSIDE in inner and not inside) or fits(value, inner[0])
    if origin is type:
        return isinstance(value, type)
    kind = origin or hint
    if not isinstance(kind, type):
        return callable(value) if kind is Callable else True
    if getattr(kind, "_is_protocol", False) and not getattr(kind, "_is_runtime_protocol", False):
        return all(hasattr(value, name) for name in _members(kind))
    if isinstance(value, (str, bytes)) and kind not in (str, bytes, object) and issubclass(kind, Iterable):
        return False
    if kind.__module__ == "numpy" and kind.__name__ == "ndarray" and isinstance(value, kind):
        return _has_numbers(value, inner)
    return isinstance(value, kind) and _elements_fit(value, kind, inner)


def _members(protocol: type) -> set[str]:
    """Return what a protocol asks a class to have."""
    own = {*vars(protocol).get("__annotations__", {}), *vars(protocol)}
    return {name for name in own if not name.startswith("_") or name in ("__getitem__", "__len__", "__call__")}


def _has_numbers(array: Any, inner: tuple[Any, ...]) -> bool:
    """Tell whether an array's numbers are of the kind asked for, however many bytes they have."""
    import numpy as np

    wanted = get_args(inner[1])[0] if len(inner) > 1 and get_args(inner[1]) else Any
    wanted = get_origin(wanted) or wanted
    if not isinstance(wanted, type) or not issubclass(wanted, np.generic) or wanted is np.generic:
        return True
    kinds = "b" if issubclass(wanted, np.bool_) else "iu" if issubclass(wanted, np.integer) else "fiu"
    return not issubclass(wanted, (np.bool_, np.number)) or array.dtype.kind in kinds


def _is_value(value: object, hint: Any, allowed: tuple[Any, ...]) -> bool:
    import numpy as np

    if get_origin(hint) is Literal:
        return any(type(value) is type(each) and value == each for each in allowed)
    if hint is bool:
        return isinstance(value, (bool, np.bool_))
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, int) and not -HUGE < value < HUGE):
        return False
    return isinstance(value, (int, np.integer)) or (hint is not int and isinstance(value, (float, np.floating)))


def _elements_fit(value: Any, kind: type, inner: tuple[Any, ...]) -> bool:
    if not inner or isinstance(value, Iterator) or not isinstance(value, (list, tuple, dict, set, frozenset)):
        return True
    if isinstance(value, dict):
        pairs = list(islice(value.items(), LOOKED_AT))
        keys, values = (inner[0], inner[1]) if len(inner) > 1 else (inner[0], Any)
        return all(fits(key, keys) and fits(each, values) for key, each in pairs)
    if kind is tuple and Ellipsis not in inner:
        return len(value) == len(inner) and all(map(fits, value, inner))
    return all(fits(each, inner[0]) for each in islice(value, LOOKED_AT))


def _settled(value: Any, hint: Any) -> Any:
    """Return a value as the annotation has it where only its form differs: texts and paths, one for several, lists."""
    if fits(value, hint):
        return value
    candidates: list[Any] = []
    if isinstance(value, str):
        candidates = [Path(value), (Path(value),), (value,)]
    elif isinstance(value, PathLike):
        candidates = [str(value), (value,)]
    elif isinstance(value, (list, tuple)):
        candidates = [tuple(value), tuple(Path(each) if isinstance(each, str) else each for each in value)]
    return next((each for each in candidates if fits(each, hint)), value)


def _any_word(hint: Any) -> Any:
    """Return an annotation with the types of its words in place of the words: which ones there are is said later."""
    if get_origin(hint) is Literal:
        return functools.reduce(operator.or_, {type(each) for each in get_args(hint)})
    if get_origin(hint) in (Union, types.UnionType):
        return Union[tuple(_any_word(each) for each in get_args(hint))]  # noqa: UP007 (of a computed tuple)
    return hint


class _Names(Mapping[str, Any]):
    """The names that annotations use: those of a module, of ``typing``, and of the public interface."""

    def __init__(self, owner: Any) -> None:
        self._module = vars(sys.modules[owner.__module__])

    def __getitem__(self, name: str) -> Any:
        if name in self._module:
            return self._module[name]
        try:
            return getattr(import_module(ELSEWHERE.get(name, "vocabtransfer")), name)
        except AttributeError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._module)

    def __len__(self) -> int:
        return len(self._module)


def _hints(function: Callable[..., Any], signature: inspect.Signature) -> dict[str, Any]:
    names = _Names(function)
    return {name: _resolved(parameter.annotation, names) for name, parameter in signature.parameters.items()}


def _resolved(annotation: Any, names: Mapping[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, {}, names)  # the library's own annotations
    except (NameError, TypeError, AttributeError):
        return Any  # a name that is there for type checkers only


def _misfit(function: str, parameter: str, hint: Any, value: object) -> UsageError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    shown = " ".join(shown.split())
    return UsageError(f"{function}: {parameter} has to be {_described(hint)}, not {shown} ({type(value).__name__}).")


def _described(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is None or hint is types.NoneType:
        return "None"
    if origin is Literal:
        return "one of " + ", ".join(map(repr, inner))
    if origin in (Union, types.UnionType):
        said = list(dict.fromkeys(_described(each) for each in inner))
        return " or ".join(said)
    if origin is typing.Annotated:
        return _described(inner[0])
    name = getattr(origin or hint, "__name__", str(hint))
    if origin is None or not inner or origin is Callable:
        return name
    return f"{name} of {', '.join(_described(each) for each in inner if each is not Ellipsis)}"


def _translated(problem: Exception, function: str) -> Exception:
    if isinstance(problem, VocabTransferError) or type(problem).__name__ == "OutOfMemoryError":  # torch's: no bad input
        return problem
    text = " ".join(str(problem).split()) or "no reason given"
    if isinstance(problem, OSError):
        place = f"{problem.filename}: " if problem.filename else ""
        return VocabTransferError(f"{place}{problem.strerror or text}.")
    library = type(problem).__module__.partition(".")[0] not in ("builtins", "__main__")
    if isinstance(problem, ValueError) and text == "embedded null byte":
        return VocabTransferError("a path has a NUL character in it: give another one.")
    if isinstance(problem, FOREIGN) or type(problem) is Exception or (library and _is_library(problem)):
        return UnexpectedError(
            f"{function} failed on what it was given: {type(problem).__name__}: {text} (please report it)."
        )
    return problem


def _is_library(problem: Exception) -> bool:
    """Tell whether an exception's class comes from a library that the work is done with."""
    return type(problem).__module__.partition(".")[0] in {
        *("safetensors", "tokenizers", "transformers", "huggingface_hub", "pyarrow", "lxml", "gguf", "sentencepiece"),
        *("zstandard", "lzma", "zlib", "_pickle", "pickle", "json", "csv", "_csv", "xml", "torch", "numpy", "scipy"),
    }
