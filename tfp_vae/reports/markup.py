"""Pieces of HTML, in which all text is escaped, and numbers as they are printed."""

import base64
import html
import io
import math
import string
from collections.abc import Sequence
from typing import Any

from tfp_vae import evaluation

_DPI = 110

_SHELL = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { --text: #1b1f24; --page: #fff; --faint: #57606a; --line: #d0d7de; --note: #fff8e5; }
@media (prefers-color-scheme: dark) {
 :root { --text: #e6edf3; --page: #14181d; --faint: #9aa4af; --line: #363d45; --note: #33290f; }
}
@media print {
 :root { --text: #000; --page: #fff; --faint: #444; --line: #bbb; --note: #fff; }
 figure, tr { break-inside: avoid; }
 h2 { break-after: avoid; }
}
body { color: var(--text); background: var(--page); max-width: 58rem; margin: 2rem auto;
 padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin-bottom: 0.2rem; overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
p.faint, td.faint, figcaption { color: var(--faint); }
p.note { background: var(--note); border: 1px solid var(--line); padding: 0.5rem 0.8rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 1rem 0.3rem 0;
 border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
</style>
</head>
<body>
$body
</body>
</html>
""")


def whole(title: str, body: Sequence[str]) -> str:
    """A page of these pieces."""
    return _SHELL.substitute(title=escaped(title), body="\n".join(body))


def escaped(text: Any) -> str:
    return html.escape(str(text))


def table(*rows: Sequence[str], heads: Sequence[str] = ()) -> str:
    """Rows of a name, a value and, where there is one, its meaning."""
    head = "".join(f"<th>{escaped(cell)}</th>" for cell in heads)
    lines = [f"<tr>{head}</tr>"] if heads else []
    for name, value, *rest in rows:
        style = "number" if heads or rest else "text"
        cells = "".join(f'<td class="faint">{escaped(cell)}</td>' for cell in rest)
        value = f'<td class="{style}">{escaped(value)}</td>'
        lines.append(f'<tr><th scope="row">{escaped(name)}</th>{value}{cells}</tr>')
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def picture(figure: Any, caption: str) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escaped(caption)}">'
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
    )


def missing(name: str, part: evaluation.Part) -> str:
    return f"<p>{escaped(name)}: not available. {escaped(part.unavailable)}</p>"


def number(value: float, digits: int = 2, unit: str = "") -> str:
    if not math.isfinite(value):
        return "not available"
    return f"{value:,.{digits}f}{unit}".replace("-", "−")


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def with_error(estimate: evaluation.Estimate | None, digits: int = 2) -> str:
    if estimate is None:
        return "not available"
    if not math.isfinite(estimate.standard_error):  # of one image
        return number(estimate.mean, digits)
    return f"{number(estimate.mean, digits)} ± {number(estimate.standard_error, digits)}"
