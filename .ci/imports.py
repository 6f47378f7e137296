"""Which modules import which, and what stands in a circle; part of .ci/check-tree.

A module is a file or a folder of one level: the top-level modules of the crate, then the modules
within each folder. What a folder's mod.rs names of its own modules counts as the folder's face, not
as a module of its own, and tests are left out.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def sources(folder):
    """The Rust files of a folder that are no tests, each with its path as a module."""
    for file in sorted(folder.rglob("*.rs")):
        parts = list(file.relative_to(folder).with_suffix("").parts)
        if "tests" in parts or parts[-1].endswith("_tests"):
            continue
        if parts[-1] == "mod":
            parts.pop()
        yield file, parts


def code(file):
    """Without comments, literals that look like paths, and the tests at the end."""
    text = file.read_text()
    text = re.split(r"^#\[cfg\(test\)\]\n(?:pub\([a-z]+\) )?mod \w+ \{", text, flags=re.M)[0]
    text = re.sub(r"^\s*//.*$", "", text, flags=re.M)
    return re.sub(r"#\[cfg\((?:all\()?test[^\n]*\]\s*(?:use|mod) [^;]*;", "", text)


def flatten(prefix, tree):
    """The paths of a `use` tree."""
    tree = tree.strip()
    if "{" not in tree:
        yield prefix + tree.split(" as ")[0].strip()
        return
    head, rest = tree.split("{", 1)
    depth, item = 0, ""
    for char in rest:
        depth += (char == "{") - (char == "}")
        if depth < 0 or (char == "," and depth == 0):
            if item.strip():
                yield from flatten(prefix + head, item)
            item = ""
            if depth < 0:
                return
        else:
            item += char


def paths(text):
    """Every path that begins with `crate` or `super`, in imports and in code."""
    imports = re.findall(r"\buse\s+((?:crate|super|self)\b[^;]*);", text)
    for tree in imports:
        yield from (path.split("::") for path in flatten("", tree))
    rest = re.sub(r"\buse\s+[^;]*;", "", text)
    for path in re.findall(r"\b((?:crate|super)(?:::\w+)+)", rest):
        yield path.split("::")


def crate_graph(src, extra):
    """Imports between top-level modules. `extra`: folders that are modules of the crate."""
    modules = {}
    for file, parts in sources(src):
        if parts[:1] not in ([], ["lib"], ["bin"]):
            modules.setdefault(parts[0].removesuffix("_absent"), []).append((file, parts))
    for folder in extra:
        for file, parts in sources(folder):
            modules.setdefault(folder.name, []).append((file, [folder.name, *parts]))
    exported = {}
    for tree in re.findall(r"^pub use ([^;]*);", code(src / "lib.rs"), flags=re.M):
        for path in flatten("", tree):
            head, *_, name = path.split("::")
            exported[name] = head
    graph = {}
    for module, files in modules.items():
        targets = set()
        for file, parts in files:
            for path in paths(code(file)):
                base, rest = resolve(path, parts)
                name = rest[0] if base == [] and rest else base[0] if base else None
                name = exported.get(name, name)
                if name in modules and name != module:
                    targets.add(name)
        graph[module] = targets
    return graph


def resolve(path, parts):
    """The absolute module path that a path begins with, and what follows."""
    at = list(parts)
    rest = list(path)
    if rest[0] == "crate":
        return [], rest[1:]
    while rest and rest[0] in ("super", "self"):
        if rest[0] == "super" and at:
            at.pop()
        rest = rest[1:]
    return at, rest


def folder_graph(folder, crate_path):
    """Imports between the modules within one folder; what its mod.rs re-exports is followed."""
    modules = {}
    for file, parts in sources(folder):
        if parts and parts[0] not in ("main", "lib", "bin"):
            modules.setdefault(parts[0].removesuffix("_absent"), []).append((file, parts))
    exported = {}
    face = folder / "mod.rs"
    if face.exists():
        for tree in re.findall(r"^pub(?:\([a-z]+\))? use ([^;]*);", code(face), flags=re.M):
            for path in flatten("", tree):
                names = [part for part in path.split("::") if part not in ("self", "crate")]
                exported[names[-1]] = names[0]
    graph = {}
    for module, files in modules.items():
        targets = set()
        for file, parts in files:
            for path in paths(code(file)):
                base, rest = resolve(path, crate_path + parts)
                whole = base + rest
                if whole[: len(crate_path)] != crate_path or len(whole) <= len(crate_path):
                    continue
                name = whole[len(crate_path)]
                name = exported.get(name, name)
                if name in modules and name != module:
                    targets.add(name)
        graph[module] = targets
    return graph


def circles(graph):
    """The sets of modules that reach each other, by plain reachability: graphs are small."""

    def reach(start):
        seen, todo = set(), [start]
        while todo:
            for target in graph[todo.pop()]:
                if target not in seen:
                    seen.add(target)
                    todo.append(target)
        return seen

    reached = {module: reach(module) for module in graph}
    found = {
        frozenset([module, *(other for other in reached[module] if module in reached[other])])
        for module in graph
        if module in reached[module]
    }
    return sorted(sorted(circle) for circle in found)


def main():
    src = ROOT / "src"
    top = crate_graph(src, [ROOT / "fallback"])
    if "--list" in sys.argv:
        for module, targets in sorted(top.items()):
            print(f"{module}: {' '.join(sorted(targets))}")
    failed = [f"between top-level modules: {' <-> '.join(circle)}" for circle in circles(top)]
    folders = [(src / name, [name]) for name in ("datagram", "path", "engine", "sys", "uring")]
    folders += [(src / "path/sockets", ["path", "sockets"]), (src / "search", ["search"])]
    folders += [(src / "udp_v4", ["udp_v4"]), (src / "bin/nicring", [])]
    folders += [(ROOT / "benches/src", []), (ROOT / "benches/src/contestant", ["contestant"])]
    folders += [(ROOT / "benches/src/bin/compare/linux", ["linux"])]
    for folder, crate_path in folders:
        graph = folder_graph(folder, crate_path)
        if "--list" in sys.argv:
            for module, targets in sorted(graph.items()):
                print(f"{folder.relative_to(ROOT)}/{module}: {' '.join(sorted(targets))}")
        for circle in circles(graph):
            failed.append(f"in {folder.relative_to(ROOT)}: {' <-> '.join(circle)}")
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
