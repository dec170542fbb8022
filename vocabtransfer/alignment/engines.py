"""Where map functions run: in this process, in several of this machine, or on a Ray cluster.

An engine only carries calls of top-level functions: it knows nothing of what they do, keeps no more of them under way
than it has workers for, and hands results back in the order of the tasks.
"""

import contextlib
import importlib
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

from vocabtransfer.errors import UsageError, VocabTransferError

T = TypeVar("T")
Task = tuple[Any, ...]
ENGINES = ("local", "ray")
# So many tasks a worker are handed over ahead of time: one to work on, one waiting.
_AHEAD = 2


class Engine(Protocol):
    """Calls functions on tasks, somewhere."""

    def map(self, function: Callable[..., T], tasks: Iterable[Task]) -> Iterator[T]:
        """Yield ``function(*task)`` of every task, in order; tasks are taken as workers become free."""
        ...


def check_engine(name: str) -> None:
    """Raise `UsageError` for an engine that there is not."""
    if name not in ENGINES:
        raise UsageError(f"there is no engine {name!r}: choose {' or '.join(ENGINES)}.")


@contextlib.contextmanager
def open_engine(name: str, processes: int) -> Iterator[Engine]:
    """Give an engine for the time of a block.

    ``"local"`` works in this process, or in ``processes`` of its own when there are several. ``"ray"`` works on the
    cluster that is connected already or that ``RAY_ADDRESS`` names, else on one of ``processes`` workers started here;
    its machines must see the work folder under the same path. Raises `UsageError` for other names and where Ray is not
    installed.
    """
    check_engine(name)
    if name == "ray":
        with _ray_cluster(processes) as engine:
            yield engine
    elif processes == 1:
        yield _InProcess()
    else:
        # A fresh interpreter for each: threads of numba and torch do not survive a fork.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_end_with_parent) as pool:
            try:
                yield _Pool(pool, processes)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _end_with_parent() -> None:
    """End this worker when the process that leads is killed: it would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def wait() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()


class _InProcess:
    def map(self, function: Callable[..., T], tasks: Iterable[Task]) -> Iterator[T]:
        for task in tasks:
            yield function(*task)


class _Pool:
    def __init__(self, pool: ProcessPoolExecutor, processes: int) -> None:
        self._pool = pool
        self._processes = processes

    def map(self, function: Callable[..., T], tasks: Iterable[Task]) -> Iterator[T]:
        try:
            submitted = (self._pool.submit(function, *task) for task in tasks)
            for future in _windowed(submitted, _AHEAD * self._processes):
                yield future.result()
        except BrokenProcessPool:
            raise VocabTransferError(
                "a worker process died, most likely for lack of memory: use fewer processes or smaller shards, "
                "and run again to continue."
            ) from None


class _Ray:
    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def map(self, function: Callable[..., T], tasks: Iterable[Task]) -> Iterator[T]:
        remote = self._ray.remote(function)
        workers = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        for reference in _windowed((remote.remote(*task) for task in tasks), _AHEAD * workers):
            try:
                result: T = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as problem:
                cause = problem.cause
                raise (cause if isinstance(cause, VocabTransferError) else problem) from None
            yield result


@contextlib.contextmanager
def _ray_cluster(processes: int) -> Iterator[Engine]:
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise UsageError("the engine ray needs Ray: pip install 'vocabtransfer[ray]'.") from None
    ours = not ray.is_initialized()
    if ours:
        local: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": processes}
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", **local)
        except (ConnectionError, RuntimeError, ValueError) as problem:
            raise VocabTransferError(f"Ray does not start: {problem}.") from None
    try:
        yield _Ray(ray)
    finally:
        if ours:
            ray.shutdown()


def _windowed(items: Iterator[T], size: int) -> Iterator[T]:
    """Yield items in order, with up to ``size`` of them begun ahead of the one that is waited for."""
    begun: deque[T] = deque()
    for item in items:
        begun.append(item)
        if len(begun) >= size:
            yield begun.popleft()
    while begun:
        yield begun.popleft()
