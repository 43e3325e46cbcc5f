"""HTML page of an OpenAPI document, served at `/docs`, without scripts or external resources."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from html import escape
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--ground:#fff;--panel:#f6f8fa;--line:#d1d9e0;--link:#0550ae;
--get:#0a6640;--post:#7a3e00}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa5b1;--ground:#0d1117;--panel:#161b22;--line:#30363d;
--link:#79b8ff;--get:#56d39a;--post:#f0a35e}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.55 system-ui,sans-serif;overflow-wrap:break-word}
header,nav,main{max-width:60rem;margin:0 auto;padding:0 1rem}
h1{margin:1.5rem 0 .25rem;font-size:1.75rem}
h2{margin:3rem 0 .5rem;padding-bottom:.25rem;border-bottom:1px solid var(--line)}
h3{margin:2.5rem 0 .25rem;font-size:1.15rem}
h4{margin:1.25rem 0 .4rem;font-size:.95rem;color:var(--soft)}
h2,h3,tr{scroll-margin-top:1rem}
p{margin:.5rem 0}
a{color:var(--link);text-decoration:none}
a:hover{text-decoration:underline}
a:focus-visible{outline:2px solid var(--link);outline-offset:2px}
code,pre{font:.875em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
code{background:var(--panel);padding:.1em .3em;border-radius:4px}
pre{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:.75rem;margin:.5rem 0}
pre code{background:none;padding:0;font-size:1em}
pre,.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.925rem}
th,td{text-align:left;vertical-align:top;padding:.4rem .75rem .4rem 0;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:600;white-space:nowrap}
td:first-child{white-space:nowrap}
.method{display:inline-block;min-width:3.2rem;font:600 .85em ui-monospace,monospace;color:var(--get)}
.post{color:var(--post)}
.soft{color:var(--soft)}
nav ul{list-style:none;padding:0;margin:.25rem 0 1rem}
nav li{padding:.15rem 0}
"""


def render(document: Mapping[str, Any], base: str, token_file: Path) -> str:
    """Return the HTML page of a document. Its examples call the service at `base` with the token in `token_file`."""
    info = document["info"]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>",
        f"<header><h1>{escape(info['title'])}</h1><p class=soft>{escape(info['summary'])} Version ",
        f"{escape(info['version'])}. <a href=/openapi.json>OpenAPI 3.1</a></p>",
        *(f"<p>{_text(paragraph)}</p>" for paragraph in info["description"].replace("\n", " ").split("  ")),
        "<p>The examples below need two variables:</p>",
        _code(f"BASE={base}\nTOKEN=$(cat {shlex.quote(str(token_file))})"),
        "</header>",
        *_contents(document),
        "<main>",
    ]
    for tag in document["tags"]:
        parts.append(
            f"<h2 id={_anchor('tag', tag['name'])}>{escape(tag['name'])}</h2><p>{_text(tag['description'])}</p>"
        )
        parts += [_operation(document, *found) for found in _operations(document, tag["name"])]
    parts.append("<h2 id=schemas>Schemas</h2>")
    parts += [_schema(name, schema) for name, schema in document["components"]["schemas"].items()]
    parts += [_problems(document["x-problems"]), "</main></body></html>"]
    return "".join(parts)


def _operations(document: Mapping[str, Any], tag: str) -> Iterable[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if tag in operation["tags"]:
                yield method.upper(), path, operation


def _contents(document: Mapping[str, Any]) -> Iterable[str]:
    yield "<nav aria-label=Contents><ul>"
    for tag in document["tags"]:
        yield f"<li><a href=#{_anchor('tag', tag['name'])}><b>{escape(tag['name'])}</b></a></li>"
        for method, path, operation in _operations(document, tag["name"]):
            link = f"<a href=#{escape(operation['operationId'])}>{escape(path)}</a>"
            yield f"<li>{_method(method)} {link} <span class=soft>{_text(operation['summary'])}</span></li>"
    yield "<li><a href=#schemas><b>Schemas</b></a></li><li><a href=#problems><b>Problem types</b></a></li></ul></nav>"


def _operation(document: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]) -> str:
    parts = [
        f"<h3 id={escape(operation['operationId'])}>{_method(method)} <code>{escape(path)}</code></h3>",
        f"<p><b>{_text(operation['summary'])}.</b> {_text(operation['description'])}</p>",
    ]
    if "security" in operation:
        parts.append("<p class=soft>Needs no token.</p>")
    if operation.get("parameters"):
        rows = [
            (f"<code>{escape(p['name'])}</code>", escape(p["in"]), _type(p["schema"]), _text(p["description"]))
            for p in operation["parameters"]
        ]
        parts.append("<h4>Parameters</h4>" + _table(("Name", "In", "Type", "Meaning"), rows))
    body = operation.get("requestBody")
    if body:
        schema = body["content"]["application/json"]["schema"]
        need = "" if body["required"] else " <span class=soft>(optional)</span>"
        parts.append(f"<h4>Request body</h4><p>{_type(schema)}{need}</p>")
    parts.append("<h4>Example</h4>" + _code(_curl(method, path, operation)))
    shown = _example_of_answer(document, operation)
    if shown is not None:
        parts.append(_code(shown))
    parts.append(
        "<h4>Answers</h4>" + _table(("Status", "", "Content"), [_answer(*a) for a in operation["responses"].items()])
    )
    return "".join(parts)


