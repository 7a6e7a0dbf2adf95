{{/* The pod of a job, one template for master and workers, as launcher/pod.py makes it. Takes the root and the job. */}}
{{- define "mtft.pod" -}}
{{- $job := index . 1 -}}
{{- $cluster := $job.cluster -}}
{{- $labels := dict "sidecar.istio.io/inject" "false" -}}
{{- include "mtft.overlay" (list $labels (include "mtft.jobLabels" . | fromJson)) -}}
{{- $annotations := dict
  "sidecar.istio.io/inject" "false"
  "kueue.x-k8s.io/podset-required-topology" $cluster.topology.required
  "kueue.x-k8s.io/podset-preferred-topology" $cluster.topology.preferred
  | include "mtft.given" | fromJson -}}
{{- include "mtft.overlay" (list $annotations $cluster.annotations) -}}
metadata:
  labels: {{- include "mtft.block" $labels | trim | nindent 4 }}
  annotations: {{- include "mtft.block" $annotations | trim | nindent 4 }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "mtft.json" $cluster.grace_seconds }}
  securityContext: {{ include "mtft.podSecurity" $cluster }}
  containers:
    - {{ include "mtft.container" $job | nindent 6 | trim }}
  volumes:
    - {name: config, configMap: {name: {{ $job.name | quote }}}}
    - {name: storage, persistentVolumeClaim: {claimName: {{ $cluster.claim | quote }}}}
    - {name: tmp, emptyDir: {}}
    - {name: home, emptyDir: {}}
    - {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ include "mtft.gib" $cluster.shared_memory_gib }}}}
  {{- range $field, $value := include "mtft.placement" $cluster | fromJson }}
  {{ $field }}: {{ include "mtft.json" $value }}
  {{- end }}
{{- end }}

{{- define "mtft.container" -}}
name: pytorch
image: {{ include "mtft.json" .cluster.image }}
imagePullPolicy: {{ .cluster.image_pull_policy }}
command: [python, -m, trainer, --config, /etc/mtft/config.json, --model, {{ .model }}, --job, {{ .name }}]
env:
  {{- include "mtft.environment" . | trim | nindent 2 }}
resources:
  {{- $resources := include "mtft.resources" .cluster }}
  requests: {{ $resources }}
  limits: {{ $resources }}
securityContext: {{ include "mtft.containerSecurity" . }}
terminationMessagePath: /dev/termination-log
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  - {name: config, mountPath: /etc/mtft, readOnly: true}
  - {name: storage, mountPath: {{ include "mtft.json" .storage.root }}}
  - {name: tmp, mountPath: /tmp}
  - {name: home, mountPath: /home/mtft}
  - {name: shm, mountPath: /dev/shm}
{{- end }}

{{/* Every variable once, sorted by name: what the pod is told, the user's over it, references to Secrets. */}}
{{- define "mtft.environment" -}}
{{- $plain := dict
  "HOME" "/home/mtft"
  "USER" "mtft"
  "TMPDIR" "/tmp"
  "XDG_CACHE_HOME" "/home/mtft/.cache"
  "MPLCONFIGDIR" "/home/mtft/.cache/matplotlib"
  "TRITON_CACHE_DIR" "/home/mtft/.cache/triton"
  "TORCHINDUCTOR_CACHE_DIR" "/home/mtft/.cache/inductor"
  "HF_HOME" (printf "%s/cache/hub" (regexReplaceAll "/+$" .storage.root "")) -}}
{{- $digest := regexFind "@.+$" (.cluster.image | default "") -}}
{{- if $digest -}}{{- $_ := set $plain "MTFT_IMAGE_DIGEST" (trimPrefix "@" $digest) -}}{{- end -}}
{{- include "mtft.overlay" (list $plain .cluster.env) -}}
{{- $entries := dict -}}
{{- range $name, $path := dict
  "MTFT_NAMESPACE" "metadata.namespace"
  "MTFT_POD" "metadata.name"
  "MTFT_POD_UID" "metadata.uid"
  "MTFT_BATCH" "metadata.labels['mtft/batch']"
  "MTFT_RUN" "metadata.labels['mtft/run']" -}}
  {{- $source := dict "fieldRef" (dict "fieldPath" $path) -}}
  {{- $_ := set $entries $name (dict "name" $name "valueFrom" $source) -}}
{{- end -}}
{{- range $name, $value := $plain -}}
  {{- $_ := set $entries $name (dict "name" $name "value" $value) -}}
{{- end -}}
{{- range $name, $ref := .cluster.secrets -}}
  {{- $optional := get $ref "optional" -}}
  {{- if not (kindIs "bool" $optional) -}}{{- $optional = regexMatch "^(WANDB_|MLFLOW_)" $name -}}{{- end -}}
  {{- $source := dict "secretKeyRef" (dict "name" $ref.name "key" $ref.key "optional" $optional) -}}
  {{- $_ := set $entries $name (dict "name" $name "valueFrom" $source) -}}
{{- end -}}
{{- range $name, $entry := $entries }}
- {{ include "mtft.json" $entry }}
{{- end }}
{{- end }}

{{- define "mtft.resources" -}}
{{- $asked := dict "cpu" (mustToRawJson .cpus) "memory" (include "mtft.gib" .memory_gib) -}}
{{- if .ephemeral_storage_gib -}}
  {{- $_ := set $asked "ephemeral-storage" (include "mtft.gib" .ephemeral_storage_gib) -}}
{{- end -}}
{{- if .gpus_per_node -}}{{- $_ := set $asked .gpu_resource (mustToRawJson .gpus_per_node) -}}{{- end -}}
{{- include "mtft.json" $asked -}}
{{- end }}

{{- define "mtft.gib" -}}
{{- mustToRawJson . -}}Gi
{{- end }}

{{- define "mtft.podSecurity" -}}
{{- $security := dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- if not (kindIs "invalid" .run_as_user) -}}
  {{- $_ := set $security "runAsUser" .run_as_user -}}
  {{- $_ := set $security "runAsGroup" 0 -}}
{{- end -}}
{{- if not (kindIs "invalid" .fs_group) -}}
  {{- $_ := set $security "fsGroup" .fs_group -}}
  {{- $_ := set $security "fsGroupChangePolicy" "OnRootMismatch" -}}
{{- end -}}
{{- include "mtft.json" $security -}}
{{- end }}

{{- define "mtft.containerSecurity" -}}
{{- dict
  "allowPrivilegeEscalation" false
  "capabilities" (dict "drop" (list "ALL"))
  "readOnlyRootFilesystem" true
  "runAsNonRoot" true
  "seccompProfile" (dict "type" "RuntimeDefault")
  | mustToRawJson -}}
{{- end }}
