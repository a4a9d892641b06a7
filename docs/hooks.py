"""Makes the site (mkdocs.yml) of the same files that people read in the repository:
README and its like become pages, and links that leave docs/ lead to them.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

# Files of the repository that are pages of the site
RESULTS = sorted(Path(__file__).parent.parent.glob("results/*.md"))
PAGES = {
    "README.md": "index.md",
    **{f"results/{page.name}": f"results/{page.name}" for page in RESULTS},
    "results/README.md": "results/index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that lie outside docs/."""
    root = posixpath.dirname(config.config_file_path)
    for source, page in PAGES.items():
        with open(posixpath.join(root, source), encoding="utf-8") as file:
            files.append(File.generated(config, page, content=file.read()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as the site has them."""
    place = {built: source for source, built in PAGES.items()}.get(
        page.file.src_uri, f"docs/{page.file.src_uri}"
    )
    return LINK.sub(lambda link: _link(link, place, page.file.src_uri), markdown)


def _link(link: re.Match[str], place: str, page: str) -> str:
    image, words, target, anchor = link.groups()
    if ":" in target:
        return link[0]
    found = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
    file = found.startswith("docs/") and "." in posixpath.basename(found)
    inside = PAGES.get(found, found.removeprefix("docs/") if file else "")
    if not inside:  # code, or a file that is no page
        return words if words.startswith("`") else f"`{found}`" if image else f"{words} (`{found}`)"
    way = posixpath.relpath(inside, posixpath.dirname(page) or ".")
    return f"{image}[{words}]({way}{anchor or ''})"
