{{/*
Everything the other templates need, as JSON:
  document  what goes into every job
  jobs      of each model to train: model, name, run (hash), and resolved cluster, storage, data, gate, train
  chart     the settings of the chart, resolved
Fails with every problem of the values at once.
*/}}
{{- define "mtft.plan" -}}
{{- $facts := include "mtft.facts" . | fromJson -}}
{{- $document := include "mtft.document" . | fromJson -}}
{{- $chart := include "mtft.chart" . | fromJson -}}
{{- $jobs := list -}}
{{- range $model, $override := include "mtft.chosen" $document | fromJson -}}
  {{- $job := include "mtft.resolved" (list $facts $document $override) | fromJson -}}
  {{- $run := include "mtft.hash" (list $document $model $override) -}}
  {{- $_ := set $job "model" $model -}}
  {{- $_ := set $job "run" $run -}}
  {{- $_ := set $job "name" (include "mtft.jobName" (list $.Release.Name $model $run)) -}}
  {{- $jobs = append $jobs $job -}}
{{- end -}}
{{- $plan := dict "document" $document "chart" $chart "jobs" $jobs -}}
{{- include "mtft.refuse" (list . $facts $plan) -}}
{{- include "mtft.canonical" $plan -}}
{{- end }}
