"""The files for clusters, as far as they can be tried without one: with stand-ins for what a cluster brings."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest
import yaml

from keras_vae import workers

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples" / "multi-machine"
# keras-vae: writes down how it was called and ends as it is told. srun: as many tasks as nodes, and the worst code.
STAND_INS = {
    "keras-vae": """
attempt=$(cat "$RECORD"/attempts-"$WHO" 2>/dev/null || echo 0)
echo $((attempt + 1)) > "$RECORD"/attempts-"$WHO"
printf '%s' "$TF_CONFIG" > "$RECORD"/cluster-"$WHO"
printf '%s\\n' "$@" > "$RECORD"/arguments-"$WHO"
codes=($CODES)
exit "${codes[$attempt]}"
""",
    "scontrol": '[ "$*" = "show hostnames node[1-2]" ] && printf "node1\\nnode2\\n"',
    "srun": """
worst=0
while [[ "$1" == --* ]]; do shift; done
for SLURM_PROCID in 0 1; do
    export SLURM_PROCID
    WHO=$SLURM_PROCID "$@" || worst=$?
done
exit "$worst"
""",
}


@pytest.fixture
def cluster(tmp_path):
    """Environment in which the commands of a cluster are stand-ins; what they were told is in tmp_path."""
    (tmp_path / "bin").mkdir()
    for name, script in STAND_INS.items():
        path = tmp_path / "bin" / name
        path.write_text("#!/usr/bin/env bash\n" + script)
        path.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "RECORD": str(tmp_path)}


def check_worker(folder, who, addresses, monkeypatch):
    content = (folder / f"cluster-{who}").read_text()
    assert json.loads(content)["task"] == {"type": "worker", "index": who}
    monkeypatch.setenv("TF_CONFIG", content)
    assert workers.read_cluster() == workers.Cluster(("worker 0", "worker 1"), tuple(addresses), who)


# exit codes of keras-vae: a worker that dies and all that start again; bad input; a run that never ends well
@pytest.mark.parametrize("codes, starts, code", [("1 0", 2, 0), ("2", 1, 2), ("1 " * 10, 10, 1)])
def test_slurm_starts_all_workers_and_starts_them_again(codes, starts, code, cluster, tmp_path, monkeypatch):
    slurm = {"SLURM_JOB_ID": "20007", "SLURM_JOB_NODELIST": "node[1-2]", "CODES": codes}
    arguments = ["mlp", "--run-dir", "/shared/a folder"]
    script = ["bash", str(EXAMPLES / "slurm.sh"), *arguments]
    done = subprocess.run(script, env={**cluster, **slurm}, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    for worker in (0, 1):
        assert int((tmp_path / f"attempts-{worker}").read_text()) == starts
        told = (tmp_path / f"arguments-{worker}").read_text().splitlines()
        assert told == ["train", "--strategy", "multiworker", *arguments]
        check_worker(tmp_path, worker, ["node1:20007", "node2:20007"], monkeypatch)


def test_kubernetes_names_the_pods_as_the_workers_know_them(cluster, tmp_path, monkeypatch):
    service, policy, job = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())
    assert (service["apiVersion"], service["kind"], job["apiVersion"], job["kind"]) == (
        "v1",
        "Service",
        "batch/v1",
        "Job",
    )
    workers_alone = {"podSelector": {"matchLabels": {"job-name": job["metadata"]["name"]}}}
    assert (policy["apiVersion"], policy["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
    assert policy["spec"] == {**workers_alone, "policyTypes": ["Ingress"], "ingress": [{"from": [workers_alone]}]}
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    # a Pod of an Indexed Job is called NAME-INDEX, and its address is POD.SUBDOMAIN where a headless Service selects it
    assert spec["completionMode"] == "Indexed" and spec["parallelism"] == spec["completions"] == 2
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod["subdomain"] == service["metadata"]["name"] and pod["restartPolicy"] == "OnFailure"
    (port,), (container,) = service["spec"]["ports"], pod["containers"]
    names = [f"{job['metadata']['name']}-{index}.{pod['subdomain']}:{port['port']}" for index in range(2)]
    for index in range(2):
        environment = {**cluster, "JOB_COMPLETION_INDEX": str(index), "WHO": str(index), "CODES": "0"}
        subprocess.run([*container["command"], *container["args"]], env=environment, check=True)
        check_worker(tmp_path, index, names, monkeypatch)
    told = (tmp_path / "arguments-1").read_text().splitlines()
    (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
    assert told[:2] == ["train", "mlp"] and mount["name"] == volume["name"]
    assert told[told.index("--run-dir") + 1].startswith(mount["mountPath"] + "/")


# A worker that writes down which networks it sees and whether it reaches a port of this machine.
STAND_IN_WORKER = """
import json, os, pathlib, socket, sys
folder = pathlib.Path(os.environ["RECORD"])
try:
    socket.create_connection(("127.0.0.1", int(os.environ["OUTSIDE"])), timeout=5).close()
    reached = True
except OSError:
    reached = False
addresses = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"]
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
with socket.create_server(("127.0.0.1", int(addresses[index].rpartition(":")[2]))):  # the loopback is up
    seen = [name for _, name in socket.if_nameindex()]
(folder / f"seen-{index}").write_text(json.dumps([seen, reached, sys.argv[1:]]))
"""


def supervised(tmp_path, port, *options, **environment):
    (tmp_path / "keras_vae").mkdir()
    (tmp_path / "keras_vae" / "__init__.py").touch()
    (tmp_path / "keras_vae" / "__main__.py").write_text(STAND_IN_WORKER)
    values = {**os.environ, "PYTHONPATH": str(tmp_path), "RECORD": str(tmp_path), "OUTSIDE": str(port), **environment}
    command = [sys.executable, str(EXAMPLES / "local_workers.py"), "2", *options, "--", "mlp", "--run-dir", "a b"]
    done = subprocess.run(command, env=values, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads((tmp_path / f"seen-{index}").read_text()) for index in range(2)], done.stderr


def test_local_workers_are_reached_by_nobody_else(tmp_path):
    if subprocess.run(["unshare", "--user", "--map-root-user", "--net", "true"], capture_output=True).returncode:
        pytest.skip("This system allows no network namespace.")
    with socket.create_server(("127.0.0.1", 0)) as outside:
        seen, said = supervised(tmp_path, outside.getsockname()[1])
    arguments = ["train", "--strategy", "multiworker", "mlp", "--run-dir", "a b"]
    assert seen == [[["lo"], False, arguments]] * 2 and "WARNING" not in said


@pytest.mark.parametrize("options, path", [(["--shared-network"], None), ([], "/nowhere")])
def test_local_workers_that_others_can_reach_say_so(options, path, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as outside:
        environment = {} if path is None else {"PATH": path}
        seen, said = supervised(tmp_path, outside.getsockname()[1], *options, **environment)
    assert [reached for _, reached, _ in seen] == [True, True]
    assert "WARNING" in said and "without authentication" in said
