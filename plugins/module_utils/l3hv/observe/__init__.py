"""The observation of a host by the module ``l3hv_observe``: one file for each thing that is observed.

- ``kernel``: links, addresses, policy rules, neighbours, settings; ``routes``; both through ``netlink``.
- ``packet_filter``: the tables of l3hv; ``foreign_chains``: the tables of other programs, with the effects of
  their rules from ``foreign_rules``; all through ``nft``.
- ``routing``: the routing daemon, which is ``bird``, ``gobgp`` or ``frr``; ``callers`` that it refused.
- ``units`` of systemd, ``listeners`` with their ports, ``offers`` to guests, ``paths`` to reflectors.

All of them use the ``plan``, ``files``, and ``programs`` with a time limit.
"""
