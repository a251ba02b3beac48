"""What a client asks for, checked: OpenAI's chat completions and completions, as far as they are offered here.

Every field is offered, not offered, or known to change nothing. What is not offered is refused unless it asks for
nothing, and so is every unknown field: it might have been meant to change the answer. A prompt that cannot fit is
refused by its characters, before any of it is tokenized: tokenizing takes 160 times its bytes of memory.
"""

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from ..engines.engine import PromptTokenizer
from ..http.errors import RefusedError

_OFF: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("n", "best_of", "length_penalty", "repetition_penalty"), (1,)),
    **dict.fromkeys(("top_logprobs", "presence_penalty", "frequency_penalty", "min_p", "min_tokens"), (0,)),
    **dict.fromkeys(("use_beam_search", "logprobs", "return_tokens_as_token_ids", "echo", "store"), (False,)),
    **dict.fromkeys(("include_stop_str_in_output", "continue_final_message"), (False,)),
    **dict.fromkeys(("skip_special_tokens", "spaces_between_special_tokens", "add_generation_prompt"), (True,)),
    **dict.fromkeys(("tools", "functions", "logits_processors", "stop_token_ids", "bad_words", "documents"), ([],)),
    **dict.fromkeys(("logit_bias", "chat_template_kwargs", "mm_processor_kwargs"), ({},)),
    **dict.fromkeys(("tool_choice", "function_call"), ("none", "auto")),
    **dict.fromkeys(("prompt_logprobs", "structured_outputs", "guided_json", "guided_regex", "guided_choice"), ()),
    **dict.fromkeys(("guided_grammar", "audio", "web_search_options", "allowed_token_ids", "add_special_tokens"), ()),
    **dict.fromkeys(("truncate_prompt_tokens", "chat_template"), ()),
    "suffix": ("",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "top_k": (-1, 0),
}
"""What is not offered, with the values that ask for nothing."""

_IGNORED = {
    *("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier"),
    *("prediction", "parallel_tool_calls", "request_id", "cache_salt", "priority", "return_token_ids"),
}
"""What changes no answer; who asks for token ids sees that there are none."""

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_TOOL_ROLES = ("tool", "function")
_READ = ("role", "content", "name")
_HISTORY = ("tool_calls", "tool_call_id", "function_call")
_OF_ANSWERS = ("refusal", "audio", "annotations", "reasoning", "reasoning_content")
"""What answers hold besides; clients send answers back whole, with nothing in these."""
_PARTS = {
    **dict.fromkeys(("image_url", "input_image"), "image"),
    **dict.fromkeys(("audio_url", "input_audio"), "audio"),
    **{"video_url": "video", "file": "file", "refusal": "refusal"},
}

_STOPS = 16
_STOP_CHARACTERS = 1000
"""Every new chunk of text is searched for the beginnings of stop strings, while all other rows wait."""


@dataclass(frozen=True)
class Context:
    """How long a prompt may be: so many tokens, each of so many characters at most."""

    tokens: int
    longest: int

    @classmethod
    def of(cls, tokenizer: PromptTokenizer, tokens: int) -> Self:
        """The context of a model with this tokenizer; a space beside each token is counted, since some drop it."""
        return cls(tokens, 1 + max(map(len, tokenizer.tokenizer.get_vocab())))

    @property
    def characters(self) -> int:
        """The most characters that fit."""
        return self.tokens * self.longest

    def check_characters(self, count: int, param: str) -> None:
        """Raise RefusedError where a text of `count` characters cannot fit."""
        if count > self.characters:
            _refuse(param, f"{count} characters are more than this server's context of {self.tokens} tokens holds")

    def check_items(self, items: list[Any], param: str) -> None:
        """Raise RefusedError where a list is empty, or cannot fit at one token an item."""
        if not items:
            _refuse(param, "the list is empty")
        if len(items) > self.tokens:
            _refuse(param, f"{len(items)} items are more than this server's context of {self.tokens}")


def _stops(given: Any) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        wrong = next(t for t in texts if not isinstance(t, str)) if isinstance(texts, list) else given
        raise _wrong(f"wanted a text or a list of texts, not {_kind(wrong)}")
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


_Form = TypeVar("_Form", ChatRequest, CompletionRequest)


def read_chat(body: Mapping[str, Any], context: Context) -> ChatRequest:
    """Check the body of a chat request.

    Raises:
        RefusedError: it is wrong, too long, or asks for what is not offered.
    """
    _check_fields(ChatRequest, body)
    return _validated(ChatRequest, body, messages=_messages(body.get("messages"), context))


