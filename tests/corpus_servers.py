"""Small servers of the same shape as the services that corpora come from, on the loopback, with faults on demand."""

import gzip
import io
import json
import threading
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Fault:
    """What goes wrong with one request: cut after so many bytes of the answer, or another status."""

    cut_after: int | None = None
    status: int | None = None
    retry_after: str | None = None


@dataclass
class Site:
    """Files by path (with an ETag made of their content), answers by path, and what was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    ranges: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/octet-stream"
    pause: float = 0.0  # seconds between pieces of 64 kB
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def serve(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        path = unquote(urlsplit(handler.path).path)
        with self.lock:
            self.asked.append((handler.path, handler.headers.get("Range")))
            fault = self.faults[path].pop(0) if self.faults[path] else Fault()
        if fault.status is not None:
            handler.send_response(fault.status)
            if fault.retry_after is not None:
                handler.send_header("Retry-After", fault.retry_after)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        answer = self.answers.get(path)
        if answer is not None:
            content = answer(parse_qs(urlsplit(handler.path).query)) if callable(answer) else answer
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
        elif path in self.files:
            data = self.files[path]
        else:
            handler.send_error(404)
            return
        self._send(handler, data, fault, body)

    def _send(self, handler: BaseHTTPRequestHandler, data: bytes, fault: Fault, body: bool) -> None:
        tag = f'"{hash(data):x}"'
        asked, start = handler.headers.get("Range"), 0
        same = handler.headers.get("If-Range") in (None, tag)
        if asked and self.ranges and same:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            end = asked.partition("-")[2]
            stop = min(int(end) + 1, len(data)) if end else len(data)
            if start >= len(data):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(data)}")
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        else:
            stop = len(data)
            handler.send_response(200)
        handler.send_header("Content-Length", str(stop - start))
        handler.send_header("ETag", tag)
        handler.send_header("Content-Type", self.content_type)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        if self.ranges:
            handler.send_header("Accept-Ranges", "bytes")
        handler.end_headers()
        if not body:
            return
        part = data[start:stop]
        if fault.cut_after is not None:
            handler.wfile.write(part[: fault.cut_after])
            handler.wfile.flush()
            handler.close_connection = True
            handler.connection.close()
            return
        for place in range(0, len(part), 1 << 16):
            handler.wfile.write(part[place : place + (1 << 16)])
            if self.pause:
                time.sleep(self.pause)


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve a site on a free port of the loopback while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def _counted(self, body: bool) -> None:
            with site.lock:
                site.at_once += 1
                site.most_at_once = max(site.most_at_once, site.at_once)
            try:
                site.serve(self, body)
            except (BrokenPipeError, ConnectionResetError, ValueError, OSError):
                self.close_connection = True
            finally:
                with site.lock:
                    site.at_once -= 1

        def do_GET(self) -> None:
            self._counted(True)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._counted(True)

        def do_HEAD(self) -> None:
            self._counted(False)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def moses_zip(name: str, sides: Mapping[str, list[str]]) -> bytes:
    """Return a zip as OPUS packs Moses pairs: a file for each side, with README and LICENSE."""
    packed = io.BytesIO()
    pair = "-".join(sides)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README", f"{name} of OPUS")
        archive.writestr("LICENSE", "see the page")
        for side, lines in sides.items():
            archive.writestr(f"{name}.{pair}.{side}", "\n".join(lines) + "\n")
    return packed.getvalue()


def opus_site(data_sets: Mapping[str, Mapping[str, list[str]]], dictionaries: Mapping[str, str] | None = None) -> Site:
    """Return a site that answers as the interface of OPUS does, and serves its files."""
    site = Site()
    for name, sides in data_sets.items():
        site.files[f"/OPUS-{name}/v1/moses/{'-'.join(sides)}.txt.zip"] = moses_zip(name, sides)
    for name, lines in (dictionaries or {}).items():
        site.files[f"/OPUS-{name}/v1/dic/en-tt.dic.gz"] = gzip.compress(lines.encode())

    def corpora(query: Mapping[str, list[str]]) -> dict[str, Any]:
        wanted = query["preprocessing"][0]
        rows = []
        for path, data in site.files.items():
            _, collection, version, preprocessing, _ = path.split("/")
            if preprocessing == wanted:
                rows.append(
                    {
                        "corpus": collection.removeprefix("OPUS-"),
                        "version": version,
                        "url": f"https://object.pouta.csc.fi{path}",
                        "size": len(data) // 1000,
                        "alignment_pairs": len(next(iter(data_sets.get(collection[5:], {"": []}).values()))) or "",
                        "preprocessing": preprocessing,
                        "source": query["source"][0],
                        "target": query["target"][0],
                    }
                )
        return {"corpora": rows}

    site.answers["/api/"] = corpora
    return site


HUB_COMMIT = "a" * 40


def hub_site(repository: str, configuration: str, parquet: bytes) -> Site:
    """Return a site that serves one data set as the hub does, with one configuration of one Parquet file."""
    site = Site(headers={"X-Repo-Commit": HUB_COMMIT})
    name = f"data/{configuration}/train/000.parquet"
    readme = (
        f"---\nconfigs:\n- config_name: {configuration}\n  data_files:\n  - split: train\n"
        f"    path: data/{configuration}/train/*.parquet\n---\n"
    ).encode()
    files = {"README.md": readme, name: parquet}
    api = f"/api/datasets/{repository}"
    facts = {"id": repository, "sha": HUB_COMMIT, "private": False, "siblings": [{"rfilename": each} for each in files]}
    folders = ["", "data", f"data/{configuration}", f"data/{configuration}/train"]
    for revision in ("main", HUB_COMMIT):
        site.answers[f"{api}/revision/{revision}"] = facts
        for each, data in files.items():
            site.files[f"/datasets/{repository}/resolve/{revision}/{each}"] = data
        for folder, below in zip(folders, [*folders[1:], None], strict=True):
            entries: list[dict[str, Any]] = []
            if below is not None:
                entries.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": below})
            else:
                entries.append({"type": "file", "oid": "1" * 40, "size": len(parquet), "path": name})
            site.answers[f"{api}/tree/{revision}" + (f"/{folder}" if folder else "")] = entries
    return site
