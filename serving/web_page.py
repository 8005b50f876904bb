"""The page that a browser shows at `/`: its files, and the headers that go with them.

The page calls the server's own REST interface, so a server only has to answer GET with these files.
It loads nothing from elsewhere, which its content security policy holds it to.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from fcnseg.figures.palette import organ_rgb

_FOLDER = Path(__file__).parent / "page"
_PREFIX = "/page/"
_SETTINGS = "settings.json"
_COLOURS = 256  # class ids are uint8

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".txt": "text/plain; charset=utf-8",
}
# NiiVue has workers and fonts in blobs and data; dcm2niix is WebAssembly.
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' blob:;"
    " style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self' data: blob:;"
    " worker-src 'self' blob:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclasses.dataclass(frozen=True)
class PageFile:
    """An answer to GET, and without its content to HEAD.

    Attributes:
        content: The body.
        media_type: Its type.
        headers: Headers beside Content-Type and Content-Length.
    """

    content: bytes
    media_type: str
    headers: tuple[tuple[str, str], ...]


class WebPage:
    """An ASGI application that answers with the page, before one that answers all else."""

    def __init__(self, app: AsgiApp, model_names: Callable[[], Sequence[str]]) -> None:
        """Makes the application.

        Args:
            app: Answers requests that are not for the page.
            model_names: Gives the names of the models that the page offers now.
        """
        self._app = app
        self._model_names = model_names

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers a request."""
        file = None
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            file = page_file(scope["path"], model_names=self._model_names())
        if file is None:
            await self._app(scope, receive, send)
            return
        headers = [
            ("Content-Type", file.media_type),
            ("Content-Length", str(len(file.content))),
            *file.headers,
        ]
        coded = [(name.lower().encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": 200, "headers": coded})
        content = b"" if scope["method"] == "HEAD" else file.content
        await send({"type": "http.response.body", "body": content})


def page_file(path: str, *, model_names: Sequence[str]) -> PageFile | None:
    """Gives the file of the page at a path.

    Args:
        path: Path of the URL, without a query: `/`, or below `/page/`.
        model_names: Names of the models that the page offers, the first one chosen.

    Returns:
        The file, or None if the page has none there.
    """
    if path == f"{_PREFIX}{_SETTINGS}":
        palette = [organ_rgb(class_id) for class_id in range(1, _COLOURS)]
        settings = {"model_names": list(model_names), "palette": [[0, 0, 0], *palette]}
        return _page_file(json.dumps(settings).encode(), ".json")
    if path != "/" and not path.startswith(_PREFIX):
        return None
    name = "index.html" if path == "/" else path.removeprefix(_PREFIX)
    file = next((each for each in _files() if each.relative_to(_FOLDER).as_posix() == name), None)
    return None if file is None else _page_file(file.read_bytes(), file.suffix)


def _files() -> list[Path]:
    """The files that the page has; a path is looked up among them, and never opened as given."""
    return [file for file in _FOLDER.rglob("*") if file.suffix in _MEDIA_TYPES]


def _page_file(content: bytes, suffix: str) -> PageFile:
    headers = (
        ("Cache-Control", "no-cache"),
        ("Content-Security-Policy", _POLICY),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
    )
    return PageFile(content, _MEDIA_TYPES[suffix], headers)
