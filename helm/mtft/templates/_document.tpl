{{/*
The user's document, which goes whole and unresolved into every job, as `mtft-launch batch --all` would send it: every
model there is, but for those it disables. With `model` it asks for that one alone. A part left empty (null) is left
out: `helm upgrade --reuse-values` loses it.
*/}}
{{- define "mtft.document" -}}
{{- $document := omit .Values "chart" "global" | mustToRawJson | fromJson | include "mtft.given" | fromJson -}}
{{- if include "mtft.single" $document -}}
  {{- include "mtft.canonical" (omit $document "models") -}}
{{- else -}}
  {{- $models := dict -}}
  {{- $named := $document.models | default dict -}}
  {{- /* Helm takes `key: null` as the wish to drop the key; here, as for the launcher, it is a model without a word. */ -}}
  {{- range $key := (include "mtft.facts" . | fromJson).models -}}
    {{- $_ := set $models $key (get $named $key | default dict) -}}
  {{- end -}}
  {{- $_ := set $document "models" $models -}}
  {{- include "mtft.canonical" $document -}}
{{- end -}}
{{- end }}

{{/* Whether a document asks for one model: it has `model`, and of `models` only what values.yaml says. */}}
{{- define "mtft.single" -}}
{{- if not (kindIs "invalid" .model) -}}
  {{- $own := false -}}
  {{- range $override := .models -}}{{- if $override -}}{{- $own = true -}}{{- end -}}{{- end -}}
  {{- if not $own -}}true{{- end -}}
{{- end -}}
{{- end }}

{{/* The keys of the models to train, as a JSON mapping to what each overrides. */}}
{{- define "mtft.chosen" -}}
{{- $chosen := dict -}}
{{- if hasKey . "models" -}}
  {{- range $key, $override := .models -}}
    {{- if dig "enabled" true $override -}}{{- $_ := set $chosen $key (omit $override "enabled") -}}{{- end -}}
  {{- end -}}
{{- else if kindIs "map" .model -}}
  {{- if .model.key -}}{{- $_ := set $chosen .model.key dict -}}{{- end -}}
{{- else -}}
  {{- $_ := set $chosen .model dict -}}
{{- end -}}
{{- include "mtft.canonical" $chosen -}}
{{- end }}

{{/*
What the chart needs to know of one model: `data`, `gate`, `train`, and with the defaults `cluster` and `storage`.
Takes facts, document, overrides. A part left empty (null) says nothing, but where null is a value: `cluster.gang`.
*/}}
{{- define "mtft.resolved" -}}
{{- $facts := index . 0 -}}
{{- $values := dict "data" dict "gate" dict "train" dict "cluster" (deepCopy $facts.cluster) "storage" (deepCopy $facts.storage) -}}
{{- range $layer := rest . -}}
  {{- range $part := keys $values -}}
    {{- range $name, $value := get $layer $part | default dict -}}
      {{- $below := get (get $values $part) $name -}}
      {{- $nullable := and (hasKey $facts $part) (kindIs "invalid" (get (get $facts $part | default dict) $name)) -}}
      {{- if or $nullable (not (and (kindIs "map" $below) (kindIs "invalid" $value))) -}}
        {{- include "mtft.overlay" (list (get $values $part) (dict $name $value)) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- include "mtft.canonical" $values -}}
{{- end }}

{{/* Where a field of `cluster` is given to a model. Takes the document, the model and the field. */}}
{{- define "mtft.clusterPath" -}}
{{- $override := dig "models" (index . 1) dict (index . 0) | default dict -}}
{{- $own := dig (index . 2) nil ($override.cluster | default dict) -}}
{{- if not (kindIs "invalid" $own) -}}models.{{ index . 1 }}.{{- end -}}
cluster.{{ index . 2 }}
{{- end }}

{{/* The settings of the chart alone, with their defaults. */}}
{{- define "mtft.chart" -}}
{{- $chart := (include "mtft.facts" . | fromJson).chart -}}
{{- include "mtft.overlay" (list $chart (.Values.chart | default dict | mustToRawJson | fromJson | include "mtft.given" | fromJson)) -}}
{{- if kindIs "invalid" $chart.jobs -}}
  {{- $_ := set $chart "jobs" (kindIs "invalid" $chart.schedule.cron) -}}
{{- end -}}
{{- include "mtft.canonical" $chart -}}
{{- end }}
