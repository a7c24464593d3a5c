"""How the page looks: its template and its style sheet, on small and large screens, light or dark.

Knows nothing of what it shows. page.py says what the names in the template are.
"""

from __future__ import annotations

from typing import Final

STYLE: Final = """\
:root {
  color-scheme: light dark;
  --ground: #ffffff; --tint: #eef4fa; --ink: #1c2733; --soft: #55636f; --line: #d5dde5;
  --accent: #0b5cad;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12181f; --tint: #1d2833; --ink: #e9eef4; --soft: #a3b1bf; --line: #35424f;
    --accent: #7cbdf5;
  }
}
* { box-sizing: border-box }
body {
  margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
}
header, main, footer { max-width: 1180px; margin: 0 auto; padding: 0 1rem }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1.2rem 0 0 }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 2.6rem 0 .4rem }
p { max-width: 52rem; margin: .5rem 0; overflow-wrap: anywhere }
a { color: var(--accent) }
a:focus-visible, .wide:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px }
code {
  font: .875rem/1.5 ui-monospace, monospace; display: block; overflow-wrap: anywhere;
  white-space: pre-wrap;
  background: var(--ground); border: 1px solid var(--line); border-radius: 6px;
  padding: .2rem .5rem;
}
.soft { color: var(--soft); font-size: .875rem }
.skip { position: absolute; left: -99rem }
.skip:focus { left: 1rem; top: .5rem; background: var(--tint); padding: .4rem .8rem; z-index: 1 }
.first { display: grid; gap: 1rem; margin: 1rem 0; grid-template-columns: minmax(0, 1fr) }
.first section { background: var(--tint); border-radius: 10px; padding: .9rem 1.1rem }
.first h2 { margin: 0 0 .5rem; font-size: 1.1rem }
.first dl {
  margin: .6rem 0 0; display: grid; grid-template-columns: auto minmax(0, 1fr);
  gap: .45rem .8rem; align-items: baseline;
}
.first dt { font-size: 1.5rem; font-weight: 650; line-height: 1.2; white-space: nowrap }
.first dd { margin: 0 }
.first ol { margin: 0; padding-left: 1.2rem }
.first li { margin-bottom: .7rem }
@media (min-width: 900px) { .first { grid-template-columns: 3fr 3fr 4fr } }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; padding: 0 }
nav a { display: inline-block; padding: .2rem 0 }
.wide { overflow-x: auto; max-width: 100% }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line) }
th { vertical-align: bottom }
th:first-child, td:first-child, .two :is(th, td):nth-child(2) { text-align: left }
.two td:nth-child(2) { overflow-wrap: anywhere; min-width: 9rem }
td:first-child { min-width: 7rem }
@media (max-width: 599px) {
  th, td { padding: .3rem .35rem; font-size: .875rem }
  td:first-child { min-width: 4.5rem }
  .two td:nth-child(2) { min-width: 6.5rem }
}
tr.strong { font-weight: 600; background: var(--tint) }
figure { margin: 1rem 0; display: flex; flex-wrap: wrap; gap: 1rem }
figure svg {
  display: block; flex: none; max-width: none; fill: currentColor; stroke-linejoin: round;
}
footer { padding-bottom: 3rem; margin-top: 2rem; overflow-wrap: anywhere }
@media print { .wide { overflow: visible } nav, .skip { display: none } }
"""
TEMPLATE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gemmcast report</title>
<link rel="icon" href="data:,">
<style>
{{ style }}</style>
</head>
<body>
<a class="skip" href="#report">To the report</a>
<header>
<h1>gemmcast report</h1>
<p class="soft">{{ page.created }}</p>
</header>
<main id="report">
<div class="first">
{% for group in page.groups %}
<section aria-labelledby="first-{{ loop.index }}">
<h2 id="first-{{ loop.index }}">{{ group.title }}</h2>
{% if group.text %}
<p>{{ group.text }}</p>
{% endif %}
{% if group.headlines %}
<dl>
{% for headline in group.headlines %}
<dt>{{ headline.number }}</dt><dd>{{ headline.text }}</dd>
{% endfor %}
</dl>
{% endif %}
{% if group.advice %}
<ol>
{% for one in group.advice %}
<li>{{ one.text }}{% if one.command %}<code>{{ one.command }}</code>{% endif %}</li>
{% endfor %}
</ol>
{% endif %}
{% if group.link %}
<p><a href="{{ group.link }}">Ask the model in the browser</a></p>
{% endif %}
</section>
{% endfor %}
</div>
<nav aria-label="Sections of the report"><ul>
{% for section in page.sections %}
<li><a href="#section-{{ loop.index }}">{{ section.title }}</a></li>
{% endfor %}
</ul></nav>
{% for section in page.sections %}
<section aria-labelledby="section-{{ loop.index }}">
<h2 id="section-{{ loop.index }}">{{ section.title }}</h2>
{% for text in section.texts %}
<p>{{ text }}</p>
{% endfor %}
{% for table in section.tables %}
<div class="wide" role="region" tabindex="0"
 aria-label="{{ section.title }}, table {{ loop.index }}">
<table{% if table.text_columns == 2 %} class="two"{% endif %}>
<thead><tr>{% for name in table.header %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr{% if "model" in row[:2] %} class="strong"{% endif %}>
{%- for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endfor %}
{% for picture in section.pictures %}
<div class="wide" role="region" tabindex="0" aria-label="{{ picture.alt }}, figure">
<figure>
{% for svg in picture.svgs %}
{{ svg | safe }}
{% endfor %}
</figure></div>
{% endfor %}
</section>
{% endfor %}
</main>
{% if page.footer %}
<footer class="soft">{{ page.footer }}</footer>
{% endif %}
</body>
</html>
"""
