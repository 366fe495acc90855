"""The hub's client against a hub of our own: names, commits, listings, refusals, ranges."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chunkstore import Corrupt, Malformed, Missing, Refused
from chunkstore.checksum import Checksum, Kind
from chunkstore.http import Client, Url
from chunkstore.http.message import ignore
from chunkstore.origins.hub import Hub, HubFile, chosen
from chunkstore.origins.hubname import HubAccess, HubName
from chunkstore.origins.huborigin import HubOrigin
from fixtures.hub import HubServer, Repository, hub

DATA = random.Random(7).randbytes(200_000)
FILES = {
    "config.json": b'{"model_type": "none"}',
    "model.safetensors": DATA,
    "sub/folder/odd name+ü.txt": b"text",
    "empty": b"",
}


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub() as running:
        repository = running.repositories["org/model"] = Repository()
        repository.commit(FILES)
        yield running


Ask = Callable[..., Hub]


@pytest.fixture
def asked(server: HubServer) -> Iterator[Ask]:
    """Return what asks the hub for a name, with a token."""
    with Client() as client:

        def ask(name: str, token: str | None = None) -> Hub:
            return Hub(HubName.parse(name), HubAccess(Url.parse(server.url), token), client)

        yield ask


@pytest.mark.parametrize(
    ("text", "kind", "name", "revision"),
    [
        ("hf:org/model", "models", "org/model", "main"),
        ("hf:org/model@v1.0", "models", "org/model", "v1.0"),
        ("hf:org/model@refs/pr/3", "models", "org/model", "refs/pr/3"),
        ("hf:gpt2", "models", "gpt2", "main"),
        ("hf:datasets/org/data", "datasets", "org/data", "main"),
    ],
)
def test_names(text: str, kind: str, name: str, revision: str) -> None:
    assert HubName.parse(text) == HubName(kind, name, revision)


@pytest.mark.parametrize(
    "text",
    [
        "hf:",
        "hf:a/b/c",
        "hf:../x",
        "hf:org/..",
        "hf:org/m@",
        "hf:org/m@a b",
        "hf:o/m@../x",
        "hf:o/m?x",
    ],
)
def test_what_is_no_name_is_malformed(text: str) -> None:
    with pytest.raises(Malformed, match="hf:"):
        HubName.parse(text)


def test_the_token_is_found_where_the_hubs_own_tools_put_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_file\n")
    here = {"HF_HOME": str(tmp_path)}
    assert HubAccess.of(here).token == "hf_file"
    assert HubAccess.of(here | {"HF_TOKEN": "hf_set"}).token == "hf_set"
    assert HubAccess.of({"HF_TOKEN_PATH": str(tmp_path / "token")}).token == "hf_file"
    assert HubAccess.of({"HF_HOME": str(tmp_path / "none")}).token is None
    assert str(HubAccess.of(here).endpoint) == "https://huggingface.co/"
    assert "hf_file" not in repr(HubAccess.of(here))


async def test_a_revision_becomes_a_commit_with_its_files(server: HubServer, asked: Ask) -> None:
    found = asked("hf:org/model")
    commit = await found.commit()
    assert commit == server.repositories["org/model"].branches["main"]
    listing = await found.listing(commit)
    assert [file.path for file in listing] == sorted(FILES)
    by_path = {file.path: file for file in listing}
    digest = hashlib.sha256(DATA).digest()
    assert by_path["model.safetensors"].checksum == Checksum(Kind.SHA256, digest)
    assert by_path["config.json"].checksum.kind is Kind.GIT
    assert all(by_path[path].checksum.matches(data) for path, data in FILES.items())
    assert not by_path["config.json"].checksum.matches(b"other")


async def test_a_listing_of_many_pages_is_one_listing(server: HubServer, asked: Ask) -> None:
    server.page_size = 2
    found = asked("hf:org/model")
    assert len(await found.listing(await found.commit())) == len(FILES)


async def test_ranges_come_from_the_store_after_one_redirect(server: HubServer, asked: Ask) -> None:
    found = asked("hf:org/model", "hf_secret")
    origin = HubOrigin(found, await found.commit())
    for start in range(0, len(DATA), 50_000):
        into = bytearray(50_000)
        await origin.read("model.safetensors", start, memoryview(into), ignore)
        assert into == DATA[start : start + 50_000]
    assert await origin.size("model.safetensors") == len(DATA)
    assert server.sent["redirect model.safetensors"] == 1
    assert {a.authorization for a in server.of_host("127.0.0.1")} == {"Bearer hf_secret"}
    assert {a.authorization for a in server.of_host("localhost")} == {""}


async def test_a_signed_url_that_ran_out_is_asked_for_again(server: HubServer, asked: Ask) -> None:
    server.uses = 2
    found = asked("hf:org/model")
    origin = HubOrigin(found, await found.commit())
    into = bytearray(1000)
    for start in range(0, 6000, 1000):
        await origin.read("model.safetensors", start, memoryview(into), ignore)
        assert into == DATA[start : start + 1000]
    assert server.sent["redirect model.safetensors"] == 3


async def test_small_files_come_from_the_hub_itself(server: HubServer, asked: Ask) -> None:
    found = asked("hf:org/model")
    origin = HubOrigin(found, await found.commit())
    into = bytearray(4)
    await origin.read("sub/folder/odd name+ü.txt", 0, memoryview(into), ignore)
    assert into == b"text"


async def test_a_revision_that_is_not_there_is_missing(server: HubServer, asked: Ask) -> None:
    with pytest.raises(Missing, match="hf:org/model: no revision v9"):
        await asked("hf:org/model@v9").commit()


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (None, "hf:org/none: no such repository, or one that needs a token"),
        ("hf_x", "hf:org/none: no such repository, or not for this token"),
    ],
)
async def test_a_repository_that_is_not_there_is_missing(
    server: HubServer, asked: Ask, token: str | None, why: str
) -> None:
    with pytest.raises(Missing, match=why):
        await asked("hf:org/none", token).commit()


async def test_a_private_repository_needs_its_token(server: HubServer, asked: Ask) -> None:
    server.repositories["org/model"].token = "hf_right"
    with pytest.raises(Missing, match="needs a token"):
        await asked("hf:org/model").commit()
    with pytest.raises(Missing, match="not for this token"):
        await asked("hf:org/model", "hf_wrong").commit()
    await asked("hf:org/model", "hf_right").commit()


async def test_a_gated_repository_says_where_to_ask(server: HubServer, asked: Ask) -> None:
    server.repositories["org/model"].gated = True
    found = asked("hf:org/model", "hf_x")
    origin = HubOrigin(found, await found.commit())
    with pytest.raises(Refused, match=r"gated: its token has no access.*/org/model"):
        await origin.read("config.json", 0, memoryview(bytearray(4)), ignore)


@pytest.mark.parametrize(
    "files", [{"a": b"", "a/b": b""}, {"../x": b""}, {"a//b": b""}, {"a\0b": b""}, {"x" * 256: b""}]
)
async def test_a_listing_of_impossible_paths_is_refused(
    server: HubServer, asked: Ask, files: dict[str, bytes]
) -> None:
    server.repositories["org/model"].commit(files)
    found = asked("hf:org/model")
    with pytest.raises(Corrupt, match="hf:org/model"):
        await found.listing(await found.commit())


def test_patterns_choose_as_the_hubs_own_tools_do() -> None:
    checksum = Checksum(Kind.GIT, bytes(20))
    paths = ["a.json", "b.bin", "sub/c.json", "sub/d.bin"]
    files = [HubFile(path, 1, checksum) for path in paths]

    def names(allow: list[str], ignore: list[str]) -> list[str]:
        return [file.path for file in chosen(files, allow, ignore)]

    assert names([], []) == paths
    assert names(["*.json"], []) == ["a.json", "sub/c.json"]
    assert names(["sub/"], ["*.bin"]) == ["sub/c.json"]
    assert names([], ["sub/*"]) == ["a.json", "b.bin"]
