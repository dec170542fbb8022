"""A fetch that is killed again and again ends with the same bytes as one that was not."""

import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from corpus_servers import Site, hub_site, opus_site, serving

pytestmark = pytest.mark.slow  # twelve processes each, which load the language model

ENGLISH = [f"The book number {number} lies on the table of the school." for number in range(40)]
TATAR = [f"Китап мәктәп өстәлендә ята, аның саны {number} булыр, {'бик ' * (number % 9)}шулай." for number in range(40)]
CODE = "import sys; from vocabtransfer_cli.main import run; sys.argv[0] = 'vocabtransfer'; sys.exit(run())"


def large_opus(megabytes: int) -> Site:
    """Return a pretend OPUS with one data set whose zip has so many megabytes that cannot be packed."""
    site = opus_site({"GNOME": {"en": ENGLISH, "tt": TATAR}})
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("README", os.urandom(1 << 20) * megabytes)
        archive.writestr("GNOME.en-tt.en", "\n".join(ENGLISH) + "\n")
        archive.writestr("GNOME.en-tt.tt", "\n".join(TATAR) + "\n")
    site.files = {"/OPUS-GNOME/v1/moses/en-tt.txt.zip": packed.getvalue()}
    site.pause = 0.001
    return site


def large_hub(megabytes: int) -> Site:
    """Return a pretend hub with FineWeb-2 in Tatar: documents of 20 kB, each with one line that is kept."""
    import pyarrow
    from pyarrow import parquet

    packed = io.BytesIO()
    noise = "Бу юл бик озын һәм шуңа күрә алынмый кала. " * 260
    documents = [
        f"{TATAR[n % 40]} Документ {'шул ' * (n % 53)}{'бу ' * (n // 53)}\n{noise}" for n in range(50 * megabytes)
    ]
    table = pyarrow.table({"text": documents})
    parquet.write_table(table, packed, compression="none", use_dictionary=False, row_group_size=100)
    site = hub_site("HuggingFaceFW/fineweb-2", "tat_Cyrl", packed.getvalue())
    site.pause = 0.001
    return site


def fetch(name: str, output: Path, cache: Path, site: Site) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "VOCABTRANSFER_CACHE": str(cache),
        "VOCABTRANSFER_SERVICE_OPUS": f"{site.url}/api",
        "VOCABTRANSFER_SERVICE_OPUS_FILES": site.url,
        "HF_ENDPOINT": site.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(cache / "hf"),
    }
    environment.pop("VOCABTRANSFER_OFFLINE", None)
    words = ["corpus", "fetch", "tatar", "--from", name, "--output", str(output), "--json"]
    command = [sys.executable, "-c", CODE, *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def kill_five_times(folder: Path, name: str, site: Site, growing: str, whole: int) -> None:
    """Kill a fetch whenever the file that grows in its cache has another seventh; then compare with one left alone."""
    cache, killed, calm = folder / "cache", folder / "killed", folder / "calm"
    with serving(site):
        reached = kills = 0
        for kill in range(1, 6):
            process = fetch(name, killed, cache, site)
            until = time.monotonic() + 240
            while time.monotonic() < until and process.poll() is None:
                there = max((path.stat().st_size for path in cache.rglob(growing)), default=0)
                if there >= kill * whole // 7:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                    break
                time.sleep(0.002)
            process.communicate()
            there = max((path.stat().st_size for path in cache.rglob(growing)), default=0)
            assert there >= reached, "nothing that had arrived was thrown away"
            assert not killed.exists(), "there is no folder before all is in it"
            reached = there
        assert kills == 5
        for output, place in ((killed, cache), (calm, folder / "other")):
            process = fetch(name, output, place, site)
            _, said = process.communicate()
            assert process.returncode == 0, said
    files = {path.name: path.read_bytes() for path in calm.iterdir()}
    assert {path.name: path.read_bytes() for path in killed.iterdir()} == files
    assert {"corpus.json", "corpus.html"} < set(files)


@pytest.mark.parametrize("megabytes", [12, 200])
def test_a_killed_fetch_from_opus_ends_with_the_same_bytes(tmp_path: Path, megabytes: int) -> None:
    kill_five_times(tmp_path, "opus", large_opus(megabytes), "*.zip.part", megabytes << 20)


@pytest.mark.parametrize("megabytes", [12, 200])
def test_a_killed_stream_from_the_hub_ends_with_the_same_bytes(tmp_path: Path, megabytes: int) -> None:
    pytest.importorskip("datasets")
    # What is streamed is kept with its Cyrillic letters escaped, six bytes for two.
    kill_five_times(tmp_path, "hub:fineweb-2", large_hub(megabytes), "*fineweb-2*.jsonl", 2 * megabytes << 20)
