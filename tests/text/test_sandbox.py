"""Templates of strangers: what they may not do, how soon and how small they fail, and the dialect of `transformers`."""

# ruff: noqa: E501 (templates)
import random
import resource
import threading
import time
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from octavo.errors import CheckpointError, DataError, OctavoError
from octavo.text.sandbox.template import SandboxedTemplate

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1 < 2, isn't it?\n"},
    {"role": "assistant", "content": "<think>é</think> Yes. "},
]
BIG = "{% set big = 'a' * 1000000 %}"
GROWING = "{% set ns = namespace(x=X) %}{% for i in range(90) %}{% set ns.x = GROWN %}{% endfor %}"


def growing(first: str, grown: str, used: str = "{{ ns.x }}") -> str:
    return GROWING.replace("X", first, 1).replace("GROWN", grown) + used


ENDLESS = {
    "nested loops": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "filtered loops": "{% for a in range(99999) %}{% for b in range(99999) if b > 1e6 %}{% endfor %}{% endfor %}",
    "range": "{% for a in range(10**12) %}x{% endfor %}",
    "recursion": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "branching macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
    "callers": "{% macro m() %}{% for i in range(999) %}{{ caller() }}{% endfor %}{% endmacro %}"
    "{% for i in range(999) %}{% call m() %}{% for j in range(999) %}x{% endfor %}{% endcall %}{% endfor %}",
    "searching": BIG + "{% for i in range(100000) %}{{ 'b' in big }}{% endfor %}",
    "comparing": BIG + "{% set c = big ~ 'a' %}{% for i in range(100000) %}{{ big ~ 'a' == c }}{% endfor %}",
    "testing": BIG + "{% for i in range(100000) %}{{ 'b' is in big }}{% endfor %}",
    "stripping": "{{ ('a' * 1000000).strip('b' * 1000000 ~ 'a') }}",
    "splitting from the right": "{{ ('a' * 1000000).rsplit('a' * 400000 ~ 'b') }}",
    "hashing": growing("(1,)", "(ns.x, ns.x)", "{{ {ns.x: 1} }}"),
    "looking up": growing("(1,)", "(ns.x, ns.x)", "{{ {}[ns.x] }}"),
    "nested lists compared": growing("[1]", "[ns.x, ns.x]", "{{ ns.x == [ns.x] }}"),
    "attribute paths": "{{ range(100000)|map(attribute='a' ~ '.0' * 1000000)|list }}",
    "chains of iterators": "{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}"
    "{% set ns.x = ns.x|map('string') %}{% endfor %}{{ ns.x|list }}",
}
HUGE = {
    "string times number": "{{ 'a' * 10**12 }}",
    "number times string": "{{ 10**12 * 'a' }}",
    "list times number": "{{ ([1] * 10**10)|length }}",
    "power": "{{ 10 ** 64 ** 64 ** 64 }}",
    "products": growing("7", "ns.x * ns.x"),
    "sums of strings": growing("'abc'", "ns.x + ns.x"),
    "joined strings": growing("'abc'", "ns.x ~ ns.x"),
    "sums of lists": growing("[1]", "ns.x + ns.x", "{{ ns.x|length }}"),
    "lists in lists": growing("[1]", "[ns.x, ns.x]"),
    "lists in lists as JSON": growing("[1]", "[ns.x, ns.x]", "{{ ns.x|tojson }}"),
    "lists in lists as a string": growing("[1]", "[ns.x, ns.x]", "{{ ns.x|string|length }}"),
    "namespaces in namespaces": growing("1", "namespace(x=ns.x, y=ns.x)"),
    "join": BIG + "{{ big.join(range(100000)|map('string')) }}",
    "join filter": BIG + "{{ range(100000)|join(big) }}",
    "replace": BIG + "{{ big.replace('a', big) }}",
    "replace filter": BIG + "{{ big|replace('a', big) }}",
    "replace nothing": BIG + "{{ big.replace('', big) }}",
    "characters": "{{ ('数' * 12000000)|list|length }}",
    "words": "{{ ('数 ' * 5000000).split()|length }}",
    "indent": "{{ 'a\n' * 100|indent(10**9) }}",
    "JSON indent": "{{ [1]|tojson(indent=10**9) }}",
    "JSON separators": "{{ [1, 2]|tojson(separators=('a' * 100000000, ':')) }}",
    "captured": BIG + "{% set x %}{% for i in range(100000) %}{{ big }}{% endfor %}{% endset %}{{ x }}",
    "printed": BIG + "{% for i in range(100000) %}{{ big }}{% endfor %}",
    "constants": "{% for i in range(100000) %}" + "x" * 50_000 + "{% endfor %}",
    "date": "{{ strftime_now('%1000000000d') }}",
    "dates": "{{ strftime_now('%c' * 100000) }}",
}
REACHING = {
    "classes": "{{ messages.__class__.__mro__ }}",
    "subscripts": "{{ ''['__class__'] }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "environment": "{{ self._TemplateReference__context.environment }}",
    "mapped": "{{ messages|map(attribute='__class__')|list }}",
    "generators": "{{ (messages|map('length')).gi_frame }}",
    "changes": "{{ messages.append(1) }}",
    "format": "{{ '{0.__class__}'.format(1) }}",
    "format of a map": "{{ '{x:1000000000}'.format_map({'x': 1}) }}",
    "printf": "{{ '%1000000000d' % 1 }}",
    "padding": "{{ 'a'.ljust(10**10) }}",
    "zeros": "{{ 'a'.zfill(10**10) }}",
    "tabs": "{{ '\t'.expandtabs(10**10) }}",
    "bytes": "{{ (1).to_bytes(10**10, 'big') }}",
    "namespace": "{{ namespace(__html__=1) }}",
    "lipsum": "{{ lipsum(10**9) }}",
}
REFUSED = {
    "attr": "{{ ''|attr('__class__') }}",
    "center": "{{ 'a'|center(10**10) }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import '/etc/passwd' as x %}",
    "from": "{% from '/etc/passwd' import x %}",
    "extends": "{% extends '/etc/passwd' %}",
    "block": "{% block x %}{% endblock %}",
    "autoescape": "{% autoescape true %}{% endautoescape %}",
    "recursive loop": "{% for x in [[1]] recursive %}{{ loop(x) }}{% endfor %}",
    "namespace attribute": "{% set ns = namespace() %}{% set ns.__html__ = 1 %}",
    "too long": "x" * 100_000,
    "too large": "{{ a.b }}" * 7_000,
    "brackets": "{{ " + "[" * 15_000 + "]" * 15_000 + " }}",
    "nots": "{{ " + "not " * 15_000 + "1 }}",
    "sum": "{{ " + "1 + " * 15_000 + "1 }}",
    "nested ifs": "{% if 1 %}" * 3_000 + "{% endif %}" * 3_000,
    "nested loops": "{% for i in [1] %}" * 200 + "{% endfor %}" * 200,
    "many branches": "{% if 0 %}" + "{% elif 0 %}" * 5_000 + "{% endif %}",
    "digits": "{{ " + "9" * 10_000 + " }}",
    "break": "{% break %}",
    "unclosed": "{{ messages",
}


