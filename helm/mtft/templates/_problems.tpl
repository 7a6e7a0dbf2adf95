{{/*
What no schema can say: rules between several values, and what only a cluster needs. The rules and their words are those
of mtft/config.py, mtft/cluster_config.py, mtft/problems.py and launcher/pytorchjob.py.
*/}}

{{/* Fail with every problem of the plan. Takes the root, the facts, the plan. */}}
{{- define "mtft.refuse" -}}
{{- $root := index . 0 -}}
{{- $facts := index . 1 -}}
{{- $plan := index . 2 -}}
{{- $given := omit $root.Values "global" | mustToRawJson | fromJson -}}
{{- $problems := include "mtft.documentProblems" (list $facts $plan.document $given) | fromJsonArray -}}
{{- $missing := dict -}}
{{- range $job := $plan.jobs -}}
  {{- $override := dig "models" $job.model nil $plan.document | default dict -}}
  {{- $own := concat (include "mtft.trainProblems" $job | fromJsonArray) (include "mtft.clusterProblems" (list $facts $job) | fromJsonArray) -}}
  {{- range $problem := uniq $own -}}
    {{- if include "mtft.saidBy" (list $override $problem) -}}
      {{- $problems = append $problems (printf "models.%s.%s" $job.model $problem) -}}
    {{- else if include "mtft.saidBy" (list $plan.document $problem) -}}
      {{- $problems = append $problems $problem -}}
    {{- else -}}
      {{- $_ := set $missing $problem (append (get $missing $problem | default list) $job.model) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $problem, $models := $missing -}}
  {{- $everywhere := eq (len $models) (len $plan.jobs) -}}
  {{- range ternary (list "") $models $everywhere -}}
    {{- $problems = append $problems (ternary $problem (printf "models.%s.%s" . $problem) $everywhere) -}}
  {{- end -}}
{{- end -}}
{{- range concat (include "mtft.releaseProblems" (list $root $plan) | fromJsonArray) (include "mtft.chartProblems" (list $root $plan) | fromJsonArray) -}}
  {{- $problems = append $problems . -}}
{{- end -}}
{{- with $problems | uniq -}}
  {{- $told := regexReplaceAll $facts.forms.secret_value (join "\n" .) "(hidden: it looks like a secret)" -}}
  {{- $told = $told | replace "\n" "\n  " -}}
  {{- fail (printf "\n\nthe values have %d problem%s:\n  %s\n" (len .) (ternary "" "s" (eq (len .) 1)) $told) -}}
  {{- /* `helm lint` only logs what fails; without values it looks at the chart alone. */ -}}
  {{- if or (omit $given "models") ($given.models | default dict | values | compact) -}}
    {{- include "the values have problems, told above" $root -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/*
Whether a part of the document gives one of the fields that a problem is about. Takes the part and the problem, which
begins with the path of the field, or of the part whose fields exclude each other.
*/}}
{{- define "mtft.saidBy" -}}
{{- $path := splitList ": " (index . 1) | first -}}
{{- $paths := list $path -}}
{{- if eq $path "train" -}}
  {{- $paths = list "train.batch_size" "train.tokens_per_batch" -}}
{{- else if eq $path "data" -}}
  {{- $paths = list "data.dev" "data.dev_fraction" -}}
{{- else if eq $path "cluster" -}}
  {{- $name := index (splitList ": " (index . 1)) 1 -}}
  {{- $paths = list (printf "cluster.env.%s" $name) (printf "cluster.secrets.%s" $name) -}}
{{- else if hasPrefix "cluster.secrets." $path -}}
  {{- $paths = list (regexFind "^cluster\\.secrets\\.[^.]+" $path) -}}
{{- end -}}
{{- range $each := $paths -}}{{- include "mtft.holds" (list (index $ 0) $each) -}}{{- end -}}
{{- end }}

{{/* Whether a part says anything at a path, of whose last key dots may be a part. Takes the part and the path. */}}
{{- define "mtft.holds" -}}
{{- $path := index . 1 -}}
{{- range $key, $value := index . 0 -}}
  {{- if or (eq $key $path) (hasPrefix (printf "%s[" $key) $path) -}}true
  {{- else if and (kindIs "map" $value) (hasPrefix (printf "%s." $key) $path) -}}
    {{- include "mtft.holds" (list $value (trimPrefix (printf "%s." $key) $path)) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* What concerns all jobs together, the release and the cluster it goes to. Takes the root and the plan. */}}
{{- define "mtft.releaseProblems" -}}
{{- $root := index . 0 -}}
{{- $plan := index . 1 -}}
{{- $problems := list -}}
{{- $claim := (include "mtft.resolved" (list (include "mtft.facts" $root | fromJson) $plan.document) | fromJson).cluster.claim -}}
{{- $pods := 0 -}}
{{- $namespaces := list -}}
{{- range $plan.jobs -}}
  {{- if eq .cluster.claim $claim -}}{{- $pods = add $pods (int .cluster.nodes) -}}{{- end -}}
  {{- $namespaces = append $namespaces (.cluster.namespace | default $root.Release.Namespace) | uniq -}}
{{- end -}}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?$" $root.Release.Name) -}}
  {{- $problems = append $problems (printf "the release name %q names the batch; allowed: a to z, 0 to 9 and - inside, at most 53 characters" $root.Release.Name) -}}
{{- end -}}
{{- if gt (len $namespaces) 1 -}}
  {{- $problems = append $problems (printf "cluster.namespace: a release goes to one namespace, not to %s" (join ", " (sortAlpha $namespaces))) -}}
{{- end -}}
{{- if and (eq $plan.chart.claim.access_mode "ReadWriteOnce") (gt $pods 1) -}}
  {{- $problems = append $problems (printf "chart.claim.access_mode: got ReadWriteOnce, which serves a single pod; the enabled models have %d on claim %s; allowed: ReadWriteMany, or one model with cluster.nodes 1" $pods $claim) -}}
{{- end -}}
{{- $makes := or $plan.chart.jobs $plan.chart.schedule.cron -}}
{{- if and $makes (include "mtft.live" $root) (not ($root.Capabilities.APIVersions.Has "kubeflow.org/v1/PyTorchJob")) -}}
  {{- $problems = append $problems (include "mtft.noOperator" $root) -}}
{{- else -}}
  {{- /* A lookup of a kind that the cluster does not know ends rendering. */ -}}
  {{- $problems = concat $problems (include "mtft.sizeProblems" . | fromJsonArray) -}}
{{- end -}}
{{- mustToRawJson $problems -}}
{{- end }}
