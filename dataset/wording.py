"""Wording of captions: verb phrases in the third person as commands and in the -ing form, and typing errors."""

import re
from collections.abc import Iterable
from functools import cache
from random import Random

from dataset.caption_sides import mirror_caption

JOINING = {"and", "then", "or", "but"}  # a verb may follow
ADVERB = re.compile(r"\w+ly|again|also|finally|never|just")  # may stand before such a verb
DETERMINERS = {"a", "an", "the", "both", "one", "two", "three", "four", "some", "several", "few", "many", "his", "her"}
PARTS = {"arms", "elbows", "eyes", "fingers", "fists", "hands", "heels", "knees", "legs", "shoulders", "thumbs", "toes"}
SHORTEST = 5  # letters of a word that can have a typing error


class VerbForms:
    """Other forms of the verb phrases of a captions file.

    Args:
        phrases: Verb phrases in the third person, such as "walks and turns left" or "is walking".
    """

    def __init__(self, phrases: Iterable[str]) -> None:
        first = {phrase.split()[0] for phrase in phrases}
        self.modifiers = {word for word in first if not word.rstrip(",;").endswith("s")}  # "power walks"

    def command(self, phrase: str) -> str | None:
        """Return the command form, "walk and turn left" or "walk"; None for a state, such as "is out for a walk"."""
        return self._inflected(phrase, "VB")

    def gerund(self, phrase: str) -> str | None:
        """Return the -ing form, "walking and turning left" or "walking"; None for a state."""
        return self._inflected(phrase, "VBG")

    def _inflected(self, phrase: str, form: str) -> str | None:
        words, result = phrase.split(), []
        may_start, progressive = True, False  # a verb may start here, in the -ing form if it follows "is walking"
        for number, word in enumerate(words):
            bare = word.rstrip(",;")
            is_verb = may_start and bare not in self.modifiers and (not number or _is_verb(words, number))
            follows = next((later for later in words[number + 1 :] if later not in self.modifiers), "")
            if is_verb and bare == "is":
                if not _is_participle(follows):
                    return None
                progressive = True
                continue
            if is_verb and bare == "keeps" and form == "VBG" and _is_participle(follows):
                continue  # "keeping walking" is "walking"
            if is_verb:
                progressive = False
            if is_verb or (may_start and progressive and _is_participle(bare)):
                word = _inflect(bare, form) + word[len(bare) :]
            passes = may_start and (bare in self.modifiers or bool(ADVERB.fullmatch(bare)))
            may_start = bare in JOINING or word[-1] in ",;" or passes
            result.append(word)
        return " ".join(result)


def _is_verb(words: list[str], number: int) -> bool:
    """Whether a word that may start a clause is a verb in the third person.

    Most are also plural nouns: "jumps and turns", "bends the knees and turns", but "dances with jumps and turns".
    """
    word = words[number].rstrip(",;")
    if not _can_be_verb(word) or word in PARTS:
        return False
    if word != words[-1] or number < 3 or words[number - 1] not in JOINING:
        return True
    *_, before, last, noun = words[: number - 1] if number > 3 else ["", *words[: number - 1]]
    is_noun = _can_be_verb(noun) and noun not in PARTS and last not in JOINING and last[-1] not in ",;"
    return not is_noun or not DETERMINERS.isdisjoint((before, last))


def _is_participle(word: str) -> bool:
    return word.rstrip(",;").endswith("ing")


@cache
def _can_be_verb(word: str) -> bool:
    from lemminflect import getAllLemmas  # here, because it loads its tables

    return word.endswith("s") and (word == "is" or "VERB" in getAllLemmas(word))


@cache
def _inflect(word: str, form: str) -> str:
    from lemminflect import getInflection, getLemma

    lemma = getLemma(word, "VERB")[0]
    return lemma if form == "VB" else getInflection(lemma, "VBG")[0]


def with_typing_error(text: str, random: Random) -> str:
    """Return a caption with a letter of one long word dropped, doubled or exchanged; words that name sides are kept.

    A caption in which no word can be changed is returned as it is.
    """
    words, mirrored = text.split(), mirror_caption(text).split()
    numbers = [number for number, word in enumerate(words) if word.isalpha() and len(word) >= SHORTEST]
    if not numbers or len(words) != len(mirrored):
        return text
    number = random.choice(numbers)
    wrong = _misspelled(words[number], random)
    changed = " ".join([*words[:number], wrong, *words[number + 1 :]])
    expected = " ".join([*mirrored[:number], wrong, *mirrored[number + 1 :]])
    is_side = words[number] != mirrored[number]
    return text if is_side or mirror_caption(changed) != expected else changed


def _misspelled(word: str, random: Random) -> str:
    place = random.randrange(1, len(word) - 1)
    before, letter, following, rest = word[:place], word[place], word[place + 1], word[place + 2 :]
    return before + random.choice((following, letter * 2 + following, following + letter)) + rest
