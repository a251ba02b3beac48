"""What a client asks for, checked: OpenAI's chat completions and completions, as far as they are offered here.

Every field is offered, not offered, or known to change nothing. What is not offered is refused unless it asks for nothing,
and so is what is not known: it might have been meant to change the answer.
"""

import difflib
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from ..http.errors import RefusedError
from .prompts import Context, kind, read_messages, read_prompt

_OFF: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "prompt_logprobs": (),
    "return_tokens_as_token_ids": (False,),
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
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
    "store": (False,),
    "logit_bias": ({},),
    "logits_processors": ([],),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "top_k": (-1, 0),
    "min_p": (0,),
    "min_tokens": (0,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "add_special_tokens": (),
    "truncate_prompt_tokens": (),
    "continue_final_message": (False,),
    "add_generation_prompt": (True,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "documents": ([],),
    "mm_processor_kwargs": ({},),
}
"""What is not offered, with the values that ask for nothing."""

_PASSED_OVER = frozenset(
    {
        "user",
        "metadata",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "service_tier",
        "prediction",
        "parallel_tool_calls",
        "request_id",
        "cache_salt",
        "priority",
        "return_token_ids",
    }
)
"""What changes no answer; who asks for token ids sees that there are none."""

_STOPS = 16
_STOP_CHARACTERS = 1000
"""Every new piece of text is searched for the beginnings of stop strings, while all other rows wait."""


def _stops(given: Any) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        wrong = next(t for t in texts if not isinstance(t, str)) if isinstance(texts, list) else given
        raise _wrong(f"wanted a text or a list of texts, not {kind(wrong)}")
    if len(texts) > _STOPS:
        raise _wrong(f"{len(texts)} stop strings are more than {_STOPS}")
    if not all(0 < len(text) <= _STOP_CHARACTERS for text in texts):
        raise _wrong(f"wanted texts of 1 to {_STOP_CHARACTERS} characters")
    return tuple(texts)


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: bool = False
    continuous_usage_stats: Literal[False] = False


class _Request(BaseModel):
    """What both kinds of request share."""

    model: str
    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[tuple[str, ...], BeforeValidator(_stops)] = ()
    ignore_eos: bool = False


class ChatRequest(_Request):
    """The body of `/v1/chat/completions`."""

    messages: list[dict[str, str]]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    @property
    def limit(self) -> int | None:
        """The most tokens to generate; None is as many as there is room for."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(_Request):
    """The body of `/v1/completions`, with one prompt, as text or token ids."""

    prompt: str | list[int]
    max_tokens: Annotated[int, Field(ge=1)] = 16

    @property
    def limit(self) -> int | None:
        """The most tokens to generate."""
        return self.max_tokens


_Kind = TypeVar("_Kind", ChatRequest, CompletionRequest)


def read_chat(body: Mapping[str, Any], context: Context) -> ChatRequest:
    """Check the body of a chat request.

    Raises:
        RefusedError: it is wrong, too long, or asks for what is not offered.
    """
    _check_fields(ChatRequest, body)
    return _validated(ChatRequest, body, messages=read_messages(body.get("messages"), context))


def read_completion(body: Mapping[str, Any], context: Context) -> CompletionRequest:
    """Check the body of a completion request.

    Raises:
        RefusedError: it is wrong, too long, or asks for what is not offered.
    """
    _check_fields(CompletionRequest, body)
    return _validated(CompletionRequest, body, prompt=read_prompt(body.get("prompt"), context))


def _validated(form: type[_Kind], body: Mapping[str, Any], **read: Any) -> _Kind:
    given = {name: body[name] for name in form.model_fields if body.get(name) is not None}
    try:
        return form.model_validate(given | read)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise RefusedError(f"{where[:100]}: {first['msg']}", param=where[:100]) from exc


def _check_fields(form: type[BaseModel], body: Mapping[str, Any]) -> None:
    """Refuse what is not offered, unless it asks for nothing, and what is not known."""
    for name, given in body.items():
        if given is None or name in form.model_fields or name in _PASSED_OVER:
            continue
        if name not in _OFF:
            raise RefusedError(_unknown(name, form), param=name[:100])
        if not any(_same(given, nothing) for nothing in _OFF[name]):
            raise RefusedError(
                f'"{name}" is not offered by the embedded server: leave it out, or serve with vLLM',
                param=name,
            )


def _same(given: Any, nothing: Any) -> bool:
    return given == nothing and (type(given) is type(nothing) or isinstance(given, float))


def _unknown(name: str, form: type[BaseModel]) -> str:
    known = [*form.model_fields, *_OFF, *_PASSED_OVER]
    near = difflib.get_close_matches(name[:100], known)
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"no field {reprlib.repr(name)} is known{meant} Leave it out, or serve with vLLM"


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("wrong", "{message}", {"message": message})
