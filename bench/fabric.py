"""Writes the inventory of a fabric of any size, for the benchmarks."""

from __future__ import annotations

import argparse
import ipaddress
from pathlib import Path

FABRIC = """---
l3hv_fabric: bench
l3hv_asn: 65000
l3hv_domains:
  public: {{table: 90, vlan: 90, families: [ipv4, ipv6]}}
  private: {{table: 20, vlan: 20, families: [ipv4], loopbacks: {{ipv4: 172.22.0.0/17}}}}
l3hv_local_out: {{table: 100}}
l3hv_paths:
  a:
    public: {{ipv4: 172.24.0.0/17, ipv6: "2001:db8:6400::/112"}}
    private: {{ipv4: 172.25.0.0/17}}
  b:
    public: {{ipv4: 172.24.128.0/17, ipv6: "2001:db8:6401::/112"}}
    private: {{ipv4: 172.25.128.0/17}}
l3hv_pools:
  customers: {{domain: public, ipv4: 10.0.0.0/8, gateway: 10.255.255.254, ipv6: "2001:db8:8000::/36"}}
"""


def write_inventory(directory: Path, hypervisors: int, guests: int) -> None:
    """Write ``hypervisors`` hosts with ``guests`` guests each, two reflectors and one edge router."""
    names = [f"hv{number:05d}" for number in range(1, hypervisors + 1)]
    (directory / "group_vars").mkdir(parents=True, exist_ok=True)
    (directory / "host_vars").mkdir(exist_ok=True)
    (directory / "group_vars" / "all.yml").write_text(FABRIC.format(), encoding="utf-8")
    (directory / "hosts.yml").write_text(
        "---\nhypervisors:\n  hosts:\n"
        + "".join(f"    {name}:\n" for name in names)
        + "route_reflectors:\n  hosts:\n    rr1:\n    rr2:\nedge_routers:\n  hosts:\n    edge1:\n",
        encoding="utf-8",
    )
    uplinks = "l3hv_uplinks: {a: eno1, b: eno2}\n"
    first = int(ipaddress.IPv4Address("10.0.0.1"))
    for number, name in enumerate(names, start=1):
        lines = [f"---\nl3hv_id: {number}\n", uplinks, "l3hv_guests:\n"]
        for guest in range(guests):
            serial = (number - 1) * guests + guest
            mac = (0x525400 << 24) + serial
            octets = ":".join(f"{(mac >> shift) & 255:02x}" for shift in range(40, -8, -8))
            lines.append(
                f"  - name: vm{serial}\n    interface: vnet{guest}\n    mac: {octets}\n"
                f"    ipv4: {ipaddress.IPv4Address(first + serial)}\n"
            )
        (directory / "host_vars" / f"{name}.yml").write_text("".join(lines), encoding="utf-8")
    for number, (name, path) in enumerate((("rr1", "a"), ("rr2", "b")), start=1):
        (directory / "host_vars" / f"{name}.yml").write_text(
            f"---\nl3hv_id: {32000 + number}\nl3hv_path: {path}\nl3hv_uplinks: {{{path}: eno1}}\n",
            encoding="utf-8",
        )
    (directory / "host_vars" / "edge1.yml").write_text(
        f"---\nl3hv_id: 32100\n{uplinks}l3hv_edge_domains: [public]\n", encoding="utf-8"
    )


def main() -> None:
    """Write an inventory to a directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--hypervisors", type=int, default=1000)
    parser.add_argument("--guests", type=int, default=100)
    arguments = parser.parse_args()
    write_inventory(arguments.directory, arguments.hypervisors, arguments.guests)


if __name__ == "__main__":
    main()
