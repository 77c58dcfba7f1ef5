"""The Kubernetes objects fit the API's own schemas, the service's own settings, and each other."""

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from service.settings import Settings
from tests.balancers import program
from tests.serving import ROOT

FOLDER = ROOT / "deploy/kubernetes"
VERSIONS = ("1.29", "1.33")


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def base() -> dict[str, Any]:
    """The base's objects by kind, with the labels that its kustomization adds."""
    kustomization = read("base/kustomization.yaml")
    objects = {thing["kind"]: thing for thing in (read(f"base/{name}") for name in kustomization["resources"])}
    assert len(objects) == len(kustomization["resources"]) == len(list((FOLDER / "base").glob("*.yaml"))) - 1
    return objects


def patched(document: Any, operations: list[dict[str, Any]]) -> Any:
    """A JSON patch (RFC 6902; `add` and `replace` of members) applied."""
    document = copy.deepcopy(document)
    for operation in operations:
        *path, last = [part.replace("~1", "/") for part in operation["path"].split("/")[1:]]
        place = document
        for part in path:
            place = place[int(part) if isinstance(place, list) else part]
        assert operation["op"] in ("add", "replace")
        assert (last in place) is (operation["op"] == "replace"), operation
        place[last] = operation["value"]
    return document


def on_gpu(kind: str) -> dict[str, Any]:
    """The base's object of a kind as the GPU variant patches it."""
    patches = {patch["target"]["kind"]: patch for patch in read("gpu/kustomization.yaml")["patches"]}
    assert set(patches) == {"Deployment", "HorizontalPodAutoscaler"}
    assert patches[kind]["target"]["name"] == base()[kind]["metadata"]["name"]
    found: dict[str, Any] = patched(base()[kind], read(f"gpu/{patches[kind]['path']}"))
    return found


def kustomized(variant: str) -> dict[str, Any]:
    """The objects by kind that the real Kustomize makes of a variant."""
    if (kustomize := program("kustomize")) is not None:
        command = [kustomize, "build"]
    elif (kubectl := program("kubectl")) is not None:
        command = [kubectl, "kustomize"]
    else:
        pytest.skip("neither kustomize nor kubectl is installed")
    run = subprocess.run([*command, FOLDER / variant], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    objects = list(yaml.safe_load_all(run.stdout))
    kinds = {thing["kind"]: thing for thing in objects}
    assert len(kinds) == len(objects)
    return kinds


def closed(schema: Any) -> Any:
    """A schema that refuses members it does not name, as the API server's strict validation does."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {name: closed(part) for name, part in schema.items()}
    return {"additionalProperties": False} | parts if "properties" in schema and "type" in schema else parts


def validate(thing: dict[str, Any], version: str) -> None:
    """An object against the schema of its kind: Kubernetes' own, or KEDA's."""
    if thing["kind"] == "ScaledObject":
        schema = json.loads((ROOT / "tests/deploy/keda-scaledobject.json").read_text())
        schema["properties"]["metadata"]["additionalProperties"] = True
        jsonschema.validate(thing, closed(schema))
    else:
        kubernetes_validate.validate(thing, version, strict=True)


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = base()["Deployment"]["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    found: dict[str, Any] = only
    return found


def settings() -> Settings:
    """What the container's variables make of the service; unknown ones would be refused by name."""
    values = {entry["name"]: entry["value"] for entry in container()["env"] if "value" in entry}
    fields = {name.removeprefix("WHISPER_").lower(): value for name, value in values.items()}
    assert set(fields) <= set(Settings.model_fields)
    return Settings(**fields)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "thing",
    [*base().values(), *map(on_gpu, ("Deployment", "HorizontalPodAutoscaler")), read("keda/scaledobject.yaml")],
    ids=lambda thing: thing["kind"],
)
def test_objects_fit_the_schemas(thing: dict[str, Any], version: str) -> None:
    validate(thing, version)