def read_completion(body: Mapping[str, Any], context: Context) -> CompletionRequest:
    """Check the body of a completion request.

    Raises:
        RefusedError: it is wrong, too long, or asks for what is not offered.
    """
    _check_fields(CompletionRequest, body)
    return _validated(CompletionRequest, body, prompt=_prompt(body.get("prompt"), context))


def _validated(form: type[_Form], body: Mapping[str, Any], **read: Any) -> _Form:
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
        if given is None or name in form.model_fields or name in _IGNORED:
            continue
        if name not in _OFF:
            raise RefusedError(_unknown(name, form), param=name[:100])
        if not any(_same(given, nothing) for nothing in _OFF[name]):
            raise RefusedError(
                f'"{name}" is not offered by the embedded server: leave it out, or serve with vLLM', param=name
            )


def _same(given: Any, nothing: Any) -> bool:
    return given == nothing and (type(given) is type(nothing) or isinstance(given, float))


def _unknown(name: str, form: type[BaseModel]) -> str:
    known = [*form.model_fields, *_OFF, *_IGNORED]
    near = difflib.get_close_matches(name[:100], known)
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"no field {reprlib.repr(name)} is known{meant} Leave it out, or serve with vLLM"


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("wrong", "{message}", {"message": message})


def _messages(given: Any, context: Context) -> list[dict[str, str]]:
    """The messages of a conversation as chat templates take them.

    Raises:
        RefusedError: they are wrong, hold more than text, or cannot fit into the context.
    """
    if not isinstance(given, list):
        _refuse("messages", f"wanted a list of messages, not {_kind(given)}")
    context.check_items(given, "messages")
    messages = [_message(each, f"messages.{i}") for i, each in enumerate(given)]
    context.check_characters(sum(len(m["content"]) + 1 for m in messages), "messages")
    return messages


def _prompt(given: Any, context: Context) -> str | list[int]:
    """The one prompt of a completion, as text or token ids.

    Raises:
        RefusedError: it is wrong, one of several, or cannot fit into the context.
    """
    if isinstance(given, list) and given and isinstance(given[0], str | list):
        if len(given) > 1:
            _refuse("prompt", "send one prompt a request: several are not offered")
        given = given[0]
    if isinstance(given, str):
        context.check_characters(len(given), "prompt")
        return given
    if not isinstance(given, list):
        _refuse("prompt", f"wanted a text or a list of token ids, not {_kind(given)}")
    context.check_items(given, "prompt")
    for i, token in enumerate(given):
        if type(token) is not int:
            _refuse(f"prompt.{i}", f"wanted a token id, not {_kind(token)}")
    return given


def _refuse(where: str, message: str) -> NoReturn:
    """Say what is wrong with a part of the request."""
    raise RefusedError(f"{where}: {message}", param=where)


def _kind(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    kinds = {str: "text", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")


def _message(given: Any, where: str) -> dict[str, str]:
    if not isinstance(given, dict):
        _refuse(where, f"wanted an object with role and content, not {_kind(given)}")
    _check_message(given, where)
    role = _role(given.get("role"), f"{where}.role")
    content = given.get("content")
    if isinstance(content, list):
        content = "\n".join(_texts(content, f"{where}.content"))
    elif not isinstance(content, str):
        _refuse(f"{where}.content", f"{_kind(content)} is not taken by this server; wanted text")
    return {"role": role, "content": content}


def _role(given: Any, where: str) -> str:
    if isinstance(given, str) and given in _ROLES:
        return _ROLES[given]
    wanted = f"wanted {', '.join(_ROLES)}"
    if given in _TOOL_ROLES:
        _refuse(where, f"{given} messages (tool history) are not taken by this server; {wanted}")
    _refuse(where, f"{reprlib.repr(given)} is no role; {wanted}")


def _check_message(message: Mapping[str, Any], where: str) -> None:
    for name, value in message.items():
        if name in _READ or value in (None, []):
            continue
        if name in _HISTORY:
            _refuse(f"{where}.{name}", "tool history is not taken by this server; wanted text")
        if name in _OF_ANSWERS:
            _refuse(f"{where}.{name}", "not taken by this server; wanted text, in content")
        _refuse(where, f"{reprlib.repr(name)} is not known; a message has {', '.join(_READ)}")


def _texts(parts: list[Any], where: str) -> Iterable[str]:
    for i, part in enumerate(parts):
        form = part.get("type") if isinstance(part, dict) else None
        if isinstance(form, str) and form in _PARTS:
            _refuse(f"{where}.{i}", f"{_PARTS[form]} parts are not taken by this server; wanted text")
        text = part.get("text") if form == "text" else None
        if not isinstance(text, str):
            _refuse(f"{where}.{i}", 'wanted a text part, as in {"type": "text", "text": "..."}')
        yield text
