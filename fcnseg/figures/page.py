"""One self-contained HTML page: its frame, its style, and tables."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from string import Template

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1c2733;
  background: #f5f7f9; margin: 0; }
main { max-width: 1240px; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 0 0 .6rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
p { margin: .3rem 0; max-width: 110ch; } .quiet, small { color: #5b6b7b; }
section { background: #fff; border: 1px solid #dde3e9; border-radius: 8px; padding: 1rem 1.2rem;
  margin: 1rem 0; overflow-x: auto; }
.tiles { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0; }
.tile { background: #fff; border: 1px solid #dde3e9; border-radius: 8px; padding: .6rem 1.1rem; }
.tile b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .5rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #edf0f3; }
th { white-space: normal; font-weight: 600; color: #435364; vertical-align: bottom; cursor: pointer;
  border-bottom: 2px solid #cfd8e0; }
th:first-child, td:first-child, .left { text-align: left; }
tbody tr:hover { background: #f3f7fb; }
i.organ { display: inline-block; width: .75em; height: .75em; border-radius: 3px;
  margin-right: .5em; }
a { color: #0b5cad; text-decoration: none; } a:hover { text-decoration: underline; }
img, svg { max-width: 100%; height: auto; } summary { cursor: pointer; color: #0b5cad; }
dt { font-weight: 600; margin-top: .4rem; } dd { margin: 0 0 0 1rem; max-width: 80ch; }
@media print { section { break-inside: avoid; } body { background: #fff; } }
</style>
</head>
<body><main>
<h1>$title</h1>
$body
</main>
<script>
for (const head of document.querySelectorAll("th")) head.onclick = () => {
  const table = head.closest("table"), column = head.cellIndex;
  const key = row => { const text = row.cells[column].dataset.value ?? row.cells[column].innerText;
    const number = parseFloat(text); return isNaN(number) ? text : number; };
  const sign = head.dataset.up = head.dataset.up === "1" ? "-1" : "1";
  [...table.tBodies[0].rows].sort((a, b) => { const x = key(a), y = key(b);
    return sign * (typeof x === typeof y ? (x > y) - (x < y) : typeof x === "number" ? -1 : 1); })
    .forEach(row => table.tBodies[0].append(row));
};
</script>
</body>
</html>
""")


def page(title: str, *parts: str) -> str:
    """A whole page.

    Args:
        title: Plain text.
        parts: HTML, one after the other.
    """
    return _PAGE.substitute(title=html.escape(title), body="\n".join(parts))


def section(heading: str, *parts: str, anchor: str = "") -> str:
    """A box with a heading in plain text and parts in HTML."""
    name = f' id="{html.escape(anchor)}"' if anchor else ""
    return f"<section{name}><h2>{html.escape(heading)}</h2>{''.join(parts)}</section>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that sorts itself by a click on a heading.

    Args:
        header: Plain text.
        rows: Cells, each HTML, or a whole `<td>` where one has attributes of its own.
    """
    head = "".join(f"<th>{html.escape(title)}</th>" for title in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(content: str) -> str:
    return content if content.startswith("<td") else f"<td>{content}</td>"


def shaded(content: str, amount: float, *, colour: str = "230, 120, 30") -> str:
    """A cell whose background tells how bad (or, in another colour, how good) it is, 0 to 1."""
    strength = min(max(amount, 0.0), 1.0)
    return f'<td style="background: rgba({colour}, {strength:.2f})">{content}</td>'


def tiles(facts: Iterable[tuple[str, str]]) -> str:
    """A row of values, each with what it is, in plain text."""
    boxes = (f'<div class="tile"><b>{html.escape(v)}</b>{html.escape(k)}</div>' for k, v in facts)
    return f'<div class="tiles">{"".join(boxes)}</div>'


def picture(png: bytes, *, alt: str) -> str:
    """A PNG file inside the page."""
    data = base64.b64encode(png).decode()
    return f'<img loading="lazy" alt="{html.escape(alt)}" src="data:image/png;base64,{data}" />'
