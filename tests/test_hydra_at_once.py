"""Two processes that give one name to a head at once, in any case of letters: one of them is refused."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra_samples import make_sample, one_thread  # noqa: F401

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.staging import staged_folder
from vocabtransfer.hydra import open_hydra, remove_head, rename_head, verify_head

ROUNDS = 6
# Each adds a head with its own spelling of the name when the parent's file of the round appears.
WORK = """
import sys, time
from pathlib import Path
from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.hydra import add_head_from_checkpoint
hydra, source, place, name, rounds = *map(Path, sys.argv[1:4]), sys.argv[4], int(sys.argv[5])
checkpoint = open_checkpoint(source)
for number in range(rounds):
    (place / f"{name}-ready-{number}").touch()
    while not (place / f"go-{number}").exists():
        pass
    try:
        add_head_from_checkpoint(hydra, name, checkpoint)
        said = "done"
    except VocabTransferError as problem:
        said = str(problem)
    (place / f"{name}-new").write_text(said)
    (place / f"{name}-new").rename(place / f"{name}-said-{number}")
"""


def wait_for(*paths: Path) -> None:
    end = time.monotonic() + 120
    while not all(path.exists() for path in paths):
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("names", [("frisian", "FRISIAN"), ("frisian", "frisian")])
def test_one_of_two_who_add_the_same_name_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    made = make_sample(tmp_path)
    before = open_hydra(made.hydra).names()
    places = [tmp_path / f"place{i}" for i in range(2)]
    workers = []
    for place, name in zip(places, names, strict=True):
        place.mkdir()
        words = [str(made.hydra), str(made.standalone["tatar"]), str(place), name, str(ROUNDS)]
        workers.append(subprocess.Popen([sys.executable, "-c", WORK, *words]))
    try:
        for number in range(ROUNDS):
            wait_for(*(place / f"{name}-ready-{number}" for place, name in zip(places, names, strict=True)))
            for place in places:
                (place / f"go-{number}").touch()
            answers = [place / f"{name}-said-{number}" for place, name in zip(places, names, strict=True)]
            wait_for(*answers)
            said = [answer.read_text() for answer in answers]
            assert said.count("done") == 1
            refusal = next(text for text in said if text != "done")
            assert "already has a head named" in refusal or "is being written by another process" in refusal
            (new,) = set(open_hydra(made.hydra).names()) - set(before)
            assert new == names[said.index("done")] or names[0] == names[1]
            verify_head(made.hydra, new)
            remove_head(made.hydra, new)
            assert not list((made.hydra / "heads").glob(".*"))
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def test_a_name_that_another_process_is_writing_is_not_given_by_renaming(tmp_path: Path) -> None:
    made = make_sample(tmp_path)
    with staged_folder(made.hydra / "heads" / "frisian") as staging:
        (staging / "x").touch()
        for name in ("tatar", "english"):
            with pytest.raises(VocabTransferError, match="is being written by another process"):
                rename_head(made.hydra, name, "Frisian")
        rename_head(made.hydra, "tatar", "volga")
    assert "volga" in open_hydra(made.hydra).names()
