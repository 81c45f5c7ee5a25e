"""What `docs/deploy.md` shows for Docker and Kubernetes fits the files in `deploy/`.

No cluster and no registry is here; the image is built and run by the tests of sandbox-docker.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from documented import ROOT, documented
from terminal import steps

PAGE = "docs/deploy.md"
DEPLOY = ROOT / "deploy"


def kubernetes() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8")))


def test_the_image_has_the_arguments() -> None:
    (build,) = steps(documented(PAGE, "docker build"))
    given = [word.partition("=")[0] for word in build.words if re.match("[A-Z]+=", word)]
    dockerfile = (DEPLOY / "Dockerfile").read_text("utf-8")

    assert len(given) > 1
    assert [] == [name for name in given if f"\nARG {name}" not in dockerfile]
    assert build.words[build.words.index("--file") + 1] == "deploy/Dockerfile"


def test_workflows_go_on_top_of_the_image() -> None:
    base, copy, command = documented(PAGE, "FROM ").content.splitlines()
    dockerfile = (DEPLOY / "Dockerfile").read_text("utf-8")

    assert "FROM sandbox-worker" == base
    assert copy.split()[2].startswith(re.findall(r"^WORKDIR (\S+)$", dockerfile, re.M)[-1])
    assert re.match(r'CMD \["[\w.]+:\w+", "--openai"\]', command)
    assert 'ENTRYPOINT ["sandbox-core", "worker"]' in dockerfile


def test_compose_has_what_is_scaled_and_set() -> None:
    *_, up = steps(documented(PAGE, "make image"))
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    service, _, _ = up.words[up.words.index("--scale") + 1].partition("=")

    assert service in yaml.safe_load(text)["services"]
    assert f"${{{up.command.partition('=')[0]}:-" in text


def test_the_secret_has_the_keys_that_the_pods_read() -> None:
    create, apply = steps(documented(PAGE, "kubectl create secret"))
    (deployment,) = (each for each in kubernetes() if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    read = {
        (each["valueFrom"]["secretKeyRef"]["name"], each["valueFrom"]["secretKeyRef"]["key"])
        for each in container["env"]
    }
    given = set(re.findall(r"--from-literal=(\w+)", create.command))

    assert {(create.words[4], key) for key in given} == read
    assert (ROOT / apply.words[-1]).is_file()


def test_the_deployment_is_called_so() -> None:
    (deployment,) = (each for each in kubernetes() if each["kind"] == "Deployment")
    for step in steps(documented(PAGE, "kubectl exec")):
        assert step.words[2] == f"deploy/{deployment['metadata']['name']}"
