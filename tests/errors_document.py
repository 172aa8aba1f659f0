"""The examples of docs/errors.md: each fails as shown, and its mended form runs.

`python tests/errors_document.py` writes into the document what the failing examples say now.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).parents[1] / "docs" / "errors.md"
START = "import numpy as np\n\nimport einkorn as ek\n\n"
_EXAMPLE = re.compile(
    r"^### (?P<title>[^\n]+)\n\n```python\n(?P<failing>.*?)^```\n\n```text\n(?P<text>.*?)^```\n\n"
    r"```python\n(?P<mended>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Example:
    """One message: the code that leads to it, what it says, and the code that does not."""

    title: str
    failing: str
    text: str
    mended: str


def examples(document: str) -> Iterator[Example]:
    """Every example of the document."""
    for found in _EXAMPLE.finditer(document):
        yield Example(**found.groupdict())


def run(code: str, folder: Path) -> dict[str, Any]:
    """Run an example as a file of its own; its names."""
    path = folder / "example.py"
    path.write_text(START + code, encoding="utf-8")
    names: dict[str, Any] = {"__name__": "example", "folder": folder}
    exec(compile(START + code, str(path), "exec"), names)
    return names


def said(code: str, folder: Path) -> str:
    """The class and message of what an example raises."""
    try:
        run(code, folder)
    except Exception as error:
        message = error.args[0] if error.args else ""
        return f"{type(error).__name__}: {message}\n".replace(str(folder), "folder")
    return "nothing is raised\n"


def rewritten(document: str) -> str:
    """The document with what its examples say now."""

    def new(found: re.Match[str]) -> str:
        with tempfile.TemporaryDirectory() as folder:
            text = said(found["failing"], Path(folder))
        head, tail = (place - found.start() for place in found.span("text"))
        return found[0][:head] + text + found[0][tail:]

    return _EXAMPLE.sub(new, document)


if __name__ == "__main__":
    DOCUMENT.write_text(rewritten(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
