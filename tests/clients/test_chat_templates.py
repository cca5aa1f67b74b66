"""Prompts from chat templates equal those of transformers for the same messages; and where templates are read from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tritonkit.llm import chat
from tritonkit.llm.directory import Directory
from tritonkit_client import InvalidInput
from tritonkit_client._language.chat import ChatTemplate, chat_template, render
from tritonkit_client._protocol.errors import Origin

ORIGIN = Origin("grpc://h:1", "llama")
CHATML = """\
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
"""
# As Llama 3's: the token that begins the text, tools as JSON, a block that is trained on, and a default date.
LLAMA3 = """\
{{- bos_token }}
{%- if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}
{%- if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = messages[1:] %}
{%- else %}{% set system = '' %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday: ' + date_string + '\\n' + system }}
{%- if tools is not none %}{% for tool in tools %}{{ tool | tojson(indent=4) }}{% endfor %}{% endif %}
{{- eos_token }}
{%- for message in messages %}
    {%- if message.tool_calls is defined %}{{ message.tool_calls[0].function | tojson }}{{ eos_token }}{% continue %}{% endif %}
    {{- '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\\n\\n' }}
    {%- generation %}{{ message.content }}{% endgeneration %}{{ eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
"""
# Refuses a system message, and roles that do not alternate.
STRICT = """\
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif -%}
{%- set turn = namespace(count=0) -%}
{%- for message in messages -%}
    {%- if (message.role == 'user') != (turn.count % 2 == 0) -%}{{ raise_exception('Roles must alternate') }}{%- endif -%}
    {%- set turn.count = turn.count + 1 -%}
    {{ bos_token if loop.first }}[{{ message.role }}] {{ message.content }} {{ eos_token }}
{%- endfor -%}
"""
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "of a <city> & größe",
                                           "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]  # fmt: skip
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello <you> & größe "}]
SYSTEM: list[dict[str, Any]] = [{"role": "system", "content": "be brief"}, *HELLO]
LONG: list[dict[str, Any]] = [
    *HELLO,
    {"role": "assistant", "content": "hi", "tool_calls": None},
    {"role": "user", "content": "bye"},
]
CALLED: list[dict[str, Any]] = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "a"}}}]},
          {"role": "tool", "content": "rain"}]  # fmt: skip
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def tokenizer(template: str | dict[str, str], adds_bos: bool = False) -> Any:
    """A real tokenizer whose words are letters."""
    import tokenizers
    import transformers

    words = ["<unk>", "<s>", "</s>", *(chr(code) for code in range(32, 127))]
    base = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: place for place, word in enumerate(words)}, "<unk>"))
    base.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    if adds_bos:
        base.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
        )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=base, **TOKENS)
    fast.chat_template = template
    return fast


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["no tools", "tools"])
@pytest.mark.parametrize("messages", [HELLO, SYSTEM, LONG], ids=["hello", "system", "long"])
@pytest.mark.parametrize("template", [CHATML, LLAMA3, STRICT], ids=["chatml", "llama3", "strict"])
@pytest.mark.parametrize(
    "variables", [{}, {"date_string": "1 May", "add_generation_prompt": False}], ids=["", "variables"]
)
def test_a_prompt_is_what_transformers_makes_of_it(
    template: str, messages: list[dict[str, Any]], tools: Any, variables: dict[str, Any]
) -> None:
    theirs = tokenizer(template)
    options = {"add_generation_prompt": True, **variables}
    if template == STRICT and messages == SYSTEM:
        with pytest.raises(Exception, match="System role not supported"):
            theirs.apply_chat_template(messages, tools=tools, tokenize=False, **options)
        with pytest.raises(InvalidInput, match="refuses the messages: System role not supported") as caught:
            render(ChatTemplate(template, tokens=TOKENS), messages, tools, variables, ORIGIN)
        assert "system message" in caught.value.fix
        return
    expected = theirs.apply_chat_template(messages, tools=tools, tokenize=False, **options)
    assert render(ChatTemplate(template, tokens=TOKENS), messages, tools, variables, ORIGIN) == expected


def test_calls_of_tools_and_templates_for_them_are_rendered_too() -> None:
    theirs = tokenizer({"default": CHATML, "tool_use": LLAMA3})
    ours = ChatTemplate(CHATML, LLAMA3, TOKENS)
    for tools in (None, TOOLS):
        messages = CALLED if tools else LONG
        expected = theirs.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
        assert render(ours, messages, tools, None, ORIGIN) == expected


def both(path: Path) -> ChatTemplate:
    """The template of a directory: the client and the build read the same one."""
    read = chat_template(path, {}, ORIGIN)
    assert chat_template(None, chat.parameters(Directory(path, {})), ORIGIN) == read
    return read


@pytest.mark.parametrize("adds_bos", [False, True], ids=["bare", "adds bos"])
def test_a_prompt_has_the_tokens_that_transformers_gives_the_messages(tmp_path: Path, adds_bos: bool) -> None:
    """The backend's tokenizer adds tokens to a prompt, and the template has already written one of them."""
    theirs = tokenizer({"default": LLAMA3, "tool_use": STRICT}, adds_bos)
    theirs.save_pretrained(tmp_path)
    template = both(tmp_path)
    assert (template.text, template.tool_use, template.prefix) == (LLAMA3, STRICT, "<s>" if adds_bos else "")
    prompt = render(template, HELLO, None, None, ORIGIN)
    expected = theirs.apply_chat_template(HELLO, add_generation_prompt=True, return_dict=False)
    assert theirs(prompt)["input_ids"] == expected


@pytest.mark.parametrize(
    ("config", "files", "prefix"),
    [
        ({"chat_template": CHATML}, {}, ""),
        ({"chat_template": "other"}, {"chat_template.jinja": CHATML}, ""),
        ({"chat_template": [{"name": "default", "template": CHATML}]}, {}, ""),
        ({}, {"chat_template.json": json.dumps({"chat_template": CHATML})}, ""),
        ({"chat_template": CHATML, "add_bos_token": True}, {}, "<s>"),
        ({"chat_template": CHATML, "tokenizer_class": "LlamaTokenizer"}, {}, "<s>"),
        ({"chat_template": CHATML, "tokenizer_class": "LlamaTokenizer", "add_bos_token": False}, {}, ""),
    ],
)
def test_every_place_of_a_template_is_known(tmp_path: Path, config: Any, files: dict[str, str], prefix: str) -> None:
    tokens = {"bos_token": {"content": "<s>", "lstrip": False}, "pad_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | tokens))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": "</s>", "bos_token": "<other>"}))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert both(tmp_path) == ChatTemplate(CHATML, "", {"bos_token": "<s>", "eos_token": "</s>"}, prefix)


