"""Warning about prompts that are not in English, the language of the training captions.

Small language detectors misclassify short English commands such as "jump", and accurate ones have about 100 MB. A
prompt is therefore considered foreign only if its letters are not Latin, or if more of its words are in the lists of
foreign words below, or have letters that English lacks, than in the list of English words.
"""

import re
import unicodedata
from collections.abc import Iterable

from utils.reading.files import shown


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FOREIGN = _words(  # one of these is sufficient
    """
    und jemand frau geht läuft rennt springt dreht hebt winkt kniet steht sitzt hüpft tritt schlägt wirft fällt
    tanzt beugt verbeugt vorwärts rückwärts rechts langsam schnell nach vorne hände geradeaus gehen laufen
    rennen springen tanzen winken
    personne homme femme quelqu'un marche saute tourne avance recule lève gauche droite puis vers avec lentement
    rapidement courir marcher sauter danser tourner
    hombre mujer alguien camina corre gira levanta salta baila saluda izquierda derecha adelante atrás hacia
    manos brazo brazos pierna despacio lentamente caminar correr saltar bailar girar
    uomo donna qualcuno cammina avanti indietro sinistra destra braccio braccia gamba saluta camminare correre
    saltare ballare pessoa homem mulher alguém anda pula caminha frente trás esquerda direita mão mãos braço
    braços perna andar dançar acena
    persoon iemand vrouw loopt draait zwaait vooruit achteruit linkerhand rechterhand naar langzaam någon går
    hoppar dansar vinkar framåt bakåt kvinna nogen løber vinker fremad kvinde noen fremover
    osoba człowiek kobieta ktoś idzie biegnie skacze tańczy przodu tyłu lewo prawo jde běží skáče tancuje člověk
    nő sétál ugrik táncol előre persoană cineva aleargă dansează înainte henkilö ihminen kävelee juoksee hyppää
    tanssii eteenpäin kişi kadın yürüyor koşuyor zıplıyor yürür koşar zıplar ediyor ileri
    orang seseorang berjalan berlari melompat menari melambaikan tangan mundur kiri kanan
    """
)
_WEAK = _words(  # two of these are needed, as one may be part of a name
    """
    ein eine einen einem einer der das dem mit auf zu im er sie es ist mann links dann arme bein beide un une le
    les il elle qui et est dans ses deux ils sont tout avant bras danse una uno el los las con su sus que por
    del luego lo gli della dello un' si suo sua poi mani um uma os com para seu depois em een het van met zijn
    haar op ett och med hun på og af jeden jedna na ze się przed jak și cu egy és ja bir biri ve ile sonra geri
    dengan ke dan sambil hopper springer mano fut macha
    """
)
_ENGLISH = _words(
    """
    a an the this that his her their its he she they it one two both each all no not and or but then while as if
    so of to in on at from with without into onto over under up down out off by for through around across along
    toward towards about after before again like is are was be being has have does do person people man woman
    someone somebody human figure character individual guy lady boy girl child dancer actor player zombie robot
    left right forward forwards backward backwards back front side sideways straight circle place slowly quickly
    fast slow hand hands arm arms leg legs foot feet knee knees head hip hips body shoulder shoulders elbow
    elbows walk walks walking run runs running jump jumps jumping turn turns turning kick kicks kicking punch
    punches wave waves waving dance dances dancing sit sits sitting stand stands standing step steps stepping
    raise raises raising lift lifts bow bows move moves moving jog jogs hop hops throw throws pick picks spin
    spins fall falls crawl crawls climb climbs squat squats stretch stretches take takes look looks clap claps
    stop stops swing swings make makes perform performs play plays pretend pretends
    """
)
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz'éèêëàâçîïôû")  # letters of English, and of ballet terms and names in it


def is_foreign(text: str) -> bool:
    """Whether a text is certainly not in English."""
    letters = [letter for letter in text if letter.isalpha()]
    other = sum(not letter.isascii() and not unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    if other * 3 > len(letters):
        return True
    words = set(re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", unicodedata.normalize("NFC", text).lower().replace("’", "'")))
    certain = words & _FOREIGN
    weak = {word for word in words - certain if word in _WEAK or not (word.isascii() or set(word) <= _PLAIN)}
    return (bool(certain) or len(weak) > 1) and len(certain) + len(weak) > len(words & _ENGLISH)


def language_warning(prompts: Iterable[str]) -> str | None:
    """Return one line about the prompts that are not in English, or None if all seem to be."""
    foreign = [prompt for prompt in dict.fromkeys(prompts) if is_foreign(prompt)]
    if not foreign:
        return None
    example = f"'{shown(foreign[0], 60)}'"
    found = f"the prompt {example} is" if len(foreign) == 1 else f"{len(foreign)} prompts, such as {example}, are"
    return (
        f"warning: {found} not in English, which the text encoder expects; translate for motion that follows the text"
    )
