"""Downloads go on where they broke off, are checked, bounded and polite; the servers are small ones on the loopback."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from corpus_servers import Fault, Site, serving

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files import download as downloading
from vocabtransfer.files.download import Expected, UnreachableError, download, read_answer, read_json_answer

DATA = hashlib.sha256(b"seed").digest() * 40_000  # 1.28 MB


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited."""
    seconds: list[float] = []
    monkeypatch.setattr(downloading.time, "sleep", seconds.append)
    return seconds


def test_a_cut_connection_goes_on_where_it_was(tmp_path: Path, waits: list[float]) -> None:
    site = Site(files={"/a.zip": DATA})
    site.faults["/a.zip"] = [Fault(cut_after=300_000), Fault(cut_after=200_000)]
    with serving(site):
        path = download(f"{site.url}/a.zip", tmp_path / "a.zip")
        assert path.read_bytes() == DATA
        starts = [asked for _, asked in site.asked]
        assert starts[0] is None
        assert [int(str(asked)[6:-1]) for asked in starts[1:]] == [300_000, 500_000]
        assert download(f"{site.url}/a.zip", tmp_path / "a.zip") == path and len(site.asked) == 3
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.zip", "a.zip.part.lock"]


def test_another_version_is_begun_anew(tmp_path: Path, waits: list[float]) -> None:
    site = Site(files={"/a.zip": DATA})
    with serving(site):
        site.faults["/a.zip"] = [Fault(cut_after=300_000), *[Fault(status=503)] * 5]
        with pytest.raises(VocabTransferError, match="could not be had in 5 attempts"):
            download(f"{site.url}/a.zip", tmp_path / "a.zip")
        assert (tmp_path / "a.zip.part").stat().st_size == 300_000
        site.files["/a.zip"] = DATA[::-1]
        assert download(f"{site.url}/a.zip", tmp_path / "a.zip").read_bytes() == DATA[::-1]


def test_a_server_without_ranges_sends_everything_again(tmp_path: Path, waits: list[float]) -> None:
    site = Site(files={"/a.zip": DATA}, ranges=False)
    site.faults["/a.zip"] = [Fault(cut_after=300_000)]
    with serving(site):
        assert download(f"{site.url}/a.zip", tmp_path / "a.zip").read_bytes() == DATA


def test_a_busy_server_is_waited_for_as_long_as_it_asks(tmp_path: Path, waits: list[float]) -> None:
    site = Site(files={"/a": b"text"})
    site.faults["/a"] = [Fault(status=429, retry_after="7"), Fault(status=503), Fault(status=503)]
    with serving(site):
        assert download(f"{site.url}/a", tmp_path / "a").read_bytes() == b"text"
        assert waits[0] == 7 and waits[1] < waits[2]
        site.faults["/a"] = [Fault(status=429, retry_after="86400")]
        with pytest.raises(VocabTransferError, match="come back in 86,400 seconds"):
            download(f"{site.url}/a", tmp_path / "b")


def test_what_is_missing_too_large_or_wrong_is_said(tmp_path: Path, waits: list[float]) -> None:
    site = Site(files={"/a": DATA})
    with serving(site):
        with pytest.raises(VocabTransferError, match="the server says 404"):
            download(f"{site.url}/none", tmp_path / "none")
        with pytest.raises(VocabTransferError, match="larger than the 1 MB"):
            download(f"{site.url}/a", tmp_path / "a", Expected(most_bytes=1_000_000))
        before = len(site.asked)
        with pytest.raises(VocabTransferError, match="arrived twice with the SHA-256"):
            download(f"{site.url}/a", tmp_path / "a", Expected(sha256="0" * 64))
        assert len(site.asked) == before + 2
        with pytest.raises(VocabTransferError, match=r"arrived twice with 1,280,000 bytes instead of 7"):
            download(f"{site.url}/a", tmp_path / "a", Expected(size=7))
        right = Expected(size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
        assert download(f"{site.url}/a", tmp_path / "a", right).read_bytes() == DATA
    assert not list(tmp_path.glob("*.part")), "nothing wrong is left to be continued"


def test_nobody_there_is_told_at_once(tmp_path: Path, waits: list[float]) -> None:
    with serving(Site()) as site:
        url = site.url
    with pytest.raises(UnreachableError, match="does not answer"):
        download(f"{url}/a", tmp_path / "a")
    assert not waits


def test_one_connection_a_host(tmp_path: Path) -> None:
    site = Site(files={f"/{number}": DATA for number in range(4)})
    with serving(site):
        threads = [
            threading.Thread(target=download, args=(f"{site.url}/{number}", tmp_path / str(number)))
            for number in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert all((tmp_path / str(number)).read_bytes() == DATA for number in range(4))
    assert site.most_at_once == 1


def test_answers_are_bounded_and_must_be_json(waits: list[float]) -> None:
    site = Site(
        files={"/page": "<html>Серверда хата</html>".encode("cp1251"), "/empty": b"", "/good": b'{"corpora": []}'}
    )
    with serving(site):
        assert read_json_answer(f"{site.url}/good") == {"corpora": []}
        for path in ("page", "empty"):
            with pytest.raises(VocabTransferError, match="something else than JSON"):
                read_json_answer(f"{site.url}/{path}")
        with pytest.raises(VocabTransferError, match="that is no listing"):
            read_answer(f"{site.url}/page", most_bytes=4)


def kill_five_times(folder: Path, megabytes: int) -> None:
    """Fetch a file in processes that are killed five times on the way, then to the end."""
    data = os.urandom(1 << 20) * megabytes
    site = Site(files={"/big.zip": data}, pause=0.001)
    code = (
        "import sys; from pathlib import Path; from vocabtransfer.files.download import download; "
        "download(sys.argv[1], Path(sys.argv[2]))"
    )
    target, part = folder / "big.zip", folder / "big.zip.part"
    with serving(site):
        reached = 0
        for kill in range(1, 6):
            process = subprocess.Popen([sys.executable, "-c", code, f"{site.url}/big.zip", str(target)])
            until = time.monotonic() + 60
            while time.monotonic() < until and process.poll() is None:
                if part.exists() and part.stat().st_size >= kill * len(data) // 7:
                    process.send_signal(signal.SIGKILL)
                    break
                time.sleep(0.001)
            process.wait(60)
            assert not target.exists() and part.stat().st_size >= reached, "nothing that had arrived was thrown away"
            reached = part.stat().st_size
        subprocess.run([sys.executable, "-c", code, f"{site.url}/big.zip", str(target)], check=True, timeout=300)
        ranges = [asked for _, asked in site.asked if asked]
    assert target.read_bytes() == data
    assert len(ranges) == 5, "every process went on from what the one before had left"


@pytest.mark.slow
def test_killed_five_times_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    kill_five_times(tmp_path, 24)


@pytest.mark.slow
def test_killed_five_times_200_megabytes_end_with_the_same_bytes(tmp_path: Path) -> None:
    kill_five_times(tmp_path, 200)