def spent(source: str) -> tuple[float, float, str | OctavoError]:
    """Seconds, megabytes of growth, and what came of it."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        outcome = SandboxedTemplate(source).render({"messages": MESSAGES, "add_generation_prompt": True})
    except OctavoError as error:
        outcome = error
    seconds = time.process_time() - start
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, outcome


@pytest.mark.parametrize("name", [*ENDLESS, *HUGE])
def test_endless_and_huge_templates_end_soon_and_small(name: str):
    seconds, megabytes, error = spent((ENDLESS | HUGE)[name])
    assert isinstance(error, DataError)
    assert str(error).startswith("chat template: ")
    assert "\n" not in str(error)
    assert len(str(error)) < 400
    assert seconds < 3
    assert megabytes < 200


@pytest.mark.parametrize("name", REACHING)
def test_nothing_outside_is_reached(name: str):
    seconds, megabytes, outcome = spent(REACHING[name])
    if isinstance(outcome, OctavoError):
        assert any(word in str(outcome) for word in ("unsafe", "not for chat templates", "undefined", "may not"))
    else:  # what may not be read is undefined, which prints as nothing
        assert outcome in ("", "[Undefined, Undefined, Undefined]")
    assert (seconds < 1, megabytes < 50) == (True, True)


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_template_may_have_is_refused_when_it_is_read(name: str):
    start = time.process_time()
    with pytest.raises(CheckpointError, match="chat template: ") as caught:
        SandboxedTemplate(REFUSED[name])
    assert time.process_time() - start < 3
    assert len(str(caught.value)) < 400


def test_long_conversations_are_no_bomb():
    messages = [{"role": "user" if turn % 2 == 0 else "assistant", "content": "word " * 40} for turn in range(3000)]
    source = """{% for message in messages %}{% if '</think>' in message.content %}{% set c = message.content.split('</think>')[-1] %}
    {% else %}{% set c = message.content|trim %}{% endif %}{{ '<|im_start|>' ~ message.role + '\n' + c + '<|im_end|>' }}
    {% if loop.last or messages[loop.index0 + 1].role != message.role %}{{ '\n' }}{% endif %}{% endfor %}"""
    assert SandboxedTemplate(source).render({"messages": messages}).count("<|im_start|>") == 3000
    one = [{"role": "user", "content": "word\n" * 400_000}]
    rendered = SandboxedTemplate(source + "{{ messages|tojson }}").render({"messages": one})
    assert len(rendered) > 4_000_000


def test_threads_share_a_template():
    template = SandboxedTemplate(
        "{% for m in messages %}{{ m.content }}{% for i in range(50) %}.{% endfor %}{% endfor %}"
    )
    texts: dict[int, str] = {}

    def work(number: int) -> None:
        texts[number] = "".join(template.render({"messages": [{"content": str(number)}] * 20}) for _ in range(20))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {number: (str(number) + "." * 50) * 400 for number in range(8)}


STATEMENTS = [
    "{% set ns.x = [ns.x, ns.x] %}", "{% set ns.s = ns.s ~ ns.s %}", "{% set ns.s = ns.s * 99 %}", "{{ f(1) }}", "text ",
    "{{ f(f) }}", "{{ m.content }}", "{{ ns.x }}", "{{ ns.s|replace('a', ns.s) }}", "{{ ns.s.join(ns.x) }}", "{{ ns }}",
    "{{ ns.x|tojson(indent=9) }}", "{{ messages|map(attribute='content')|join(', ') }}", "{{ loop.index }}", "{% break %}",
    "{{ messages|sort(attribute='role')|list }}", "{{ ns.s|length ** 9 }}", "{{ m.content[::-1] }}", "{{ m['role'] }}",
    "{{ caller() }}", "{{ m.content|trim|title ~ 1.5 }}", "{{ messages|selectattr('role', 'equalto', 'user')|list }}",
    "{{ ns.x.__class__ }}", "{{ dict(a=ns.x)|dictsort }}", "{{ cycler(1, 2).next() }}", "{% continue %}", "{{ x }}",
    "{% set ns.x = ns.x|map('string') %}", "{{ ns.s.split('a') }}", "{{ ns.s in ns.s }}", "{% set ns.x = messages + ns.x %}",
    "{% set ns.s = ns.x|string %}", "{{ messages[-1:] }}", "{% set ns = namespace(x=[1], s='ab', n=ns) %}",
]  # fmt: skip
BLOCKS = [
    ("{% for m in messages %}", "{% endfor %}"), ("{% for i in range(99999) %}", "{% endfor %}"),
    ("{% for i in ns.x if i %}", "{% else %}no{% endfor %}"), ("{% if m %}", "{% else %}-{% endif %}"),
    ("{% macro f(x, y=ns.s) %}", "{% endmacro %}"), ("{% generation %}", "{% endgeneration %}"),
    ("{% set x %}", "{% endset %}"), ("{% filter upper %}", "{% endfilter %}"), ("{% call f(2) %}", "{% endcall %}"),
    ("{% set ns = namespace(x=[1], s='ab') %}", ""), ("{% with m = messages[0] %}", "{% endwith %}"),
]  # fmt: skip
noise = st.text("{}%# '\"ab[]()|.,~*+", max_size=4)
templates = st.recursive(
    st.sampled_from(STATEMENTS) | noise.filter(lambda text: "{" not in text),
    lambda inner: st.tuples(st.sampled_from(BLOCKS), st.lists(inner, max_size=5)).map(
        lambda parts: parts[0][0] + "".join(parts[1]) + parts[0][1]
    ),
    max_leaves=25,
)


@settings(deadline=timedelta(seconds=10), max_examples=60)
@given(templates | st.lists(noise | st.sampled_from(STATEMENTS)).map("".join))
def test_random_templates_render_or_fail_clearly(source: str):
    defined = "{% set ns = namespace(x=[1], s='ab') %}{% set m = messages[0] %}{% macro f(x) %}{{ x }}{% endmacro %}"
    _, megabytes, outcome = spent(defined + source)
    assert isinstance(outcome, str) or str(outcome).startswith("chat template: ")
    assert megabytes < 200


DIALECT = [
    "{% for message in messages %}\n    {% if loop.first %}\n  {{ message.role }}\n    {% endif %}\n{% endfor %}\nend",
    "{%- for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}{{ loop.index ~ m.role }}{%- endfor -%}  x",
    "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{{ {'b': '<', 'a': 'é'}|tojson(sort_keys=true) }}",
    "{{ bos_token }}{{ eos_token }}{{ missing }}{{ tools is none }}{{ tools is defined }}{{ add_generation_prompt }}",
    "{% set ns = namespace(n=0) %}{% for m in messages[::-1] %}{% set ns.n = ns.n + m.content|length %}{% endfor %}{{ ns.n }}",
    "{% macro show(m, sep=': ') %}{{ m.role ~ sep }}{{ caller() if caller else '' }}{% endmacro %}{{ show(messages[0]) }}"
    "{% call show(messages[1], '>') %}in{% endcall %}",
    "{{ messages|map(attribute='role')|join(', ') }}{{ messages|selectattr('role', '==', 'user')|list|length }}"
    "{{ messages|rejectattr('role', 'in', ['user', 'system'])|map(attribute='content')|first }}",
    "{{ messages[1].content.split('<')[0].rstrip() ~ messages[-1]['content'].strip().replace('Yes', 'No') }}",
    "{{ messages[-1].content.split('</think>')[-1].lstrip() if '</think>' in messages[-1].content else '-' }}",
    "{{ 'a,b'.split(',')|last|upper }}{{ [3, 1, 2]|sort|join }}{{ {'x': 1}.items()|list }}{{ 7 // 2 }}{{ 7 % 4 }}{{ 2 ** 5 }}",
    "{{ messages[0].content is string and messages[0].content is not mapping }}{{ 1.0 }}{{ none }}{{ true }}{{ [1, 'a'] }}",
    "{% set x %}{{ messages[0].role }}!{% endset %}{{ x|trim }}{% filter upper %}shout{% endfilter %}{{ 'a' 'b' ~ 3 }}",
    "{% generation %}{{ messages[-1].content }}{% endgeneration %}{{ dict(a=1, b=2)|dictsort }}{{ 'x' if x is defined }}",
    "{{ (messages|last).role|default('none') }}{{ nothing|default('d', true) }}{{ 'line\nline'|indent(2) }}{{ range(3)|list }}",
    "{{ messages[9] }}{{ messages[0].nothing }}{{ messages[0]['content'][:2] }}{{ messages[0].get('role') }}{{ -3|abs }}",
    "{%- for key, value in messages[0].items() %}{{ key }}={{ value }};{%- else %}none{%- endfor %}{{ strftime_now('%%') }}",
    "{{ messages|map('length')|list }}{{ [1, 1, 2]|unique|list }}{{ 'b<'|e }}{{ 'ab'|list|reverse|join }}{{ '5'|int + 1 }}",
    "{{ cycler('a', 'b').next() }}{% set j = joiner('|') %}{{ j() }}{{ j() }}{{ [[1, 2], [3]]|map('first')|sort|max }}",
]


@pytest.mark.parametrize("source", DIALECT)
@pytest.mark.parametrize("prompt", [True, False])
def test_the_dialect_is_that_of_transformers(source: str, prompt: bool):
    variables = {"tools": None, "documents": None, "bos_token": "<s>", "eos_token": "</s>"}
    ours = SandboxedTemplate(source).render({**variables, "messages": MESSAGES, "add_generation_prompt": prompt})
    theirs, _ = render_jinja_template([MESSAGES], chat_template=source, add_generation_prompt=prompt, **{
        key: value for key, value in variables.items() if value is not None})  # fmt: skip
    assert [ours] == theirs


@pytest.mark.parametrize(
    "source",
    ["{{ raise_exception('no tools') }}", "{{ messages[0].content + 1 }}", "{{ missing.attribute }}", "{{ 1 / 0 }}"],
)
def test_errors_of_templates_are_data_errors(source: str):
    with pytest.raises(Exception):  # noqa: B017, PT011 (whatever it is there)
        render_jinja_template([MESSAGES], chat_template=source)
    with pytest.raises(DataError, match="chat template: "):
        SandboxedTemplate(source).render({"messages": MESSAGES})


def test_marks_of_what_is_generated():
    template = SandboxedTemplate("a{% generation %}b{% endgeneration %}c")
    assert (template.marks_generation, template.render({}, "<", ">")) == (True, "a<b>c")
    assert not SandboxedTemplate("abc").marks_generation


def test_random_order_of_messages_does_not_leak_between_renderings():
    template, rng = SandboxedTemplate("{% for m in messages %}{{ m.content }}{% endfor %}"), random.Random(0)
    for _ in range(20):
        messages = [{"content": str(rng.random())} for _ in range(rng.randrange(5))]
        assert template.render({"messages": messages}) == "".join(m["content"] for m in messages)
