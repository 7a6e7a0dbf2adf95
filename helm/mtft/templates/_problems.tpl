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

{{/* Old names, secrets, and a document that asks for nothing. Takes the facts, the document, the values. */}}
{{- define "mtft.documentProblems" -}}
{{- $facts := index . 0 -}}
{{- $document := index . 1 -}}
{{- $problems := list -}}
{{- $parts := dict "" (index . 2) -}}
{{- range $key, $override := $document.models -}}{{- $_ := set $parts (printf "models.%s." $key) $override -}}{{- end -}}
{{- range $prefix, $part := $parts -}}
  {{- range $old, $new := $facts.old_names -}}
    {{- if hasKey $part $old -}}
      {{- $problems = append $problems (printf "%s%s: is an old name; write %s%s" $prefix $old $prefix $new) -}}
    {{- end -}}
  {{- end -}}
  {{- range $name, $value := get (get $part "cluster" | default dict) "env" | default dict -}}
    {{- if and (regexMatch $facts.forms.secret_name $name) (not (regexMatch $facts.forms.switch $value)) -}}
      {{- $problems = append $problems (include "mtft.secret" (printf "%scluster.env.%s" $prefix $name)) -}}
    {{- end -}}
  {{- end -}}
  {{- $problems = concat $problems (include "mtft.referenceProblems" (list $facts.forms $prefix $part) | fromJsonArray) -}}
  {{- $problems = concat $problems (include "mtft.rereadProblems" (list $prefix $part) | fromJsonArray) -}}
{{- end -}}
{{- range $key, $override := $document.models -}}
  {{- $other := get $override "model" -}}
  {{- if kindIs "map" $other -}}{{- $other = get $other "key" -}}{{- end -}}
  {{- if and $other (ne $other $key) -}}
    {{- $problems = append $problems (printf "models.%s.model.key: is another model; got %s; allowed: %s" $key $other $key) -}}
  {{- end -}}
{{- end -}}
{{- $form := $facts.forms.secret_value -}}
{{- range $path, $text := include "mtft.texts" (list "" (index . 2) $form) | fromJson -}}
  {{- if regexMatch $form $text -}}
    {{- $problems = append $problems (include "mtft.secret" $path) -}}
  {{- end -}}
{{- end -}}
{{- if and (hasKey $document "models") (not (kindIs "invalid" $document.model)) -}}
  {{- $problems = append $problems "models: stands beside model; keep model for one job, models for a batch" -}}
{{- else if and (kindIs "invalid" $document.model) (not (hasKey (index . 2) "models")) -}}
  {{- /* Helm takes the null away. */ -}}
  {{- $problems = append $problems "models: is not a mapping; allowed: {key: {enabled: true, ...overrides}}" -}}
{{- else if not (include "mtft.chosen" $document | fromJson) -}}
  {{- if hasKey $document "models" -}}
    {{- $problems = append $problems "models: has no enabled model; leave out `enabled: false` of one of them" -}}
  {{- else -}}
    {{- $problems = append $problems (printf "model.key: is required; allowed: %s" (join " | " $facts.models)) -}}
  {{- end -}}
{{- end -}}
{{- mustToRawJson $problems -}}
{{- end }}

{{/*
Names that nobody wrote: of a plain `no:` or `on:` YAML 1.1 makes false or true before Helm looks at it. Takes the path so
far and the part of the document.
*/}}
{{- define "mtft.rereadProblems" -}}
{{- $prefix := index . 0 -}}
{{- $cluster := get (index . 1) "cluster" | default dict -}}
{{- $gate := get (index . 1) "gate" | default dict -}}
{{- $maps := dict "gate.guard_sets" (get $gate "guard_sets") -}}
{{- range list "env" "secrets" "labels" "annotations" "node_selector" -}}
  {{- $_ := set $maps (printf "cluster.%s" .) (get $cluster .) -}}
{{- end -}}
{{- range list "required" "preferred" -}}
  {{- $_ := set $maps (printf "cluster.affinity.%s" .) (get (get $cluster "affinity" | default dict) .) -}}
{{- end -}}
{{- $problems := list -}}
{{- range $field, $map := $maps -}}
  {{- range $name := keys ($map | default dict) -}}
    {{- if has $name (list "true" "false") -}}
      {{- $problems = append $problems (printf "%s%s.%s: is no name, but what YAML makes of a plain n, no, off, on, y or yes; write the name in quotes" $prefix $field $name) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- mustToRawJson $problems -}}
{{- end }}

