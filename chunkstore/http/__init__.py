"""An HTTP/1.1 client whose bodies land where the caller wants them.

::

    url      Url: where to, and what of it may be shown
    proxies  Proxies: which proxy, if any, stands before a url
    fence    Fence: where a client may go that reads for others
    trust    Trust: authorities, certificates of ours, per server
    wire     Wire: bytes to and from one server; sockets, TLS, tunnels
    layered  TLS over a wire that is TLS already
    message  Request, and Response: the head by h11, the body into the caller's memory
    pool     Pool: kept connections, bounded per server
    answers  what a status means as an error; ranges and delays as servers write them
    client   Client: redirects, retries of dead kept connections, documents
    ranges   a range of a file, whatever the server makes of the question
"""

from __future__ import annotations

from .client import Client
from .download import download
from .fence import Fence, UrlPattern
from .message import Deadlines, Request, Response, Upload
from .proxies import Proxies
from .ranges import RangeRead, file_size, read_range
from .trust import Identity, Trust
from .url import Url

__all__ = [
    "Client",
    "Deadlines",
    "Fence",
    "Identity",
    "Proxies",
    "RangeRead",
    "Request",
    "Response",
    "Trust",
    "Upload",
    "Url",
    "UrlPattern",
    "download",
    "file_size",
    "read_range",
]
