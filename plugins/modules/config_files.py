#!/usr/bin/python
"""Converges a set of configuration files and the units that read them, as one transaction."""

# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.l3hv.config_files.activation import activate
from ansible.module_utils.l3hv.config_files.config_set import ConfigSet
from ansible.module_utils.l3hv.config_files.lock import renew_lock
from ansible.module_utils.l3hv.config_files.placing import place
from ansible.module_utils.l3hv.config_files.refused import Refused

DOCUMENTATION = r"""
module: config_files
short_description: Converge a set of configuration files as one transaction
description:
  - Renders templates on the controller and converges all files of a set in one remote task.
  - All files are checked before any is replaced. A file is replaced by a rename in its own directory.
    Files that match O(owned) and are no longer wanted are removed.
  - The previous files are kept below O(state_dir) until the next change, so that a failed activation can
    roll back.
  - O(state=present) places the files and reports a change. A handler with O(state=active) then runs
    the commands of O(activate). If one of them fails, the previous files are restored and activated, and
    the handler fails.
  - A change that was never activated, because the run was interrupted, is reported again by the next run.
options:
  set:
    description: The name of the set. It names the directory below O(state_dir).
    type: str
    required: true
  state:
    description:
      - V(present) places the files.
      - V(active) activates the files that V(present) placed, or rolls back.
    type: str
    choices: [present, active]
    default: present
  files:
    description: The files of the set.
    type: list
    elements: dict
    default: []
    suboptions:
      src:
        description:
          - A template in the role's C(templates) if the name ends in C(.j2), else a file in its C(files).
            Files are copied unchanged.
          - Jinja itself renders templates, with the filter P(ansible.builtin.comment#filter) and the host's
            variables. An undefined variable is an error. C(@digest@) in the result becomes a digest of the
            result, which a daemon can report later.
        type: str
        required: true
      dest:
        description:
          - The absolute path on the machine. Missing parent directories are made with mode C(0755).
          - With O(files[].each), C({field}) is replaced by the field of the element.
        type: path
        required: true
      when:
        description:
          - Whether the entry is a part of the set. V(false) leaves it out, and does not render its template.
          - It must be a boolean, such as the value of a comparison.
        type: bool
        default: true
      each:
        description: There is one file for each element of this list, and none if the list is empty.
        type: list
        elements: dict
      as:
        description: The name of the element in the template.
        type: str
        default: item
      mode:
        description: The permission bits, as a quoted octal number.
        type: str
        default: '0644'
      owner:
        description: The user's name.
        type: str
        default: root
      group:
        description: The group's name.
        type: str
        default: root
      validate:
        description:
          - A command that refuses an invalid file by its exit status. C(%s) is the path of the new content.
          - The other files of the set for the same directory are beside it, under their final names.
          - With O(files[].each), C({field}) is replaced as in O(files[].dest).
          - Check mode skips it if the program is not installed yet.
        type: str
      sensitive:
        description:
          - Neither a diff nor any other output shows the old or new content of the file.
          - Give it the mode C(0600). For a removed file, only the mode shows that it is sensitive.
        type: bool
        default: false
  owned:
    description:
      - Glob patterns. Files that match one of them and are not in O(files) are removed.
      - Units among them are stopped first.
    type: list
    elements: str
    default: []
  units:
    description:
      - Units that must be enabled and active.
      - A unit that is not enabled and active counts as a change; O(state=active) enables and starts it.
    type: list
    elements: str
    default: []
  running:
    description:
      - A command that exits with 0 if the daemon runs the configuration of the files. It runs only if no file
        differs.
      - After O(activate) it must succeed within O(timeout).
    type: str
  activate:
    description:
      - Commands that make the files take effect, in this order, with O(state=active).
      - They find the paths that changed and those that were removed, one per line, in the environment
        variables E(CONFIG_FILES_CHANGED) and E(CONFIG_FILES_REMOVED).
    type: list
    elements: dict
    default: []
    suboptions:
      command:
        description: The command.
        type: str
        required: true
      changed:
        description:
          - Glob patterns.
          - The command runs only if a path that changed or was removed matches one of them.
        type: list
        elements: str
      early:
        description: Run it before O(units) are enabled and started, for example to end another daemon first.
        type: bool
        default: false
  timeout:
    description: The maximum time in seconds until O(units) are up, and until O(running) succeeds.
    type: int
    default: 15
  hidden:
    description:
      - A regular expression. A diff has C((not shown)) in place of the parts of lines that match it.
      - It hides secrets that other programs write into files of the set. For files whose templates contain
        secrets, use O(files[].sensitive).
    type: str
  state_dir:
    description: The directory for the previous content of each set. Only root can read it.
    type: path
    default: /var/lib/l3hv/previous
attributes:
  check_mode:
    support: full
    description: Files are rendered, compared and checked; nothing is changed.
  diff_mode:
    support: full
    description: One diff per file; a change of mode or owner is shown in its header.
author: [l3hv]
"""

EXAMPLES = r"""
- name: Describe the guest ports
  config_files:
    set: guest_ports
    files:
      - src: port.network.j2
        dest: /etc/systemd/network/05-l3hv-port-{interface}.network
        each: "{{ guest_ports_guests }}"
        as: guest
    owned: [/etc/systemd/network/05-l3hv-port-*.network]
    units: [systemd-networkd.service]
  notify: Reload the guest ports

# handlers/main.yml
- name: Reload the guest ports
  config_files:
    set: guest_ports
    state: active
    units: [systemd-networkd.service]
    activate:
      - command: networkctl reload
"""

RETURN = r"""
changed_files:
  description: Paths that were or would be written, or get another mode or owner.
  returned: always
  type: list
  elements: str
removed_files:
  description: Paths that were or would be removed.
  returned: always
  type: list
  elements: str
pending:
  description: Whether a change waits for a handler with O(state=active).
  returned: always
  type: bool
reasons:
  description: The reasons for a reported change, if no file differs.
  returned: always
  type: list
  elements: str
"""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "set": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "active"], "default": "present"},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    # The action plugin renders `src`, `each` and `as` into `dest` and `content`.
                    "dest": {"type": "path", "required": True},
                    "content": {"type": "str"},
                    "secret_content": {"type": "str", "no_log": True},
                    "mode": {"type": "str", "default": "0644"},
                    "owner": {"type": "str", "default": "root"},
                    "group": {"type": "str", "default": "root"},
                    "validate": {"type": "str"},
                },
            },
            "owned": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "list", "elements": "str", "default": []},
            "running": {"type": "str"},
            "activate": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "command": {"type": "str", "required": True},
                    "changed": {"type": "list", "elements": "str"},
                    "early": {"type": "bool", "default": False},
                },
            },
            "timeout": {"type": "int", "default": 15},
            "hidden": {"type": "str"},
            "state_dir": {"type": "path", "default": "/var/lib/l3hv/previous"},
        },
        supports_check_mode=True,
    )
    try:
        if not module.check_mode:
            renew_lock(os.environ.get("L3HV_RUN", ""))
        config = ConfigSet(module)
        result = place(config) if module.params["state"] == "present" else activate(config)
    except Refused as refusal:
        module.fail_json(msg=str(refusal), output=refusal.output, changed=False)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
