"""Diffs of the files of a set, without secrets."""

from __future__ import annotations

from collections.abc import Callable

from ansible.module_utils.l3hv.config_files.files import File, Found


def diff(path: str, found: Found, file: File | None, hide: Callable[[str], str]) -> dict[str, str]:
    """Return the diff of a file in Ansible's form; ``hide`` removes secrets from its text."""

    def text_of(content: bytes | None) -> str:
        return hide(content.decode("utf-8", "replace")) if content is not None else ""

    # A removed file is not part of the set any more: only its mode shows whether it is sensitive.
    if file.sensitive if file else found.mode is not None and not found.mode & 0o077:
        became = "removed" if file is None else "changed" if found.exists else "new"
        return {"prepared": f"--- {path}\n+++ {path} ({became}; it holds secrets and is not shown)\n"}
    if file is None:
        return {
            "before_header": path,
            "after_header": f"{path} (removed)",
            "before": text_of(found.content),
            "after": "",
        }
    headers = [path, path]
    if found.exists and (
        found.mode != file.mode or file.uid not in (None, found.uid) or file.gid not in (None, found.gid)
    ):
        headers = [f"{path} ({found.attributes()})", f"{path} ({file.mode:04o} {file.uid}:{file.gid})"]
        if found.content == file.content:
            return {"prepared": f"--- {headers[0]}\n+++ {headers[1]}\n"}
    elif not found.exists:
        headers[1] = f"{path} (new)"
    return {
        "before_header": headers[0],
        "after_header": headers[1],
        "before": text_of(found.content),
        "after": text_of(file.content),
    }
