from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusgen.prompting.templates import TemplateError, fill, variables

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)


@given(st.lists(st.tuples(st.text(), names)), st.text(), st.data())
def test_values_stand_in_the_text_as_they_are(parts: list[tuple[str, str]], tail: str, data: st.DataObject) -> None:
    values = {name: data.draw(st.text()) for _, name in parts}
    template = "".join(f"{escaped(text)}{{{name}}}" for text, name in parts) + escaped(tail)
    assert fill(template, values) == "".join(text + values[name] for text, name in parts) + tail


@given(st.text())
def test_braces_in_a_value_are_never_read(value: str) -> None:
    hostile = "{secret}{{secret}}{0}{a.b}" + value
    assert fill("{text}", {"text": hostile, "secret": "CANARY"}) == hostile


@given(st.text(alphabet="{}ab_.![]0: \n"))
def test_a_template_is_refused_or_uses_only_what_it_names(template: str) -> None:
    try:
        used = variables(template)
    except TemplateError:
        return
    fill(template, dict.fromkeys(used, "x"))


HOSTILE = [
    "{seed._key}",
    "{seed.__class__.__init__.__globals__}",
    "{seed.__class__.__init__.__globals__[jinja2]}",
    "{seed:>99999999999}",
    "{seed!r}",
    "{0}",
    "{}",
    "{a[0]}",
    "{ seed }",
    "{seed\n}",
    "{se ed}",
    "{séed}",
    "{seed",
    "seed}",
    "{{seed}",
    "{'x'*10**10}",
    "{% for a in range(99999) %}",
]


@pytest.mark.parametrize("template", HOSTILE)
def test_anything_but_a_bare_name_is_refused(template: str) -> None:
    with pytest.raises(TemplateError):
        variables(template)


def test_a_refusal_says_what_to_write_and_where() -> None:
    with pytest.raises(TemplateError, match=r"'\{seed\.key\}' is not a bare name such as \{definition\}") as raised:
        variables("one\ntwo {seed.key}")
    assert raised.value.line == 1
    with pytest.raises(TemplateError, match="a single '}'; write it twice"):
        variables("a } b")


def test_doubled_braces_are_braces() -> None:
    assert fill('{{"text": "{text}"}}', {"text": "x"}) == '{"text": "x"}'
    assert variables("{{not_a_variable}}") == {}


def escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
