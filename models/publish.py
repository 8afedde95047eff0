"""Publish a model on the Hugging Face hub: its files, unchanged, and a model card.

    python -m models.publish --model runs/t2m --repository user/name --license cc-by-nc-4.0 --datasets "[HumanML3D]"
    python inference_batch.py --checkpoint user/name --prompt "a person walks"

Log in with `hf auth login` first. A README.md in the folder is used as the model card; otherwise a card is written from
train.yaml and the options below. States, logs and videos of a run folder are not published.
"""

import utils.interrupt  # noqa: F401

# isort: split

import shutil
from dataclasses import dataclass
from pathlib import Path

from models.checkpoints import CHECKPOINT_FILES, TOKENIZER, check_tokenizer
from models.known import Known
from models.llama import LLaMAHF
from models.model_card import CARD, CardOptions, model_card
from models.motion_vqvae import HumanVQVAE
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error, shown
from utils.files import atomic_write
from utils.hub import parse_hub_id, upload_files

MESSAGE = "Upload model"


@dataclass(kw_only=True)
class Options(CardOptions):
    """Options of publishing."""

    model: Path
    """Folder of a text-to-motion model or of a motion tokenizer: a run folder, its best/, or a converted checkpoint."""
    repository: str
    """Repository on the Hugging Face hub, user/name or user/name@branch; it is created if it does not exist."""
    private: bool = False
    """Make a new repository private."""
    message: str = MESSAGE
    """Message of the commit."""


def main(options: Options) -> None:
    print(publish(options.model, options.repository, options, options.private, options.message))


def publish(
    folder: Path,
    repository: str,
    card: CardOptions | None = None,
    private: bool = False,
    message: str = MESSAGE,
    token: str | None = None,
) -> str:
    """Upload the files of a checkpoint folder and its model card in one commit; returns the address of the commit.

    Args:
        folder: Folder of a text-to-motion model or of a tokenizer.
        repository: Hub id; its revision is a branch.
        card: Facts for the model card.
        private: Make the repository private if it is created.
        message: Message of the commit.
        token: Access token; by default, that of ``hf auth login``.

    Raises:
        InputError: the folder holds no valid model, ``repository`` is no hub id, or the hub refuses the upload.
    """
    hub_id = parse_hub_id(repository)
    if hub_id is None:
        raise InputError(f"{shown(repository, 120)} is no id of a repository; give user/name or user/name@branch")
    files = model_files(folder)
    content = card_of(folder, str(hub_id), card).encode()
    return upload_files(files | {CARD: content}, hub_id, CHECKPOINT_FILES, private, message, token)


def save_copy(folder: Path, target: Path, card: CardOptions | None = None) -> None:
    """Copy the files of a checkpoint folder, and write its model card; see ``publish``."""
    content = card_of(folder, str(target), card)
    for name, path in model_files(folder).items():
        with atomic_write(target / name) as file:
            shutil.copyfile(path, file)
    with atomic_write(target / CARD) as file:
        file.write_text(content, encoding="utf-8")


def model_files(folder: Path) -> dict[str, Path]:
    """Return the files of a checkpoint by their names relative to its folder.

    Raises:
        InputError: a file of the generator or the tokenizer is missing or damaged, or they do not match.
    """
    is_generator = (folder / TOKENIZER).is_dir()
    tokenizer = folder / TOKENIZER if is_generator else folder
    HumanVQVAE.from_pretrained(tokenizer, load_weights=lambda model, folder: None)  # compares shapes
    Known.load(folder)
    if is_generator:
        check_tokenizer(folder, LLaMAHF.from_pretrained(folder, load_weights=lambda model, folder: None).config)
    return {str(path.relative_to(folder)): path for pattern in CHECKPOINT_FILES for path in folder.glob(pattern)}


def card_of(folder: Path, name: str, options: CardOptions | None) -> str:
    """Return the model card in the folder, or a new one.

    Raises:
        InputError: there is a card and facts for another are given, or a file for the card cannot be read.
    """
    file = folder / CARD
    if not file.exists():
        return model_card(folder, name, options or CardOptions())
    if options and (options.license or options.datasets or options.measures):
        raise InputError(f"{file} is the model card; edit it in place of giving license, datasets and measures")
    return file.read_text(encoding="utf-8")


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
