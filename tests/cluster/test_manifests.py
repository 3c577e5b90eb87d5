"""The manifests on a real Kubernetes: they apply, and their service accounts may do what steps need and no more."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml

from tests.cluster.step_pods import all_executors, compiled, step_pod
from tests.cluster.tool import MANIFESTS, PIPELINES, RUNNER, TOOL, TRIAL, TRIALS, Cluster, wait_for

pytestmark = pytest.mark.cluster

STOCK_WORKFLOW_CONTROLLER = {
    "artifactRepository": "archiveLogs: true\n",
    "executor": "imagePullPolicy: IfNotPresent\n",
    "workflowDefaults": "spec: {templateDefaults: {retryStrategy: {limit: '2', retryPolicy: OnError}}}\n",
}
"""The keys of `workflow-controller-configmap` of KFP 2.17, shortened."""


@pytest.mark.parametrize("overlay", ["gke", "local"])
def test_overlay_applies(cluster: Cluster, overlay):
    # A busy machine may restart Kueue, whose webhook checks what is applied.
    kueue = "deployment/kueue-controller-manager"
    cluster.kubectl("wait", "--for=condition=Available", kueue, "-n", "kueue-system", "--timeout=120s")
    done = cluster.run("apply", "--dry-run=server", "--validate=strict", "-k", str(MANIFESTS / "overlays" / overlay))
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if "last-applied-configuration" not in line]
    assert warnings == [], "PodSecurity warns here too"


def test_identities_of_gke_follow_the_settings(cluster: Cluster):
    objects = list(yaml.safe_load_all(cluster.kubectl("kustomize", str(MANIFESTS / "overlays" / "gke"))))
    accounts = {
        o["metadata"]["name"]: o["metadata"].get("annotations", {}) for o in objects if o["kind"] == "ServiceAccount"
    }
    settings = next(o["data"] for o in objects if o["kind"] == "ConfigMap")
    key = "iam.gke.io/gcp-service-account"
    assert accounts["tidemill-submitter"] == {}
    assert accounts[RUNNER] == accounts[TRIAL] == {key: f"tidemill-runner@{settings['accounts']}"}
    assert accounts["tidemill-tensorboard"] == {key: f"tidemill-viewer@{settings['accounts']}"}


@pytest.fixture
def controller(cluster: Cluster):
    """The settings of KFP's Argo, as KFP 2.17 installs them."""
    metadata = {"name": "workflow-controller-configmap", "namespace": PIPELINES}
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": STOCK_WORKFLOW_CONTROLLER}
    assert cluster.create(settings).returncode == 0
    yield metadata["name"]
    cluster.kubectl("delete", "configmap", metadata["name"], "-n", PIPELINES)


@pytest.mark.parametrize("folder", ["retries", "prestop"])
def test_settings_of_argo_replace_only_the_defaults_of_workflows(cluster: Cluster, controller, folder):
    patch = MANIFESTS / "argo" / folder / "workflow-controller-configmap.yaml"
    cluster.kubectl("patch", "configmap", controller, "-n", PIPELINES, "--patch-file", str(patch))
    data = cluster.get("configmap", controller, "-n", PIPELINES)["data"]
    defaults = yaml.safe_load(data.pop("workflowDefaults"))["spec"]
    assert data == {key: STOCK_WORKFLOW_CONTROLLER[key] for key in ("artifactRepository", "executor")}
    assert defaults["templateDefaults"]["retryStrategy"] == {
        "limit": "0",
        "retryPolicy": "Always",
        "expression": "lastRetry.status == 'Error' || asInt(lastRetry.exitCode) != 1",
    }
    assert ("podSpecPatch" in defaults) == (folder == "prestop")


@pytest.mark.parametrize("component", ["argo/retries", "argo/prestop", "kfp/non-root"])
def test_components_patch_the_manifests_of_kfp(cluster: Cluster, tmp_path, component):
    """A kustomization that holds KFP's own manifests can name the same patches as components."""
    folder = MANIFESTS / component
    [patch] = [yaml.safe_load(file.read_text()) for file in folder.glob("*.yaml") if file.name != "kustomization.yaml"]
    stock = patch | {"data": {"executor": "{}"}}
    (tmp_path / "kfp.yaml").write_text(yaml.safe_dump(stock))
    (tmp_path / "base").mkdir()
    relative = "/".join([".."] * len(tmp_path.parts[1:])) + str(folder)
    lines = {"resources": ["kfp.yaml"], "components": [relative]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(lines))
    built = yaml.safe_load(cluster.kubectl("kustomize", str(tmp_path)))
    assert built["data"] == patch["data"] | {"executor": "{}"}


