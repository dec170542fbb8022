"""The services that corpora come from, by name: where they are, and whether they may be asked at all.

`VOCABTRANSFER_OFFLINE=1` keeps everything from being asked, `HF_HUB_OFFLINE=1` the hub; a mirror stands in where
`VOCABTRANSFER_SERVICE_OPUS` (or `_TATOEBA`, `_HUB`) names its address.
"""

import os
import socket
import subprocess
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies

from vocabtransfer.files.network import VARIABLE, is_offline

CONNECT_SECONDS, CLIENT_SECONDS = 4.0, 20.0


@dataclass(frozen=True)
class Service:
    """A service on the web: its name, where it is, and its home page for people."""

    name: str
    address: str
    home: str

    @property
    def url(self) -> str:
        """The address, or that of the mirror that the environment names; without a slash at the end."""
        return os.environ.get(f"VOCABTRANSFER_SERVICE_{self.name.upper()}", self.address).rstrip("/")


OPUS = Service("opus", "https://opus.nlpl.eu/opusapi", "https://opus.nlpl.eu")
#: Where the files of OPUS lie; a mirror serves the same paths.
OPUS_FILES = Service("opus_files", "https://object.pouta.csc.fi", "https://opus.nlpl.eu")
TATOEBA = Service("tatoeba", "https://downloads.tatoeba.org/exports", "https://tatoeba.org")
HUB = Service("hub", os.environ.get("HF_ENDPOINT", "https://huggingface.co"), "https://huggingface.co")


def refusal(url: str) -> str:
    """Return why an address cannot be asked here and now, as a phrase; "" when somebody listens there."""
    if is_offline():
        return f"{VARIABLE} is set"
    if is_offline("HF_HUB_OFFLINE") and url == HUB.url:
        return "HF_HUB_OFFLINE is set"
    parts = urlsplit(url)
    return _knock(parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443))


@cache
def registry_refusal(registry: str) -> str:
    """Return why a package registry cannot be asked here and now; "" when somebody listens, or nobody can tell.

    Where it is, its client says; behind a proxy it is not tried.
    """
    commands = {"npm": ["npm", "config", "get", "registry"], "deb": ["apt-get", "indextargets", "--format", "$(SITE)"]}
    if registry not in commands or getproxies():
        return ""
    try:
        done = subprocess.run(
            commands[registry], stdin=subprocess.DEVNULL, capture_output=True, timeout=CLIENT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    asked = [
        line for line in done.stdout.decode("utf-8", "replace").split() if line.startswith(("http://", "https://"))
    ]
    return refusal(asked[0]) if asked else ""


@cache
def _knock(host: str, port: int) -> str:
    """Try to connect, once a process for every host."""
    try:
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS):
            return ""
    except OSError as problem:
        return f"{host} does not answer ({problem.strerror or problem})"