def test_the_schemas_refuse_what_is_wrong() -> None:
    wrong = patched(base()["Deployment"], [{"op": "add", "path": "/spec/replica", "value": 2}])
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(wrong, VERSIONS[-1])
    scaler = read("keda/scaledobject.yaml")
    for path, value in (("/spec/minReplicas", 2), ("/spec/triggers", []), ("/spec/cooldownPeriod", "10 min")):
        operation = {
            "op": "replace" if path.rpartition("/")[2] in scaler["spec"] else "add",
            "path": path,
            "value": value,
        }
        with pytest.raises(jsonschema.ValidationError):
            validate(patched(scaler, [operation]), VERSIONS[-1])


@pytest.mark.parametrize(
    ("variant", "scaler", "image"),
    [
        ("base", "HorizontalPodAutoscaler", "registry.example/whisper-service:1"),
        ("gpu", "HorizontalPodAutoscaler", "registry.example/whisper-service:1-cuda"),
        ("keda", "ScaledObject", "registry.example/whisper-service:1"),
    ],
)
def test_what_kustomize_makes_of_a_variant_fits_too(variant: str, scaler: str, image: str) -> None:
    objects = kustomized(variant)
    assert set(objects) == set(base()) - {"HorizontalPodAutoscaler"} | {scaler}
    for thing in objects.values():
        for version in VERSIONS:
            validate(thing, version)
        assert thing["kind"] == "Namespace" or thing["metadata"]["namespace"] == "whisper"
    template = objects["Deployment"]["spec"]["template"]
    (only,) = template["spec"]["containers"]
    assert only["image"] == image
    assert ("nvidia.com/gpu" in only["resources"]["limits"]) is (variant == "gpu")
    if scaler == "HorizontalPodAutoscaler":
        expected = (on_gpu(scaler) if variant == "gpu" else base()[scaler])["spec"]
        assert objects[scaler]["spec"] == expected
    selectors = [
        objects["Deployment"]["spec"]["selector"]["matchLabels"],
        objects["Service"]["spec"]["selector"],
        objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    assert selectors == [template["metadata"]["labels"]] * 4
    assert objects[scaler]["spec"]["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]


def test_pods_are_locked_down() -> None:
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["securityContext"]["runAsUser"] == 10001
    assert pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod()["automountServiceAccountToken"] is False
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    (tmp,) = [volume for volume in pod()["volumes"] if volume["name"] == "tmp"]
    assert tmp["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}
    assert base()["NetworkPolicy"]["spec"]["egress"] == []


def test_probes_ask_the_right_endpoints() -> None:
    assert container()["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container()["readinessProbe"]["httpGet"]["path"] == "/readyz"
    (port,) = container()["ports"]
    assert port["containerPort"] == settings().port
    named = [probe["httpGet"]["port"] for probe in (container()["livenessProbe"], container()["readinessProbe"])]
    (service,) = base()["Service"]["spec"]["ports"]
    (ingress,) = base()["NetworkPolicy"]["spec"]["ingress"]
    assert {*named, service["targetPort"], ingress["ports"][0]["port"]} == {port["name"]}


def test_kubernetes_waits_longer_than_a_drain_and_the_drain_longer_than_a_probe() -> None:
    pause = int(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod()["terminationGracePeriodSeconds"] > pause + settings().drain_seconds + 2
    probe = container()["readinessProbe"]
    assert pause + settings().drain_accept_seconds > probe["periodSeconds"] * probe["failureThreshold"]


def test_threads_are_the_cores_that_are_asked_for() -> None:
    assert settings().threads_per_worker == int(container()["resources"]["requests"]["cpu"])


def test_a_pod_has_the_memory_of_a_replica_of_the_composition() -> None:
    composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["whisper-1"]["mem_limit"]
    assert container()["resources"]["limits"]["memory"] == composed.replace("g", "Gi")


def test_the_monitor_of_the_guide_finds_the_pods_and_their_key() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/operations.md").read_text(), re.DOTALL)
    monitor = yaml.safe_load(text)
    added = read("base/kustomization.yaml")["labels"][0]["pairs"]
    labels = base()["Deployment"]["spec"]["template"]["metadata"]["labels"] | added
    assert monitor["spec"]["selector"]["matchLabels"] == labels
    assert labels[monitor["spec"]["jobLabel"]] == "whisper"
    assert monitor["metadata"]["namespace"] == read("base/kustomization.yaml")["namespace"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == container()["ports"][0]["name"]
    (keys,) = [entry["valueFrom"]["secretKeyRef"] for entry in container()["env"] if "valueFrom" in entry]
    assert endpoint["authorization"]["credentials"]["name"] == keys["name"]


def test_everything_selects_the_pods() -> None:
    objects = base()
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["Service"]["spec"]["selector"] == labels
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels


@pytest.mark.parametrize("variant", ["base", "gpu", "keda"])
def test_an_upgrade_leaves_the_number_of_replicas_to_the_autoscaler(variant: str) -> None:
    objects = kustomized(variant)
    assert ("HorizontalPodAutoscaler" in objects) != ("ScaledObject" in objects)
    assert "replicas" not in objects["Deployment"]["spec"]


def test_both_autoscalers_ask_for_the_same() -> None:
    scaler, keda = base()["HorizontalPodAutoscaler"]["spec"], read("keda/scaledobject.yaml")["spec"]
    name = base()["Deployment"]["metadata"]["name"]
    assert scaler["scaleTargetRef"]["name"] == keda["scaleTargetRef"]["name"] == name
    (metric,), (trigger,) = scaler["metrics"], keda["triggers"]
    assert metric["pods"]["target"]["averageValue"] == trigger["metadata"]["threshold"]
    assert f"sum({metric['pods']['metric']['name']}{{" in trigger["metadata"]["query"]
    assert f'"{metric["pods"]["metric"]["name"]}"' in (ROOT / "service/http/metrics.py").read_text()
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (keda["minReplicaCount"], keda["maxReplicaCount"])


def test_the_guide_derives_the_autoscalers_target_from_the_throughput_it_names() -> None:
    guide = (ROOT / "docs/operations.md").read_text()
    (metric,) = base()["HorizontalPodAutoscaler"]["spec"]["metrics"]
    ((target, throughput),) = re.findall(r"30 s of waiting: (\d+) for T = ([\d.]+\d)", guide)
    assert target == metric["pods"]["target"]["averageValue"]
    assert abs(int(target) - 30 * float(throughput)) <= 5
    assert f"T = {throughput} " in guide
    assert f": {target} seconds of it" in (FOLDER / "base/autoscaling.yaml").read_text()


def test_the_target_of_a_gpu_is_derived_from_a_throughput_and_reached_before_a_replica_refuses() -> None:
    (metric,) = on_gpu("HorizontalPodAutoscaler")["spec"]["metrics"]
    target = int(metric["pods"]["target"]["averageValue"])
    comment = (FOLDER / "gpu/autoscaling.yaml").read_text()
    ((named, throughput),) = re.findall(r"(\d+) assumes T = (\d+)", comment)
    assert target == int(named) == 30 * int(throughput)
    assert f"has {target}, for an assumed T of {throughput}:" in (ROOT / "docs/operations.md").read_text()
    assert f"({settings().max_queue_audio_seconds:.0f})" in comment
    (of_a_cpu,) = base()["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert int(of_a_cpu["pods"]["target"]["averageValue"]) < target < settings().max_queue_audio_seconds / 2


@pytest.mark.parametrize("variant", ["gpu", "keda"])
def test_variants_name_files_that_exist(variant: str) -> None:
    kustomization = read(f"{variant}/kustomization.yaml")
    names = [*kustomization["resources"], *(patch["path"] for patch in kustomization["patches"])]
    assert all((FOLDER / variant / name).exists() for name in names)
    present = {path.name for path in Path(FOLDER / variant).glob("*.yaml")}
    assert present == {"kustomization.yaml", *(name for name in names if name != "../base")}


def test_the_gpu_variant_asks_for_one() -> None:
    (only,) = on_gpu("Deployment")["spec"]["template"]["spec"]["containers"]
    assert only["resources"]["limits"]["nvidia.com/gpu"] == 1
