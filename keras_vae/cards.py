"""Cards: results with all that a reader has to know about them, and tables of cards under one protocol.

A card is a dict for JSON: `protocol`, what two results must share to be compared; `model`, what was scored; `results`;
`units`, of each result; `versions`. `evaluation.card` makes one. Standard library only.
"""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from keras_vae.config import InputError
from keras_vae.presets import command

Card = dict[str, Any]
NATS = "nats per example"
SHARE = "share of examples"
# result -> (unit, what it is); a result that ends in one of SUFFIXES is explained there
MEANINGS = {
    "nll": (NATS, "-log p(x), by importance sampling: an upper bound in expectation"),
    "conditional_nll": (NATS, "-log p(x|y), given the label: as nll, and no number to stand beside one"),
    "prior_sampled_conditional_nll": (NATS, "-log p(x|y), given the label, by samples from the prior"),
    "prior_sampled_nll": (NATS, "-log p(x), by samples from the prior: far too high unless there are very many"),
    "importance_weighted_loss": (NATS, "as nll, but these values have no likelihood under p(x|z)"),
    "prior_sampled_loss": (NATS, "as prior_sampled_nll, but these values have no likelihood under p(x|z)"),
    "elbo": (NATS, "the evidence lower bound: -(reconstruction_loss + kl_loss)"),
    "conditional_elbo": (NATS, "as elbo, a bound on log p(x|y), given the label"),
    "score": (NATS, "as elbo, but these values have no likelihood: it mostly follows each example's own entropy"),
    "loss": (NATS, "what was trained on"),
    "reconstruction_loss": (NATS, "-E log p(x|z): the distortion"),
    "kl_loss": (NATS, "KL(q(z|x) || p(z)): the rate"),
    "mse": ("squared value", "mean squared error of a value of the reconstruction"),
    "active_units": ("dimensions", "latent dimensions with Var_x E[z|x] > 0.01"),
    "latent_dim": ("dimensions", "latent dimensions there are"),
    "kl_per_dimension": (NATS, "the parts of kl_loss, for each latent dimension"),
    "kl_per_part": (NATS, "the parts of kl_loss that the prior takes apart, such as its layers"),
    "aggregate_mean_offset": ("standard deviations", "of q(z) from the prior, in the worst dimension"),
    "aggregate_variance_min": ("share of the prior's", "smallest variance of a dimension of q(z)"),
    "aggregate_variance_max": ("share of the prior's", "largest variance of a dimension of q(z)"),
    "aggregate_correlation": ("correlation", "largest, of two dimensions of q(z), beside the prior's"),
    "linear_probe_accuracy": (SHARE, "classes found by logistic regression on z_mean"),
    "nearest_neighbour_accuracy": (SHARE, "classes found by the nearest z_mean of a training example"),
    "zero_codes": ("share of values", "code values that are 0"),
    "corrupted_mse": ("squared value", "mean squared error of a value of the corrupted example"),
    "restored_mse": ("squared value", "mean squared error of a value of its reconstruction"),
    "scale": ("value", "of p(x|z): the standard deviation of a Gaussian; that of a logistic is 1.81 times its scale"),
}
SUFFIXES = {
    "_bits_per_dimension": ("bits per value", "the same in bits, for each value of an example"),
    "_standard_error": (NATS, "standard error over the examples"),
    "_by_samples": (NATS, "the same with fewer samples"),
    "_samples": ("samples per example", "k"),
    "_images": ("examples", "how many were scored"),
    "_ess": ("samples per example", "effective sample size, mean over the examples"),
    "_ess_median": ("samples per example", "effective sample size, median over the examples"),
}


def load(run: Any) -> Card:
    """The content of a run's evaluation.json.

    Args:
        run: The `Run`.

    Raises:
        InputError: if there is none, or a damaged one, or one of an earlier version, which does not say enough.
    """
    card: Card | None = run.read_card()
    if card is None or "estimator" not in card["protocol"] or "loss" not in card["model"]:
        raise InputError(
            f"{run.path / 'evaluation.json'} is not {'there' if card is None else 'complete'}. Write it with: "
            f"{command('evaluate', run.path)}"
        )
    return card


def unit(name: str) -> str:
    """The unit of a result."""
    known = MEANINGS.get(name) or next((text for suffix, text in SUFFIXES.items() if name.endswith(suffix)), ("", ""))
    return known[0]


def pixels(binarization: str, event_shape: Sequence[int] | None = None) -> str:
    """What the values are that a model sees, in words.

    Args:
        binarization: As in a config.
        event_shape: Shape of one example, or None where that is not known.

    Example:

    >>> from keras_vae.cards import pixels
    >>> pixels("none", (28, 28, 3)), pixels("dynamic", (28, 28, 1)), pixels("none", (30,))
    ('colour pixels', 'dynamic binarisation', 'values as they are')
    """
    if binarization != "none":
        return f"{binarization} binarisation"
    if event_shape is not None and len(event_shape) != 3:
        return "values as they are"
    channels = event_shape[-1] if event_shape else 0
    return {1: "grey pixels", 3: "colour pixels"}.get(channels, "pixels as they are")


def ordered(results: dict[str, Any]) -> dict[str, Any]:
    """Results with those that explain another, such as its standard error, behind that one."""
    explaining = {name: [name + suffix for suffix in SUFFIXES if name + suffix in results] for name in results}
    explained = set().union(*explaining.values()) if results else set()
    names = [found for name in results if name not in explained for found in (name, *explaining[name])]
    return {name: results[name] for name in dict.fromkeys([*names, *results])}


