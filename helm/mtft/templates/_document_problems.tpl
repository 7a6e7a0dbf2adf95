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
