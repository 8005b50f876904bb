"""The address of a model server, and what a client shows to be let in."""

from __future__ import annotations

import base64
import dataclasses
import re
import ssl
from pathlib import Path

from fcnseg.errors import InputError, one_line

_FORM = re.compile(
    r"(?:(?P<scheme>grpc|grpcs|http|https)://)?(?P<host>\[[^\]/]+\]|[^:/\s@]+)(?::(?P<port>\d+))?"
    r"(?P<path>(?:/[^\s?#]*)?)"
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """The address of a server.

    Attributes:
        scheme: `grpc`, `grpcs`, `http` or `https`; those that end with s use TLS.
        host: Name or address.
        port: The port.
        path: What a proxy has before `/v1`, without the last slash; empty over gRPC.
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, server: str) -> Endpoint:
        """Reads an address.

        Args:
            server: `HOST:PORT` for gRPC, or a URL: `grpc://`, `grpcs://`, `http://`, `https://`.

        Raises:
            InputError: If it is neither.

        >>> Endpoint.parse("127.0.0.1:8500")
        Endpoint(scheme='grpc', host='127.0.0.1', port=8500, path='')
        >>> str(Endpoint.parse("https://models.example.org/ct/"))
        'https://models.example.org:443/ct'
        """
        match = _FORM.fullmatch(server)
        scheme = (match and match["scheme"]) or "grpc"
        port = int(match["port"] or _DEFAULT_PORTS.get(scheme, 0)) if match else 0
        path = match["path"].rstrip("/") if match else ""
        if match is None or not 0 < port < 2**16 or (path and scheme.startswith("grpc")):
            raise InputError(
                "server must be HOST:PORT for gRPC, or a URL such as grpcs://HOST:PORT or"
                f" http://HOST:PORT, got {server!r}"
            )
        return cls(scheme, match["host"], port, path)

    def __str__(self) -> str:
        where = f"{self.host}:{self.port}{self.path}"
        return where if self.scheme == "grpc" else f"{self.scheme}://{where}"

    @property
    def is_rest(self) -> bool:
        """True if requests are HTTP with JSON."""
        return self.scheme.startswith("http")

    @property
    def has_tls(self) -> bool:
        """True if the connection is encrypted."""
        return self.scheme.endswith("s")


@dataclasses.dataclass(frozen=True)
class Credentials:
    """Proof of identity that a server, or the proxy in front of it, asks a client for.

    Attributes:
        user: Name for basic authentication; empty if there is none.
        password: Its password.
        ca_file: Certificates (PEM) to trust; those of the system by default.
    """

    user: str = ""
    password: str = dataclasses.field(default="", repr=False)
    ca_file: Path | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Headers of each request, by their name in lower case."""
        if not self.user:
            return {}
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"authorization": f"Basic {token}"}

    def ca_pem(self) -> bytes | None:
        """The certificates to trust; None for those of the system.

        Raises:
            InputError: If they cannot be read.
        """
        if self.ca_file is None:
            return None
        rule = f"ca_file must be a file of certificates (PEM), got {self.ca_file}"
        try:
            pem = self.ca_file.read_bytes()
            ssl.create_default_context(cadata=pem.decode())
        except ssl.SSLError as error:
            raise InputError(f"{rule}, which has none: {one_line(error)}") from error
        except OSError as error:
            raise InputError(f"{rule}: {error.strerror}") from error
        except ValueError as error:  # no text, or nothing
            raise InputError(f"{rule}: {one_line(error)}") from error
        return pem
