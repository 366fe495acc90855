"""Where a registry's password is looked for, and that nothing shows it."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from pathlib import Path

import pytest

from chunkstore import Malformed
from chunkstore.origins.credentials import Credential, Credentials

HOST = "registry.example:5000"


def auth(text: str) -> str:
    return b64encode(text.encode()).decode()


def written(folder: Path, config: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


CONFIGS: list[tuple[object, Credential | None]] = [
    ({}, None),
    ({"auths": {}}, None),
    ({"auths": {HOST: {"auth": auth("me:p:w")}}}, Credential("me", "p:w")),
    ({"auths": {f"https://{HOST}/v1/": {"auth": auth("me:pw")}}}, Credential("me", "pw")),
    ({"auths": {HOST: {"username": "me", "password": "pw"}}}, Credential("me", "pw")),
    ({"auths": {"registry.example": {"auth": auth("me:pw")}}}, None),
    ({"auths": {"other.example": {"auth": auth("me:pw")}}}, None),
    ({"auths": {HOST: {}}}, None),
    ({"auths": {HOST: {"auth": ""}}, "HttpHeaders": {"a": "b"}}, None),
    (
        {"auths": {HOST: {"auth": auth("me:"), "identitytoken": "it"}}},
        Credential("me", "it", is_identity=True),
    ),
]

DOCKER = {"auths": {HOST: {"auth": auth("me:pw")}}}
OLD = {HOST: {"auth": auth("me:pw"), "email": "me@example"}, "other": {"auth": ""}}

CONFIGS += [
    (OLD, Credential("me", "pw")),
    *(
        ({"kind": "Secret", "data": {key: auth(json.dumps(value))}}, Credential("me", "pw"))
        for key, value in ((".dockerconfigjson", DOCKER), (".dockercfg", OLD))
    ),
    ({"kind": "Secret", "data": {"password": auth("hush")}}, None),
]


@pytest.mark.parametrize(("config", "expected"), CONFIGS)
async def test_a_docker_config_knows(
    tmp_path: Path, config: object, expected: Credential | None
) -> None:
    assert await Credentials([written(tmp_path, config)]).find(HOST) == expected


async def test_a_kubernetes_secret_is_found_as_it_is_mounted(tmp_path: Path) -> None:
    (tmp_path / ".dockerconfigjson").write_text(json.dumps(DOCKER))
    assert await Credentials([tmp_path]).find(HOST) == Credential("me", "pw")


@pytest.mark.parametrize("kept", ["no base64", auth("no json")])
async def test_a_kubernetes_secret_that_cannot_be_read_is_malformed(
    tmp_path: Path, kept: str
) -> None:
    path = written(tmp_path, {"kind": "Secret", "data": {".dockerconfigjson": kept}})
    with pytest.raises(Malformed, match="not a Docker config"):
        await Credentials([path]).find(HOST)


async def test_docker_hub_is_kept_under_its_old_name(tmp_path: Path) -> None:
    path = written(tmp_path, {"auths": {"https://index.docker.io/v1/": {"auth": auth("me:pw")}}})
    assert await Credentials([path]).find("docker.io") == Credential("me", "pw")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        '"secret"',
        '{"auths":{"h":"secret"}}',
        json.dumps({"auths": {HOST: {"auth": "secret!"}}}),
    ],
)
async def test_a_config_that_cannot_be_read_is_malformed_and_not_quoted(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(Malformed) as caught:
        await Credentials([tmp_path / "config.json"]).find(HOST)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_the_environment_goes_first_and_may_name_its_host(tmp_path: Path) -> None:
    path = written(tmp_path, {"auths": {HOST: {"auth": auth("file:pw")}}})
    environment = {"NAIAD_REGISTRY_USER": "env", "NAIAD_REGISTRY_PASSWORD": "pw"}
    assert await Credentials([path], environment).find(HOST) == Credential("env", "pw")
    environment["NAIAD_REGISTRY_HOST"] = "other.example"
    assert await Credentials([path], environment).find(HOST) == Credential("file", "pw")
    assert await Credentials([path], environment).find("other.example") == Credential("env", "pw")


async def test_the_places_are_dockers_and_podmans(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / "run" / "containers").mkdir(parents=True)
    written(tmp_path / ".docker", {"auths": {"a.example": {"auth": auth("docker:pw")}}})
    (tmp_path / "run" / "containers" / "auth.json").write_text(
        json.dumps({"auths": {"b.example": {"auth": auth("podman:pw")}}})
    )
    found = Credentials.of({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})
    assert await found.find("a.example") == Credential("docker", "pw")
    assert await found.find("b.example") == Credential("podman", "pw")
    nowhere = Credentials.of({"HOME": str(tmp_path / "nobody")})
    assert await nowhere.find("a.example") is None


def helper(folder: Path, name: str, script: str) -> dict[str, str]:
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.defpath}"}


ANSWERS = [
    ('read key; echo "{\\"Username\\":\\"$key\\",\\"Secret\\":\\"pw\\"}"', Credential(HOST, "pw")),
    (
        'echo "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"it\\"}"',
        Credential("<token>", "it", is_identity=True),
    ),
    ("echo credentials not found; exit 1", None),
]


@pytest.mark.parametrize(("script", "expected"), ANSWERS)
@pytest.mark.parametrize("config", [{"credsStore": "x"}, {"credHelpers": {HOST: "x"}}])
async def test_a_helper_is_asked(
    tmp_path: Path, config: object, script: str, expected: Credential | None
) -> None:
    environment = helper(tmp_path, "x", script)
    path = written(tmp_path, config)
    assert await Credentials([path], environment).find(HOST) == expected


async def test_a_helper_that_knows_nothing_leaves_it_to_the_file(tmp_path: Path) -> None:
    environment = helper(tmp_path, "x", "exit 1")
    config = {"credsStore": "x", "auths": {HOST: {"auth": auth("me:pw")}}}
    found = await Credentials([written(tmp_path, config)], environment).find(HOST)
    assert found == Credential("me", "pw")


@pytest.mark.logs("credential helper is not installed")
async def test_a_helper_that_is_not_there_is_told_and_passed_over(tmp_path: Path) -> None:
    path = written(tmp_path, {"credsStore": "nowhere"})
    assert await Credentials([path], {"PATH": str(tmp_path)}).find(HOST) is None


@pytest.mark.parametrize("answer", ["", "secret", '{"Username":"secret"}'])
async def test_a_helper_that_talks_nonsense_is_not_quoted(tmp_path: Path, answer: str) -> None:
    environment = helper(tmp_path, "x", f"echo '{answer}'")
    with pytest.raises(Malformed, match="docker-credential-x") as caught:
        await Credentials([written(tmp_path, {"credsStore": "x"})], environment).find(HOST)
    assert "secret" not in str(caught.value)


async def test_a_helper_is_a_name_and_no_path(tmp_path: Path) -> None:
    path = written(tmp_path, {"credsStore": "../../bin/evil"})
    with pytest.raises(Malformed, match="helper's name"):
        await Credentials([path]).find(HOST)


def test_a_credential_shows_neither_user_nor_secret() -> None:
    assert "me" not in repr(Credential("me", "pw"))
    assert "pw" not in repr(Credential("me", "pw"))
