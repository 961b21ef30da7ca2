"""index.html: the sections as one page without scripts, next to its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sdeflow.cli.demo.section import Picture, Section, Table

__all__ = ["page"]

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1d2327; --quiet: #5c6870; --ground: #fbfbf9; --line: #dfe3e6; --accent: #0072b2;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9eb; --quiet: #a2adb5; --ground: #14181b; --line: #333c42; --accent: #6bb8e8; }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif;
}
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.4rem; margin: 0 0 .5rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { max-width: 46rem; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: 1.2rem 0 0; }
section { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: 2rem; }
figure { margin: 1.6rem 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.paper { background: #ffffff; border: 1px solid var(--line); border-radius: 8px; padding: .8rem; }
figcaption, .note { color: var(--quiet); font-size: .9rem; max-width: 46rem; margin: .6rem 0 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.long { white-space: normal; text-align: left; }
thead th { color: var(--quiet); font-weight: 600; }
footer { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: 1rem; }
footer { color: var(--quiet); font-size: .9rem; }
"""


def page(sections: Sequence[Section], title: str, lead: str, footer: str) -> str:
    """The page as text; pictures are referred to by their file names."""
    links = "\n".join(f'<a href="#{escape(s.key)}">{escape(s.title)}</a>' for s in sections)
    body = "\n".join(_section(s) for s in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
<p>{escape(lead)}</p>
<nav aria-label="Sections">
{links}
</nav>
</header>
{body}
<footer>{escape(footer)} All figures are in <a href="results.json">results.json</a>.</footer>
</main>
</body>
</html>
"""


def _section(section: Section) -> str:
    parts = [
        f'<section id="{escape(section.key)}">',
        f"<h2>{escape(section.title)}</h2>",
        f"<p>{escape(section.text)}</p>",
    ]
    parts += [_picture(picture) for picture in section.pictures]
    parts += [_table(table) for table in section.tables]
    return "\n".join([*parts, "</section>"])


def _picture(picture: Picture) -> str:
    return (
        f'<figure><div class="paper"><img src="{escape(picture.file)}" alt="{escape(picture.alt)}"></div>\n'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    rows = "\n".join(f"<tr>{''.join(_cell(text) for text in row)}</tr>" for row in table.rows)
    note = f'\n<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<h3>{escape(table.title)}</h3>\n<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>{note}"
    )


def _cell(text: str) -> str:
    return f'<td class="long">{escape(text)}</td>' if len(text) > 40 else f"<td>{escape(text)}</td>"
