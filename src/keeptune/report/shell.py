"""The shell of every page: one HTML file that needs nothing else, neither network nor server.

A page is a template in `templates/` that extends the shell, and a call of `render`:

    {% extends "shell.html" %}                    render("compare.html", drift=Table(…), kl=Chart(…), name=…)
    {% from "parts.html" import chart, table %}
    {% block title %}What changed?{% endblock %}
    {% block header %}<h1>…</h1>{% endblock %}
    {% block main %}<section><h2>…</h2>{{ table(drift) }}{{ chart(kl) }}</section>{% endblock %}

- `keeptune.report.table`: `Table` of `Column`s and rows of cells (`text`, `count`, `number`, `interval`); the macro
  `table` draws it in a box that scrolls, with its button *Copy as CSV*.
- `keeptune.report.chart`: `Chart`, an SVG for a desk and one for a phone; the macro `chart` draws it with title,
  sentence and description.
- In templates, `|number`, `|number(".2f")`, `|ends` and `|count` show numbers as tables do.

The shell brings style (light, dark, print, phone) and the copying. `details` with the class `printed` are unfolded on
paper, others left out. Nothing that a page is given is trusted: it is escaped by jinja2, `|safe` stands nowhere,
characters that turn text around are written out, and the Content-Security-Policy names the one script of the shell,
that of the copy buttons, by its hash, so that a browser runs no other.
"""

from __future__ import annotations

import base64
import hashlib

from jinja2 import Environment, PackageLoader, StrictUndefined

from keeptune.report.words import shown_ends, shown_number, visible


def render(template: str, **content: object) -> str:
    """A page, well under 600 kB unless it shows a great deal of text.

    Args:
        template: the name of a file in `templates/`.
        content: what the template names.

    Raises:
        jinja2.UndefinedError: something that the template names is missing.
    """
    environment = Environment(
        loader=PackageLoader("keeptune.report"),
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(csp_hash=_csp_hash, number=shown_number, ends=shown_ends, count="{:,}".format)
    return environment.get_template(template).render(**content)


def _csp_hash(script: str) -> str:
    """What a Content-Security-Policy calls this script: the browser then runs it, and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
