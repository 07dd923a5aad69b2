"""What KubeRay's API (ray.io/v1) takes of what is written here, as a JSON schema; unknown fields are refused.

A subset of our own: the fields that `cluster.manifests.kubernetes` uses, with the types and limits of the API
(https://github.com/ray-project/kuberay, `ray-operator/apis/ray/v1/*_types.go`) and of Kubernetes' pods.
"""

from collections.abc import Sequence
from typing import Any

import jsonschema

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string", "minLength": 1}
_COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_NAME: Schema = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 63}
_QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}
_LABEL: Schema = {"type": "string", "pattern": r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", "maxLength": 63}


def _object(required: Sequence[str] = (), **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _map(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


_METADATA = _object(["name"], name=_NAME, labels=_map(_LABEL))
_NAMED = _object(["name"], name=_NAME)
_CONTAINER = _object(
    ["name", "image", "resources"],
    name=_NAME,
    image=_TEXT,
    resources=_object(limits=_map(_QUANTITY), requests=_map(_QUANTITY)),
    ports=_list(
        _object(["containerPort"], name=_NAME, containerPort={"type": "integer", "minimum": 1, "maximum": 65535})
    ),
    envFrom=_list(_object(secretRef=_NAMED)),
    volumeMounts=_list(
        _object(
            ["name", "mountPath"],
            name=_NAME,
            mountPath={"type": "string", "pattern": "^/"},
            readOnly={"type": "boolean"},
        )
    ),
)
_VOLUME = _object(
    ["name"],
    name=_NAME,
    emptyDir=_object(medium={"enum": ["", "Memory"]}, sizeLimit=_QUANTITY),
    persistentVolumeClaim=_object(["claimName"], claimName=_NAME),
    configMap=_NAMED,
)
_POD = _object(
    ["spec"],
    metadata=_object(labels=_map(_LABEL)),
    spec=_object(
        ["containers"],
        containers={**_list(_CONTAINER), "minItems": 1},
        volumes=_list(_VOLUME),
        nodeSelector=_map(_LABEL),
        tolerations=_list(_object(key=_TEXT, operator={"enum": ["Exists", "Equal"]})),
        imagePullSecrets=_list(_NAMED),
        securityContext=_object(runAsNonRoot={"type": "boolean"}, runAsUser=_COUNT, fsGroup=_COUNT),
    ),
)
_START_PARAMS = _map({"type": "string"})
_CLUSTER_SPEC = _object(
    ["headGroupSpec", "rayVersion"],
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=_object(["mode"], mode={"enum": ["disabled", "token"]}, secretName=_NAME),
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=_object(
        version={"enum": ["v1", "v2"]},
        idleTimeoutSeconds=_COUNT,
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    ),
    headGroupSpec=_object(
        ["template"],
        serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
        rayStartParams=_START_PARAMS,
        template=_POD,
    ),
    workerGroupSpecs=_list(
        _object(
            ["groupName", "minReplicas", "maxReplicas", "template"],
            groupName=_NAME,
            replicas=_COUNT,
            minReplicas=_COUNT,
            maxReplicas=_COUNT,
            labels=_map(_LABEL),
            rayStartParams=_START_PARAMS,
            template=_POD,
        )
    ),
)
_JOB_SPEC = _object(
    ["entrypoint", "rayClusterSpec"],
    entrypoint=_TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
    backoffLimit=_COUNT,
    shutdownAfterJobFinishes={"type": "boolean"},
    ttlSecondsAfterFinished=_COUNT,
    rayClusterSpec=_CLUSTER_SPEC,
)
_CLAIM_SPEC = _object(
    ["accessModes", "resources"],
    accessModes=_list({"enum": ["ReadWriteMany"]}),
    resources=_object(["requests"], requests=_object(["storage"], storage=_QUANTITY)),
    storageClassName=_NAME,
)
_SPECS = {
    "RayCluster": ("ray.io/v1", _CLUSTER_SPEC),
    "RayJob": ("ray.io/v1", _JOB_SPEC),
    "PersistentVolumeClaim": ("v1", _CLAIM_SPEC),
}


def schema_of(kind: str) -> Schema:
    """The schema of one kind of manifest."""
    if kind == "ConfigMap":
        body, version = {"data": _map({"type": "string"})}, "v1"
    else:
        version, spec = _SPECS[kind]
        body = {"spec": spec}
    head = {"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": _METADATA}
    return _object(["apiVersion", "kind", "metadata", *body], **head, **body)


def validate(manifest: dict[str, Any]) -> None:
    """Check a manifest against the schema of its kind. Raises jsonschema.ValidationError."""
    jsonschema.validate(manifest, schema_of(manifest["kind"]))
