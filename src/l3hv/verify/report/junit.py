"""The report as JUnit's XML, which continuous integration shows: a suite per host, a case per check."""

from __future__ import annotations

from xml.etree import ElementTree

from l3hv.verify.report import Report, topic


def junit(report: Report) -> str:
    """Return ``report.xml``. Warnings are passed cases that say something."""
    counts = report.counts()
    root = ElementTree.Element(
        "testsuites",
        name=f"verification of {report.inventory}",
        tests=str(len(report.checks)),
        failures=str(counts["failed"]),
        time=str(report.seconds),
    )
    for host in report.hosts:
        checks = report.of(host)
        failed = report.counts(checks)["failed"]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=host,
            tests=str(len(checks)),
            failures=str(failed),
            errors="0",
            timestamp=report.time,
        )
        for check in checks:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{host}.{topic(check)}", name=check.what
            )
            if check.state == "ok":
                continue
            text = f"expected: {check.expected}\nfound: {check.found}\n{check.remedy}"
            if check.ok:
                ElementTree.SubElement(case, "system-out").text = text
            else:
                ElementTree.SubElement(case, "failure", message=check.sentence).text = text
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