def rows(card: Card) -> list[tuple[str, str, str]]:
    """The results of a card as strings: (name, value, unit)."""
    found = []
    for name, value in ordered(card["results"]).items():
        unit_of = card["units"].get(name, "")
        if isinstance(value, dict):
            base = name.removesuffix("_by_samples")
            found += [(f"{base}, k = {int(key):,}", number(part), unit_of) for key, part in value.items()]
        elif isinstance(value, list):
            found.append((name, f"{number(min(value))} to {number(max(value))}", unit_of))
        else:
            found.append((name, number(value), unit_of))
    return found


def number(value: Any) -> str:
    """A value, or a list of them, as people read it: whole numbers with commas, others with two decimals or more."""
    if isinstance(value, list):
        return ", ".join(map(number, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"


def compare(
    cards: dict[str, Card], allow_mixed: bool = False, differences_to_first: dict[str, Any] | None = None
) -> list[list[str]]:
    """One table of several cards.

    Args:
        cards: Dict: name of a run -> card.
        allow_mixed: Bool, whether to take results under different protocols.
        differences_to_first: What `paired` returned, or None.

    Returns:
        List of rows of strings, the first one the header: run, objective and the results of all. `loss` is among them
        only where all have the same objective, as it means something else under each. Where `paired` has something,
        two more columns are the mean difference to the first run and its standard error.

    Raises:
        InputError: for different protocols, unless they are allowed. It says what differs.
    """
    differences = mixed(cards)
    if differences and not allow_mixed:
        raise InputError(
            f"These runs were not scored alike: {'; '.join(differences)}. Their results do not compare. Score them "
            "alike with `keras-vae evaluate`, or say --allow-mixed."
        )
    losses = {card["model"]["loss"] for card in cards.values()}
    columns = [name for name in MEANINGS if name != "loss" or len(losses) == 1]
    columns = [found for name in columns for found in (name, f"{name}_standard_error")]
    columns = [
        name for name in columns if any(isinstance(card["results"].get(name), (int, float)) for card in cards.values())
    ]
    protocol = [difference.split(":")[0] for difference in differences]
    table = [["run", *protocol, "objective", *(f"{name} [{unit(name)}]" for name in columns)]]
    for run, card in cards.items():
        shown = [str(card["protocol"].get(name)) for name in protocol] + [card["model"].get("objective", "")]
        values = [card["results"].get(name) for name in columns]
        table.append([run, *shown, *("" if value is None else number(value) for value in values)])
    if differences_to_first:
        name = next(iter(differences_to_first.values()))["name"]
        table[0] += [f"{name} minus that of the first run [{unit(name)}]", f"its paired standard error [{unit(name)}]"]
        for row in table[1:]:
            found = differences_to_first.get(row[0])
            row += [number(found["difference"]), number(found["standard_error"])] if found else ["", ""]
    return table


def paired(cards: dict[str, Card], estimates: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """How the likelihoods of runs differ from that of the first one, image by image.

    The images differ among each other far more than the models do. The standard error of a difference over the same
    images is therefore much smaller than those of the two means.

    Args:
        cards: Dict: name of a run -> card.
        estimates: Dict: name of a run -> what `Run.read_estimates` returned.

    Returns:
        Dict: name of each later run with estimates of the same name for the same images -> dict of `name`,
        `difference` and `standard_error`, both nats per image.
    """
    first, *others = cards
    reference, found = estimates[first], {}
    for run in others:
        own = estimates[run]
        if reference is None or own is None or reference["name"] != own["name"] or not _same_images(cards, first, run):
            continue
        differences = [float(a) - float(b) for a, b in zip(reference["log_marginal"], own["log_marginal"], strict=True)]
        count = len(differences)
        mean = math.fsum(differences) / count
        squares = math.fsum((value - mean) ** 2 for value in differences)
        error = math.sqrt(squares / (count - 1) / count) if count > 1 else 0.0
        found[run] = {"name": own["name"], "difference": mean, "standard_error": error}
    return found


def _same_images(cards: dict[str, Card], *runs: str) -> bool:
    """Whether runs were scored on the same pixels."""
    images = [[cards[run]["protocol"].get(name) for name in ("pixels_sha256", "nll_images", "given")] for run in runs]
    return None not in images[0][:2] and all(each == images[0] for each in images)


def mixed(cards: dict[str, Card]) -> list[str]:
    """What differs between the protocols of cards: list of "name: value in run, value in run"."""
    keys = sorted(set().union(*(card["protocol"] for card in cards.values())))
    differences = []
    for key in keys:
        values: dict[str, list[str]] = {}
        for run, card in cards.items():
            values.setdefault(str(card["protocol"].get(key)), []).append(run)
        if len(values) > 1:
            differences.append(f"{key}: " + ", ".join(f"{value} in {'+'.join(runs)}" for value, runs in values.items()))
    return differences


def written(table: list[list[str]], format: str) -> str:
    """A table of strings as text, csv or markdown."""
    if format == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(table)
        return text.getvalue().rstrip("\n")
    if format == "markdown":
        lines = [table[0], ["---"] * len(table[0]), *table[1:]]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    turned = list(zip(*table, strict=True))  # a run is a column: there are more results than runs
    widths = [max(map(len, column)) for column in table]
    return "\n".join(
        "  ".join(f"{cell:<{widths[0]}}" if i == 0 else f"{cell:>{widths[i]}}" for i, cell in enumerate(line)).rstrip()
        for line in turned
    )
