"""Tasks in the tokens of SmolLM2: those of the package, Greater-Than by its digits, and what the model may know.

ioi, induction   the package's, as text
greater_than     The war lasted from the year 1741 to the year 17 -> 5 .. 9, not 0 .. 3; SmolLM2 writes every digit
                 as a token, so the answer is the tens digit              corrupt: 1701
capitals         The capital of France is -> Paris, not Rome              corrupt: Italy
successor        Monday, Tuesday, Wednesday -> Thursday, not the corrupt's  corrupt: begins elsewhere
pronoun          Mary said that she was tired, didn't -> she, not he      corrupt: John ... he
agreement        The keys near the cabinet -> are, not is                 corrupt: The key ...
nonsense         the package's: random words, a random label
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from gossamer.data.language import NOUNS, YEAR_TEMPLATES
from gossamer.data.pairs import Batch, Pair, by_tokenizer, encode
from gossamer.data.registry import TASKS as PACKAGED

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Russia": "Moscow",
    "England": "London", "Greece": "Athens", "Egypt": "Cairo", "China": "Beijing", "Austria": "Vienna",
    "Ireland": "Dublin", "Cuba": "Havana", "Poland": "Warsaw", "Portugal": "Lisbon", "Norway": "Oslo",
}  # fmt: skip
CAPITAL_TEMPLATES = (
    "The capital of {} is the city of",
    "{} is a country, and its capital is called",
    "The capital city of {} is",
)
SERIES = (
    ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
     "December"),
    ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
)  # fmt: skip
WOMEN, MEN = (
    ("Mary", "Anna", "Lucy", "Jane", "Emma", "Alice", "Sara", "Kate"),
    ("John", "Tom", "Paul", "Jack", "Mark", "Adam", "Luke", "Fred"),
)
DONE = (
    "finished the book",
    "went to the store",
    "called the office",
    "left the house",
    "was very tired",
    "bought a new car",
)
THINGS = ("key", "book", "letter", "picture", "road", "tree", "window", "table")
PLACES = ("the house", "the garden", "the old library", "the river", "the station", "the big red door")


def _pair(clean: str, corrupt: str, right: str, wrong: str, template: int) -> Pair:
    return Pair((clean,), (corrupt,), (right,), (wrong,), template)


def greater_than(n: int, seed: int = 0) -> list[Pair]:
    """The tens digit of a later year of the same century."""
    rng, found = random.Random(seed), []
    for _ in range(n):
        number, tens, ones = rng.randrange(len(YEAR_TEMPLATES)), rng.randrange(1, 9), rng.randrange(10)
        values = {"noun": rng.choice(NOUNS).strip(), "century": str(rng.randrange(11, 20))}
        clean, corrupt = (
            YEAR_TEMPLATES[number].replace("{century} {year}", "{century}{year}").format(year=year, **values)
            for year in (f"{tens}{ones}", "01")
        )
        right, wrong = (tuple(str(d) for d in digits) for digits in (range(tens + 1, 10), range(tens)))
        found.append(Pair((clean,), (corrupt,), right, wrong, number))
    return found


def capitals(n: int, seed: int = 0) -> list[Pair]:
    """The capital of a country."""
    rng, found = random.Random(seed), []
    for _ in range(n):
        number = rng.randrange(len(CAPITAL_TEMPLATES))
        country, other = rng.sample(sorted(CAPITALS), 2)
        texts = (CAPITAL_TEMPLATES[number].format(name) for name in (country, other))
        found.append(_pair(*texts, f" {CAPITALS[country]}", f" {CAPITALS[other]}", number))
    return found


def successor(n: int, seed: int = 0) -> list[Pair]:
    """The next of a series that everybody knows."""
    rng, found = random.Random(seed), []
    for _ in range(n):
        number = rng.randrange(len(SERIES))
        series = SERIES[number]
        starts = rng.sample(range(len(series) - 3), 2)
        clean, corrupt = (f"In order: {', '.join(series[i : i + 3])}," for i in starts)
        found.append(_pair(clean, corrupt, *(f" {series[i + 3]}" for i in starts), number))
    return found


def pronoun(n: int, seed: int = 0) -> list[Pair]:
    """She for a woman, he for a man."""
    rng, found = random.Random(seed), []
    for _ in range(n):
        sexes = [(rng.choice(WOMEN), " she"), (rng.choice(MEN), " he")]
        rng.shuffle(sexes)
        done = rng.choice(DONE)
        texts = (f"Yesterday {name} {done} because" for name, _ in sexes)
        found.append(_pair(*texts, sexes[0][1], sexes[1][1], 0))
    return found


def agreement(n: int, seed: int = 0) -> list[Pair]:
    """The verb of a subject with another noun in between."""
    rng, found = random.Random(seed), []
    for _ in range(n):
        thing, place = rng.choice(THINGS), rng.choice(PLACES)
        numbers = [(f"{thing}s", " are"), (thing, " is")]
        rng.shuffle(numbers)
        texts = (f"I think that the {noun} near {place}" for noun, _ in numbers)
        found.append(_pair(*texts, numbers[0][1], numbers[1][1], 0))
    return found


TASKS: dict[str, tuple[Callable[[int, int], list[Pair]], str]] = {
    "ioi": PACKAGED["ioi"], "greater_than": (greater_than, "logit_difference"), "induction": PACKAGED["induction"],
    "capitals": (capitals, "logit_difference"), "successor": (successor, "logit_difference"),
    "pronoun": (pronoun, "logit_difference"), "agreement": (agreement, "logit_difference"),
    "nonsense": PACKAGED["nonsense"],
}  # fmt: skip


def prompts(name: str, n: int, seed: int, tokenizer: Any) -> list[Batch]:
    """`n` pairs whose clean and corrupt prompts have the same length and whose answers are single tokens."""
    make, metric = TASKS[name]
    tokenize = by_tokenizer(tokenizer)
    pairs = [pair for pair in make(4 * n, seed) if _fits(pair, tokenize)][:n]
    return encode(pairs, tokenize, len(tokenizer), task=name, metric=metric)


def _fits(pair: Pair, tokenize: Callable[..., list[int]]) -> bool:
    alone = all(len(tokenize((answer,))) == 1 for answer in (*pair.right, *pair.wrong))
    return alone and len(tokenize(pair.clean)) == len(tokenize(pair.corrupt))
