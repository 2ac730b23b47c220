"""Sphinx: `python -m sphinx -W docs build/docs` writes the site. Needs the extra `docs`."""

import inspect
import os
import pathlib
import re

from docutils import nodes
from latex2mathml.converter import convert

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras_vae

project = "keras_vae"
version = release = keras_vae.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "myst_nb"]

html_theme = "furo"
html_title = "keras_vae"
html_math_renderer = "mathml"
html_copy_source = False

default_role = "code"
nitpicky = True  # a link to a name that is gone is a warning, and -W makes it an error
nitpick_ignore_regex = [
    ("py:.*", "(keras|numpy|tensorflow|collections|typing|pathlib)[.].*"),
    ("py:class", r"Range|[\d.]+"),  # in the annotation of a field
]

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
napoleon_use_rtype = False
napoleon_custom_sections = ["Call arguments"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True


def add_every_table(app, docname, content):
    if docname == "measurements":
        for table in sorted(pathlib.Path(app.srcdir, "..", "benchmarks").glob("*.md")):
            include = f"```{{include}} ../benchmarks/{table.name}\n:heading-offset: 1\n```"
            content[0] += f"\n(benchmarks-{table.stem})=\n{include}\n"


def link_within_the_site(app, *names_and_content):
    """Files of other folders are linked from the pages where they stand, as on the disk; here they have pages too."""
    content = names_and_content[-1]
    text = re.sub(r"\]\(\.\./benchmarks/(\w+)\.md\)", r"](#benchmarks-\1)", content[0])
    content[0] = text.replace("](../export/README.md)", "](running-an-export.md)").replace("](../docs/", "](")


def as_plain_text(app, what, name, obj, options, lines):
    """Docstrings write p(x|z), val_ and [b, *shape], which are markup in reStructuredText."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[number] = re.sub(r"\||(?<=\w)_(?!\w)|(?<=[\[, ])\*(?=\w+[\],])", r"\\\g<0>", line)


def signature_of_init(app, what, name, obj, options, signature, return_annotation):
    """Keras gives every layer and model a __new__ that takes anything. Ranges of numbers are left to the docstring."""
    if what == "class" and signature == "(*args, **kwargs)":
        parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
        signature = str(inspect.Signature(parameters))
    if signature is None:
        return None
    return re.sub(r"(?:[\w.]*)Annotated\[(\w+), [\w.]*Range\([^)]*\)\]", r"\1", signature), return_annotation


def setup(app):
    app.connect("autodoc-process-signature", signature_of_init)
    app.connect("autodoc-process-docstring", as_plain_text)
    app.connect("source-read", add_every_table)
    app.connect("source-read", link_within_the_site)
    app.connect("include-read", link_within_the_site)

    # formulas as MathML, which browsers show by themselves: the site needs no network
    def as_inline(self, node):
        self.body.append(convert(node.astext()))
        raise nodes.SkipNode

    def as_block(self, node):
        self.body.append(f"<p>{convert(node.astext(), display='block')}</p>")
        raise nodes.SkipNode

    app.add_html_math_renderer("mathml", (as_inline, None), (as_block, None))
