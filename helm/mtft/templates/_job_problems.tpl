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
{{- range $mount := list "/etc/mtft/" "/tmp/" "/home/mtft/" "/dev/shm/" "/opt/mtft/" "/usr/" "/bin/" "/lib/" "/lib64/" "/proc/" "/sys/" -}}
  {{- if or (hasPrefix $mount $inside) (hasPrefix $inside $mount) -}}
    {{- $problems = append $problems (printf "storage.root: overlaps %s, which the pod needs for itself; got %s; allowed: an absolute path, such as /mnt/mtft" (trimSuffix "/" $mount) $root) -}}
  {{- end -}}
{{- end -}}
{{- mustToRawJson $problems -}}
{{- end }}