{{/*
References to secrets that are none, keys included. Helm would print what the schema refuses, and it may be the secret
itself. Takes the forms, the path so far and the part of the document.
*/}}
{{- define "mtft.referenceProblems" -}}
{{- $forms := index . 0 -}}
{{- $prefix := printf "%scluster." (index . 1) -}}
{{- $cluster := get (index . 2) "cluster" | default dict -}}
{{- $problems := list -}}
{{- range $variable, $reference := get $cluster "secrets" | default dict -}}
  {{- $known := regexMatch $forms.variable.pattern $variable -}}
  {{- $problems = concat $problems (include "mtft.formProblems" (list $forms $forms.variable (printf "%ssecrets.(a key)" $prefix) $variable) | fromJsonArray) -}}
  {{- range $name, $text := ternary $reference dict (and $known (kindIs "map" $reference)) -}}
    {{- $path := printf "%ssecrets.%s.%s" $prefix $variable $name -}}
    {{- if not (hasKey $forms.secret_ref $name) -}}
      {{- $problems = append $problems (printf "%ssecrets.%s.(a key): there is no such field; got (hidden: it may be a secret); allowed: %s" $prefix $variable (keys $forms.secret_ref | sortAlpha | join ", ")) -}}
    {{- else if kindIs "string" $text -}}
      {{- $problems = concat $problems (include "mtft.formProblems" (list $forms (get $forms.secret_ref $name) $path $text) | fromJsonArray) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $index, $text := get $cluster "image_pull_secrets" | default list -}}
  {{- $path := printf "%simage_pull_secrets[%d]" $prefix $index -}}
  {{- $problems = concat $problems (include "mtft.formProblems" (list $forms $forms.secret_ref.name $path $text) | fromJsonArray) -}}
{{- end -}}
{{- mustToRawJson $problems -}}
{{- end }}

{{/* The wrong form of what may be a secret, but where it looks like one: that is told anyway. Takes forms, form, path, text. */}}
{{- define "mtft.formProblems" -}}
{{- $form := index . 1 -}}
{{- $problems := list -}}
{{- if not (or (regexMatch $form.pattern (index . 3)) (regexMatch (index . 0).secret_value (index . 3))) -}}
  {{- $problems = append $problems (printf "%s: has the wrong form; got (hidden: it may be a secret); allowed: %s" (index . 2) $form.allowed) -}}
{{- end -}}
{{- mustToRawJson $problems -}}
{{- end }}

{{- define "mtft.secret" -}}
{{ . }}: a secret is given by reference only; got (hidden: it looks like a secret); set cluster.secrets.<VARIABLE>={name: <secret>, key: <key>} and keep the value in a Kubernetes Secret
{{- end }}

{{/*
Every text of the values by its path, and every key that looks like a secret by a path without it. Takes the path so far,
the value and the form of secrets.
*/}}
{{- define "mtft.texts" -}}
{{- $path := index . 0 -}}
{{- $value := index . 1 -}}
{{- $form := index . 2 -}}
{{- $texts := dict -}}
{{- if kindIs "string" $value -}}
  {{- $_ := set $texts $path $value -}}
{{- else if kindIs "map" $value -}}
  {{- range $name, $inside := $value -}}
    {{- $shown := ternary "(a key)" $name (regexMatch $form $name) -}}
    {{- $below := ternary (printf "%s.%s" $path $shown) $shown (ne $path "") -}}
    {{- include "mtft.overlay" (list $texts (include "mtft.texts" (list $below $inside $form) | fromJson)) -}}
    {{- if ne $shown $name -}}{{- $_ := set $texts $below $name -}}{{- end -}}
  {{- end -}}
{{- else if kindIs "slice" $value -}}
  {{- range $index, $inside := $value -}}
    {{- $below := printf "%s[%d]" $path $index -}}
    {{- include "mtft.overlay" (list $texts (include "mtft.texts" (list $below $inside $form) | fromJson)) -}}
  {{- end -}}
{{- end -}}
{{- mustToRawJson $texts -}}
{{- end }}

