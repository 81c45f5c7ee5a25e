"""Hooks of MkDocs: pages of the site that are files elsewhere in the repository.

Links in the pages are those of the repository, where every page is read too. A link to a file that
is no page of the site leads to the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/README.md": "examples.md",
    "helper/README.md": "helper.md",
    **{
        f"plugins/{path.parent.name}/README.md": f"plugins/{path.parent.name}.md"
        for path in sorted(ROOT.glob("plugins/*/README.md"))
    },
}
"""The page of the site for each file of the repository outside `docs`."""

_LINK = re.compile(r"\]\((?![a-z]+:|#|/)([^)#\s]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"(^ *```.*?^ *```$)", re.DOTALL | re.MULTILINE)


def on_config(config: MkDocsConfig) -> None:
    """Add the providers to the navigation."""
    config.nav = [*(config.nav or ()), {"Providers": [*filter(_of_plugin, PAGES.values())]}]


def _of_plugin(uri: str) -> bool:
    return uri.startswith("plugins/")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside `docs`."""
    for source, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / source).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make the repository's links those of the site."""
    uri = page.file.src_uri
    source = next((source for source, at in PAGES.items() if at == uri), f"docs/{uri}")

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        anchor = match[2] or ""
        if not (ROOT / target).exists():
            raise PluginError(f"{source} links to {match[1]}, which does not exist")
        to = PAGES.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
        file = None if to is None else files.get_file_from_path(to)
        if to is None or file is None or file.inclusion.value < 0:
            return f"]({config.repo_url}/blob/main/{target}{anchor})"
        return f"]({posixpath.relpath(to, posixpath.dirname(uri) or '.')}{anchor})"

    parts = _CODE.split(markdown)
    return "".join(
        part if part.lstrip().startswith("```") else _LINK.sub(link, part) for part in parts
    )
