"""inference_batch.py on an output folder that already holds results: skip, replace, repair."""

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from models.llama import LLaMAHF
from models.pipeline import TextToMotion
from tests.inference.helpers import (
    assert_refused,
    backdate,
    changed_files,
    frames_of,
    load,
    npz_files,
    results_in,
    tiny_generator,
    tiny_tokenizer,
    truncate,
)
from visualize.output_folder import OutputFolder


def test_complete_motions_are_skipped_unless_settings_change(run, prompt_file, tmp_path):
    out = tmp_path / "out"
    arguments = ("--prompts", prompt_file, "--seconds", 0.5)
    run(*arguments)
    names = {file.name for file in npz_files(out)}
    tokens = {name: load(out / name)["tokens"] for name in names}
    before = backdate(out)
    status, output, _ = run(*arguments)
    assert status == 0 and "3 of 3 motions" in output and changed_files(out, before) == {"results.json"}
    before = backdate(out)
    run(*arguments, "--overwrite")
    assert changed_files(out, before) == names | {"results.json"}
    for name in names:
        np.testing.assert_array_equal(load(out / name)["tokens"], tokens[name])
    changed = []
    for other in (("--temperature", 0.5), ("--top-k", 9), ("--guidance", 1), ("--seconds", 1)):
        changed += other
        before = backdate(out)
        assert "3 motions are generated again" in run(*arguments, *changed)[1]
        assert changed_files(out, before) == names | {"results.json"}
    before = backdate(out)
    run(*arguments, *changed, "--seed", 1)  # other names: no motion is replaced
    assert len(changed_files(out, before)) == 4 and changed_files(out, before) & set(before) == {"results.json"}
    assert len(results_in(out)) == 6


def test_other_checkpoint_of_the_same_name_replaces_motions(run, checkpoint, tmp_path):
    other = tmp_path / "elsewhere" / checkpoint.name  # of the same name
    shutil.copytree(checkpoint, other)
    run("--prompt", "walk")
    generator = LLaMAHF.from_pretrained(other)
    generator.lm_head.weight.data.roll(1, 0)
    generator.lm_head.weight.data *= -1
    generator.save_pretrained(other)
    before = backdate(tmp_path / "out")
    run("--prompt", "walk", checkpoint=other)
    assert len(changed_files(tmp_path / "out", before)) == 2


def test_missing_or_outdated_video_is_drawn_again(run, tmp_path):
    arguments = ("--prompt", "walk", "--seconds", 0.3, "--save", "npz,mp4", "--size", 64, "--view", "skeleton")
    run(*arguments)
    out = tmp_path / "out"
    npz, mp4 = out / "walk_seed0.npz", out / "walk_seed0_skeleton.mp4"
    before = backdate(out)
    mp4.unlink()
    assert run(*arguments)[0] == 0
    assert changed_files(out, before) == {mp4.name, "results.json"} and frames_of(mp4) == len(load(npz)["joints"])
    os.utime(mp4, ns=(before[npz.name] - 1,) * 2)  # as if stopped after the motion and before its video
    before = backdate(out)
    assert run(*arguments)[0] == 0
    assert changed_files(out, before) == {mp4.name, "results.json"}


def test_files_of_a_replaced_motion_are_removed(run, tmp_path):
    out, walk = tmp_path / "out", ("--prompt", "walk", "--seconds", 0.2)
    run(*walk, "--save", "mp4,bvh", "--size", 64, "--view", "skeleton")
    files = {"walk_seed0.npz", "walk_seed0_skeleton.mp4", "walk_seed0.bvh", "results.json"}
    assert {file.name for file in out.iterdir()} == files
    (out / "walk_seed0_mine.mp4").write_bytes(b"not ours")
    before = backdate(out)
    output = run(*walk, "--save", "mp4,bvh", "--size", 96, "--view", "skeleton")[1]
    assert "2 other files are kept as they are; --overwrite draws" in output
    assert changed_files(out, before) == {"results.json"}
    assert "1 motions are generated again" in run(*walk, "--save", "npz", "--temperature", 0.5)[1]
    assert {file.name for file in out.iterdir()} == {"walk_seed0.npz", "walk_seed0_mine.mp4", "results.json"}


