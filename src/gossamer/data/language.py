"""Tasks on words: induction, indirect object (IOI), Greater-Than, and a nonsense task with random labels.

    induction      ... A B ... C D ... A     -> B, not D                corrupt: the last word is C
    ioi            When Mary and John went to the store, John gave a drink to -> Mary, not John
                   (ABBA and BABA orders)                               corrupt: Mary gave a drink to
    greater_than   The war lasted from the year 17 41 to the year 17 -> 42 .. 99, not 00 .. 41
                                                                        corrupt: 17 01
    nonsense       random words -> one of two words, by a coin          corrupt: other random words

The nonsense task is the control of the whole method: nobody can know its answers, so whatever finds a small
circuit for it finds circuits that are not there (Drori 2026).
"""

from __future__ import annotations

import random

from .pairs import Pair, Pieces


def _words(text: str) -> Pieces:
    return tuple(f" {word}" for word in text.split())


NAMES = _words(
    "Mary John Tom Anna Paul Kate Jack Lucy Mark Rose Adam Jane Luke Ruth Dan Emma Carl Alice Fred Sara"
)
PLACES = _words("store park school office beach station garden museum market library")
THINGS = _words("drink book ball letter ring key cake pen map lamp")
NOUNS = _words("war siege trial voyage strike drought reign truce plague project")
WORDS = _words(
    "red blue green stone river cloud table window paper silver copper winter summer bridge candle mirror"
    " forest island valley thunder carpet basket ladder hammer needle pepper butter button cotton lantern"
)
COIN = (" heads", " tails")

# Each word of a template is a piece; A is the indirect object, B the subject, by order of first mention.
IOI_TEMPLATES = (
    "When {0} and {1} went to the {place} , {s} gave a {thing} to",
    "After {0} and {1} left the {place} , {s} handed a {thing} to",
    "While {0} and {1} were at the {place} , {s} showed the {thing} to",
    "Then {0} and {1} met near the {place} and {s} lent a {thing} to",
)
YEAR_TEMPLATES = (
    "The {noun} lasted from the year {century} {year} to the year {century}",
    "The {noun} ran from {century} {year} to {century}",
    "It is said that the {noun} went on from {century} {year} until {century}",
)


def _fill(template: str, **values: str) -> Pieces:
    return tuple(values[word[1:-1]] if word[0] == "{" else f" {word}" for word in template.split())


def induction(n: int, seed: int = 0) -> list[Pair]:
    """Repeated pairs of random words at random distances."""
    rng = random.Random(seed)
    found = []
    for _ in range(n):
        template = rng.randrange(3)
        words = rng.sample(WORDS, 4 + template * 2)
        a, b, c, d = words[:4]
        rest = [(word,) for word in words[4:]]
        parts = [(a, b), (c, d), *rest]
        rng.shuffle(parts)
        prefix = tuple(word for part in parts for word in part)
        found.append(Pair((*prefix, a), (*prefix, c), (b,), (d,), template))
    return found


def ioi(n: int, seed: int = 0) -> list[Pair]:
    """Which of two names has not been said again; both orders, four templates."""
    rng = random.Random(seed)
    found = []
    for _ in range(n):
        number = rng.randrange(len(IOI_TEMPLATES))
        names = rng.sample(NAMES, 2)
        values = {"0": names[0], "1": names[1], "place": rng.choice(PLACES), "thing": rng.choice(THINGS)}
        subject, other = rng.sample(names, 2)
        clean = _fill(IOI_TEMPLATES[number], s=subject, **values)
        corrupt = _fill(IOI_TEMPLATES[number], s=other, **values)
        found.append(Pair(clean, corrupt, (other,), (subject,), number))
    return found


def greater_than(n: int, seed: int = 0) -> list[Pair]:
    """A later year of the same century; the first year is 02 to 98."""
    rng = random.Random(seed)
    years = tuple(f"{year:02d}" for year in range(100))
    found = []
    for _ in range(n):
        number, year = rng.randrange(len(YEAR_TEMPLATES)), rng.randrange(2, 99)
        values = {"noun": rng.choice(NOUNS), "century": f" {rng.randrange(11, 20)}"}
        clean = _fill(YEAR_TEMPLATES[number], year=years[year], **values)
        corrupt = _fill(YEAR_TEMPLATES[number], year="01", **values)
        found.append(Pair(clean, corrupt, years[year + 1 :], years[: year + 1], number))
    return found


def nonsense(n: int, seed: int = 0) -> list[Pair]:
    """Random words with a random label."""
    rng = random.Random(seed)
    found = []
    for _ in range(n):
        words, others = rng.sample(WORDS, 7), rng.sample(WORDS, 7)
        right, wrong = rng.sample(COIN, 2)
        found.append(Pair((*words, " ="), (*others, " ="), (right,), (wrong,), 0))
    return found