MAY = [
    (RUNNER, PIPELINES, "create", "workflowtaskresults.argoproj.io"),
    (RUNNER, PIPELINES, "patch", "workflowtaskresults.argoproj.io"),
    (RUNNER, PIPELINES, "get", "workflows.argoproj.io"),
    (RUNNER, PIPELINES, "get", "pods"),
    (RUNNER, PIPELINES, "get", "configmaps/kfp-launcher"),
    (RUNNER, PIPELINES, "get", "secrets/mlpipeline-minio-artifact"),
    (RUNNER, TRIALS, "create", "experiments.kubeflow.org"),
    (RUNNER, TRIALS, "delete", "experiments.kubeflow.org"),
    (RUNNER, TRIALS, "watch", "trials.kubeflow.org"),
    (RUNNER, TRIALS, "get", "pods/log"),
    ("tidemill-submitter", PIPELINES, "create", "runs.pipelines.kubeflow.org"),
    ("tidemill-submitter", PIPELINES, "disable", "jobs.pipelines.kubeflow.org"),
]
MAY_NOT = [
    (RUNNER, PIPELINES, "get", "secrets"),
    (RUNNER, PIPELINES, "list", "secrets"),
    (RUNNER, PIPELINES, "get", "configmaps/workflow-controller-configmap"),
    (RUNNER, PIPELINES, "create", "pods"),
    (RUNNER, PIPELINES, "patch", "pods"),
    (RUNNER, PIPELINES, "delete", "pods"),
    (RUNNER, PIPELINES, "create", "pods/exec"),
    (RUNNER, PIPELINES, "create", "workflows.argoproj.io"),
    (RUNNER, PIPELINES, "delete", "workflowtaskresults.argoproj.io"),
    (RUNNER, PIPELINES, "create", "deployments.apps"),
    (RUNNER, PIPELINES, "create", "jobs.batch"),
    (RUNNER, PIPELINES, "create", "rolebindings.rbac.authorization.k8s.io"),
    (RUNNER, PIPELINES, "create", "serviceaccounts/token"),
    (RUNNER, PIPELINES, "create", "experiments.kubeflow.org"),
    (RUNNER, TRIALS, "create", "pods"),
    (RUNNER, TRIALS, "patch", "trials.kubeflow.org"),
    (RUNNER, TRIALS, "get", "secrets"),
    (RUNNER, "default", "get", "pods"),
    (RUNNER, "", "list", "nodes"),
    ("tidemill-submitter", PIPELINES, "get", "secrets"),
    ("tidemill-submitter", PIPELINES, "create", "pods"),
    ("tidemill-submitter", PIPELINES, "create", "workflows.argoproj.io"),
    ("tidemill-tensorboard", PIPELINES, "get", "pods"),
    (TRIAL, TRIALS, "get", "pods"),
    (TRIAL, TRIALS, "create", "experiments.kubeflow.org"),
    (TRIAL, TRIALS, "get", "secrets"),
    (TRIAL, PIPELINES, "get", "configmaps/kfp-launcher"),
]


def reviews(rows: list[tuple[str, str, str, str]], cluster: Cluster) -> list[bool]:
    """Returns for each row whether the service account may do it, as `kubectl auth can-i` asks."""
    asked = []
    for account, namespace, verb, resource in rows:
        kind, _, rest = resource.partition("/")
        name, subresource = ("", rest) if rest in ("exec", "log", "token") else (rest, "")
        plural, _, group = kind.partition(".")
        home = TRIALS if account == TRIAL else PIPELINES
        attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": plural}
        attributes |= {"subresource": subresource, "name": name}
        spec = {"user": f"system:serviceaccount:{home}:{account}", "resourceAttributes": attributes}
        asked.append({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec})
    text = "\n---\n".join(json.dumps(review) for review in asked)
    answer = cluster.kubectl("create", "-f", "-", "-o", "jsonpath={.status.allowed}{'\\n'}", stdin=text)
    return [line == "true" for line in answer.split()]


def test_service_accounts_may_do_what_steps_need(cluster: Cluster):
    assert [row for row, allowed in zip(MAY, reviews(MAY, cluster), strict=True) if not allowed] == []


def test_service_accounts_may_do_no_more(cluster: Cluster):
    assert [row for row, allowed in zip(MAY_NOT, reviews(MAY_NOT, cluster), strict=True) if allowed] == []


def test_kubectl_agrees_with_the_tables(cluster: Cluster):
    """`kubectl auth can-i` for one row of each table: it asks what `reviews` asks."""
    for row, expected in ((MAY[4], "yes"), (MAY_NOT[2], "no")):
        account, namespace, verb, resource = row
        as_account = f"--as=system:serviceaccount:{PIPELINES}:{account}"
        assert cluster.run("auth", "can-i", verb, resource, "-n", namespace, as_account).stdout.strip() == expected


