"""Large communities (RFC 8092) of a fabric, which mark the domain of a route in a shared session.

Their form is ``AS number : DOMAIN : number of the domain's kind``. Other sessions do not use them.
"""

from __future__ import annotations

from collections.abc import Iterable

from l3hv.model.choices import DomainKind
from l3hv.model.intent import Common
from l3hv.model.plan import DomainCommunity

DOMAIN = 1
"""The second part of a community that names a domain."""

NUMBERS: dict[DomainKind, int] = {"public": 1, "private": 2}
"""The third part of the community: a fabric has at most one domain of each kind."""


def domain_communities(common: Common, domains: Iterable[str]) -> tuple[DomainCommunity, ...]:
    """Return the communities that the routes of ``domains`` carry in shared sessions."""
    return tuple(
        DomainCommunity(domain, (common.asn, DOMAIN, NUMBERS[common.domain(domain).kind]))
        for domain in domains
    )
