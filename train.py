"""Trains, evaluates, draws and exports a VAE: `python train.py ARGS` is `keras-vae train ARGS`."""

import sys

if __name__ == "__main__":
    sys.argv = ["keras-vae", "train", *sys.argv[1:]]  # first, for then keras_vae starts as the command line does

    from keras_vae.cli import main

    sys.exit(main())
