"""Captions of mirrored clips: sides are exchanged, and left and right in other meanings are kept."""

import pytest

from dataset.caption_sides import mirror_caption

EXCHANGED = [
    ("a person goes right as usual", "a person goes left as usual"),
    ("a person turns left", "a person turns right"),
    ("the right hand is raised", "the left hand is raised"),
    ("a left-handed throw", "a right-handed throw"),
    ("he leans rightward", "he leans leftward"),
    ("she steps leftwards", "she steps rightwards"),
    ("walks in a circle clockwise", "walks in a circle counterclockwise"),
    ("turns counter-clockwise", "turns clockwise"),
    ("spins anticlockwise twice", "spins clockwise twice"),
    ("Counter clockwise turn", "Clockwise turn"),
    ("CLOCKWISE", "COUNTERCLOCKWISE"),
    ("walks anti-clockwise in a circle", "walks clockwise in a circle"),
    ("turns CCW, then CW", "turns CW, then CCW"),
    ("a person walks to the left of the box", "a person walks to the right of the box"),
    ("sways from left to right", "sways from right to left"),
    ("the person's left leg", "the person's right leg"),
    ("person left leg kicks", "person right leg kicks"),
    ("a man lifts left arm and right knee", "a man lifts right arm and left knee"),
    ("looks right and left", "looks left and right"),
    ("turns right after three steps", "turns left after three steps"),
    ("turns right at the corner", "turns left at the corner"),
    ("turns right into the hallway", "turns left into the hallway"),
    ("takes two steps left", "takes two steps right"),
    ("takes a few steps right", "takes a few steps left"),
    ("steps right then left", "steps left then right"),
    ("walks forward, turns right then walks on", "walks forward, turns left then walks on"),
    ("moves right before moving left", "moves left before moving right"),
    ("stands left of the table", "stands right of the table"),
    ("there is a man to his left", "there is a man to his right"),
    ("the man has left arm up", "the man has right arm up"),
    ("makes a sharp left", "makes a sharp right"),
    ("makes a right turn", "makes a left turn"),
    ("throws a left hook and a right uppercut", "throws a right hook and a left uppercut"),
    ("throws two lefts and three rights", "throws two rights and three lefts"),
    ("strafes left while shooting", "strafes right while shooting"),
    ("dodges left, right, left", "dodges right, left, right"),
    ("moves diagonally forward and left", "moves diagonally forward and right"),
    ("looks up and right", "looks up and left"),
    ("steps to the right, then back", "steps to the left, then back"),
    ("walks right.", "walks left."),
    ("Left!", "Right!"),
    ("lifthand then lefthand and rightfoot", "lifthand then righthand and leftfoot"),
    ("the leftmost foot", "the rightmost foot"),
    ("he raises left hand, then leaves", "he raises right hand, then leaves"),
    ("walking left the whole time", "walking right the whole time"),
    ("left arm out, right arm down", "right arm out, left arm down"),
    ("puts the right back foot down", "puts the left back foot down"),
    ("holds his lower right back", "holds his lower left back"),
    ("walks with the left side up", "walks with the right side up"),
    ("turns left 90 degrees", "turns right 90 degrees"),
    ("kicks with right", "kicks with left"),
    ("jumps left and right", "jumps right and left"),
    ("the person right hand waves", "the person left hand waves"),
    ("goes in the right direction", "goes in the left direction"),
    ("turning left the man waves", "turning right the man waves"),
    ("she steps right over to the left side", "she steps right over to the right side"),
    ("shuffles right past the chair", "shuffles left past the chair"),
    ("turns left and walks right up to the door", "turns right and walks right up to the door"),
    ("he left, turning right", "he left, turning left"),
    ("she turned right and left the stage", "she turned left and left the stage"),
    ("right after turning left he jumps", "right after turning right he jumps"),
    ("walks right up to the left chair", "walks right up to the right chair"),
    ("all right, turn left", "all right, turn right"),
    ("raises the right arm right away", "raises the left arm right away"),
    ("with no strength left he drops his right arm", "with no strength left he drops his left arm"),
    ("bends the left elbow at a right angle", "bends the right elbow at a right angle"),
    ("crosses right over left leg", "crosses left over right leg"),
    ("the man is left standing on the right leg", "the man is left standing on the left leg"),
    ("punches left right left right", "punches right left right left"),
]
KEPT = [
    "he was left with no choice",
    "a man waves goodbye and left",
    "he waves right at her",
    "reaches right out to the side",
    "the person left the room and right after that came back",
    "what is left of the wall",
    "he left",
    "she left the stage quickly",
    "the man left.",
    "the woman left and came back",
    "walks right up to the door",
    "sits down right away",
    "stands upright",
    "everything is all right",
    "arms bent at a right angle",
    "forms right angles with the elbows",
    "nothing is left",
    "there is no time left",
    "a person who has no energy left",
    "an arm is left hanging",
    "he is left behind",
    "picks up where he left off",
    "eats the leftovers",
    "stops right there",
    "right now he jumps",
    "right after the jump he bows",
    "jumps right before the line",
    "runs right through the wall",
    "stands right next to the chair",
    "stops right in front of the camera",
    "sits right beside her",
    "walks right past the table",
    "falls right on top of the mat",
    "does it right",
    "gets it right",
    "waits for the right moment",
    "puts it in the right place",
    "faces the right way up",
    "the box is right side up",
    "copyright and bright lights",
    "human rights",
    "lands right where he started",
    "got up and left",
    "stood up, waved and left",
    "they had left before",
    "someone just left the building",
    "the person suddenly left",
    "tries to right himself",
    "walks right back to the start",
    "falls right down",
    "jumps right over the box",
    "runs right into a wall",
    "spins right around and bows",
    "walks right to the edge",
    "walks right in.",
    "he sat down, and right then he fell",
    "what's left is dust",
    "all that is left",
    "the person left through the door",
    "is left alone",
    "the jump is not right",
    "stands up right",
    "he turned around and left",
    "starting right away, he runs fast",
]


@pytest.mark.parametrize(("caption", "mirrored"), EXCHANGED)
def test_sides_and_directions_of_turning_are_exchanged(caption, mirrored):
    assert mirror_caption(caption) == mirrored


@pytest.mark.parametrize("caption", KEPT)
def test_other_meanings_are_kept(caption):
    assert mirror_caption(caption) == caption


def test_case_is_kept_and_parts_of_words_are_no_sides():
    text = "Left, RIGHT and left; leftover copyright Right-handed"
    assert mirror_caption(text) == "Right, LEFT and right; leftover copyright Left-handed"
    assert mirror_caption(mirror_caption(text)) == text
    assert mirror_caption("Clockwise, COUNTERCLOCKWISE, clock-wise") == "Counterclockwise, CLOCKWISE, counterclock-wise"


def test_lines_of_humanml3d_are_mirrored_as_a_whole():
    line = "a man turns left#a/DET man/NOUN turn/VERB left/ADV#0.0#0.0"
    assert mirror_caption(line) == "a man turns right#a/DET man/NOUN turn/VERB right/ADV#0.0#0.0"


def test_apostrophes_line_ends_and_long_texts():
    assert mirror_caption("the person’s left\nhand") == "the person’s right\nhand"
    assert mirror_caption("what’s  left") == "what’s  left"
    assert mirror_caption("left " * 1000).count("right") == 1000
