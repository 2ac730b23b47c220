"""Published results, to stand beside those of the same protocol: data set, binarisation and importance samples."""

from dataclasses import dataclass

BURDA = "Burda et al., Importance Weighted Autoencoders, 2016, table 1"


@dataclass(frozen=True)
class Published:
    """One published number.

    Attributes:
        system: What was trained.
        value: Negative log-likelihood in nats per image, of the whole test split.
        dataset, binarization: As in a config.
        samples: Importance samples for each image.
        source: Where it was published.
    """

    system: str
    value: float
    dataset: str = "mnist"
    binarization: str = "dynamic"
    samples: int = 5000
    source: str = BURDA


PUBLISHED = (
    Published("VAE, one stochastic layer, k = 1", 86.76),
    Published("VAE, one stochastic layer, k = 50", 86.35),
    Published("IWAE, one stochastic layer, k = 50", 84.78),
    Published("VAE, two stochastic layers, k = 1", 85.33),
    Published("IWAE, two stochastic layers, k = 50", 82.90),
)


def find_published(card):
    """The published numbers of a card's protocol.

    Args:
        card: The content of an evaluation.json.

    Returns:
        Pair (those that compare, what would make others compare): a list of `Published`, and a sentence or None.

    Example:

    >>> from keras_vae.report.published import find_published
    >>> protocol = {"dataset": "mnist", "binarization": "dynamic", "images": 10000}
    >>> same, _ = find_published({"protocol": protocol, "results": {"nll": 88.0, "nll_samples": 5000}})
    >>> same[0].value
    86.76
    """
    protocol, results = card["protocol"], card["results"]
    of_data = [
        published
        for published in PUBLISHED
        if (published.dataset, published.binarization) == (protocol.get("dataset"), protocol.get("binarization"))
    ]
    if not of_data or "nll" not in results:
        return [], None
    images = protocol.get("images")
    if results.get("nll_images", images) == images:
        same = [published for published in of_data if published.samples == results.get("nll_samples")]
        if same:
            return same, None
    return [], f"keras-vae evaluate RUN --samples {of_data[0].samples} --images {images}"
