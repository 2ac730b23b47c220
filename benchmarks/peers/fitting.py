"""A Keras `fit` that trains a pass whenever it is asked for one."""

import threading

import keras


class _Turns(keras.callbacks.Callback):
    every = 0  # for this package: it does not look at single steps

    def __init__(self, at_first_batch):
        super().__init__()
        self.at_first_batch = at_first_batch
        self.wanted, self.done = threading.Semaphore(0), threading.Semaphore(0)

    def on_epoch_begin(self, epoch, logs=None):
        if not self.at_first_batch:
            self.wanted.acquire()

    def on_train_batch_begin(self, batch, logs=None):
        if self.at_first_batch and batch == 0:
            self.wanted.acquire()

    def on_epoch_end(self, epoch, logs=None):
        self.loss = float(logs["loss"])
        self.done.release()


def passes_of_fit(model, *data, at_first_batch=False, **options):
    """Yields the loss of each epoch of one long `fit`.

    With `at_first_batch` an epoch begins only when its data do. Where tf.data's tuning is on, the beginning of an epoch
    waits for it, the longer the later it comes, and here it comes after all others had their turn.
    """
    turns = _Turns(at_first_batch)
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
