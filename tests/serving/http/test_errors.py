"""Errors have one form, whichever server answers."""

import json

import pytest
from starlette.testclient import TestClient
from traitroute.serving.http.errors import error_response


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (503, "server_error"),
    ],
)
def test_the_kind_of_an_error_follows_its_status(status: int, kind: str) -> None:
    reply = error_response(status, "no", param="name", headers={"retry-after": "1"})
    error = json.loads(bytes(reply.body))["error"]
    assert error == {"message": "no", "type": kind, "param": "name", "code": status}
    assert reply.headers["retry-after"] == "1"
    assert ("www-authenticate" in reply.headers) is (status == 401)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (502, "api_error"),
    ],
)
def test_on_anthropics_paths_an_error_is_in_its_form(status: int, kind: str) -> None:
    client = TestClient(error_response(status, "no", headers={"retry-after": "1"}))
    for path in ("/v1/messages", "/v1/messages/count_tokens", "/v1/messages/"):
        told = client.post(path)
        assert told.json() == {"type": "error", "error": {"type": kind, "message": "no"}}
        assert (told.status_code, told.headers["retry-after"]) == (status, "1")
    assert client.post("/v1/chat/completions").json()["error"]["code"] == status
