"""An adapter added to a running server over HTTP: by its name at once, by `auto` only once it is measured."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from traitroute.adapters import AdapterState

CHAT = "/v1/chat/completions"
KEY = "a secret of the operator's"
WITHIN_S = 2.0


def chat(client: httpx.Client, model: str, text: str) -> httpx.Response:
    asked = {"temperature": 0, "max_tokens": 8, "messages": [{"role": "user", "content": text}]}
    return client.post(CHAT, json={"model": model, **asked})


def said(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


def manage(client: httpx.Client, method: str, path: str = "", body: Any = None) -> httpx.Response:
    headers = {"x-traitroute-admin-key": KEY}
    return client.request(method, f"/v1/adapters{path}", json=body, headers=headers)


def named_within(client: httpx.Client, name: str, text: str) -> httpx.Response:
    """Ask for the adapter until it answers; seconds count from now."""
    until = time.monotonic() + WITHIN_S
    while (answer := chat(client, name, text)).status_code == 404:
        assert time.monotonic() < until, f"{name} is not served after {WITHIN_S} s"
        time.sleep(0.05)
    return answer


@pytest.fixture
def sources(house: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that adapters may be added from; the house has a profile."""
    house.put_profile()
    monkeypatch.setenv("TRAITROUTE_ADMIN_KEY", KEY)
    monkeypatch.setenv("TRAITROUTE_ALLOWED_SOURCES", str(tmp_path / "sources"))
    return tmp_path / "sources"


def save(house: Any, folder: Path, *, seed: int) -> str:
    """Random weights, of which the house can say what they alone would answer."""
    house.folders[folder.name] = house.tiny.save_adapter(house.base, folder, seed=seed, lora_alpha=8)
    return str(folder)


def test_an_added_adapter_answers_by_its_name_within_two_seconds(house: Any, serve: Any, sources: Path) -> None:
    uri = save(house, sources / "violet", seed=9)
    with serve(house) as server, server.client() as client:
        added = manage(client, "POST", body={"name": "violet", "uri": uri})
        assert added.status_code == 201, added.text
        answer = named_within(client, "violet", "w7 w57")
        assert said(answer) == house.alone("violet", "w7 w57", 8)
        assert said(answer) != said(chat(client, "base", "w7 w57"))


def test_a_pending_adapter_is_not_chosen_even_under_a_name_that_was_measured(
    house: Any, serve: Any, sources: Path
) -> None:
    uri = save(house, sources / "other-red", seed=9)
    with serve(house) as server, server.client() as client:
        before = chat(client, "auto", "w10 w12 w10")
        assert before.headers["x-traitroute-adapter"] == "red"
        assert manage(client, "DELETE", "/red").status_code == 200
        manage(client, "POST", body={"name": "red", "uri": uri})
        new = house.alone("other-red", "w7 w57", 8)
        until = time.monotonic() + WITHIN_S
        # Between the two changes the server may have looked, and known no adapter of the name.
        while (last := chat(client, "red", "w7 w57")).status_code == 404 or said(last) != new:
            assert time.monotonic() < until
        after = chat(client, "auto", "w10 w12 w10")
        assert after.headers["x-traitroute-adapter"] != "red"
        assert house.registry.adapter("red").state is AdapterState.PENDING


def test_waiting_weights_leave_the_name_to_the_old_ones(house: Any, serve: Any, sources: Path) -> None:
    uri = save(house, sources / "new-blue", seed=9)
    with serve(house) as server, server.client() as client:
        assert manage(client, "PUT", "/blue/weights", {"uri": uri}).status_code == 202
        assert said(named_within(client, "blue@2", "w7 w57")) == house.alone("new-blue", "w7 w57", 8)
        assert said(chat(client, "blue", "w7 w57")) == house.alone("blue", "w7 w57", 8)


def test_a_disabled_adapter_is_served_no_more(house: Any, serve: Any, sources: Path) -> None:
    with serve(house) as server, server.client() as client:
        assert chat(client, "blue", "w7").status_code == 200
        manage(client, "PATCH", "/blue", {"state": "disabled", "note": "odd"})
        until = time.monotonic() + WITHIN_S
        while chat(client, "blue", "w7").status_code == 200:
            assert time.monotonic() < until
        assert chat(client, "blue", "w7").status_code == 404


def test_the_admins_key_does_not_replace_the_api_key(house: Any, serve: Any, sources: Path) -> None:
    with serve(house, api_key="users") as server, server.client() as client:
        assert manage(client, "GET").status_code == 401
        client.headers["authorization"] = "Bearer users"
        assert manage(client, "GET").status_code == 200
