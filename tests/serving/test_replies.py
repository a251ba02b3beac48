"""Errors have one form, whichever server answers."""

import json

import pytest
from traitroute.serving.replies import error_reply


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
    reply = error_reply(status, "no", param="name", headers={"retry-after": "1"})
    error = json.loads(bytes(reply.body))["error"]
    assert error == {"message": "no", "type": kind, "param": "name", "code": status}
    assert reply.headers["retry-after"] == "1"
    assert ("www-authenticate" in reply.headers) is (status == 401)
