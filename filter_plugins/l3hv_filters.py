"""The filters of l3hv: a table from their names to the functions behind them.

Ansible loads this file by its path, with no package around it.  ``src`` is therefore appended to the
module path (never put first: an installed l3hv wins), and everything else lives there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SOURCES = str(Path(__file__).resolve().parent.parent / "src")
if _SOURCES not in sys.path:
    sys.path.append(_SOURCES)

from l3hv import junos, model, plan, secrets, summary  # noqa: E402  (needs the path above)
from l3hv.inventory import plain  # noqa: E402  (the same)


def host_plan(slice_: Any) -> dict[str, Any]:
    """Return the plan of one host as plain data."""
    result: dict[str, Any] = model.as_plain(plan.host_plan(plain(slice_)))
    return result


def plan_summary(host_plan_: Any) -> str:
    """Return a host's plan as text for an operator."""
    return summary.plan_summary(plain(host_plan_))


def junos_reflector(host_plan_: Any) -> dict[str, Any]:
    """Return what a reflector of Junos is given, as plain data."""
    return junos.junos_reflector(plain(host_plan_))


def secret_problems(names: Any, secrets_: Any) -> list[str]:
    """Return what is wrong with the secrets of these keys."""
    return secrets.secret_problems(plain(names), plain(secrets_))


class FilterModule:
    """What Ansible asks for the filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "host_plan": host_plan,
            "junos_reflector": junos_reflector,
            "plan_summary": plan_summary,
            "secret_problems": secret_problems,
        }
