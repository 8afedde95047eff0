"""Splits of a data folder; this module imports no PyTorch."""

import hashlib

SPLITS = ("train", "val", "test")
MIRRORED = "_mirrored"  # suffix of the id of a mirrored clip


def split_of(clip_id: str, val_share: float = 0.03, test_share: float = 0.05) -> str:
    """Return the split of a clip, given by the hash of its id; a mirrored clip is in the split of its original."""
    name = clip_id.removesuffix(MIRRORED).encode(errors="surrogateescape")  # the name of a file may be any bytes
    digest = hashlib.sha256(name).digest()
    place = int.from_bytes(digest[:4], "big") / 2**32
    return "test" if place < test_share else "val" if place < test_share + val_share else "train"
