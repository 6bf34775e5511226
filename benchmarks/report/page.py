"""One HTML page that needs nothing else: light, dark, on a phone, in print."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from pulse_edge.bundle.manifest import NOTICE

Rows = Sequence[Sequence[str]]
STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#57606a;--grid:#d0d7de;
--card:#f6f8fa;--c0:#0969da;--c1:#d4570a;--c2:#1a7f4b;--c3:#b5478f;--c4:#b08800;--c5:#3fa2d6;
--c6:#9aa4ae}
@media (prefers-color-scheme:dark){:root{--paper:#0d1117;--ink:#e6edf3;--soft:#9da7b1;
--grid:#30363d;--card:#161b22;--c0:#4c9dff;--c1:#f0883e;--c2:#3fb971;--c3:#dd7fbd;--c4:#d8b13c;
--c5:#79c5ee;--c6:#6e7781}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:0 auto;padding:1rem;
color:var(--ink);background:var(--paper)}
h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0}
h2{font-size:1.25rem;margin:2.5rem 0 .3rem;border-top:1px solid var(--grid);padding-top:1rem}
h3{font-size:1.02rem;margin:1.3rem 0 .3rem}
p{margin:.3rem 0}.soft,small,caption{color:var(--soft)}
.wide{overflow-x:auto;margin:.6rem 0}
table{border-collapse:collapse;font-size:.9rem}
td,th{border-bottom:1px solid var(--grid);padding:.25rem .7rem;text-align:right;
font-variant-numeric:tabular-nums}
td{white-space:nowrap}th{vertical-align:bottom}
td:first-child,th:first-child{text-align:left;white-space:normal;min-width:8rem}th{font-weight:600}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(20rem,100%),1fr));gap:1.2rem}
figure{margin:0;break-inside:avoid}figcaption{font-size:.9rem;font-weight:600}
figcaption small{font-weight:400;display:block}
svg{width:100%;max-width:30rem;height:auto;display:block}
svg *{stroke-linejoin:round;stroke-linecap:butt}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(15rem,100%),1fr));gap:.8rem;
margin:.8rem 0}
.card{background:var(--card);border:1px solid var(--grid);border-radius:.5rem;padding:.7rem .9rem;
break-inside:avoid}
.card b{font-size:1.7rem;line-height:1.2;display:block}.card small{display:block}
ul{padding-left:1.2rem;margin:.4rem 0}li{overflow-wrap:anywhere}
@media print{:root{color-scheme:light;--paper:#fff;--ink:#000;--soft:#444;--grid:#bbb;--card:#fff;
--c0:#0969da;--c1:#d4570a;--c2:#1a7f4b;--c3:#b5478f;--c4:#b08800;--c5:#3fa2d6;--c6:#9aa4ae}
body{max-width:none;padding:0;font-size:11px}.grid{grid-template-columns:1fr 1fr}
h2,h3{break-after:avoid}.wide{overflow:visible}}
"""


def document(title: str, body: Iterable[str]) -> str:
    """The whole page.

    Args:
        title: of the window.
        body: HTML.
    """
    text = "\n".join(body)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title>"
        f"<style>{STYLE}</style></head>\n<body>\n{text}\n"
        f"<p><small>{html.escape(NOTICE)}</small></p>\n</body></html>\n"
    )


def html_table(rows: Rows) -> str:
    """A table that scrolls by itself where the screen is narrow; the first row is its header."""

    def row(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(row(cells, "td") for cells in rows[1:])
    return f'<div class="wide"><table>{row(rows[0], "th")}{body}</table></div>'


def figure(title: str, note: str, svg: str) -> str:
    """A chart under its title."""
    return (
        f"<figure><figcaption>{html.escape(title)}<small>{html.escape(note)}</small>"
        f"</figcaption>{svg}</figure>"
    )


def grid(figures: Iterable[str]) -> str:
    """Charts side by side where there is room."""
    return f'<div class="grid">{"".join(figures)}</div>'


def heading(level: int, text: str, note: str = "") -> str:
    """A heading, and a line under it."""
    under = f'<p class="soft">{html.escape(note)}</p>' if note else ""
    return f"<h{level}>{html.escape(text)}</h{level}>{under}"


def markdown(rows: Rows) -> str:
    """A table as Markdown."""
    head, *body = (f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])
