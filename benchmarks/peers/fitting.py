"""A Keras `fit` that trains a pass whenever it is asked for one."""

import threading

import keras


class _Turns(keras.callbacks.Callback):
    every = 0  # for this package: it does not look at single steps

    def __init__(self):
        super().__init__()
        self.wanted, self.done = threading.Semaphore(0), threading.Semaphore(0)

    def on_epoch_begin(self, epoch, logs=None):
        self.wanted.acquire()

    def on_epoch_end(self, epoch, logs=None):
        self.loss = float(logs["loss"])
        self.done.release()


def passes_of_fit(model, *data, **options):
    """Yields the loss of each epoch of one long `fit`."""
    turns = _Turns()
    fit = threading.Thread(
        target=model.fit, args=data, kwargs={"epochs": 100_000, "verbose": 0, "callbacks": [turns], **options}
    )
    fit.daemon = True
    fit.start()
    while True:
        turns.wanted.release()
        while not turns.done.acquire(timeout=1):
            if not fit.is_alive():
                raise RuntimeError("fit ended")
        yield turns.loss
