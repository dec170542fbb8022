"""The command line, called as a person calls it but in this process."""

import pytest


def command(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Return the exit status of a command, and what it wrote on standard output and on standard error."""
    from vocabtransfer_cli.main import run

    with pytest.raises(SystemExit) as stop:
        run([str(word) for word in words])
        raise SystemExit(0)
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err
