"""The warning about prompts that are not in English: none for English commands, terms and names."""

import pytest
import yaml

from dataset.synthetic import synthetic_clips
from tests.conftest import ROOT
from tests.inference.helpers import PROMPTS
from tests.test_caption_sides import EXCHANGED, KEPT
from utils.language import is_foreign, language_warning

ENGLISH = """
jump|kick left|walk|run|wave|salute|do a cartwheel|backflip|robot dance|moonwalk|zombie walk|stretches
arms|tai chi|capoeira|pas de chat|grand jeté|port de bras|rond de jambe|plié, relevé, sauté|à la seconde|en
pointe|mae geri|paso doble|flamenco|hula|salsa|la macarena|do the macarena|sit|squats|t-pose|idle|throw
ball|bow|karate kata|ballerina pirouette|tour en l'air|balancé en tournant|pas de deux|bras bas|chassé|John
Travolta disco|el matador|la la la|hip hop|c'mon dance|lunges|crouch|pushups|golf swing|merge into
lane|hoopla|persona non grata pose|danse macabre|ole ole|das boot|kung fu|jiu jitsu|jeté en tournant|El
Mariachi plays guitar|merengue|cha cha cha|Pelé
scores|Beyoncé|sneak|limp|nod|yes|no|tiptoe|breakdance|lambada|Gangnam style|vogue|strut|pose|uses hand
sanitizer|hand stand|geri|mani pedi|adam and eve|biri biri|man walks|mambo|ginga|au|armada|meia lua de
compasso|esquiva|bras en bas|coupé jeté en tournant|soutenu en dedans
"""
FOREIGN = """
一个人向前跑
eine Person rennt vorwärts
una persona corre hacia adelante
人が走る
человек идёт вперёд
رجل يمشي
un homme marche
une femme lève le bras gauche
il saute
ein Mann geht
er geht nach links
der Mann läuft im Kreis
springen
una mujer baila
el hombre levanta la mano
salta
una persona cammina
un uomo salta
uma pessoa anda para frente
um homem corre
een man loopt naar voren
iemand zwaait
en person går framåt
en mand løber
osoba idzie do przodu
člověk běží
egy ember sétál
o persoană merge înainte
ihminen kävelee
bir kişi yürüyor
seseorang berjalan maju
một người đi bộ
사람이 걷는다
एक व्यक्ति चलता है
άνθρωπος περπατά
הולך
คนเดิน
läuft
tourne à droite
un hombre camina y luego gira a la derecha
la persona si gira
dreht sich um
jemand winkt mit der linken Hand
la donna corre
elle danse
caminar
tanzen
"""


@pytest.mark.parametrize("text", [text.strip() for text in " ".join(ENGLISH.split()).split("|")])
def test_short_english_prompts_are_not_reported(text):
    assert not is_foreign(text)


@pytest.mark.parametrize("text", FOREIGN.strip().split("\n"))
def test_other_languages_are_reported(text):
    assert is_foreign(text)


def test_captions_and_prompts_of_the_repository_are_english():
    rules = yaml.safe_load((ROOT / "configs" / "data" / "bandai_captions.yaml").read_text())
    texts = [text for table in (rules["contents"], rules["styles"]) for phrases in table.values() for text in phrases]
    texts += [caption for *_, captions in synthetic_clips(22, seed=0) for caption in captions]
    texts += (ROOT / "assets" / "demo_prompts.txt").read_text().splitlines()
    texts += [*PROMPTS, *KEPT, *(caption for caption, _ in EXCHANGED)]
    assert [text for text in texts if is_foreign(text)] == []


@pytest.mark.parametrize("text", ["", "123", "🏃", "|", "\u202e", "a person walks 🏃", "e\u0301"])
def test_texts_without_words_are_not_reported(text):
    assert not is_foreign(text)


def test_warning_is_one_line_with_the_number_of_prompts():
    assert language_warning(["jump", "kick left"]) is None
    one = language_warning(["jump", "una persona corre hacia\nadelante"] * 2)
    assert one.startswith("warning: the prompt 'una persona corre") and one.isprintable()
    assert "2 prompts, such as '人が走る', are not in English" in language_warning(
        ["人が走る", "jump", "un homme marche"]
    )
