"""Trains, evaluates, draws and exports a VAE: `python train.py ARGS` is `keras-vae train ARGS`."""

import sys

from keras_vae_cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
