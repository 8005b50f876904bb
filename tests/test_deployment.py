"""The files of serving/deployment, each by a tool of its format: nothing is started but nginx."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from google.protobuf import text_format
from half_plus_two import write_half_plus_two
from running_server import running_server
from tensorflow_serving.config import model_server_config_pb2

from fcnseg.client import SegmentationClient
from fcnseg.networks.keras_compat import IS_KERAS_3
from serving.flags import FLAGS

ROOT = Path(__file__).parent.parent
DEPLOYMENT = ROOT / "serving" / "deployment"
MANIFESTS = ("deployment", "service", "autoscaler")
COMPOSE = yaml.safe_load((DEPLOYMENT / "docker-compose.yaml").read_text())
POD = yaml.safe_load((DEPLOYMENT / "kubernetes/deployment.yaml").read_text())["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
DOCKERFILE = (DEPLOYMENT / "Dockerfile").read_text()
SERVERS = {
    "compose": COMPOSE["services"]["server"]["command"],
    "kubernetes": CONTAINER["args"],
    "Dockerfile": re.findall(r'"(--[^"]+)"', DOCKERFILE),
}

METRICS = re.compile(r'__name__="(:tensorflow:serving:\w+)"')
# What TensorFlow Serving exports: a counter, and two histograms of microseconds.
HISTOGRAMS = ("request_latency", "runtime_latency")
KNOWN = {":tensorflow:serving:request_count"} | {
    f":tensorflow:serving:{name}_{part}"
    for name in HISTOGRAMS
    for part in ("bucket", "sum", "count")
}


present_line = pytest.mark.skipif(
    not IS_KERAS_3, reason="the extra dev, which has the schemas, takes TensorFlow 2.21"
)


def run(*argv):
    done = subprocess.run([sys.executable, "-m", *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@present_line
def test_compose_file_is_of_its_schema():
    schema = ("--builtin-schema", "vendor.compose-spec")
    run("check_jsonschema", *schema, str(DEPLOYMENT / "docker-compose.yaml"))


@present_line
@pytest.mark.parametrize(
    "path",
    [
        *(DEPLOYMENT / f"kubernetes/{name}.yaml" for name in MANIFESTS),
        ROOT / "tuning/k8s/search.yaml",
    ],
    ids=lambda path: path.stem,
)
def test_manifest_is_of_its_schema(path):
    run("kubernetes_validate", "--strict", str(path))


def test_each_manifest_is_applied():
    kustomization = yaml.safe_load((DEPLOYMENT / "kubernetes/kustomization.yaml").read_text())
    assert kustomization["resources"] == [f"{name}.yaml" for name in MANIFESTS]
    (maps,) = kustomization["configMapGenerator"]
    assert all((DEPLOYMENT / name).is_file() for name in maps["files"])
    assert {"name": maps["name"]} in [each.get("configMap") for each in POD["spec"]["volumes"]]


@pytest.mark.parametrize("place", SERVERS)
def test_flags_are_those_that_the_real_server_has_and_that_scans_need(place):
    given = dict(flag.removeprefix("--").split("=") for flag in SERVERS[place])
    assert given.keys() <= FLAGS.keys()
    assert given["rest_api_timeout_in_ms"] == "600000"
    assert given["enable_serialization_as_tensor_content"] == "true"
    assert given["enable_grpc_healthcheck_service"] == "true"
    assert given["allow_version_labels_for_unavailable_models"] == "true"
    assert given["model_config_file"] == "/config/models.config"


@pytest.mark.parametrize("page", ["deployment", "serving"])
def test_flags_on_the_pages_are_those_of_a_server(page):
    """`FLAGS` are those of the real server, with those of the commands that the pages run."""
    named = set(re.findall(r"(?<!-)--(\w+)=", (ROOT / f"docs/{page}.md").read_text()))
    assert named
    assert named <= FLAGS.keys()


def test_images_are_pinned_and_the_same_everywhere():
    images = {name: service["image"] for name, service in COMPOSE["services"].items()}
    assert all(re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", image) for image in images.values())
    (base,) = re.findall(r"^FROM (\S+)$", DOCKERFILE, re.MULTILINE)
    assert {base, CONTAINER["image"]} == {images["server"]}
    checked = subprocess.check_output(["make", "-n", "verify-docker"], cwd=ROOT, text=True)
    assert f"FCNSEG_TFSERVING_IMAGE={base} " in checked


def test_the_proxy_lets_in_as_many_requests_as_there_is_memory_for():
    """By the rule of the runbook: of 5 GB each, and as much again while a version changes."""
    proxy = (DEPLOYMENT / "nginx/nginx.conf").read_text()
    (at_once,) = re.findall(r"limit_conn all (\d+);", proxy)
    (gb,) = re.findall(r"\$\{MEMORY:-(\d+)g\}", COMPOSE["services"]["server"]["mem_limit"])
    assert int(at_once) == int(gb) // 5 - 1


def test_ports_are_of_this_machine_and_mounts_are_read_only():
    for service in COMPOSE["services"].values():
        for port in service.get("ports", ()):
            assert "127.0.0.1:" in port
        for volume in service.get("volumes", ()):
            source, *_, mode = volume.split(":")
            assert mode == "ro" or source in COMPOSE["volumes"]
    assert all(
        mount.get("readOnly") or mount["name"] == "tmp" for mount in CONTAINER["volumeMounts"]
    )


def halved(address, **options):
    """The answer of a served `half_plus_two` to 2, which is 1 and its offset."""
    with SegmentationClient(address, **options) as client:
        outputs = client._predict("serving_default", {"x": np.array([2.0], np.float32)})
    return outputs["y"].item()


def config_for(folder, *, with_examples):
    """`models.config` with the models in a folder, and the lines that it has as comments or not."""
    text = (DEPLOYMENT / "models.config").read_text().replace("/models/fcnseg", str(folder))
    examples = re.findall(r"^    # ((?:model_version_policy|version_labels) .*)$", text, re.M)
    assert len(examples) == 3
    for example in examples * with_examples:
        text = text.replace(f"# {example}", example)
    path = folder / "models.config"
    path.write_text(text)
    return path


def test_models_config_is_served_with_its_metrics(tmp_path):
    """As the real server's parser reads it, and as the local server does."""
    text = (DEPLOYMENT / "models.config").read_text()
    (config,) = text_format.Parse(
        text, model_server_config_pb2.ModelServerConfig()
    ).model_config_list.config
    assert (config.name, config.base_path) == ("fcnseg", "/models/fcnseg")
    write_half_plus_two(tmp_path / "1", offset=1.0)
    write_half_plus_two(tmp_path / "2", offset=2.0)
    flags = {"monitoring_config_file": DEPLOYMENT / "monitoring.config"}
    newest = config_for(tmp_path, with_examples=False)
    with running_server(None, model_config_file=newest, **flags) as (over_grpc, rest):
        assert halved(over_grpc) == 3
        with urllib.request.urlopen(f"{rest}/monitoring/prometheus/metrics") as response:
            metrics = response.read().decode()
    assert {name for name in KNOWN if name not in metrics} == set()
    labelled = config_for(tmp_path, with_examples=True)
    flags = {"allow_version_labels_for_unavailable_models": True}
    with running_server(None, model_config_file=labelled, **flags) as (over_grpc, rest):
        for address in (over_grpc, rest):
            assert halved(address, label="stable") == 2
            assert halved(address, label="canary") == 3
            assert halved(address, version=1) == 2


