"""Go's text/template as Go executes it. What is expected here was printed by Go 1.19's own package."""

from __future__ import annotations

import pytest

from gristmill.models.ollama.go_template.execution import GoTemplate
from gristmill.models.ollama.go_template.lexer import TemplateError
from gristmill.models.ollama.go_template.values import Struct

VALUES = {
    "N": 3.0,
    "F": 1.5,
    "Big": 1e21,
    "Small": 1e-5,
    "L": [1.0, 2.0, "x"],
    "M": {"b": 1.0, "a": {"k": "v"}},
    "S": "héllo",
    "E": "",
    "T": True,
    "Nil": None,
    "EL": [],
}


def executed(source: str) -> str:
    return GoTemplate(source).execute(VALUES)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        # Values as they print.
        ("{{ .N }} {{ .F }} {{ .Big }} {{ .Small }} {{ .T }}", "3 1.5 1e+21 1e-05 true"),
        ("{{ .L }} {{ .M }} {{ .EL }}", "[1 2 x] map[a:map[k:v] b:1] []"),
        ("{{ .Nil }}|{{ .Missing }}|{{ .M.zz }}", "<no value>|<no value>|<no value>"),
        ("{{ json .L }}{{ json .M }}{{ json .Nil }}", '[1,2,"x"]{"a":{"k":"v"},"b":1}null'),
        ('{{ json "<a&b>" }}{{ json .Big }}{{ json .Small }}', '"\\u003ca\\u0026b\\u003e"1e+210.00001'),
        (
            "{{ \"q\\u00e9\\n\" }}{{ `raw\\n` }}{{ 'a' }}{{ 0x1F }}{{ 1_000 }}{{ 010 }}{{ .5 }}",
            "qé\nraw\\n973110008" + "0.5",
        ),
        # Spaces.
        ('{{- "a" }}   x   {{- /* c */ -}}  y  {{/* z */}}  w', "a   xy    w"),
        ("a \n{{- .N -}}\n b", "a3b"),
        # Branches and variables.
        ("{{ if .E }}y{{ else if .N }}m{{ else }}n{{ end }}", "m"),
        ("{{ with .M }}{{ .a.k }}{{ end }}{{ with .Nil }}x{{ else }}nil{{ end }}", "vnil"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("{{ $x := 1 }}{{ if true }}{{ $x := 3 }}{{ $x }}{{ end }}{{ $x }}", "31"),
        ("{{ $y := .Missing }}{{ $y.Foo }}", "<no value>"),
        # Ranges.
        (
            "{{ range $i, $e := .L }}{{ $i }}={{ $e }};{{ end }}{{ range .EL }}x{{ else }}none{{ end }}",
            "0=1;1=2;2=x;none",
        ),
        ("{{ range $k, $v := .M }}{{ $k }},{{ end }}{{ range .Missing }}x{{ else }}none{{ end }}", "a,b,none"),
        ("{{ range $i, $e := .L }}{{ if eq $i 1 }}{{ continue }}{{ end }}{{ $e }}{{ end }}", "1x"),
        ("{{ range $i, $e := .L }}{{ if eq $i 1 }}{{ break }}{{ end }}{{ $e }}{{ end }}", "1"),
        # Functions.
        ("{{ len .S }} {{ index .S 1 }} {{ slice .S 1 3 }} {{ slice .L 1 2 }}", "6 195 é [2]"),
        ('{{ index .M "a" "k" }}{{ (index .M "a").k }}{{ (.M).b }}', "vv1"),
        ('{{ and 1 2 }}{{ and .E .S }}|{{ or "" 0 }}{{ or .T (index .L 99) }}{{ not .E }}', "2|0truetrue"),
        (
            '{{ eq 1 2 3 1 }}{{ ne "a" "b" }}{{ lt 1 2 }}{{ ge 1.5 1.5 }}{{ eq .Nil nil }}{{ eq .S nil }}',
            "true" * 5 + "false",
        ),
        (
            '{{ .S | printf "%s-%s" "a" }}|{{ printf "%5d|%-5d|%05d" 1 2 3 }}|{{ printf "%.2f" 1.005 }}',
            "a-héllo|    1|2    |00003|1.00",
        ),
        ('{{ printf "%q" "a\\tb\\"c\\\\ü\\x01" }}{{ print "a" 1 2 "c" 3 }}', '"a\\tb\\"c\\\\ü\\x01"a1 2c3'),
        # Templates within templates.
        (
            '{{ define "t" }}<{{ . }}{{ $ }}>{{ end }}{{ template "t" .S }}{{ template "t" }}',
            "<héllohéllo><<no value><no value>>",
        ),
        ('{{ block "b" .N }}({{ . }}){{ end }}', "(3)"),
    ],
)
def test_it_writes_what_go_writes(source: str, text: str) -> None:
    assert executed(source) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ eq .S 1 }}", "{{ eq .N 3 }}", '{{ lt "a" 1 }}', "{{ index .L 5 }}", "{{ index .L -1 }}",
        "{{ index .Nil 1 }}", "{{ len .Nil }}", "{{ len 3 }}", "{{ slice .L 2 1 }}",
        '{{ template "none" . }}', "{{ .S.Foo }}",
        "{{ .Missing.Foo }}", "{{ .M.zz.k }}", "{{ .N 1 }}", "{{ range .S }}{{ end }}", '{{ "a" | .S }}', "{{ nil }}",
        "{{ not }}", "{{ and }}", "{{ eq 1 }}", '{{ printf "%d" "x" }}', '{{ printf "%d" }}',
    ],
)  # fmt: skip
def test_what_go_cannot_execute_is_an_error(source: str) -> None:
    template = GoTemplate(source)
    with pytest.raises(TemplateError, match="^line 1: "):
        template.execute(VALUES)


