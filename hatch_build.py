"""Makes the readme for a package index: there, its links and images lead nowhere unless they are absolute."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface


class AbsoluteLinks(MetadataHookInterface):
    """Called by hatchling when the package is built."""

    def update(self, metadata):
        repository = metadata["urls"]["Repository"]
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        text = re.sub(r"\]\(([\w/-]+\.\w+)\)", rf"]({repository}/blob/main/\1)", text)
        text = re.sub(r'src="([\w/-]+\.\w+)"', rf'src="{repository}/raw/main/\1"', text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
