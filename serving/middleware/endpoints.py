"""The routed endpoints: where each one's body carries the text that is routed, and the model's name.

`/invocations` (SageMaker's) takes no model from the body: vLLM overwrites it with the header
`X-Amzn-SageMaker-Adapter-Identifier`, or with nothing. There `auto` is asked for in that header or in
`x-traitroute-model`, and the choice goes on in the header; without either the path is left alone.

A list of several prompts or inputs is one request for one adapter: the first entry that says something is routed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

from ...adapters import InputError
from ...router import request_text
from ..http.errors import RefusedError

MODEL_HEADER = "x-traitroute-model"
INVOCATIONS = "/invocations"


@dataclass(frozen=True)
class Endpoint:
    """A routed path; the first of `fields` that a body has carries its text, and any of `wordless` may stand in its place."""

    path: str
    fields: tuple[str, ...]
    wordless: tuple[str, ...] = ()

    @property
    def routed(self) -> bool:
        """Whether `auto` may be asked for here."""
        return bool(self.fields)

    def text(self, body: Mapping[str, Any], *, last: bool = False) -> str:
        """Return the first user turn that says something, or with `last` the last one; empty where none does.

        Raises:
            RefusedError: the body is malformed.
        """
        field = next((f for f in self.fields if body.get(f) not in (None, [])), None)
        if field is None:
            if any(body.get(f) is not None for f in self.wordless):
                return ""
            field = next((f for f in self.fields if body.get(f) is not None), None)
        if field is None:
            wanted = " or ".join(f'"{f}"' for f in self.fields)
            raise RefusedError(f"no text to route: the body needs {wanted}", param=self.fields[0])
        try:
            return request_text(_conversation(field, body), last=last)
        except InputError as exc:
            message = _NO_INPUT if field == "input" else str(exc)
            raise RefusedError(message, param=field) from exc


_NO_INPUT = 'no text to route: "input" must be text, token ids, or a list of them or of messages'

_INPUT = ("messages", "input")
ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint("/v1/chat/completions", ("messages",)),
        Endpoint("/v1/completions", ("prompt",), ("prompt_embeds",)),
        Endpoint("/v1/responses", ("input",), ("previous_response_id", "conversation", "prompt")),
        Endpoint("/v1/messages", ("messages",)),
        Endpoint("/v1/messages/count_tokens", ("messages",)),
        Endpoint("/v1/embeddings", _INPUT),
        Endpoint("/tokenize", ("messages", "prompt")),
        Endpoint("/pooling", _INPUT, ("data",)),
        Endpoint(INVOCATIONS, ("messages", "prompt", "input"), ("prompt_embeds", "data")),
    )
}
OTHER = Endpoint("", ())
"""Any other path, of a request whose headers say which adapters may answer."""


def asked_model(headers: Headers, invocations_header: str) -> str | None:
    """Return the model that a request for `/invocations` asks for in its headers: the first that is not empty."""
    names = headers.getlist(MODEL_HEADER) + headers.getlist(invocations_header)
    return next(filter(None, names), None)


def with_model(scope: Scope, invocations_header: str, name: str) -> Scope:
    """Return the scope of a request for `/invocations` that asks for `name`."""
    key = invocations_header.lower().encode("latin-1")
    replaced = (key, MODEL_HEADER.encode())
    kept = [h for h in scope["headers"] if h[0].lower() not in replaced]
    return {**scope, "headers": [*kept, (key, name.encode("latin-1"))]}


def _conversation(field: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Put what `field` holds into the form that the router reads."""
    value = body[field]
    if field == "input" and isinstance(earlier := body.get("previous_input_messages"), list):
        value = [*earlier, *(value if isinstance(value, list) else [_user(value)])]
    if isinstance(value, list) and value and isinstance(value[0], list) and field != "prompt":
        value = value[0]
    turns = isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
    return {"messages": value} if field == "messages" or turns else {"prompt": value}


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}
