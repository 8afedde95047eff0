"""The measuring scripts run and print what they promise, on small models and data."""

from tests.conftest import run_script


def test_prompt_following_prints_its_table(t2m_run):
    printed = run_script("benchmarks/prompt_following.py", "--checkpoint", t2m_run, "--seeds", 1)
    rows = [line for line in printed.splitlines() if line.startswith("| a person")]
    assert len(rows) == 7 and all(" % |" in row for row in rows[:6]) and "m/s" in rows[6]


def test_tokenizer_quality_is_printed(tokenizer_run, data_folder):
    printed = run_script("benchmarks/tokenizer.py", "--tokenizer", tokenizer_run, "--data", data_folder)
    for words in ("root-aligned", "global", "codes used", "foot slide"):
        assert words in printed
