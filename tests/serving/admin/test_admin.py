"""Adapters come and go over HTTP: what is done, what is refused, and that nothing is kept of what is refused."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import AdapterState, RegistryError
from traitroute.adapters.registry import sqlite as sqlite_file

KEY_HEADER = "x-traitroute-admin-key"


def error(response: Any, status: int) -> str:
    assert response.status_code == status, response.text
    return response.json()["error"]["message"]


def test_an_added_adapter_is_pending(office: Any) -> None:
    uri = office.save("polite")
    answer = office.ask("POST", "", {"name": "polite", "uri": uri, "tags": ["tone"]})
    assert answer.status_code == 201, answer.text
    described = answer.json()
    assert (described["state"], described["uri"], described["tags"]) == ("pending", uri, ["tone"])
    assert office.registry.adapter("polite").state is AdapterState.PENDING
    assert [a["name"] for a in office.ask("GET", "").json()["data"]] == ["old", "polite"]
    assert office.ask("GET", "/polite").json() == described


def test_two_adds_of_the_same_weights(office: Any) -> None:
    uri = office.save("polite")
    office.ask("POST", "", {"name": "polite", "uri": uri})
    kept = office.kept()
    assert office.ask("POST", "", {"name": "polite", "uri": uri}).status_code == 200
    other = office.ask("POST", "", {"name": "kind", "uri": uri})
    assert "already, as 'polite'" in error(other, 409)
    assert office.kept() == kept


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"name": "../polite"}, "cannot be a name"),
        ({"name": "auto"}, "is reserved"),
        ({"name": 7}, "name"),
        ({"weights": "x"}, "weights is not known"),
        ({"uri": ""}, "uri"),
        ({"tags": ["a b"]}, "tags"),
        ({"uri": "acme/polite"}, "the Hub is switched off here"),
        ({"uri": "s3://bucket/polite"}, "may not come from"),
        ({"uri": "/etc"}, "may not come from"),
        ({"uri": "{allowed}/../old"}, "climbs with '..'"),
        ({"uri": "{allowed}/escape"}, "may not come from"),
        ({"uri": "{allowed}/gone"}, "no adapter folder"),
        ({"uri": "{allowed}/dora"}, "is a DoRA"),
        ({"uri": "{allowed}/foreign"}, "trained for 'acme/other'"),
        ({"uri": "{allowed}/wide"}, "takes 16 features to 8"),
        ({"uri": "{allowed}/pickled"}, "only pickle"),
        ({"uri": "{allowed}/cut"}, "truncated"),
    ],
)
def test_a_bad_add_is_told_why_and_nothing_is_kept(office: Any, tmp_path: Path, body: dict[str, Any], why: str) -> None:
    office.save("dora", use_dora=True)
    office.save("foreign", base_model_name_or_path="acme/other")
    office.save("wide", width=16)
    pickled, cut = Path(office.save("pickled")), Path(office.save("cut"))
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    weights = cut / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    (office.allowed / "escape").symlink_to(tmp_path / "old")
    given = {"name": "polite", "uri": office.save("polite")} | body
    given["uri"] = given["uri"].replace("{allowed}", str(office.allowed))
    kept = office.kept()
    message = error(office.ask("POST", "", given), 400)
    assert why in message
    assert ".adding-" not in message
    assert office.kept() == kept


def test_a_taken_name_is_a_conflict(office: Any) -> None:
    kept = office.kept()
    answer = office.ask("POST", "", {"name": "old", "uri": office.save("new")})
    assert "'old' is there already, with other weights" in error(answer, 409)
    assert office.kept() == kept


@pytest.mark.parametrize("given", [{}, {KEY_HEADER: "wrong"}, {"authorization": "Bearer wrong"}])
def test_without_the_admins_key_nothing_is_done(office: Any, given: dict[str, str]) -> None:
    kept = office.kept()
    body = {"name": "polite", "uri": office.save("polite")}
    for method, path in (("POST", ""), ("GET", ""), ("DELETE", "/old"), ("PATCH", "/old")):
        answer = office.client.request(method, f"/v1/adapters{path}", json=body, headers=given)
        assert "admin key is missing or wrong" in error(answer, 401)
    assert office.kept() == kept


def test_where_no_key_is_set_nothing_can_be_done_over_http(open_office: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAITROUTE_ADMIN_KEY", " ")
    with open_office() as office:
        for key in ("", " "):
            answer = office.client.get("/v1/adapters", headers={KEY_HEADER: key})
            assert "set no TRAITROUTE_ADMIN_KEY" in error(answer, 403)


def test_a_large_body_is_refused_unread(office: Any) -> None:
    body = {"name": "polite", "uri": "x" * 2**17}
    assert "larger than" in error(office.ask("POST", "", body), 413)


def test_an_adapter_is_disabled_tagged_and_enabled(office: Any) -> None:
    change = {"state": "disabled", "note": "answers in French", "tags": ["tone"]}
    told = office.ask("PATCH", "/old", change).json()
    assert (told["state"], told["note"], told["tags"]) == ("disabled", change["note"], ["tone"])
    assert office.ask("PATCH", "/old", {"state": "enabled"}).json()["state"] == "ready"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "nothing would change"),
        ({"state": "ready"}, "state"),
        ({"note": "x", "tags": []}, "why an adapter is disabled"),
        ({"rank": 8, "tags": []}, "rank is not known"),
    ],
)
def test_a_change_of_nothing_or_of_the_unknown_is_refused(office: Any, body: dict[str, Any], why: str) -> None:
    kept = office.kept()
    assert why in error(office.ask("PATCH", "/old", body), 400)
    assert office.kept() == kept


def test_new_weights_wait_and_can_be_withdrawn(office: Any) -> None:
    uri = office.save("new")
    answer = office.ask("PUT", "/old/weights", {"uri": uri})
    assert answer.status_code == 202
    assert answer.json()["replacement"]["version"] == 2
    assert answer.json()["state"] == "ready"
    assert office.registry.adapter("old").version == 1
    assert office.ask("DELETE", "/old/replacement").json()["replacement"] is None
    assert office.registry.replacement("old") is None


def test_a_removed_adapter_is_gone_and_its_weights_stay(office: Any) -> None:
    weights = office.registry.adapter("old").weights_digest
    assert office.ask("DELETE", "/old").json()["deleted"] is True
    with pytest.raises(RegistryError):
        office.registry.adapter("old")
    assert office.registry.weights.path(weights).is_dir()
    for method in ("GET", "DELETE"):
        assert "no adapter named 'old'" in error(office.ask(method, "/old"), 404)


def test_who_read_an_older_version_changes_nothing(office: Any) -> None:
    read = office.ask("GET", "/old").headers["etag"]
    office.registry.set_tags("old", ["tone"])
    kept = office.kept()
    for method, path, body in (
        ("PATCH", "/old", {"tags": []}),
        ("DELETE", "/old", None),
        ("PUT", "/old/weights", {"uri": office.save("new")}),
    ):
        assert "If-Match" in error(office.ask(method, path, body, if_match=read), 409)
    assert office.kept() == kept
    now = office.ask("GET", "/old").headers["etag"]
    assert office.ask("DELETE", "/old", if_match=now).status_code == 200


def test_a_registry_that_cannot_be_read_is_the_servers_trouble(office: Any) -> None:
    path = office.registry.path
    office.registry.close()
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 8000)
    for method, given in (("GET", ""), ("GET", "/old"), ("DELETE", "/old")):
        reply = office.ask(method, given)
        assert "it is damaged" in error(reply, 503)
        assert "retry-after" not in reply.headers


def test_a_registry_that_is_locked_is_to_be_asked_again(office: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.1)
    holder = sqlite3.connect(office.registry.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    reply = office.ask("PATCH", "/old", {"tags": ["x"]})
    holder.close()
    assert "it is locked by another process" in error(reply, 503)
    assert reply.headers["retry-after"] == "10"
    assert office.ask("PATCH", "/old", {"tags": ["x"]}).status_code == 200


def test_adapters_are_listed_a_page_at_a_time(office: Any) -> None:
    for i in range(3):
        office.ask("POST", "", {"name": f"a{i}", "uri": office.save(f"a{i}", fill=i / 8)})
    names, after = [], ""
    while after is not None:
        page = office.ask("GET", f"?limit=2&after={after}").json()
        assert len(page["data"]) <= 2
        names += [each["name"] for each in page["data"]]
        after = page["next"]
    assert names == ["a0", "a1", "a2", "old"]
    for query in ("limit=0", "limit=1001", "limit=x", "offset=3"):
        error(office.ask("GET", f"?{query}"), 400)


def test_a_name_that_no_adapter_can_have_is_unknown(office: Any) -> None:
    for name in ("%00", "x" * 100, "auto"):
        error(office.ask("GET", f"/{name}"), 404)
