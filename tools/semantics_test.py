#!/usr/bin/python3
"""Checks that SEMANTICS.md names for each promise tests, and only such as exist."""

import pathlib
import re
import sys

PROJECT = pathlib.Path(__file__).resolve().parent.parent
TEST = re.compile(r"^(?:TEST|TEST_F|TEST_P|RC_GTEST_PROP)\(\s*(\w+),\s*(\w+)", re.MULTILINE)
NAME = re.compile(r"`(\w+\.\w+)`")


def main():
    known = {".".join(match)
             for folder in ("engine", "fuse_adapter", "io", "proptests", "sim", "tools")
             for source in (PROJECT / folder).glob("*_test.cc")
             for match in TEST.findall(source.read_text())}
    wrong = []
    promises = 0
    for number, line in enumerate((PROJECT / "SEMANTICS.md").read_text().splitlines(), 1):
        if not line.startswith("| ") or line.startswith("| promise |"):
            continue
        promises += 1
        names = NAME.findall(line.rsplit("|", 2)[1])
        if not names:
            wrong.append(f"SEMANTICS.md:{number}: nothing pins this promise")
        wrong += [f"SEMANTICS.md:{number}: there is no test {name}"
                  for name in names if name not in known]
    print("\n".join(wrong) or f"{promises} promises, each pinned by tests that exist")
    sys.exit(1 if wrong or promises == 0 else 0)


if __name__ == "__main__":
    main()
