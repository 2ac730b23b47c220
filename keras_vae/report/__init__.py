"""The report of a run: one self-contained page to look at, to play with and to pass on."""

from keras_vae import evaluation
from keras_vae.event_shapes import kind_of
from keras_vae.files import write_bytes
from keras_vae.output import counted
from keras_vae.presets import train_command
from keras_vae.report.columns import column_rows
from keras_vae.report.comparison import write_comparison
from keras_vae.report.explorer import UnsupportedNetwork, can_show, explorer_data
from keras_vae.report.published import find_published
from keras_vae.report.rendering import PAGE, bars, facts, figures, read_card, render, result_rows

__all__ = ["PAGE", "UnsupportedNetwork", "read_card", "result_rows", "write_comparison", "write_report"]

HEADLINES = (
    "loss",
    "nll",
    "conditional_nll",
    "elbo",
    "conditional_elbo",
    "score",
    "reconstruction_loss",
    "kl_loss",
    "mse",
    "restored_mse",
    "active_units",
)


def write_report(run, model, images, labels, audit=True, progress=None, class_names=None):
    """Writes report.html into a run directory: figures, numbers, the explorer, and how to go on.

    The page needs no network and no other file. It is replaced whole or not at all.

    Args:
        run: The `Run`.
        model: Its model.
        images: Float32 [n, ...], its test examples, as they are evaluated.
        labels: Int [n], or None.
        audit: Bool, whether the page shows an audit, which takes about 10 seconds at most.
        progress: Callable, called with the name of each check of the audit, or None.
        class_names: Names of the classes 0, 1, ..., or None.

    Returns:
        Path of the page.
    """
    card = read_card(run)
    kl = card["results"].get("kl_per_dimension")
    kl = kl if isinstance(kl, list) and len(kl) == model.latent_dim else None
    findings = _findings(model, images, labels, card, progress) if audit else []
    explorer, unsupported = None, "The latent space can be explored here if pixels in [0, 1] are decoded, grey or RGB."
    if can_show(images):
        try:
            explorer = explorer_data(model, images, labels, kl, run.config.data.binarization, class_names)
        except UnsupportedNetwork as error:
            unsupported = f"The networks of this run do not work in this page, which cannot compute {error}."
    is_table = kind_of(images.shape[1:]) == "vector"
    page = render(
        "page.html",
        run=run,
        path=run.path.name if run.path.is_absolute() else run.path,
        kind=type(model).__name__,
        parameters=model.count_params(),
        latent_dim=model.latent_dim,
        figures=figures(run),
        columns=column_rows(model, images, labels) if is_table else [],
        shape=images.shape[1:],
        values="pixels in [0, 1]" if can_show(images) else "values as in the data",
        facts=facts(run),
        command=train_command(run.config),
        protocol=card["protocol"],
        results=result_rows(card),
        headlines=_headlines(card),
        published=find_published(card),
        findings=findings,
        counts=", ".join(
            [counted(len(findings), "check")]
            + [counted(sum(each.status == kind for each in findings), kind) for kind in ("error", "warning")]
        ),
        kl=bars(kl) if kl else None,
        explorer=explorer,
        unsupported=unsupported,
    )
    path = run.path / "report.html"
    write_bytes(path, page)
    return path


def _headlines(card):
    """Rows of up to four results. The ELBO is not among them where it is the loss with another sign."""
    rows = {row["name"]: row for row in result_rows(card)}
    if "elbo" in rows and "loss" in rows and rows["elbo"]["value"].lstrip("-") == rows["loss"]["value"].lstrip("-"):
        del rows["elbo"]
    return [rows[name] for name in HEADLINES if name in rows][:4]


def _findings(model, images, labels, card, progress):
    """The audit's findings, the worst first. An autoencoder has none."""
    if not hasattr(model, "prior"):
        return []
    card = card if card["results"] else None
    found = evaluation.audit(model, images, labels=labels, card=card, progress=progress)
    return sorted(found, key=lambda finding: ("error", "warning", "ok").index(finding.status))
