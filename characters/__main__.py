"""Print the bones of a character as a map to edit: python -m characters hero.glb > hero.yaml"""

import utils.interrupt  # noqa: F401

# isort: split

import sys

from characters.character import map_of_bones
from utils.errors import InputError, exit_on_input_error


def main(arguments: list[str]) -> None:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise InputError("give one character (.glb, .gltf, .vrm or .fbx): python -m characters hero.glb > hero.yaml")
    print(map_of_bones(arguments[0]), end="")


if __name__ == "__main__":
    with exit_on_input_error():
        main(sys.argv[1:])
