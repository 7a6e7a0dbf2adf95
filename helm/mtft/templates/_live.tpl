{{/* Whether a cluster was asked: `helm template` knows no kinds but Kubernetes' own, and these are no client's. */}}
{{- define "mtft.live" -}}
{{- if .Capabilities.APIVersions.Has "apiregistration.k8s.io/v1" -}}true{{- end -}}
{{- end }}

{{/*
Jobs that are there and another number of pods than the cluster has of them: the operator would add or delete pods of a
training that runs, without a checkpoint. A job that has ended or is held back has no pods. Takes the root and the plan.
*/}}
{{- define "mtft.sizeProblems" -}}
{{- $root := index . 0 -}}
{{- $plan := index . 1 -}}
{{- $problems := list -}}
{{- range $job := ternary $plan.jobs list (and $root.Release.IsUpgrade $plan.chart.jobs) -}}
  {{- $place := $job.cluster.namespace | default $root.Release.Namespace -}}
  {{- $live := lookup "kubeflow.org/v1" "PyTorchJob" $place $job.name -}}
  {{- $pods := 0 -}}
  {{- range dig "spec" "pytorchReplicaSpecs" dict $live -}}{{- $pods = .replicas | default 1 | int | add $pods -}}{{- end -}}
  {{- $over := or (dig "spec" "runPolicy" "suspend" false $live) (include "mtft.ending" $live) -}}
  {{- if and $pods (not $over) (ne (int $pods) (int $job.cluster.nodes)) -}}
    {{- $path := include "mtft.clusterPath" (list $plan.document $job.model "nodes") -}}
    {{- $problems = append $problems (include "mtft.resized" (list $path $job $pods $place)) -}}
  {{- end -}}
{{- end -}}
{{- mustToRawJson $problems -}}
{{- end }}

{{/* How a job that is there has ended: Succeeded, Failed, or nothing. Takes the job. */}}
{{- define "mtft.ending" -}}
{{- range dig "status" "conditions" list . -}}
  {{- if and (has .type (list "Succeeded" "Failed")) (eq .status "True") -}}{{- .type -}}{{- end -}}
{{- end -}}
{{- end }}

{{/* Names of the jobs that an upgrade finds failed and leaves so, as a JSON list. Takes the root and the site. */}}
{{- define "mtft.failed" -}}
{{- $root := index . 0 -}}
{{- $site := index . 1 -}}
{{- $failed := list -}}
{{- range $job := ternary $site.jobs list (and $root.Release.IsUpgrade $site.chart.jobs) -}}
  {{- $live := lookup "kubeflow.org/v1" "PyTorchJob" $site.place $job.name -}}
  {{- if eq (include "mtft.ending" $live) "Failed" -}}{{- $failed = append $failed $job.name -}}{{- end -}}
{{- end -}}
{{- mustToRawJson $failed -}}
{{- end }}

{{- define "mtft.resized" -}}
{{- $path := index . 0 -}}
{{- $job := index . 1 -}}
{{- $pods := index . 2 -}}
{{- $place := index . 3 -}}
{{ $path }}: got {{ int $job.cluster.nodes }}, but job {{ $job.name }} is there with {{ $pods }} and has not ended; its pods would be added or deleted while it trains. Set {{ $path }}={{ $pods }} again, or wait for its end, or first hold it back (mtft-launch suspend {{ $job.name }} -n {{ $place }}, after the upgrade resume) or delete it (kubectl delete pytorchjob {{ $job.name }} -n {{ $place }}; the new one goes on from its last checkpoint)
{{- end }}

{{/*
What the claim asks for: the size given, or that of the claim which is there, where somebody has made it larger: no claim
can shrink. Takes the site and the size.
*/}}
{{- define "mtft.claimSize" -}}
{{- $site := index . 0 -}}
{{- $live := lookup "v1" "PersistentVolumeClaim" $site.place $site.cluster.claim -}}
{{- $there := dig "spec" "resources" "requests" "storage" "0" $live -}}
{{- ternary $there (index . 1) (gt (include "mtft.bytes" $there | float64) (include "mtft.bytes" (index . 1) | float64)) -}}
{{- end }}

{{/* A Kubernetes quantity as a number. The server writes one that is no whole number of bytes in thousandths (m) or less. */}}
{{- define "mtft.bytes" -}}
{{- $unit := regexFind "([KMGTPE]i|[kMGTPEmun])$" . -}}
{{- $steps := dict "" 0 "k" 1 "K" 1 "M" 2 "G" 3 "T" 4 "P" 5 "E" 6 "m" 1 "u" 2 "n" 3 -}}
{{- $step := ternary 1024 (ternary 0.001 1000 (has $unit (list "m" "u" "n"))) (hasSuffix "i" $unit) -}}
{{- $bytes := trimSuffix $unit . | float64 -}}
{{- range until (get $steps (trimSuffix "i" $unit) | int) -}}{{- $bytes = mulf $bytes $step -}}{{- end -}}
{{- printf "%f" $bytes -}}
{{- end }}

{{- define "mtft.noOperator" -}}
the cluster does not know PyTorchJob (kubeflow.org/v1); install the training operator: kubectl apply --server-side -k "github.com/kubeflow/trainer.git/manifests/overlays/standalone?ref=v1.9.4"
{{- end }}
