"""Cards: results with all that a reader has to know about them, and tables of cards under one protocol.

A card is a dict for JSON: `protocol`, what two results must share to be compared; `model`, what was scored; `results`;
`units`, of each result; `versions`.
"""

import csv
import io

from keras_vae.config import InputError
from keras_vae.evaluation.scores import has_likelihood

NATS = "nats per image"
SHARE = "share of images"
# result -> (unit, what it is); a result that ends in one of SUFFIXES is explained there
MEANINGS = {
    "nll": (NATS, "-log p(x), by importance sampling: an upper bound in expectation"),
    "prior_sampled_nll": (NATS, "-log p(x), by samples from the prior: far too high unless there are very many"),
    "importance_weighted_loss": (NATS, "as nll, but these pixels have no likelihood under p(x|z)"),
    "prior_sampled_loss": (NATS, "as prior_sampled_nll, but these pixels have no likelihood under p(x|z)"),
    "elbo": (NATS, "the evidence lower bound: -(reconstruction_loss + kl_loss)"),
    "loss": (NATS, "what was trained on"),
    "reconstruction_loss": (NATS, "-E log p(x|z): the distortion"),
    "kl_loss": (NATS, "KL(q(z|x) || p(z)): the rate"),
    "mse": ("squared pixel", "mean squared error of a pixel of the reconstruction"),
    "active_units": ("dimensions", "latent dimensions with Var_x E[z|x] > 0.01"),
    "latent_dim": ("dimensions", "latent dimensions there are"),
    "kl_per_dimension": (NATS, "the parts of kl_loss, for each latent dimension"),
    "kl_per_part": (NATS, "the parts of kl_loss that the prior takes apart, such as its layers"),
    "aggregate_mean_offset": ("standard deviations", "of q(z) from the prior, in the worst dimension"),
    "aggregate_variance_min": ("share of the prior's", "smallest variance of a dimension of q(z)"),
    "aggregate_variance_max": ("share of the prior's", "largest variance of a dimension of q(z)"),
    "aggregate_correlation": ("correlation", "largest, of two dimensions of q(z), beside the prior's"),
    "linear_probe_accuracy": (SHARE, "classes found by logistic regression on z_mean"),
    "nearest_neighbour_accuracy": (SHARE, "classes found by the nearest z_mean of a training image"),
    "zero_codes": ("share of values", "code values that are 0"),
    "corrupted_mse": ("squared pixel", "mean squared error of a pixel of the corrupted image"),
    "restored_mse": ("squared pixel", "mean squared error of a pixel of its reconstruction"),
    "scale": ("pixel", "standard deviation of a pixel in p(x|z)"),
}
SUFFIXES = {
    "_standard_error": (NATS, "standard error over the images"),
    "_by_samples": (NATS, "the same with fewer samples"),
    "_samples": ("samples per image", "k"),
    "_images": ("images", "how many were scored"),
    "_ess": ("samples per image", "effective sample size, mean over the images"),
    "_ess_median": ("samples per image", "effective sample size, median over the images"),
}


def card(model, images, results, *, protocol, versions):
    """Puts results and what they mean into one dict.

    Args:
        model: The model that was scored.
        images: Float32 [n, ...], the images it was scored on.
        results: What `evaluate` returned.
        protocol: Dict: data set, split, pixels, binarisation, samples and seeds.
        versions: Dict: package -> version.

    Returns:
        Dict for JSON: protocol, model, results, units, versions.
    """
    objective = getattr(model, "objective", None)
    described = {
        "class": type(model).__name__,
        "likelihood": snake_case(model.likelihood),
        "pixels_have_a_likelihood": has_likelihood(model, images),
        "loss": loss_meaning(model, images),
    }
    if objective is not None:
        described |= {"prior": snake_case(model.prior), "objective": snake_case(objective), **objective.get_config()}
    return {
        "protocol": {**protocol, "likelihood": described["likelihood"]},
        "model": described,
        "results": results,
        "units": {name: meaning(name)[0] for name in results},
        "versions": versions,
    }


def loss_meaning(model, images):
    """What the loss of a model is: called the negative ELBO only if it is one."""
    objective = getattr(model, "objective", None)
    if objective is None:
        return "the reconstruction loss, and penalties"
    name, config = snake_case(objective), objective.get_config()
    settings = ", ".join(f"{key} {value:g}" for key, value in config.items() if value)
    if name != "elbo":
        return f"objective {name} ({settings}): not the negative ELBO"
    if config["beta"] != 1 or config["free_bits"]:
        return f"weighted ({settings}): not the negative ELBO"
    return "the negative ELBO" if has_likelihood(model, images) else "no ELBO: these pixels have no likelihood"


def snake_case(thing):
    """Name of an object's class as the config spells it: StandardNormal -> standard_normal."""
    name = type(thing).__name__
    if name.isupper() or name in ("DReG", "VampPrior"):
        return name.lower()
    return {"BetaTC": "beta_tc"}.get(name) or "".join(
        f"_{letter.lower()}" if letter.isupper() else letter for letter in name
    ).lstrip("_")


def meaning(name):
    """(unit, what it is) of a result."""
    if name in MEANINGS:
        return MEANINGS[name]
    return next((text for suffix, text in SUFFIXES.items() if name.endswith(suffix)), ("", ""))


def rows(card):
    """The results of a card as strings: (name, value, unit)."""
    found = []
    for name, value in card["results"].items():
        unit = card["units"][name]
        if isinstance(value, dict):
            base = name.removesuffix("_by_samples")
            found += [(f"{base}, k = {int(key):,}", number(part), unit) for key, part in value.items()]
        elif isinstance(value, list):
            found.append((name, f"{number(min(value))} to {number(max(value))}", unit))
        else:
            found.append((name, number(value), unit))
    return found


def number(value):
    """A value as people read it: whole numbers with commas, others with two decimals or four digits."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"


def compare(cards, allow_mixed=False):
    """One table of several cards.

    Args:
        cards: Dict: name of a run -> card.
        allow_mixed: Bool, whether to take results under different protocols.

    Returns:
        List of rows of strings, the first one the header: run, objective and the results of all. `loss` is among them
        only where all have the same objective, as it means something else under each.

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
    table = [["run", *protocol, "objective", *(f"{name} [{meaning(name)[0]}]" for name in columns)]]
    for run, card in cards.items():
        shown = [str(card["protocol"].get(name)) for name in protocol] + [card["model"].get("objective", "")]
        values = [card["results"].get(name) for name in columns]
        table.append([run, *shown, *("" if value is None else number(value) for value in values)])
    return table


def mixed(cards):
    """What differs between the protocols of cards: list of "name: value in run, value in run"."""
    keys = sorted(set().union(*(card["protocol"] for card in cards.values())))
    differences = []
    for key in keys:
        values = {}
        for run, card in cards.items():
            values.setdefault(str(card["protocol"].get(key)), []).append(run)
        if len(values) > 1:
            differences.append(f"{key}: " + ", ".join(f"{value} in {'+'.join(runs)}" for value, runs in values.items()))
    return differences


def written(table, format):
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
