"""A table of the cases at the end of a run."""


def pytest_terminal_summary(terminalreporter):
    rows = sorted(
        (dict(report.user_properties).get("case"), outcome, dict(report.user_properties).get("said", ""))
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        if dict(report.user_properties).get("case")
    )
    if rows:
        terminalreporter.section("cases")
    for case, outcome, said in rows:
        terminalreporter.write_line(f"{case:<10} {outcome:<7} {said}")
