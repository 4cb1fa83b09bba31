"""The program that keeps the rule for checksums of DHCP answers, with the iptables of each distribution."""

from __future__ import annotations

import pytest
from images import ROOT, in_an_image

PROGRAM = ROOT / "roles/guest_services/files/dhcp-checksums"

# Turns the namespace into a machine with the program, which must restore the rule after each removal.
KEEPS = """
cp "$2" /mnt/root/dhcp-checksums
run() {
    chroot /mnt/root "$@"
}
await() {
    for try in $(seq 200); do
        ! run /dhcp-checksums in-force 2>/dev/null || return 0
        sleep 0.01
    done
    echo "not within two seconds after: $1" >&2
    exit 1
}
! run /dhcp-checksums in-force 2>/run/missing
cat /run/missing
chroot /mnt/root /dhcp-checksums keep &
keeper=$!
await 'the start'
while read -r removal; do
    run $removal
    await "$removal"
done <<'REMOVALS'
nft flush ruleset
nft delete table ip mangle
nft flush table ip mangle
iptables-nft -t mangle -F
iptables-nft -t mangle -F OUTPUT
iptables-nft -t mangle -D OUTPUT 1
REMOVALS
run nft add table ip other
run nft delete table ip other
await 'a table of others'
echo "rules: $(run iptables-nft -t mangle -S OUTPUT | grep -c CHECKSUM)"
# At rest: looking at the rule causes no event to look at.
run sh -c 'timeout 1 nft monitor' >/run/events & monitor=$!
run /dhcp-checksums in-force
run /dhcp-checksums in-force
wait $monitor || :
echo "events: $(wc -l </run/events)"
kill $keeper; wait $keeper || :
run /dhcp-checksums remove
! run /dhcp-checksums in-force 2>/dev/null
"""


@pytest.mark.parametrize("system", ["debian12", "debian13"])
def test_the_rule_is_restored_after_any_removal(system: str) -> None:
    done = in_an_image(system, "bird2", KEEPS, PROGRAM)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout.splitlines()
    assert "is missing" in printed[0]
    assert printed.count("the rule for the checksums of DHCP answers is set") == 7
    assert printed[-2:] == ["rules: 1", "events: 0"]
