"""The report page: one file with everything in it, no network."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import jinja2
import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from analysis.theme import freeze
from roadmap.escape import visible

_HERE = Path(__file__).parent
_VERDICTS = ("gain", "loss", "diverged")


@dataclass(frozen=True)
class Table:
    """A sortable table: rows of (text, sort key); columns in `code`, `wrap` and `text` are set as such."""

    heads: Sequence[str]
    rows: Sequence[Sequence[tuple[str, float | None]]]
    title: str = ""
    css: str = ""
    code: Sequence[int] = ()
    wrap: Sequence[int] = ()
    text: Sequence[int] = ()


@dataclass(frozen=True)
class Drawing:
    """A figure for wide and one for narrow screens, as data URIs."""

    wide: str
    narrow: str
    alt: str


@dataclass(frozen=True)
class Section:
    """A part of the page: words, drawings, tables, small print, and text to unfold."""

    id: str
    title: str
    words: Sequence[str] = ()
    figures: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    details: Sequence[tuple[str, str]] = field(default=())


def data_uri(figure: Figure) -> str:
    """A figure as the data URI of an SVG; text as paths, so that it looks the same without the fonts."""
    buffer = BytesIO()
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "roadmap"}):
        freeze(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _shown(value: object) -> object:
    """What a page is given: text without what cannot be seen. Markup is ours, and its lines stay."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "\n".join(visible(line) for line in value.split("\n"))


def render(
    *,
    title: str,
    subtitle: str,
    summary: Sequence[str],
    sections: Sequence[Section],
    alerts: Sequence[str] = (),
    others: Sequence[tuple[str, str]] = (),
) -> str:
    """The page as HTML. Every text is escaped: run records may hold anything."""
    environment = jinja2.Environment(
        autoescape=True, finalize=_shown, undefined=jinja2.StrictUndefined, loader=jinja2.FileSystemLoader(_HERE)
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        subtitle=subtitle,
        summary=summary,
        sections=sections,
        alerts=alerts,
        others=others,
        verdicts=_VERDICTS,
        css=Markup((_HERE / "page.css").read_text()),
        js=Markup((_HERE / "page.js").read_text()),
    )
