"""Files out of the web, politely: resumed where they broke off, checked, bounded, and one connection a host at a time.

What has arrived lies beside its place as ``NAME.part`` with a note of which version it is, so a download that was cut
off or killed goes on where it was, and only a whole, checked file gets the name that was asked for.
"""

import contextlib
import email.utils
import errno
import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.progress import count_bytes
from vocabtransfer.version import __version__

CHUNK = 1 << 18
#: Seconds without a byte before a connection counts as dead.
PATIENCE = 30.0
#: Attempts in a row that brought nothing new; an attempt that brought bytes starts the count again.
ATTEMPTS = 5
#: Longest wait that a server may ask for (Retry-After), and the first wait of our own, doubled each time; in seconds.
LONGEST_WAIT, FIRST_WAIT = 120.0, 1.0
#: An answer that is read into memory (a listing) may be so large.
MOST_ANSWER = 64 << 20

_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_BROKEN = (http.client.HTTPException, OSError)
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG}
_hosts: dict[str, Lock] = defaultdict(Lock)


class UnreachableError(VocabTransferError):
    """The server does not answer at all: no network, a wrong name, or nobody listens there."""


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it comes: its size in bytes, its SHA-256 in hexadecimal, and the most it may hold."""

    size: int | None = None
    sha256: str | None = None
    most_bytes: int = 2 << 30


def download(url: str, target: Path, expected: Expected = Expected()) -> Path:
    """Fetch ``url`` into the file ``target`` unless it is there, and return it.

    A partial file of the same version (ETag, else Last-Modified) is continued with Range; any other is begun anew. A
    broken connection, a busy server (429, 5xx) and a hash that does not fit are tried again, with waits that double or
    that the server names. Two processes after one file take turns.

    Raises `UnreachableError` when nobody answers and `VocabTransferError` when the server refuses, when the file is
    larger than ``expected.most_bytes``, and when size or hash are wrong in the end.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with alone(part.with_name(part.name + ".lock")), _hosts[urlsplit(url).netloc]:
        if target.exists():
            return target
        wrong = 0
        while True:
            _complete(url, part, expected)
            problem = _check(part, expected)
            if not problem:
                break
            wrong += 1
            _forget(part)
            if wrong == 2:
                raise VocabTransferError(f"{url} arrived twice with {problem}: it was changed, or is damaged there.")
        part.replace(target)
        _forget(part)
    return target


def read_answer(url: str, most_bytes: int = MOST_ANSWER) -> bytes:
    """Return the whole answer to a small request, such as a listing; the errors and retries are those of `download`."""
    with _hosts[urlsplit(url).netloc]:
        for attempt in _attempts(url):
            with attempt, _open(url, {}) as answer:
                data: bytes = answer.read(most_bytes + 1)
                if len(data) > most_bytes:
                    raise VocabTransferError(
                        f"{url} answers with more than {most_bytes / 1e6:,.0f} MB: that is no listing."
                    )
                length = answer.headers.get("Content-Length")
                if length and length.isdigit() and len(data) < int(length):
                    raise ConnectionError("the answer broke off")
                return data
    raise AssertionError("the attempts end with an error")


def read_json_answer(url: str) -> Any:
    """Return what a service answers, which must be JSON in UTF-8; `VocabTransferError` naming the address otherwise."""
    data = read_answer(url)
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (UnicodeDecodeError, ValueError):
        raise VocabTransferError(
            f"{url} answers with something else than JSON in UTF-8 ({data[:40]!r}): the service has changed."
        ) from None


def _complete(url: str, part: Path, expected: Expected) -> None:
    """Bring the partial file to its end."""
    for attempt in _attempts(url):
        before = _size(part)
        with attempt:
            _continue(url, part, expected)
            return
        attempt.progressed = _size(part) > before


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _continue(url: str, part: Path, expected: Expected) -> None:
    have, version = _size(part), _version(part)
    if have and (version is None or (expected.size is not None and have > expected.size)):
        _forget(part)
        have = 0
    if have and have == expected.size:
        return
    headers = {"Range": f"bytes={have}-", "If-Range": version} if have and version else {}
    try:
        answer = _open(url, headers)
    except urllib.error.HTTPError as problem:
        if problem.code == 416 and have:  # nothing is left to send, or the file is another one now
            whole = problem.headers.get("Content-Range", "").rpartition("/")[2]
            if whole == str(have):
                return
            _forget(part)
            raise ConnectionError("the file changed meanwhile") from None
        raise
    with answer:
        resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if have and not resumed:
            have = 0
        left = answer.headers.get("Content-Length")
        total = have + int(left) if left and left.isdigit() else None
        _check_bound(url, total or 0, expected)
        note = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        _note(part).write_text(json.dumps({"url": url, "version": note}), encoding="utf-8")
        name = Path(urlsplit(url).path).name or url
        with part.open("ab" if have else "wb") as out, count_bytes(f"downloading {name}", total, have) as advance:
            while chunk := answer.read(CHUNK):
                out.write(chunk)
                have += len(chunk)
                advance(len(chunk))
                _check_bound(url, have, expected)
            out.flush()
            os.fsync(out.fileno())
        if total is not None and have < total:
            raise ConnectionError(f"the connection broke off after {have:,} of {total:,} bytes")


