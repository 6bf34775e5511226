"""The style sheet of a report: light, dark, on a phone, in print."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#57606a;--grid:#d0d7de;
--card:#f6f8fa;--c0:#0969da;--c1:#bc4c00;--c2:#1a7f4b;--c3:#a8397f;--c4:#8a6d00;--c5:#1f6f9e;
--c6:#57606a}
@media (prefers-color-scheme:dark){:root{--paper:#0d1117;--ink:#e6edf3;--soft:#9da7b1;
--grid:#30363d;--card:#161b22;--c0:#4c9dff;--c1:#f0883e;--c2:#3fb971;--c3:#dd7fbd;--c4:#d8b13c;
--c5:#79c5ee;--c6:#9aa4ae}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;max-width:75rem;margin:0 auto;padding:1rem;
color:var(--ink);background:var(--paper)}
h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0}
h2{font-size:1.25rem;margin:2.5rem 0 .3rem;border-top:1px solid var(--grid);padding-top:1rem}
h3{font-size:1.02rem;margin:1.3rem 0 .3rem}h4{margin:0 0 .3rem;overflow-wrap:anywhere}
p{margin:.3rem 0}small{color:var(--soft)}
.wide{overflow-x:auto;margin:.6rem 0}
table{border-collapse:collapse;font-size:.9rem}
td,th{border-bottom:1px solid var(--grid);padding:.25rem .7rem;text-align:left;vertical-align:top;
font-variant-numeric:tabular-nums}
th{font-weight:600;vertical-align:bottom}.numbers td{white-space:nowrap}
.text td{overflow-wrap:anywhere;white-space:pre-wrap;min-width:5rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(18rem,100%),1fr));gap:1.2rem}
figure{margin:0;break-inside:avoid}figcaption{font-size:.9rem;font-weight:600}
svg{width:100%;max-width:26rem;height:auto;display:block}
svg text{font:11px system-ui,sans-serif;fill:var(--ink)}svg .n{fill:var(--paper);font-weight:700}
svg .g{stroke:var(--grid)}
.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;margin:.8rem 0}
.legend b{display:inline-block;min-width:1.3rem;border-radius:1rem;text-align:center;
font-size:.8rem;color:var(--paper)}
.k0{background:var(--c0)}.k1{background:var(--c1)}.k2{background:var(--c2)}.k3{background:var(--c3)}
.k4{background:var(--c4)}.k5{background:var(--c5)}.k6{background:var(--c6)}
article{background:var(--card);border:1px solid var(--grid);border-radius:.5rem;
padding:.7rem .9rem;margin:.8rem 0}
img{max-width:100%;height:auto}pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.3rem 0}
@media print{:root{color-scheme:light;--paper:#fff;--ink:#000;--soft:#444;--grid:#bbb;--card:#fff;
--c0:#0969da;--c1:#bc4c00;--c2:#1a7f4b;--c3:#a8397f;--c4:#8a6d00;--c5:#1f6f9e;--c6:#57606a}
body{max-width:none;padding:0;font-size:11px}h2,h3{break-after:avoid}.wide{overflow:visible}
.numbers td{white-space:normal}}
"""
