"""Writes the API reference, docs/api/, from the docstrings: one page per room.

It reads the source by `ast` and imports nothing, so it needs neither Ray nor torch and takes about a second.
Sphinx's autodoc was tried: it imports every module, took 43 s of CPU, and does not show the descriptions of
pydantic fields. `docs/conf.py` calls `write`.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Function = (ast.FunctionDef, ast.AsyncFunctionDef)


def write(folder: Path) -> None:
    """One Markdown page per folder of Python files into `folder`, and an index page per package."""
    folder.mkdir(exist_ok=True)
    wanted: dict[Path, str] = {}
    for package in ("raykd", "trainables"):
        rooms = sorted({path.parent for path in (ROOT / package).rglob("*.py")})
        for room in rooms:
            name = ".".join(room.relative_to(ROOT).parts)
            inner = [other for other in rooms if other.parent == room]
            wanted[folder / f"{name}.md"] = "\n".join(_page(name, room, inner)) + "\n"
    for old in set(folder.glob("*.md")) - set(wanted):
        old.unlink()
    for path, text in wanted.items():
        if not path.exists() or path.read_text() != text:  # Sphinx reads a page again when its date changes
            path.write_text(text)


def _page(name: str, room: Path, inner: list[Path]) -> Iterator[str]:
    yield f"# {name}\n"
    if inner:
        yield "```{toctree}\n:maxdepth: 1"
        yield from (".".join(other.relative_to(ROOT).parts) for other in inner)
        yield "```\n"
    for path in sorted(room.glob("*.py")):
        tree = ast.parse(path.read_text())
        module = name if path.stem == "__init__" else f"{name}.{path.stem}"
        if path.stem != "__init__":
            yield f"## {path.stem}\n"
        yield f"```{{py:module}} {module}\n```\n"
        yield from _prose(ast.get_docstring(tree))
        for node in tree.body:
            yield from _definition(node, 8)


def _definition(node: ast.stmt, colons: int) -> Iterator[str]:
    """A public class or function as a directive; a class holds its fields, methods and nested classes."""
    if isinstance(node, Function) and _is_public(node.name):
        if "overload" in {ast.unparse(decorator) for decorator in node.decorator_list}:
            return
        kind = "function" if colons == 8 else "method"
        yield f"{':' * colons}{{py:{kind}}} {_signature(node)}\n"
        yield from _prose(ast.get_docstring(node))
        yield f"{':' * colons}\n"
    elif isinstance(node, ast.ClassDef) and _is_public(node.name):
        bases = ", ".join(map(ast.unparse, node.bases))
        yield f"{':' * colons}{{py:class}} {node.name}" + (f"({bases})" if bases else "") + "\n"
        yield from _prose(ast.get_docstring(node))
        fields = [row for child in node.body if (row := _field(child))]
        yield from [*fields, ""] if fields else ()
        for child in node.body:
            yield from _definition(child, colons - 1)
        yield f"{':' * colons}\n"


def _field(node: ast.stmt) -> str:
    """`name`: its description, of a pydantic field; "" for any other statement."""
    if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name) or not node.value:
        return ""
    call = node.value
    described = {word.arg: word.value for word in call.keywords} if isinstance(call, ast.Call) else {}
    if "description" not in described or not isinstance(call, ast.Call):
        return ""
    default = f" = {ast.unparse(call.args[0])}" if call.args else ""
    text = described["description"]
    shown = ast.literal_eval(text) if isinstance(text, ast.Constant) else ast.unparse(text)
    return f"- `{node.target.id}{default}`: {_escaped(shown)}"


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({ast.unparse(node.args)}){result}"


def _is_public(name: str) -> bool:
    return not name.startswith("_")


def _prose(docstring: str | None) -> Iterator[str]:
    """Paragraphs of a docstring as Markdown; those that are indented or in columns stay as they are typed."""
    for block in re.split(r"\n\s*\n", docstring or ""):
        rows = block.split("\n")
        if any(row.startswith((" ", "|")) or re.search(r"\S {2,}\S", row) for row in rows):
            yield "\n".join(["~~~~text", textwrap.dedent(block), "~~~~", ""])
        elif block.strip():
            yield "\n".join([*map(_escaped, rows), ""])


def _escaped(row: str) -> str:
    """Text outside of `code` without any meaning in Markdown, except a dash that begins an item."""
    parts = re.split(r"(`[^`]*`)", row)
    plain = [re.sub(r"([\\*_<>\[\]{}$|#~`])", r"\\\1", part) for part in parts[::2]]
    parts[::2] = [re.sub(r"^([+=]|-(?! )|\d+(?=[.)]))", r"\\\1", part) for part in plain[:1]] + plain[1:]
    return "".join(parts)
