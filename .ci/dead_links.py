"""Links and pictures in the built documentation that lead nowhere: part of the gate's step docs."""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "target/doc"


def main():
    dead = set()
    for page in sorted((DOCS / "nicring").rglob("*.html")):
        text = page.read_text()
        for link in re.findall(r"(?:href|src)=\"([^\"]*)\"", text):
            target, _, anchor = link.partition("#")
            # Other sites, templates of rustdoc's own script, and words of other crates' traits.
            if re.match(r"[a-z]+:", target) or "$" in link or re.match(r"dispatcher#|.*::", link):
                continue
            file = page if not target else (page.parent / target).resolve()
            if file.is_dir():
                file /= "index.html"
            if not file.is_file():
                dead.add(f"{page.relative_to(DOCS)}: {link}")
            elif anchor and file.suffix == ".html" and "/src/" not in str(file):
                if f'id="{anchor}"' not in file.read_text():
                    dead.add(f"{page.relative_to(DOCS)}: {link}")
    print("\n".join(sorted(dead)), end="\n" if dead else "", file=sys.stderr)
    return bool(dead)


if __name__ == "__main__":
    sys.exit(main())
