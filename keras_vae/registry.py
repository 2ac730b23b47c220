"""From the table of an axis to choices, options, names and help. Standard library only.

A member of an axis is one class and one row in the table of its module. Its options are the arguments of its
constructor, their types and choices the annotations, and their help what the docstring says of them. Where the module
is not imported, as in `keras-vae train --help`, all of that is read from its source: importing it takes seconds.
"""

import ast
import functools
import inspect
import re
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

AXES = {
    "network": ("networks", "NETWORKS"),
    "likelihood": ("likelihoods", "LIKELIHOODS"),
    "posterior": ("posteriors", "POSTERIORS"),
    "prior": ("priors", "PRIORS"),
    "objective": ("objectives", "OBJECTIVES"),
    "condition": ("conditions", "CONDITIONS"),
    "corruption": ("layers", "CORRUPTIONS"),
}

# Options that are spelled in another way where all axes share one name space: on the command line, in `Config.replace`.
SPELLINGS = {
    ("prior", "num_components"): "prior_components",
    ("objective", "k"): "importance_samples",
    ("objective", "m"): "importance_groups",
    ("condition", "size"): "condition_size",
    ("corruption", "rate"): "corruption_rate",
}
ELSEWHERE = ("self", "kwargs", "seed")  # arguments that are no options: a model gives all of its parts one seed


@dataclass(frozen=True)
class Option:
    """An argument of the class of a member: its name, annotation, default and help."""

    name: str
    annotation: Any
    default: Any
    help: str

    @property
    def choices(self) -> tuple | None:
        """The values of a `Literal`, or None."""
        return typing.get_args(self.annotation) if typing.get_origin(self.annotation) is typing.Literal else None

    @property
    def kind(self) -> type:
        """int, float, bool, str, or tuple for several ints."""
        if self.choices:
            return str
        return typing.get_origin(self.annotation) or self.annotation


@dataclass(frozen=True)
class Member:
    """A row of the table of an axis."""

    name: str
    summary: str
    options: dict[str, Option]


def members(axis: str) -> dict[str, Member]:
    """The rows of the table of an axis: name -> `Member`.

    Example:

    >>> from keras_vae import registry
    >>> registry.members("objective")["iwae"].options["k"].default
    50
    """
    module, table = AXES[axis]
    imported = sys.modules.get(f"keras_vae.{module}")
    if hasattr(imported, table):
        return {name: _of_class(name, cls) for name, cls in getattr(imported, table).items()}
    return _of_source(Path(__file__).parent / f"{module}.py", table)


def name_of(thing: Any) -> str:
    """The name under which the class of an object stands in a table; else the name of the class."""
    for module, table in AXES.values():
        rows = getattr(sys.modules.get(f"keras_vae.{module}"), table, {})
        for name, cls in rows.items():
            if cls is type(thing):
                return name
    return type(thing).__name__


def options_of(thing: Any) -> dict[str, Any]:
    """The values of the options of a member, by name: arguments of its class, found as its attributes."""
    return {name: getattr(thing, name) for name in _of_class("", type(thing)).options if hasattr(thing, name)}


def flags(axis: str) -> dict[str, str]:
    """The options of all members of an axis: name on the command line -> name of the argument."""
    names = {option: None for member in members(axis).values() for option in member.options}
    return {SPELLINGS.get((axis, option), option): option for option in names}


def help_of(axis: str, option: str) -> str:
    """Help text of an option that several members may have: "mlp, gated: Units ... conv: Channels ..."."""
    texts: dict[str, list[str]] = {}
    for member in members(axis).values():
        if option in member.options:
            texts.setdefault(member.options[option].help, []).append(member.name)
    return " ".join(f"{', '.join(names)}: {text}" for text, names in texts.items())


def _of_class(name: str, cls: type | None) -> Member:
    if cls is None:
        return Member(name, "", {})
    doc = {}
    for base in reversed(cls.__mro__):
        doc.update(_arguments(base.__dict__.get("__doc__") or ""))
    summary = (cls.__doc__ or "").strip().split("\n")[0]
    return Member(name, summary, _options(cls.__init__, doc))  # type: ignore[misc]  # nobody makes one here


@functools.cache
def _of_source(path: Path, table: str) -> dict[str, Member]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    names = {name: getattr(typing, name) for name in ("Any", "Literal")}
    rows: dict[str, str | None] = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        target = getattr(targets[0], "id", None)
        if target == table and isinstance(node, ast.Assign | ast.AnnAssign):
            for key, value in zip(node.value.keys, node.value.values, strict=True):  # type: ignore[union-attr]
                rows[key.value] = getattr(value, "id", None)
        elif target and isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("Literal["):
            names[target] = eval(ast.unparse(node.value), {"Literal": typing.Literal})  # noqa: S307  our own source
    return {name: _of_node(name, cls, classes, names) for name, cls in rows.items()}


def _of_node(name, cls, classes, names):
    if cls is None:
        return Member(name, "", {})
    doc, init, line = {}, None, [classes[cls]]
    while line[-1].bases and getattr(line[-1].bases[0], "id", None) in classes:
        line.append(classes[line[-1].bases[0].id])
    for node in reversed(line):
        doc.update(_arguments(ast.get_docstring(node) or ""))
        init = next((part for part in node.body if getattr(part, "name", "") == "__init__"), init)
    if init is None:
        return Member(name, (ast.get_docstring(line[0]) or "").split("\n")[0], {})
    stub = ast.FunctionDef("__init__", init.args, [ast.Pass()], [], None, lineno=1, col_offset=0, type_params=[])
    namespace = dict(names)
    module = ast.fix_missing_locations(ast.Module([stub], []))
    exec(compile(module, "<signature>", "exec"), namespace)  # noqa: S102  a function without a body
    return Member(name, (ast.get_docstring(line[0]) or "").split("\n")[0], _options(namespace["__init__"], doc))


def _options(init: Callable, doc: dict[str, str]) -> dict[str, Option]:
    """The options of a constructor; only annotated arguments with a default can be given by name and value."""
    found = {}
    for name, parameter in inspect.signature(init).parameters.items():
        annotated = parameter.annotation is not parameter.empty and parameter.default is not parameter.empty
        if annotated and name not in ELSEWHERE:
            found[name] = Option(name, parameter.annotation, parameter.default, doc.get(name, ""))
    return found


def _arguments(docstring: str) -> dict[str, str]:
    """What the section `Args` of a docstring says: name -> text, without the type at its beginning."""
    section = re.search(r"^( *)Args:\n((?:\1 +.*\n?|\n)*)", inspect.cleandoc(docstring), flags=re.MULTILINE)
    if section is None:
        return {}
    found = {}
    for part in re.split(r"\n {4}(?=\w+: )", "\n" + section.group(2)):
        name, _, text = part.partition(": ")
        text = " ".join(text.split())
        text = re.sub(r"^(Floats?|Ints?|Bool)(, at least 0|, K|, d| above 0| in \[0, 1\])*[,.:] ", "", text)
        found[name.strip()] = text[:1].upper() + text[1:]
    return found
