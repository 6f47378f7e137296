"""Files and tests that pages name must exist: tests/README.md, src/platforms.rs, .ci/mutants.md."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def tracked():
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in names.splitlines() if (ROOT / name).is_file()]


def is_file(token, files):
    """A path from the root, from tests/, or the name of a suite's folder."""
    token = token.rstrip("/")
    places = [token, f"tests/{token}", f"tests/{token.removesuffix('.rs')}/main.rs"]
    return any(file == place or file.startswith(place + "/") for file in files for place in places)


def is_test(token, functions, modules):
    """A test's name, perhaps behind modules; `..` and `*` stand for any beginning and end."""
    *path, name = token.split("::")
    names = [name]
    if choice := re.fullmatch(r"(.*)\{(.*)\}(.*)", name):
        names = [choice[1] + middle + choice[3] for middle in choice[2].split(",")]
    for name in names:
        pattern = re.escape(name).replace(r"\*", ".*")
        if name.startswith(".."):
            pattern = ".*" + re.escape(name[2:]).replace(r"\*", ".*")
        known = functions | modules if path else functions
        if name != "*" and not any(re.fullmatch(pattern, one) for one in known):
            return False
    return all(module in modules for module in path)


def main():
    files = tracked()
    rust = [file for file in files if file.endswith(".rs")]
    text = "\n".join((ROOT / file).read_text() for file in rust)
    functions = set(re.findall(r"\bfn (\w+)", text))
    functions |= set(re.findall(r"^\s+(\w{12,}),$", text, re.M))
    modules = {part.removesuffix(".rs") for file in rust for part in file.split("/")}
    modules |= set(re.findall(r"\bmod (\w+)", text))
    failed = False
    for page in ("tests/README.md", "src/platforms.rs", ".ci/mutants.md"):
        for number, line in enumerate((ROOT / page).read_text().splitlines(), 1):
            for token in re.findall(r"`([^`\s]+)`", line):
                if re.fullmatch(r"[\w./-]+\.(rs|py|md|toml|yml)|[a-z_]+/[\w./-]*", token):
                    exists = is_file(token, files)
                elif re.fullmatch(r"(\.\.)?[a-z][a-z0-9_*{},]*(::[a-z0-9_*{},]+)*", token) and (
                    "::" in token or token.count("_") > 3 or token.startswith("..")
                ):
                    exists = is_test(token, functions, modules)
                else:
                    continue
                if not exists:
                    print(f"{page}:{number}: no such file or test: {token}", file=sys.stderr)
                    failed = True
    return failed


if __name__ == "__main__":
    sys.exit(main())
