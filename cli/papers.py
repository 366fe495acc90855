"""This host's own certificate, looked at before others refuse it."""

from __future__ import annotations

from p2p.errors import BadPapers
from p2p.pki import roles_of
from p2p.security import Role

from .setup import Safety


def require_roles(safety: Safety, *roles: Role) -> None:
    """Raise BadPapers unless this host's certificate, where it has one, carries all of *roles*."""
    if safety.papers is None:
        return
    certificate = safety.papers[0]
    has = roles_of(certificate)
    for role in roles:
        if role not in has:
            says = ", ".join(sorted(each.value for each in has)) or "nothing"
            raise BadPapers(f"{certificate} is no {role.value}'s: its role says {says}")
