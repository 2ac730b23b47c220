"""Makes the readme for a package index: there, its links and images lead nowhere unless they are absolute."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface


class AbsoluteLinks(MetadataHookInterface):
    """Called by hatchling when the package is built."""

    def update(self, metadata):
        repository = metadata["urls"]["Repository"]
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        text = re.sub(r"\]\((?!https?:|#)", f"]({repository}/blob/main/", text)
        text = re.sub(r'src="(?!https?:)', f'src="{repository}/raw/main/', text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
