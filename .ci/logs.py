"""src/logs.rs lists every event that the library logs, with its level, target and message."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CALL = re.compile(r"tracing::(error|warn|info|debug|trace)!\(")
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.S)


def arguments(text, start):
    """What stands between the parenthesis before `start` and its partner."""
    depth, at = 1, start
    while depth:
        if text[at] == '"':
            at = STRING.match(text, at).end()
            continue
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    return text[start : at - 1]


def logged():
    """Level and message of each call, with where it stands."""
    for path in sorted([*ROOT.glob("src/**/*.rs"), *ROOT.glob("fallback/*.rs")]):
        if "bin" in path.relative_to(ROOT).parts:
            continue
        text = path.read_text()
        for call in CALL.finditer(text):
            strings = STRING.findall(arguments(text, call.end()))
            message = re.sub(r"\\\n\s*", "", strings[-1]) if strings else ""
            yield (call[1], message), path.relative_to(ROOT)


def main():
    page = (ROOT / "src/logs.rs").read_text()
    lines = [line for line in page.splitlines() if line.startswith("//! | ")]
    rows = [line.split(" | ") for line in lines[1:]]
    told = {(row[1], row[3]) for row in rows}
    calls = dict(logged())
    wrong = [f"{path}: {level} {message!r} is not in src/logs.rs"
             for (level, message), path in calls.items() if (level, message) not in told]
    wrong += [f"src/logs.rs: nothing logs {level} {message!r}"
              for level, message in sorted(told - calls.keys())]
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    return bool(wrong)


sys.exit(main())
