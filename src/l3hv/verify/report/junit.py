"""The report as JUnit's XML, which continuous integration shows: a suite per host, a case per check."""

from __future__ import annotations

from xml.etree import ElementTree

from l3hv.verify.report import Report


def junit(report: Report) -> str:
    """Return ``report.xml``. Warnings are passed cases with a text."""
    counts = report.counts()
    root = ElementTree.Element(
        "testsuites",
        name=f"verification of {report.inventory}",
        tests=str(len(report.checks)),
        failures=str(counts["failed"]),
        time=str(report.seconds),
    )
    for host in report.hosts:
        entries = report.of(host)
        failed = report.counts(entries)["failed"]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=host,
            tests=str(len(entries)),
            failures=str(failed),
            errors="0",
            timestamp=report.time,
        )
        for entry in entries:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{host}.{entry.topic}", name=entry.what
            )
            if entry.state == "ok":
                continue
            text = f"expected: {entry.expected}\nfound: {entry.found}\n{entry.remedy}"
            if entry.passes:
                ElementTree.SubElement(case, "system-out").text = text
            else:
                ElementTree.SubElement(case, "failure", message=entry.sentence).text = text
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
