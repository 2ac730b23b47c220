"""The import arrows of the design, held by reading the source."""

import ast
import pathlib
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "keras_vae"
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path):
    """keras_vae/models/vae.py -> models: a package counts as one module."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Dotted names of everything that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"{path}: relative import; write it from keras_vae")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


MODULES = sorted({module_of(path) for path in FILES} - {"__init__"})
ARROWS = {name: set() for name in MODULES}  # module -> modules of the package that it imports itself
OUTSIDE = {name: set() for name in MODULES}  # module -> top-level packages from elsewhere
for file in FILES:
    if file != PACKAGE / "__init__.py":
        for dotted in imports(file):
            top, _, rest = dotted.partition(".")
            target = rest.partition(".")[0]
            if top != "keras_vae":
                OUTSIDE[module_of(file)].add(top)
            elif target in MODULES and target != module_of(file):
                ARROWS[module_of(file)].add(target)


def reachable(module):
    """Every module that `module` imports, directly or through others."""
    seen, front = set(), {module}
    while front:
        front = set().union(*(ARROWS[name] for name in front)) - seen
        seen |= front
    return seen


# Lowest first; an arrow may only point to a module of a lower layer, or within the same layer without a circle.
LAYERS = (
    {"options", "registry", "config", "gaussian", "noise"},
    {"keras_private", "presets", "likelihoods", "priors", "objectives", "layers", "networks"},
    {"train"},
    {"models"},
    {"training", "serving"},
    {"cli"},
)
HEIGHT = {module: height for height, layer in enumerate(LAYERS) for module in layer}


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_down(module):
    upwards = {other for other in reachable(module) if HEIGHT.get(other, -1) > HEIGHT.get(module, len(LAYERS))}
    assert not upwards
    assert module not in reachable(module), "circular import"


@pytest.mark.parametrize("module", [name for name in ("data", "plotting", "evaluation") if name in MODULES])
def test_data_plotting_and_evaluation_know_no_model(module):
    assert not reachable(module) & {"models", "training", "serving", "cli"}


@pytest.mark.parametrize("module", MODULES)
def test_only_plotting_imports_matplotlib(module):
    assert module == "plotting" or "matplotlib" not in OUTSIDE[module]


@pytest.mark.parametrize("module", ["config", "options", "presets", "registry"])
def test_configuration_is_standard_library_only(module):
    used = set().union(*(OUTSIDE[name] for name in {module, *reachable(module)}))
    assert used <= set(sys.stdlib_module_names)
    assert reachable(module) <= {"config", "options", "registry"}


def test_the_checks_above_see_the_imports():
    assert {"gaussian"} <= ARROWS["likelihoods"] and {"layers", "likelihoods", "config"} <= ARROWS["models"]
    assert "gaussian" in reachable("models") and "keras" in OUTSIDE["networks"]


# -- private API of Keras and TensorFlow -------------------------------------------------------------------------

PRIVATE = PACKAGE / "keras_private.py"
TREES = {file: ast.parse(file.read_text()) for file in FILES}


def is_private(name):
    return name.startswith("_") and not name.endswith("__")


def own_names(trees):
    """Private names that the package makes itself: functions, classes, and attributes that are assigned."""
    found = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return {name for name in found if is_private(name)}


def private_uses(tree, own):
    """Private API of others in a module: an attribute by name or by a string, and what is imported from inside."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own | {"_exit"}:
            yield ast.unparse(node)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr"):
            if isinstance(node.args[1], ast.Constant) and is_private(node.args[1].value):
                yield ast.unparse(node)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            inside = ("keras.src", "keras._tf_keras", "tensorflow.python", "tensorflow._api", "tf_keras")
            yield from (name for name in modules if name.startswith(inside))
        elif isinstance(node, ast.Constant) and node.value == "seed_generator_state":  # a name that Keras gives
            yield node.value


@pytest.mark.parametrize("file", [file for file in FILES if file != PRIVATE], ids=lambda file: file.stem)
def test_private_api_is_used_in_one_module_alone(file):
    assert not list(private_uses(TREES[file], own_names(TREES.values())))


@pytest.mark.parametrize(
    "planted",
    [
        "model._loss_tracker.reset_state()",
        "getattr(model, '_compile_metrics', None)",
        "from tensorflow.python.eager import context",
        "import keras.src.backend",
        "[v for v in model.variables if v.path.endswith('seed_generator_state')]",
    ],
)
def test_the_check_for_private_api_sees_it(planted):
    assert list(private_uses(ast.parse(planted), own_names(TREES.values())))


def test_every_use_of_private_api_says_where_it_was_tried_and_what_happens_without():
    for node in TREES[PRIVATE].body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            assert all(words in ast.get_docstring(node) for words in ("Tried with", "Without it")), node.name
    assert len(list(private_uses(TREES[PRIVATE], set()))) >= 4


def test_no_private_name_of_ours_hides_one_of_keras():
    """A method or an attribute of ours that Keras has as well, and calls, would be private API without being seen."""
    import keras

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    plain = (model, model.layers[0], keras.callbacks.Callback())
    of_keras = {name for each in plain for name in (*dir(each), *vars(each)) if is_private(name)}
    assert {"_flatten_layers", "_input_spec"} <= of_keras
    folders = ("train", "models", "layers", "priors", "posteriors", "likelihoods", "objectives", "conditions")
    ours = own_names(tree for file, tree in TREES.items() if module_of(file) in (*folders, "callbacks", "checkpoints"))
    assert not ours & of_keras
