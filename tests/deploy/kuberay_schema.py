"""The parts of KubeRay's resources that deploy/kuberay uses, as JSON schemas.

Written by hand from KubeRay's API reference (v1.6.2, ray.io/v1) and from what its operator refuses;
the resource definitions themselves are in no package that the tests could install. A field that is
not here is an error: look it up in the reference before adding it.
"""

from __future__ import annotations

from collections.abc import Mapping

Schema = Mapping[str, object]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti)?$"}
QUANTITIES: Schema = {"type": "object", "additionalProperties": QUANTITY}


def fields(required: Mapping[str, object], optional: Mapping[str, object] | None = None) -> Schema:
    """An object with these fields and no other."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        "additionalProperties": False,
    }


def items(schema: Schema) -> Schema:
    """A list of at least one."""
    return {"type": "array", "items": schema, "minItems": 1}


SECRET_KEY = fields({"secretKeyRef": fields({"name": NAME, "key": TEXT})})
CONTAINER = fields(
    {
        "name": NAME,
        "image": TEXT,
        "resources": fields({"requests": QUANTITIES, "limits": QUANTITIES}),
    },
    {
        "ports": items(fields({"name": NAME, "containerPort": COUNT})),
        "volumeMounts": items(fields({"name": NAME, "mountPath": TEXT})),
        "env": items(fields({"name": TEXT}, {"value": TEXT, "valueFrom": SECRET_KEY})),
    },
)
VOLUME: Schema = {
    "oneOf": [
        fields({"name": NAME, "persistentVolumeClaim": fields({"claimName": NAME})}),
        fields({"name": NAME, "emptyDir": {"type": "object"}}),
    ]
}
POD = fields(
    {"containers": items(CONTAINER)},
    {
        "volumes": items(VOLUME),
        "restartPolicy": {"enum": ["Always", "OnFailure", "Never"]},
        "securityContext": fields(
            {}, {"runAsNonRoot": FLAG, "runAsUser": COUNT, "runAsGroup": COUNT, "fsGroup": COUNT}
        ),
    },
)
TEMPLATE = fields({"spec": POD}, {"metadata": {"type": "object"}})
WORKERS = fields(
    {
        "groupName": NAME,
        "minReplicas": COUNT,
        "maxReplicas": COUNT,
        "rayStartParams": TEXTS,
        "template": TEMPLATE,
    },
    {"replicas": COUNT, "numOfHosts": COUNT, "idleTimeoutSeconds": COUNT},
)
CLUSTER_SPEC = fields(
    {
        "rayVersion": TEXT,
        "headGroupSpec": fields({"template": TEMPLATE}, {"rayStartParams": TEXTS}),
        "workerGroupSpecs": items(WORKERS),
    },
    {
        "authOptions": fields({}, {"mode": {"enum": ["disabled", "token"]}, "secretName": NAME}),
        "gcsFaultToleranceOptions": fields(
            {"redisAddress": TEXT},
            {
                "redisPassword": fields({"valueFrom": SECRET_KEY}),
                "externalStorageNamespace": TEXT,
            },
        ),
    },
)


def job_spec(mode: str) -> Schema:
    """A RayJob's spec; the operator refuses a template of a submitter beside the head."""
    others = {} if mode == "SidecarMode" else {"submitterPodTemplate": TEMPLATE}
    return fields(
        {"entrypoint": TEXT, "rayClusterSpec": CLUSTER_SPEC, "submissionMode": {"const": mode}},
        {
            "backoffLimit": COUNT,
            "shutdownAfterJobFinishes": FLAG,
            "ttlSecondsAfterFinished": COUNT,
            "activeDeadlineSeconds": COUNT,
            **others,
        },
    )


def resource(kind: str, spec: Schema) -> Schema:
    """A resource of KubeRay's API group."""
    return fields(
        {
            "apiVersion": {"const": "ray.io/v1"},
            "kind": {"const": kind},
            "metadata": fields({"name": NAME}, {"labels": TEXTS, "annotations": TEXTS}),
            "spec": spec,
        }
    )


RAY_CLUSTER = resource("RayCluster", CLUSTER_SPEC)
RAY_JOB = resource("RayJob", job_spec("SidecarMode"))
