"""The checks of the secrets of BGP sessions. No sentence repeats a secret, and no plan contains one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from l3hv.model.choices import DaemonName
from l3hv.model.daemons import KEYS_WITHOUT_SPACES, TITLES

LONGEST = 80
"""Maximum bytes of a key of TCP MD5 in the kernel (``TCP_MD5SIG_MAXKEYLEN``)."""

_PRINTABLE = re.compile(rf"[ !#-~]{{1,{LONGEST}}}", re.ASCII)


def secret_problems(names: Iterable[str], secrets: object, daemon: DaemonName | None = None) -> list[str]:
    """Return a sentence for each of the keys ``names`` without a secret that ``daemon`` accepts.

    >>> secret_problems(["fabric"], {"fabric": "as long as it has no quotes"})
    []
    >>> secret_problems(["fabric"], {"rack7": "…"})
    ['l3hv_bgp_secrets has nothing for the key fabric. Add it, encrypted with ansible-vault.']
    """
    return list(_problems(names, secrets, daemon))


def _problems(names: Iterable[str], secrets: object, daemon: DaemonName | None) -> Iterator[str]:
    known = secrets if isinstance(secrets, Mapping) else {}
    for name in names:
        secret = known.get(name)
        where = f"l3hv_bgp_secrets.{name}"
        if secret is None:
            yield f"l3hv_bgp_secrets has nothing for the key {name}. Add it, encrypted with ansible-vault."
        elif not isinstance(secret, str):
            yield f"{where} is not text. Put it in quotes."
        elif not _PRINTABLE.fullmatch(secret):
            yield f'{where} is not 1 to {LONGEST} printable ASCII characters without ". Choose another.'
        elif " " in secret and daemon in KEYS_WITHOUT_SPACES:
            yield f"{where} has a space, and {TITLES[daemon]} would end the secret there. Choose another."
