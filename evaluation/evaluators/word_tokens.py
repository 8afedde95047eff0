"""Word tokens of captions for T2M's evaluators: ``word/POS`` pairs, word vectors and parts of speech.

The source is text-to-motion (Guo et al., CVPR 2022): utils/word_vectorizer.py and the captions of HumanML3D.
"""

import importlib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evaluation.evaluators.interface import Caption
from utils.errors import InputError, shown
from utils.reading.arrays import read_npy
from utils.reading.files import open_regular, refusal
from utils.reading.pickles import read_pickle

MAX_WORDS = 20  # of a caption; with start and end, a row of tokens has two more
UNKNOWN, OTHER = "unk", "OTHER"
SPECIAL_WORDS = {  # part of speech of words whose tag in the caption is not used
    "Loc_VIP": "left right clockwise counterclockwise anticlockwise forward back backward up down straight curve",
    "Body_VIP": "arm chin foot feet face hand mouth leg waist eye knee shoulder thigh",
    "Obj_VIP": "stair dumbbell chair window floor car ball handrail baseball basketball",
    "Act_VIP": "walk run swing pick bring kick put squat throw hop dance jump turn stumble stop sit lift lower raise "
    "wash stand kneel stroll rub bend balance flap jog shuffle lean rotate spin spread climb",
    "Desc_VIP": "slowly carefully fast careful slow quickly happy angry sad happily angrily sadly",
}
TAGS = ("VERB", "NOUN", "DET", "ADP", "NUM", "AUX", "PRON", "ADJ", "ADV", *SPECIAL_WORDS, OTHER)
TAG_OF_WORD = {word: tag for tag, words in SPECIAL_WORDS.items() for word in words.split()}
FILES = ("our_vab_data.npy", "our_vab_words.pkl", "our_vab_idx.pkl")
ADVICE = "give the three files of one glove.zip"


class TokenRow(NamedTuple):
    """The tokens of a caption, padded."""

    rows: np.ndarray  # (22,) rows of the word vectors
    tags: np.ndarray  # (22,) positions in TAGS
    length: int  # tokens before the padding, with start and end


class Vocabulary:
    """The word vectors of T2M, the GloVe vectors of the words of HumanML3D and KIT-ML.

    Args:
        folder: Folder of our_vab_data.npy, our_vab_words.pkl and our_vab_idx.pkl, from glove.zip of text-to-motion.

    Attributes:
        vectors: (words, 300) float32.

    Raises:
        InputError: A file is missing, damaged or of another vocabulary.
    """

    def __init__(self, folder: Path):
        for name in FILES:
            if not (folder / name).is_file():
                raise InputError(
                    f"{shown(folder / name, 200)} is missing; unpack glove.zip of the text-to-motion repository there"
                )
        self.vectors = read_npy(folder / FILES[0])
        words, row_of_word = _read_pickle(folder / FILES[1]), _read_pickle(folder / FILES[2])
        if self.vectors.ndim != 2 or self.vectors.dtype.kind != "f" or not np.isfinite(self.vectors).all():
            raise refusal(folder / FILES[0], "it is no array (words, width) of finite numbers", ADVICE)
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise refusal(folder / FILES[1], "it is no list of words", ADVICE)
        if not isinstance(row_of_word, dict) or not all(
            type(row_of_word.get(word)) is int and 0 <= row_of_word[word] < len(self.vectors) for word in words
        ):
            raise refusal(folder / FILES[2], "it does not have a row of the vectors for each word", ADVICE)
        self.vectors = self.vectors.astype(np.float32)
        self.row_of_word: dict[str, int] = {word: row_of_word[word] for word in words}
        if missing := {"sos", "eos", UNKNOWN} - self.row_of_word.keys():
            raise refusal(folder / FILES[1], f"the word {min(missing)} is missing", ADVICE)

    def token(self, token: str) -> tuple[int, int]:
        """Return the row of a ``word/POS`` token and the position of its part of speech in TAGS.

        An unknown word has the vector of ``unk`` and the tag OTHER. Words are case-sensitive.
        """
        word, _, tag = token.partition("/")
        if word not in self.row_of_word:
            return self.row_of_word[UNKNOWN], TAGS.index(OTHER)
        tag = TAG_OF_WORD.get(word, tag)
        return self.row_of_word[word], TAGS.index(tag if tag in TAGS else OTHER)

    def row(self, caption: Caption) -> TokenRow:
        """Return the tokens of a caption, which are made with spaCy if it has none.

        Raises:
            InputError: The tokens are not ``word/POS``, or spaCy is needed and not installed.
        """
        tokens = (caption.tokens or tag_words(caption.text)).split()
        rows, tags = np.array([self.token(token) for token in padded_tokens(tokens)]).T
        return TokenRow(rows, tags, min(len(tokens), MAX_WORDS) + 2)


def _read_pickle(path: Path) -> Any:
    with open_regular(path, "a pickle of words", advice=ADVICE) as file:
        return read_pickle(file)


def padded_tokens(tokens: list[str]) -> list[str]:
    """Return the first 20 tokens between a start and an end, padded with ``unk`` to 22.

    Raises:
        InputError: A token is not ``word/POS``.
    """
    for token in tokens:
        if token.count("/") != 1:
            raise InputError(f"the token {shown(token, 60)} is not of the form word/POS; correct the caption's tokens")
    kept = [f"sos/{OTHER}", *tokens[:MAX_WORDS], f"eos/{OTHER}"]
    return kept + [f"{UNKNOWN}/{OTHER}"] * (MAX_WORDS + 2 - len(kept))


def tag_words(text: str) -> str:
    """Return the ``word/POS`` tokens of a new caption, as HumanML3D made its own: nouns and verbs become lemmas.

    Published numbers use the tokens in the files of HumanML3D and KIT-ML.

    Raises:
        InputError: spaCy or its English model is not installed.
    """
    words = [word for word in _english()(text.replace("-", "")) if word.text.isalpha()]
    return " ".join(
        f"{word.lemma_ if word.pos_ in ('NOUN', 'VERB') and word.text != 'left' else word.text}/{word.pos_}"
        for word in words
    )


@cache
def _english() -> Any:
    try:
        return importlib.import_module("spacy").load("en_core_web_sm")
    except (ImportError, OSError) as error:
        raise InputError(
            "captions without word tokens need spaCy and its English model for this evaluator; run: pip install spacy, "
            "then: python -m spacy download en_core_web_sm"
        ) from error
