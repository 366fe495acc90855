"""What an answer means as an error, and the little languages of its headers."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from datetime import datetime

import msgspec

from chunkstore.errors import ChunkstoreError, Corrupt, Missing, Refused, Unreachable

from .url import Url

_LONGEST_WAIT = 3600.0
"""Seconds; a server that asks for more is asked again after this."""

_LONGEST_WORDS = 200
"""Characters of a server's own words that an error repeats."""

_DATE = "%a, %d %b %Y %H:%M:%S GMT"
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,18})", re.IGNORECASE)

_BY_STATUS: dict[int, type[ChunkstoreError]] = {
    404: Missing,
    408: Unreachable,
    410: Missing,
    416: Corrupt,
    425: Unreachable,
    429: Unreachable,
}
"""The other statuses from 400 to 499 refuse; all others are a server that cannot answer now."""

_UNWELCOME = (
    *("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE"),
    *("TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_CERTIFICATE_UNKNOWN"),
    *("SSLV3_ALERT_CERTIFICATE_EXPIRED", "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"),
)
"""OpenSSL's reasons for alerts about a client's certificate."""


class _Word(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Words(msgspec.Struct):
    errors: list[_Word]


def failure(url: Url, exc: Exception) -> Unreachable:
    """Return the error for a connection that failed with *exc*."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return Refused(f"{url}: its certificate is not trusted: {exc.verify_message}")
    if wants_another(exc):
        return Refused(f"{url}: does not take our certificate, or lack of one: {_reason(exc)}")
    return Unreachable(f"{url}: {_reason(exc)}")


def wants_another(exc: BaseException) -> bool:
    """Say whether a server ended TLS because of what we showed it of ourselves."""
    return isinstance(exc, ssl.SSLError) and exc.reason in _UNWELCOME


def _reason(exc: BaseException) -> str:
    # Several addresses that were tried side by side fail as a group behind one error.
    if isinstance(exc.__cause__, BaseExceptionGroup):
        return _reason(exc.__cause__.exceptions[0])
    if isinstance(exc.__cause__, OSError):
        return _reason(exc.__cause__)
    return str(getattr(exc, "strerror", None) or exc or type(exc).__name__)


def refusal(url: Url, status: int, headers: Mapping[str, str], body: bytes) -> ChunkstoreError:
    """Return the error for an answer that is not what was asked for."""
    words = f"{url}: answered {status}{_words(headers, body)}"
    kind = _BY_STATUS.get(status, Refused if 400 <= status < 500 else Unreachable)
    if kind is Unreachable:
        return Unreachable(words, retry_after=retry_after(headers))
    return kind(words)


def _words(headers: Mapping[str, str], body: bytes) -> str:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    text = ""
    if kind.endswith("json"):
        try:
            said = msgspec.json.decode(body, type=_Words).errors
            text = ", ".join(f"{word.code} {word.message}".strip() for word in said)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            text = ""
    elif kind == "text/plain":
        text = body.decode("utf-8", "replace")
    text = "".join(c if c.isprintable() else " " for c in text[:_LONGEST_WORDS]).strip()
    return f": {text}" if text else ""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return after how many seconds the server wants to be asked again, if it says so.

    A date is taken against the server's own clock, which stands in the same answer.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _LONGEST_WAIT)
    then, now = _date(text), _date(headers.get("date", ""))
    if then is None or now is None:
        return None
    return min(max(0.0, (then - now).total_seconds()), _LONGEST_WAIT)


def _date(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, _DATE)
    except ValueError:
        return None


def content_range(headers: Mapping[str, str]) -> tuple[int, int, int | None] | None:
    """Return start, stop and the file's size from ``Content-Range``; None where it is not told."""
    match = _RANGE.fullmatch(headers.get("content-range", "").strip())
    if match is None:
        return None
    first, last, total = match.groups()
    return int(first), int(last) + 1, None if total == "*" else int(total)


def unsatisfied_size(headers: Mapping[str, str]) -> int | None:
    """Return the file's size as an answer says it that could not satisfy a range."""
    match = _UNSATISFIED.fullmatch(headers.get("content-range", "").strip())
    return int(match[1]) if match else None


def strong_etag(headers: Mapping[str, str]) -> str | None:
    """Return the answer's entity tag if ranges may be joined by it (RFC 9110, 13.1.5)."""
    tag = headers.get("etag", "").strip()
    return tag if tag.startswith('"') else None
