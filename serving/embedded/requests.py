"""What a client asks for, checked: OpenAI's chat completions and completions, as far as they are offered here.

What would change the answer and is not offered is refused; what changes nothing (`user`, `metadata`) is passed over.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...adapters import InputError

_OFF: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "use_beam_search": (False,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "prompt_logprobs": (),
    "echo": (False,),
    "suffix": ("",),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "modalities": (["text"],),
    "audio": (),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "top_k": (-1, 0),
    "min_p": (0,),
    "min_tokens": (0,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "truncate_prompt_tokens": (),
    "continue_final_message": (False,),
    "add_generation_prompt": (True,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "documents": ([],),
}
"""What is not offered, with the values that ask for nothing."""

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_Stop = Annotated[str, Field(min_length=1)]


class RequestError(InputError):
    """A request is wrong, or asks for what is not offered; `param` names the field."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _Request(BaseModel):
    """What both kinds of request share."""

    model_config = ConfigDict(extra="ignore")

    model: str
    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=16)] = []
    ignore_eos: bool = False

    @model_validator(mode="before")
    @classmethod
    def _nothing_for_null(cls, given: Any) -> Any:
        return {k: v for k, v in given.items() if v is not None}

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


_Kind = TypeVar("_Kind", bound=_Request)


class _Part(BaseModel):
    type: Literal["text"]
    text: str


class _Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]

    def plain(self) -> dict[str, str]:
        """The message as chat templates take it."""
        content = self.content
        text = content if isinstance(content, str) else "\n".join(part.text for part in content)
        return {"role": _ROLES[self.role], "content": text}


class ChatRequest(_Request):
    """The body of `/v1/chat/completions`."""

    messages: Annotated[list[_Message], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    @property
    def limit(self) -> int | None:
        """The most tokens to generate; None is as many as there is room for."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(_Request):
    """The body of `/v1/completions`, with one prompt, as text or token ids."""

    prompt: str | Annotated[list[int], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] = 16

    @property
    def limit(self) -> int | None:
        """The most tokens to generate."""
        return self.max_tokens


def read_chat(body: Any) -> ChatRequest:
    """Check the body of a chat request.

    Raises:
        RequestError: it is wrong, or asks for what is not offered.
    """
    return _read(ChatRequest, body)


def read_completion(body: Any) -> CompletionRequest:
    """Check the body of a completion request.

    Raises:
        RequestError: it is wrong, or asks for what is not offered.
    """
    if isinstance(body, dict) and isinstance(body.get("prompt"), list):
        body = {**body, "prompt": _only_prompt(body["prompt"])}
    return _read(CompletionRequest, body)


def _read(kind: type[_Kind], body: Any) -> _Kind:
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object")
    _check_offered(body)
    try:
        return kind.model_validate(body)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RequestError(f"{where}: {first['msg']}", param=where or None) from exc


def _check_offered(body: Mapping[str, Any]) -> None:
    for name, nothing in _OFF.items():
        given = body.get(name)
        if given is None or any(given == off and type(given) is type(off) for off in nothing):
            continue
        if isinstance(given, float) and given in nothing:
            continue
        raise RequestError(
            f'"{name}" is not offered by the embedded server: leave it out, or serve with vLLM',
            param=name,
        )


def _only_prompt(prompts: list[Any]) -> Any:
    if prompts and not isinstance(prompts[0], int):
        if len(prompts) > 1:
            raise RequestError("send one prompt a request: several are not offered", param="prompt")
        return prompts[0]
    return prompts
