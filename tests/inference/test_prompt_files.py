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
    "prompt is an object": '{"prompt": {"a": 1}}',
    "prompt is an empty list": '{"prompt": []}',
    "prompt is a list of numbers": '{"prompt": [1, 2]}',
    "a bar within a list": '{"prompt": ["a | b", "c"]}',
    "an empty sentence": '{"prompt": "a | "}',
    "half a character in the name": '{"prompt": "walk", "name": "\\ud800"}',
    "terminal code in a key": '{"prompt": "walk", "\\u001b[31m": 1}',
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
    assert len(str(raised.value)) < 400 and str(raised.value).isprintable()


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


def prompts_of(file, content, samples=1):
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(item.prompt, item.name, item.seed, item.seconds) for item in read_prompts(file, 5, samples)]


WALK = ("a person walks", "walk", 3, 2.5)
RUN = ("a person runs, then stops", "a-person-runs-then-stops_seed5", 5, None)


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.JSONL", '{"prompt": "a person walks", "name": "walk", "seed": 3, "length": 2.5}\n'
                    '{"prompt": "a person runs, then stops"}'),
        ("a.json", '[{"prompt": "a person walks", "name": "walk", "seed": 3, "length": 2.5},\n'
                   ' "a person runs, then stops"]'),
        ("a.csv", 'prompt,name,seed,length\r\na person walks,walk,3,2.5\r\n\r\n"a person runs, then stops",,,\r\n'),
        ("a.CSV", '\ufeff Length ,PROMPT,seed,name,\n2.5,a person walks,3,walk,\n,"a person runs, then stops"\n'),
        ("a.tsv", "name\tprompt\tlength\tseed\nwalk\ta person walks\t2.5\t3\n\ta person runs, then stops\n"),
    ],
)  # fmt: skip
def test_all_forms_give_the_same_items(tmp_path, name, content):
    assert prompts_of(tmp_path / name, content) == [WALK, RUN]
    assert prompts_of(tmp_path / name, content.removeprefix("\ufeff").encode("utf-16")) == [WALK, RUN]


def test_joined_files_with_byte_order_marks_are_read(tmp_path):
    for name, line in (("a.txt", "{}"), ("a.jsonl", '{{"prompt": "{}"}}')):
        lines = "".join(f"\ufeff{line.format(prompt)}\n" for prompt in ("walk", "run"))
        assert [prompt for prompt, *_ in prompts_of(tmp_path / name, lines)] == ["walk", "run"]


def test_single_object_and_lists_of_sentences(tmp_path):
    file = tmp_path / "a.json"
    assert prompts_of(file, '{"prompt": ["walk", "run"], "name": "both"}') == [("walk | run", "both", 5, None)]
    same = [prompts_of(tmp_path / "a.txt", text)[0] for text in ("walk|run", "walk | run", " walk |run")]
    assert {prompt for prompt, *_ in same} == {"walk | run"} and len({name for _, name, *_ in same}) == 1


def test_repeated_prompt_takes_the_next_seeds_under_stable_names(tmp_path):
    file = tmp_path / "a.txt"
    items = prompts_of(file, "walk\nrun\nwalk\n walk ", samples=2)
    assert [seed for prompt, _, seed, _ in items if prompt == "walk"] == [5, 6, 7, 8, 9, 10]
    assert [seed for prompt, _, seed, _ in items if prompt == "run"] == [5, 6]
    assert [name for _, name, seed, _ in items] == [f"{prompt}_seed{seed}" for prompt, _, seed, _ in items]
    assert set(prompts_of(file, "walk\nwalk\nwalk\nrun", samples=2)) == set(items)


def test_seed_of_an_entry_is_kept_and_not_used_again(tmp_path):
    entries = ["walk", {"seed": 5}, {"length": 2}, {"seed": 5, "name": "x"}]
    entries = [entry if isinstance(entry, str) else {"prompt": "walk", **entry} for entry in entries]
    items = prompts_of(tmp_path / "a.json", json.dumps(entries))
    assert [(seed, seconds) for _, _, seed, seconds in items] == [(6, None), (5, None), (5, 2), (5, None)]
    assert [name for _, name, *_ in items] == ["walk_seed6", "walk_seed5", "walk_seed5_2", "x"]


REFUSED = {
    "unknown suffix": ("a.docx", "a person walks", r"no suffix of a prompt file; give a \.txt, .*\.tsv file"),
    "no suffix": ("prompts", "a person walks", "no suffix of a prompt file"),
    "column": ("a.csv", "prompt,seconds\nwalk,3", "line 1: the column seconds is unknown; use prompt, name, seed"),
    "no header": ("a.csv", "a person walks,3\n", "line 1: no column is named prompt"),
    "column twice": ("a.csv", "prompt,prompt\nwalk,run", "line 1: two columns are named prompt"),
    "long row": ("a.csv", "prompt,seed\nwalk,3\nwalk, then run,3", "line 3: the row has 3 cells and the header 2"),
    "no prompt": ("a.csv", "prompt,seed\n,3", "line 2: no prompt"),
    "seed": ("a.csv", "prompt,seed\nwalk,1.5", "line 2: seed is '1.5'; give a whole number"),
    "comma in a number": ("a.tsv", "prompt\tlength\nwalk\t1,5", "line 2: length is '1,5'; give a number"),
    "nan": ("a.csv", "prompt,length\nwalk,nan", "line 2: length is nan"),
    "quote": ("a.csv", 'prompt,seed\n"walk,3', "a.csv, line 2: no row of a table"),
    "only a header": ("a.csv", "prompt,seed\n", "contains no prompt"),
    "a number": ("a.json", "5", "its content: 5 is not an object with a prompt"),
    "a text": ("a.json", '"walk"', "its content: 'walk' is not an object with a prompt"),
    "an empty list": ("a.json", "[]", "contains no prompt"),
    "an entry": ("a.json", '["walk", ["run", "jump"]]', "entry 2: .* is not an object with a prompt"),
    "not json": ("a.json", '["walk"', "not JSON"),
    "length of MoMask": ("a.txt", "walk\na person runs forward#120", "line 2: #120 at the end is no length here"),
    "HumanML3D": (
        "a.txt",
        "he walks#he/PRON walk/VERB#0.0#0.0",
        "line 1: .* tokens and times of HumanML3D",
    ),
    "JSON in a text file": ("a.txt", '{"prompt": "walk"}', r"line 1: the line is JSON; name the file \.jsonl"),
}


@pytest.mark.parametrize(("name", "content", "words"), REFUSED.values(), ids=REFUSED)
def test_other_forms_are_refused_with_the_place(tmp_path, name, content, words):
    with pytest.raises(InputError, match=words) as raised:
        prompts_of(tmp_path / name, content)
    assert str(tmp_path) in str(raised.value) and str(raised.value).isprintable()


def test_number_sign_within_a_prompt_is_text(tmp_path):
    assert prompts_of(tmp_path / "a.txt", "dances to song #5")[0][0] == "dances to song #5"
