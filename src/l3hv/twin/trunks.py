"""Trunks: a cable per NIC that carries VLANs with 802.1Q tags, instead of a cable per VLAN.

By default each VLAN interface of a machine is a cable of its own, which works on any kernel.  With
``up --tagged`` a machine has its NICs instead, and the roles create the VLAN interfaces, as in production.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from l3hv.model.plan import Nic
from l3hv.model.topology import Machine, Port, Topology
from l3hv.twin import TwinError

TRUNK = "802.1q"
"""The name of a trunk where other ports have their domain; no domain can have it."""


def with_trunks(topology: Topology, nics: Mapping[str, Iterable[Nic]]) -> Topology:
    """Return a topology in which each NIC in ``nics`` (by machine) is a port instead of its VLANs."""
    machines = tuple(_with_trunks(machine, nics.get(machine.name, ())) for machine in topology.machines)
    _check_paths(machines)
    return replace(topology, machines=machines)


def _with_trunks(machine: Machine, nics: Iterable[Nic]) -> Machine:
    nic_of = {vlan: nic.interface for nic in nics for vlan in nic.vlans}
    ports = tuple(dict.fromkeys(_ports(machine.ports, nic_of)))  # the VLANs of a NIC give the same port
    return replace(machine, ports=ports, needs=(*machine.needs, "vlan") if nic_of else machine.needs)


def _ports(ports: Iterable[Port], nic_of: Mapping[str, str]) -> Iterator[Port]:
    for port in ports:
        nic = nic_of.get(port.interface)
        yield port if nic is None else replace(port, interface=nic, domain=TRUNK)


def _check_paths(machines: Iterable[Machine]) -> None:
    """Refuse paths on which some machines have VLANs of a NIC, and others an interface per domain.

    The switches do not add or remove tags: a kernel without 802.1Q cannot do it.
    """
    tagged: dict[str, str] = {}
    untagged: dict[str, str] = {}
    for machine in machines:
        for port in machine.ports:
            (tagged if port.domain == TRUNK else untagged).setdefault(port.path, machine.name)
    if not tagged:
        raise TwinError("no machine of the inventory has VLANs of a NIC: omit --tagged")
    for path in tagged.keys() & untagged.keys():
        raise TwinError(
            f"{tagged[path]} has VLANs of a NIC on path {path}, and {untagged[path]} an interface per "
            "domain: the twin's switches cannot connect the two, so omit --tagged"
        )
