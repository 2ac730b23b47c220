"""Makes the readme for a package index, where links and images that are relative to a checkout lead nowhere."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"\[([^\]]*)\]\(([\w/-]+\.\w+)\)")
IMAGE = re.compile(r'<img src="([\w/-]+\.\w+)"[^>]*>\n?')


class Readme(MetadataHookInterface):
    """Called by hatchling when the package is built."""

    def update(self, metadata):
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        repository = metadata.get("urls", {}).get("Repository")
        metadata["readme"] = {"content-type": "text/markdown", "text": for_index(text, repository)}


def for_index(text, repository=None):
    """The readme with links into the repository, or where its address is not known, without links and images."""
    if repository is None:
        return LINK.sub(r"\1", IMAGE.sub("", text))
    text = LINK.sub(rf"[\1]({repository}/blob/main/\2)", text)
    return IMAGE.sub(lambda image: image[0].replace(image[1], f"{repository}/raw/main/{image[1]}"), text)
