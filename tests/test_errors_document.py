"""docs/errors.md tells the truth: what fails raises exactly that, and what is mended runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from errors_document import DOCUMENT, examples, run, said

import einkorn as ek
from einkorn.container import UnknownKeyError

TEXT = DOCUMENT.read_text(encoding="utf-8")
EXAMPLES = {example.title: example for example in examples(TEXT)}
assert UnknownKeyError  # defined, so that it is among the subclasses


@pytest.mark.parametrize("title", EXAMPLES)
def test_the_failing_example_raises_what_is_shown(title: str, tmp_path: Path) -> None:
    example = EXAMPLES[title]
    assert example.text.startswith(f"{title.partition(':')[0]}: ")
    assert said(example.failing, tmp_path) == example.text


@pytest.mark.parametrize("title", EXAMPLES)
def test_the_mended_example_runs(title: str, tmp_path: Path) -> None:
    run(EXAMPLES[title].mended, tmp_path)


def test_every_heading_is_an_example() -> None:
    assert re.findall(r"^### (.*)$", TEXT, re.MULTILINE) == list(EXAMPLES)


def test_every_class_has_an_example() -> None:
    known, stack = set[str](), [ek.EinkornError]
    while stack:
        kind = stack.pop()
        known.add(kind.__name__)
        stack += [x for x in kind.__subclasses__() if x.__module__.startswith("einkorn")]
    assert known == {title.partition(":")[0] for title in EXAMPLES}
    for name in known:
        assert re.search(rf"`(ek\.)?{name}`", TEXT), name
