{{/* Names as mtft/naming.py makes them. */}}

{{/* Ten hex digits that identify what a document asks of one model. Takes document, model, overrides. */}}
{{- define "mtft.hash" -}}
{{- $document := index . 0 -}}
{{- $asked := omit $document "model" "models" | include "mtft.given" | fromJson -}}
{{- if kindIs "map" $document.model -}}
  {{- include "mtft.overlay" (list $asked (dict "model" $document.model)) -}}
{{- end -}}
{{- include "mtft.overlay" (list $asked (index . 2 | include "mtft.given" | fromJson)) -}}
{{- include "mtft.overlay" (list $asked (dict "model" (dict "key" (index . 1)))) -}}
{{- include "mtft.canonical" (omit $asked "cluster" "storage" "chart") | sha256sum | trunc 10 -}}
{{- end }}

{{/* <release>-<model>-<hash>, a DNS-1035 label of at most 50 characters. Takes release, model, hash. */}}
{{- define "mtft.jobName" -}}
{{- $model := include "mtft.label" (list (index . 1 | replace "_" "-") 20) -}}
{{- $tail := printf "%s-%s" $model (index . 2) -}}
{{- printf "%s-%s" (include "mtft.label" (list (index . 0) (sub 49 (len $tail)))) $tail -}}
{{- end }}

{{/* A text as a DNS-1035 label of at most so many characters, marked with a hash where it had to be changed. */}}
{{- define "mtft.label" -}}
{{- $text := index . 0 -}}
{{- $longest := index . 1 | int -}}
{{- if and (le (len $text) $longest) (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $text) -}}
  {{- $text -}}
{{- else -}}
  {{- $readable := regexReplaceAll "[^a-z0-9]+" (lower $text) "-" | regexFind "[a-z].*" | trunc (sub $longest 7 | int) -}}
  {{- printf "%s-%s" ($readable | trimAll "-" | default "x") ($text | sha256sum | trunc 6) -}}
{{- end -}}
{{- end }}
