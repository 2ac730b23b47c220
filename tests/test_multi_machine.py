"""The files for clusters, as far as they can be tried without one: with stand-ins for what a cluster brings."""

import json
import os
import pathlib
import subprocess

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
    service, job = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())
    assert (service["apiVersion"], service["kind"], job["apiVersion"], job["kind"]) == (
        "v1",
        "Service",
        "batch/v1",
        "Job",
    )
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
