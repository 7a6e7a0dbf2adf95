{{/* Labels of any object: release, then the part of mtft it is. Takes the root and the component. */}}
{{- define "mtft.labels" -}}
{{- $root := index . 0 -}}
{{- dict
  "app.kubernetes.io/name" "mtft"
  "app.kubernetes.io/instance" $root.Release.Name
  "app.kubernetes.io/component" (index . 1)
  "app.kubernetes.io/part-of" "mtft"
  "app.kubernetes.io/version" ($root.Chart.AppVersion | replace "+" "_")
  "app.kubernetes.io/managed-by" $root.Release.Service
  | mustToRawJson -}}
{{- end }}

{{/* Labels of a job's objects and pods, the user's among them. Takes the root and the job. */}}
{{- define "mtft.jobLabels" -}}
{{- $job := index . 1 -}}
{{- $labels := deepCopy $job.cluster.labels -}}
{{- include "mtft.overlay" (list $labels (include "mtft.labels" (list (index . 0) "trainer") | fromJson)) -}}
{{- $own := dict "mtft/model" $job.model "mtft/run" $job.run "mtft/batch" (index . 0).Release.Name -}}
{{- include "mtft.overlay" (list $labels $own) -}}
{{- mustToRawJson $labels -}}
{{- end }}

{{/* Which chart made an object; not on pods, whose template a new chart version would change. */}}
{{- define "mtft.chartLabel" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* Metadata of a job's ConfigMap or of the job itself. Takes the root, the job and further labels. */}}
{{- define "mtft.metadata" -}}
{{- $root := index . 0 -}}
{{- $job := index . 1 -}}
{{- $labels := include "mtft.jobLabels" (list $root $job) | fromJson -}}
{{- $_ := set $labels "helm.sh/chart" (include "mtft.chartLabel" $root) -}}
{{- include "mtft.overlay" (list $labels (index . 2)) -}}
name: {{ $job.name | quote }}
{{- with $job.cluster.namespace }}
namespace: {{ . | quote }}
{{- end }}
labels: {{- include "mtft.block" $labels | trim | nindent 2 }}
{{- with $job.cluster.annotations }}
annotations: {{- include "mtft.block" . | trim | nindent 2 }}
{{- end }}
{{- end }}
