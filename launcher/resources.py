"""The kinds of objects mtft reads and writes, and the addresses the API server keeps them under."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True)
class Resource:
    """One kind of object.

    Attributes:
        kind: name in manifests.
        plural: name in addresses and in RBAC rules.
        group: API group; empty for the core one.
        namespaced: False for kinds that belong to the whole cluster.
    """

    kind: str
    plural: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Return ``apiVersion`` as manifests write it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def rbac_name(self) -> str:
        """Return the name in messages of the API server: ``pytorchjobs.kubeflow.org``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None, name: str | None = None, part: str | None = None) -> str:
        """Return the address of a collection, an object or a part of it (``status``, ``log``).

        Args:
            namespace: None for all of them, or for a kind that has none.
        """
        top = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{quote(namespace, safe='')}" if namespace and self.namespaced else ""
        tail = "".join(f"/{quote(each, safe='')}" for each in (name, part) if each)
        return f"{top}{place}/{self.plural}{tail}"


JOBS = Resource("PyTorchJob", "pytorchjobs", "kubeflow.org")
CONFIG_MAPS = Resource("ConfigMap", "configmaps")
PODS = Resource("Pod", "pods")
EVENTS = Resource("Event", "events")
CLAIMS = Resource("PersistentVolumeClaim", "persistentvolumeclaims")
QUOTAS = Resource("ResourceQuota", "resourcequotas")
LIMIT_RANGES = Resource("LimitRange", "limitranges")
SECRETS = Resource("Secret", "secrets")
SERVICES = Resource("Service", "services")
NAMESPACES = Resource("Namespace", "namespaces", namespaced=False)
NODES = Resource("Node", "nodes", namespaced=False)
DEPLOYMENTS = Resource("Deployment", "deployments", "apps")
ACCESS_REVIEWS = Resource(
    "SelfSubjectAccessReview", "selfsubjectaccessreviews", "authorization.k8s.io", namespaced=False
)
NETWORK_POLICIES = Resource("NetworkPolicy", "networkpolicies", "networking.k8s.io")
WORKLOADS = Resource("Workload", "workloads", "kueue.x-k8s.io", "v1beta1")
LOCAL_QUEUES = Resource("LocalQueue", "localqueues", "kueue.x-k8s.io", "v1beta1")


def of_manifest(manifest: dict[str, object]) -> Resource:
    """Return the resource of a manifest mtft renders.

    Raises:
        KeyError: mtft renders no such kind.
    """
    return {each.kind: each for each in (JOBS, CONFIG_MAPS, CLAIMS, PODS)}[str(manifest["kind"])]
