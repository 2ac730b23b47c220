"""PyTorch: eager or by torch.compile, with the fused Adam and the images resident in memory, on a GPU where one is."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Encoder(nn.Module):
    def __init__(self, work):
        super().__init__()
        if work.network == "conv":
            self.trunk = nn.Sequential(
                _Same(nn.Conv2d(1, 32, 3, 2)), nn.ReLU(), _Same(nn.Conv2d(32, 64, 3, 2)), nn.ReLU(), nn.Flatten(),
                nn.Linear(7 * 7 * 64, 16), nn.ReLU(),
            )  # fmt: skip
            features = 16
        else:
            self.trunk = nn.Sequential(nn.Flatten(), *_dense((784, *work.hidden), work.activation))
            features = work.hidden[-1]
        self.mean, self.log_var = nn.Linear(features, work.latent_dim), nn.Linear(features, work.latent_dim)

    def forward(self, x):
        x = self.trunk(x)
        return self.mean(x), self.log_var(x)


class _Same(nn.Module):
    """A strided convolution padded as Keras does: more at the end."""

    def __init__(self, convolution):
        super().__init__()
        self.convolution = convolution

    def forward(self, x):
        return self.convolution(F.pad(x, (0, 1, 0, 1)))


def _dense(sizes, activation):
    function = {"relu": nn.ReLU, "tanh": nn.Tanh}[activation]
    return [part for n, m in itertools.pairwise(sizes) for part in (nn.Linear(n, m), function())]


def _decoder(work):
    if work.network != "conv":
        sizes = (work.latent_dim, *reversed(work.hidden))
        return nn.Sequential(*_dense(sizes, work.activation), nn.Linear(sizes[-1], 784))
    return nn.Sequential(
        nn.Linear(work.latent_dim, 7 * 7 * 64), nn.ReLU(), nn.Unflatten(1, (64, 7, 7)),
        nn.ConvTranspose2d(64, 64, 3, 2, padding=1, output_padding=1), nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 3, 2, padding=1, output_padding=1), nn.ReLU(),
        nn.ConvTranspose2d(32, 1, 3, 1, padding=1), nn.Flatten(),
    )  # fmt: skip


def train(work, images, compiled=False):
    torch.manual_seed(0)
    torch.set_num_threads(work.threads)
    encoder, decoder = Encoder(work).to(DEVICE), _decoder(work).to(DEVICE)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    for parameter in parameters:
        nn.init.xavier_uniform_(parameter) if parameter.ndim > 1 else nn.init.zeros_(parameter)
    if work.network == "conv":
        encoder, decoder = encoder.to(memory_format=torch.channels_last), decoder.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(parameters, lr=work.learning_rate, eps=1e-7, fused=True)
    resident = torch.from_numpy(images[:, None]).to(DEVICE)

    def loss_of(batch):
        x = batch.float() * (1 / 255)
        if work.binary:
            x = (torch.rand_like(x) < x).float()
        mean, log_var = encoder(x)
        eps = torch.randn((work.draws, *mean.shape), device=DEVICE)
        z = mean + torch.exp(0.5 * log_var) * eps
        logits = decoder(z.reshape(-1, work.latent_dim)).reshape(work.draws, len(x), 784)
        reconstruction = (F.softplus(logits) - x.reshape(len(x), 784) * logits).sum(-1)
        if work.draws == 1:
            return (reconstruction[0] + 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(-1)).mean()
        log_ratio = 0.5 * (log_var + eps**2 - z**2).sum(-1)
        return (math.log(work.draws) - torch.logsumexp(log_ratio - reconstruction, 0)).mean()

    if compiled:
        loss_of = torch.compile(loss_of)
    while True:
        total = 0.0
        order = torch.randperm(len(resident), device=DEVICE)
        for index in order.split(work.batch_size):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(resident[index])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        yield float(total) / math.ceil(len(resident) / work.batch_size)


def score(work, images, num_samples, chunk=100):
    """Importance sampling as libraries do it: one image at a time, `chunk` draws at a time."""
    torch.manual_seed(0)
    torch.set_num_threads(work.threads)
    encoder, decoder = Encoder(work).to(DEVICE), _decoder(work).to(DEVICE)
    resident = (torch.from_numpy(images[:, None]) > 127).float().to(DEVICE)
    while True:
        values = []
        with torch.no_grad():
            for x in resident:
                mean, log_var = encoder(x[None])
                weights = []
                for _ in range(num_samples // chunk):
                    eps = torch.randn((chunk, mean.shape[1]), device=DEVICE)
                    z = mean + torch.exp(0.5 * log_var) * eps
                    logits = decoder(z)
                    log_x = (x.reshape(1, 784) * logits - F.softplus(logits)).sum(-1)
                    weights.append(log_x + 0.5 * (log_var + eps**2 - z**2).sum(-1))
                values.append(torch.logsumexp(torch.cat(weights), 0) - math.log(num_samples))
        yield -float(torch.stack(values).mean())