def test_a_file_or_a_text_takes_the_published_tokens(tmp_path: Path) -> None:
    published = {"chat_template": STRICT, "special_tokens": json.dumps(TOKENS), "tokenizer_prefix": "<s>"}
    (tmp_path / "own.jinja").write_text(CHATML)
    for given in (tmp_path / "own.jinja", str(tmp_path / "own.jinja"), CHATML):
        assert chat_template(given, published, ORIGIN) == ChatTemplate(CHATML, "", TOKENS, "<s>")


def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(words: str, template: str = CHATML, messages: Any = HELLO, tools: Any = None) -> InvalidInput:
        with pytest.raises(InvalidInput, match=words) as caught:
            render(ChatTemplate(template), messages, tools, None, ORIGIN)
        return caught.value

    refused("messages is empty", messages=[])
    refused("messages is a str", messages="hello")
    refused("is no message", messages=[{"content": "x"}])
    refused("tools holds something else", tools=["x"])
    refused("is not Jinja", "{% for %}")
    refused("refuses the messages: .*unsafe", "{{ ''.__class__.__mro__ }}")
    refused("refuses the messages: .*append", "{{ messages.append(1) }}")  # a template changes nothing
    with pytest.raises(InvalidInput, match="has no chat template"):
        chat_template(tmp_path, {}, ORIGIN)
    with pytest.raises(InvalidInput, match="cannot be read"):
        chat_template(tmp_path / "absent", {}, ORIGIN)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(InvalidInput, match=r"cannot be read: tokenizer_config\.json is no JSON object"):
        chat_template(tmp_path, {}, ORIGIN)
    with pytest.raises(InvalidInput, match="'special_tokens' in the model's configuration"):
        chat_template(None, {"chat_template": "x", "special_tokens": "[]"}, ORIGIN)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert refused("messages= needs Jinja", "new").fix == "pip install 'tritonkit-client[chat]'"
