"""The page around a report: its style, its security policy, and how a figure gets into it.

A report is one file that must open from a stick in a train, from a mail, inside a notebook: it
holds the script that draws its figures, and the policy forbids the browser to fetch anything.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from fxlab.html import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

# 'unsafe-eval': plotly compiles its lines of many parameters; nothing can be loaded or sent.
POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)

# Tables carry their style in each cell, for mail and notebooks; a page with a style sheet would
# only grow by it. Quotes of data are escaped, so no text can look like an attribute.
_NUMBER: Final = re.compile(r' style="[^"]*text-align:right[^"]*"')
_TEXT: Final = re.compile(r' style="[^"]*text-align:left[^"]*"')

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2026; --soft: #5f6670; --line: #dfe3e8;
  --ground: #ffffff; --card: #f6f7f9; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --soft: #9aa2ad; --line: #2d323a; --ground: #14171b; --card: #1c2026; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1220px; padding: 2.2rem 1.6rem 4rem; background: var(--ground);
  color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
header p { margin: .15rem 0; color: var(--soft); }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.12rem; margin: 2.4rem 0 .7rem; }
p.text { max-width: 70ch; }
.tiles { display: grid; gap: .8rem; margin: 1.6rem 0 0;
  grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .7rem .9rem; }
.tiles dt { color: var(--soft); font-size: .85rem; }
.tiles dd { margin: 0; font-size: 1.3rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .84rem; width: 100%; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th { font-weight: 600; }
thead th { color: var(--soft); border-bottom: 2px solid var(--line); }
tbody tr { border-bottom: 1px solid var(--line); }
th, td { padding: .25em .55em; text-align: left; white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.facts th { width: 11rem; vertical-align: top; color: var(--soft); font-weight: 400; }
.facts td { overflow-wrap: anywhere; white-space: normal; }
.heat { width: auto; }
.figure .infolayer text, .figure [class*="axislayer"] text, .figure .shapelayer text,
.figure .parcoords text { fill: var(--ink) !important; }
details { margin-top: .8rem; } summary { cursor: pointer; color: var(--soft); }
details table { margin-top: .8rem; }
footer { margin-top: 3rem; color: var(--soft); font-size: .85rem; }
@media (max-width: 600px) {
  body { padding: 1.2rem .6rem 3rem; } td:last-child { white-space: normal; min-width: 12rem; }
}
@media print {
  @page { margin: 14mm; }
  body { padding: 0; max-width: none; font-size: 10pt; }
  h2 { break-after: avoid; } tr, .tiles, .figure { break-inside: avoid; }
  .scroll { overflow: visible; } table { font-size: 7.5pt; }
  th, td { white-space: normal; }
}
"""


def page(title: str, body: str, *, draws: bool = True) -> str:
    """Return a whole HTML page.

    Parameters
    ----------
    title
        Plain text; it is escaped.
    body
        HTML, already escaped.
    draws
        Whether there are figures on it: then it holds plotly's script, 4.8 MB, once.
    """
    load = f"{plotly_script()}\n" if draws else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n"
        f"{load}</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def plotly_script() -> str:
    """Return the element that figures of a page are drawn by."""
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def embed(figure: go.Figure, name: str, fallback: str) -> str:
    """Return the HTML that draws a figure with the script of its page.

    Parameters
    ----------
    figure
        What to draw.
    name
        The element's id, unique on the page: a plain word.
    fallback
        HTML shown where scripts are off.
    """
    from fxlab.chart_style import CONFIG

    spec = json.loads(figure.to_json())
    # A height of the box itself: plotly measures the box again after each zoom and each click.
    height = int(figure.layout.height or 450)
    config = CONFIG | {"responsive": True}
    arguments = json.dumps([spec["data"], spec["layout"], config], separators=(",", ":"))
    # Inside a script element the browser looks for "</" and "<!--" even in strings.
    safe = arguments.replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return (
        f'<div id="{name}" class="figure" style="height:{height}px"></div>'
        f"<noscript>{fallback}</noscript>\n"
        f'<script>Plotly.newPlot("{name}", ...{safe});</script>'
    )


def fitted(figure: go.Figure) -> go.Figure:
    """Return a figure as wide as the page, without its title: the section's heading says it."""
    from fxlab.chart_style import without_title

    return without_title(figure).update_layout(margin_l=0, margin_r=0)


def section(title: str, body: str) -> str:
    """Return a section with a heading; wide tables in it scroll by themselves."""
    body = _NUMBER.sub(' class="n"', body)
    body = _TEXT.sub("", body)
    return f'<section>\n<h2>{escape(title)}</h2>\n<div class="scroll">{body}</div>\n</section>'


def tiles(figures: list[tuple[str, str, str]]) -> str:
    """Return (name, value, note) triples as a row of tiles; the note is the tooltip."""
    inner = "".join(
        f'<div title="{escape(note)}"><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>'
        for name, value, note in figures
    )
    return f'<dl class="tiles">{inner}</dl>'
