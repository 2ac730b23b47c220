"""Commands print what they have to say, and nothing of TensorFlow's own."""

import os
import subprocess
import sys

import pytest

from keras_vae import quiet


def python(code, **environment):
    """Runs code in a process whose environment does not set how much TensorFlow says."""
    kept = {name: value for name, value in os.environ.items() if name not in (quiet.SETTING, "CUDA_VISIBLE_DEVICES")}
    environment = {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


CHATTY = """
import os, sys
sys.argv = ["keras-vae"]
from keras_vae import quiet
quiet.import_tensorflow()
import tensorflow as tf
print(tf.function(lambda x: 2 * x, jit_compile=True)(tf.ones(())).numpy())
function = tf.function(lambda x: x)
for number in range(10):
    function(number)
"""


@pytest.mark.slow
def test_xla_and_retracing_say_nothing():
    done = python(CHATTY)
    assert (done.stdout, done.stderr) == ("2.0\n", "")


@pytest.mark.slow
def test_who_asks_for_messages_gets_them():
    assert "retracing" in python(CHATTY, TF_CPP_MIN_LOG_LEVEL="0").stderr


FILTERED = """
import os, sys
sys.argv = ["keras-vae"]
from keras_vae import quiet
quiet._filter_standard_error()
os.write(2, b"I0000 00:00:1795821789.291646 18661 service.cc:145] XLA service initialized\\n")
os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n")
os.write(2, b"E0000 00:00:1795821789.291646 18661 computation_placer.cc:177] already registered\\n")
print("from Python", file=sys.stderr)
os.write(2, b"F0000 00:00:1795821789.291646 1 f.cc:1] Check failed\\n")
os.abort()
"""


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such filter")
def test_the_last_words_of_a_crash_pass_the_filter():
    done = python(FILTERED)
    assert done.returncode < 0
    assert sorted(line.split("]")[-1].strip() for line in done.stderr.splitlines()) == ["Check failed", "from Python"]


@pytest.mark.slow
def test_a_gpu_that_is_not_seen_is_named_once(monkeypatch):
    code = (
        "import sys; sys.argv = ['keras-vae']; from keras_vae import quiet; quiet._has_nvidia_driver = lambda: True\n"
    )
    stderr = python(code + "quiet.import_tensorflow()", CUDA_VISIBLE_DEVICES="-1").stderr
    assert stderr.count("\n") == 1 and 'pip install "keras-vae[gpu]"' in stderr
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert not quiet._has_nvidia_driver(), "who hides the GPUs knows"
