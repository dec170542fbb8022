"""What the site has beyond the pages of docs/: README.md as its first page, and every command with its options."""

import re
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from vocabtransfer_cli.main import app

# Pages link to files of the repository that are not part of the site: there only their names are left.
OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+((?:benchmarks|notebooks|data|tests|LICENSE|CONTRIBUTING)[^)]*)\)")

# A browser may break a line after any hyphen: "-" / "-method".
INLINE_CODE = re.compile(r"<code>([^<]*-[^<]*)</code>")
HYPHENED = re.compile(r"(?<![\w/.])-{0,2}\w+(?:-\w+)*-\w+|(?<![\w/.])--?\w+")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    front = Path("README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    for folder in ("notebooks", "benchmarks"):
        front = front.replace(f"]({folder}/", f"](../{folder}/")
    files.append(File.generated(config, "index.md", content=front))
    files.append(File.generated(config, "command-line.md", content=command_line()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Name files outside docs/ instead of linking to them."""
    return OUTSIDE.sub(r"\1 (`\2` in the repository)", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Keep the names of options in one piece where they stand in a line of text."""
    whole = r'<span class="whole">\g<0></span>'
    return INLINE_CODE.sub(lambda found: f"<code>{HYPHENED.sub(whole, found[1])}</code>", html)


def command_line() -> str:
    """Return a page with every command, what it is for, and its options."""
    top = typer.main.get_command(app)
    parts = ["# Command line\n", "Every command has `--help` and, where it gives figures, `--json`.\n"]
    _describe(top, "vocabtransfer", parts)
    return "\n".join(parts)


def _describe(command: Any, name: str, parts: list[str]) -> None:
    children = getattr(command, "commands", None)
    if children is None:
        parts.append(f"## {name}\n\n{(command.help or '').strip()}\n")
        rows = [_row(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)]
        parts.append("| | | default |\n|---|---|---|\n" + "\n".join(rows) + "\n")
        return
    for child in sorted(children):
        _describe(children[child], f"{name} {child}", parts)


def _row(parameter: Any) -> str:
    names = (
        (parameter.metavar or parameter.name.upper())
        if parameter.param_type_name == "argument"
        else ", ".join(parameter.opts)
    )
    default = parameter.default
    unsaid = default is None or default is False or default in ((), []) or callable(default)
    shown = "required" if parameter.required else "" if unsaid else default
    text = (getattr(parameter, "help", "") or "").replace("|", "\\|").replace("\n", " ")
    return f"| `{names}` | {text} | {shown} |"