{{/* Which rows, and how many at once. Takes the job. */}}
{{- define "mtft.trainProblems" -}}
{{- $problems := list -}}
{{- if not .data.train -}}
  {{- $problems = append $problems "data.train: is required; add --set data.train=PATH, such as /mnt/mtft/data/train.jsonl.gz" -}}
{{- end -}}
{{- if and (not .data.dev) (kindIs "float64" .data.dev_fraction) (not .data.dev_fraction) -}}
  {{- $problems = append $problems "data: no dev rows: give data.dev, or a data.dev_fraction above 0" -}}
{{- end -}}
{{- if and .train.batch_size .train.tokens_per_batch -}}
  {{- $problems = append $problems (printf "train: train.batch_size and train.tokens_per_batch exclude each other: give one of them; got %v and %v" .train.batch_size .train.tokens_per_batch) -}}
{{- else if and (hasKey .train "batch_size") (not .train.batch_size) (not .train.tokens_per_batch) -}}
  {{- $problems = append $problems "train: give either train.batch_size or train.tokens_per_batch; got batch_size null" -}}
{{- end -}}
{{- mustToRawJson $problems -}}
{{- end }}

{{/* What a pod cannot be made of. Takes the facts and the job. */}}
{{- define "mtft.clusterProblems" -}}
{{- $forms := (index . 0).forms -}}
{{- $cluster := (index . 1).cluster -}}
{{- $data := (index . 1).data -}}
{{- $root := (index . 1).storage.root -}}
{{- $problems := list -}}
{{- if not $cluster.image -}}
  {{- $problems = append $problems "cluster.image: is required in a cluster; build one (docs/recipes/image.md) and add --set cluster.image=REPOSITORY:TAG" -}}
{{- end -}}
{{- $form := $forms.image -}}
{{- if not (or (empty $cluster.image) (regexMatch $form.pattern $cluster.image) (regexMatch $forms.secret_value $cluster.image)) -}}
  {{- $problems = append $problems (printf "cluster.image: has the wrong form; got %q; allowed: %s" $cluster.image $form.allowed) -}}
{{- end -}}
{{- $problems = concat $problems (include "mtft.rootProblems" $root | fromJsonArray) -}}
{{- $rows := dict "data.train" $data.train "data.dev" $data.dev "data.test" $data.test -}}
{{- range $name, $given := (index . 1).gate.guard_sets -}}
  {{- $_ := set $rows (printf "gate.guard_sets.%s" $name) $given -}}
{{- end -}}
{{- range $field, $given := $rows -}}
  {{- range $path := ternary (list $given) ($given | default list) (kindIs "string" $given) -}}
    {{- if not (or (empty $path) (hasPrefix "/" $path) (contains "://" $path) (regexMatch $forms.secret_value $path)) -}}
      {{- $problems = append $problems (printf "%s: %s is a path of this machine, but the pods see only %s of the shared volume; put it there, then give %s/data/%s" $field $path $root (trimSuffix "/" $root) (base $path)) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if and $cluster.topology.required $cluster.topology.preferred -}}
  {{- $problems = append $problems "cluster.topology: required and preferred exclude each other: give one of them" -}}
{{- end -}}
{{- range $name := concat (keys $cluster.env) (keys $cluster.secrets) | uniq | sortAlpha -}}
  {{- if and (hasKey $cluster.env $name) (hasKey $cluster.secrets $name) -}}
    {{- $problems = append $problems (printf "cluster: %s: in env and in secrets; keep the one in secrets" $name) -}}
  {{- end -}}
  {{- if regexMatch $forms.set_variable $name -}}
    {{- $problems = append $problems (printf "cluster.%s.%s: is set by the training operator or mtft; leave it out" (ternary "env" "secrets" (hasKey $cluster.env $name)) $name) -}}
  {{- end -}}
{{- end -}}
{{- range $name, $reference := $cluster.secrets -}}
  {{- /* What else is wrong with a reference is told where it stands. */ -}}
  {{- $told := not (and (kindIs "map" $reference) (regexMatch $forms.variable.pattern $name)) -}}
  {{- range $required := list "key" "name" -}}
    {{- if not (or $told (get $reference $required)) -}}
      {{- $problems = append $problems (printf "cluster.secrets.%s.%s: is required" $name $required) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $field := list "labels" "annotations" -}}
  {{- range $name := get $cluster $field | keys | sortAlpha -}}
    {{- if regexMatch $forms.our_key $name -}}
      {{- $problems = append $problems (printf "cluster.%s.%s: is set by mtft, the training operator, Helm or a Kubernetes Job; leave it out" $field $name) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $index, $toleration := $cluster.tolerations -}}
  {{- $path := printf "cluster.tolerations[%d]" $index -}}
  {{- $exists := eq (get $toleration "operator") "Exists" -}}
  {{- if and $exists (hasKey $toleration "value") (not (kindIs "invalid" $toleration.value)) -}}
    {{- $problems = append $problems (printf "%s: operator Exists takes no value: leave out value, or give operator Equal" $path) -}}
  {{- else if not (or $exists (get $toleration "key")) -}}
    {{- $problems = append $problems (printf "%s: operator Equal needs a key; without one give operator Exists" $path) -}}
  {{- end -}}
  {{- if and (kindIs "float64" (get $toleration "tolerationSeconds")) (ne (toString (get $toleration "effect")) "NoExecute") -}}
    {{- $problems = append $problems (printf "%s: tolerationSeconds needs effect NoExecute" $path) -}}
  {{- end -}}
{{- end -}}
{{- mustToRawJson $problems -}}
{{- end }}

