"""Captions of mirrored clips: exchange left and right, clockwise and counterclockwise.

``left`` and ``right`` also have other meanings: "he left the room", "nothing is left", "right away", "a right angle".
Two tables of contexts, ``_LEFT`` and ``_RIGHT``, decide whether a word is a side; by default it is.
"""

import re
from typing import NamedTuple

_OPPOSITES = {"left": "right", "right": "left", "lefts": "rights", "rights": "lefts", "cw": "ccw", "ccw": "cw"}
_WINDOW = 80  # characters before and after a word that are its context
_PART = (
    r"(?:hand|fist|palm|finger|thumb|wrist|elbow|forearm|arm|shoulder|leg|thigh|knee|shin|calf|ankle"
    r"|foot|feet|heel|toe"
    r"|hip|side|cheek|ear|eye|glove|shoe|boot)"
)
_WORD = re.compile(
    rf"\b(?P<word>lefts?|rights?)(?P<ending>[- ]?(?:handed|footed|wards?|most)(?:ly)?|{_PART}s?)?\b"
    r"|\b(?P<turn>(?:(?:counter|anti|contra)[- ]?)?clock[- ]?wise|ccw|cw)\b",
    re.IGNORECASE,
)
_AGAINST = re.compile(r"(?:counter|anti|contra)[- ]?", re.IGNORECASE)


def mirror_caption(text: str) -> str:
    """Return the caption of the mirrored clip: sides and directions of turning are exchanged, keeping their case.

    "clockwise" becomes "counterclockwise"; the spellings counter-clockwise, counter clockwise and anticlockwise,
    and the short forms CW and CCW, are also recognized.
    """

    def opposite(match: re.Match) -> str:
        if match["turn"]:
            return _opposite_turn(match["turn"])
        word, ending = match["word"], match["ending"] or ""
        before, after = text[max(0, match.start() - _WINDOW) : match.start()], text[match.end() :][:_WINDOW]
        if not ending and not _is_side(word.lower(), before, after):
            return word
        return _with_case(word, _OPPOSITES[word.lower()]) + ending

    return _WORD.sub(opposite, text)


def _opposite_turn(turn: str) -> str:
    if turn.lower() in _OPPOSITES:
        return _with_case(turn, _OPPOSITES[turn.lower()])
    against = _AGAINST.match(turn)
    return _with_case(turn, turn[against.end() :].lower() if against else f"counter{turn.lower()}")


def _with_case(example: str, word: str) -> str:
    return word.upper() if example.isupper() else word.capitalize() if example[0].isupper() else word


def _is_side(word: str, before: str, after: str) -> bool:
    """Whether a word between two texts means a side; the first context of its table that matches decides."""
    before, after = (re.sub(r"\s+", " ", part.lower().replace("’", "'").replace("@", " ")) for part in (before, after))
    context = f"{before}@{after}"
    return next((rule.side for rule in _TABLES[word] if rule.context.search(context)), True)


# --- Contexts. In a pattern, @ stands for the word.

_END = r"(?= ?(?:[.,;:!?#)\"]|$))"  # of a clause
_THE = r"(?:the|his|her|their|its|my|your|our|one's|a|an|each|(?!(?:that|it|he|she|what|there|let)')\w+'s)"
_ACTION = r"(?:turn|hook|jab|cross|uppercut|kick|punch|step|lunge|swing|circle|hop|jump|pivot|roll|direction)e?s?\b"
_PEOPLE = (
    r"(?:person|man|woman|someone|somebody|everyone|everybody|nobody|human|figure|character|individual"
    r"|guy|lady|boy|girl"
    r"|child|kid|dancer|actor|actress|player|people|men|women|dancers|others|students?|teacher)"
)
_PLACE = (
    r"(?:room|stage|scene|house|home|building|area|chair|seat|table|floor|ground|field|court|ring|place"
    r"|party|office|car"
    r"|bus|kitchen|door|frame|screen|view|spot|position|others|group|line|starting|circle|mat|platform"
    r"|gym|street|road)"
)
_TURNING = (  # after these verbs, "right" hardly ever means "directly"
    r"(?:(?:turn|veer|lean|look|glanc|gaz|fac|shift|sway|bend|rotat|spin|spinn|pivot|swerv|tilt|twist"
    r"|swing|swivel|curv"
    r"|side-?stepp?|shuffl|straf|bank|roll|point|angl)(?:e|s|es|ed|ing)?|bent|swung|spun)"
)
_MOVING = (
    r"(?:(?:walk|run|runn|stepp?|jump|leap|hopp?|jogg?|mov|go|com|crawl|head|stumbl|danc|march|stroll"
    r"|pac|sprint|rac|dash"
    r"|rush|slid|skipp?|limp|climb|charg|travel|dodg|lung)(?:e|s|es|ed|ing)?|went|ran|came|slid)"
)
_BODY_PART = rf"@[- ]+(?:(?:upper|lower|front|back|inner|outer)[- ])?{_PART}s?\b"
_RATHER = r"(?:whole|entire|way|other|same|first|second|third|next|last|moment|ball|left|right|upper|lower)"


