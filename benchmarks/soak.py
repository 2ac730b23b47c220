"""Soaks an export: requests to every signature from several threads, under the memory of export/compose.yaml.

    python benchmarks/soak.py [--minutes 60] [--preset conv --preset mlp] [--threads 4]

A process loads the SavedModels of each preset, through sessions as the server does, and may have 2 GB of private
writable memory (RLIMIT_DATA). Three of ten requests are hostile: those of `verify-export`, among them files that
unpack to much and too many rows. The others have from one row to the most that the signature takes. A process that
dies is counted, and started again. Writes benchmarks/soak.md.
"""

import argparse
import collections
import datetime
import json
import os
import pathlib
import platform
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time

TABLE = pathlib.Path(__file__).with_suffix(".md")
MEMORY = 2 * 2**30  # mem_limit of export/compose.yaml
HOSTILE = 0.3
REPORT_SECONDS = 10


# -- the process that serves --------------------------------------------------------------------------------------


def serve(directories, threads, seconds, seed):
    """Prints a line of JSON with all counts every few seconds, for `seconds`."""
    import numpy as np
    import tensorflow as tf

    from keras_vae.serving import verify

    models, kinds = {}, []
    for directory in directories:
        contract = json.loads(pathlib.Path(directory, "contract.json").read_text())
        for name, entry in contract["models"].items():
            place = f"{pathlib.Path(directory).name} {name}"
            models[place] = verify.Model(os.path.join(directory, name, str(contract["version"])))
            hostile = collections.defaultdict(list)
            for key, description, request in verify.hostile_requests(entry):
                hostile[key].append((description, request))
            kinds += [(place, key, value, hostile[key]) for key, value in entry["signatures"].items()]
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    counts, lock, until = collections.defaultdict(collections.Counter), threading.Lock(), time.time() + seconds

    def ask(choose, numbers):
        place, key, entry, hostile = choose.choice(kinds)
        if choose.random() < HOSTILE:
            kind, wanted, (_, request) = "hostile", "INVALID_ARGUMENT", choose.choice(hostile)
        else:
            most = entry["max_rows"]
            rows = most if choose.random() < 0.1 else int(most ** choose.random())
            golden = verify.golden_request(entry)
            which = numbers.integers(len(next(iter(golden.values()))), size=rows)
            kind, wanted, request = "good", "OK", {field: value[which] for field, value in golden.items()}
            if "seed" in request:
                request["seed"] = numbers.integers(2**53, size=rows)
        try:
            models[place].run(key, request)
            answer = "OK"
        except tf.errors.OpError as error:
            answer = "INVALID_ARGUMENT" if isinstance(error, tf.errors.InvalidArgumentError) else type(error).__name__
        with lock:
            counts[f"{place} {key}"][kind] += 1
            counts[f"{place} {key}"][f"{kind} wrong"] += answer != wanted
            if kind == "good":
                counts[f"{place} {key}"]["rows"] += rows

    def work(number):
        choose, numbers = random.Random(seed + number), np.random.default_rng(seed + number)
        while time.time() < until:
            ask(choose, numbers)

    def report():
        status = pathlib.Path("/proc/self/status").read_text()
        memory = {key: 1024 * int(status.partition(f"{key}:")[2].split()[0]) for key in ("VmHWM", "VmRSS", "VmData")}
        with lock:
            print(json.dumps({"counts": counts, "memory": memory}), flush=True)

    report()
    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        time.sleep(REPORT_SECONDS if time.time() + REPORT_SECONDS < until else 0.5)
        report()


# -- the process that watches -------------------------------------------------------------------------------------


def watch(directories, threads, minutes):
    """Runs the serving process until the time is over. Returns (counts, kills, memory, seconds)."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    environment |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": str(threads)}
    total, kills, memory, start = collections.defaultdict(collections.Counter), [], [], time.time()
    while (left := start + 60 * minutes - time.time()) > 0:
        options = ["--threads", str(threads), "--seconds", str(left), "--seed", str(len(kills))]
        command = [sys.executable, __file__, *options, *(f"--serve={directory}" for directory in directories)]
        last = {"counts": {}}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            for line in process.stdout:
                last = json.loads(line)
                memory.append(last["memory"])
        for key, counted in last["counts"].items():
            total[key].update(counted)
        if process.returncode:
            kills.append(process.returncode)
            if not last["counts"] and len(kills) > 3:
                raise SystemExit(f"The serving process does not start: it ended with code {process.returncode}.")
    return total, kills, memory, time.time() - start


def report(total, kills, memory, seconds, presets, threads):
    """The page as text."""
    import tensorflow as tf

    every = sum(total.values(), collections.Counter())
    requests = every["good"] + every["hostile"]
    wrong = every["good wrong"] + every["hostile wrong"]
    share = every["hostile"] / max(1, requests)
    most = {key: max(part[key] for part in memory) / 1e9 for key in ("VmData", "VmHWM")}
    quarter = max(1, len(memory) // 4)
    quarters = memory[1 : 1 + quarter] or memory, memory[-quarter:]
    resident = [sum(part["VmRSS"] for part in parts) / len(parts) / 1e6 for parts in quarters]
    lines = [
        "# Soak",
        "",
        f"Written by `python benchmarks/soak.py --minutes {seconds / 60:.0f} --threads {threads}` on "
        f"{datetime.date.today()}: presets {', '.join(presets)}, untrained (the weights do not change what is "
        f"computed), {os.cpu_count()} CPU cores ({platform.machine()}), TensorFlow {tf.__version__}, Python "
        f"{platform.python_version()}. No GPU was used.",
        "",
        f"{seconds / 60:.0f} minutes, {requests:,} requests from {threads} threads, {share:.0%} of them hostile: "
        f"{len(kills)} kills, {wrong} wrong answers. The process may have {MEMORY / 1e9:.2f} GB of private writable "
        f"memory (RLIMIT_DATA); it had at most {most['VmData']:.2f} GB, and {most['VmHWM']:.2f} GB resident with "
        f"Python and TensorFlow's libraries. Resident on average in the first quarter {resident[0]:.0f} MB, in the "
        f"last {resident[1]:.0f} MB.",
        "",
        "| signature | good requests | rows of them | not OK | hostile requests | not INVALID_ARGUMENT |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for key, counted in sorted(total.items()):
        lines.append(
            f"| {key} | {counted['good']:,} | {counted['rows']:,} | {counted['good wrong']} | {counted['hostile']:,} | "
            f"{counted['hostile wrong']} |"
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: %(default)s)")
    parser.add_argument("--preset", action="append", help="preset of a VAE, several times (default: conv and mlp)")
    parser.add_argument("--threads", type=int, default=4, help="requests at a time (default: %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default=TABLE, help="page to write (default: benchmarks/soak.md)")
    parser.add_argument("--serve", action="append", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.threads, options.seconds, options.seed)
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras_vae

    presets = options.preset or ["conv", "mlp"]
    with tempfile.TemporaryDirectory() as folder:
        directories = [os.path.join(folder, preset) for preset in presets]
        for preset, directory in zip(presets, directories, strict=True):
            keras_vae.export_saved_models(keras_vae.VAE.from_preset(preset), directory)
        counted = watch(directories, options.threads, options.minutes)
    text = report(*counted, presets, options.threads)
    options.out.write_text(text)
    print(text)
    kills, wrong = counted[1], sum(entry["good wrong"] + entry["hostile wrong"] for entry in counted[0].values())
    return 1 if kills or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
