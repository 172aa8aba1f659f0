"""`diff`: what changed between two printed stages, as text.

SSA numbers shift whenever a line comes or goes. Lines are matched without their numbers first;
then a number of the later stage becomes that of the line it matches, or gets a prime when its
line is new ("%7'"), and what still differs is a change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher, unified_diff

_NUMBER = re.compile(r"%\d+")
_COMMENT = re.compile(r"\s+# .*")


def diff(
    before: str,
    after: str,
    context: int = 1,
    titles: tuple[str, str] = ("before", "after"),
) -> str:
    """A unified diff of two stages, insensitive to renumbering and origins; "" when equal."""
    old, new = _code(before), _code(after)
    new = _renumbered(old, new)
    lines = unified_diff(old, new, *titles, n=context, lineterm="")
    return "\n".join(lines)


def _code(text: str) -> list[str]:
    """The lines without comments."""
    return [_COMMENT.sub("", line) for line in text.splitlines()]


def _renumbered(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """The new lines with the numbers that matching old lines have, graph by graph."""
    names: dict[str, str] = {}
    shapes = [[_NUMBER.sub("%", line) for line in lines] for lines in (old, new)]
    partner: dict[int, int] = {}
    for block in SequenceMatcher(None, *shapes, autojunk=len(new) > 2000).get_matching_blocks():
        partner.update((block.b + k, block.a + k) for k in range(block.size))
    result: list[str] = []
    for k, line in enumerate(new):
        if line.startswith("graph "):
            names = {}
        defined = _NUMBER.match(line.lstrip())
        if defined:
            match = _NUMBER.search(old[partner[k]]) if k in partner else None
            names[defined.group()] = match.group() if match else f"{defined.group()}'"
        result.append(_rename(line, names))
    return result


def _rename(line: str, names: Mapping[str, str]) -> str:
    return _NUMBER.sub(lambda found: names.get(found.group(), found.group()), line)
