{{/*
What the templates of this folder share: the plan, and `cluster` and `storage` of all models together. References to
secrets that only the models complete are left out.
*/}}
{{- define "mtft.site" -}}
{{- $plan := include "mtft.plan" . | fromJson -}}
{{- $shared := include "mtft.resolved" (list (include "mtft.facts" . | fromJson) $plan.document) | fromJson -}}
{{- with first $plan.jobs -}}
  {{- /* All jobs go to one namespace; an image may be given for each model alone. */ -}}
  {{- $_ := set $shared.cluster "namespace" .cluster.namespace -}}
  {{- $_ := set $shared.cluster "image" ($shared.cluster.image | default .cluster.image) -}}
{{- end -}}
{{- $secrets := dict -}}
{{- range $variable, $reference := $shared.cluster.secrets -}}
  {{- if and (get $reference "name") (get $reference "key") -}}{{- $_ := set $secrets $variable $reference -}}{{- end -}}
{{- end -}}
{{- $_ := set $shared.cluster "secrets" $secrets -}}
{{- $place := $shared.cluster.namespace | default .Release.Namespace -}}
{{- merge $plan (dict "cluster" $shared.cluster "storage" $shared.storage "place" $place) | mustToRawJson -}}
{{- end }}

{{/* Name of an object of the release; 52 characters, because a CronJob adds 11 to its own. Takes the root and a suffix. */}}
{{- define "mtft.chartName" -}}
{{- include "mtft.label" (list (printf "%s-%s" (index . 0).Release.Name (index . 1)) 52) -}}
{{- end }}

{{/* Metadata of an object of the release. Takes the root, the site, the component and the suffix of its name. */}}
{{- define "mtft.chartMetadata" -}}
{{- $root := index . 0 -}}
name: {{ include "mtft.chartName" (list $root (index . 3)) | quote }}
{{- with (index . 1).cluster.namespace }}
namespace: {{ . | quote }}
{{- end }}
labels: {{ include "mtft.chartLabels" (list $root (index . 2)) }}
{{- end }}

{{/* Labels of an object of the release. Takes the root and the component. */}}
{{- define "mtft.chartLabels" -}}
{{- $chart := dict "helm.sh/chart" (include "mtft.chartLabel" (index . 0)) -}}
{{- include "mtft.labels" . | fromJson | merge $chart | include "mtft.json" -}}
{{- end }}

{{/* Metadata of a small pod, which no queue shall hold. Takes the root, the site and the component. */}}
{{- define "mtft.smallPodMetadata" -}}
{{- $cluster := (index . 1).cluster -}}
{{- $istio := dict "sidecar.istio.io/inject" "false" -}}
{{- $own := include "mtft.labels" (list (index . 0) (index . 2)) | fromJson -}}
labels: {{ merge $own (include "mtft.unqueued" $cluster.labels | fromJson) $istio | include "mtft.json" }}
annotations: {{ merge (include "mtft.unqueued" $cluster.annotations | fromJson) $istio | include "mtft.json" }}
{{- end }}

{{- define "mtft.unqueued" -}}
{{- $free := dict -}}
{{- range $key, $value := . -}}
  {{- if not (hasPrefix "kueue.x-k8s.io/" $key) -}}{{- $_ := set $free $key $value -}}{{- end -}}
{{- end -}}
{{- mustToRawJson $free -}}
{{- end }}

{{/*
What the spec of every small pod has: a trainer's user and nodes, but no GPU, account, queue, gang or priority. Takes
the cluster.
*/}}
{{- define "mtft.smallPod" -}}
{{- $none := dict "scheduler" nil "priority_class" nil "service_account" nil -}}
enableServiceLinks: false
restartPolicy: Never
terminationGracePeriodSeconds: 10
securityContext: {{ include "mtft.podSecurity" . }}
{{- range $field, $value := merge $none (omit . "scheduler" "priority_class" "service_account") | include "mtft.placement" | fromJson }}
{{ $field }}: {{ include "mtft.json" $value }}
{{- end }}
{{- end }}

{{/* Image, security and resources of a small pod's container. Takes the cluster, the size, further resources. */}}
{{- define "mtft.smallContainer" -}}
{{- $cluster := index . 0 -}}
{{- $size := index . 1 -}}
{{- $resources := dict "cpu" (mustToRawJson $size.cpus) "memory" (include "mtft.gib" $size.memory_gib) -}}
{{- $resources = merge $resources (index . 2) | include "mtft.json" -}}
image: {{ include "mtft.json" $cluster.image }}
imagePullPolicy: {{ $cluster.image_pull_policy }}
resources: {requests: {{ $resources }}, limits: {{ $resources }}}
securityContext: {{ include "mtft.containerSecurity" $cluster }}
terminationMessagePolicy: FallbackToLogsOnError
{{- end }}

{{/* A Role, and the ServiceAccount it is bound to. Takes the root, the site, the component, the suffix, the rules. */}}
{{- define "mtft.role" -}}
{{- $root := index . 0 -}}
{{- $site := index . 1 -}}
{{- $metadata := include "mtft.chartMetadata" (list $root $site (index . 2) (index . 3)) -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- $metadata | nindent 2 }}
rules:
  {{- toYaml (index . 4) | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- $metadata | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ include "mtft.chartName" (list $root (index . 3)) | quote }}
subjects:
  - kind: ServiceAccount
    name: {{ index . 5 | quote }}
    namespace: {{ $site.place | quote }}
{{- end }}

{{/* The accounts that the trainers run under, by name, as a JSON list. Takes the plan. */}}
{{- define "mtft.accounts" -}}
{{- $accounts := list -}}
{{- range .jobs -}}
  {{- with .cluster.service_account -}}{{- $accounts = append $accounts . -}}{{- end -}}
{{- end -}}
{{- uniq $accounts | mustToRawJson -}}
{{- end }}