def test_other_precision_replaces_the_motion(run, tmp_path):
    for arguments in ((), ("--dtype", "bf16"), ("--quantize", "int8")):
        before = backdate(tmp_path / "out") if arguments else {}
        assert run("--prompt", "a person walks", "--seconds", 0.3, *arguments)[0] == 0
        assert "a-person-walks_seed0.npz" in changed_files(tmp_path / "out", before)
    assert_refused(run("--prompt", "walk", "--dtype", "float32", "--quantize", "int8"), "int8 weights go with bf16")
    assert_refused(run("--prompt", "walk", "--dtype", "bf16", "--quantize", "int4"), "int4 weights need a CUDA device")


def flip_bits(path: Path) -> None:
    """Damage the compressed numbers of the motion and nothing else."""
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("smplx_85.npy").header_offset
    content = bytearray(path.read_bytes())
    for position in range(start + 300, start + 340):
        content[position] ^= 0xFF
    path.write_bytes(content)


DAMAGE = {
    "truncated": truncate,
    "flipped": flip_bits,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not numbers"),
    "other": lambda path: np.savez(path, tokens=np.zeros(3)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_motion_is_generated_again(run, prompt_file, tmp_path, damage):
    out = tmp_path / "out"
    run("--prompts", prompt_file, "--seconds", 1)
    broken = npz_files(out)[1]
    good = load(broken)
    damage(broken)
    before = backdate(out)
    assert run("--prompts", prompt_file, "--seconds", 1)[0] == 0
    assert changed_files(out, before) == {broken.name, "results.json"}
    np.testing.assert_array_equal(load(broken)["tokens"], good["tokens"])
    np.testing.assert_allclose(load(broken)["joints"], good["joints"], atol=1e-4)


def test_interrupted_run_keeps_complete_motions(run, prompt_file, tmp_path, monkeypatch):
    out, saved, save = tmp_path / "out", [], OutputFolder.save

    def interrupted(folder, item, *arguments):
        saved.append(item)
        if len(saved) == 3:
            raise KeyboardInterrupt
        save(folder, item, *arguments)

    monkeypatch.setattr(OutputFolder, "save", interrupted)
    assert run("--prompts", prompt_file, "--batch-size", 1)[0] == 130
    assert len(npz_files(out)) == len(results_in(out)) == 2
    before = backdate(out)
    status, output, _ = run("--prompts", prompt_file, "--batch-size", 1)
    assert status == 0 and "2 of 3" in output and saved[3:] == saved[2:3] and len(results_in(out)) == 3
    assert len(changed_files(out, before)) == 2


def test_failed_write_leaves_no_file(run, tmp_path, monkeypatch):
    def disk_full(path, **arrays):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", disk_full)
    assert_refused(run("--prompt", "walk"), "walk_seed0.npz", "No space left", "writable")
    assert list((tmp_path / "out").iterdir()) == []


def test_default_guidance_follows_the_training(run, checkpoint, model, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "tiny")
    tiny_generator(tiny_tokenizer([5, 5, 5]), text_dropout=0.0).save_pretrained(tmp_path / "tiny")
    untrained, walk = {"checkpoint": Path("tiny"), "out": "untrained"}, ("--prompt", "walk", "--seconds", 0.3)
    assert_refused(run(*walk, "--guidance", 2, **untrained), "set guidance to 1")
    for out, asked, settings in (("out", 2, {}), ("untrained", 1, untrained)):
        assert run(*walk, **settings)[0] == 0
        before = backdate(tmp_path / out)
        assert "1 of 1 motions" in run(*walk, "--guidance", asked, **settings)[1]  # equal to the default
        assert changed_files(tmp_path / out, before) == {"results.json"}
    (motion,) = TextToMotion.from_pretrained("tiny").generate(["walk"], [0], seconds=[0.3])
    np.testing.assert_array_equal(motion.tokens, load(npz_files(tmp_path / "untrained")[0])["tokens"])
