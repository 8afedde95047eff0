"""The load test of the web app, shortened."""

import benchmarks.load


def test_load_test_prints_its_table(monkeypatch, capsys):
    monkeypatch.setattr(benchmarks.load, "SETTLE", 1)
    monkeypatch.setattr(benchmarks.load, "PROBES", 1)
    benchmarks.load.main(benchmarks.load.Options(visitors=5, seconds=1.0))
    printed = capsys.readouterr().out
    rows = {row.split("|")[1].split(",")[0].strip(): row for row in printed.splitlines() if row.startswith("| ")}
    assert {"page", "first frames", "open files and connections", "temporary files"} <= set(rows)
    assert rows["temporary files"].rstrip("| ").endswith("0") and "downloads abandoned" in printed
    assert "5 at once, 3 s each: 5 accepted; first motions after" in printed
    assert "0 tracebacks" in printed