{{/* Where no volume can be mounted. Takes the root. */}}
{{- define "mtft.rootProblems" -}}
{{- $root := . -}}
{{- $problems := list -}}
{{- if or (not (hasPrefix "/" $root)) (contains ":" $root) (ne (clean $root) (regexReplaceAll "/+$" $root "" | default "/")) -}}
  {{- $problems = append $problems (printf "storage.root: cannot be mounted in a pod; got %s; allowed: an absolute path, such as /mnt/mtft" $root) -}}
{{- end -}}
{{- $inside := printf "%s/" (regexReplaceAll "/+$" $root "") -}}
{{- range $mount := list "/etc/mtft/" "/tmp/" "/home/mtft/" "/dev/shm/" -}}
  {{- if or (hasPrefix $mount $inside) (hasPrefix $inside $mount) -}}
    {{- $problems = append $problems (printf "storage.root: overlaps %s, which the pod needs for itself; got %s; allowed: an absolute path, such as /mnt/mtft" (trimSuffix "/" $mount) $root) -}}
  {{- end -}}
{{- end -}}
{{- mustToRawJson $problems -}}
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
{{- end -}}
{{- concat $problems (include "mtft.sizeProblems" . | fromJsonArray) | mustToRawJson -}}
{{- end }}

{{/* Whether a cluster was asked: `helm template` knows no kinds but Kubernetes' own, and these are no client's. */}}
{{- define "mtft.live" -}}
{{- if .Capabilities.APIVersions.Has "apiregistration.k8s.io/v1" -}}true{{- end -}}
{{- end }}

{{- define "mtft.noOperator" -}}
the cluster does not know PyTorchJob (kubeflow.org/v1); install the training operator: kubectl apply --server-side -k "github.com/kubeflow/trainer.git/manifests/overlays/standalone?ref=v1.9.4"
{{- end }}
