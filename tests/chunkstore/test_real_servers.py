"""Images on file servers that people run: nginx, and one without ranges."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from chunkstore import Corrupt, SizedOrigin
from chunkstore.http import Client
from chunkstore.origins.http import HttpOrigin
from fixtures.faulty import FaultyServer, Status
from fixtures.inthread import in_thread
from fixtures.nginx import nginx, running_nginx
from tests.conformance.origin import BIG, FILES, OriginConformance

pytestmark = pytest.mark.real


@pytest.fixture
def image(tmp_path: Path) -> Path:
    root = tmp_path / "image"
    (root / "blobs").mkdir(parents=True)
    for name, data in FILES.items():
        (root / "blobs" / name).write_bytes(data)
    # nginx's first process may be root and its worker is not, then the image must be readable.
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    return root


@pytest.mark.skipif(nginx() is None, reason="there is no nginx")
class TestNginx(OriginConformance):
    @pytest.fixture
    def url(self, image: Path, tmp_path: Path) -> Iterator[str]:
        with running_nginx(image, tmp_path / "nginx") as url:
            yield url

    @pytest.fixture
    async def origin(self, url: str) -> AsyncIterator[SizedOrigin]:
        with Client() as client:
            yield HttpOrigin(url, client)

    @pytest.mark.logs("blob differs from before")
    async def test_a_blob_that_is_replaced_under_us_is_noticed(
        self, origin: SizedOrigin, image: Path
    ) -> None:
        into = bytearray(1000)
        await origin.read("blob-1", 0, memoryview(into), lambda _count: None)
        (image / "blobs" / "new").write_bytes(BIG[::-1] + b"more")
        (image / "blobs" / "new").rename(image / "blobs" / "blob-1")
        with pytest.raises(Corrupt, match="replaced by another file"):
            await origin.read("blob-1", 1000, memoryview(into), lambda _count: None)
        await origin.read("blob-1", 0, memoryview(into), lambda _count: None)
        assert into == BIG[::-1][:1000]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


class TestPythonsFileServer(OriginConformance):
    """It knows no ranges and closes after each answer."""

    @pytest.fixture
    async def origin(self, image: Path) -> AsyncIterator[SizedOrigin]:
        handler = partial(_Quiet, directory=str(image))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, Client() as client:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            yield HttpOrigin(f"http://127.0.0.1:{server.server_address[1]}", client)
            server.shutdown()
            thread.join()


def test_a_faulty_server_in_a_thread_serves_tests_that_do_not_await() -> None:
    server = FaultyServer({"/a": b"good"}, plan=[Status(code=503)])
    with in_thread(server) as url:
        with pytest.raises(HTTPError, match="503"):
            urlopen(f"{url}/a").close()
        with urlopen(f"{url}/a") as answer:
            assert answer.read() == b"good"