def test_probes_find_an_available_version_and_no_other(tmp_path):
    """The command that Kubernetes and Docker run, against a server."""
    (probe,) = {
        tuple(each[-3:])
        for each in (
            CONTAINER["startupProbe"]["exec"]["command"],
            CONTAINER["readinessProbe"]["exec"]["command"],
            COMPOSE["services"]["server"]["healthcheck"]["test"],
        )
    }
    write_half_plus_two(tmp_path / "1")
    with running_server(tmp_path) as (_, rest):
        port = rest.rpartition(":")[2]
        here = [part.replace("8501", port) for part in probe]
        assert subprocess.run(here, capture_output=True).returncode == 0
        other = [part.replace("models/fcnseg", "models/other") for part in here]
        assert subprocess.run(other, capture_output=True).returncode != 0
        with SegmentationClient(rest) as client:
            assert client.status()[0].state == "AVAILABLE"
    assert subprocess.run(here, capture_output=True).returncode != 0


def test_board_and_alerts_ask_for_metrics_that_are_there():
    board = json.loads((DEPLOYMENT / "grafana/dashboards/fcnseg.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    groups = yaml.safe_load((DEPLOYMENT / "prometheus/alerts.yaml").read_text())["groups"]
    queries += [rule["expr"] for group in groups for rule in group["rules"]]
    named = {name for query in queries for name in METRICS.findall(query)}
    assert named <= KNOWN
    assert len(named) >= 3
    assert all(query.count("(") == query.count(")") for query in queries)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) >= 6


def test_parts_of_the_monitoring_name_one_another():
    config = yaml.safe_load((DEPLOYMENT / "prometheus/prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    assert (DEPLOYMENT / "prometheus" / config["rule_files"][0]).is_file()
    assert f'path: "{job["metrics_path"]}"' in (DEPLOYMENT / "monitoring.config").read_text()
    assert job["static_configs"][0]["targets"] == ["server:8501"]
    folder = DEPLOYMENT / "grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())["datasources"]
    board = json.loads((DEPLOYMENT / "grafana/dashboards/fcnseg.json").read_text())
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}
    assert board["uid"] == "fcnseg"
    annotations = POD["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == job["metrics_path"]
