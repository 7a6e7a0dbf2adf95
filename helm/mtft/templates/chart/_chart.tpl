{{/* What the templates of this folder share: the plan, and `cluster` and `storage` of all models together. */}}
{{- define "mtft.site" -}}
{{- $plan := include "mtft.plan" . | fromJson -}}
{{- $shared := include "mtft.resolved" (list (include "mtft.facts" . | fromJson) $plan.document) | fromJson -}}
{{- with first $plan.jobs -}}
  {{- /* All jobs go to one namespace; an image may be given for each model alone. */ -}}
  {{- $_ := set $shared.cluster "namespace" .cluster.namespace -}}
  {{- $_ := set $shared.cluster "image" ($shared.cluster.image | default .cluster.image) -}}
{{- end -}}
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

{{/* Metadata of a small pod. Takes the root, the site and the component. */}}
{{- define "mtft.smallPodMetadata" -}}
{{- $cluster := (index . 1).cluster -}}
{{- $istio := dict "sidecar.istio.io/inject" "false" -}}
{{- $own := include "mtft.labels" (list (index . 0) (index . 2)) | fromJson -}}
labels: {{ merge $own $cluster.labels $istio | include "mtft.json" }}
annotations: {{ merge $cluster.annotations $istio | include "mtft.json" }}
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

{{/* What is wrong with the settings of this folder, as a JSON list. Takes the plan. */}}
{{- define "mtft.chartProblems" -}}
{{- $problems := list -}}
{{- $chart := .chart -}}
{{- $schedule := $chart.schedule -}}
{{- if and $chart.service_account (not (.document.cluster | default dict).service_account) -}}
  {{- $problems = append $problems "chart.service_account: is true, but cluster.service_account names no account; set cluster.service_account=NAME" -}}
{{- end -}}
{{- if and $schedule.wait (not $schedule.cron) -}}
  {{- $problems = append $problems "chart.schedule.wait: there is no schedule; set chart.schedule.cron, such as \"0 2 * * 0\"" -}}
{{- end -}}
{{- if eq (lower $schedule.time_zone) "local" -}}
  {{- $problems = append $problems (printf "chart.schedule.time_zone: got %s, which Kubernetes refuses; allowed: a name of the IANA time zone database, such as Europe/Paris" $schedule.time_zone) -}}
{{- end -}}
{{- if and $schedule.cron $schedule.wait $chart.claim.create (eq $chart.claim.access_mode "ReadWriteOnce") -}}
  {{- $problems = append $problems "chart.schedule.wait: the waiting launcher would hold the volume, which chart.claim.access_mode ReadWriteOnce gives to pods of one node at a time, so the trainer might never start; leave out wait, or give ReadWriteMany" -}}
{{- end -}}
{{- $claims := dict -}}
{{- range $job := ternary .jobs list (not (empty $schedule.cron)) -}}
  {{- $root := $job.storage.root -}}
  {{- $other := get $claims $root | default $job.cluster.claim -}}
  {{- if ne $other $job.cluster.claim -}}
    {{- $problems = append $problems (printf "models.%s.cluster.claim: %s is mounted at %s, where the launcher of chart.schedule mounts %s; give it another storage.root" $job.model $job.cluster.claim $root $other) -}}
  {{- end -}}
  {{- $_ := set $claims $root $other -}}
{{- end -}}
{{- mustToRawJson $problems -}}
{{- end }}
