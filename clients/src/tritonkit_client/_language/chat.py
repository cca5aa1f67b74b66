"""Messages of a conversation to the prompt of a language model, by the model's own chat template.

The template is Jinja. A model that `tritonkit build` wrote has it among the parameters of its configuration; for others
the caller names it. It is rendered as transformers does, in Jinja's sandbox, as it comes from whoever made the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from os import PathLike, fspath
from typing import Any

from .._protocol.errors import InvalidInput, Origin
from .chat_files import read_directory, read_template

Message = Mapping[str, Any]
# Parameters of a configuration, as `tritonkit build` writes them (build/src/tritonkit/llm/chat.py): the template, the
# one for messages with tools, special tokens' texts as JSON, and what the server's tokenizer puts in front of a prompt.
TEMPLATE, TOOL_TEMPLATE, TOKENS, PREFIX = (
    "chat_template",
    "chat_template_tool_use",
    "special_tokens",
    "tokenizer_prefix",
)


@dataclass(frozen=True)
class ChatTemplate:
    """A model's chat template.

    Attributes:
        text: Jinja.
        tool_use: What is used instead where there are tools; empty for the same.
        tokens: The texts of special tokens by the names that templates have for them, ``bos_token`` for example.
        prefix: What the server's tokenizer puts in front of every prompt. A template that begins with it would double
            it: the backends take prompts as text, and let the tokenizer add its tokens.
    """

    text: str
    tool_use: str = ""
    tokens: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""


def chat_template(given: str | PathLike[str] | None, parameters: Mapping[str, str], origin: Origin) -> ChatTemplate:
    """The template to use.

    Args:
        given: A Hugging Face directory, a file with a template, or the template itself; None: the model's own.
        parameters: Those of the model's configuration.
        origin: The call, for errors.

    Raises:
        InvalidInput: There is no template, or the caller's cannot be read.
    """
    try:
        tokens = json.loads(parameters.get(TOKENS, "{}"))
        if not isinstance(tokens, dict):
            raise TypeError(f"it is a {type(tokens).__name__}")
    except (TypeError, ValueError) as error:
        fix = (
            f"build it again, or give chat_template= a Hugging Face directory, and take {TOKENS!r} out of config.pbtxt"
        )
        raise InvalidInput(
            f"{TOKENS!r} in the model's configuration is no JSON object: {error}", fix, origin
        ) from error
    prefix = parameters.get(PREFIX, "")
    if given is None:
        if not parameters.get(TEMPLATE):
            raise InvalidInput(
                f"model {origin.model} does not publish a chat template",
                "give chat_template= its Hugging Face directory or a .jinja file, or a prompt instead of messages=;"
                " models that tritonkit builds publish theirs",
                origin,
            )
        return ChatTemplate(parameters[TEMPLATE], parameters.get(TOOL_TEMPLATE, ""), tokens, prefix)
    place = fspath(given)
    if "{{" in place or "{%" in place:
        return ChatTemplate(place, "", tokens, prefix)
    directory = read_directory(place, origin)
    if directory is not None:
        templates, own_tokens, own_prefix = directory
        return ChatTemplate(templates["default"], templates.get("tool_use", ""), own_tokens, own_prefix)
    return ChatTemplate(read_template(place, origin), "", tokens, prefix)


def render(
    template: ChatTemplate,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None,
    variables: Mapping[str, Any] | None,
    origin: Origin,
) -> str:
    """The prompt.

    Args:
        template: The model's.
        messages: ``{"role": ..., "content": ...}`` and further keys that the template knows, oldest first.
        tools: The functions that the model may call, each as OpenAI's JSON; None for nothing.
        variables: Further variables of the template, ``enable_thinking`` for example.
        origin: The call, for errors.

    Raises:
        InvalidInput: Jinja is not installed, a message is not a mapping with a role, or the template refuses them.
    """
    checked = [_checked_message(message, origin) for message in _listed(messages, "messages", origin)]
    if not checked:
        raise InvalidInput("messages is empty", 'give at least [{"role": "user", "content": "..."}]', origin)
    functions = None if tools is None else _listed(tools, "tools", origin)
    if not all(isinstance(tool, Mapping) for tool in functions or ()):
        raise InvalidInput("tools holds something else than mappings", 'give each as {"type": "function", ...}', origin)
    text = template.tool_use if functions and template.tool_use else template.text
    compiled = _compiled(text, origin)
    names = {"add_generation_prompt": True, **template.tokens, **(variables or {})}
    try:
        prompt: str = compiled.render(messages=checked, tools=functions, **{"documents": None, **names})
    except Exception as error:  # a template fails in any way that Python has, on messages that it does not expect
        raise InvalidInput(
            f"the chat template refuses the messages: {error}",
            "change the messages' roles or contents as it wants; not every template takes a system message or tools",
            origin,
        ) from error
    return prompt.removeprefix(template.prefix)


def _listed(given: Any, name: str, origin: Origin) -> list[Any]:
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Sequence):
        raise InvalidInput(f"{name} is a {type(given).__name__}", "give a list of mappings", origin)
    return list(given)


def _checked_message(message: Any, origin: Origin) -> dict[str, Any]:
    """A message without its keys that are None, which transformers drops."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InvalidInput(f"{message!r:.80} is no message", 'give {"role": "user", "content": "..."}', origin)
    return {name: value for name, value in message.items() if value is not None}


def _compiled(text: str, origin: Origin) -> Any:
    try:
        import jinja2
    except ImportError:
        raise InvalidInput(
            "messages= needs Jinja, which renders chat templates", "pip install 'tritonkit-client[chat]'", origin
        ) from None
    try:
        return _compile(text)
    except jinja2.TemplateError as error:
        raise InvalidInput(f"the chat template is not Jinja: {error}", "give the model's own", origin) from error


@lru_cache(maxsize=32)
def _compile(text: str) -> Any:
    """A template with the settings, filters and functions of transformers (utils/chat_template_utils.py)."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}`` marks what a model is trained on; it changes no text."""

        tags = {"generation"}  # noqa: RUF012 -- as the class above declares it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def as_json(value: Any, ensure_ascii: bool = False, **style: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **style)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = as_json  # Jinja's own would escape what means something in HTML
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(text)
