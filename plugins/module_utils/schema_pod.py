# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema of what only engine kubernetes reads: images, pods, Services of front proxies, policies.

What is Kubernetes' own goes through as it is. See schema_fields for the shape of a field.
"""

from __future__ import annotations

from ansible_collections.sidecar.mesh.plugins.module_utils.schema_fields import PORT, Field, Fields

_ANY: Field = {"type": "any"}
_TEXT: Field = {"type": "str"}
_LABELS: Field = {"type": "map", "items": _TEXT, "default": {}}
_OBJECTS: Field = {"type": "list", "items": {"type": "map", "items": _ANY}, "default": []}
_OBJECT: Field = {"type": "map", "items": _ANY, "default": {}}
_DEFAULT_RESOURCES = {"requests": {"cpu": "10m", "memory": "64Mi"}}

BUILD: Field = {
    "type": "dict",
    "shorthand": "context",
    "description": "Sources of the application's image, which role C(images) builds.",
    "example": {"context": "../shop", "args": {"BASE_IMAGE": "registry.example.com/node:22"}},
    "fields": {
        "context": {"type": "str", "required": True, "description": "Folder with the sources."},
        "dockerfile": {
            "type": "str",
            "description": "Dockerfile, by its path in the folder; V(Dockerfile) if not given.",
        },
        "args": {**_LABELS, "keys": "variable", "description": "Build arguments."},
        "target": {"type": "str", "description": "Stage of the Dockerfile; the last one if not given."},
    },
}

_PROBE: Fields = {
    "http": {
        "type": "dict",
        "shorthand": "path",
        "description": "An HTTP request; any status from 200 to 399 will do.",
        "fields": {
            "path": {"type": "str", "pattern": "path", "required": True, "description": "Its path."},
            "port": {**PORT, "description": "Port; the application's if not given."},
            "headers": {**_LABELS, "keys": "header", "description": "Its headers."},
        },
    },
    "grpc": {
        "type": "toggle",
        "description": "gRPC's standard health service.",
        "fields": {
            "service": {"type": "str", "default": "", "description": "Service that is asked for; empty: the server."},
            "port": {**PORT, "description": "Port; the application's if not given."},
        },
    },
    "tcp": {
        "type": "toggle",
        "description": "A connection.",
        "fields": {"port": {**PORT, "description": "Port; the application's if not given."}},
    },
    "exec": {
        "type": "dict",
        "description": "A command in the application's container; it ends with 0 if all is well.",
        "fields": {
            "command": {
                "type": "list",
                "items": _TEXT,
                "required": True,
                "description": "The command and its arguments.",
            }
        },
    },
}
PROBE_KINDS = tuple(_PROBE)

PROBE: Fields = {
    **_PROBE,
    "period": {"type": "duration", "minimum": 1, "default": "5s", "description": "Time between two probes."},
    "timeout": {"type": "duration", "minimum": 1, "default": "2s", "description": "Time for an answer."},
    "initial_delay": {"type": "duration", "default": "0s", "description": "Time before the first probe."},
    "failure_threshold": {
        "type": "int",
        "minimum": 1,
        "maximum": 100000,
        "default": 3,
        "description": "Failures in a row that count.",
    },
    "success_threshold": {
        "type": "int",
        "minimum": 1,
        "maximum": 100000,
        "default": 1,
        "description": "Successes in a row after a failure; V(1) for startup and liveness.",
    },
}

PROBES: Field = {
    "type": "dict",
    "default": {},
    "description": (
        "The kubelet's probes of the application, each of one kind: http, grpc, tcp or exec. They go to the "
        "application's own port, not through its sidecar. Times are whole seconds."
    ),
    "example": {
        "startup": {"tcp": True, "failure_threshold": 60},
        "readiness": {"http": "/ready"},
        "liveness": {"http": "/alive", "period": "10s"},
    },
    "fields": {
        "startup": {
            "type": "toggle",
            "fields": PROBE,
            "description": "The others wait for it; an application that never passes is restarted.",
        },
        "readiness": {
            "type": "toggle",
            "fields": PROBE,
            "description": (
                "A pod that fails gets no requests. By default what O(health_check) asks, and without one a connection "
                "to the application's port; V(false) for none."
            ),
        },
        "liveness": {"type": "toggle", "fields": PROBE, "description": "An application that fails is restarted."},
    },
}

_EVERY_POD: Fields = {
    "labels": {
        **_LABELS,
        "description": "More labels of the pods. C(app) and C(app.kubernetes.io/…) are the mesh's.",
    },
    "annotations": {**_LABELS, "description": "Annotations of the pods."},
    "volumes": {
        **_OBJECTS,
        "description": "Volumes, as in Kubernetes. Names that begin with C(mesh-) are the mesh's.",
        "example": [{"name": "data", "emptyDir": {}}],
    },
    "node_selector": {**_LABELS, "description": "Labels of the nodes that may run it."},
    "tolerations": {**_OBJECTS, "description": "Taints that it tolerates, as in Kubernetes."},
    "affinity": {**_OBJECT, "description": "Affinity, as in Kubernetes."},
    "topology_spread": {
        "type": "list",
        "items": {"type": "map", "items": _ANY},
        "description": (
            "C(topologySpreadConstraints), as in Kubernetes. Spread over nodes, as far as that goes, if not given."
        ),
    },
    "priority_class": {"type": "str", "description": "Name of its PriorityClass."},
    "service_account": {
        "type": "str",
        "description": "A ServiceAccount of yours; by default each service has its own, without any rights.",
    },
    "mount_token": {
        "type": "bool",
        "default": False,
        "description": "Whether the pods get the ServiceAccount's token, with which programs call the API server.",
    },
    "image_pull_secrets": {
        "type": "list",
        "items": _TEXT,
        "default": [],
        "description": "Names of Secrets for the registry, beside those of O(mesh_image_pull_secrets).",
    },
}

POD: Field = {
    "type": "dict",
    "default": {},
    "description": "The pod, and the application's container in it (engine V(kubernetes)).",
    "example": {
        "env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "shop", "key": "password"}}}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
    },
    "fields": {
        "command": {"type": "list", "items": _TEXT, "description": "Command of the container instead of the image's."},
        "args": {"type": "list", "items": _TEXT, "description": "Arguments instead of the image's."},
        "working_dir": {"type": "str", "pattern": "path", "description": "Working directory instead of the image's."},
        "env": {**_OBJECTS, "description": "More environment variables, as in Kubernetes; see O(environment) first."},
        "env_from": {**_OBJECTS, "description": "ConfigMaps and Secrets as environment, as in Kubernetes."},
        "volume_mounts": {**_OBJECTS, "description": "Where volumes appear in the application's container."},
        "resources": {**_OBJECT, "description": "Requests and limits of the application's container."},
        "security_context": {
            **_OBJECT,
            "description": (
                "Merged into that of the application's container, which is as strict as the restricted Pod Security "
                "Standard asks, and has a read-only root file system with a writable C(/tmp)."
            ),
            "example": {"runAsUser": 10001, "readOnlyRootFilesystem": False},
        },
        "image_pull_policy": {
            "type": "str",
            "choices": ("Always", "IfNotPresent", "Never"),
            "description": "When the application's image is pulled.",
        },
        "init_containers": {
            **_OBJECTS,
            "description": "Containers that run before the application, and after the sidecar has started.",
        },
        "stop_timeout": {
            "type": "duration",
            "default": "30s",
            "description": "Time for the application to end after it was told to, and gets no requests any more.",
        },
        **_EVERY_POD,
    },
}

FRONT_POD: Field = {
    "type": "dict",
    "default": {},
    "description": "The front proxy's pods (engine V(kubernetes)).",
    "fields": _EVERY_POD,
}

_PATCHES = {
    "deployment": "Merged into the Deployment.",
    "container": "Merged into the application's container.",
    "envoy": "Merged into Envoy's container.",
    "service": "Merged into the Service.",
    "config_map": "Merged into the ConfigMap.",
    "service_account": "Merged into the ServiceAccount.",
    "pod_disruption_budget": "Merged into the PodDisruptionBudget.",
}


def kubernetes_patch(*without: str) -> Field:
    """The field kubernetes_patch with all levels but some."""
    return {
        "type": "dict",
        "description": (
            "JSON merge patch (RFC 7396) for what the model does not name in Kubernetes' objects: dicts are merged, "
            "null removes, lists are replaced."
        ),
        "example": {"deployment": {"spec": {"replicas": None}}},
        "fields": {
            level: {"type": "map", "items": _ANY, "description": text}
            for level, text in _PATCHES.items()
            if level not in without
        },
    }


EXPOSE: Field = {
    "type": "dict",
    "shorthand": "type",
    "default": {},
    "description": "How clients outside the cluster reach a front proxy (engine V(kubernetes)).",
    "example": {"type": "NodePort", "node_ports": {443: 30443}},
    "fields": {
        "type": {
            "type": "str",
            "choices": ("LoadBalancer", "NodePort", "ClusterIP"),
            "description": "Type of the Service; V(LoadBalancer), or V(ClusterIP) with O(host_ports), if not given.",
        },
        "external_traffic_policy": {
            "type": "str",
            "choices": ("Cluster", "Local"),
            "description": "V(Local) keeps the clients' addresses, and passes requests to pods of the same node only.",
        },
        "node_ports": {
            "type": "map",
            "keys": "port",
            "items": PORT,
            "default": {},
            "description": "Node ports by the listeners' ports; Kubernetes chooses those that are not given.",
        },
        "annotations": {**_LABELS, "description": "Annotations of the Service."},
        "load_balancer_class": {"type": "str", "description": "Which load balancer serves it."},
        "load_balancer_source_ranges": {
            "type": "list",
            "items": {"type": "str", "pattern": "cidr"},
            "default": [],
            "description": "Networks of the clients that the load balancer lets pass.",
        },
        "host_ports": {
            "type": "bool",
            "default": False,
            "description": (
                "The listeners' ports are opened on the nodes themselves. The namespace's Pod Security must be "
                "V(privileged), a node runs one replica, and an update stops one replica before it starts another."
            ),
        },
    },
}

_PEER: Fields = {
    "app": {"type": "str", "description": "Pods with this label C(app)."},
    "pods": {**_LABELS, "description": "Pods with these labels; all, if neither this nor O(app) is given."},
    "namespace": {"type": "str", "description": "Namespace of the pods, V(*) for any; the mesh's if not given."},
    "cidr": {"type": "str", "pattern": "cidr", "description": "A network outside the cluster, in place of pods."},
}
_PORTS: Field = {
    "type": "list",
    "items": PORT,
    "default": [],
    "description": "TCP ports; any if none is given.",
}

ALLOW_FROM: Field = {
    "type": "list",
    "items": {"type": "dict", "shorthand": "app", "fields": _PEER},
    "default": [],
    "description": (
        "Who may call it beside the services and front proxies that name it, for network policies (engine "
        "V(kubernetes))."
    ),
}

ALLOW_TO: Field = {
    "type": "list",
    "items": {
        "type": "dict",
        "shorthand": "host",
        "fields": {
            "host": {"type": "str", "pattern": "host_name", "description": "A DNS name outside the mesh."},
            **_PEER,
            "ports": _PORTS,
        },
    },
    "default": [],
    "description": "What its pods may call beside their upstreams, for network policies (engine V(kubernetes)).",
}

NETWORK_POLICY: Field = {
    "type": "toggle",
    "default": {},
    "description": (
        "Policies made from the mesh's edges: who may call whom, and nothing else (engine V(kubernetes), where the "
        "cluster's network enforces policies)."
    ),
    "fields": {
        "kind": {
            "type": "str",
            "choices": ("auto", "cilium", "kubernetes"),
            "default": "auto",
            "description": "CiliumNetworkPolicy or NetworkPolicy; V(auto) is Cilium's where the cluster has it.",
        },
        "metrics_from": {
            "type": "list",
            "items": {"type": "dict", "shorthand": "app", "fields": _PEER},
            "default": [],
            "description": "Who may read metrics; anyone if none is given.",
            "example": [{"app": "prometheus", "namespace": "monitoring"}],
        },
        "dns": {
            "type": "list",
            "items": {"type": "dict", "shorthand": "app", "fields": _PEER},
            "default": [{"namespace": "kube-system", "pods": {"k8s-app": "kube-dns"}}],
            "description": "The cluster's DNS servers.",
        },
    },
}

# What one Envoy's container has beside its settings.
ENVOY_CONTAINER: Fields = {
    "image": {"type": "str", "description": "Envoy's image; that of the mesh if not given (engine V(kubernetes))."},
    "resources": {
        **_OBJECT,
        "default": _DEFAULT_RESOURCES,
        "description": "Requests and limits of Envoy's container (engine V(kubernetes)).",
    },
    "volume_mounts": {
        **_OBJECTS,
        "description": "Where the pod's volumes appear in Envoy's container (engine V(kubernetes)).",
    },
}

IMAGES: Fields = {
    "envoy_image": {
        "type": "str",
        "default": "docker.io/envoyproxy/envoy:v1.40.0",
        "description": "Image of every Envoy (engine V(kubernetes)).",
    },
    "image_pull_secrets": {
        "type": "list",
        "items": _TEXT,
        "default": [],
        "description": "Names of Secrets for the registries of all images (engine V(kubernetes)).",
    },
    "images": {
        "type": "map",
        "items": _TEXT,
        "default": {},
        "description": "References of built images by service. Role C(images) sets it.",
    },
}