class _Rule(NamedTuple):
    side: bool
    context: re.Pattern


def _rules(*rows: tuple[str, str]) -> list[_Rule]:
    return [_Rule(kind == "side", re.compile(pattern)) for kind, pattern in rows]


_LEFT = _rules(
    ("side", _BODY_PART),
    ("side", rf"@[- ]{_ACTION}"),
    ("kept", r"@[- ]over(?:s\b| from| food)"),
    ("side", rf"\b(?:{_THE}|to|on|at|from|towards?|with) @"),
    # the rest: "nothing is left"
    ("kept", r"\b(?:what(?:ever)?|all|that)(?: little)?(?:'s| is| was| are| were)? @"),
    ("kept", r"\b(?:nothing|anything|something|everything|none|nobody)(?: is| was)? @(?! of the)"),
    ("kept", r"\bthere(?:'s| is| are| was| were)(?: \w+){1,4} @(?! of)"),
    ("kept", r"\b(?:time|energy|strength|breath|room|space|power|stamina|water|food)(?: is| was)? @"),
    (
        "kept",
        rf"\b(?:no|any|enough|much|little)(?: more)? (?!steps?\b|turns?\b|moves?\b"
        rf"|further)\w+(?: is| are| was)? @{_END}",
    ),
    # left behind, left alone, where he left off
    (
        "kept",
        r"\b(?:is|are|was|were|be|been|being|gets?|got)(?: \w+ly)? @ (?:over|out|off|standing"
        r"|hanging|sitting|lying|without|with (?:no|only|just)|as is)\b",
    ),
    ("kept", r"@ (?:behind|alone)\b|\bwhere(?: \w+){1,2} @ off\b"),
    ("side", r"@ of\b"),
    # left the room
    ("kept", rf"@ (?:the|a|an|his|her|their|its|this|that) (?:\w+ )?{_PLACE}\b(?! of the time)"),
    (
        "side",
        r"\bright,?(?: and| or| then| to| but| not|/)* ?@|@,?(?: and| or| then| to| but| not"
        r"|/)* ?right\b",
    ),
    (
        "kept",
        r"\b(?:got|gets|stood|stands|getting|standing) up,? and (?:then )?@|\b(?:put|set|laid"
        r"|sat)(?: \w+)* down,? and @",
    ),
    (
        "side",
        r"\b(?:forwards?|backwards?|up|down|sideways|diagonally|slightly|sharply|hard|far"
        r"|further),?(?: and| then)* @",
    ),
    ("side", rf"\b(?:{_TURNING}|{_MOVING}) @"),
    (
        "kept",
        rf"\b(?:he|she|they|who|i|we|had|has|have|just|already|never|finally|{_PEOPLE} (?:then"
        rf"|quickly|suddenly|slowly)) @",
    ),
    (
        "kept",
        rf"\b{_PEOPLE} @(?:{_END}| (?:and|but|because|after|before|when|while|for|through|by"
        rf"|without|in|as|again|early"
        rf"|quickly|slowly|suddenly|immediately|home|work|\w+ everything)\b)",
    ),
    (
        "kept",
        r"\b(?:got|stood|came|sat|said|says|waved?s?|bow(?:s|ed)|finish(?:es|ed)|grabbed|turned around)\b(?:(?! right\b"
        r"| left\b| then\b) \w+)*?"
        rf",? and (?:then )?(?:quickly )?@(?:{_END}| (?:for|through|by)\b)",
    ),
    ("kept", rf"@ (?:the|a|an|his|her|their|its|this|that) (?!{_RATHER}\b|{_PART}s?\b)\w+"),
)
_AS = r"(?:after|before|when|as|then)"
_OUT = r"(?:up|down|out|back|forward)"
_RIGHT = _rules(
    ("kept", r"@[- ]+(?:angle|triangle)|@[- ]side[- ](?:up|out|down)\b"),
    ("side", _BODY_PART),
    ("side", rf"@[- ]{_ACTION}"),
    (
        "kept",
        r"@ (?:ways?|times?|moment|places?|order|height|speed|pace|tempo|rhythm|timing|things?"
        r"|answer|choice|technique|form"
        r"|posture|size|amount|words?|person|mind|idea|tool|decision)\b",
    ),
    ("kept", r"@ (?:away|now)\b|@[- ](?:minded|of way)\b|@ (?:him|her|it)self\b|@ themselves\b"),
    ("kept", r"\band @ after (?:that|this|it)\b"),
    # beside the word left
    (
        "side",
        r"\bleft,?(?: (?:and|or|then|to|but|not|nor)|/|-)+ ?@|\bleft, ?@|@,?(?: (?:and|or|then|to"
        r"|but|not)|/|-)* ?left\b",
    ),
    ("side", r"@ (?:over|under|behind|across|above|below|before|after|past) left\b"),
    ("side", rf"\bleft @{_END}|\bleft(?: \w+)? {_OUT}\b.*@ {_OUT}\b|@ {_OUT}\b.*\bleft {_OUT}\b"),
    # correct
    (
        "kept",
        rf"\ball @|\bserves \w+ @|, ?@ ?\?|\b(?:that|it|he|she)'s @{_END}|\b(?:he|she|they"
        rf"|you) (?:is|are|was|were) @{_END}",
    ),
    (
        "kept",
        rf"\b(?:just|quite|exactly|perfectly|not|isn't|feels?|felt|seems?|seemed) @(?:{_END}"
        rf"| (?:and|about|to|for|with)\b)",
    ),
    (
        "kept",
        r"\b(?:get|gets|got|getting|do|does|did|doing|done|makes?|made|sets?|puts?)(?: \w+)? (?:it"
        r"|this|that|things) @",
    ),
    ("kept", rf"\b(?:stand|stands|standing|stood|sit|sits|sat|sitting) up @(?:{_END}| (?:and|with|on|in)\b)"),
    ("side", rf"\b(?:{_THE}|to|on|at|from|towards?|upper|lower|top|bottom) @"),
    ("side", r"@ as (?:usual|always|before)\b"),
    # directly, completely
    (
        "kept",
        r"@ on (?:time|cue|top|beat|target|schedule|the (?:beat|spot))\b|@ from the (?:start"
        r"|beginning|outset)\b",
    ),
    ("kept", r"@ in (?:front|the (?:middle|cent))|@ up (?:to|against|next|close)\b"),
    (
        "kept",
        rf"\b(?:turn|spin|spinn|flip|flipp|lean|bend)(?:s|ed|ing)? @ (?:around|round|over|back"
        rf"|down)(?:{_END}| (?:and|to|so|again)\b)",
    ),
    ("side", rf"\b{_TURNING} @"),
    ("side", rf"\b{_MOVING} @ {_AS}\b.*\bleft\b|\bleft\b.*\b{_MOVING} @ {_AS}\b|\b{_MOVING} @ then\b"),
    (
        "kept",
        r"@ (?:next to|beside|behind|between|underneath|alongside|against|above|below|near|by|up"
        r"|into|onto|through|past"
        r"|across|along|towards?|off|out|outside|inside|down|back|over|under|at|where|after|before"
        r"|when|as|here|there)\b",
    ),
    (
        "kept",
        rf"\b{_MOVING} @ (?:to (?:the|a|his|her|its) (?!left|right|side|other|opposite|cent)"
        rf"|around\b|round\b|in{_END})",
    ),
    ("kept", r"(?:^|[,;.:] ?|\b(?:and|but) )@ then\b"),
)
_RIGHTS = _rules(("side", r"\blefts\b|\b(?:two|three|four|five|several|few|some|throws) @"), ("kept", "@"))
_TABLES = {"left": _LEFT, "right": _RIGHT, "lefts": [], "rights": _RIGHTS}
