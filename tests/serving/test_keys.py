from argparse import Namespace
from typing import Any

import pytest
from traitroute.serving.keys import ApiKeys


def scope(authorization: str | None) -> dict[str, Any]:
    headers = [] if authorization is None else [(b"authorization", authorization.encode())]
    return {"type": "http", "headers": headers}


@pytest.mark.parametrize(
    ("authorization", "admitted"),
    [
        ("Bearer one", True),
        ("bearer two", True),
        ("Bearer three", False),
        ("Basic one", False),
        ("one", False),
        ("Bearer ", False),
        (None, False),
    ],
)
def test_only_requests_with_one_of_the_keys_are_admitted(
    authorization: str | None, admitted: bool
) -> None:
    assert ApiKeys(["one", "two"]).admit(scope(authorization)) is admitted


def test_without_keys_all_are_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    for args in (Namespace(api_key=None), Namespace(), Namespace(api_key=[""])):
        assert ApiKeys.of_server(args).admit(scope(None))


def test_the_servers_keys_are_the_commands_before_the_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "e")
    assert ApiKeys.of_server(Namespace(api_key=None)).admit(scope("Bearer e"))
    assert ApiKeys.of_server(Namespace(api_key="c")).admit(scope("Bearer c"))
    assert not ApiKeys.of_server(Namespace(api_key=["c"])).admit(scope("Bearer e"))
