"""BIRD 1.6, 2 and 3 over their control socket: sessions, channels, BFD and the running configuration."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

from ansible.module_utils.l3hv.observe.files import digests_of_file
from ansible.module_utils.l3hv.observe.plan import Plan
from ansible.module_utils.l3hv.observe.programs import ANSWER_SECONDS, POLL_SECONDS, NoAnswerInTime

BIRD_SOCKET = "/run/bird/{}.ctl"
BIRD_CONFIGURATION = "/etc/bird/{}.conf"
BIRD_DIGEST_LINE = r'^define l3hv_config = "([^"]*)";$'
ROUTE_LINE = 1007
ROUTE_ROW = re.compile(r"([0-9a-f.:]+/\d+) ")
REFUSAL = re.compile(r"fabric_refusal: (\d+)")
REFUSED_SHOWN = 10
BEGINNING = 300
"""Number of lines that contain ``REFUSED_SHOWN`` routes with all their attributes."""

PROTOCOL_LINE = 1002
DETAIL_LINE = 1006
BFD_LINE = 1020
PROTOCOL_ROW = re.compile(
    r"(?P<name>\S+) +(?P<type>\S+) +(?P<table>\S+) +(?P<state>\S+) +[\d-]\S*(?: \d\d:\S+)? *(?P<info>.*?) *$"
)


class BirdError(Exception):
    """BIRD did not answer, or answered with an error."""


class Bird:
    """A connection to the control socket of a BIRD, with the protocol of birdc."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(ANSWER_SECONDS)
        self._pending = b""
        try:
            self._connect(path)
            self._reply()
        except TimeoutError:
            self.close()
            raise NoAnswerInTime(f"{path}: no answer within {ANSWER_SECONDS} s") from None
        except OSError as error:
            self.close()
            raise BirdError(f"{path}: {error.strerror or error}") from None

    def _connect(self, path: str) -> None:
        """Connect within ANSWER_SECONDS: the kernel refuses a client while too many others wait for BIRD."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                return self._socket.connect(path)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError from None
                time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def ask(self, command: str) -> list[tuple[int, str]]:
        """Return the lines of the reply with their codes. Raises BirdError if BIRD refuses the command."""
        return self._ask(command, most=None)

    def ask_beginning(self, command: str) -> list[tuple[int, str]]:
        """Return the first lines of a reply that may be long. Afterwards the connection cannot be used."""
        return self._ask(command, most=BEGINNING)

    def _ask(self, command: str, most: int | None) -> list[tuple[int, str]]:
        try:
            self._socket.sendall(command.encode() + b"\n")
            return self._reply(most)
        except TimeoutError:
            raise NoAnswerInTime(f"{command}: no answer within {ANSWER_SECONDS} s") from None
        except OSError as error:
            raise BirdError(f"{command}: {error}") from None

    def _reply(self, most: int | None = None) -> list[tuple[int, str]]:
        """Read the lines of a reply to its end, or the first ``most`` of them."""
        lines: list[tuple[int, str]] = []
        code = 0
        while True:
            while b"\n" not in self._pending:
                received = self._socket.recv(65536)
                if not received:
                    raise OSError("the daemon closed its socket")
                self._pending += received
            line, self._pending = self._pending.split(b"\n", 1)
            text = line.decode(errors="replace")
            is_last = False
            if text[:4].isdigit() and text[4:5] in {"-", " "}:
                code = int(text[:4])
                is_last = text[4] == " "
                text = text[5:]
            else:
                text = text[1:]  # One space means the code of the line before.
            lines.append((code, text))
            if len(lines) == most:
                return lines
            if is_last:
                if code >= 8000:
                    raise BirdError(text)
                return lines


def parse_status(lines: list[tuple[int, str]]) -> dict[str, str]:
    """Return the fields of ``show status``, whose order differs between versions."""
    text = "\n".join(line for _, line in lines)

    def find(pattern: str) -> str:
        match = re.search(pattern, text)
        return match[1].strip() if match else ""

    return {
        "version": find(r"BIRD v?(\d\S*)"),
        "router_id": find(r"Router ID is (\S+)"),
        "now": find(r"Current server time is (.+)"),
        "reconfigured": find(r"Last reconfiguration on (.+)"),
        "state": next((line for code, line in lines if code in {13, 23, 24}), ""),
    }


def parse_protocols(lines: list[tuple[int, str]]) -> dict[str, dict[str, Any]]:
    """Return the protocols of ``show protocols all``: type, state, info, addresses and channels."""
    protocols: dict[str, dict[str, Any]] = {}
    protocol: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    for code, line in lines:
        if code == PROTOCOL_LINE and (row := PROTOCOL_ROW.match(line)):
            fields = {}
            protocol = {**row.groupdict(), "fields": fields, "channels": {}}
            protocols[protocol.pop("name")] = protocol
        elif code == DETAIL_LINE and protocol:
            key, colon, value = (part.strip() for part in line.partition(":"))
            if not colon and key.startswith("Channel "):
                fields = protocol["channels"].setdefault(key.split()[1], {})
            elif colon and value and key not in fields:
                fields[key] = value
    return protocols


def parse_bfd(lines: list[tuple[int, str]]) -> list[dict[str, str]]:
    """Return the sessions of ``show bfd sessions``; intervals are in seconds.

    A line has: address, interface, state, time of the last change (one or two words), interval, timeout.
    """
    rows = [line.split() for code, line in lines if code == BFD_LINE]
    return [
        {"address": row[0], "interface": row[1], "state": row[2], "interval": row[-2], "timeout": row[-1]}
        for row in rows
        if len(row) >= 6 and row[0] != "IP"
    ]


def routes_of(channel: dict[str, str]) -> dict[str, int]:
    """Return the counters of a channel: imported, filtered, exported, preferred.

    >>> routes_of({"Routes": "7 imported, 0 filtered, 2 exported, 7 preferred"})
    {'imported': 7, 'filtered': 0, 'exported': 2, 'preferred': 7}
    """
    return {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", channel.get("Routes", ""))}


def limits_hit(channel: dict[str, str]) -> list[str]:
    """Return the reached limits of a channel, each with the present number of prefixes.

    BIRD marks a limit while it enforces it; BIRD 3 marks it until the session ends.

    >>> limits_hit({"Import limit": "128 [HIT]", "Routes": "128 imported, 2 filtered"})
    ['import limit of 128 (130 now)']
    """
    routes = routes_of(channel)
    now = routes.get("imported", 0) + routes.get("filtered", 0)
    return [
        f"{key.lower()} of {value.split()[0]} ({now} now)"
        for key, value in channel.items()
        if key.endswith(" limit") and value.endswith("[HIT]")
    ]


def parse_refused(lines: list[tuple[int, str]]) -> list[dict[str, Any]]:
    """Return the routes of ``show route all filtered``, each with the number of its refusal, or ``None``."""
    refused: list[dict[str, Any]] = []
    for code, line in lines:
        if code == ROUTE_LINE and (row := ROUTE_ROW.match(line)):
            refused.append({"prefix": row[1], "reason": None})
        elif refused and (reason := REFUSAL.match(line.strip())):
            refused[-1]["reason"] = int(reason[1])
    return refused


def read_refused(path: str, session: str, table: str) -> list[dict[str, Any]]:
    """Return the first routes that the filter of a session refused; BIRD keeps them for this purpose.

    Only the beginning of BIRD's reply is read: it may have as many routes as the session's limit allows.
    """
    bird = Bird(path)
    try:
        return parse_refused(bird.ask_beginning(f"show route all filtered table {table} protocol {session}"))[
            :REFUSED_SHOWN
        ]
    finally:
        bird.close()


def configuration_digests(bird: Bird, path: str) -> dict[str, str | None]:
    """Return the digest of the configuration that BIRD runs, and the digests of its file at ``path``."""
    try:
        running = bird.ask("eval l3hv_config")[-1][1].strip().strip('"')
    except BirdError as error:
        running = f"something else: {error}"
    return {"running": running, **digests_of_file(path, BIRD_DIGEST_LINE)}


def channels_of(protocol: dict[str, Any], family: str) -> dict[str, Any]:
    """Return the channels of a BGP protocol by family; in BIRD 1.6 the protocol itself is the channel."""
    own = {"State": protocol["state"].upper(), "Table": protocol["table"], **protocol["fields"]}
    return {
        name: {
            "state": fields.get("State", ""),
            "table": fields.get("Table", ""),
            "routes": routes_of(fields),
            "limits": limits_hit(fields),
        }
        for name, fields in (protocol["channels"] or {family: own}).items()
    }


def read_bird(name: str, family: str) -> dict[str, Any]:
    """Return the state of one BIRD, or ``{"error": …}``; ``family`` is the family of a BIRD 1.6."""
    path = BIRD_SOCKET.format(name)
    try:
        bird = Bird(path)
    except NoAnswerInTime as error:
        return {"error": str(error), "hangs": True}
    except BirdError as error:
        return {"error": str(error)}
    try:
        status = parse_status(bird.ask("show status"))
        protocols = parse_protocols(bird.ask("show protocols all"))
        sessions = {
            name: {
                "state": protocol["fields"].get("BGP state", protocol["state"]),
                "info": protocol["info"],
                # BIRD names the interface of a link-local address.
                "neighbor": protocol["fields"].get("Neighbor address", "").partition("%")[0],
                "local": protocol["fields"].get("Source address", ""),
                "error": protocol["fields"].get("Last error", ""),
                "channels": channels_of(protocol, family),
            }
            for name, protocol in protocols.items()
            if protocol["type"] == "BGP"
        }
        for session_name, session in sessions.items():
            for channel in session["channels"].values():
                kept = bool(channel["routes"].get("filtered")) and channel["table"]
                channel["refused"] = read_refused(path, session_name, kept) if kept else []
        has_bfd = any(protocol["type"] == "BFD" for protocol in protocols.values())
        return {
            **status,
            "configuration": configuration_digests(bird, BIRD_CONFIGURATION.format(name)),
            "sessions": sessions,
            "protocols": {name: p["state"] for name, p in protocols.items() if p["type"] != "BGP"},
            "bfd": parse_bfd(bird.ask("show bfd sessions")) if has_bfd else [],
        }
    except BirdError as error:
        return {"error": str(error)}
    finally:
        bird.close()


def read_birds(plan: Plan) -> dict[str, Any]:
    """Return the combined state of all BIRD processes of a host; BIRD 1.6 has one process per family."""
    programs = plan["routing"]["programs"]
    several = [read_bird(program["name"], program["families"][0]) for program in programs]
    for program, bird in zip(programs, several, strict=True):
        if "error" in bird:
            return {**bird, "error": f"{program['name']}: {bird['error']}"}

    def joined(values: list[str | None]) -> str | None:
        return None if None in values else " and ".join(dict.fromkeys(map(str, values)))

    return {
        **several[0],
        "router_id": joined([bird["router_id"] for bird in several]),
        "reconfigured": max(bird["reconfigured"] for bird in several),
        "state": joined(sorted({bird["state"] for bird in several})),
        "configuration": {
            key: joined([bird["configuration"][key] for bird in several])
            for key in several[0]["configuration"]
        },
        "sessions": {name: session for bird in several for name, session in bird["sessions"].items()},
        "protocols": {
            f"{name} of {program['name']}" if program["name"] != "bird" else name: state
            for program, bird in zip(programs, several, strict=True)
            for name, state in bird["protocols"].items()
        },
        "bfd": [session for bird in several for session in bird["bfd"]],
    }
