"""Self-contained HTML pages, rendered from templates that escape all text."""

from __future__ import annotations

import base64
import dataclasses
import functools
from typing import TYPE_CHECKING

from fcnseg.extras import require_extra
from fcnseg.figures.palette import organ_colour

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclasses.dataclass(frozen=True)
class Shaded:
    """A table cell whose background shows how good or bad its value is.

    Attributes:
        text: Value as the table shows it.
        badness: From -1 (much better, blue) over 0 (no shade) to 1 (much worse, orange).
    """

    text: str
    badness: float


def check_page_extras() -> None:
    """Checks that pages can be rendered and drawn, before any long work for them.

    Raises:
        MissingExtraError: If jinja2 or matplotlib is not installed.
    """
    for module in ("jinja2", "matplotlib"):
        require_extra(module)


@functools.cache
def environment() -> Environment:
    """The jinja2 environment of all pages: the templates of this package, with auto-escaping.

    A project's own template (`environment().from_string`) extends `page.html`.

    Raises:
        MissingExtraError: If jinja2 is not installed.
    """
    jinja2 = require_extra("jinja2")
    made: Environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fcnseg.figures"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["base64"] = lambda png: base64.b64encode(png).decode()
    made.filters["organ_colour"] = organ_colour
    return made


def render(template: str, **values: object) -> str:
    """Renders a page.

    Args:
        template: Name of a file in `fcnseg/figures/templates`.
        values: Values shown in the template: plain text, numbers, PNG as bytes, and `Markup` for
            plots.

    Returns:
        One HTML page that needs no other file.

    Raises:
        MissingExtraError: If jinja2 is not installed.
    """
    return environment().get_template(template).render(**values)
