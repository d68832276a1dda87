"""Print the table of hostile inputs and the message that each gets: `python tests/benchmarks/hostile_inputs.py`."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import hostile

WIDTH = 400


def main() -> None:
    """Try every input in a folder of its own; end with 1 if one gets another message than its test wants."""
    wrong = 0
    print("| surface | given | message |\n| --- | --- | --- |")
    for one in hostile.CASES:
        with tempfile.TemporaryDirectory() as folder:
            said = one.message(Path(folder))
            wrong += (Path(folder) / hostile.MARKER).exists() or not re.search(one.said, said, re.DOTALL)
        print(f"| {one.surface} | {cell(one.given)} | {cell(said.replace(folder, '…'))[:WIDTH]} |", flush=True)
    print(f"\n{len(hostile.CASES)} inputs, {wrong} with another message than expected.")
    sys.exit(bool(wrong))


def cell(text: str) -> str:
    """Return text as a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ⏎ ").replace("<", "&lt;")


if __name__ == "__main__":
    main()