TRY = """
import json, ssl, sys, urllib.error, urllib.request
folder = "/var/run/secrets/kubernetes.io/serviceaccount"
token = open(f"{folder}/token").read()
context = ssl.create_default_context(cafile=f"{folder}/ca.crt")
for method, path, body in json.loads(sys.argv[1]):
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request("https://kubernetes.default.svc" + path, data, headers, method=method)
    try:
        print(urllib.request.urlopen(request, context=context).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""


def test_step_tries_what_it_may_and_may_not_do(cluster: Cluster):
    """From within a step's pod, with its token."""
    core, name = f"/api/v1/namespaces/{PIPELINES}", "may-and-may-not"
    copy = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "copy"}, "spec": {"containers": []}}
    tries = [
        ("GET", f"{core}/pods/{name}", None, "200"),
        ("GET", f"{core}/configmaps/kfp-launcher", None, "404"),  # allowed; KFP is not installed here
        ("GET", f"{core}/configmaps/kube-root-ca.crt", None, "403"),
        ("GET", f"{core}/secrets", None, "403"),
        ("POST", f"{core}/pods", copy, "403"),
        ("DELETE", f"{core}/pods/{name}", None, "403"),
        ("GET", "/api/v1/nodes", None, "403"),
        ("GET", f"/api/v1/namespaces/{TRIALS}/pods", None, "200"),
        ("GET", f"/api/v1/namespaces/{TRIALS}/secrets", None, "403"),
    ]
    requests = json.dumps([[method, path, body] for method, path, body, _ in tries])
    pod = step_pod(compiled("train"), "exec-fan-out", name, command=["python3", "-c", TRY, requests])
    with cluster.pods(pod):
        cluster.await_phase(name, "Succeeded", "Failed")
        assert cluster.logs(name).split() == [status for *_, status in tries]


def test_trial_has_no_token(cluster: Cluster):
    pod = step_pod(compiled("train"), "exec-fan-out", "trial", command=["ls", "/var/run/secrets"])
    pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"] = TRIALS, TRIAL
    with cluster.pods(pod):
        assert "volumes" in pod["spec"]
        cluster.await_phase("trial", "Failed", namespace=TRIALS)
        assert "No such file" in cluster.logs("trial", TRIALS)


@pytest.mark.parametrize("pipeline", sorted({pipeline for pipeline, _ in all_executors()}))
def test_pods_of_all_steps_fit_the_restricted_profile(cluster: Cluster, pipeline):
    executors = [executor for name, executor in all_executors() if name == pipeline]
    pods = [step_pod(compiled(pipeline), executor, f"fits-{executor}") for executor in executors]
    assert cluster.create(*pods, dry_run=True).returncode == 0


def test_restricted_profile_is_enforced(cluster: Cluster):
    """Without KFP's settings of manifests/kfp/non-root steps are refused."""
    pod = step_pod(compiled("train"), "exec-fan-out", "refused", non_root=False)
    refused = cluster.create(pod, dry_run=True).stderr
    assert 'violates PodSecurity "restricted' in refused and "runAsNonRoot" in refused
    as_root = step_pod(compiled("train"), "exec-fan-out", "refused")
    as_root["spec"]["containers"][0]["securityContext"]["runAsUser"] = 0
    assert "runAsUser=0" in cluster.create(as_root, dry_run=True).stderr


def test_quota_holds_for_gpus(cluster: Cluster):
    pod = step_pod(compiled("train"), "exec-fan-out", "greedy")
    pod["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "9"}}
    assert "exceeded quota: tidemill-steps" in cluster.create(pod, dry_run=True).stderr


HOOKED = """
import signal, sys, time
def end(number, frame):
    print("signaled", flush=True)
    time.sleep(3)
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(60)
"""
EXECUTOR = """
mkdir -p /tmp/kfp/dsl && touch /tmp/kfp/__init__.py /tmp/kfp/dsl/__init__.py
printf %s "$0" >/tmp/kfp/dsl/executor_main.py
trap 'sleep 1; exit 1' TERM
sh -c 'cd /tmp && python3 -m kfp.dsl.executor_main; exit $?' &
wait
"""
"""Ends a second after SIGTERM with all that it started, as Argo's executor does with KFP's launcher."""


@pytest.mark.parametrize("hook", [True, False])
def test_prestop_hook_gives_a_step_the_grace_period(cluster: Cluster, hook):
    settings = yaml.safe_load((MANIFESTS / "argo" / "prestop" / "workflow-controller-configmap.yaml").read_text())
    patch = yaml.safe_load(yaml.safe_load(settings["data"]["workflowDefaults"])["spec"]["podSpecPatch"])
    name = f"hooked-{hook}".lower()
    command = ["sh", "-ec", EXECUTOR, HOOKED]
    pod = step_pod(compiled("train"), "exec-train", name, command=command)
    pod["spec"]["containers"][0]["env"] = [{"name": "PYTHONPATH", "value": ""}]
    if hook:
        [main] = patch.pop("containers")
        assert main.pop("name") == "main"
        pod["spec"]["containers"][0].update(main)
        pod["spec"].update(patch)
    else:
        pod["spec"]["terminationGracePeriodSeconds"] = 60
    with cluster.pods(pod):
        wait_for(lambda: "ready" in cluster.run("logs", name, "-n", PIPELINES).stdout, "step that is ready")
        following = subprocess.Popen(
            [str(TOOL), "kubectl", "logs", "-f", name, "-n", PIPELINES], stdout=subprocess.PIPE, text=True
        )
        cluster.kubectl("delete", "pod", name, "-n", PIPELINES, "--wait=false")
        lines, _ = following.communicate(timeout=60)
    assert re.findall("ready|signaled|saved", lines) == (["ready", "signaled", "saved"] if hook else ["ready"])
