"""Constraints of prompts: their own, or those that are given for all."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from control.checks import check_constraints
from control.constraints import Constraints
from control.files import motions_in, parse_constraints, read_constraints
from utils.errors import InputError
from utils.prompts import Prompt, PromptItem


def read_all_constraints(
    items: Sequence[PromptItem], file: Path | None, folder: Path
) -> tuple[list[PromptItem], dict[str, Constraints]]:
    """Read and check the constraints of all items before anything is generated.

    Args:
        file: Constraints of the items that have none of their own.
        folder: Folder of the files that items name.

    Returns:
        The items, with their constraints as they are recorded, and the constraints by the name of the item.

    Raises:
        InputError: constraints of an item are unusable; the message names it.
    """
    shared = read_constraints(file) if file is not None else None
    read_file, motions = lru_cache(read_constraints), motions_in(folder)
    all_items, found = [], {}
    for item in items:
        given, notes = item.constraints, []
        try:
            if given is None:
                constraints = shared
            else:
                constraints = read_file(folder / given) if isinstance(given, str) else parse_constraints(given, motions)
            if constraints is not None:
                sentences = len(Prompt.parse(item.prompt).sentences)
                notes = check_constraints(constraints, item.seconds and item.seconds * sentences)
        except InputError as error:
            raise InputError(f"the constraints of {item.name}: {error}") from error
        for note in notes:
            print(f"note: {item.name}: {note}")
        if constraints is not None:
            found[item.name] = constraints
            item = replace(item, constraints=constraints.to_dict())
        all_items.append(item)
    return all_items, found