@pytest.mark.parametrize(
    "source",
    [
        "{{ nope }}", "{{ if }}x{{ end }}", "{{ end }}", "{{ if .S }}x", "{{ $undefined }}", "{{ 1 | 2 }}",
        "{{ break }}",
        '{{ "unclosed }}', "{{ .A", "{{ else }}", "{{ if .S }}{{ else }}{{ else }}{{ end }}", "{{ 'ab' }}",
        '{{ define "x" }}{{ define "y" }}{{ end }}{{ end }}', '{{ $x := 1 }}{{ define "q" }}{{ $x }}{{ end }}',
        "{{ range $i, $e, $x := .L }}{{ end }}", "{{ 99999999999999999999 }}", "{{ ) }}", "{{ .A ? }}", "{{ $x = 1 }}",
        "{{ (.A }}", "{{ }}",
    ],
)  # fmt: skip
def test_what_is_no_template_is_an_error_at_once(source: str) -> None:
    with pytest.raises(TemplateError):
        GoTemplate(source)


def test_errors_say_the_line() -> None:
    with pytest.raises(TemplateError, match="line 3: there is no function nope"):
        GoTemplate("a\n{{ .S }}\n{{ nope }}")
    with pytest.raises(TemplateError, match="line 2: the index 9 of 3 values"):
        executed("{{ .S }}\n{{ index .L 9 }}")


@pytest.mark.parametrize(
    "source",
    [
        '{{ define "a" }}{{ template "a" . }}{{ end }}{{ template "a" . }}',
        "{{ range 1000000000 }}{{ end }}",
        '{{ $x := .S }}{{ range 40 }}{{ $x = printf "%s%s" $x $x }}{{ end }}',
        '{{ range 100000000 }}{{ "x" }}{{ end }}',
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ if 1 }}" * 5000 + "{{ end }}" * 5000,
    ],
)
def test_a_template_that_asks_for_too_much_comes_to_an_end(source: str) -> None:
    with pytest.raises(TemplateError):
        executed(source)


def test_structs_have_their_fields_and_no_others() -> None:
    template = GoTemplate("{{ range .Messages }}{{ .Role }}{{ end }}{{ index .Messages 0 }}")
    message = Struct({"Role": "user", "Content": "Hi"})
    assert template.execute({"Messages": [message]}) == "user{user Hi}"
    with pytest.raises(TemplateError, match="no field Name"):
        GoTemplate("{{ (index .Messages 0).Name }}").execute({"Messages": [message]})
