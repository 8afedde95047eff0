"""Prompt files: items, names, and errors that name the line."""

import json

import pytest

from tests.inference.helpers import HOSTILE
from utils.errors import InputError
from utils.prompts import expand, read_prompts, safe_name


def test_text_file_gives_items_in_order(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"\xef\xbb\xbf  a person walks  \r\n\r\n   \r\na person runs\r\nwalks \xe2\x80\xa8 and stops")
    items = read_prompts(file, seed=7, samples=2)
    assert [item.prompt for item in items[::2]] == ["a person walks", "a person runs", "walks \u2028 and stops"]
    assert [item.seed for item in items] == [7, 8] * 3
    assert len({item.name for item in items}) == 6 and items[0].seconds is None


def test_jsonl_entries_keep_their_own_settings(tmp_path):
    file = tmp_path / "prompts.jsonl"
    entries = [{"prompt": "a\u2028b", "name": "é/x", "seed": 9, "length": 2}, {"prompt": "b", "length": 1.5}]
    file.write_text("\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries), encoding="utf-8")
    first, second = read_prompts(file, seed=7, samples=1)
    assert (first.prompt, first.name[:4], first.seed, first.seconds) == ("a\u2028b", "e-x-", 9, 2)
    assert (second.seed, second.seconds) == (7, 1.5)


def test_names_are_unique_and_safe():
    names = ["a", "A", "a_002", "a", "a/", "../a", "a_001", "a_0", "a_0_003", ""]
    for samples in (1, 3):
        items = expand([{"prompt": "a", "name": name} for name in names], seed=0, samples=samples)
        assert len({item.name.lower() for item in items}) == len(names) * samples
    for name in ("run_skeleton", "RUN_Skeleton", "CON", "nul", "com1", "con."):
        assert safe_name(name).startswith(f"{name.strip('.')}-"), "the name of a video, or of a Windows device"
    assert safe_name("skeleton") == "skeleton" and safe_name("conga") == "conga"
    for text in HOSTILE.values():
        name = safe_name(text)
        assert 0 < len(name) <= 67 and all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in name)


BAD_LINES = {
    "not json": '{"prompt": "a person walks"',
    "a list": '["a person walks"]',
    "a text": '"a person walks"',
    "deep": "[" * 100_000,
    "no prompt": '{"name": "walk"}',
    "unknown key": '{"prompt": "walk", "lenght": 2}',
    "empty prompt": '{"prompt": "  "}',
    "prompt is a number": '{"prompt": 5}',
    "long prompt": json.dumps({"prompt": "x" * 10_000}),
    "half a character": '{"prompt": "walk \\ud800"}',
    "negative seed": '{"prompt": "walk", "seed": -1}',
    "large seed": '{"prompt": "walk", "seed": 9223372036854775808}',
    "seed with a fraction": '{"prompt": "walk", "seed": 1.5}',
    "seed is true": '{"prompt": "walk", "seed": true}',
    "length is text": '{"prompt": "walk", "length": "two"}',
    "length is zero": '{"prompt": "walk", "length": 0}',
    "length is nan": '{"prompt": "walk", "length": NaN}',
    "name is a number": '{"prompt": "walk", "name": 5}',
    "digits": '{"prompt": "walk", "length": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_error_names_the_bad_line(tmp_path, line):
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'{{"prompt": "a person walks"}}\n\n{line}\n')
    with pytest.raises(InputError, match="prompts.jsonl, line 3: ") as raised:
        read_prompts(file, 0, 1)
    assert len(str(raised.value)) < 400 and "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"\n \n\t\n", b"\xef\xbb\xbf", b"\x89PNG\r\n\x1a\n\xff", b"\0" * 64, None])
def test_unusable_prompt_files_are_refused(tmp_path, content):
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=str(file)):
        read_prompts(file, 0, 1)


def test_folder_as_prompt_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        read_prompts(tmp_path, 0, 1)
