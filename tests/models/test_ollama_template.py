"""Prompts as Ollama writes them. What is expected follows its template.go; the templates are of kinds that its library
has, and what the old kind gives was compared with the outputs that Ollama's own tests hold, for all twenty templates of
its repository."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from gristmill.models.ollama.go_template.lexer import TemplateError
from gristmill.models.ollama.template import OllamaTemplate, TemplateCall, TemplateMessage
from gristmill.models.ollama.template_choice import prefers_chat_template

GEMMA = """{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}
{{- if or (eq .Role "user") (eq .Role "system") }}<start_of_turn>user
{{ .Content }}<end_of_turn>
{{ if $last }}<start_of_turn>model
{{ end }}
{{- else if eq .Role "assistant" }}<start_of_turn>model
{{ .Content }}{{ if not $last }}<end_of_turn>
{{ end }}
{{- end }}
{{- end }}"""
TOOLS = """{{- if .Tools }}<tools>
{{- range .Tools }}
{{ . }}
{{- end }}
</tools>{{ end }}
{{- range .Messages }}[{{ .Role }}]
{{- if .Content }} {{ .Content }}{{ end }}
{{- range .ToolCalls }} <tool_call>{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}</tool_call>
{{- end }}
{{- if eq .Role "tool" }} ({{ .ToolName }} {{ .ToolCallID }}){{ end }}
{{- end }}"""
THINKING = """{{- range .Messages }}{{ .Role }}:
{{- if .Thinking }}<think>{{ .Thinking }}</think>
{{- end }}{{ .Content }};
{{- end }}{{ if and $.IsThinkSet (not $.Think) }}<think></think>{{ end }}"""
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "In a city",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "when": {"type": ["integer", "null"], "minimum": 1},
                "city": {"type": "string", "enum": ["Bern", "Ulm"]},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def chat(*turns: tuple[str, str]) -> list[TemplateMessage]:
    return [TemplateMessage(role, content) for role, content in turns]


def test_a_template_of_messages_is_executed_once() -> None:
    found = OllamaTemplate(GEMMA).render(
        chat(("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes"), ("user", "No"))
    )
    assert found == (
        "<start_of_turn>user\nBe brief.<end_of_turn>\n<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"
        "Yes<end_of_turn>\n<start_of_turn>user\nNo<end_of_turn>\n<start_of_turn>model\n"
    )


def test_a_template_may_continue_the_last_answer() -> None:
    assert OllamaTemplate(GEMMA).render(chat(("user", "Hi"), ("assistant", "Ye"))).endswith("<start_of_turn>model\nYe")


def test_messages_of_one_role_that_follow_each_other_are_one() -> None:
    template = OllamaTemplate("{{ .System }}|{{ range .Messages }}{{ .Role }}:{{ .Content }};{{ end }}")
    messages = chat(("system", "a"), ("system", "b"), ("user", "c"), ("user", "d"), ("tool", "e"), ("tool", "f"))
    assert template.render(messages) == "a\n\nb|system:a\n\nb;user:c\n\nd;tool:e;tool:f;"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("{{ .Prompt }}", "HiYesNo"),
        (
            "[INST] {{ if .System }}{{ .System }}\n{{ end }}{{ .Prompt }}[/INST] ",
            "[INST] Be brief.\nHi[/INST] Yes[INST] No[/INST] ",
        ),
        ("<u>{{ .Prompt }}<a>{{ .Response }}<end>", "<u>Hi<a>Yes<end><u>No<a>"),
        (
            "{{ with .System }}S:{{ . }};{{ end }}{{ with .Prompt }}U:{{ . }};{{ end }}A:{{ .Response }}\n",
            "S:Be brief.;U:Hi;A:Yes\nU:No;A:",
        ),
        ("{{ .Prompt }}{{ if .Response }}{{ .Response }}{{ end }}<end>", "HiYes<end>No"),
        ('{{ printf "%s=%s" .Prompt .Response }}<end>', "Hi=Yes<end>No="),
    ],
)
def test_an_old_template_is_executed_for_each_answer_and_cut_where_the_last_begins(source: str, found: str) -> None:
    messages = chat(("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes"), ("user", "No"))
    assert OllamaTemplate(source).render(messages) == found


def test_tools_are_what_ollamas_types_keep_of_them() -> None:
    call = TemplateCall("call_1", "weather", {"when": 3, "city": "Ulm"})
    messages = [
        TemplateMessage("user", "Ulm?"),
        TemplateMessage("assistant", "", calls=(call,)),
        TemplateMessage("tool", "Wet.", tool_name="weather", tool_call_id="call_1"),
    ]
    assert OllamaTemplate(TOOLS).render(messages, [WEATHER]) == (
        '<tools>\n{"type":"function","function":{"name":"weather","description":"In a city","parameters":'
        '{"type":"object","required":["city"],"properties":{"city":{"type":"string","enum":["Bern","Ulm"]},'
        '"when":{"type":["integer","null"]}}}}}\n</tools>'
        '[user] Ulm?[assistant] <tool_call>{"name": "weather", "arguments": {"city":"Ulm","when":3}}'
        "</tool_call>[tool] Wet. (weather call_1)"
    )
    bare = {"type": "function", "function": {"name": "f"}}
    assert '{"name":"f","parameters":{"type":"","properties":null}}' in OllamaTemplate(TOOLS).render(messages, [bare])


def test_types_can_be_written_as_typescript() -> None:
    source = "{{ range .Messages }}{{ end }}{{ range .Tools }}{{ range $n, $p := .Function.Parameters.Properties }}"
    template = OllamaTemplate(
        source + "{{ $n }}: {{ toTypeScriptType $p }}; {{ end }}{{ end }}{{ toTypeScriptType 3 }}"
    )
    assert template.render(chat(("user", "Hi")), [WEATHER]) == "city: string; when: number | null; any"


def test_a_model_that_can_think_is_told_not_to() -> None:
    thinking = OllamaTemplate(THINKING)
    assert thinking.thinks and not OllamaTemplate(GEMMA).thinks
    messages = [TemplateMessage("assistant", "Yes", thinking="Hm"), TemplateMessage("user", "Why")]
    assert thinking.render(messages) == "assistant:<think>Hm</think>Yes;user:Why;<think></think>"


def test_dates_are_those_of_today() -> None:
    template = OllamaTemplate('{{ range .Messages }}{{ end }}{{ currentDate }} {{ yesterdayDate "2006" }}')
    today = date.today()
    assert template.render(chat(("user", "Hi"))) in (
        f"{day} {day - timedelta(days=1)}" for day in (today, today + timedelta(days=1))
    )


def test_a_field_that_messages_lack_is_an_error() -> None:
    with pytest.raises(TemplateError, match="no field Name"):
        OllamaTemplate("{{ range .Messages }}{{ .Name }}{{ end }}").render(chat(("user", "Hi")))


@pytest.mark.parametrize(
    ("source", "chat_template", "prefers"),
    [
        (GEMMA, "", False),
        (GEMMA, "{{ messages }}", False),
        (GEMMA, "{{ tools }}{{ messages }}", True),
        (GEMMA, "<think></think>{{ messages }}", True),
        (TOOLS, "{{ tools }}{{ messages }}", False),
        (TOOLS, "{{ tools }} tool_calls tool_response <think></think>", True),
        (TOOLS, "{{ tools }} <think></think>", False),
        (TOOLS, "{{ tools }} tool_calls tool_response", False),
        ("{{ range .Messages }}{{ .ToolCalls }}{{ end }}{{ .Tools }}", "{{ tools }} tool_calls tool_response", True),
        (THINKING, "<think></think>", False),
    ],
)
def test_the_template_in_the_models_file_is_taken_where_it_can_do_more(
    source: str, chat_template: str, prefers: bool
) -> None:
    assert prefers_chat_template(OllamaTemplate(source), source, chat_template) is prefers