def _curl(method: str, path: str, operation: Mapping[str, Any]) -> str:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", parameter["example"])
    lines = [f'curl -s "$BASE{path}"' if method == "GET" else f'curl -s -X {method} "$BASE{path}"']
    if "security" not in operation:
        lines.append('-H "Authorization: Bearer $TOKEN"')
    if "requestBody" in operation:
        example = operation["requestBody"]["content"]["application/json"]["example"]
        lines += ["-H 'Content-Type: application/json'", f"-d '{json.dumps(example)}'"]
    return " \\\n  ".join(lines)


def _example_of_answer(document: Mapping[str, Any], operation: Mapping[str, Any]) -> str | None:
    """Return the example in the schema of the 201, 200 or 202 of an operation, None if the schema has no example."""
    found = operation["responses"]
    answer = found.get("201") or found.get("200") or found["202"]
    reference = answer["content"].get("application/json", {}).get("schema", {}).get("$ref", "")
    schema = document["components"]["schemas"].get(reference.rpartition("/")[2], {})
    return json.dumps(schema["examples"][0], indent=2) if "examples" in schema else None


def _answer(status: str, answer: Mapping[str, Any]) -> tuple[str, str, str]:
    text = [f"{HTTPStatus(int(status)).phrase}. {_text(answer['description'])}"]
    for name, header in answer.get("headers", {}).items():
        text.append(f"<br><span class=soft>Header</span> <code>{escape(name)}</code>: {_text(header['description'])}")
    if "x-problems" in answer:
        links = ", ".join(f"<a href=#problem-{escape(name)}>{escape(name)}</a>" for name in answer["x-problems"])
        text.append(f"<br><span class=soft>Problem types:</span> {links}")
    media = "<br>".join(
        f"{_type(c['schema'])}<br><span class=soft>{escape(m)}</span>" for m, c in answer["content"].items()
    )
    return f"<b>{escape(status)}</b>", "".join(text), media


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    rows = [
        (
            f"<code>{escape(member)}</code>",
            _type(of) + ("" if member in schema.get("required", ()) else "<br><span class=soft>optional</span>"),
            _text(of.get("description", "")),
        )
        for member, of in schema.get("properties", {"": schema}).items()
    ]
    about = f"<p>{_text(schema['description'])}</p>" if "description" in schema else ""
    closed = "" if schema.get("additionalProperties", True) else "<p class=soft>Unknown members are rejected.</p>"
    return (
        f"<h3 id=schema-{escape(name)}>{escape(name)}</h3>{about}{_table(('Member', 'Type', 'Meaning'), rows)}{closed}"
    )


def _type(schema: Mapping[str, Any]) -> str:
    """Return the type that a schema defines, as one line of HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f"<a href=#schema-{name}>{name}</a>"
    for either in ("oneOf", "anyOf"):
        if either in schema:
            return " or ".join(_type(one) for one in schema[either])
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        text = " | ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    elif "type" not in schema:
        text = "anything"
    elif schema["type"] == "array":
        text = f"array of {_type(schema['items'])}{_bounds(schema, 'minItems', 'maxItems')}"
    else:
        types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        text = " or ".join(schema.get("format", type_) if type_ == "string" else type_ for type_ in types)
        text += _bounds(schema, "minimum", "maximum") + _bounds(schema, "minLength", "maxLength", " characters")
        if "pattern" in schema and "format" not in schema:
            text += f" <code>{escape(schema['pattern'])}</code>"
    if schema.get("default") is not None and schema["default"] != "":
        text += f", default <code>{escape(json.dumps(schema['default']))}</code>"
    return text


def _bounds(schema: Mapping[str, Any], least: str, most: str, unit: str = "") -> str:
    low, high = schema.get(least), schema.get(most)
    if high is not None:
        return f", {low} to {high}{unit}" if low is not None else f", at most {high}{unit}"
    return f", at least {low}{unit}" if low is not None else ""


def _problems(problems: Iterable[Mapping[str, Any]]) -> str:
    rows = []
    for problem in problems:
        name = re.split("[:#]", problem["type"])[-1]
        final = {True: "final", False: "not final", None: ""}[problem["final"]]
        anchor = f"<a id=problem-{escape(name)}></a><code>{escape(name)}</code>"
        rows.append((anchor, str(problem["status"]), final, f"{escape(problem['title'])}. {_text(problem['advice'])}"))
    about = (
        "In an answer a type is a URN, such as <code>urn:fundledger:problem:insufficient-funds</code>, or a type that "
        "IANA registers, such as <code>https://iana.org/assignments/http-problem-types#quota-exceeded</code>. "
        "<b>final</b>: every retry with that id gets the same refusal. <b>not final</b>: the id is still free."
    )
    return f"<h2 id=problems>Problem types</h2><p>{about}</p>" + _table(
        ("Type", "Status", "For its id", "Meaning"), rows
    )


def _table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th scope=col>{name}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide tabindex=0><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _method(method: str) -> str:
    return f'<span class="method {method.lower()}">{escape(method)}</span>'


def _anchor(kind: str, name: str) -> str:
    return f"{kind}-{escape(name.lower())}"


def _code(text: str) -> str:
    return f"<pre tabindex=0><code>{escape(text)}</code></pre>"


def _text(text: str) -> str:
    """Convert plain text to HTML: text in backticks becomes `<code>`, and line breaks are kept."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text)).replace("\n", "<br>")
