"""What `ray up`, KubeRay and the image builder read: valid, of one mind, without secrets."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.deploy.kuberay_schema import RAY_CLUSTER, RAY_JOB

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "deploy" / "kuberay"


Yaml = dict[str, Any]


def read(path: Path) -> Yaml:
    content: Yaml = yaml.safe_load(path.read_text())
    return content


def locked(package: str) -> str:
    lock = (ROOT / "requirements.lock").read_text()
    found = re.search(rf"^{package}(?:\[[a-z,]+\])?==(\S+)", lock, re.MULTILINE)
    assert found is not None
    return found[1]


class TestRayUp:
    @pytest.fixture
    def cluster(self) -> Yaml:
        return read(ROOT / "ray_cluster.yaml")

    def test_file_fits_rays_own_schema(self, cluster: Yaml) -> None:
        ray = importlib.util.find_spec("ray")
        assert ray is not None and ray.submodule_search_locations
        schema = Path(ray.submodule_search_locations[0]) / "autoscaler" / "ray-schema.json"
        jsonschema.validate(cluster, json.loads(schema.read_text()))

    def test_head_starts_the_workers(self, cluster: Yaml) -> None:
        (start,) = [one for one in cluster["head_start_ray_commands"] if "ray start" in one]
        assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start
        assert "RAY_enable_autoscaler_v2=0" in start
        assert "--head" in shlex.split(start)

    def test_workers_join_the_head_at_the_port_at_which_it_listens(self, cluster: Yaml) -> None:
        (head,) = [one for one in cluster["head_start_ray_commands"] if "ray start" in one]
        (worker,) = [one for one in cluster["worker_start_ray_commands"] if "ray start" in one]
        assert "--port=6379" in shlex.split(head)
        assert "--address=$RAY_HEAD_IP:6379" in shlex.split(worker)

    def test_ray_is_started_and_stopped_by_the_nodes_script_alone(self, cluster: Yaml) -> None:
        commands = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
        assert all(re.search(r"deploy/node\.sh ray (start --|stop$)", one) for one in commands)
        assert os.access(ROOT / "deploy" / "node.sh", os.X_OK)

    def test_every_node_gets_the_token_and_is_checked(self, cluster: Yaml) -> None:
        assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
        assert cluster["setup_commands"][-1] == "cd ~/gemmcast && deploy/node.sh check"


class TestKubeRay:
    @pytest.fixture
    def cluster(self) -> Yaml:
        return read(KUBERAY / "cluster.yaml")

    @pytest.fixture
    def job(self) -> Yaml:
        return read(KUBERAY / "job.yaml")

    def test_files_have_the_documented_structure(self, cluster: Yaml, job: Yaml) -> None:
        jsonschema.validate(cluster, RAY_CLUSTER)
        jsonschema.validate(job, RAY_JOB)

    def test_both_start_the_same_nodes_with_the_same_token(self, cluster: Yaml, job: Yaml) -> None:
        stays, ends = cluster["spec"], job["spec"]["rayClusterSpec"]
        assert stays["workerGroupSpecs"] == ends["workerGroupSpecs"]
        assert stays["authOptions"] == ends["authOptions"]
        assert stays["authOptions"] == {"mode": "token", "secretName": "gemmcast-token"}
        assert stays["rayVersion"] == ends["rayVersion"] == locked("ray")

    def test_a_worker_asks_for_as_much_as_it_may_use(self, cluster: Yaml) -> None:
        for group in cluster["spec"]["workerGroupSpecs"]:
            (container,) = group["template"]["spec"]["containers"]
            resources = container["resources"]
            assert resources["requests"] == resources["limits"]
            assert int(resources["limits"]["nvidia.com/gpu"]) >= 1

    def test_head_beside_a_submitter_is_not_restarted(self, job: Yaml) -> None:
        # The operator refuses another policy in this mode.
        head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
        assert head.get("restartPolicy", "Never") == "Never"
        # It refuses a time to live where nothing is ended, too.
        assert job["spec"]["shutdownAfterJobFinishes"]

    def test_head_keeps_its_state_in_the_redis_of_this_folder(self, cluster: Yaml) -> None:
        service, redis = yaml.safe_load_all((KUBERAY / "redis.yaml").read_text())
        options = cluster["spec"]["gcsFaultToleranceOptions"]
        (port,) = service["spec"]["ports"]
        assert options["redisAddress"] == f"redis://{service['metadata']['name']}:{port['port']}"
        (container,) = redis["spec"]["template"]["spec"]["containers"]
        (password,) = container["env"]
        assert options["redisPassword"]["valueFrom"] == password["valueFrom"]
        labels = redis["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"] == redis["spec"]["selector"]["matchLabels"] == labels

    def test_heads_mount_the_claim_of_the_workspace(self, cluster: Yaml, job: Yaml) -> None:
        claim = read(KUBERAY / "workspace.yaml")["metadata"]["name"]
        for spec in (cluster["spec"], job["spec"]["rayClusterSpec"]):
            (volume,) = spec["headGroupSpec"]["template"]["spec"]["volumes"]
            assert volume["persistentVolumeClaim"]["claimName"] == claim
        assert job["spec"]["entrypoint"].endswith("--workspace /workspace")

    def test_the_jobs_plan_is_in_the_image(self, job: Yaml) -> None:
        image = (ROOT / "deploy" / "Dockerfile").read_text()
        (folder,) = re.findall(r"^WORKDIR (\S+)$", image, re.MULTILINE)
        plan = Path(job["spec"]["entrypoint"].split()[4]).relative_to(folder)
        assert (ROOT / plan).is_file()
        assert f"COPY {plan.parts[0]} " in image

    def test_no_file_holds_a_secret(self) -> None:
        for path in KUBERAY.glob("*.yaml"):
            resources = list(yaml.safe_load_all(path.read_text()))
            assert all(one["kind"] != "Secret" for one in resources)


class TestImage:
    @pytest.fixture
    def text(self) -> str:
        return (ROOT / "deploy" / "Dockerfile").read_text()

    def test_what_is_copied_is_there(self, text: str) -> None:
        copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY ")]
        missing = [one for sources in copied for one in sources if not (ROOT / one).exists()]
        assert len(copied) >= 2
        assert missing == []

    def test_every_package_of_the_project_is_copied(self, text: str) -> None:
        for package in ("gemmcast", "agent", "costmodel", "registry", "coordinator"):
            assert f"COPY {package} {package}\n" in text

    def test_packages_are_those_of_the_locks_and_are_checked(self, text: str) -> None:
        locks = "requirements.lock requirements-cuda13.lock"
        assert "-r requirements.lock -r requirements-cuda13.lock" in text
        assert f"python -m agent.packages {locks}" in text

    def test_python_is_the_one_the_locks_are_for(self, text: str) -> None:
        base = re.search(r"^FROM python:3\.(\d+)-", text, re.MULTILINE)
        assert base is not None and int(base[1]) >= 11

    def test_user_is_the_one_of_the_pods(self, text: str) -> None:
        head = read(KUBERAY / "cluster.yaml")["spec"]["headGroupSpec"]["template"]["spec"]
        assert f"--uid {head['securityContext']['runAsUser']} " in text
        assert head["securityContext"]["fsGroup"] == head["securityContext"]["runAsUser"]
