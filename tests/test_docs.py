"""What ``docs/`` gives people to run: manifests, scripts, and the table of the cost model."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

DOCS = ROOT / "docs"
MANIFEST = DOCS / "cluster" / "kubernetes.json"


def stand_ins(folder, **programs):
    """A PATH with programs of these names before all others."""
    for name, script in programs.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def asked(printed):
    """The TF_CONFIG and the arguments of a stand-in for ``tfp-vae``."""
    config, arguments = printed.strip().split("\n")
    return json.loads(config), arguments.split()


COMMAND = 'echo "$TF_CONFIG"; echo "$@"'


@pytest.mark.parametrize("exists", [False, True], ids=["first start", "restart"])
def test_each_pod_of_the_manifest_finds_its_place(exists, tmp_path):
    service, job = json.loads(MANIFEST.read_text())["items"]
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    name = job["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert service["spec"]["clusterIP"] == "None"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(environment["WORKERS"])
    if exists:
        (tmp_path / "run.json").touch()
    environment |= {
        "PATH": stand_ins(tmp_path, tfp_vae=COMMAND),
        "JOB_COMPLETION_INDEX": "3",
        "RUN": str(tmp_path),
    }
    done = subprocess.run(
        [*container["command"], *container["args"]],
        env=environment, capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    config, arguments = asked(done.stdout)
    port = container["ports"][0]["containerPort"]
    hosts = [f"{name}-{i}.{pod['subdomain']}:{port}" for i in range(spec["completions"])]
    assert config == {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": 3}}
    assert arguments[:2] == (["train", "--resume"] if exists else ["train", "cvae-mnist-50d"])
    assert arguments[-2:] == ["--strategy", "multiworker"]
    if not exists:
        assert int(arguments[arguments.index("--batch-size") + 1]) % spec["completions"] == 0


@pytest.mark.parametrize("exists", [False, True], ids=["first start", "restart"])
def test_each_task_of_the_slurm_script_finds_its_place(exists, tmp_path):
    if exists:
        (tmp_path / "run.json").touch()
    path = stand_ins(
        tmp_path,
        scontrol='[ "$*" = "show hostnames n[1-2]" ] && printf "n1\\nn2\\n"',
        srun='shift; SLURM_PROCID=1 exec "$@"',
        tfp_vae=COMMAND,
    )
    done = subprocess.run(
        ["bash", DOCS / "cluster" / "slurm.sh"],
        env={"PATH": path, "SLURM_JOB_NODELIST": "n[1-2]", "RUN": str(tmp_path)},
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    config, arguments = asked(done.stdout)
    assert config == {
        "cluster": {"worker": ["n1:2222", "n2:2222"]},
        "task": {"type": "worker", "index": 1},
    }
    assert ("--resume" in arguments) == exists


def test_the_commands_of_the_scripts_are_those_of_the_parser(monkeypatch, capsys):
    """Up to the missing TF_CONFIG, which is looked at after all options."""
    from tfp_vae import cli

    monkeypatch.delenv("TF_CONFIG", raising=False)
    for line in (DOCS / "cluster" / "slurm.sh").read_text().splitlines():
        if "tfp-vae" in line:
            arguments = line.strip().removeprefix("exec tfp-vae ").replace('"', "").split()
            assert cli.main(arguments) == 2
            assert "TF_CONFIG: expected JSON" in capsys.readouterr().err


@pytest.fixture
def model(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import workers

    yield workers
    del sys.modules["workers"]


def test_a_ring_of_four_by_hand(model):
    """Each of 6 hops takes 1 ms, and carries a quarter of 8 MB at 1 GB/s: 2 ms."""
    assert model.all_reduce(8e6, 4, 1e9, 1e-3) == pytest.approx(6 * (1e-3 + 2e-3))
    assert model.all_reduce(8e6, 1, 1e9, 1e-3) == 0


def test_the_model_has_the_parameters_of_the_recipes(model):
    from tfp_vae import recipes, training

    for name, network in model.NETWORKS.items():
        vae = training.build(recipes.get(name), (28, 28, 1))
        assert vae.count_params() == network.parameters
        assert model.step(network, 1, network.batch, 1e9, 1e-3) == pytest.approx(network.step)


def test_the_table_of_the_page_is_that_of_the_model(model):
    page = (DOCS / "distributed.md").read_text()
    for row in model.rows(10, 50):
        assert "| " + " | ".join(row) + " |" in page
