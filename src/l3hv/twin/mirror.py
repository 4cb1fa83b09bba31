"""The Debian mirror of a bare twin, the only service outside of the twin that its machines reach.

It listens on the management bridge and fetches from the host's own mirrors.  The roles can thus
install packages without a route out of the twin.  The mirror caches files that never change,
packages and index files with their digest in their name, and fetches all others each time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import urllib.error
import urllib.request
from collections import defaultdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from l3hv.twin import TwinError, daemon, image, network
from l3hv.twin.state import HOST_NUMBER, MANAGEMENT, Twin

PORT = 3142
ADDRESS = f"http://{MANAGEMENT[HOST_NUMBER]}:{PORT}"
CACHE = image.CACHE / "packages"
FETCH_SECONDS = 60


def sources(suite: str) -> str:
    """Return the sources.list of a machine of a bare twin."""
    return image.sources_list(suite, mirror=f"{ADDRESS}/debian", security=f"{ADDRESS}/debian-security")


def ensure_mirror(twin: Twin) -> None:
    """Start the twin's mirror unless it runs."""
    directory = _directory(twin)
    if daemon.pid(directory) is None:
        daemon.start(directory, lambda: _serve(twin))


def end_mirror(twin: Twin) -> None:
    daemon.end(_directory(twin))


def _directory(twin: Twin) -> Path:
    return twin.directory / "mirror"


def _serve(twin: Twin) -> None:
    upstream = {archive: image.debian_mirror(archive) for archive in ("debian", "debian-security")}
    os.environ.update(image.proxy_variables())
    locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    class Handler(BaseHTTPRequestHandler):
        """Answers apt: GET of a file of one of the upstream mirrors."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            top, _, rest = self.path.lstrip("/").partition("/")
            if top not in upstream or ".." in rest.split("/"):
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            try:
                with locks[self.path]:  # Machines request the same file at the same time.
                    path = _fetched(upstream[top], top, rest)
            except urllib.error.HTTPError as error:
                self.send_error(error.code)
                return
            except OSError as error:
                self.log_error("%s: %s", self.path, error)
                self.send_error(HTTPStatus.BAD_GATEWAY)
                return
            with path.open("rb") as file:
                if not _is_constant(rest):
                    path.unlink()
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Length", str(os.fstat(file.fileno()).st_size))
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    shutil.copyfileobj(file, self.wfile)

    with network.entered(twin.management_namespace):
        server = ThreadingHTTPServer((str(MANAGEMENT[HOST_NUMBER]), PORT), Handler)
    server.daemon_threads = True
    server.serve_forever()


def _is_constant(name: str) -> bool:
    """Return whether a file of a mirror never changes under its name."""
    return name.endswith(".deb") or "/by-hash/" in name


def _fetched(upstream: str, top: str, name: str) -> Path:
    """Fetch a file of a mirror to the local disk; the caller removes it unless it is constant."""
    cached = CACHE / top / name
    if _is_constant(name) and cached.exists():
        return cached
    CACHE.mkdir(parents=True, exist_ok=True)
    with (
        urllib.request.urlopen(f"{upstream}/{name}", timeout=FETCH_SECONDS) as answer,
        tempfile.NamedTemporaryFile(dir=CACHE, prefix=".fetching-", delete=False) as file,
    ):
        path = Path(file.name)
        try:
            shutil.copyfileobj(answer, file)
            expected = answer.headers.get("Content-Length")
            if expected is not None and file.tell() != int(expected):
                raise OSError(f"{name} is incomplete")
        except OSError:
            path.unlink()
            raise
    if _is_constant(name):
        cached.parent.mkdir(parents=True, exist_ok=True)
        path.replace(cached)
        return cached
    return path


def check(twin: Twin) -> None:
    """Raise the error of the mirror, if it failed."""
    failure = _directory(twin) / "failure"
    if failure.exists():
        raise TwinError(f"the mirror of the twin failed: {failure.read_text().strip()}")
