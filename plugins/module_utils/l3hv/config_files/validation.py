"""The check of new files by the programs that will read them, before a file is replaced."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile

from ansible.module_utils.l3hv.config_files.commands import Commands
from ansible.module_utils.l3hv.config_files.files import File, reporting_write_errors, write_file
from ansible.module_utils.l3hv.config_files.refused import Refused


def validate(files: list[File], wanted: dict[str, File], commands: Commands) -> None:
    """Check ``files``, each beside the ``wanted`` files of its directory, which it may include."""
    module = commands.module
    with reporting_write_errors(module.tmpdir):
        directory = tempfile.mkdtemp(prefix="config_files.", dir=module.tmpdir)
    try:
        for number, file in enumerate(files):
            if not file.validate:
                continue
            if "%s" not in file.validate:
                raise Refused(f"{file.dest}: validate has no %s for the path of the new content")
            words = shlex.split(file.validate)
            if module.check_mode and shutil.which(words[0]) is None:
                continue
            beside = os.path.join(directory, str(number))
            for path, other in wanted.items():
                if os.path.dirname(path) == os.path.dirname(file.dest):
                    write_file(os.path.join(beside, os.path.basename(path)), other.content, 0o600, None, None)
            staged = os.path.join(beside, os.path.basename(file.dest))
            code, out, err = commands.limited([word.replace("%s", staged) for word in words])
            if code != 0:
                output = (out + err).strip().replace(staged, file.dest)
                raise Refused(
                    f"{words[0]} refuses the new {file.dest}; nothing was changed: {output}", output
                )
    finally:
        shutil.rmtree(directory)
