"""Names of the text encoders, the widths of their features, and poolings; this module imports no PyTorch."""

from utils.errors import InputError, shown

T5_WIDTHS = {
    "flan-t5-small": 512,
    "flan-t5-base": 768,
    "flan-t5-large": 1024,
    "flan-t5-xl": 2048,
    "flan-t5-xxl": 4096,
}
WIDTHS = {"minilm": 384, "clip": 512, **T5_WIDTHS}
POOLINGS = ("cls", "mean", "sum")


def encoder_width(name: str) -> int:
    """Return the width of the features of an encoder; raises InputError if the name is unknown."""
    return WIDTHS[split_name(name)[0]]


def split_name(name: str) -> tuple[str, str]:
    """Split an encoder's name into base name and pooling ("" for none); raises InputError if it is unknown."""
    base, _, pooling = str(name).partition(":")
    if base not in WIDTHS:
        raise InputError(f"unknown text encoder {shown(repr(name), 60)}; choose one of: {', '.join(WIDTHS)}")
    if base != name and (base not in T5_WIDTHS or pooling not in POOLINGS):
        raise InputError(
            f"unknown text encoder {shown(repr(name), 60)}; only the flan-t5 encoders can be pooled, by one of "
            f":{', :'.join(POOLINGS)}"
        )
    return base, pooling
