"""The page /docs: what the server can do, from its OpenAPI description, with nothing from elsewhere.

FastAPI's own page loads its program and style from another host, and stays empty without the internet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from fastapi import FastAPI
from jinja2 import Environment
from starlette.responses import HTMLResponse

Json: TypeAlias = Mapping[str, Any]

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ info.title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font-family: ui-monospace, monospace; font-size: .9em }
pre { overflow-x: auto; padding: .6rem; border: 1px solid #8885; border-radius: 6px }
summary { cursor: pointer; padding: .3rem 0 } table { border-spacing: .8rem .2rem; margin-left: -.8rem }
td { vertical-align: top }
</style></head><body>
<h1>{{ info.title }} {{ info.version }}</h1>
<p>{{ info.summary }} The whole description: <a href="openapi.json">openapi.json</a>.</p>
{% for operation in operations %}
<details><summary><code>{{ operation.method }} {{ operation.path }}</code> {{ operation.about }}</summary>
{% if operation.parameters %}<table>{% for parameter in operation.parameters %}
<tr><td><code>{{ parameter.name }}</code></td><td>{{ parameter.in }}</td>
<td>{{ parameter.description or parameter.schema.description }}</td></tr>{% endfor %}</table>{% endif %}
{% if operation.example %}<p>Body, for example:</p><pre>{{ operation.example }}</pre>{% endif %}
{% if operation.body %}<p>Its schema:</p><pre>{{ operation.body }}</pre>{% endif %}
<table>{% for status, response in operation.responses.items() %}
<tr><td><code>{{ status }}</code></td><td>{{ response.description }}</td></tr>{% endfor %}</table>
</details>
{% endfor %}
</body></html>
"""


def add_docs(app: FastAPI) -> None:
    """Serve the page at /docs."""
    template = Environment(autoescape=True).from_string(PAGE)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        described = app.openapi()
        operations = list(_operations(described))
        return HTMLResponse(template.render(info=described["info"], operations=operations))


def _operations(described: Json) -> Iterator[Json]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            name = body.get("schema", {}).get("$ref", "").rpartition("/")[2]
            schema = described.get("components", {}).get("schemas", {}).get(name, {})
            fields = {key: part for key, part in schema.items() if key != "examples"}
            yield {
                "method": method.upper(),
                "path": path,
                "about": operation.get("description") or operation.get("summary", ""),
                "parameters": operation.get("parameters", []),
                "example": _shown(next(iter(schema.get("examples", [])), None)),
                "body": _shown(fields),
                "responses": operation.get("responses", {}),
            }


def _shown(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) if value else ""