def _open(url: str, headers: Mapping[str, str]) -> Any:
    request = urllib.request.Request(
        url,
        # A compressed transfer could not be continued in the middle.
        headers={"User-Agent": f"vocabtransfer/{__version__}", "Accept-Encoding": "identity", **headers},
    )
    return urllib.request.urlopen(request, timeout=PATIENCE)


class _Attempt:
    """One try; used as a context it keeps what went wrong if trying again may help."""

    def __init__(self) -> None:
        self.problem: BaseException | None = None
        self.progressed = False

    def __enter__(self) -> None:
        self.problem = None

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: object) -> bool:
        self.problem = problem
        if isinstance(problem, urllib.error.HTTPError):
            return True
        return isinstance(problem, _BROKEN) and getattr(problem, "errno", None) not in _DISK


def _attempts(url: str) -> Iterator[_Attempt]:
    """Yield attempts until one succeeds (the caller leaves the loop) or there is no sense in another."""
    wait, fruitless = FIRST_WAIT, 0
    while True:
        attempt = _Attempt()
        yield attempt
        problem = attempt.problem
        assert problem is not None, "a successful attempt leaves the loop"
        fruitless = 0 if attempt.progressed else fruitless + 1
        if fruitless == 0:
            wait = FIRST_WAIT
        asked = None
        if isinstance(problem, urllib.error.HTTPError):
            if problem.code not in _TRY_AGAIN:
                raise VocabTransferError(f"{url} cannot be had: the server says {problem.code} {problem.reason}.")
            asked = _retry_after(problem.headers.get("Retry-After"))
            if asked is not None and asked > LONGEST_WAIT:
                raise VocabTransferError(f"{url}: the server asks to come back in {asked:,.0f} seconds: do so.")
        elif _refused(problem):
            raise UnreachableError(f"{urlsplit(url).netloc} does not answer ({_reason(problem)}); wanted was {url}.")
        if fruitless >= ATTEMPTS:
            raise VocabTransferError(f"{url} could not be had in {ATTEMPTS} attempts ({_reason(problem)}): try later.")
        time.sleep(wait if asked is None else asked)
        wait = min(2 * wait, LONGEST_WAIT)


def _refused(problem: BaseException) -> bool:
    """Tell whether nobody is there, which waiting does not change."""
    return isinstance(problem, urllib.error.URLError) and not isinstance(problem.reason, TimeoutError)


def _retry_after(text: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which holds seconds or a date."""
    if not text:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def _reason(problem: BaseException) -> str:
    reason = getattr(problem, "reason", None) or problem
    return str(getattr(reason, "strerror", None) or reason or type(problem).__name__).rstrip(".")


def _check_bound(url: str, size: int, expected: Expected) -> None:
    if size > expected.most_bytes:
        raise VocabTransferError(
            f"{url} is larger than the {expected.most_bytes / 1e6:,.0f} MB it may be: not fetched."
        )


def _check(part: Path, expected: Expected) -> str:
    """Return what is wrong with a file that has arrived, "" when nothing is."""
    size = part.stat().st_size
    if expected.size is not None and size != expected.size:
        return f"{size:,} bytes instead of {expected.size:,}"
    if expected.sha256 is not None:
        with part.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != expected.sha256.lower():
            return f"the SHA-256 {found[:12]}… instead of {expected.sha256[:12]}…"
    return ""


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _version(part: Path) -> str | None:
    """Return which version of the file a partial one belongs to; None where nobody knows."""
    try:
        version = json.loads(_note(part).read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, str) and not version.startswith("W/") else None


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Let one process at a time work on a file that is not whole yet, where the system has locks."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
