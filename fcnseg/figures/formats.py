"""Figures as PNG and as SVG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from fcnseg.extras import require_extra

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure


def png_of(figure: Figure, *, dpi: float | None = None) -> bytes:
    """Renders a figure as a PNG file on white, by default at the resolution it was made for."""
    stream = io.BytesIO()
    _show_dollars(figure)
    figure.savefig(stream, format="png", facecolor="white", dpi=dpi or "figure")
    return stream.getvalue()


def svg_of(figure: Figure) -> Markup:
    """Renders a figure as an `<svg>` element, the same for the same figure.

    Returns:
        Markup that templates insert unescaped: matplotlib escapes the text of a figure.

    Raises:
        MissingExtraError: If matplotlib or jinja2 is not installed.
    """
    stream = io.StringIO()
    _show_dollars(figure)
    # Text stays text, and ids come from the content: the page is searchable and repeatable.
    looks = {"svg.fonttype": "none", "svg.hashsalt": "fcnseg"}
    with require_extra("matplotlib").rc_context(looks):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    svg: Markup = require_extra("markupsafe").Markup(text[text.index("<svg") :])
    return svg


def _show_dollars(figure: Figure) -> None:
    """Keeps matplotlib from reading dollar signs in names of organs and cases as formulas."""
    for text in figure.findobj(require_extra("matplotlib.text").Text):
        if "$" in text.get_text():
            text.set_parse_math(False)
