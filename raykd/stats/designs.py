"""Factorial designs: which settings of the factors to run, and what a fraction cannot tell apart.

Level 0 of a factor is the base's. An effect is a tuple of factor numbers: (0,) is a main effect, (0, 2) a
two-way interaction.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from raykd.stats.paired import IntArray
from trainables.core.errors import UserError

Effect = tuple[int, ...]
_RESOLUTIONS = (3, 4, 5)
_TRIED = 200  # fractions of the wanted resolution among which the one with the least aberration is taken
_MOST = 11  # factors; with more, the search for generators takes too long, and so does the study


@dataclass(frozen=True)
class Fraction:
    """A regular two-level fraction 2^(k-p).

    `runs` (runs, factors) holds levels 0 and 1; the first run is the base. `generators` maps each added
    factor to the product that sets it. `words` are all products that are constant (the defining relation),
    and `resolution` is the length of the shortest word: III confounds main effects with two-way interactions,
    IV two-way interactions with each other, V neither.
    """

    runs: IntArray
    generators: dict[int, Effect]
    words: tuple[Effect, ...]
    resolution: int

    def aliases(self, effect: Effect, *, order: int = 2) -> tuple[Effect, ...]:
        """The other effects of at most `order` factors that this design cannot tell from `effect`."""
        products = {tuple(sorted(set(effect) ^ set(word))) for word in self.words}
        return tuple(sorted((e for e in products if 0 < len(e) <= order), key=lambda e: (len(e), e)))


def full_factorial(levels: Sequence[int]) -> IntArray:
    """All combinations of levels 0 .. n - 1: (runs, factors); the base (all 0) first, last factor fastest.

    Raises `UserError` for a factor of fewer than two levels.
    """
    if not levels or min(levels) < 2:
        wanted = "2 levels or more of each"
        raise UserError("factors", "a factor has nothing to vary", value=list(levels), expected=wanted)
    return np.array(list(itertools.product(*(range(n) for n in levels))), dtype=np.int64)


def fractional_factorial(factors: int, resolution: int) -> Fraction:
    """The smallest regular two-level fraction of at least this resolution; of those found, least aberration.

    Basic factors run through all combinations; every further factor is set to a product of basic ones (Box,
    Hunter and Hunter 2005, chapter 6). Aberration compares the counts of words of length 3, 4, ... (Fries and
    Hunter 1980). Where no fraction has the resolution, it is the full factorial. Raises `UserError` for a
    resolution other than 3, 4 and 5, and for fewer than 2 or more than 11 factors.
    """
    if resolution not in _RESOLUTIONS:
        raise UserError("resolution", "not known", value=resolution, expected="3, 4 or 5")
    if not 2 <= factors <= _MOST:
        raise UserError("factors", "no fraction", value=factors, expected=f"2 to {_MOST} two-level factors")
    for basic in range(2, factors):
        found = list(itertools.islice(_fractions(factors, basic, resolution), _TRIED))
        if found:
            return _build(basic, min(found, key=_aberration))
    return Fraction(full_factorial([2] * factors), {}, (), factors + 1)


def _fractions(factors: int, basic: int, resolution: int) -> Iterator[tuple[list[int], list[int]]]:
    """(generators, words) as bit masks, for every choice that keeps all words at `resolution` or longer."""
    products = [m for m in range(1, 1 << basic) if m.bit_count() >= resolution - 1]
    products.sort(key=lambda m: (-m.bit_count(), m))

    def extend(chosen: list[int], words: list[int], start: int) -> Iterator[tuple[list[int], list[int]]]:
        if len(chosen) == factors - basic:
            yield chosen, words
            return
        for at in range(start, len(products)):
            word = products[at] | 1 << (basic + len(chosen))
            more = [word, *(word ^ other for other in words)]
            if min(w.bit_count() for w in more) >= resolution:
                yield from extend([*chosen, products[at]], words + more, at + 1)

    return extend([], [], 0)


def _aberration(found: tuple[list[int], list[int]]) -> list[int]:
    """How many words of each length; compared from the shortest on."""
    lengths = [word.bit_count() for word in found[1]]
    return [lengths.count(n) for n in range(1, max(lengths) + 1)]


def _build(basic: int, found: tuple[list[int], list[int]]) -> Fraction:
    """The fraction with these (generators, words)."""
    chosen, masks = found
    runs = full_factorial([2] * basic)
    generators = {basic + i: _bits(mask) for i, mask in enumerate(chosen)}
    for product in generators.values():
        # In signs (-1 for the base) the new factor is +- the product; this sign keeps the base among the
        # runs.
        runs = np.column_stack([runs, runs[:, list(product)].sum(axis=1) % 2])
    words = tuple(sorted((_bits(mask) for mask in masks), key=lambda w: (len(w), w)))
    return Fraction(runs, generators, words, min(len(word) for word in words))


def _bits(mask: int) -> Effect:
    """The factors in a bit mask."""
    return tuple(i for i in range(mask.bit_length()) if mask >> i & 1)
