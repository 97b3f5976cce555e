"""Items of our own, in the columns of IFEval, GPQA and AIME: the suite `quick`, and the capability probe.

They are made by these functions, the same every time. They are easy: a model of 135 million parameters solves
a part of them, so that what training takes away can be seen.
"""

from typing import Any

Row = dict[str, Any]

TOPICS = ("the sea", "a bicycle", "winter", "bread", "a library")

_FORBIDDEN = ["very", "really"]
INSTRUCTIONS: tuple[tuple[str, str, Row], ...] = (
    ("punctuation:no_comma", "Write two sentences about {}. Do not use any commas.", {}),
    ("change_case:english_lowercase", "Write about {} in English, in lowercase letters only.", {}),
    ("change_case:english_capital", "Write about {} in English, in capital letters only.", {}),
    ("startend:quotation", "Write one sentence about {}. Wrap the answer in double quotation marks.", {}),
    ("detectable_format:number_bullet_lists",
     "List facts about {} as exactly 3 bullet points, each beginning with an asterisk, like:\n* A point.",
     {"num_bullets": 3}),
    ("keywords:existence", "Write about {}. Use the words people and time.",
     {"keywords": ["people", "time"]}),
    ("keywords:forbidden_words", "Write about {} without the words very and really.",
     {"forbidden_words": _FORBIDDEN}),
    ("length_constraints:number_words", "Write about {} in less than 40 words.",
     {"num_words": 40, "relation": "less than"}),
    ("detectable_format:title", "Write two lines about {}. Begin with a title in double angular brackets, "
     "such as <<a title>>.", {}),
    ("startend:end_checker", "Write one sentence about {}. End the answer with the phrase: That is all.",
     {"end_phrase": "That is all."}),
    ("detectable_content:postscript", "Write one sentence about {}, then a postscript that begins with P.S.",
     {"postscript_marker": "P.S."}),
    ("detectable_format:json_format", "Describe {} as one JSON object, and write nothing else.", {}),
)  # fmt: skip
"""The harness's instruction, the prompt, and what the harness's check is told. None needs nltk's data."""

_CAPITALS = (
    "France:Paris Italy:Rome Spain:Madrid Germany:Berlin Japan:Tokyo Egypt:Cairo Greece:Athens "
    "Russia:Moscow China:Beijing Cuba:Havana Portugal:Lisbon Austria:Vienna Hungary:Budapest "
    "Poland:Warsaw Norway:Oslo Sweden:Stockholm Finland:Helsinki Denmark:Copenhagen Ireland:Dublin "
    "Kenya:Nairobi Peru:Lima Chile:Santiago Turkey:Ankara Iran:Tehran Iraq:Baghdad Thailand:Bangkok "
    "Vietnam:Hanoi Nepal:Kathmandu Canada:Ottawa Belgium:Brussels"
)
_OPPOSITES = (
    "hot:cold up:down early:late open:closed rich:poor day:night left:right old:young wet:dry "
    "light:dark fast:slow full:empty loud:quiet strong:weak high:low first:last buy:sell win:lose "
    "begin:end love:hate true:false hard:soft long:short thick:thin inside:outside push:pull near:far "
    "safe:dangerous clean:dirty cheap:expensive"
)
_PLURALS = (
    "child:children man:men woman:women foot:feet tooth:teeth mouse:mice goose:geese person:people "
    "ox:oxen leaf:leaves knife:knives wolf:wolves city:cities baby:babies box:boxes bus:buses "
    "dish:dishes hero:heroes lady:ladies story:stories wife:wives half:halves shelf:shelves "
    "potato:potatoes watch:watches thief:thieves calf:calves fly:flies glass:glasses country:countries"
)
_SOURCES = (
    "sheep:wool cow:milk bee:honey hen:eggs baker:bread potter:pots tailor:clothes author:books "
    "painter:pictures farmer:crops vineyard:wine brewery:beer mill:flour sawmill:boards "
    "printer:newspapers jeweller:rings shoemaker:shoes weaver:cloth composer:music "
    "blacksmith:horseshoes florist:bouquets dairy:cheese quarry:stone well:water orchard:apples "
    "hatmaker:hats candlemaker:candles poet:poems architect:plans silkworm:silk"
)
PAIRS: tuple[tuple[str, str], ...] = (
    ("What is the capital of {}?", _CAPITALS),
    ("Which word is the opposite of {}?", _OPPOSITES),
    ("Which word is the plural of {}?", _PLURALS),
    ("What comes from this source: {}?", _SOURCES),
)
"""Questions, and pairs of what is asked and its answer; the wrong options are answers to others."""

_STORIES = (
    "{0} birds sit on a roof and {1} more arrive. How many birds are there?",
    "A shop has {2} lamps and sells {0}. How many lamps are left?",
    "There are {0} boxes with {1} pens in each. How many pens are there?",
    "Tom has {2} coins, finds {0} and gives {1} away. How many coins has he?",
)
_ARITHMETIC = 60


def instructions() -> list[Row]:
    """60 prompts with one instruction each, in IFEval's columns."""
    return [
        {"key": key, "prompt": text.format(topic), "instruction_id_list": [name], "kwargs": [dict(arguments)]}
        for key, (topic, (name, text, arguments)) in enumerate(
            (topic, instruction) for topic in TOPICS for instruction in INSTRUCTIONS
        )
    ]


def knowledge() -> list[Row]:
    """120 questions with four options, in GPQA's columns."""
    rows = []
    for question, table in PAIRS:
        pairs = [pair.split(":") for pair in table.split()]
        for place, (asked, answer) in enumerate(pairs):
            wrong = [pairs[(place + step) % len(pairs)][1] for step in (7, 13, 22)]
            row = {"Question": question.format(asked), "Correct Answer": answer}
            rows.append(row | {f"Incorrect Answer {number}": text for number, text in enumerate(wrong, 1)})
    return rows


def arithmetic() -> list[Row]:
    """60 sums of everyday life, in AIME's columns."""
    rows = []
    for number in range(_ARITHMETIC):
        first = 2 + number * 7 % 11
        second = 2 + number * 5 % 7
        third = 30 + number * 13 % 40
        answers = (first + second, third - first, first * second, third + first - second)
        kind = number % len(_STORIES)
        problem = _STORIES[kind].format(first, second, third)
        rows.append({"id": number, "problem": problem, "answer": str(answers[kind])})
    return rows


OWN = {"instructions": instructions, "knowledge": knowledge, "arithmetic": arithmetic}
"""Task → its items."""
